//! Sockets, the processes that have them open, and the containers these are in.

use std::{
    cmp::Ordering,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use dropwatch_common::socket::{SocketKey, SocketSeen, form};
use serde::Serialize;

use super::{foreign::Foreign, protocols};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_NETLINK: u16 = 16;
const AF_PACKET: u16 = 17;

const SOCK_RAW: u16 = 3;

const UDP: u16 = 17;

/// A socket that dropped packets belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// What tells it from others.
    pub key: SocketKey,
    /// What else was seen of it.
    pub seen: SocketSeen,
}

/// A process that has a socket open.
///
/// Displayed as `nginx[123]`, and as `nginx[123]+2` if two others have it open too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number. Of several that have the socket open it is the oldest one.
    pub pid: u32,
    /// Its name.
    pub comm: Foreign,
    /// How many other processes have the socket open.
    pub others: usize,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.comm, self.pid)?;
        if self.others > 0 { write!(f, "+{}", self.others) } else { Ok(()) }
    }
}

/// Whose a packet was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// A process's.
    Process(Process),
    /// The kernel's own.
    Kernel,
    /// No process's: it belongs to no socket, or to what is left of one.
    Nobody,
    /// It is not known: the process has gone, or the kernel does not tell.
    Unknown,
}

impl Ownership {
    /// In words; none if it is not known.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        match self {
            Self::Process(process) => Some(process.to_string()),
            Self::Kernel => Some("kernel".to_owned()),
            Self::Nobody | Self::Unknown => None,
        }
    }

    /// What such answers are in order by.
    #[must_use]
    pub fn rank(&self) -> (u8, Option<(&Foreign, u32)>) {
        match self {
            Self::Unknown => (0, None),
            Self::Nobody => (1, None),
            Self::Kernel => (2, None),
            Self::Process(Process { comm, pid, .. }) => (3, Some((comm, *pid))),
        }
    }
}

impl Socket {
    /// The local end.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.address(self.key.local, self.key.local_port)
    }

    /// The remote end; none if it is not connected.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        let remote = self.address(self.key.remote, self.key.remote_port)?;
        (!remote.ip().is_unspecified()).then_some(remote)
    }

    /// Whether it is another view of the same socket, as far as is known of both.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let agree = |one: u64, other: u64| one == 0 || other == 0 || one == other;
        let (key, other) = (&self.key, &other.key);
        let have_common = (key.cookie != 0 && key.cookie == other.cookie)
            || (key.inode != 0 && key.inode == other.inode)
            || key.address == other.address;
        have_common
            && agree(key.cookie, other.cookie)
            && agree(key.inode, other.inode)
            && (key.form, key.netns, key.family) == (other.form, other.netns, other.family)
            && (key.local_port, key.remote_port) == (other.local_port, other.remote_port)
    }

    /// The inode number of the file by which it has an owner: its own, of a connection request its listener's.
    #[must_use]
    pub fn owned_inode(&self) -> u64 {
        if self.key.form == form::REQUEST { self.seen.listener } else { self.key.inode }
    }

    /// Whether it is what is left of a connection, which no process has open.
    #[must_use]
    pub fn is_remainder(&self) -> bool {
        self.key.form == form::TIME_WAIT
    }

    /// Whether it is known to be in no container if none is known.
    #[must_use]
    pub fn has_no_container(&self) -> bool {
        self.is_remainder() || self.is_of_kernel()
    }

    /// Its cookie, if it has one.
    #[must_use]
    pub fn cookie(&self) -> Option<u64> {
        (self.key.cookie != 0).then_some(self.key.cookie)
    }

    /// Most bytes that were in its receive buffer at a drop; none of what is not a full socket.
    #[must_use]
    pub fn receive_used(&self) -> Option<u32> {
        self.is_full().then_some(self.seen.receive_used)
    }

    /// The size of its receive buffer.
    #[must_use]
    pub fn receive_size(&self) -> Option<u32> {
        self.is_full().then_some(self.seen.receive_size)
    }

    /// Whether the kernel made it for itself.
    #[must_use]
    pub fn is_of_kernel(&self) -> bool {
        self.key.of_kernel != 0
    }

    /// Whether it is more than a connection request, or what is left of a connection.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.key.form == form::FULL
    }

    /// What it speaks; of a raw socket, `raw` and the protocol that it is bound to.
    #[must_use]
    pub fn protocol(&self) -> String {
        let named = |number: u16| match u8::try_from(number) {
            Ok(number) => protocols::ip_protocol(number).into_owned(),
            Err(_) => number.to_string(),
        };
        match self.key.family {
            AF_INET | AF_INET6 if !self.is_full() => "tcp".to_owned(),
            AF_INET | AF_INET6 if self.key.kind == SOCK_RAW && !self.is_of_kernel() => {
                format!("raw {}", named(self.key.protocol))
            }
            AF_INET | AF_INET6 => named(self.key.protocol),
            AF_UNIX => "unix".to_owned(),
            AF_NETLINK => "netlink".to_owned(),
            AF_PACKET => "packet".to_owned(),
            0 => "device".to_owned(),
            family => format!("family {family}"),
        }
    }

    /// Its state as `ss` calls it; none where states mean nothing.
    #[must_use]
    pub fn state(&self) -> Option<&'static str> {
        const STATES: [&str; 12] = [
            "ESTAB",
            "SYN-SENT",
            "SYN-RECV",
            "FIN-WAIT-1",
            "FIN-WAIT-2",
            "TIME-WAIT",
            "UNCONN",
            "CLOSE-WAIT",
            "LAST-ACK",
            "LISTEN",
            "CLOSING",
            "SYN-RECV",
        ];
        let index = usize::try_from(self.seen.state).ok()?.checked_sub(1)?;
        let is_inet = matches!(self.key.family, AF_INET | AF_INET6) && !self.is_of_kernel();
        STATES.get(index).copied().filter(|_| is_inet)
    }

    /// What tells it from others in words: everything that does not change from drop to drop.
    #[must_use]
    pub fn name(&self) -> String {
        let mut words = vec![self.protocol()];
        if self.is_of_kernel() {
            words.push("kernel".to_owned());
        }
        words.extend(self.local().map(|address| self.end(address)));
        words.extend(self.remote().map(|address| self.end(address)));
        words.join(" ")
    }

    /// `udp 0.0.0.0:5140 rcv 15.0/16.0 KiB`
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = vec![self.name()];
        words.extend(self.state().filter(|_| self.key.protocol != UDP).map(str::to_owned));
        if let (Some(used), Some(size), false) =
            (self.receive_used(), self.receive_size(), self.is_of_kernel())
        {
            words.push(format!("rcv {}/{} KiB", kib(used), kib(size)));
        }
        words.join(" ")
    }

    /// `udp,0.0.0.0:5140,rcv=15.0/16.0KiB`
    #[must_use]
    pub fn word(&self) -> String {
        self.words().replace(" KiB", "KiB").replace("rcv ", "rcv=").replace(' ', ",")
    }

    /// Orders sockets by name, those of one name by their numbers.
    #[must_use]
    pub fn cmp_name(&self, other: &Self) -> Ordering {
        let name = |socket: &Self| (socket.protocol(), socket.local(), socket.remote(), socket.seen.number);
        name(self).cmp(&name(other))
    }

    fn address(&self, bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
        let address: IpAddr = match self.key.family {
            AF_INET => {
                let [a, b, c, d, ..] = bytes;
                Ipv4Addr::new(a, b, c, d).into()
            }
            AF_INET6 => Ipv6Addr::from(bytes).into(),
            _ => return None,
        };
        // The number of a raw socket is its protocol, and sends nothing to a port.
        let is_raw = self.key.kind == SOCK_RAW;
        if is_raw && self.is_of_kernel() {
            return None;
        }
        Some(SocketAddr::new(address, if is_raw { 0 } else { port }))
    }

    fn end(&self, address: SocketAddr) -> String {
        if self.key.kind == SOCK_RAW { address.ip().to_string() } else { address.to_string() }
    }
}

