//! The targets, a function each.

use std::{collections::HashSet, ffi::OsString, os::unix::ffi::OsStringExt as _, path::Path, sync::LazyLock};

use clap::Parser as _;
use dropwatch::internals::{
    Bound, Btf, CheckConfig, Cli, Code, Command, Event, ExplainFormat, Filter, Finding, Frame, Function,
    Host, Index, KernelBtf, Link, Machine, Page, Plan, Read, Reasons, Request, Rule, Running, Saved,
    Services, Style, Summary, TraceConfig, Tree, Wanted, WatchConfig, answer, can_be_laid_out, counters,
    fakes::Anything, is_traceable, leads, of_this_host, read_answer, read_saved, read_web_config, served,
    walk_of,
};
use dropwatch_common::{
    packet::{self, transport},
    program::{self, Facts, Input, Ranges},
};

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "arguments", run: arguments },
    Target { name: "btf", run: btf },
    Target { name: "code", run: code },
    Target { name: "counters", run: counter_files },
    Target { name: "dig", run: dig },
    Target { name: "durations", run: durations },
    Target { name: "explain", run: explain },
    Target { name: "filter", run: filter },
    Target { name: "http", run: http },
    Target { name: "iptables", run: read_saved },
    Target { name: "kallsyms", run: kallsyms },
    Target { name: "modules", run: modules },
    Target { name: "netlink", run: read_answer },
    Target { name: "reasons_format", run: reasons_format },
    Target { name: "rules", run: check_rules },
    Target { name: "services", run: services },
    Target { name: "system_map", run: system_map },
    Target { name: "trace", run: trace },
    Target { name: "walks", run: walks },
    Target { name: "web_config", run: web_config },
];

/// An input of two parts: the length of the first, little endian, and both.
fn parts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return (bytes, &[]) };
    rest.split_at_checked(u16::from_le_bytes(*length).into()).unwrap_or((rest, &[]))
}

/// The type information of a kernel, and that of a module on top of it.
fn btf(bytes: &[u8]) {
    let (kernel, module) = parts(bytes);
    let Ok(kernel) = Btf::parse(kernel) else { return };
    ask(&kernel);
    let mut reasons = Reasons::from_btf(&kernel);
    if let Ok(module) = Btf::parse_split(module, &kernel) {
        ask(&module);
        reasons.add_module(&module);
    }
    for reason in reasons.iter() {
        let _ = reasons.find(&reason.to_string());
    }
}

fn ask(btf: &Btf<'_>) {
    let names: Vec<&str> = btf.enums().map(|found| found.name()).take(16).collect();
    let functions: HashSet<_> = btf.functions_with(&["sk_buff"]).map(str::to_owned).collect();
    assert!(btf.prototypes(&functions).values().all(|known| known.packet.is_some()));
    for name in names.into_iter().chain(["skb_drop_reason", "sk_buff", "a"]) {
        let _ = (btf.enum_values(name), btf.has_function(name), btf.tracepoint(name));
        for path in ["a", "dev", "nd_net.net", "a.a.a"] {
            let _ = btf.field(name, path);
        }
    }
}

/// The text of a kernel in which a function starts every 32 bytes, and a record of a walk through its first functions.
fn dig(bytes: &[u8]) {
    let (text, record) = parts(bytes);
    for machine in [Machine::X86, Machine::Arm] {
        let mut kernel = Text(text);
        let all: Vec<_> = (0..8).filter_map(|number| kernel.starting_at(number * Text::SIZE)).collect();
        let (first, others) = all.split_at(all.len().min(2));
        let (candidates, others) = (first.to_vec(), others.to_vec());
        let below = others.first().cloned().into_iter().collect();
        let wanted =
            Wanted { candidates, most_roots: 3, below, most: 100, depth: 3, others, ..Wanted::default() };
        let plan = Plan::new(machine, &wanted, &mut kernel, &mut Read::default());
        let starts: HashSet<_> = plan.functions.iter().map(|function| function.start).collect();
        assert_eq!(starts.len(), plan.functions.len(), "each is followed once");
        assert!(starts.iter().all(|start| plan.reach(*start).is_some()));
        assert_eq!(plan.cookies(|_| None).len(), starts.len());
        let Some((head, steps)) = walk_of(record) else { continue };
        let Some(tree) = Tree::new(&head, &steps) else { continue };
        let prototypes = vec![None; plan.functions.len()];
        if let Some(finding) = Finding::new(&tree, &plan.functions, &prototypes) {
            assert!(plan.functions.contains(&finding.decides));
            assert!(!finding.verdict.sentence().is_empty());
        }
    }
}

