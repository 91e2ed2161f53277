//! C dropwatch and ours over the same drops, as rows of a table: where its kernel module can be loaded, in guests.

use std::{
    any::Any,
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    frames::{self, Packet},
    inject::{
        self, Prepared,
        wire::{self, Wire},
    },
    net::Net,
    watch::Stream,
};

/// Where C dropwatch is, if this program is to compare.
pub fn program() -> Option<PathBuf> {
    std::env::var_os("DROPWATCH_RIVAL").map(PathBuf::from)
}

/// Prints a row for each way to drop packets.
pub fn compare(rival: &Path) {
    for module in [
        "drop_monitor",
        "mpls_router",
        "tipc",
        "l2tp_ip",
        "sctp",
        "ipip",
        "sit",
        "esp4",
        "llc",
        "ip6_tunnel",
        "esp6",
    ] {
        // What cannot be loaded drops nothing.
        let _ = Command::new("modprobe").args(["-q", module]).status();
    }
    println!("| drops | caused | dropwatch | C dropwatch |");
    println!("| --- | --- | --- | --- |");
    for name in ["nft_input", "tc_ingress", "tcp_checksum", "neighbour_queue_full", "no_route"] {
        one_case(rival, name);
    }
    flood(rival);
    many_places(rival);
}

fn row(name: &str, caused: &str, rival: &Path, act: impl FnOnce()) {
    let (ours, theirs) = watched(rival, act);
    let told = |counts: &Counts| {
        format!(
            "{} at {} locations",
            counts.values().sum::<u64>(),
            counts.keys().filter(|at| **at > 0).count()
        )
    };
    println!("| {name} | {caused} | {} | {} |", told(&ours), told(&theirs));
}

fn one_case(rival: &Path, name: &str) {
    let case = inject::cases().find(|case| case.name == name).expect("a case");
    let prepared = (case.prepare)(case.count);
    let caused = prepared.expected.as_ref().expect("drops").count;
    row(&format!("`{name}`"), &caused.to_string(), rival, || (prepared.act)());
}

fn flood(rival: &Path) {
    let nets = [Net::new(), Net::new()];
    let send = || {
        thread::scope(|scope| {
            for net in &nets {
                scope.spawn(|| net.flood(50_000));
            }
        });
    };
    let (ours, theirs) = watched(rival, send);
    let caused: u64 = nets.iter().map(Net::no_ports).sum();
    let sum = |counts: Counts| counts.into_values().sum::<u64>();
    println!("| a flood on two CPUs | {caused} | {} | {} |", sum(ours), sum(theirs));
}

/// All cases at once on one CPU, and garbage in whatever protocols there are besides.
fn many_places(rival: &Path) {
    const EACH: u64 = 3;
    // These wait for something, or share something with another one.
    const ALONE: [&str; 6] = [
        "neighbour_never_answers",
        "fragment_alone",
        "conntrack_table_full",
        "cgroup_ingress",
        "nothing_for_a_full_packet_socket",
        "nothing_for_a_full_accept_queue",
    ];
    let can_run = |case: &&inject::Case| {
        !ALONE.contains(&case.name) && case.needs.iter().all(|need| need.lacking().is_none())
    };
    let prepared: Vec<_> = inject::cases().filter(can_run).map(|case| (case.prepare)(EACH)).collect();
    let expected: u64 =
        prepared.iter().filter_map(|prepared| prepared.expected.as_ref()).map(|e| e.count).sum();
    let garbage = Garbage::new();
    let net = Net::quiet();
    let unread = unread(&net);
    let caused = format!("{expected} and {} more", garbage.frames.len() + unread.len());
    row("all cases at once", &caused, rival, || on_one_cpu(&prepared, &garbage, unread));
}

/// Sockets with something in them that nobody will read.
fn unread(net: &Net) -> Vec<Box<dyn Any + Send>> {
    net.run(|| {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        udp.send_to(b"x", udp.local_addr().expect("an address")).expect("a datagram to itself");
        let (here, there) = UnixDatagram::pair().expect("a pair of sockets");
        here.send(b"x").expect("a datagram");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let mut client =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        client.write_all(b"x").expect("a byte");
        vec![
            Box::new(udp) as Box<dyn Any + Send>,
            Box::new((here, there)),
            Box::new((server, client, listener)),
        ]
    })
}