fn kib(bytes: u32) -> String {
    let tenths = (u64::from(bytes) * 10 + 512) / 1024;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(family: u16, kind: u16, protocol: u16) -> Socket {
        let local =
            if family == AF_INET { [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] } else { [0; 16] };
        let key = SocketKey { family, kind, protocol, local, local_port: 5140, ..SocketKey::default() };
        let seen =
            SocketSeen { state: 7, receive_used: 15_360, receive_size: 16_384, ..SocketSeen::default() };
        Socket { key, seen }
    }

    #[test]
    fn a_socket_reads_as_ss_prints_it() {
        let mut udp = socket(AF_INET, 2, UDP);
        assert_eq!(udp.words(), "udp 127.0.0.1:5140 rcv 15.0/16.0 KiB");
        assert_eq!(udp.word(), "udp,127.0.0.1:5140,rcv=15.0/16.0KiB");
        assert_eq!(socket(AF_INET6, 2, UDP).words(), "udp [::]:5140 rcv 15.0/16.0 KiB");
        udp.key.remote[..4].copy_from_slice(&[10, 0, 0, 2]);
        udp.key.remote_port = 53;
        assert_eq!(udp.name(), "udp 127.0.0.1:5140 10.0.0.2:53");
        let mut tcp = socket(AF_INET, 1, 6);
        tcp.seen.state = 10;
        assert_eq!(tcp.words(), "tcp 127.0.0.1:5140 LISTEN rcv 15.0/16.0 KiB");
        assert_eq!(socket(AF_INET, SOCK_RAW, 1).name(), "raw icmp 127.0.0.1");
        assert_eq!(socket(AF_PACKET, SOCK_RAW, 0).words(), "packet rcv 15.0/16.0 KiB");
    }

    #[test]
    fn what_is_not_a_whole_socket_says_so() {
        let mut left = socket(AF_INET, 0, 0);
        (left.key.form, left.seen.state) = (form::TIME_WAIT, 6);
        assert_eq!(left.words(), "tcp 127.0.0.1:5140 TIME-WAIT");
        (left.key.form, left.seen.state) = (form::REQUEST, 12);
        assert_eq!(left.words(), "tcp 127.0.0.1:5140 SYN-RECV");
        assert_eq!(left.receive_used(), None);
    }

    #[test]
    fn the_kernels_own_socket_is_the_kernels() {
        let mut control = socket(AF_INET, SOCK_RAW, 6);
        control.key.of_kernel = 1;
        assert_eq!(control.words(), "tcp kernel");
        control.key.kind = 2;
        control.key.protocol = UDP;
        assert_eq!(control.name(), "udp kernel 127.0.0.1:5140", "such as that of a tunnel");
    }

    #[test]
    fn a_shared_socket_names_one_process_and_counts_the_others() {
        let process = |others| Process { pid: 7, comm: "a b".into(), others }.to_string();
        assert_eq!(process(0), "a b[7]");
        assert_eq!(process(2), "a b[7]+2");
    }
}
