//! How much longer a drop takes with something attached: other tools, and dropwatch with various options.

use std::{fs, path::Path};

use anyhow::{Result, ensure};

use super::{
    contender::{Contender, Fate, Yardsticks, others},
    rounds,
    sender::Sender,
    table::Figure,
};

/// Each of what a row can stand for, alone.
pub const KEYS: [&str; 15] = [
    "location",
    "reason",
    "iface",
    "netns",
    "protocol",
    "ipproto",
    "saddr",
    "daddr",
    "sport",
    "dport",
    "cpu",
    "socket",
    "process",
    "container",
    "stack",
];

/// Five terms of which the last holds for every packet, or for none.
const FIVE_TERMS: [&str; 2] = [
    "udp and src host 192.0.2.1 and dst host 192.0.2.2 and dst port 9 and less 100",
    "udp and src host 192.0.2.1 and dst host 192.0.2.2 and dst port 9 and greater 100",
];

/// The same of which the first holds for none.
const OTHER_PROTOCOL: &str = "tcp and src host 192.0.2.1 and dst host 192.0.2.2 and dst port 9 and less 100";

/// A flow, and where and why it is dropped.
pub const FLOW: &str = "location,reason,saddr,daddr,sport,dport";

/// The packet, unless its size is given.
const PACKET: &str = "a sent and dropped packet, nothing attached";

/// The default key beside the other tools.
pub fn measure(dropwatch: &Path, rounds: u32) -> Result<Vec<Figure>> {
    let sender = Sender::start()?;
    let mut contenders = vec![Contender::dropwatch(["dropwatch"; 2], dropwatch, &[], true, &sender)?];
    // Destinations are not read: its rows have no class.
    let without = ["without-class", "dropwatch -b location, without classes"];
    contenders.push(Contender::dropwatch(without, dropwatch, &["-b", "location"], true, &sender)?);
    contenders.extend(others());
    compare("cost", PACKET, contenders, &sender, rounds)
}

/// The default key beside the others and the filter.
pub fn measure_keys(dropwatch: &Path, rounds: u32) -> Result<Vec<Figure>> {
    let sender = Sender::start()?;
    let mut contenders = vec![Contender::dropwatch(["default", "dropwatch"], dropwatch, &[], true, &sender)?];
    for key in KEYS {
        let names = [key, &format!("dropwatch -b {key}")];
        contenders.push(Contender::dropwatch(names, dropwatch, &["-b", key], true, &sender)?);
    }
    let [without_stack, with_stack] = [&KEYS[..KEYS.len() - 1], &KEYS].map(|keys| keys.join(","));
    for (names, args, counts) in [
        (["flow", "dropwatch -b, a flow with its location and reason"], ["-b", FLOW], true),
        (["all-but-stack", "dropwatch -b, all keys but stack"], ["-b", &without_stack], true),
        (["all", "dropwatch -b, all keys"], ["-b", &with_stack], true),
        (["filter-match", "dropwatch -f, five terms that match"], ["-f", FIVE_TERMS[0]], true),
        (["filter-miss", "dropwatch -f, the fifth does not match"], ["-f", FIVE_TERMS[1]], false),
        (["filter-first", "dropwatch -f, the first does not match"], ["-f", OTHER_PROTOCOL], false),
    ] {
        contenders.push(Contender::dropwatch(names, dropwatch, &args, counts, &sender)?);
    }
    compare("keys", PACKET, contenders, &sender, rounds)
}

/// `dropwatch trace`, by what becomes of the drop; and with frames of two sizes what it is to record one.
pub fn measure_trace(dropwatch: &Path, [small, large]: [usize; 2], rounds: u32) -> Result<[Vec<Figure>; 2]> {
    let contenders = |all: &[(&str, &str, &[&str], Fate)], sender: &Sender| -> Result<Vec<_>> {
        let one = |&(id, name, args, fate)| Contender::trace([id, name], dropwatch, args, fate, sender);
        all.iter().map(one).collect()
    };
    let nothing = |size| format!("a dropped frame of {size} bytes, nothing attached");
    let shown: (_, _, &[&str], _) = ("shown", "dropwatch trace: shown", &[], Fate::Shown);
    let missed = "dropwatch trace -f, the fifth does not match: not shown";
    let all = [
        shown,
        ("shown-stack", "dropwatch trace --stack: shown", &["--stack"], Fate::Shown),
        ("filtered", missed, &["-f", FIVE_TERMS[1]], Fate::NotShown),
        ("sampled", "dropwatch trace --rate 1: not shown", &["--rate", "1"], Fate::NotShown),
        ("no-room", "dropwatch trace, its ring buffer full: not shown", &[], Fate::NoRoom),
    ];
    let sender = Sender::start_with(small)?;
    let of_small = contenders(&all, &sender)?;
    let of_small = compare("trace", &nothing(small), of_small, &sender, rounds)?;
    let sender = Sender::start_with(large)?;
    let of_large = contenders(&[shown], &sender)?;
    let of_large = compare("trace-large", &nothing(large), of_large, &sender, rounds)?;
    Ok([of_small, of_large])
}

/// What `--max-rows` defaults to.
const DEFAULT_ROOM: usize = 16_384;

/// A key that is another one at each drop, of ever more.
pub fn measure_many(dropwatch: &Path, rounds: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for keys in [64, 2_048, 49_152] {
        let sender = Sender::start_rotating(keys)?;
        let room = (4 * keys).max(DEFAULT_ROOM).to_string();
        let one = |id: &str, by: &str, what: &str| {
            let names = [id, &format!("dropwatch -b {what}, {keys} ports in turn")];
            Contender::dropwatch(names, dropwatch, &["-b", by, "--max-rows", &room], true, &sender)
        };
        let contenders = vec![one("dport", "dport", "dport")?, one("flow", FLOW, "with a flow's keys")?];
        let nothing = format!("a sent and dropped packet, to {keys} ports in turn, nothing attached");
        figures.extend(compare(&format!("many.{keys}"), &nothing, contenders, &sender, rounds.div_ceil(2))?);
    }
    Ok(figures)
}

/// With nothing attached and the benchmark's own programs in the same rounds.
fn compare(
    part: &str,
    nothing: &str,
    contenders: Vec<Contender>,
    sender: &Sender,
    rounds: u32,
) -> Result<Vec<Figure>> {
    check_statistics_off()?;
    let (yardsticks, own) = Yardsticks::load()?;
    let mut all = vec![Contender::nothing(nothing)];
    all.extend(own);
    all.extend(contenders);
    let (mut figures, done) = rounds::run(part, &mut all, sender, rounds)?;
    let (counted, least) = (yardsticks.counted()?, u64::from(done) * rounds::DROPS);
    ensure!(counted >= least, "{least} packets were dropped but only {counted} counted by the array");
    figures.push(Figure::new(format!("{part}.rounds"), "rounds of each", f64::from(done), ""));
    Ok(figures)
}

/// The kernel's own measurement of programs would be measured as well.
fn check_statistics_off() -> Result<()> {
    let on = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() != "0");
    ensure!(
        !on,
        "BPF statistics are on, which costs more than what is measured here: switch them off with \
         `sysctl kernel.bpf_stats_enabled=0`"
    );
    Ok(())
}