struct Text<'a>(&'a [u8]);

impl Text<'_> {
    const SIZE: u64 = 32;
}

impl Code for Text<'_> {
    fn returns_nothing(&mut self, function: &Function) -> bool {
        function.start.is_multiple_of(3)
    }

    fn starting_at(&self, address: u64) -> Option<Function> {
        let is_start = address < self.0.len() as u64 && address.is_multiple_of(Self::SIZE);
        let name = if address == 7 * Self::SIZE { "kfree_skb".to_owned() } else { format!("at_{address}") };
        is_start.then(|| Function { start: address, name: name.as_str().into(), module: "kernel".into() })
    }

    fn text(&mut self, function: &Function) -> Vec<(u64, Vec<u8>)> {
        let start = usize::try_from(function.start).expect("an address in memory");
        let text = self.0.get(start..).unwrap_or_default();
        vec![(function.start, text.iter().copied().take(32).collect())]
    }
}

/// The format of the tracepoint in tracefs.
fn reasons_format(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Reasons::from_format(&text);
    // Few inputs get as far as the list by themselves.
    if let Some(reasons) = Reasons::from_format(&format!("__print_symbolic(REC->reason,{text}")) {
        for reason in reasons.iter() {
            assert!(reasons.get(reason.code).name.is_some());
        }
    }
}

/// An expression, and a packet that it decides on: an ethertype and bytes.
fn filter(bytes: &[u8]) {
    let (text, packet) = parts(bytes);
    let filter = match Filter::parse(&String::from_utf8_lossy(text), &Anything) {
        Ok(filter) => filter,
        // The expression and the caret below it are the last two lines.
        Err(error) => return assert!(error.to_string().lines().count() >= 3, "{error}"),
    };
    let again = Filter::parse(&filter.to_string(), &Anything).expect("what is printed is read");
    assert_eq!(again.expression(), filter.expression());
    let (ethertype, bytes) = packet.split_first_chunk().unwrap_or((&[8, 0], packet));
    let length = u32::try_from(bytes.len()).expect("a packet");
    let packet = packet::parse(bytes, u16::from_be_bytes(*ethertype));
    let facts = Facts { packet, length, netns: length, reason: length, known: !0, ..Facts::default() };
    let input = Input { facts: &facts, bytes, ranges: &Odd };
    let _ = program::decide(filter.insns(), &input);
}

/// Sets of the odd numbers.
struct Odd;

impl Ranges for Odd {
    fn contains(&self, _set: u32, value: u64) -> bool {
        value % 2 == 1
    }
}

/// The kernel's symbol table.
fn kallsyms(bytes: &[u8]) {
    let index = Index::read(bytes).expect("bytes in memory can be read");
    let modules = index.modules();
    let starts = modules.iter().map(|module| module.addresses.start);
    let text = String::from_utf8_lossy(bytes);
    let numbers = text.split_whitespace().take(64).filter_map(|word| u64::from_str_radix(word, 16).ok());
    for address in
        starts.chain(numbers).flat_map(|start| [start, start.wrapping_add(5), start.wrapping_sub(1)])
    {
        let Some(symbol) = index.lookup(address) else { continue };
        assert!(symbol.start <= address, "{symbol:?} {address:#x}");
        if let Some(size) = symbol.size {
            assert!(address - symbol.start < size, "{symbol:?} {address:#x}");
        }
        assert!(index.find(symbol.name).any(|found| found.start == symbol.start), "{symbol:?}");
    }
}

