//! Losses that the kernel counts and the tracepoint never sees, and what leads to them.

use std::{fmt, net::SocketAddr};

use serde::{Serialize, Serializer};

use super::{
    foreign::Foreign,
    keys::Key,
    namespace::Namespace,
    report::{Iface, Names, Netns, Row, Value},
};
use crate::escape::word;

/// A counter that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedCounter {
    /// As the tool prints it that shows the counter: `nstat`, `ip -s -s link`, `ethtool -S`, `tc -s qdisc`.
    pub name: Foreign,
    /// By how much.
    pub count: u64,
    /// The inode number of the namespace; none if it counts for the whole host.
    pub netns: Option<u32>,
    /// What it counts for, if not for all of the namespace.
    pub part: Part,
    /// What was lost, and why.
    pub meaning: String,
    /// The rows that account for the same loss.
    pub rows: InRows,
    /// Whether what it counts is lost.
    pub is_loss: bool,
}

/// The part of a namespace that a counter is about, and what in it is at fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The interface that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iface: Option<Iface>,
    /// The queue discipline that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qdisc: Option<Qdisc>,
    /// Listening sockets that lost connection requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
    /// Other sockets that lost what was for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<SlowSocket>,
}

/// A queue discipline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Qdisc {
    /// Its kind, such as `fq_codel`.
    pub kind: Foreign,
    /// Its handle.
    #[serde(serialize_with = "handle")]
    pub handle: u32,
    /// The class that it is in, or the root.
    #[serde(serialize_with = "handle")]
    pub parent: u32,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections that wait to be accepted.
    pub queue: u32,
    /// How many may wait; the queue is full when it is longer.
    pub limit: u32,
    /// Connection requests that it lost.
    pub drops: u64,
    /// Who has it open; none if that is not known.
    pub process: Option<Process>,
}

/// A socket whose reader is too slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlowSocket {
    /// What it lost.
    pub drops: u64,
    /// Who has it open; none if that is not known.
    pub process: Option<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// What it calls itself.
    pub comm: Foreign,
}

/// The rows that account for losses that a counter counts as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InRows {
    /// Those with these reasons.
    pub reasons: &'static [&'static str],
    /// Those in functions whose names begin so.
    pub functions: &'static [&'static str],
    /// Whether there are losses without rows too: then the drops of the rows are taken off, and the rest is listed.
    pub partly: bool,
}

impl Qdisc {
    /// What `tc` writes instead of a parent for the one that a device begins with.
    const ROOT: u32 = u32::MAX;
}

/// `10:` as `tc` writes it, `10:1` for a class.
fn numbers(handle: u32) -> String {
    match (handle >> 16, handle & 0xffff) {
        _ if handle == Qdisc::ROOT => "root".to_owned(),
        (major, 0) => format!("{major:x}:"),
        (major, minor) => format!("{major:x}:{minor:x}"),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn handle<S: Serializer>(handle: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&numbers(*handle))
}

/// `pfifo 20: parent 10:1`
impl fmt::Display for Qdisc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, handle, parent } = self;
        write!(f, "{} {} parent {}", kind.word(), numbers(*handle), numbers(*parent))
    }
}

/// `10.77.0.2:8080 5/4 python3[19000]`
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, queue, limit, process, .. } = self;
        write!(f, "{local} {queue}/{limit} {}", in_words(process.as_ref()))
    }
}

/// `tcpdump[811]`
impl fmt::Display for SlowSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_words(self.process.as_ref()))
    }
}

/// `comm[pid]`, or `-`.
fn in_words(process: Option<&Process>) -> String {
    process.map_or_else(|| "-".to_owned(), |Process { pid, comm }| format!("{}[{pid}]", comm.word()))
}

/// A counter of the kernel that moved, with names, as reports have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// As the tool prints it that shows the counter.
    pub name: Foreign,
    /// By how much it moved.
    pub count: u64,
    /// The namespace; none if it counts for the whole host.
    pub netns: Option<Netns>,
    /// What it counts for, if not for all of the namespace.
    #[serde(flatten)]
    pub part: Part,
    /// What was lost, and why.
    pub meaning: String,
    /// Whether what it counts is lost.
    #[serde(rename = "loss")]
    pub is_loss: bool,
}

