//! What goes well loses nothing: no `lost` row for any of it, on any kernel.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, setsockopt,
    sockopt::{Linger, ReuseAddr},
};
use serde_json::Value;

use crate::support::{
    frames::SOURCE_PORT,
    inject::needs::{self, Need},
    inject::wire::{eventually, on_one_cpu},
    is_guest, kernel,
    net::Net,
    trial::trial,
    watch::Watch,
};

/// Something that a healthy host does.
struct Workload {
    name: &'static str,
    needs: &'static [Need],
    /// What older kernels drop here without saying that it is no loss.
    untold: &'static [Untold],
    /// Sets up what was there before.
    prepare: fn() -> Run,
}

/// Does it, and tells in which namespaces.
type Run = Box<dyn FnOnce() -> Vec<Net>>;

/// Functions in which a kernel frees what is lost and what is not, and says no more.
struct Untold {
    /// The reason that a kernel has which does tell.
    told_by: &'static str,
    functions: &'static [&'static str],
}

/// Data for a closed connection, beside data with wrong checksums and what filters refuse.
const TCP: Untold = Untold { told_by: "NO_SOCKET", functions: &["tcp_v4_rcv", "tcp_v6_rcv"] };
/// Data for a connection that is closed, beside a cookie that finds the accept queue full.
const RESET: Untold = Untold { told_by: "TCP_ABORT_ON_DATA", functions: &["tcp_v4_do_rcv", "tcp_v6_do_rcv"] };
/// A late answer, beside wrong checksums and full buffers.
const UDP: Untold = Untold { told_by: "NO_SOCKET", functions: &["__udp4_lib_rcv", "__udp6_lib_rcv"] };

/// What a container sends as it goes, at a bridge port that is going, too, beside what a port refuses that is held back.
const PORT: Untold = Untold { told_by: "BRIDGE_INGRESS_STP_STATE", functions: &["br_handle_frame"] };

const IPV6: &[Need] = &[needs::IPV6];
const BRIDGE: &[Need] = &[needs::IPV6, needs::BRIDGE];

const WORKLOADS: &[Workload] = &[
    Workload { name: "a_request_over_http", needs: IPV6, untold: &[], prepare: http },
    Workload { name: "a_ping_that_is_answered", needs: IPV6, untold: &[], prepare: ping },
    Workload { name: "a_question_to_a_name_server", needs: IPV6, untold: &[UDP], prepare: dns },
    Workload { name: "a_session_like_that_of_ssh", needs: IPV6, untold: &[], prepare: session },
    Workload {
        name: "a_connection_that_is_closed_in_any_state",
        needs: IPV6,
        untold: &[TCP, RESET],
        prepare: closes,
    },
    Workload { name: "a_link_that_comes_up", needs: BRIDGE, untold: &[], prepare: link_up },
    Workload {
        name: "a_container_that_starts_and_stops",
        needs: BRIDGE,
        untold: &[PORT],
        prepare: container,
    },
];

/// A test for each.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let trial = |workload: &'static Workload| {
        trial(format!("healthy::{}_loses_nothing", workload.name), workload.needs, can_run, || {
            loses_nothing(workload);
            Ok(())
        })
    };
    WORKLOADS.iter().map(trial).collect()
}

/// All that may decide what a drop is worth, and whose it is.
const KEYS: &str = "location,reason,netns,iface,protocol,ipproto,saddr,daddr,sport,dport";

fn loses_nothing(workload: &Workload) {
    let run = (workload.prepare)();
    let watch = Watch::start(&["-o", "json", "-i", "1h", "-b", KEYS]);
    // The packets of two CPUs overtake each other, and one that comes late may be lost.
    let nets = on_one_cpu(run);
    // Packets that are under way.
    thread::sleep(Duration::from_millis(if is_guest() { 2000 } else { 200 }));
    let reports = watch.stop();
    let inums: Vec<_> = nets.iter().map(Net::inum).collect();
    let ours: Vec<_> = reports.rows().filter(|row| is_ours(row, &inums)).collect();
    assert!(!ours.is_empty(), "a healthy host drops something, all of which is harmless: {reports:?}");
    let lost: Vec<_> = ours.iter().filter(|row| row["class"] == "lost" && !workload.is_untold(row)).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

impl Workload {
    /// Whether the kernel does not say what such a drop is worth.
    fn is_untold(&self, row: &Value) -> bool {
        let symbol = row["location"]["symbol"].as_str().unwrap_or_default();
        let function = symbol.split('.').next().unwrap_or(symbol);
        let mut here = self.untold.iter().filter(|untold| !kernel::has_reason(untold.told_by));
        here.any(|untold| untold.functions.contains(&function))
    }
}

/// Whether a row is about one of these namespaces. What tells none is of ours by its addresses, or where nothing else
/// goes on.
fn is_ours(row: &Value, inums: &[u64]) -> bool {
    let addresses = ["saddr", "daddr"].map(|key| row[key].as_str());
    match row["netns"]["inum"].as_u64() {
        Some(inum) => inums.contains(&inum),
        None => is_guest() || addresses.iter().flatten().any(|address| is_address_of_ours(address)),
    }
}

fn is_address_of_ours(address: &str) -> bool {
    address.starts_with("10.99.") || address.starts_with("fd00:99:")
}

const A: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1))];
const B: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2))];
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Two hosts on a link, with both versions of IP.
struct Hosts {
    a: Net,
    b: Net,
}

