//! `top` on a real terminal: keys are pressed, and what it shows is asserted.

use std::{
    collections::BTreeSet,
    env, fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
};

use dropwatch::internals::top::terminal;
use libtest_mimic::Trial;

use super::{dig, pane, privileges};
use crate::support::{
    self,
    frames::{self, IPV4, Packet},
    inject::{
        needs::{self, Need},
        wire::{Wire, eventually},
    },
    is_guest, kernel,
    net::Net,
    pcapng,
    screen::{Screen, words},
    trial::{lacking, trial},
};

/// What it documents.
const PAGE: &str = include_str!("../../docs/top.md");
/// Has this program take the terminal over and panic.
const PANIC: &str = "DROPWATCH_TESTS_PANIC";

/// All of them. Guests dig; nothing else in it depends on the kernel's version.
pub fn trials(can_run: bool) -> Vec<Trial> {
    const KEYS: &[Need] = &[needs::TMUX];
    const DIG: &[Need] = &[needs::TMUX, needs::FUNCTION_PROBES];
    const HERE: [pane::Staged; 3] = [
        ("every_key_does_what_it_says", KEYS, every_key),
        ("the_terminal_is_given_back_however_it_ends", KEYS, given_back),
        ("a_terminal_that_is_gone_ends_it", KEYS, gone),
    ];
    let mut tests = if is_guest() { Vec::new() } else { HERE.to_vec() };
    let can_dig = if is_guest() { !kernel::is_before(7, 0) } else { can_dig() };
    if can_dig {
        tests.push(("d_shows_which_function_refuses_the_packets", DIG, dug));
    }
    let test = |(name, needs, body): pane::Staged| {
        trial(format!("top::{name}"), needs, can_run, move || {
            body();
            Ok(())
        })
    };
    tests.into_iter().map(test).collect()
}

fn can_dig() -> bool {
    lacking(&needs::FUNCTION_PROBES).is_none()
}

/// Whether this program is to panic on the terminal that it has.
pub fn is_to_panic() -> bool {
    env::var_os(PANIC).is_some()
}

/// Takes the terminal over, as `top` does, and panics in a thread that is not the main one.
pub fn panic_on_the_terminal() {
    let mut screen = terminal::Screen::take().expect("a terminal");
    screen.draw(|frame| frame.render_widget("HISTORY", frame.area())).expect("drawn");
    let panicking = thread::spawn(|| panic!("a test requested this"));
    assert!(panicking.join().is_err());
}

/// A shell on a terminal.
struct Shell {
    screen: Screen,
    folder: tempfile::TempDir,
}

impl Shell {
    /// One of this size.
    fn new(size: (u16, u16)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let screen = Screen::with("exec env PS1='$ ' LC_ALL=C.UTF-8 sh -i", size);
        screen.shows("$");
        Self { screen, folder }
    }

    /// Types a line.
    fn enters(&self, line: &str) {
        self.screen.types(line);
        self.screen.keys(&["Enter"]);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command between two looks at how the terminal is set up.
    fn runs(&self, command: &str) {
        let file = |name: &str| self.file(name).display().to_string();
        for name in ["before", "after", "ready"] {
            let _ = fs::remove_file(self.file(name));
        }
        let (before, after) = (file("before"), file("after"));
        self.enters(&format!("clear; stty -g > {before}; {command}; echo status $?; stty -g > {after}"));
    }

    /// Starts `top`; waits until it counts.
    fn starts(&self, arguments: &str) {
        let (program, ready) = (support::dropwatch(), self.file("ready"));
        self.runs(&format!("{} top --ready-file {} {arguments}", program.display(), ready.display()));
        eventually("it counts", || ready.exists());
        self.screen.shows("dropwatch top");
    }

    /// Waits for its end: the status, and that the terminal is as it was.
    fn ended(&self, status: u8) -> String {
        let screen = self.screen.shows(&format!("status {status}"));
        let read = |name: &str| fs::read_to_string(self.file(name)).unwrap_or_default();
        eventually("the shell goes on", || read("after").ends_with('\n'));
        assert_eq!(read("after"), read("before"), "the terminal's settings");
        assert!(!screen.contains("HISTORY"), "the screen from before is back:\n{screen}");
        screen
    }

    /// The process that runs in the terminal's foreground.
    fn process(&self) -> u32 {
        let shell = self.screen.pid();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        let children = children.expect("the shell's children");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a process")
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }
}

/// Drops datagrams: so many for each port.
fn drops(net: &Net, ports: &[(u16, usize)]) {
    net.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for (port, times) in ports {
            for _ in 0..*times {
                // The next send reports refused ones.
                while socket.send_to(b"x", ("127.0.0.1", *port)).is_err() {}
            }
        }
    });
}