/// At once: what takes longest is waiting, for packet sockets that the kernel closes. C dropwatch has room for 64
/// locations on a CPU in a second; whether this takes longer is up to the machine.
fn on_one_cpu(prepared: &[Prepared], garbage: &Garbage, unread: Vec<Box<dyn Any + Send>>) {
    let mut first = CpuSet::new();
    first.set(0).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &first).expect("pinned to a CPU");
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| garbage.send());
        scope.spawn(|| drop(unread));
        for case in prepared {
            scope.spawn(|| (case.act)());
        }
    });
    println!("all cases at once took {} ms", start.elapsed().as_millis());
}

/// Packets that no protocol has a use for.
struct Garbage {
    wire: Wire,
    frames: Vec<Vec<u8>>,
}

impl Garbage {
    fn new() -> Self {
        const V4: [u8; 12] = [2, 4, 33, 41, 50, 51, 98, 103, 108, 115, 132, 137];
        const V6: [u8; 12] = [0, 4, 41, 43, 44, 50, 51, 60, 108, 115, 132, 135];
        const OTHER: [u16; 6] = [0x0040, 0x0806, 0x8847, 0x8863, 0x8864, 0x88ca];
        let wire = Wire::with_ipv6();
        let (from, to) = (Ipv4Addr::new(10, 98, 0, 7), Ipv4Addr::new(10, 99, 0, 2));
        let v4 = V4.map(|protocol| Packet::new(from, to, protocol, vec![0xff; 60]));
        let (from, to) = (Ipv6Addr::from([0xfd00, 0x98, 0, 0, 0, 0, 0, 7]), [0xfd00, 0x99, 0, 0, 0, 0, 0, 2]);
        let v6 = V6.map(|protocol| Packet::new(from, Ipv6Addr::from(to), protocol, vec![0xff; 60]));
        let packets = v4.iter().chain(&v6).map(|packet| (packet.ethertype(), packet.bytes()));
        let frame = |(ethertype, bytes): (u16, Vec<u8>)| {
            frames::frame(wire.to, [2, 0, 0, 0, 0, 1], ethertype, &bytes)
        };
        let frames = packets.chain(OTHER.map(|ethertype| (ethertype, vec![0xff; 60]))).map(frame).collect();
        Self { wire, frames }
    }

    fn send(&self) {
        frames::send_all(&self.wire.a, "va", self.frames.iter().map(Vec::as_slice));
    }
}

/// Drops by address.
type Counts = BTreeMap<u64, u64>;

/// What each of the two counts while `act` causes drops.
fn watched(rival: &Path, act: impl FnOnce()) -> (Counts, Counts) {
    let ours = Stream::start(&["-i", "200ms"]);
    let theirs = Rival::start(rival);
    ours.catch_up();
    act();
    // It hears of drops a second after the first of them.
    thread::sleep(Duration::from_secs(4));
    let mut counts = Counts::new();
    for report in ours.catch_up() {
        for row in report["rows"].as_array().expect("rows") {
            let address = row["location"]["address"].as_str().expect("an address");
            let address = u64::from_str_radix(address.trim_start_matches("0x"), 16).expect("an address");
            *counts.entry(address).or_default() += row["count"].as_u64().expect("a count");
        }
    }
    (counts, theirs.stop())
}

/// A running C dropwatch. It reads commands, and tells what it has counted at the latest when it ends.
struct Rival(Child);

impl Rival {
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("C dropwatch starts");
        writeln!(child.stdin.as_mut().expect("a pipe"), "start").expect("it reads");
        // The kernel's module is in use for as long as it watches.
        wire::eventually("C dropwatch watches", || {
            let users = fs::read_to_string("/sys/module/drop_monitor/refcnt").unwrap_or_default();
            !users.is_empty() && users.trim() != "0"
        });
        Self(child)
    }

    fn stop(mut self) -> Counts {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT).expect("the signal is sent");
        writeln!(self.0.stdin.take().expect("a pipe"), "exit").expect("it reads");
        let text = std::io::read_to_string(self.0.stdout.take().expect("a pipe")).expect("text");
        let mut counts = Counts::new();
        for (address, count) in text.lines().filter_map(alert) {
            *counts.entry(address).or_default() += count;
        }
        counts
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads `3 drops at location 0xffffffff81f601f8 [software]`.
fn alert(line: &str) -> Option<(u64, u64)> {
    let (count, rest) = line.trim().split_once(" drops at ")?;
    let address = rest.split("0x").nth(1)?.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    Some((u64::from_str_radix(address, 16).ok()?, count.parse().ok()?))
}
