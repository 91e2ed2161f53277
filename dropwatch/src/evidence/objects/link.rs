//! The interface, its state, and its peer's.

use std::{fs, path::Path};

use super::{
    Question,
    device::{Device, hardware},
    fib::{Flow, Route},
    netns_names, route_netlink,
};
use crate::{
    evidence::{budget::Budget, netlink::Netlink, places::Inside},
    model::{
        evidence::{Certainty, Evidence, Kind},
        foreign::Foreign,
        plural::counted,
    },
};

/// Where packets are handed to another interface, which must be up and have room for them.
const FORWARDS: &[&str] =
    &["__dev_forward_skb2", "__dev_forward_skb", "____dev_forward_skb", "dev_forward_skb", "veth_xmit"];
/// How long an Ethernet header is, with a VLAN's: for so much more than its MTU, an interface has room.
const HEADERS: u32 = 18;

/// What there is to say of it.
pub fn find(question: &Question, inside: Inside<'_>, budget: Budget) -> Vec<Evidence> {
    look(question, inside, budget).unwrap_or_default()
}

fn look(question: &Question, inside: Inside<'_>, budget: Budget) -> Option<Vec<Evidence>> {
    let netlink = route_netlink(inside)?;
    if question.is_for("VXLAN_VNI_NOT_FOUND") {
        return vni(question, &netlink).map(|found| vec![found]);
    }
    let device = Device::get(&netlink, question.iface.as_ref()?.0).ok()?;
    if question.is_for("FULL_RING") {
        return Some(vec![queue(&device, budget)]);
    }
    if question.is_for("OTHERHOST") {
        return Some(other_host(question, &device, &netlink).into_iter().collect());
    }
    let peer = device.is("veth").then(|| device.peer(&netlink).ok()).flatten();
    let peer = peer.map(|peer| Peer::new(peer, &device, &netlink));
    Some(
        state(&device, peer.as_ref())
            .or_else(|| room(question, &device, peer.as_ref()))
            .into_iter()
            .collect(),
    )
}

/// The other end of a pair.
struct Peer {
    device: Device,
    /// The namespace it is in, if that is another one with a name.
    netns: Option<Foreign>,
    is_elsewhere: bool,
}

impl Peer {
    fn new(device: Device, of: &Device, netlink: &Netlink) -> Self {
        let namespace = of.link.and_then(|(_, namespace)| namespace);
        let netns = namespace.and_then(|namespace| netns_names::by_number(netlink, namespace));
        Self { device, netns, is_elsewhere: namespace.is_some() }
    }

    /// `eth0 in netns zis`
    fn words(&self) -> String {
        let place = match &self.netns {
            Some(netns) => format!(" in netns {netns}"),
            None if self.is_elsewhere => " in another namespace".to_owned(),
            None => String::new(),
        };
        format!("{}{place}", self.device.name)
    }

    fn tell(&self, found: Evidence) -> Evidence {
        found
            .with("peer", &self.device.name)
            .with("peer_index", self.device.index)
            .with("peer_netns", &self.netns)
            .with("peer_up", self.device.is_up())
            .with("peer_mtu", self.device.mtu)
    }
}

fn evidence(device: &Device, text: String) -> Evidence {
    Evidence::new(Kind::Link, Certainty::Certain, text, format!("ip -d link show dev {}", device.name))
        .with("device", &device.name)
        .with("index", device.index)
        .with("up", device.is_up())
        .with("carrier", device.has_carrier())
        .with("mtu", device.mtu)
}

/// That it, or its peer, is down.
fn state(device: &Device, peer: Option<&Peer>) -> Option<Evidence> {
    let down = peer.filter(|peer| !peer.device.is_up());
    let text = match down {
        _ if !device.is_up() => format!("{} is down now", device.name),
        Some(peer) => format!("{} is up, but its peer {} is down now", device.name, peer.words()),
        None if !device.has_carrier() => format!("{} is up, but has no carrier now", device.name),
        None => return None,
    };
    let found = evidence(device, text);
    Some(peer.map_or(found.clone(), |peer| peer.tell(found)))
}

/// That the packet is too large for the interface it is handed to.
fn room(question: &Question, device: &Device, peer: Option<&Peer>) -> Option<Evidence> {
    if !question.is_in(FORWARDS) && !question.is_for("PKT_TOO_BIG") {
        return None;
    }
    let (name, mtu) = match peer {
        Some(peer) => (format!("{}, the peer of {},", peer.words(), device.name), peer.device.mtu),
        None => (device.name.to_string(), device.mtu),
    };
    let limit = if question.is_in(FORWARDS) { mtu.saturating_add(HEADERS - 14) } else { mtu };
    if question.length <= limit {
        return None;
    }
    let text = format!("{name} has an MTU of {mtu} bytes now; the packet has {}", question.length);
    let found = evidence(device, text).with("length", question.length);
    Some(peer.map_or(found.clone(), |peer| peer.tell(found)))
}