/// Puts datagrams for groups on the wire: those for one of a link are harmless, others are lost.
fn deliver(wire: &Wire, group: [u8; 4], port: u16, count: usize) {
    let [_, second, third, fourth] = group;
    let to = [0x01, 0x00, 0x5e, second & 0x7f, third, fourth];
    let packet = Packet::udp([10, 99, 0, 1], Ipv4Addr::from(group), port).bytes();
    let frame = frames::frame(to, wire.a.hardware_address("va"), IPV4, &packet);
    wire.deliver(std::iter::repeat_n(frame.as_slice(), count));
}

/// The rows of the table that end with a port, as words, in order; the first one is the class.
fn rows(screen: &str) -> Vec<Vec<&str>> {
    screen.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Vec<&str>> {
    let words: Vec<_> = line.split_whitespace().collect();
    // Before it may be a mark.
    let class = words.iter().take(2).position(|word| ["lost", "refused", "harmless"].contains(word))?;
    let is_row = words.last()?.parse::<u16>().is_ok();
    is_row.then(|| words[class..].to_vec())
}

/// The ports of all rows that are shown.
fn ports(screen: &str) -> Vec<String> {
    rows(screen).iter().filter_map(|row| Some((*row.last()?).to_owned())).collect()
}

/// All drops that have been counted.
fn total(screen: &str) -> Option<u64> {
    screen.lines().nth(1)?.split_once(" drops,")?.0.trim().parse().ok()
}

/// Whether the row of a port has counted so many.
fn has(screen: &str, port: u16, total: usize) -> bool {
    let (port, total) = (port.to_string(), total.to_string());
    let is_it = |row: &&Vec<&str>| row.last() == Some(&&*port);
    rows(screen).iter().find(is_it).is_some_and(|row| row.contains(&&*total))
}

/// The port of the selected row: all of its values are below the table.
fn selected(screen: &str) -> Option<String> {
    let line = screen.lines().find(|line| line.starts_with("location "))?;
    Some(line.split_once("dport ")?.1.split_whitespace().next()?.to_owned())
}

/// The keys that the documentation lists, by tmux's names of them.
fn documented() -> BTreeSet<String> {
    let table = PAGE.lines().skip_while(|line| !line.starts_with("| key |")).skip(2);
    let cells = table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    let keys = cells.flat_map(|cell| cell.split(", ")).map(|key| key.trim().trim_matches('`'));
    keys.map(|key| match key {
        "PgUp" => "PageUp".to_owned(),
        "PgDn" => "PageDown".to_owned(),
        "Esc" => "Escape".to_owned(),
        key => key
            .strip_prefix("Ctrl-")
            .map_or_else(|| key.to_owned(), |letter| format!("C-{}", letter.to_lowercase())),
    })
    .collect()
}

fn every_key() {
    let wire = Wire::new();
    // Namespaces that have neither a process nor a name cannot be found.
    let name = |net: &Net, which| net.name(&format!("top-{which}-{}", process::id()));
    let _names = [name(&wire.a, "a"), name(&wire.b, "b")];
    let shell = Shell::new((150, 36));
    shell.starts(&format!("-i 500ms -b location,reason,dport -f 'netns {}'", wire.b.inum()));
    moves(&shell.screen, &wire.b);
    sorts(&shell.screen, &wire);
    pauses(&shell.screen, &wire.b);
    edits_the_filter(&shell.screen, &wire.b);
    edits_the_keys(&shell.screen, &wire.b);
    opens(&shell, &wire.b);
    draws_again(&shell.screen);

    let screen = &shell.screen;
    screen.keys(&["?"]);
    let text = screen.shows("these keys");
    assert!(text.contains("pause the screen; counting goes on"), "{text}");
    screen.keys(&["?"]);
    screen.until("no help", |text| !text.contains("these keys"));
    screen.keys(&["q"]);
    let text = shell.ended(0);
    assert!(words(&text).contains("dropwatch -i 500ms -b 'location,reason,dport' -f"), "copied:\n{text}");

    shell.starts("");
    screen.keys(&["C-c"]);
    shell.ended(0);
    stops(&shell, || screen.keys(&["C-z"]));
    let (documented, pressed) = (documented(), screen.pressed());
    assert!(documented.len() > 25, "{documented:?}");
    let left: Vec<_> = documented.difference(&pressed).collect();
    assert!(left.is_empty(), "keys that were not pressed: {left:?}");
}

/// Up and down the rows, of which there are more than fit.
fn moves(screen: &Screen, net: &Net) {
    let counts: Vec<_> = (0..40).map(|row| (7001 + row, 3 * usize::from(41 - row))).collect();
    drops(net, &counts);
    screen.until("the first row", |text| has(text, 7001, 123));
    screen.keys(&["End"]);
    let last = ports(&screen.until("the last row", |text| has(text, 7040, 6)));
    screen.keys(&["Home"]);
    let first = ports(&screen.until("the first row", |text| has(text, 7001, 123)));
    let more = last.iter().filter(|port| !first.contains(port)).cloned();
    let order: Vec<_> = first.iter().cloned().chain(more).collect();
    assert_eq!(order.len(), 40, "{first:?} {last:?}");
    let page = first.len();
    for (key, place) in [
        ("Down", 1),
        ("j", 2),
        ("Up", 1),
        ("k", 0),
        ("PageDown", page),
        ("PageUp", 0),
        ("G", 39),
        ("g", 0),
        ("End", 39),
        ("Home", 0),
    ] {
        screen.keys(&[key]);
        screen.until(key, |text| selected(text).as_ref() == Some(&order[place]));
    }
}

/// By class, recent drops, totals and news; harmless rows one by one, or in one line.
fn sorts(screen: &Screen, wire: &Wire) {
    let first = |text: &str| ports(text).first().cloned();
    deliver(wire, [239, 1, 2, 3], 8000, 3);
    let text = screen.until("what is lost comes first", |text| first(text).as_deref() == Some("8000"));
    let before = total(&text).expect("a total");
    deliver(wire, [224, 0, 0, 251], 5353, 2000);
    // The last line is theirs from now on.
    screen.until("they are counted", |text| total(text) == Some(before + 2000));
    screen.keys(&["End"]);
    screen.shows("1 row (a shows them)");
    screen.keys(&["a"]);
    screen.until("a harmless row", |text| has(text, 5353, 2000));
    // The selection follows its row.
    screen.keys(&["s", "Home"]);
    screen.shows("sorted by recent drops");
    screen.until("the most drops come first", |text| first(text).as_deref() == Some("5353"));
    screen.keys(&["s"]);
    screen.shows("sorted by total");
    screen.keys(&["s", "Home"]);
    screen.shows("sorted by newest change");
    drops(&wire.b, &[(9001, 1)]);
    screen.until("what is new comes first", |text| first(text).as_deref() == Some("9001"));
    screen.keys(&["s"]);
    screen.shows("sorted by class");
    screen.keys(&["a", "Home"]);
    screen.until("no harmless row", |text| {
        first(text).as_deref() == Some("8000") && !ports(text).contains(&"5353".to_owned())
    });
}

/// The screen stays, counting goes on, and what is said can be read.
fn pauses(screen: &Screen, net: &Net) {
    drops(net, &[(7001, 177)]);
    screen.until("300", |text| has(text, 7001, 300));
    screen.keys(&["Space"]);
    screen.shows("PAUSED");
    drops(net, &[(7001, 7)]);
    screen.keys(&["y"]);
    let text = screen.shows("dropwatch -i 500ms -b 'location,reason,dport' -f 'netns");
    assert!(has(&text, 7001, 300), "{text}");
    screen.keys(&["n"]);
    screen.shows("what has been said");
    screen.shows_words(&["ago dropwatch -i 500ms"]);
    screen.keys(&["n"]);
    screen.until("the table", |text| !text.contains("what has been said"));
    screen.keys(&["Space"]);
    screen.until("307", |text| has(text, 7001, 307) && !text.contains("PAUSED"));
}

/// A faulty filter shows its caret and leaves the old one; words are completed; a new filter is a new probe.
fn edits_the_filter(screen: &Screen, net: &Net) {
    let inum = net.inum();
    screen.keys(&["/"]);
    screen.shows(&format!("filter: netns {inum}"));
    screen.keys(&["C-u"]);
    screen.types("port 7002 and reasn NO_SOCKET");
    screen.keys(&["Enter"]);
    let text = screen.shows("^^^^^");
    let column = |needle: &str| text.lines().find_map(|line| line.find(needle));
    assert_eq!(column("^^^^^"), column("reasn"), "{text}");
    screen.keys(&["Escape"]);
    drops(net, &[(7001, 3)]);
    screen.until("the old filter", |text| has(text, 7001, 310));

    // To the end of the line, the last word, and interfaces of another namespace.
    screen.keys(&["/", "C-a"]);
    screen.types("x");
    screen.keys(&["C-k"]);
    screen.types(" y");
    screen.shows("filter: x y");
    screen.keys(&["C-w"]);
    screen.until("one word", |text| text.contains("filter: x") && !text.contains("filter: x y"));
    screen.keys(&["C-u"]);
    screen.types("iface v");
    let text = screen.shows("va");
    assert!(text.contains("vb"), "{text}");
    screen.keys(&["Tab"]);
    screen.shows("filter: iface va");
    screen.keys(&["Tab"]);
    screen.shows("filter: iface vb");
    screen.keys(&["BTab"]);
    screen.shows("filter: iface va");

    screen.keys(&["C-u"]);
    screen.types(&format!("netns {inum} and por"));
    screen.shows("portrange");
    screen.types("t 7002");
    screen.keys(&["Enter"]);
    screen.shows("totals are since now");
    drops(net, &[(7001, 5), (7002, 6)]);
    let text = screen.until("6 of one port", |text| has(text, 7002, 6));
    assert_eq!(ports(&text), ["7002"], "{text}");
}

fn edits_the_keys(screen: &Screen, net: &Net) {
    screen.keys(&["b", "C-u"]);
    screen.types("reason,ipp");
    screen.keys(&["Tab"]);
    screen.shows("keys: reason,ipproto");
    screen.types(",location,dport");
    screen.keys(&["Enter"]);
    screen.shows("IPPROTO");
    drops(net, &[(7002, 8)]);
    screen.until("8 of UDP", |text| has(text, 7002, 8) && rows(text).iter().all(|row| row.contains(&"udp")));
}

/// A pane: it scrolls, writes packets, digs, and is frozen with the screen.
fn opens(shell: &Shell, net: &Net) {
    let screen = &shell.screen;
    screen.keys(&["Enter"]);
    screen.shows("0 drops since");
    privileges::assert_kept(shell.process(), privileges::OF_TOP);
    let file = shell.file("drops.pcapng");
    screen.keys(&["w"]);
    screen.shows("write packets to: dropwatch-NO_SOCKET-");
    screen.keys(&["C-u"]);
    screen.types(file.to_str().expect("text"));
    screen.keys(&["Enter"]);
    screen.shows_words(&["0 packets so far in"]);
    drops(net, &[(7002, 9)]);
    screen.shows_words(&["9 drops since", "9 packets so far in"]);
    screen.keys(&["Space"]);
    screen.shows("PAUSED");
    for total in [14, 19] {
        drops(net, &[(7002, 5)]);
        screen.shows_words(&[&format!("{total} packets so far in")]);
    }
    let text = screen.text();
    assert!(text.contains("9 drops since") && !text.contains("19 drops since"), "{text}");
    screen.keys(&["Space"]);
    screen.shows_words(&["19 drops since"]);
    screen.keys(&["w"]);
    screen.shows_words(&["19 packets written to"]);
    assert_eq!(pcapng::read(&file).len(), 19);

    let heading = |text: &str, word: &str| text.lines().nth(4).is_some_and(|line| line.starts_with(word));
    screen.keys(&["Tab"]);
    screen.until("the next section", |text| heading(text, "WHAT IT MEANS"));
    screen.keys(&["End"]);
    screen.until("the end", |text| window(text).is_some_and(|(_, last, all)| last == all));
    screen.keys(&["Home"]);
    screen.until("the start", |text| window(text).is_some_and(|(first, last, all)| first == 1 && last < all));

    screen.keys(&["d"]);
    if can_dig() {
        screen.shows_words(&["DIG Waiting for the next of these packets"]);
        screen.keys(&["d"]);
        screen.shows_words(&["no drop to dig into"]);
    } else {
        screen.shows_words(&[
            "This kernel cannot report the calls of its functions: it is built without CONFIG_",
            "dropwatch dig 'netns",
        ]);
    }
    screen.keys(&["Escape"]);
    screen.shows("sorted by class");
    // From the table, both open the row first.
    screen.keys(&["d"]);
    screen.shows("DIG");
    screen.keys(&["Escape"]);
    screen.shows("sorted by class");
    screen.keys(&["w"]);
    screen.shows("write packets to: ");
    screen.keys(&["Escape", "Escape"]);
    screen.shows("sorted by class");
}

/// Which lines of a pane are shown: the first, the last, and how many there are.
fn window(text: &str) -> Option<(usize, usize, usize)> {
    let (shown, all) = text.lines().find_map(|line| line.strip_prefix("lines ")?.split_once(" of "))?;
    let (first, last) = shown.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, all.trim().parse().ok()?))
}

