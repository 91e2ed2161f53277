//! The socket: its buffer, its queue, its filter.

use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use nix::sys::socket::SockProtocol;
use serde_json::{Map, Value, json};

use super::Question;
use crate::{
    evidence::{
        netlink::{Netlink, attribute, u32_at},
        places::Inside,
    },
    model::{
        evidence::{Certainty, Evidence, Kind},
        plural::counted,
        sample::Program,
        socket::{Ownership, Socket},
    },
};

/// The reason for what a filter or a program refuses at the socket.
const FILTERED: &str = "SOCKET_FILTER";

/// The kernel's numbers of states.
const LISTEN: u8 = 10;

/// What there is to say of the packet's socket, as the kernel handed it over, and of what it has attached.
///
/// Inside its namespace, the kernel says what has become of it since.
pub fn find(question: &Question, inside: Option<Inside<'_>>) -> Vec<Evidence> {
    let Some(socket) = &question.socket else { return Vec::new() };
    let now = inside.filter(|inside| inside.is_entered).and_then(|_| Now::read(socket));
    let mut found = vec![of_socket(question, socket, now.as_ref())];
    if question.reason.as_deref() == Some(FILTERED) {
        found.extend(programs(question));
    }
    found
}

/// The socket itself.
fn of_socket(question: &Question, socket: &Socket, now: Option<&Now>) -> Evidence {
    let mut words = socket.name();
    if let Some(owner) = question.owner.as_ref().and_then(Ownership::words) {
        words = format!("{words} of {owner}");
    }
    if let Some(container) = &question.container
        && container.runtime.is_some()
    {
        words = format!("{words} in {}", container.name);
    }
    let details = details(socket, now);
    Evidence {
        kind: Kind::Socket,
        certainty: Certainty::Certain,
        text: if details.is_empty() { words } else { format!("{words}: {}", details.join(", ")) },
        source: source(socket),
        time: SystemTime::now(),
        fields: fields(question, socket, now),
    }
}

/// What of it may matter, in words.
fn details(socket: &Socket, now: Option<&Now>) -> Vec<String> {
    let mut details = Vec::new();
    let is_listener = socket.seen.state == u32::from(LISTEN);
    if is_listener {
        details.extend(now.map(|now| format!("accept queue {} of {}", now.queue, now.limit)));
    } else {
        details.extend(socket.state().filter(|state| *state != "UNCONN").map(str::to_owned));
        if let (Some(used), Some(size), false) =
            (socket.receive_used(), socket.receive_size(), socket.is_of_kernel())
        {
            details.push(format!("receive buffer {used} of {size} bytes at the drop"));
        }
    }
    if let Some(now) = now {
        if now.backlog > 0 {
            details.push(format!("backlog {} bytes", now.backlog));
        }
        if now.drops > 0 {
            details.push(format!("{} lost since it was opened", counted(now.drops.into(), "packet")));
        }
    }
    details
}

