//! The calls that led to a drop: which of them refused the packet, on kernels that can say so.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use libtest_mimic::Trial;
use nix::sys::{
    signal::Signal,
    socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt},
};
use serde_json::Value;

use crate::{
    Test,
    support::{
        self,
        frames::Packet,
        inject::{
            self, B, Prepared,
            needs::{self, Need},
            sys,
            wire::{Wire, eventually},
        },
        is_guest, kernel, pin,
        trial::{self, trial},
        watch::{Ended, Watch},
    },
};

/// Where the kernel lists functions that something is attached to.
const TRACEFS: &str = "/sys/kernel/tracing";

/// What kernels say that cannot report calls of their functions.
pub fn tests() -> Vec<Test> {
    let can_follow =
        [needs::FUNCTION_PROBES, needs::FUNCTION_EVENTS].iter().any(|need| trial::lacking(need).is_none());
    if can_follow {
        Vec::new()
    } else {
        vec![("dig::is_refused_where_functions_cannot_be_followed", refused)]
    }
}

/// A drop, and what is said of who refused it: which of these depends on the kernel.
struct Refusal {
    case: &'static str,
    sentences: &'static [&'static str],
}

const REFUSALS: &[Refusal] = &[
    Refusal {
        case: "ospf_hello_to_a_group_not_joined",
        sentences: &[
            "ip_route_input_rcu refused the packet with EINVAL after ip_check_mc_rcu answered 0: vb has not joined \
             224.0.0.5",
            // Since routing gives reasons.
            "ip_route_input_rcu refused the packet with NOT_SPECIFIED after ip_check_mc_rcu answered 0: vb has not \
             joined 224.0.0.5",
            "ip_route_input_noref refused the packet with NOT_SPECIFIED after ip_check_mc_rcu answered 0: vb has not \
             joined 224.0.0.5",
        ],
    },
    Refusal {
        case: "reverse_path_filter",
        sentences: &[
            "__fib_validate_source refused the packet with EXDEV after fib_info_nh_uses_dev answered false: replies \
             to 10.98.0.7 do not leave by vb, and its rp_filter requires it",
            "__fib_validate_source refused the packet with IP_RPFILTER after fib_info_nh_uses_dev answered false: \
             replies to 10.98.0.7 do not leave by vb, and its rp_filter requires it",
        ],
    },
    Refusal {
        case: "forwarding_is_off",
        sentences: &["no call below ip_error refused the packet: ip_error decided by itself"],
    },
    Refusal {
        case: "conntrack_table_full",
        sentences: &[
            "__nf_conntrack_alloc refused the packet with ENOMEM after early_drop answered 0: the table of connections is full (compare net.netfilter.nf_conntrack_count and nf_conntrack_max)",
        ],
    },
    Refusal {
        case: "gre_version",
        sentences: &["no call below gre_rcv refused the packet: gre_rcv decided by itself"],
    },
    Refusal {
        case: "vxlan_without_underlay_route",
        sentences: &["fib_table_lookup refused the packet with EAGAIN: there is no route to 10.77.0.9"],
    },
    Refusal {
        case: "source_is_own_address",
        sentences: &[
            "fib_validate_source refused the packet with IP_LOCAL_SOURCE: 10.99.0.2 is an address of this host, and accept_local of vb is off",
            // Before routing gave reasons.
            "fib_validate_source refused the packet with EINVAL",
        ],
    },
    Refusal {
        case: "udp_closed_port",
        sentences: &[
            "no call below udp_rcv refused the packet: udp_rcv decided by itself; its last call before was __udp4_lib_lookup, which answered NULL: no socket is bound to 10.99.0.2 and port 9",
            "no call below __udp4_lib_rcv refused the packet: __udp4_lib_rcv decided by itself; its last call before was __udp4_lib_lookup, which answered NULL: no socket is bound to 10.99.0.2 and port 9",
        ],
    },
    Refusal {
        case: "tcp_closed_port",
        sentences: &[
            "no call below tcp_v4_rcv refused the packet: tcp_v4_rcv decided by itself; its last call before was __inet_lookup_listener, which answered NULL: no socket listens on 10.99.0.2 and port 9",
        ],
    },
    Refusal {
        case: "udp_checksum",
        sentences: &[
            "no call below udp_rcv refused the packet: udp_rcv decided by itself; its last call before was \
             __skb_checksum_complete, which answered 16: the checksum in the packet is wrong",
            "no call below __udp4_lib_rcv refused the packet: __udp4_lib_rcv decided by itself; its last call before was \
             __skb_checksum_complete, which answered 16: the checksum in the packet is wrong",
        ],
    },
    Refusal {
        case: "ip_unknown_protocol",
        sentences: &[
            "no call below ip_local_deliver_finish refused the packet: ip_local_deliver_finish decided by itself; its last call before was raw_local_deliver, which answered 0",
        ],
    },
    Refusal {
        case: "socket_filter",
        sentences: &[
            "sk_filter_trim_cap refused the packet with SOCKET_FILTER after security_sock_rcv_skb answered 0",
            "sk_filter_trim_cap refused the packet with EPERM after security_sock_rcv_skb answered 0",
        ],
    },
];

