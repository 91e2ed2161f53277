//! Drops by the socket they belong to, the process that has it open, and the container it runs in.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::Signal,
        socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, setsockopt, sockopt},
    },
};
use serde_json::{Value, json};

use crate::{
    Test,
    support::{
        self,
        frames::{self, IPV4, Packet, Tcp},
        inject::{
            needs,
            wire::{Wire, eventually},
        },
        kernel,
        net::{CLOSED, Net},
        pcapng, trial,
        watch::{Reports, Watch},
    },
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("objects::of_two_sockets_on_one_port_the_full_one_is_named", reuseport),
    ("objects::a_sender_behind_an_output_rule_is_named", sender),
    ("objects::a_process_that_ends_at_once_is_named", short_lived),
    ("objects::a_shared_socket_names_the_oldest_process", shared),
    ("objects::a_reset_by_the_kernel_is_the_kernels", reset),
    ("objects::what_is_left_of_a_connection_says_so", time_wait),
    ("objects::a_connection_request_is_its_listeners", request),
    ("objects::a_trace_shows_whose_packets_are", traced),
    ("objects::services_and_containers_are_named_by_their_cgroups", cgroups),
    ("objects::a_namespace_is_called_after_its_container", namespaces),
    ("objects::sockets_come_and_go_for_longer_than_the_map_is_large", churn),
    ("objects::a_gate_limits_and_expects_drops_of_a_process", gate),
];

/// Set in the environment of a process that sends: to whom, how often, and the cgroup to do it in.
const SENDER: &str = "DROPWATCH_TEST_SENDER";

/// Whether this is the process that sends.
pub fn is_the_sender() -> bool {
    std::env::var_os(SENDER).is_some()
}

/// Sends, and ends.
pub fn be_the_sender() {
    prctl::set_name(c"dw-sender").expect("a name");
    let words = std::env::var(SENDER).expect("words");
    let words: Vec<_> = words.split(' ').collect();
    if let Some(cgroup) = words.get(2) {
        fs::write(Path::new(cgroup).join("cgroup.procs"), "0").expect("the cgroup is entered");
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for _ in 0..words[1].parse().expect("a number") {
        let _ = socket.send_to(b"x", words[0]);
    }
}

/// Runs the process that sends; its number.
pub fn send_from_process(net: &Net, count: u64, cgroup: Option<&Path>) -> u32 {
    let words = format!("127.0.0.1:{CLOSED} {count}");
    let words = cgroup.map_or(words.clone(), |cgroup| format!("{words} {}", cgroup.display()));
    net.run(|| {
        let mut sender = Command::new(std::env::current_exe().expect("this program"));
        let mut child = sender.env(SENDER, words).spawn().expect("it starts");
        let status = child.wait().expect("it ends");
        assert!(status.success(), "{status:?} {:?}", status.signal());
        child.id()
    })
}

fn watch_by(keys: &str) -> Watch {
    Watch::start(&["-o", "json", "-i", "1h", "-b", keys, "--no-counters"])
}

/// The same from a container with a host name of its own.
fn watch_from_inside(keys: &'static str) -> Watch {
    let inside = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWUTS).expect("a namespace");
        fs::write("/proc/sys/kernel/hostname", "inside").expect("a host name");
        watch_by(keys)
    });
    inside.join().expect("it starts")
}

/// The rows of a namespace.
fn rows_of<'a>(reports: &'a Reports, net: &Net) -> Vec<&'a Value> {
    reports.rows().filter(|row| row["netns"]["inum"] == net.inum()).collect()
}

fn drops(rows: &[&Value]) -> u64 {
    rows.iter().map(|row| row["count"].as_u64().expect("a count")).sum()
}

/// This process, as the key shows it.
fn this_process() -> Value {
    let comm = fs::read_to_string("/proc/self/comm").expect("a name");
    json!({ "pid": std::process::id(), "comm": comm.trim_end(), "others": 0 })
}

fn inode(socket: &UdpSocket) -> u64 {
    fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("the socket's file").ino()
}