/// That a frame to another host's hardware address has a packet for this host: its sender has the wrong one for it.
fn other_host(question: &Question, device: &Device, netlink: &Netlink) -> Option<Evidence> {
    let destination = question.link.get(..6).filter(|_| device.address.len() == 6)?;
    if destination == device.address {
        return None;
    }
    let address = question.daddr?;
    let flow = Flow { to: address, received: None, mark: 0, tos: 0 };
    let is_ours = Route::to(netlink, flow).is_ok_and(|route| route.kind == libc::RTN_LOCAL);
    if !is_ours {
        return None;
    }
    let (to, own) = (hardware(destination), hardware(&device.address));
    let from = question.link.get(6..12).map(hardware);
    let sender = from.as_ref().map_or_else(|| "its sender".to_owned(), |from| format!("its sender {from}"));
    let text = format!(
        "{address} is an address of this host now, but the frame is for {to}, and {} has {own}: the neighbour entry of \
         {sender} for {address} is stale, unless another host has this address too",
        device.name
    );
    let found = evidence(device, text).with("address", own).with("frame_to", to);
    Some(found.with("frame_from", from).with("to", address))
}

/// How many packets wait for the process behind a tun device.
fn queue(device: &Device, budget: Budget) -> Evidence {
    let process = holder(&device.name, budget);
    let most = counted(device.queue.into(), "packet");
    let reader = process.as_ref().map(|(pid, comm)| format!(": {comm}[{pid}] does not read fast enough"));
    let text = format!("{} keeps at most {most} for its reader{}", device.name, reader.unwrap_or_default());
    let process = process.map(|(pid, comm)| serde_json::json!({ "pid": pid, "comm": comm }));
    evidence(device, text).with("queue", device.queue).with("process", process)
}

/// A process that has a tun device open, as far as there is time to look for it.
fn holder(device: &Foreign, budget: Budget) -> Option<(u32, Foreign)> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take_while(|_| !budget.is_spent()) {
        let process = format!("/proc/{pid}");
        let files = fs::read_dir(format!("{process}/fd")).into_iter().flatten().flatten();
        let mut tuns = files.filter(|file| fs::read_link(file.path()).is_ok_and(|to| is_tun(&to)));
        let is_it = tuns.any(|file| {
            let info = Path::new(&process).join("fdinfo").join(file.file_name());
            let info = fs::read(info).unwrap_or_default();
            let mut lines = info.split(|&byte| byte == b'\n');
            lines.any(|line| line.strip_prefix(b"iff:\t") == Some(device.bytes()))
        });
        if is_it {
            let comm = fs::read(format!("{process}/comm")).unwrap_or_default();
            return Some((pid, comm.trim_ascii_end().into()));
        }
    }
    None
}

/// `/dev/net/tun`, wherever a container has it.
fn is_tun(path: &Path) -> bool {
    path.ends_with("net/tun")
}

/// The packet's VXLAN and those that there are.
fn vni(question: &Question, netlink: &Netlink) -> Option<Evidence> {
    let devices = Device::all(netlink).ok()?;
    let known: Vec<_> = devices.iter().filter_map(|device| Some((&device.name, device.vxlan?))).collect();
    let on_port = |port: u16| question.dport.is_none_or(|dport| dport == port);
    let known: Vec<_> = known.into_iter().filter(|(_, vxlan)| on_port(vxlan.port)).collect();
    let vni = vni_of(&question.packet)?;
    let list = known.iter().map(|(name, vxlan)| {
        let id = if vxlan.is_of_all { "external".to_owned() } else { vxlan.id.to_string() };
        format!("{name} ({id})")
    });
    let list = list.collect::<Vec<_>>().join(", ");
    let list = if list.is_empty() { "none".to_owned() } else { list };
    let text = format!("the packet is of VNI {vni}; configured here now: {list}");
    let ids: Vec<_> = known.iter().map(|(_, vxlan)| vxlan.id).collect();
    let source = "ip -d link show type vxlan";
    let found = Evidence::new(Kind::Link, Certainty::Certain, text, source);
    Some(found.with("vni", vni).with("configured", ids))
}

/// The VNI behind the headers of IP, UDP and VXLAN.
fn vni_of(packet: &[u8]) -> Option<u32> {
    const UDP: usize = 8;
    let ip = match packet.first()? >> 4 {
        4 => usize::from(packet[0] & 0xf) * 4,
        6 => 40,
        _ => return None,
    };
    let vni = packet.get(ip + UDP + 4..)?.first_chunk::<3>()?;
    Some(u32::from_be_bytes([0, vni[0], vni[1], vni[2]]))
}
