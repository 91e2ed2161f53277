//! What a table shows first, of real drops of all classes.

use std::{io::Write as _, net::UdpSocket, os::unix::net::UnixStream, process::Command};

use nix::sys::signal::Signal;

use crate::{
    Test,
    support::{kernel, net::Net, watch::Watch},
};

/// All of them.
pub const TESTS: &[Test] = &[
    ("table::what_is_lost_comes_first_and_what_is_harmless_is_one_line", order),
    ("table::what_is_lost_is_explained_with_commands_that_run", explained),
];

/// A namespace with drops of all classes, as often as they are told to happen.
struct Host(Net);

impl Host {
    fn new() -> Self {
        let net = Net::quiet();
        net.words("nft add table ip t");
        net.command("nft", &["add chain ip t c { type filter hook input priority 0 ; }"]);
        net.words("nft add rule ip t c udp dport 53 drop");
        Self(net)
    }

    /// A firewall's drops are lost, datagrams to a closed port refused, and unread data of a closed socket harmless.
    fn drop(&self, lost: u64, refused: u64, harmless: u64) {
        self.0.run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            (0..lost).for_each(|_| _ = socket.send_to(b"x", "127.0.0.1:53").expect("sent"));
            let (mut writer, _reader) = UnixStream::pair().expect("a pair of sockets");
            (0..harmless).for_each(|_| writer.write_all(b"x").expect("written"));
        });
        self.0.drop_datagrams(refused);
    }
}

/// The words that begin headings, and the counts of all lines.
fn outline(table: &str) -> Vec<&str> {
    let (_, table) = table.split_once(" COUNT ").expect("a table");
    let (table, _) = table.split_once("\n\n").expect("the end of a table");
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

fn order() {
    let host = Host::new();
    let here = format!("netns {}", host.0.inum());
    let start = |more: &[&str]| Watch::start(&[&["-o", "table", "-i", "1h", "-f", &here], more].concat());
    let watches = [&[][..], &["-a"], &["--sort", "count"], &["--top", "1"]].map(start);
    host.drop(23, 37, 41);
    let tables = watches.map(|watch| {
        watch.signal(Signal::SIGINT);
        let ended = watch.wait();
        assert!(ended.status.success(), "{ended:?}");
        ended.stdout
    });
    let [usual, all, by_count, top] = tables.each_ref().map(|table| outline(table));
    // Without reasons it is not known that the closed port refused them.
    let (split, in_order, first) = if kernel::has_reason("NO_SOCKET") {
        (": 23 lost, 37 refused, 41 harmless\n", vec!["LOST", "23", "REFUSED", "37"], vec!["LOST", "23"])
    } else {
        (": 60 lost, 0 refused, 41 harmless\n", vec!["LOST", "37", "23"], vec!["LOST", "37"])
    };
    assert!(tables.iter().all(|table| table.contains(split)), "{tables:?}");
    let cut = if first[1] == "23" { "37" } else { "23" };
    assert_eq!(usual, [&in_order[..], &["HARMLESS", "41", "101"]].concat(), "{tables:?}");
    assert_eq!(all, usual);
    assert!(tables[0].contains("(-a shows them)") && !tables[1].contains("(-a shows them)"), "{tables:?}");
    assert_eq!(by_count, ["41", "37", "23", "101"], "{tables:?}");
    assert_eq!(top, [&first[..], &["HARMLESS", "41", cut, "101"]].concat(), "{tables:?}");
}

/// The command that shows the firewall's rules is run as it is printed: it shows those of the namespace.
fn explained() {
    let host = Host::new();
    let name = format!("dropwatch's {}", std::process::id());
    let _name = host.0.name(&name);
    let here = format!("netns {}", host.0.inum());
    let start = |by| Watch::start(&["-o", "table", "--explain", "-i", "1h", "-f", &here, "-b", by]);
    let watches = ["location,reason,netns", "location,reason"].map(start);
    host.drop(5, 0, 0);
    let tables = watches.map(|watch| {
        watch.signal(Signal::SIGINT);
        watch.wait().stdout
    });
    let commands = |table: &str| -> Vec<_> {
        let words = ["nft -a list ruleset", "nft list ruleset"];
        let lines = table.lines().map(str::trim_start);
        lines.filter(|line| words.iter().any(|words| line.ends_with(words))).map(str::to_owned).collect()
    };
    // The namespace is a key of the one; for the other, one of its drops tells.
    for table in tables {
        let command = commands(&table).into_iter().next().unwrap_or_else(|| panic!("no command: {table}"));
        assert!(command.starts_with("ip netns exec "), "{command}");
        let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
        let rules = String::from_utf8_lossy(&output.stdout);
        assert!(rules.contains("udp dport 53 drop"), "{command}: {output:?}");
    }
}