/// Has the namespace's own datagrams to the closed port, and the resets it sends, dropped by rules; false if this
/// machine has no rules.
fn forbid_output(net: &Net) -> bool {
    if let Some(why) = trial::lacking(&needs::NFT) {
        dropwatch_testing::skip(why);
        return false;
    }
    net.words("nft add table ip t");
    net.command("nft", &["add chain ip t c { type filter hook output priority 0 ; }"]);
    net.words(&format!("nft add rule ip t c udp dport {CLOSED} drop"));
    net.command("nft", &["add rule ip t c tcp flags & rst == rst drop"]);
    true
}

/// A bound socket with little room, whose port others may share.
fn small_socket(address: SocketAddr) -> UdpSocket {
    let SocketAddr::V4(v4) = address else { unreachable!() };
    let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
    let bound = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&bound, sockopt::ReusePort, &true).expect("a shared port");
    setsockopt(&bound, sockopt::RcvBuf, &4096).expect("little room");
    socket::bind(bound.as_raw_fd(), &SockaddrIn::from(v4)).expect("bound");
    UdpSocket::from(bound)
}

fn reuseport() {
    let net = Net::quiet();
    let watch = watch_by("socket,process,netns");
    let (full, other, address) = net.run(|| {
        let one = small_socket("127.0.0.1:0".parse().expect("an address"));
        let address = one.local_addr().expect("an address");
        let other = small_socket(address);
        // One flow is for one of the two.
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..97 {
            sender.send_to(&[0; 700], address).expect("sent");
        }
        one.set_nonblocking(true).expect("no waiting");
        let is_full = one.recv(&mut [0; 1]).is_ok();
        if is_full { (one, other, address) } else { (other, one, address) }
    });
    let lost = || net.counter("snmp", "Udp", "RcvbufErrors");
    eventually("all are dropped that do not fit", || lost() > 80);
    let reports = watch.stop();
    let rows = rows_of(&reports, &net);
    let [row] = rows[..] else { panic!("one row: {rows:?}") };
    assert_eq!(row["count"], lost(), "{reports:?}");
    if !kernel::tells_socket() {
        // The packet is not the receiver's yet.
        assert_eq!((&row["socket"], &row["process"]), (&Value::Null, &Value::Null), "{row}");
        return;
    }
    let socket = &row["socket"];
    assert_eq!(socket["protocol"], "udp");
    assert_eq!(socket["local"], address.to_string());
    assert_eq!((&socket["remote"], &socket["kernel"]), (&Value::Null, &json!(false)));
    assert_eq!(socket["inode"], inode(&full), "{row}, and not {}", inode(&other));
    assert_eq!(socket["receive_size"], 2 * 4096, "{row}");
    let used = socket["receive_used"].as_u64().expect("a number");
    // Some kernels accept the packet that exceeds the limit, and refuse the next one: it occupies 2304 bytes.
    assert!((1..=2 * 4096 + 2304).contains(&used), "{row}");
    assert_eq!(row["process"], this_process());
}

fn sender() {
    let net = Net::quiet();
    if !forbid_output(&net) {
        return;
    }
    let watch = watch_by("process,netns,socket,reason");
    let socket = net.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for _ in 0..43 {
            let _ = socket.send_to(b"x", ("127.0.0.1", CLOSED));
        }
        socket
    });
    let reports = watch.stop();
    let rows = rows_of(&reports, &net);
    assert_eq!(drops(&rows), 43, "{reports:?}");
    let [row] = rows[..] else { panic!("one row: {rows:?}") };
    assert_eq!(row["process"], this_process());
    assert_eq!(row["socket"]["inode"], inode(&socket), "{row}");
    assert_eq!(row["socket"]["local"], socket.local_addr().expect("an address").to_string());
}

fn short_lived() {
    let net = Net::quiet();
    if !forbid_output(&net) {
        return;
    }
    let watch = watch_by("process,netns");
    let processes: Vec<u32> = (0..5).map(|number| send_from_process(&net, 7 + number, None)).collect();
    let reports = watch.stop();
    let rows = rows_of(&reports, &net);
    for (number, pid) in (0..).zip(&processes) {
        let process = json!({ "pid": pid, "comm": "dw-sender", "others": 0 });
        let of_it: Vec<_> = rows.iter().copied().filter(|row| row["process"] == process).collect();
        assert_eq!(drops(&of_it), 7 + number, "{process}: {reports:?}");
    }
    assert_eq!(rows.len(), processes.len(), "{reports:?}");
}