/// Those of them that are tried where each function has probes of its own, which take long to go.
const EACH: &[&str] = &["ospf_hello_to_a_group_not_joined", "reverse_path_filter", "conntrack_table_full"];

/// Those with needs; none on kernels of the matrix that never had them.
pub fn trials(can_run: bool) -> Vec<Trial> {
    if kernel::is_before(5, 15) {
        return Vec::new();
    }
    let is_each = each_has_its_own();
    let probes = if is_each { needs::FUNCTION_EVENTS } else { needs::FUNCTION_PROBES };
    let named = |name: &str, more: &[Need], body: fn()| {
        trial(format!("dig::{name}"), &[&[probes], more].concat(), can_run, move || {
            body();
            Ok(())
        })
    };
    let tried = REFUSALS.iter().filter(|refusal| !is_each || EACH.contains(&refusal.case));
    let refusals = tried.map(|refusal| {
        let needs = [&[probes], case(refusal.case).needs].concat();
        trial(format!("dig::{}", refusal.case), &needs, can_run, || {
            refuse(refusal);
            Ok(())
        })
    });
    let mut trials: Vec<_> = refusals.collect();
    trials.push(named("nothing_is_left_after_a_signal", &[], killed));
    if is_each {
        return trials;
    }
    trials.push(named("packets_of_others_are_in_no_tree", &[], flooded));
    trials.push(named("a_tree_without_room_for_all_calls_says_so", &[], crowded));
    trials.push(named("tasks_without_room_are_counted", &[], slept));
    trials.push(named("the_rule_is_named_by_the_kernels_own_trace", &[needs::NFT], ruled));
    trials
}

/// Whether each function has probes of its own: on older kernels, and Debian's for arm64.
fn each_has_its_own() -> bool {
    (kernel::is_before(6, 12) || cfg!(target_arch = "aarch64"))
        && trial::lacking(&needs::FUNCTION_PROBES).is_some()
}

/// Has an emulated machine run on one CPU until this is dropped. With two, guests have ended with `Oops: int3` where the
/// kernel was changing its code: at functions to which probes were being attached, and once when nothing but `perf record`
/// was started.
pub struct OneCpu;

impl OneCpu {
    pub fn in_guests() -> Option<Self> {
        is_guest().then(|| {
            fs::write(needs::SECOND_PROCESSOR, "0").expect("the second CPU goes");
            Self
        })
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        fs::write(needs::SECOND_PROCESSOR, "1").expect("the second CPU comes back");
    }
}

fn case(name: &str) -> &'static inject::Case {
    inject::cases().find(|case| case.name == name).expect("a case")
}

/// The number of the namespace in which a case drops packets.
fn namespace(prepared: &Prepared) -> u64 {
    prepared.expected.as_ref().and_then(|expected| expected.netns).expect("a namespace")
}

/// Starts it for the drops of a case.
fn dig(prepared: &Prepared) -> Watch {
    let filter = format!("netns {}", namespace(prepared));
    Watch::start(&["dig", "-o", "json", "-d", "300s", "-f", &filter])
}

/// Its end, while drops are caused all the time.
fn dug(watch: Watch, act: impl Fn() + Sync) -> Ended {
    let has_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                act();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let ended = watch.wait();
        has_ended.store(true, Ordering::Relaxed);
        ended
    })
}

/// The one finding of a run.
fn finding(ended: &Ended) -> Value {
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
    let found: Value = serde_json::from_str(&ended.stdout).expect("an object");
    assert_eq!(freed_in(&found["tree"]), 1, "{found}");
    found
}