impl Counter {
    /// `225 TcpExtListenDrops netns 4026532176(web): accept queue full: 10.77.0.2:8080 5/4 python3[19000]`; without a
    /// namespace, the host's.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { name, count, netns, part, meaning, is_loss: _ } = self;
        let Part { iface, qdisc, listeners, sockets } = part;
        let iface = iface.as_ref().map(|iface| format!("iface {}", word(&iface.words())));
        let qdisc = qdisc.as_ref().map(|qdisc| format!("qdisc {qdisc}"));
        let netns = netns.as_ref().map(|netns| format!("netns {}", word(&netns.words())));
        let counted = Some(format!("{count} {}", name.word()));
        let counted: Vec<_> = [counted, iface, qdisc, netns].into_iter().flatten().collect();
        let listeners = listeners.iter().map(ToString::to_string);
        let at_fault: Vec<_> = listeners.chain(sockets.iter().map(ToString::to_string)).collect();
        let why =
            if at_fault.is_empty() { meaning.clone() } else { format!("{meaning}: {}", at_fault.join(", ")) };
        format!("{}: {why}", counted.join(" "))
    }
}

/// The counters whose losses are in no row.
pub fn unaccounted(
    moved: Vec<MovedCounter>,
    by: &[Key],
    rows: &[Row],
    names: &mut impl Names,
) -> Vec<Counter> {
    let mut netns = |inum| {
        let namespace = Namespace { inum, cookie: 0 };
        Netns { namespace, name: names.netns(namespace), names: Vec::new() }
    };
    let unaccounted = moved.into_iter().filter_map(|moved| {
        let count = rest(&moved, by, rows);
        let MovedCounter { name, netns: inum, part, meaning, is_loss, .. } = moved;
        let netns = inum.map(&mut netns);
        (count > 0).then_some(Counter { name, count, netns, part, meaning, is_loss })
    });
    unaccounted.collect()
}

/// What is left of a counter without what is in rows.
///
/// Where rows cannot tell, a loss that always has a row is taken for one that has.
fn rest(moved: &MovedCounter, by: &[Key], rows: &[Row]) -> u64 {
    let InRows { reasons, functions, partly } = moved.rows;
    if reasons.is_empty() && functions.is_empty() {
        return moved.count;
    }
    let values = || rows.iter().flat_map(|row| &row.values);
    let has_reasons =
        by.contains(&Key::Reason) && values().all(|value| !matches!(value, Value::Reason(None)));
    let has_functions = by.contains(&Key::Location) || by.contains(&Key::Function);
    let tell = !reasons.is_empty() && has_reasons || !functions.is_empty() && has_functions;
    let in_rows: u64 = rows.iter().filter(|row| accounts_for(row, moved)).map(|row| row.count).sum();
    match (tell, partly) {
        (true, true) => moved.count.saturating_sub(in_rows),
        (true, false) if in_rows == 0 => moved.count,
        (false, true) => moved.count,
        (_, false) => 0,
    }
}

/// Whether a row may be about the same loss: it is of the reason or the function, and of no other place.
fn accounts_for(row: &Row, moved: &MovedCounter) -> bool {
    let InRows { reasons, functions, .. } = moved.rows;
    let begins = |name: &Foreign| functions.iter().any(|begin| name.bytes().starts_with(begin.as_bytes()));
    let is_of_it = |value: &Value| match value {
        Value::Reason(Some(reason)) => reason.name.as_deref().is_some_and(|name| reasons.contains(&name)),
        Value::Location { location, .. } => {
            location.symbol.as_ref().is_some_and(|symbol| begins(&symbol.name))
        }
        Value::Function(Some(function)) => begins(&function.symbol),
        _ => false,
    };
    let is_other = |netns: &Netns| moved.netns.is_some_and(|inum| inum != netns.namespace.inum);
    let is_elsewhere = |value: &Value| match value {
        Value::Netns(Some(netns)) => is_other(netns),
        Value::Iface(Some(iface)) => {
            let own = moved.part.iface.as_ref();
            iface.netns.as_ref().is_some_and(is_other) || own.is_some_and(|own| own.index != iface.index)
        }
        _ => false,
    };
    row.values.iter().any(is_of_it) && !row.values.iter().any(is_elsewhere)
}