/// The same for programs.
fn fields(question: &Question, socket: &Socket, now: Option<&Now>) -> Map<String, Value> {
    let process = match &question.owner {
        Some(Ownership::Process(process)) => json!(process),
        _ => Value::Null,
    };
    let fields = json!({
        "protocol": socket.protocol(),
        "local": socket.local(),
        "remote": socket.remote(),
        "state": socket.state(),
        "process": process,
        "container": question.container,
        "receive_used": socket.receive_used(),
        "receive_size": socket.receive_size(),
        "backlog": now.map(|now| now.backlog),
        "drops": now.map(|now| now.drops),
        "queue": now.filter(|now| now.is_listener).map(|now| now.queue),
        "queue_limit": now.filter(|now| now.is_listener).map(|now| now.limit),
        "cookie": socket.cookie(),
        "inode": (socket.key.inode != 0).then_some(socket.key.inode),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The command that shows it.
fn source(socket: &Socket) -> String {
    let port = socket.local().map(|local| local.port());
    let filter = port.map(|port| format!(" 'sport = :{port}'")).unwrap_or_default();
    match &*socket.protocol() {
        "udp" => format!("ss -uanpm{filter}"),
        "tcp" if socket.seen.state == u32::from(LISTEN) => format!("ss -tlnpm{filter}"),
        "tcp" => format!("ss -tanpm{filter}"),
        "packet" => "ss -0pm".to_owned(),
        "unix" => "ss -xpm".to_owned(),
        _ => "ss -anpm".to_owned(),
    }
}

/// What may have refused the packet at the socket: its own filter, or a program of its cgroup. If there is one, it was that one.
fn programs(question: &Question) -> Vec<Evidence> {
    let number = question.of_cgroup.len() + usize::from(question.filter.is_some());
    let certainty = if number == 1 { Certainty::Certain } else { Certainty::Possible };
    let of_cgroup = question.of_cgroup.iter().map(|program| (program, true));
    let filter = question.filter.iter().map(|program| (program, false));
    let evidence = |(program, is_of_cgroup): (&Program, bool)| {
        let cgroup = question.container.as_ref().map(|container| &container.cgroup).filter(|_| is_of_cgroup);
        let place = match (is_of_cgroup, cgroup) {
            (false, _) => "attached to the socket (SO_ATTACH_FILTER or SO_ATTACH_BPF)".to_owned(),
            (true, Some(cgroup)) => format!("of cgroup {cgroup} (ingress), or of one above it"),
            (true, None) => "of the socket's cgroup (ingress)".to_owned(),
        };
        let source = match (program.id, is_of_cgroup) {
            (Some(id), _) => format!("bpftool prog show id {id}"),
            (None, _) => "the socket's filter, in the kernel".to_owned(),
        };
        let fields = json!({
            "id": program.id,
            "name": program.name,
            "attached": if is_of_cgroup { "cgroup_inet_ingress" } else { "socket_filter" },
            "cgroup": cgroup,
        });
        Evidence {
            kind: Kind::Program,
            certainty,
            text: format!("{} {place}", named(program)),
            source,
            time: SystemTime::now(),
            fields: fields.as_object().cloned().unwrap_or_default(),
        }
    };
    of_cgroup.chain(filter).map(evidence).collect()
}

/// `BPF program id 763 'drop'`
fn named(program: &Program) -> String {
    match program.id {
        None => "a classic BPF filter".to_owned(),
        Some(id) if program.name.bytes().is_empty() => format!("BPF program id {id}"),
        Some(id) => format!("BPF program id {id} '{}'", program.name),
    }
}

/// What the kernel says of the socket now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    is_listener: bool,
    /// Connections that wait to be accepted, of a listener; else bytes that wait to be read.
    queue: u32,
    /// How many connections may wait.
    limit: u32,
    /// Bytes that came while the socket was in use.
    backlog: u32,
    drops: u32,
}

impl Now {
    /// Reads it in the namespace that the thread is in; none if it is not there any more.
    fn read(socket: &Socket) -> Option<Self> {
        let request = request(socket)?;
        let diag = Netlink::open(SockProtocol::NetlinkSockDiag).ok()?;
        if i32::from(socket.key.protocol) == libc::IPPROTO_TCP {
            // A list of connections is a walk through those of all namespaces.
            let found = diag.ask(GET, &exact(request, socket)).ok().filter(|answer| is_it(answer, socket));
            // Of listeners that share a port, the kernel returns any.
            if found.is_some() || socket.seen.state != u32::from(LISTEN) {
                return found.and_then(|answer| Self::parse(&answer));
            }
        }
        let answers = diag.dump(GET, &request).ok()?;
        answers.iter().find(|answer| is_it(answer, socket)).and_then(|answer| Self::parse(answer))
    }

    pub(super) fn parse(answer: &[u8]) -> Option<Self> {
        /// `struct inet_diag_msg`.
        const HEADER: usize = 72;
        /// `INET_DIAG_SKMEMINFO`, and the places in it of what was put off and of what was dropped.
        const MEMORY: u16 = 7;
        const BACKLOG: usize = 7 * 4;
        const DROPS: usize = 8 * 4;
        let memory = attribute(answer, HEADER, MEMORY)?;
        Some(Self {
            is_listener: answer.get(1) == Some(&LISTEN),
            queue: u32_at(answer, 56)?,
            limit: u32_at(answer, 60)?,
            backlog: u32_at(memory, BACKLOG)?,
            drops: u32_at(memory, DROPS)?,
        })
    }
}

/// `SOCK_DIAG_BY_FAMILY`.
const GET: u16 = 20;

/// A request for sockets like it: the kernel leaves out those of other ports and states.
fn request(socket: &Socket) -> Option<[u8; 56]> {
    /// `INET_DIAG_SKMEMINFO`, as a bit.
    const MEMORY: u8 = 1 << (7 - 1);
    let local = socket.local()?;
    let protocol = u8::try_from(socket.key.protocol).ok().filter(|_| socket.is_full())?;
    let mut request = [0; 56];
    (request[0], request[1], request[2]) = (u8::try_from(socket.key.family).ok()?, protocol, MEMORY);
    request[4..8].copy_from_slice(&1_u32.checked_shl(socket.seen.state)?.to_ne_bytes());
    request[8..10].copy_from_slice(&local.port().to_be_bytes());
    let port = socket.remote().as_ref().map_or(0, SocketAddr::port);
    request[10..12].copy_from_slice(&port.to_be_bytes());
    Some(request)
}

/// The same for this one alone: by its addresses, and by its cookie if that is known.
fn exact(mut request: [u8; 56], socket: &Socket) -> [u8; 56] {
    request[12..28].copy_from_slice(&socket.key.local);
    request[28..44].copy_from_slice(&socket.key.remote);
    // All ones are any cookie.
    request[48..56].copy_from_slice(&socket.cookie().unwrap_or(u64::MAX).to_ne_bytes());
    request
}

/// Whether an answer is about this socket: its cookie or its file distinguishes it from others on the same port.
fn is_it(answer: &[u8], socket: &Socket) -> bool {
    let cookie = u32_at(answer, 44).zip(u32_at(answer, 48));
    let cookie = cookie.map(|(low, high)| u64::from(high) << 32 | u64::from(low));
    if let Some(known) = socket.cookie()
        && cookie.is_some()
    {
        return cookie == Some(known);
    }
    // That of a socket without a file is zero.
    let inode = u32_at(answer, 68);
    inode.is_some_and(|inode| inode != 0 && u64::from(inode) == socket.key.inode & 0xffff_ffff)
        && is_at(answer, socket)
}

/// Whether an answer has the socket's local address.
fn is_at(answer: &[u8], socket: &Socket) -> bool {
    let bytes = answer.get(8..24).unwrap_or_default();
    socket.local().is_some_and(|local| match local.ip() {
        IpAddr::V4(address) => bytes.starts_with(&address.octets()),
        IpAddr::V6(address) => bytes == address.octets(),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd as _,
    };

    use dropwatch_common::socket::{SocketKey, SocketSeen};
    use nix::sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, setsockopt,
            socket, sockopt,
        },
        stat::fstat,
    };

    use super::*;

    const ESTABLISHED: u32 = 1;

    fn view(inode: u64, local: SocketAddr, remote: Option<SocketAddr>, state: u32) -> Socket {
        let bytes = |address: SocketAddr| match address.ip() {
            IpAddr::V4(address) => u128::from(u32::from_ne_bytes(address.octets())).to_le_bytes(),
            IpAddr::V6(address) => address.octets(),
        };
        let key = SocketKey {
            address: 1,
            inode,
            family: if local.is_ipv4() { 2 } else { 10 },
            protocol: 6,
            kind: 1,
            local: bytes(local),
            local_port: local.port(),
            remote: remote.map(bytes).unwrap_or_default(),
            remote_port: remote.map_or(0, |remote| remote.port()),
            ..SocketKey::default()
        };
        Socket { key, seen: SocketSeen { state, ..SocketSeen::default() } }
    }

    #[test]
    fn a_connection_is_found_by_its_addresses() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            // Without IPv6 there is one address less.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().expect("an address");
            let stream = TcpStream::connect(local).expect("a connection");
            let (own, inode) = (stream.local_addr().expect("an address"), fstat(&stream).expect("it").st_ino);
            let now = Now::read(&view(inode, own, Some(local), ESTABLISHED)).expect("it is there");
            assert_eq!((now.is_listener, now.drops), (false, 0));
            assert_eq!(Now::read(&view(inode + 1, own, Some(local), ESTABLISHED)), None, "another one");
            let inode = fstat(&listener).expect("it").st_ino;
            let now = Now::read(&view(inode, local, None, LISTEN.into())).expect("it is there");
            assert_eq!((now.is_listener, now.queue), (true, 1));
        }
    }

    #[test]
    fn each_of_two_listeners_on_a_port_is_found() {
        let listener = |port: u16, backlog: i32| {
            let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                .expect("a socket");
            setsockopt(&listener, sockopt::ReusePort, &true).expect("a shared port");
            bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).expect("bound");
            listen(&listener, Backlog::new(backlog).expect("a number")).expect("it listens");
            listener
        };
        let first = listener(0, 3);
        let port = getsockname::<SockaddrIn>(first.as_raw_fd()).expect("an address").port();
        let second = listener(port, 5);
        let local = SocketAddr::from(([127, 0, 0, 1], port));
        for (listener, limit) in [(&first, 3), (&second, 5)] {
            let inode = fstat(listener).expect("it").st_ino;
            let now = Now::read(&view(inode, local, None, LISTEN.into())).expect("it is there");
            assert_eq!((now.is_listener, now.limit), (true, limit));
        }
    }
}