fn refuse(refusal: &Refusal) {
    let _one = OneCpu::in_guests();
    let prepared = (case(refusal.case).prepare)(3);
    check(refusal, &prepared, &dug(dig(&prepared), || (prepared.act)()));
}

/// The packet is the case's, and the sentence one of those that it may be.
fn check(refusal: &Refusal, prepared: &Prepared, ended: &Ended) -> Value {
    let found = finding(ended);
    let expected = prepared.expected.clone().expect("drops");
    let flow = expected.flow.map(|flow| (flow.source.to_string(), flow.destination.to_string()));
    let (source, destination) = flow.expect("a flow");
    assert_eq!(found["packet"]["saddr"], source, "{found}");
    assert_eq!(found["packet"]["daddr"], destination, "{found}");
    if let Some(module) = expected.module {
        assert_eq!(found["location"]["module"], module, "{found}");
    }
    if each_has_its_own() {
        assert_eq!(found["complete"], false, "what these leave out is not counted: {found}");
    }
    let sentence = found["verdict"]["sentence"].as_str().expect("a sentence");
    assert!(refusal.sentences.contains(&sentence), "{sentence}\n{found:#}\n{}", ended.stderr);
    found
}

/// How often the packets of interest come during a flood, and how many that match come with each, to be dropped elsewhere.
const TURNS: u64 = 10;
const ELSEWHERE: u64 = 5;

/// Datagrams find no socket on both CPUs meanwhile, by way of the same functions. The program stands still as long as both
/// run: it changes the kernel's text only while there is one.
fn flooded() {
    let one = OneCpu::in_guests();
    let (prepared, others, elsewhere) = (refusal(), [Wire::new(), Wire::new()], Wire::new());
    let filter = format!("netns {} or netns {}", namespace(&prepared), elsewhere.b.inum());
    let watch = Watch::start(&["dig", "-v", "-o", "json", "-d", "300s", "-f", &filter]);
    (prepared.act)();
    eventually("functions are followed", || watch.has_said("; the next drop there is dug into"));
    watch.signal(Signal::SIGSTOP);
    let state = format!("/proc/{}/stat", watch.id());
    eventually("it stands still", || fs::read_to_string(&state).is_ok_and(|stat| stat.contains(") T ")));
    drop(one);

    let began = SystemTime::now();
    let sent = [AtomicU64::new(0), AtomicU64::new(0)];
    let has_ended = AtomicBool::new(false);
    let so_far = || sent.each_ref().map(|sent| sent.load(Ordering::Relaxed));
    thread::scope(|scope| {
        for (cpu, (wire, sent)) in others.iter().zip(&sent).enumerate() {
            let has_ended = &has_ended;
            scope.spawn(move || wire.a.run(|| flood(cpu, sent, has_ended)));
        }
        for _ in 0..TURNS {
            let before = so_far();
            (prepared.act)();
            elsewhere.send(&Packet::udp(Ipv4Addr::new(10, 99, 0, 1), B, 9), ELSEWHERE);
            eventually("packets of others come", || {
                so_far().iter().zip(before).all(|(now, then)| *now > then)
            });
        }
        has_ended.store(true, Ordering::Relaxed);
    });
    let over = SystemTime::now();

    let _one = OneCpu::in_guests();
    watch.signal(Signal::SIGCONT);
    let ended = watch.wait();
    let found = check(&REFUSALS[0], &prepared, &ended);
    let time = humantime::parse_rfc3339(found["time"].as_str().expect("a time")).expect("a time");
    assert!(began < time && time < over, "{began:?} {over:?} {found}");
    let names = names(&found["tree"]);
    assert_eq!(names.iter().filter(|name| *name == "ip_rcv").count(), 1, "{names:?}");
    // Called for each of the others, and with no packet by which it could be told.
    assert!(!names.iter().any(|name| name == "fib_table_lookup"), "{names:?}");
    // User space would leave out what is of others, too: the kernel must not hand it over.
    let walks = walks(&ended.stderr);
    assert_eq!((walks.handed_over, walks.unread), (TURNS, 0), "{}", ended.stderr);
    // Each packet is one, and some of their senders are answered.
    let packets = so_far().iter().sum::<u64>() + TURNS * (1 + ELSEWHERE);
    assert!(walks.begun <= 2 * packets, "{walks:?} for {packets} packets");
}