impl Hosts {
    fn new() -> Self {
        let (a, b) = (Net::new(), Net::new());
        a.join("va", "10.99.0.1/24", &b, "vb", "10.99.0.2/24");
        a.ip("addr add fd00:99::1/64 dev va nodad");
        b.ip("addr add fd00:99::2/64 dev vb nodad");
        for (net, device) in [(&a, "va"), (&b, "vb")] {
            eventually(&format!("{device} comes up"), || net.is_up(device));
        }
        Self { a, b }
    }

    fn all(self) -> Vec<Net> {
        vec![self.a, self.b]
    }

    /// Runs a client and a server at once, for each version of IP, over the link and within one host.
    fn talk(&self, port: u16, serve: fn(&TcpListener), call: fn(SocketAddr)) {
        for (server, from) in [(B, &self.a), (LOOPBACK, &self.b)] {
            for address in server {
                let at = SocketAddr::new(address, port);
                let listener = self.b.run(|| TcpListener::bind(at)).expect("a listener");
                thread::scope(|scope| {
                    scope.spawn(|| serve(&listener));
                    from.run(|| call(at));
                });
            }
        }
    }
}

/// Bytes of an answer.
const BODY: usize = 500_000;

fn http() -> Run {
    let hosts = Hosts::new();
    Box::new(move || {
        hosts.talk(8080, serve_http, |at| {
            for close in [false, true] {
                let mut stream = TcpStream::connect(at).expect("a connection");
                for _ in 0..2 {
                    let close = if close { "Connection: close\r\n" } else { "" };
                    write!(stream, "GET / HTTP/1.1\r\nHost: b\r\n{close}\r\n").expect("a request");
                    read_answer(&mut stream);
                    if !close.is_empty() {
                        assert_eq!(stream.read(&mut [0; 8]).expect("the end"), 0);
                        break;
                    }
                }
            }
        });
        if Command::new("curl").arg("--version").output().is_ok() {
            let listener = hosts.b.run(|| TcpListener::bind("10.99.0.2:8081")).expect("a listener");
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (stream, _) = listener.accept().expect("a connection");
                    serve_requests(stream);
                });
                let body = hosts.a.words("curl -sS http://10.99.0.2:8081/");
                assert_eq!(body.len(), BODY);
            });
        }
        hosts.all()
    })
}

/// Takes the two connections of a client.
fn serve_http(listener: &TcpListener) {
    for _ in 0..2 {
        let (stream, _) = listener.accept().expect("a connection");
        serve_requests(stream);
    }
}

fn serve_requests(mut stream: TcpStream) {
    loop {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).expect("a request") == 0 {
                return;
            }
            request.extend(byte);
        }
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").expect("a head");
        stream.write_all(&vec![b'x'; BODY]).expect("a body");
        if String::from_utf8_lossy(&request).contains("Connection: close") {
            return;
        }
    }
}

fn read_answer(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.extend(byte);
    }
    stream.read_exact(&mut vec![0; BODY]).expect("a body");
}

/// With the two kinds of sockets that ping programs have: raw ones, and those for pings alone.
fn ping() -> Run {
    let hosts = Hosts::new();
    Box::new(move || {
        for net in [&hosts.a, &hosts.b] {
            net.sysctl("net/ipv4/ping_group_range", "0 0");
        }
        for to in B.iter().chain(&LOOPBACK) {
            for kind in [SockType::Raw, SockType::Datagram] {
                hosts.a.run(|| ping_from(kind, *to));
            }
            if Command::new("ping").arg("-V").output().is_ok_and(|output| output.status.success()) {
                hosts.a.words(&format!("ping -c 2 -i 0.01 {to}"));
            }
        }
        hosts.all()
    })
}

