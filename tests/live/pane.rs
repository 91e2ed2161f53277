//! The pane of a row of `top`: what it counts, what it leaves, and that it leads to the cause by keys alone.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
    process,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use libtest_mimic::Trial;
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use crate::support::{
    inject::{
        needs::{self, Need},
        wire::{Wire, eventually},
    },
    is_guest,
    net::Net,
    pcapng,
    screen::{Screen, words},
    trial::trial,
};

/// A name, what it needs, and the test.
pub type Staged = (&'static str, &'static [Need], fn());

/// Nothing in it depends on the kernel's version, so guests do without.
pub fn trials(can_run: bool) -> Vec<Trial> {
    let all: [Staged; 5] = [
        ("tables_add_up_and_nothing_is_left", &[needs::TMUX], adds_up),
        ("keys_lead_to_the_full_buffer", &[needs::TMUX], full_buffer),
        ("keys_lead_to_the_rule", &[needs::TMUX, needs::NFT], rule),
        ("keys_lead_to_the_queue_discipline", &[needs::TMUX, needs::TBF], queue),
        ("keys_lead_to_the_loss_amid_what_is_none", &[needs::TMUX], loss_amid_noise),
    ];
    let here = all.into_iter().filter(|_| !is_guest());
    here.map(|(name, needs, body)| {
        trial(format!("pane::{name}"), needs, can_run, move || {
            body();
            Ok(())
        })
    })
    .collect()
}

/// Everything there is to see fits on it.
const SIZE: (u16, u16) = (170, 90);

fn of(net: &Net) -> Screen {
    Screen::start(&["-f", &format!("netns {}", net.inum())], SIZE)
}

/// What a table of the pane has: drops and what they have in common.
fn table(text: &str, title: &str) -> Vec<(u64, String)> {
    let rows = text.lines().skip_while(|line| line.trim() != title).skip(1);
    rows.take_while(|line| !line.trim().is_empty())
        .filter_map(|line| {
            let (count, rest) = line.trim().split_once(' ')?;
            let (_, words) = rest.trim().split_once("  ")?;
            Some((count.parse().ok()?, words.trim().to_owned()))
        })
        .collect()
}

/// The programs that a process holds.
fn programs(pid: u32) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let links = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().contains("bpf-prog")).count()
}

/// Sends datagrams to a port from another one, and waits until they have been dropped.
fn send(net: &Net, from: u16, to: u16, count: u64) {
    let dropped = || net.counter("snmp", "Udp", "NoPorts");
    let before = dropped();
    net.run(|| {
        let socket = UdpSocket::bind(("127.0.0.1", from)).expect("a socket");
        for _ in 0..count {
            socket.send_to(b"x", ("127.0.0.1", to)).expect("sent");
        }
    });
    eventually("all are dropped", || dropped() == before + count);
}

/// What a file that is written has; only its owner can read it.
fn captured(file: &Path) -> usize {
    assert_eq!(fs::metadata(file).expect("the capture").mode() & 0o7777, 0o600);
    pcapng::read(file).len()
}

fn type_file(screen: &Screen, file: &Path) {
    screen.keys(&["w"]);
    screen.until("the question", |text| text.contains("write packets to: dropwatch-NO_SOCKET-"));
    screen.keys(&["C-u"]);
    screen.types(file.to_str().expect("text"));
    screen.keys(&["Enter"]);
}

fn adds_up() {
    let net = Net::quiet();
    let screen = of(&net);
    screen.until("the screen", |text| text.contains("dropwatch top"));
    eventually("it is attached", || {
        send(&net, 4000, 9, 1);
        screen.text().contains("NO_SOCKET")
    });
    let before = programs(screen.pid());
    screen.keys(&["Enter"]);
    screen.until("the second probe", |text| text.contains("0 drops since"));
    // The probe of packets is another one.
    eventually("both are attached", || programs(screen.pid()) >= before + 2);
    send(&net, 4001, 9, 7);
    send(&net, 4002, 10, 5);
    let text = screen.until("all drops", |text| {
        text.contains("12 drops since") && text.matches("127.0.0.1.400").count() == 12
    });
    let flows = [
        (7, "udp 127.0.0.1:4001 > 127.0.0.1:9".to_owned()),
        (5, "udp 127.0.0.1:4002 > 127.0.0.1:10".to_owned()),
    ];
    assert_eq!(table(&text, "FLOW"), flows);
    let inum = net.inum().to_string();
    for (title, what) in [("INTERFACE", &*format!("lo of {inum}")), ("NETWORK NAMESPACE", &inum)] {
        let [(12, all)] = &table(&text, title)[..] else { panic!("{title} in {text}") };
        assert!(all.starts_with(what), "{all}");
    }
    for title in ["PROCESS AND SOCKET", "CALL CHAIN"] {
        assert_eq!(table(&text, title).iter().map(|(count, _)| count).sum::<u64>(), 12, "{title} in {text}");
    }
    writes(&net, &screen);
    screen.keys(&["d"]);
    screen.shows_words(&["DIG"]);
    screen.keys(&["Escape"]);
    eventually("the probes of the pane are gone", || programs(screen.pid()) == before);
}