/// What others have written over the screen goes, and another size is used.
fn draws_again(screen: &Screen) {
    let tty = screen.tmux(&["display-message", "-p", "#{pane_tty}"]);
    // Where nothing changes.
    fs::write(tty.trim(), "\x1b[20;60HSPOILT").expect("the terminal");
    screen.shows("SPOILT");
    screen.keys(&["C-l"]);
    screen.until("all of it", |text| !text.contains("SPOILT"));
    screen.tmux(&["resize-window", "-x", "90", "-y", "24"]);
    screen.until("90 columns", |text| text.lines().next().is_some_and(|line| line.ends_with('Z')));
}

/// While it is stopped, the terminal is as it was, and the shell has it.
fn stops(shell: &Shell, stop: impl FnOnce()) {
    shell.starts("");
    let process = shell.process();
    stop();
    shell.screen.shows("Stopped");
    let (before, stopped) = (shell.file("before"), shell.file("stopped"));
    shell.enters(&format!("stty -g > {}", stopped.display()));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    eventually("the shell goes on", || read(&stopped).ends_with('\n'));
    assert_eq!(read(&stopped), read(&before), "the terminal's settings");
    shell.enters("fg");
    shell.screen.until("the screen", |text| text.contains("ledger") && !text.contains("Stopped"));
    shell.screen.keys(&["q"]);
    ends(process);
}