fn ping_from(kind: SockType, to: IpAddr) {
    let (family, protocol, request, answer) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, protocol).expect("a socket");
    for sequence in 0..3 {
        let mut message = vec![request, 0, 0, 0, 0x12, 0x34, 0, sequence];
        message.extend([b'x'; 56]);
        if to.is_ipv4() {
            let sum = crate::support::frames::checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&sum);
        }
        let flags = socket::MsgFlags::empty();
        socket::sendto(socket.as_raw_fd(), &message, &SockaddrStorage::from(SocketAddr::new(to, 0)), flags)
            .expect("sent");
        // A raw socket gets IPv4's header too, and what others ask on the loopback device.
        loop {
            let mut buffer = [0; 256];
            let length = socket::recv(socket.as_raw_fd(), &mut buffer, flags).expect("an answer");
            let start = if kind == SockType::Raw && to.is_ipv4() { 20 } else { 0 };
            if length > start && buffer[start] == answer {
                break;
            }
        }
    }
}

/// Two questions at once, as resolvers ask; and an answer that comes a second time, when nobody waits any more.
fn dns() -> Run {
    let hosts = Hosts::new();
    Box::new(move || {
        for (server, from, client) in [(B, &hosts.a, A), (LOOPBACK, &hosts.b, LOOPBACK)] {
            for (server, client) in server.into_iter().zip(client) {
                let server = hosts.b.run(|| UdpSocket::bind((server, 53))).expect("a server");
                let client = from.run(|| UdpSocket::bind((client, 0))).expect("a client");
                client.connect(server.local_addr().expect("an address")).expect("connected");
                for _ in 0..2 {
                    client.send(&[b'q'; 40]).expect("a question");
                }
                let answer = || {
                    let (length, from) = server.recv_from(&mut [0; 64]).expect("a question");
                    assert_eq!(length, 40);
                    server.send_to(&[b'a'; 120], from).expect("an answer");
                    from
                };
                let ends = [answer(), answer()];
                for _ in 0..2 {
                    client.recv(&mut [0; 512]).expect("an answer");
                }
                drop(client);
                server.send_to(&[b'a'; 120], ends[0]).expect("an answer");
            }
        }
        hosts.all()
    })
}

fn session() -> Run {
    let hosts = Hosts::new();
    Box::new(move || {
        let serve = |listener: &TcpListener| {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.set_nodelay(true).expect("an option");
            let mut key = [0];
            while stream.read(&mut key).expect("a key") == 1 {
                stream.write_all(&key).expect("an echo");
            }
        };
        hosts.talk(22, serve, |at| {
            let mut stream = TcpStream::connect(at).expect("a connection");
            stream.set_nodelay(true).expect("an option");
            for key in b"uptime; exit\n" {
                stream.write_all(&[*key]).expect("a key");
                stream.read_exact(&mut [0]).expect("an echo");
            }
        });
        hosts.all()
    })
}

fn closes() -> Run {
    let hosts = Hosts::new();
    Box::new(move || {
        for (from, at) in [(&hosts.a, B[0]), (&hosts.a, B[1]), (&hosts.b, LOOPBACK[0])] {
            close_all_ways(&hosts.b, from, at);
        }
        hosts.all()
    })
}

/// A connection between a host and another, whose own end comes first.
fn connection(listener: &TcpListener, from: &Net) -> (TcpStream, TcpStream) {
    let to = listener.local_addr().expect("an address");
    let client = from.run(|| TcpStream::connect(to)).expect("a connection");
    let (server, _) = listener.accept().expect("a connection");
    (client, server)
}

fn ends(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0; 64]).expect("the end"), 0);
}

fn close_all_ways(to: &Net, from: &Net, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind((address, 7000))).expect("a listener");
    // Its own end first, and the other's first.
    let (client, mut server) = connection(&listener, from);
    drop(client);
    ends(&mut server);
    drop(server);
    let (mut client, server) = connection(&listener, from);
    drop(server);
    ends(&mut client);
    drop(client);
    // Both at once.
    let (client, server) = connection(&listener, from);
    thread::scope(|scope| {
        scope.spawn(move || drop(client));
        scope.spawn(move || drop(server));
    });
    // One direction, while the other goes on.
    let (mut client, mut server) = connection(&listener, from);
    client.shutdown(Shutdown::Write).expect("half of it closes");
    ends(&mut server);
    server.write_all(b"more").expect("data");
    client.read_exact(&mut [0; 4]).expect("data");
    drop(server);
    ends(&mut client);
    drop(client);
    // With a reset.
    let (client, mut server) = connection(&listener, from);
    setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).expect("an option");
    drop(client);
    server.read(&mut [0; 8]).expect_err("a reset");
    drop(server);
    // With data that is not read.
    let (client, mut server) = connection(&listener, from);
    server.write_all(b"unread").expect("data");
    client.peek(&mut [0; 8]).expect("data");
    drop(client);
    server.read(&mut [0; 8]).expect_err("a reset");
    drop(server);
    // With data that comes later.
    let (client, mut server) = connection(&listener, from);
    drop(client);
    ends(&mut server);
    server.write_all(b"late").expect("data");
    eventually("a reset", || server.take_error().is_ok_and(|error| error.is_some()));
    drop(server);
    // Never accepted.
    let client = from.run(|| TcpStream::connect((address, 7000))).expect("a connection");
    drop(listener);
    drop(client);
    // The same ports again, while the last connection is in TIME_WAIT at the listener.
    again(to, from, address);
    let refused = from.run(|| TcpStream::connect((address, 9)));
    assert_eq!(refused.expect_err("no listener").kind(), std::io::ErrorKind::ConnectionRefused);
}