/// Packets from before and after the file began are in it, each once; a link is not followed.
fn writes(net: &Net, screen: &Screen) {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, link) = (directory.path().join("drops.pcapng"), directory.path().join("link"));
    type_file(screen, &file);
    screen.shows_words(&["12 packets so far in"]);
    send(net, 4003, 9, 60);
    screen.shows_words(&["72 packets so far in"]);
    screen.keys(&["w"]);
    screen.shows_words(&["72 packets written to"]);
    assert_eq!(captured(&file), 72);
    symlink(&file, &link).expect("a link");
    type_file(screen, &link);
    screen.shows_words(&["must not be a symbolic link"]);
    assert_eq!(captured(&file), 72);
}

/// Does something again and again while `look` looks.
pub fn meanwhile(mut again: impl FnMut() + Send, look: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                again();
                thread::sleep(Duration::from_millis(10));
            }
        });
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = looked {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A socket whose buffer is full.
fn full(net: &Net, address: &str) -> UdpSocket {
    let socket = net.run(|| UdpSocket::bind(address)).expect("a socket");
    setsockopt(&socket, RcvBuf, &4096).expect("a small buffer");
    socket
}

fn sender(net: &Net) -> UdpSocket {
    net.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket")
}

fn to(socket: &UdpSocket, address: &str, bytes: usize) {
    let address: SocketAddr = address.parse().expect("an address");
    // A full queue is what some of these are about.
    let _ = socket.send_to(&[0; 1400][..bytes], address);
}

/// Incident: a program reads more slowly than datagrams arrive. Keys: Enter.
fn full_buffer() {
    let net = Net::quiet();
    let _name = net.name(&format!("pane-{}", process::id()));
    let (_receiver, sender) = (full(&net, "127.0.0.1:5140"), sender(&net));
    let screen = of(&net);
    meanwhile(
        || to(&sender, "127.0.0.1:5140", 700),
        || {
            screen.until("the row", |text| text.contains("SOCKET_RCVBUFF"));
            screen.keys(&["Enter"]);
            let process = format!("[{}]: receive buffer", process::id());
            let text = screen.shows_words(&["-> udp 127.0.0.1:5140 of", &process]);
            let [(_, owner)] = &table(&text, "PROCESS AND SOCKET")[..] else { panic!("one socket: {text}") };
            assert!(owner.contains(&format!("[{}]", process::id())), "{owner}");
            assert!(owner.ends_with("udp 127.0.0.1:5140"), "{owner}");
        },
    );
}

/// Incident: a rule three jumps deep drops one size of one port. Keys: Enter.
fn rule() {
    let net = Net::quiet();
    let _name = net.name(&format!("pane-{}", process::id()));
    for command in [
        "add table inet filter",
        "add chain inet filter media",
        "add rule inet filter media udp dport 6500 meta length 328 counter drop comment \"oversize media\"",
        "add chain inet filter tenants",
        "add rule inet filter tenants jump media",
        "add chain inet filter input { type filter hook input priority 0; }",
        "add rule inet filter input jump tenants",
    ] {
        net.command("nft", &[command]);
    }
    let (_receiver, sender) = (full(&net, "127.0.0.1:6500"), sender(&net));
    let screen = of(&net);
    meanwhile(
        || to(&sender, "127.0.0.1:6500", 300),
        || {
            screen.until("the row", |text| text.contains("NETFILTER_DROP"));
            screen.keys(&["Enter"]);
            let text = screen
                .shows_words(&["filter media handle 2 (input > tenants > media)", "\"oversize media\""]);
            let flow = format!("udp {} > 127.0.0.1:6500", sender_of(&sender));
            assert!(words(&text).contains(&flow), "{flow} in {text}");
        },
    );
}

fn sender_of(socket: &UdpSocket) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], socket.local_addr().expect("bound").port()))
}

/// Incident: the queue of a shaped interface is full. Keys: Enter.
fn queue() {
    let wire = Wire::new();
    let _name = wire.a.name(&format!("pane-{}", process::id()));
    wire.a.ip("route replace 10.99.0.0/24 dev va");
    wire.a.words("tc qdisc add dev va root handle 10: tbf rate 8kbit burst 2000 limit 3000");
    let sender = sender(&wire.a);
    let screen = of(&wire.a);
    meanwhile(
        || to(&sender, "10.99.0.2:7000", 1000),
        || {
            screen.until("the row", |text| text.contains("QDISC"));
            screen.keys(&["Enter"]);
            screen.shows_words(&["-> va: bfifo", "(in 10:1)", "at most 3000 bytes", "> 10.99.0.2:7000"]);
        },
    );
}

/// Incident: few datagrams are lost, and a hundred times as many are refused or delivered. Keys: Enter, since what is lost comes
/// first.
fn loss_amid_noise() {
    let net = Net::quiet();
    let _name = net.name(&format!("pane-{}", process::id()));
    let (_receiver, sender) = (full(&net, "127.0.0.1:6343"), sender(&net));
    let screen = of(&net);
    meanwhile(
        || {
            (0..20).for_each(|_| to(&sender, "127.0.0.1:9", 10));
            to(&sender, "127.0.0.1:6343", 1000);
        },
        || {
            screen.until("both rows", |text| text.contains("SOCKET_RCVBUFF") && text.contains("NO_SOCKET"));
            screen.keys(&["Enter"]);
            screen.shows_words(&["-> udp 127.0.0.1:6343 of", "receive buffer"]);
        },
    );
}