/// Sends datagrams that find no socket from one CPU, until it has ended.
fn flood(cpu: usize, sent: &AtomicU64, has_ended: &AtomicBool) {
    pin(cpu);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    while !has_ended.load(Ordering::Relaxed) {
        let is_sent = socket.send_to(b"x", (B, 9)).is_ok();
        sent.fetch_add(u64::from(is_sent), Ordering::Relaxed);
    }
}

/// What a run says of the walks that it saw.
#[derive(Debug)]
struct Walks {
    begun: u64,
    passed_over: u64,
    handed_over: u64,
    unread: u64,
}

fn walks(stderr: &str) -> Walks {
    let line =
        stderr.lines().find(|line| line.contains(" walks begun, ")).unwrap_or_else(|| panic!("{stderr}"));
    let figures: Vec<_> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [begun, passed_over, handed_over, unread] = figures[..] else { panic!("{line}") };
    Walks { begun, passed_over, handed_over, unread }
}

/// So many tasks stay in a function, and for how many of them there is room. A kernel with no stack for returns of each task
/// has room for four at a time for each function that is followed, and here three are followed of each task.
const SLEEPERS: usize = 200;
const ROOM: u64 = 64;

/// Tasks that stay in a root keep their walks. Those for which there is no room are counted, and it is said where that may
/// be why a drop is in no walk.
fn slept() {
    let _one = OneCpu::in_guests();
    let prepared = refusal();
    let filter = format!("netns {}", namespace(&prepared));
    let root = ["--root", "tcp_sendmsg_locked", "--depth", "16"];
    let watch = Watch::start(&[&["dig", "-v", "-d", "300s", "-f", &filter][..], &root].concat());
    let pairs: Vec<_> = (0..SLEEPERS).map(|_| unread()).collect();
    (prepared.act)();
    eventually("functions are followed", || watch.has_said("; the next drop there is dug into"));
    let ended = thread::scope(|scope| {
        for (sender, _) in &pairs {
            scope.spawn(|| (&*sender).write_all(&vec![0; 1 << 20]).expect_err("it is shut down"));
        }
        eventually("they wait in the kernel", || sleepers() == SLEEPERS);
        (prepared.act)();
        eventually("the drop is known", || {
            watch.signal(Signal::SIGUSR1);
            watch.has_said(
                "drops in the place of the first were in no call of the functions that are followed",
            )
        });
        watch.signal(Signal::SIGTERM);
        let ended = watch.wait();
        for (sender, _) in &pairs {
            sender.shutdown(Shutdown::Both).expect("it wakes up");
        }
        ended
    });
    assert!(ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
    let walks = walks(&ended.stderr);
    assert_eq!((walks.begun, walks.passed_over), (ROOM, SLEEPERS as u64 - ROOM), "{}", ended.stderr);
    let words =
        "(there is room for the calls of 64 tasks at a time, and 136 times those of a task found none";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}

/// A connection with little room, whose second end does not read.
fn unread() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    setsockopt(&listener, sockopt::RcvBuf, &4096).expect("little room");
    let sender = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    setsockopt(&sender, sockopt::SndBuf, &4096).expect("little room");
    (sender, listener.accept().expect("its second end").0)
}

/// How many threads of this process wait to send.
fn sleepers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    let waits = |task: &fs::DirEntry| {
        let place = fs::read_to_string(task.path().join("wchan"));
        place.is_ok_and(|place| ["sk_stream_wait_memory", "wait_woken"].contains(&&*place))
    };
    tasks.flatten().filter(waits).count()
}

/// The functions of a tree.
fn names(call: &Value) -> Vec<String> {
    let below = call["calls"].as_array().expect("calls").iter().flat_map(names);
    let own = call["function"].as_str().expect("a name").to_owned();
    [own].into_iter().chain(below).collect()
}

