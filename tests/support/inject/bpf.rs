//! What programs drop: on arrival, on a socket's behalf, or before there is a packet at all.

use std::{
    fs::{self, File},
    io::Write as _,
    net::UdpSocket,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
};

use nix::net::if_::if_nametoindex;

use super::{
    A, B, Case, Expected, Prepared, STRANGER, needs,
    sys::{self, Hook, Kind},
    wire::Wire,
};
use crate::support::{
    frames::{self, Packet},
    net::Net,
};

pub const CASES: &[Case] = &[
    Case::new("xdp_generic", 347, xdp_generic).needs(&[needs::XDP]),
    Case::new("xdp_on_veth", 349, xdp_veth).needs(&[needs::XDP]),
    Case::new("nothing_for_xdp_in_a_driver", 353, xdp_driver).needs(&[needs::XDP, needs::TUN]),
    Case::new("cgroup_egress", 359, cgroup_egress).needs(&[needs::CGROUP]),
    Case::new("cgroup_ingress", 367, cgroup_ingress).needs(&[needs::CGROUP]),
];

/// In which kernel path an XDP program runs.
pub(super) const GENERIC: u32 = 1 << 1;
const DRIVER: u32 = 1 << 2;
const XDP_DROP: u8 = 1;

pub(super) fn drop_on(net: &Net, device: &str, flags: u32) -> OwnedFd {
    net.run(|| {
        let index = if_nametoindex(device).expect("the device's index");
        sys::attach(Kind::Xdp, Hook::Xdp, index, flags, XDP_DROP).expect("an XDP program")
    })
}

fn xdp_generic(count: u64) -> Prepared {
    let wire = Wire::new();
    let program = drop_on(&wire.b, "vb", GENERIC);
    let locations = &["do_xdp_generic", "netif_receive_generic_xdp", "__netif_receive_skb_core"];
    let packet = Packet::udp(STRANGER, B, 9);
    wire.packets(&packet, Expected::new(count, "NOT_SPECIFIED", locations)).keeping(program)
}

fn xdp_veth(count: u64) -> Prepared {
    let wire = Wire::new();
    let program = drop_on(&wire.b, "vb", DRIVER);
    let locations = &["veth_xdp_rcv_skb", "veth_poll", "veth_xdp_rcv"];
    let packet = Packet::udp(STRANGER, B, 9);
    wire.packets(&packet, Expected::new(count, "NOT_SPECIFIED", locations)).keeping(program)
}

/// What is written to a tap device meets the program before it is a packet.
fn xdp_driver(count: u64) -> Prepared {
    let net = Net::quiet();
    let tap = net.run(|| sys::tap("tap")).expect("a tap device");
    net.ip("link set tap up");
    let program = drop_on(&net, "tap", DRIVER);
    let to = net.hardware_address("tap");
    let packet = Packet::udp(STRANGER, B, 9).bytes();
    let frame = frames::frame(to, [2, 0, 0, 0, 0, 1], frames::IPV4, &packet);
    let prepared = Prepared::nothing(move || {
        for _ in 0..count {
            (&tap).write_all(&frame).expect("the frame is written");
        }
    });
    prepared.keeping((net, program))
}

/// A group of our own in the unified hierarchy, which this process is in while it makes a socket.
pub struct Group(PathBuf);

impl Group {
    pub fn new() -> Self {
        let root = needs::unified_hierarchy().expect("the unified hierarchy");
        let group = root.join(format!("dropwatch-{}", std::process::id()));
        fs::create_dir(&group).expect("a control group");
        Self(group)
    }

    /// A socket of the group, in the namespace.
    pub fn socket(&self, net: &Net, port: u16) -> UdpSocket {
        let own = fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a unified group");
        let home = self.0.parent().expect("a parent").join(own);
        let pid = std::process::id().to_string();
        fs::write(self.0.join("cgroup.procs"), &pid).expect("moving into the group");
        let socket = net.run(|| UdpSocket::bind(("0.0.0.0", port)));
        fs::write(home.join("cgroup.procs"), &pid).expect("moving back");
        socket.expect("a socket")
    }

    pub fn refuse(&self, hook: Hook) -> OwnedFd {
        let group = File::open(&self.0).expect("the group's directory");
        let target = group.as_raw_fd().cast_unsigned();
        sys::attach(Kind::CgroupSkb, hook, target, 0, 0).expect("a group's program")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn cgroup_egress(count: u64) -> Prepared {
    let (wire, group) = (Wire::new(), Group::new());
    let socket = group.socket(&wire.b, frames::SOURCE_PORT);
    let program = group.refuse(Hook::CgroupEgress);
    let expected = Expected::new(count, "BPF_CGROUP_EGRESS", &["ip_finish_output", "ip_mc_finish_output"]);
    let expected = expected.within(&wire.b).of(&Packet::udp(B, A, 9));
    let prepared = Prepared::new(expected, move || {
        for _ in 0..count {
            socket.send_to(b"x", (A, 9)).expect_err("not permitted");
        }
    });
    prepared.keeping((wire, program, group))
}

fn cgroup_ingress(count: u64) -> Prepared {
    // No other case's: a row that is there already keeps the interface's name as it was, in another namespace that had
    // this one's numbers.
    const OPEN: u16 = 7001;
    let (wire, group) = (Wire::new(), Group::new());
    let socket = group.socket(&wire.b, OPEN);
    let program = group.refuse(Hook::CgroupIngress);
    let packet = Packet::udp(STRANGER, B, OPEN);
    let expected = Expected::new(count, "SOCKET_FILTER", &["udp_queue_rcv_one_skb", "udp_queue_rcv_skb"]);
    wire.packets(&packet, expected).keeping((socket, program, group))
}