/// A saved symbol table, where the kernel is elsewhere, and where that is not known.
fn system_map(bytes: &[u8]) {
    static RUNNING: LazyLock<Index> = LazyLock::new(|| {
        let functions = (0_u64..64).map(|i| format!("{:x} T function_{i}\n", 0xffff_ffff_9f00_0040 + i * 32));
        let text = format!(
            "ffffffff9f000000 T _stext\n{}ffffffff9f000840 T _etext\n",
            functions.collect::<String>()
        );
        Index::read(text.as_bytes()).expect("bytes in memory can be read")
    });
    for running in [
        Running { symbols: Some(RUNNING.clone()), stext: None },
        Running { symbols: None, stext: Some(0xffff_ffff_9f00_0000) },
        Running::default(),
    ] {
        let index = Index::read(bytes).expect("bytes in memory can be read");
        match Saved::fit(index, Path::new("System.map"), &running) {
            Ok(saved) => drop(saved.index.lookup(0xffff_ffff_9f00_0041).map(|symbol| symbol.name.len())),
            Err(error) => assert!(error.to_string().contains("System.map"), "{error}"),
        }
    }
}

/// A module's file with debug information.
fn modules(bytes: &[u8]) {
    let _ = can_be_laid_out(bytes);
}

/// A rule of `check`.
fn check_rules(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for bound in [Bound::Max, Bound::Expect] {
        match Rule::parse(bound, &text, &Anything) {
            Ok(rule) => assert!(text.trim_end().ends_with(|last: char| last.is_ascii_digit()), "{rule:?}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

thread_local! {
    /// This host, of whose kernel nothing is read: there is no type information in this directory.
    static HOST: Host = host();
}

/// A command line, a NUL behind each argument.
fn arguments(bytes: &[u8]) {
    let words = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    validate([OsString::from("dropwatch")].into_iter().chain(words));
}

fn validate(words: impl Iterator<Item = OsString>) {
    let Ok(cli) = Cli::try_parse_from(words) else { return };
    HOST.with(|host| match &cli.command {
        Some(Command::Check(args)) => drop(CheckConfig::new(args, host)),
        Some(Command::Trace(args)) => drop(TraceConfig::new(args, host)),
        Some(Command::Watch(args)) => drop(WatchConfig::new(args, host)),
        Some(_) => {}
        None => drop(WatchConfig::new(&cli.watch, host)),
    });
}

/// Times, as options have them.
fn durations(bytes: &[u8]) {
    let text = OsString::from_vec(bytes.to_vec());
    for option in ["--interval", "--duration"] {
        validate([OsString::from("dropwatch"), option.into(), text.clone()].into_iter());
    }
    let check = ["dropwatch", "check", "--settle"].map(OsString::from);
    validate(check.into_iter().chain([text]).chain(["--", "true"].map(OsString::from)));
}

/// The names of ports.
fn services(bytes: &[u8]) {
    let services = Services::parse(&String::from_utf8_lossy(bytes));
    for name in services.names() {
        assert!(matches!(services.port(name, transport::ANY), Some(Ok(_))), "{name} has a port");
        for one in [transport::TCP, transport::UDP] {
            let found = services.port(name, one).expect("it has a name");
            assert!(found.is_err() || found.is_ok_and(|(_, transports)| transports == one), "{name}");
        }
    }
}

/// Files of `/proc/net` with counters.
fn counter_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split_ascii_whitespace().count();
    assert!(counters::tables(&text).count() <= words && counters::pairs(&text).count() <= words);
    let _ = (counters::softnet(&text), counters::netlink_drops(&text));
}

/// The text of a function, behind a byte that says of which machine, where the starts of functions are even.
fn code(bytes: &[u8]) {
    const START: u64 = 0xffff_ffff_8100_0000;
    let (choice, text) = bytes.split_first().unwrap_or((&0, bytes));
    let machine = if choice & 1 == 0 { Machine::X86 } else { Machine::Arm };
    let start = if choice & 2 == 0 { START } else { u64::MAX - 8 };
    let is_start = |address: u64| address.is_multiple_of(2);
    let found = leads(machine, text, start, is_start);
    assert!(found.calls.iter().all(|&to| is_start(to)), "{found:?}");
    assert!(found.calls.len() + found.jumps.len() <= text.len(), "{found:?}");
    let _ = is_traceable(machine, text, start, is_start);
}

/// A record of `dig`.
fn walks(bytes: &[u8]) {
    if let Some((head, steps)) = walk_of(bytes) {
        assert!(steps.len() <= head.steps as usize && steps.len() <= bytes.len());
    }
}

/// A byte that chooses, then names to explain or words to search for, a NUL behind each.
fn explain(bytes: &[u8]) {
    let (choice, text) = bytes.split_first().unwrap_or((&0, bytes));
    let words: Vec<_> = String::from_utf8_lossy(text).split('\0').take(3).map(str::to_owned).collect();
    let format = if choice & 2 == 0 { ExplainFormat::Text } else { ExplainFormat::Markdown };
    let page = Page { width: Some((choice >> 2).into()), colour: false };
    let (Ok(shown) | Err(shown)) = answer(Request { words: &words, list: choice & 1 != 0, format, page });
    let is_printable = |character: char| character == '\n' || !character.is_control();
    assert!(!shown.is_empty() && shown.chars().all(is_printable), "{shown:?}");
}

/// A byte that chooses where it is heard, and what a client of the exporter sends.
fn http(bytes: &[u8]) {
    /// `prometheus:password`.
    const USER: &[u8] = b"cHJvbWV0aGV1czpwYXNzd29yZA==";
    let (choice, request) = bytes.split_first().unwrap_or((&0, bytes));
    let (is_loopback, is_restricted) = (choice & 1 != 0, choice & 2 != 0);
    let answer = served(is_loopback, is_restricted, request);
    let head = String::from_utf8_lossy(&answer);
    assert!(head.is_empty() || head.starts_with("HTTP/1."), "{head}");
    let is_answered = head.contains("HTTP/1.1 200 ") || head.contains("HTTP/1.0 200 ");
    let has = |text: &[u8]| request.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text));
    if is_answered && is_restricted {
        assert!(has(USER), "without the password: {head}");
    }
    if is_answered && is_loopback {
        let names: [&[u8]; 4] = [b"localhost", b"127.", b"[", b"HTTP/1.0"];
        assert!(names.iter().any(|name| has(name)), "by another name: {head}");
    }
}

/// The file of `--web-config`.
fn web_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = read_web_config(&text) {
        assert!(!error.is_empty());
    }
}

/// A record of the ring buffer; and a packet that is whole or cut, behind its length.
fn trace(bytes: &[u8]) {
    let (length, packet) = bytes.split_first_chunk().unwrap_or((&[0, 0], bytes));
    let length = u16::from_le_bytes(*length).into();
    for (link_header, quick) in [(false, false), (true, false), (false, true), (true, true)] {
        let style = Style { link_header, quick };
        if let Ok(event) = Event::parse(bytes) {
            let _ = Summary::of(&Frame::new(&event), style);
            let _ = (event.iface(), event.stack().count());
        }
        let summary = Summary::of(&Frame { bytes: packet.into(), length, link: Link::Own }, style);
        // A line is a line.
        assert!(!summary.text.is_empty() && !summary.text.contains(char::is_control), "{summary:?}");
    }
}

/// This host, as a kernel that says nothing of itself shows it.
fn host() -> Host {
    let kernel = KernelBtf::at("/nonexistent");
    Host::new(&kernel, &of_this_host(&kernel))
}