fn shared() {
    let net = Net::quiet();
    if !forbid_output(&net) {
        return;
    }
    let socket = net.run(|| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    // Two others that have it as their standard input, with lower numbers where there is a way to give them.
    let _ = fs::write("/proc/sys/kernel/ns_last_pid", "300");
    let mut others: Vec<_> = (0..2)
        .map(|_| {
            let shared = std::os::fd::OwnedFd::from(socket.try_clone().expect("the same socket"));
            Command::new("sleep").arg("1000").stdin(shared).spawn().expect("it starts")
        })
        .collect();
    let watch = watch_by("process,netns");
    for _ in 0..3 {
        let _ = socket.send_to(b"x", ("127.0.0.1", CLOSED));
    }
    let reports = watch.stop();
    for other in &mut others {
        other.kill().expect("it ends");
        other.wait().expect("it has ended");
    }
    let rows = rows_of(&reports, &net);
    let mut expected = this_process();
    expected["others"] = json!(2);
    assert_eq!((drops(&rows), &rows[0]["process"]), (3, &expected), "{reports:?}");
}

fn reset() {
    let wire = Wire::new();
    if !forbid_output(&wire.b) {
        return;
    }
    let watch = watch_by("process,socket,container,reason,netns");
    let segment = Tcp { port: CLOSED, flags: frames::SYN, ..Tcp::default() };
    let request = Packet::tcp([10, 99, 0, 1], [10, 99, 0, 2], segment);
    wire.deliver_copies(IPV4, &request.bytes(), 29);
    let reports = watch.stop();
    let rows = rows_of(&reports, &wire.b);
    let resets: Vec<_> = rows.iter().copied().filter(|row| !row["process"].is_null()).collect();
    assert_eq!(drops(&resets), 29, "{reports:?}");
    for row in &resets {
        assert_eq!(row["process"], json!({ "pid": null, "comm": "kernel" }));
        assert_eq!(row["socket"]["protocol"], "tcp");
        assert_eq!(
            (&row["socket"]["kernel"], &row["socket"]["local"]),
            (&json!(true), &Value::Null),
            "{row}"
        );
        assert_eq!(row["container"], Value::Null);
    }
    // The requests themselves are of no socket.
    let requests: Vec<_> = rows.iter().copied().filter(|row| row["process"].is_null()).collect();
    assert_eq!(drops(&requests), 29, "{reports:?}");
    assert!(requests.iter().all(|row| row["socket"].is_null() && row["container"].is_null()), "{reports:?}");
}

fn time_wait() {
    const PORT: u16 = 7000;
    let wire = Wire::new();
    // Its peer would end it with a reset.
    if !forbid_output(&wire.a) {
        return;
    }
    let listener = wire.b.run(|| TcpListener::bind(("10.99.0.2", PORT))).expect("a listener");
    let mut peer = wire.a.run(|| TcpStream::connect(("10.99.0.2", PORT))).expect("a connection");
    let remote = peer.local_addr().expect("an address");
    // Who closes first waits.
    drop(listener.accept().expect("a connection"));
    assert_eq!(peer.read(&mut [0; 8]).expect("the end"), 0);
    drop(peer);
    eventually("the connection has ended", || {
        let sockets = wire.b.run(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("sockets");
        // Of the number 6.
        sockets.lines().any(|line| line.split_whitespace().nth(3) == Some("06"))
    });
    let watch = watch_by("process,socket,container,netns");
    let segment = Tcp { port: PORT, flags: frames::ACK, ..Tcp::default() };
    let mut late = Packet::tcp([10, 99, 0, 1], [10, 99, 0, 2], segment);
    late.set_source_port(remote.port());
    wire.deliver_copies(IPV4, &late.bytes(), 1);
    let reports = watch.stop();
    let rows = rows_of(&reports, &wire.b);
    let left: Vec<_> = rows.iter().copied().filter(|row| row["socket"]["state"] == "TIME-WAIT").collect();
    if !kernel::tells_socket() {
        assert!(left.is_empty() && !rows.is_empty(), "{reports:?}");
        return;
    }
    let [row] = left[..] else { panic!("one row: {reports:?}") };
    assert_eq!(row["count"], 1, "{reports:?}");
    let socket = &row["socket"];
    assert_eq!(socket["local"], format!("10.99.0.2:{PORT}"));
    assert_eq!(socket["remote"], remote.to_string());
    for unknown in ["receive_used", "receive_size", "uid", "inode"] {
        assert_eq!(socket[unknown], Value::Null, "{unknown}: {row}");
    }
    assert_eq!((&row["process"], &row["container"]), (&Value::Null, &Value::Null));
}

fn request() {
    const PORT: u16 = 7000;
    let wire = Wire::new();
    if !forbid_output(&wire.b) {
        return;
    }
    // The answers to connection requests, which are of sockets that are not connected yet.
    wire.b.command("nft", &["add rule ip t c tcp flags & (syn|ack) == (syn|ack) drop"]);
    let listener = wire.b.run(|| TcpListener::bind(("10.99.0.2", PORT))).expect("a listener");
    let watch = watch_by("process,socket,netns");
    let segment = Tcp { port: PORT, flags: frames::SYN, ..Tcp::default() };
    let request = Packet::tcp([10, 99, 0, 1], [10, 99, 0, 2], segment);
    wire.deliver_copies(IPV4, &request.bytes(), 1);
    let reports = watch.stop();
    let rows = rows_of(&reports, &wire.b);
    let requests: Vec<_> = rows.iter().copied().filter(|row| row["socket"]["state"] == "SYN-RECV").collect();
    assert!(!requests.is_empty(), "{reports:?}");
    for row in requests {
        let socket = &row["socket"];
        assert_eq!(
            (&socket["protocol"], &socket["local"]),
            (&json!("tcp"), &json!(format!("10.99.0.2:{PORT}"))),
            "{row}"
        );
        assert_eq!((&socket["inode"], &socket["receive_size"]), (&Value::Null, &Value::Null), "{row}");
        assert_eq!(row["process"], this_process(), "the listener's: {row}");
    }
    drop(listener);
}

fn traced() {
    const DROPS: u64 = 13;
    let net = Net::quiet();
    if !forbid_output(&net) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("drops.pcapng");
    let netns = format!("netns {} and udp", net.inum());
    let trace = |more: &[&str]| Watch::start(&[&["trace", "-o", "json"], more].concat());
    let [all, of_it, of_others, without] = [
        trace(&["--socket", "-w", file.to_str().expect("letters"), "-f", &netns]),
        trace(&["-f", &netns, "process", "dw-sender"]),
        trace(&["-f", &netns, "not", "process", "dw-sender"]),
        trace(&["-f", &netns]),
    ];
    let pid = send_from_process(&net, DROPS, None);
    let process = json!({ "pid": pid, "comm": "dw-sender", "others": 0 });
    for (watch, shown, has_socket) in
        [(all, DROPS, true), (of_it, DROPS, true), (of_others, 0, true), (without, DROPS, false)]
    {
        watch.signal(Signal::SIGINT);
        let ended = watch.wait();
        let mut drops: Vec<Value> =
            ended.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let summary = drops.pop().expect("a summary");
        assert_eq!((drops.len() as u64, &summary["not_shown"]), (shown, &json!(0)), "{ended:?}");
        for drop in drops {
            assert_eq!(drop.get("process"), has_socket.then_some(&process), "{drop}");
            let local = drop["socket"]["local"].as_str().unwrap_or_default();
            let source = format!("127.0.0.1:{}", drop["packet"]["sport"]);
            assert_eq!(local, if has_socket { &source } else { "" }, "{drop}");
        }
    }
    let captured = pcapng::read(&file);
    assert_eq!(captured.len() as u64, DROPS);
    let owner = format!("; process dw-sender[{pid}]; container ");
    assert!(captured.iter().all(|packet| packet.comment.contains(&owner)), "{owner}: {captured:?}");
}

/// The hierarchy of cgroups of the second version, mounted if it is not yet.
struct Hierarchy {
    path: PathBuf,
    own: Option<tempfile::TempDir>,
}

impl Hierarchy {
    fn find() -> Option<Self> {
        if let Some(path) = needs::unified_hierarchy() {
            return Some(Self { path, own: None });
        }
        let own = tempfile::tempdir().expect("a directory");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("cgroup2"), own.path(), Some("cgroup2"), flags, None::<&str>).ok()?;
        Some(Self { path: own.path().to_owned(), own: Some(own) })
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        if self.own.is_some() {
            let _ = nix::mount::umount(&self.path);
        }
    }
}

/// A cgroup, until this is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(hierarchy: &Hierarchy, name: &str) -> Self {
        let path = hierarchy.path.join(name);
        fs::create_dir_all(&path).expect("a cgroup");
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        eventually("the cgroup is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

fn cgroups() {
    let net = Net::quiet();
    let Some(hierarchy) = Hierarchy::find() else { return dropwatch_testing::skip("no cgroup2") };
    if !forbid_output(&net) {
        return;
    }
    let service = Cgroup::new(&hierarchy, "dw-test.service");
    let other = Cgroup::new(&hierarchy, "dw-test");
    let runtimes = [
        ("docker-", "4f5e6d7c", "docker", 17),
        ("cri-containerd-", "a1b2c3d4", "containerd", 5),
        ("crio-", "b1c2d3e4", "cri-o", 7),
        ("libpod-", "c1d2e3f4", "podman", 11),
    ];
    let runtimes = runtimes.map(|(prefix, part, runtime, count)| {
        let (id, scope) = (part.repeat(8), format!("{prefix}{}.scope", part.repeat(8)));
        (Cgroup::new(&hierarchy, &scope), format!("/{scope}"), id, runtime, count)
    });
    let watches = [watch_by("container,netns"), watch_from_inside("container,netns")];
    // Rows that stand for something else: what the filter needs beside them is gone from them.
    let filtered = [
        ("process dw-sender", 72),
        ("process dw-sendes", 0),
        ("container dw-test.service or container 4f5e6d7c4f5e", 30),
        ("not container dw-test.service and udp and not class harmless", 59),
        ("cgroup /", 72),
    ];
    let filters = filtered.map(|(filter, _)| {
        let filter = format!("netns {} and ({filter})", net.inum());
        Watch::start(&["-o", "json", "-i", "1h", "-b", "netns", "-f", &filter])
    });
    for (cgroup, count) in [(&service, 13), (&other, 19)] {
        send_from_process(&net, count, Some(&cgroup.0));
    }
    for (cgroup, _, _, _, count) in &runtimes {
        send_from_process(&net, *count, Some(&cgroup.0));
    }
    for ((filter, count), watch) in filtered.into_iter().zip(filters) {
        let reports = watch.stop();
        assert_eq!(drops(&rows_of(&reports, &net)), count, "{filter}: {reports:?}");
        assert_eq!(
            (reports.rows().count() <= 1, reports.lost("undecided")),
            (true, 0),
            "{filter}: {reports:?}"
        );
    }
    let mut expected = vec![
        ("/dw-test.service", "dw-test.service", None, Some("systemd"), 13),
        ("/dw-test", "", None, None, 19),
    ];
    expected.extend(
        runtimes
            .iter()
            .map(|(_, scope, id, name, count)| (&**scope, &id[..12], Some(&**id), Some(*name), *count)),
    );
    for reports in watches.map(Watch::stop) {
        let rows = rows_of(&reports, &net);
        for (path, name, id, runtime, count) in &expected {
            // The root may be another cgroup than that of the hierarchy.
            let is_it =
                |row: &&Value| row["container"]["cgroup"].as_str().is_some_and(|it| it.ends_with(path));
            let of_it: Vec<_> = rows.iter().copied().filter(is_it).collect();
            let [row] = of_it[..] else { panic!("{path}: {reports:?}") };
            let shown = &row["container"];
            let name = if runtime.is_none() { shown["cgroup"].clone() } else { json!(name) };
            assert_eq!(
                (&shown["name"], &shown["id"], &shown["runtime"], &row["count"]),
                (&name, &json!(id), &json!(runtime), &json!(count)),
                "{row}"
            );
        }
    }
}

/// A process in a network namespace of its own, until this is dropped.
struct Alone(std::process::Child);

impl Alone {
    /// One that has sent so many datagrams to a closed port, after a shell has run what is to be done first.
    fn sending(unshared: &[&str], first: &str, count: u64) -> Self {
        let script = format!("{first}; ip link set lo up; \"$0\"; echo sent; exec sleep 1000");
        let mut command = Command::new("unshare");
        command
            .args(unshared)
            .args(["sh", "-c", &script])
            .arg(std::env::current_exe().expect("this program"));
        command.env(SENDER, format!("127.0.0.1:{CLOSED} {count}")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("its output");
        BufReader::new(stdout).read_line(&mut said).expect("its output");
        assert_eq!(said, "sent\n");
        // Not the shell, by whose name the namespace would be called.
        let name = format!("/proc/{}/comm", child.id());
        eventually("sleep", || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n"));
        Self(child)
    }

    fn netns(&self) -> u64 {
        fs::metadata(format!("/proc/{}/ns/net", self.0.id())).expect("its namespace").ino()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.kill().expect("it ends");
        self.0.wait().expect("it has ended");
    }
}

fn namespaces() {
    let Some(hierarchy) = Hierarchy::find() else { return dropwatch_testing::skip("no cgroup2") };
    let cgroup = Cgroup::new(&hierarchy, &format!("docker-{}.scope", "4f5e6d7c".repeat(8)));
    let enter = format!("echo 0 > {}/cgroup.procs", cgroup.0.display());
    let watches = [watch_by("netns"), watch_from_inside("netns")];
    // These do not exist yet.
    let filtered = [
        ("netns web-7d9f", 11),
        ("netns 4f5e6d7c4f5e", 13),
        ("netns 4f5e6d7c4f5e or netns web-7d9f and not tcp", 24),
        ("netns web-7d9e", 0),
    ];
    let filters =
        filtered.map(|(filter, _)| Watch::start(&["-o", "json", "-i", "1h", "-b", "netns", "-f", filter]));
    let trace = Watch::start(&["trace", "-o", "json", "-f", "netns 4f5e6d7c4f5e"]);
    // While its first process is not in the container yet, packets of the pod have all processes looked through.
    let container = thread::spawn(move || Alone::sending(&["--net"], &format!("sleep 1; {enter}"), 13));
    thread::sleep(Duration::from_millis(500));
    let pod = Alone::sending(&["--net", "--uts"], "echo web-7d9f > /proc/sys/kernel/hostname", 11);
    let container = container.join().expect("it has sent");
    let other = Alone::sending(&["--net"], "true", 17);
    let process = format!("sleep[{}]", other.0.id());
    let expected = [(&pod, "web-7d9f", 11), (&container, "4f5e6d7c4f5e", 13), (&other, &*process, 17)];
    for reports in watches.map(Watch::stop) {
        for (alone, name, count) in expected {
            let (inum, rows) = (alone.netns(), reports.rows());
            let of_it: Vec<_> = rows.filter(|row| row["netns"]["inum"] == inum).collect();
            let [row] = of_it[..] else { panic!("{name}: {reports:?}") };
            assert_eq!((&row["netns"]["name"], &row["count"]), (&json!(name), &json!(count)), "{reports:?}");
        }
    }
    for ((filter, count), watch) in filtered.into_iter().zip(filters) {
        let reports = watch.stop();
        let counted: u64 = reports.rows().map(|row| row["count"].as_u64().expect("a count")).sum();
        assert_eq!((counted, reports.lost("undecided")), (count, 0), "{filter}: {reports:?}");
    }
    trace.signal(Signal::SIGINT);
    let traced = trace.wait().stdout;
    assert_eq!(traced.lines().filter(|line| line.contains(r#""type":"drop""#)).count(), 13, "{traced}");
    gate_of_container(&container);
}

/// A gate that names a container's namespace limits the drops in it.
fn gate_of_container(container: &Alone) {
    let pid = container.0.id().to_string();
    let sender = std::env::current_exe().expect("this program");
    let output = Command::new(support::dropwatch())
        .args(["check", "--settle", "0", "--max", "netns=4f5e6d7c4f5e:6", "--max", "netns=4f5e6d7c4f5e:7"])
        .args(["--max", "netns=4f5e6d7c4f5f:0", "--", "nsenter", "-t", &pid, "-n"])
        .arg(sender)
        .env(SENDER, format!("127.0.0.1:{CLOSED} 7"))
        .output()
        .expect("dropwatch runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    for verdict in [
        "7 drops seen, at most 6 allowed",
        "7 drops seen, at most 7",
        "network namespace '4f5e6d7c4f5f' was never there",
    ] {
        assert!(told.contains(verdict), "{verdict}: {told}");
    }
}

fn churn() {
    const SOCKETS: u64 = 300;
    let net = Net::quiet();
    if !forbid_output(&net) {
        return;
    }
    // Each report reads what there is, so that the map is never full.
    let watch =
        support::watch::Stream::start(&["-i", "20ms", "-b", "socket,process,netns", "--max-rows", "64"]);
    let mut rows = Vec::new();
    for number in 0..SOCKETS {
        net.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let _ = socket.send_to(b"x", ("127.0.0.1", CLOSED));
        });
        if number % 20 == 19 {
            rows.extend(watch.catch_up());
        }
    }
    let last = watch.stop();
    rows.extend(last.reports);
    let all = Reports { reports: rows, stderr: last.stderr };
    let rows = rows_of(&all, &net);
    assert_eq!((drops(&rows), all.lost("map_full"), all.lost("socket_failed")), (SOCKETS, 0, 0), "{all:?}");
    let inodes: std::collections::BTreeSet<_> =
        rows.iter().map(|row| row["socket"]["inode"].as_u64().expect("an inode")).collect();
    assert_eq!(inodes.len() as u64, SOCKETS, "each is a socket of its own");
    assert!(rows.iter().all(|row| row["process"] == this_process() && row["total"] == 1), "{all:?}");
}

fn gate() {
    let net = Net::quiet();
    if !forbid_output(&net) {
        return;
    }
    let check = |arguments: &[&str]| {
        let words = format!("127.0.0.1:{CLOSED} 11");
        let output = net.run(|| {
            Command::new(support::dropwatch())
                .args(["check", "--settle", "0"])
                .args(arguments)
                .args(["--", "env"])
                .arg(format!("{SENDER}={words}"))
                .arg(std::env::current_exe().expect("this program"))
                .output()
                .expect("dropwatch runs")
        });
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let udp = "netns self and udp";
    let of_sender = "netns self and udp and process dw-sender";
    let of_others = "netns self and udp and not process dw-sendes";
    for (filter, rules, status, verdicts) in [
        (
            udp,
            ["--expect", "process=dw-sender:11", "--max", "process=dw-sender:11", "--max", "process=env:0"],
            0,
            ["11 drops seen, at least 11", "11 drops seen, at most 11", "0 drops seen, at most 0"],
        ),
        (
            udp,
            // A gate does not pass because of a name that was never there.
            ["--max", "process=dw-sender:10", "--max", "process=dw-sendes:0", "--max", "container=dw-none:0"],
            4,
            [
                "11 drops seen, at most 10 allowed",
                "a process 'dw-sendes' with an open socket was never there",
                "a container 'dw-none' with an open socket was never there",
            ],
        ),
        (of_sender, ["--max", "10", "--max", "11", "--expect", "9"], 4, ["FAILED  --max 10", "ok", "ok"]),
        (of_others, ["--max", "20", "--max", "10", "--expect", "9"], 4, ["UNKNOWN --max 20", "FAILED", "ok"]),
    ] {
        let arguments = [&["-f", filter][..], &rules].concat();
        let (ended, told) = check(&arguments);
        assert_eq!(ended, Some(status), "{arguments:?} {told}");
        let missing: Vec<_> = verdicts.iter().filter(|verdict| !told.contains(**verdict)).collect();
        assert!(missing.is_empty(), "{missing:?} {told}");
    }
}