fn again(to: &Net, from: &Net, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind((address, 7001))).expect("a listener");
    for _ in 0..3 {
        let client = from.run(|| connect_from(SOURCE_PORT, SocketAddr::new(address, 7001)));
        let (server, _) = listener.accept().expect("a connection");
        drop(server);
        let mut client = client;
        ends(&mut client);
    }
}

fn connect_from(port: u16, to: SocketAddr) -> TcpStream {
    let (family, any): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => (AddressFamily::Inet6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket: OwnedFd =
        socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&socket, ReuseAddr, &true).expect("an option");
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, port)))
        .expect("the port is free");
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).expect("a connection");
    socket.into()
}

/// Has IPv6 announce itself at once, as it does within seconds.
fn hurried(net: &Net) {
    for scope in ["all", "default"] {
        net.sysctl(&format!("net/ipv6/conf/{scope}/mldv2_unsolicited_report_interval"), "10");
        net.sysctl(&format!("net/ipv6/conf/{scope}/router_solicitation_delay"), "0");
    }
}

/// Waits until a device's own address is known to be nobody else's: then routers are asked for.
fn settled(net: &Net, device: &str) {
    eventually(&format!("an address of {device}"), || {
        let addresses = net.words(&format!("ip -6 -o addr show dev {device} scope link"));
        addresses.contains("fe80") && !addresses.contains("tentative")
    });
}

fn link_up() -> Run {
    let nets = [Net::new(), Net::new(), Net::new()];
    nets.iter().for_each(hurried);
    nets[1].ip("link add br0 type bridge");
    nets[1].ip("link set br0 up");
    Box::new(move || {
        let [a, b, c] = &nets;
        a.join("va", "10.99.0.1/24", b, "vb", "10.99.0.2/24");
        c.join("vc", "10.99.1.1/24", b, "vd", "10.99.1.2/24");
        b.ip("link set vb master br0");
        for (net, device) in [(a, "va"), (c, "vc"), (b, "vd")] {
            settled(net, device);
        }
        b.ip("link set vd down");
        b.ip("link set vd up");
        settled(c, "vc");
        nets.into()
    })
}

/// Beside a container that runs: the bridge of its host is in use.
fn container() -> Run {
    let host = Net::new();
    hurried(&host);
    host.ip("link add br0 type bridge");
    host.ip("addr add 10.99.2.1/24 dev br0");
    host.ip("link set br0 up");
    host.sysctl("net/ipv4/ip_forward", "1");
    let runs = started(&host, 2);
    settled(&runs, "eth0");
    settled(&host, "br0");
    Box::new(move || {
        let containers = [3, 4].map(|number| started(&host, number));
        for container in &containers {
            settled(container, "eth0");
            ask(container, &host);
        }
        // One is stopped by its host, the other goes with all it has.
        host.ip("link del veth3");
        let [one, other] = containers;
        other.ip("link del eth0");
        vec![host, runs, one, other]
    })
}

/// A container with an interface at its host's bridge.
fn started(host: &Net, number: u8) -> Net {
    let (container, port) = (Net::new(), format!("veth{number}"));
    hurried(&container);
    host.join(&port, &format!("10.99.3.{number}/32"), &container, "eth0", &format!("10.99.2.{number}/24"));
    host.ip(&format!("link set {port} master br0"));
    container.ip("route add default via 10.99.2.1");
    container
}

/// A container asks its host something.
fn ask(container: &Net, host: &Net) {
    let server = host.run(|| UdpSocket::bind("10.99.2.1:53")).expect("a server");
    let client = container.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a client");
    client.send_to(b"question", "10.99.2.1:53").expect("sent");
    let (_, from) = server.recv_from(&mut [0; 8]).expect("a question");
    server.send_to(b"answer", from).expect("sent");
    client.recv(&mut [0; 8]).expect("an answer");
}