fn ruled() {
    let _one = OneCpu::in_guests();
    let wire = Wire::new();
    let _name = wire.b.name("dropwatch-dug");
    wire.b.command(
        "nft",
        &["table ip t { chain c { type filter hook input priority 0; udp dport 9 drop; }; }"],
    );
    let netns = format!("netns {}", wire.b.inum());
    let watch = Watch::start(&["dig", "-o", "json", "-d", "300s", "--nft", "-f", &netns]);
    let packet = Packet::udp(Ipv4Addr::new(10, 88, 0, 1), Ipv4Addr::new(10, 99, 0, 2), 9);
    let found = finding(&dug(watch, || wire.send(&packet, 3)));
    let rule = &found["evidence"][0];
    assert_eq!(
        (&rule["source"], &rule["certainty"]),
        (&"nft monitor trace".into(), &"certain".into()),
        "{found:#}"
    );
    assert_eq!((&rule["hook"], &rule["rule"]), (&"input".into(), &"udp dport 9 drop".into()), "{rule}");
    assert_eq!(found["meaning"], "Dropped by an nftables rule or chain policy", "{found}");
    let names = names(&found["tree"]);
    assert!(names.iter().any(|name| name == "nft_do_chain"), "{names:?}");
}

/// So many sockets that a datagram for all of them is more calls than a walk has room for, with two or more for each.
const CROWD: usize = 400;
/// How many of these refuse what they get. The kernel begins with the last ones, and keeps one for the end.
const REFUSING: usize = 3;
/// Their port.
const CROWDED: u16 = 7000;

/// A datagram for many sockets is dropped on behalf of the first of them; the calls for the last find no room.
fn crowded() {
    let _one = OneCpu::in_guests();
    let wire = Wire::new();
    let sockets: Vec<_> = wire.b.run(|| (0..CROWD).map(|_| socket_of_many()).collect());
    sockets[CROWD - REFUSING..].iter().for_each(sys::refuse_all);
    let all_of_the_network = Ipv4Addr::new(10, 99, 0, 255);
    let packet = Packet::udp(Ipv4Addr::new(10, 88, 0, 1), all_of_the_network, CROWDED);
    let filter = format!("netns {} and reason SOCKET_FILTER", wire.b.inum());
    let watch = Watch::start(&["dig", "-d", "300s", "-f", &filter]);
    let ended = dug(watch, || wire.send(&packet, 1));
    let lost = ended.stdout.lines().find_map(|line| {
        let (lost, rest) = line.strip_prefix("the tree may be incomplete: ")?.split_once(' ')?;
        rest.starts_with("calls and returns found no room").then(|| lost.parse::<u32>())
    });
    assert!(lost.is_some_and(|lost| lost.is_ok_and(|lost| lost > 0)), "{ended:?}");
    assert!(ended.stdout.contains("\nsk_filter_trim_cap refused the packet with "), "{ended:?}");
}

/// A socket that shares its port with others.
fn socket_of_many() -> OwnedFd {
    let socket =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&socket, sockopt::ReuseAddr, &true).expect("a shared port");
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, CROWDED)).expect("a port");
    socket
}

/// How many calls of a tree freed the packet.
fn freed_in(call: &Value) -> usize {
    let below = call["calls"].as_array().expect("calls").iter().map(freed_in).sum::<usize>();
    below + usize::from(call["freed"] == true)
}

/// A drop that one function refuses and another one explains.
pub fn refusal() -> Prepared {
    (case(REFUSALS[0].case).prepare)(1)
}

/// How many functions something is attached to.
pub fn functions_with_probes() -> usize {
    let list = format!("{TRACEFS}/enabled_functions");
    if !fs::exists(&list).is_ok_and(|exists| exists) {
        let mounted = Command::new("mount").args(["-t", "tracefs", "nodev", TRACEFS]).status();
        assert!(mounted.is_ok_and(|status| status.success()), "tracefs can be mounted");
    }
    fs::read_to_string(list).expect("tracefs").lines().count()
}

fn killed() {
    let _one = OneCpu::in_guests();
    let before = functions_with_probes();
    let prepared = refusal();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let watch = dig(&prepared);
        (prepared.act)();
        eventually("functions are followed", || functions_with_probes() > before + 20);
        watch.signal(signal);
        let ended = watch.wait();
        assert_eq!(ended.status.success(), signal == Signal::SIGTERM, "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
        eventually("nothing is followed any more", || functions_with_probes() == before);
    }
}

fn refused() {
    let ended = Command::new(support::dropwatch()).arg("dig").output().expect("it runs");
    let message = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{message}");
    assert!(ended.stdout.is_empty() && !message.contains("Waiting"), "{message}");
    let option = if kernel::has_function("register_kprobe") { "CONFIG_FPROBE" } else { "CONFIG_KPROBES" };
    assert!(message.contains(&format!("it is built without {option}=y")), "{message}");
    assert!(message.contains("`dropwatch trace --stack`"), "{message}");
}