/// Waits for the end of a process.
fn ends(process: u32) {
    eventually("it ends", || !Path::new("/proc").join(process.to_string()).exists());
}

fn given_back() {
    let shell = Shell::new((80, 24));
    for signal in ["-TERM", "-INT", "-HUP"] {
        shell.starts("");
        shell.signal(signal);
        shell.ended(0);
    }

    stops(&shell, || shell.signal("-TSTP"));

    let program = env::current_exe().expect("this program");
    shell.runs(&format!("{PANIC}=1 {}", program.display()));
    let text = shell.ended(0);
    assert!(text.contains("a test requested this"), "{text}");
}

fn gone() {
    let shell = Shell::new((80, 24));
    shell.starts("");
    let process = shell.process();
    shell.screen.tmux(&["kill-server"]);
    ends(process);
}

/// The tree and what it says are in the pane, and nothing is attached afterwards.
fn dug() {
    let _one = dig::OneCpu::in_guests();
    let before = dig::functions_with_probes();
    let prepared = dig::refusal();
    let netns = prepared.expected.as_ref().and_then(|expected| expected.netns).expect("a namespace");
    let screen = Screen::start(&["-f", &format!("netns {netns}")], (140, 40));
    screen.shows("dropwatch top");
    pane::meanwhile(|| (prepared.act)(), || digs(&screen));
    eventually("nothing is followed any more", || dig::functions_with_probes() == before);
}

fn digs(screen: &Screen) {
    screen.shows("ip_rcv_finish");
    screen.keys(&["d"]);
    let found = ["ip_rcv", "<- refused here", "** freed here **", "vb has not joined 224.0.0.5"];
    screen.shows_words(&found);
    // What is longer than the pane is scrolled.
    screen.keys(&["End"]);
    screen.until("the end", |text| !text.contains("DIG"));
    screen.keys(&["Home"]);
    screen.shows("DIG");
    privileges::assert_kept(screen.pid(), privileges::OF_TOP);
    // Once more, and closed meanwhile.
    screen.keys(&["d", "Escape", "q"]);
}
