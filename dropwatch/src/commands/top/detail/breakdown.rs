//! Which drops a row consists of: by interface, namespace, flow, socket and call chain.

use std::collections::HashMap;

use crate::model::{
    keys::Key,
    location::Location,
    protocols,
    report::{Cut, Row, Value},
};

/// How many values a table tells apart; the drops of more are summed.
const MOST: usize = 1024;
/// How many functions of a chain are shown.
const FRAMES: usize = 12;

/// What rows must be counted by.
pub const BY: [Key; 14] = [
    Key::Location,
    Key::Reason,
    Key::Iface,
    Key::Netns,
    Key::Protocol,
    Key::IpProto,
    Key::Saddr,
    Key::Daddr,
    Key::Sport,
    Key::Dport,
    Key::Socket,
    Key::Process,
    Key::Container,
    Key::Stack,
];

/// Drops by one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What it is.
    pub title: &'static str,
    /// Drops and what they have in common, the largest first.
    pub rows: Vec<(u64, String)>,
    /// What is not among them, because it is less.
    pub cut: Cut,
    /// Drops of values that there was no room to tell apart.
    pub beyond: u64,
}

/// What drops have in common, and its heading.
type Section = (&'static str, fn(&Parts<'_>) -> String);

const SECTIONS: [Section; 5] = [
    ("INTERFACE", interface),
    ("NETWORK NAMESPACE", |parts| parts.words(Key::Netns)),
    ("FLOW", flow),
    ("PROCESS AND SOCKET", process),
    ("CALL CHAIN", chain),
];

/// Drops of a row, added up.
#[derive(Debug)]
pub struct Breakdown {
    /// How many values each table tells apart.
    room: usize,
    drops: u64,
    sections: [Counts; SECTIONS.len()],
}

#[derive(Debug, Default)]
struct Counts {
    known: HashMap<String, u64>,
    beyond: u64,
}

impl Default for Breakdown {
    fn default() -> Self {
        Self { room: MOST, drops: 0, sections: Default::default() }
    }
}

impl Breakdown {
    /// All of them.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// Adds the drops of a row by [`BY`] or more.
    pub fn add(&mut self, by: &[Key], row: &Row) {
        let parts = Parts { by, row };
        self.drops += row.count;
        for ((_, words), counts) in SECTIONS.iter().zip(&mut self.sections) {
            counts.add(words(&parts), row.count, self.room);
        }
    }

    /// The tables, each with the largest so many rows. The counts of each add up to all drops.
    pub fn tables(&self, most: usize) -> Vec<Table> {
        SECTIONS.iter().zip(&self.sections).map(|((title, _), counts)| counts.table(title, most)).collect()
    }
}

impl Counts {
    fn add(&mut self, words: String, drops: u64, room: usize) {
        let is_full = self.known.len() >= room;
        match self.known.get_mut(&words) {
            Some(count) => *count += drops,
            None if is_full => self.beyond += drops,
            None => _ = self.known.insert(words, drops),
        }
    }

    fn table(&self, title: &'static str, most: usize) -> Table {
        let mut rows: Vec<_> = self.known.iter().map(|(words, count)| (*count, words.clone())).collect();
        rows.sort_by(|(count, words), (other, others)| other.cmp(count).then_with(|| words.cmp(others)));
        let cut = rows.split_off(rows.len().min(most));
        let cut = Cut { rows: cut.len() as u64, drops: cut.iter().map(|(count, _)| count).sum() };
        Table { title, rows, cut, beyond: self.beyond }
    }
}

/// What a row says.
struct Parts<'a> {
    by: &'a [Key],
    row: &'a Row,
}

impl Parts<'_> {
    fn get(&self, key: Key) -> Option<&Value> {
        self.by.iter().zip(&self.row.values).find(|(it, _)| **it == key).map(|(_, value)| value)
    }

    fn words(&self, key: Key) -> String {
        self.get(key).map_or_else(|| "-".to_owned(), Value::words)
    }
}

/// `eth0 of 4026532300(blue)`: interfaces of one name are many.
fn interface(parts: &Parts<'_>) -> String {
    let iface = parts.words(Key::Iface);
    match parts.get(Key::Iface).and_then(Value::interface_namespace) {
        Some(netns) => format!("{iface} of {}", netns.words()),
        None => iface,
    }
}

/// `udp 10.0.0.1:4000 > 10.0.0.2:53`
fn flow(parts: &Parts<'_>) -> String {
    let end = |address, port| match (parts.get(address), parts.get(port)) {
        (Some(Value::Address(Some(address))), Some(Value::Port(Some(port)))) => {
            Some(std::net::SocketAddr::new(*address, *port).to_string())
        }
        (Some(Value::Address(Some(address))), _) => Some(address.to_string()),
        _ => None,
    };
    let protocol = match (parts.get(Key::IpProto), parts.get(Key::Protocol)) {
        (Some(Value::IpProto(Some(number))), _) => protocols::ip_protocol(*number).into_owned(),
        (_, Some(Value::Protocol(Some(number)))) => protocols::ethertype(*number).into_owned(),
        _ => "-".to_owned(),
    };
    match (end(Key::Saddr, Key::Sport), end(Key::Daddr, Key::Dport)) {
        (Some(from), Some(to)) => format!("{protocol} {from} > {to}"),
        _ => protocol,
    }
}

/// `named[812] in dns, udp 10.0.0.2:53`
fn process(parts: &Parts<'_>) -> String {
    let process = parts.words(Key::Process);
    let container = match parts.words(Key::Container) {
        container if container == "-" => String::new(),
        container => format!(" in {container}"),
    };
    match parts.get(Key::Socket) {
        Some(Value::Socket(Some(socket))) => format!("{process}{container}, {}", socket.name()),
        _ => format!("{process}{container}"),
    }
}

/// `udp_rcv < ip_rcv < ...`, the innermost first.
fn chain(parts: &Parts<'_>) -> String {
    let function = |frame: &Location| match &frame.symbol {
        Some(symbol) => symbol.name.word(),
        None => frame.to_string(),
    };
    match parts.get(Key::Stack) {
        Some(Value::Stack(Some(frames))) if !frames.is_empty() => {
            let more = if frames.len() > FRAMES { " < ..." } else { "" };
            let frames: Vec<_> = frames.iter().take(FRAMES).map(function).collect();
            format!("{}{more}", frames.join(" < "))
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::model::{
        location::Symbol,
        namespace::Namespace,
        report::{Iface, Netns},
    };

    fn row(count: u64, port: u16, netns: u32) -> Row {
        let netns = Netns {
            namespace: Namespace { inum: netns, cookie: netns.into() },
            name: None,
            names: Vec::new(),
        };
        let iface =
            Iface { index: 2, name: Some("eth0".into()), altnames: Vec::new(), netns: Some(netns.clone()) };
        let frame = |name: &str| Location {
            address: 1,
            symbol: Some(Symbol { name: name.into(), offset: 1, size: None, module: "kernel".into() }),
        };
        let values = BY.iter().map(|key| match key {
            Key::Iface => Value::Iface(Some(iface.clone())),
            Key::Netns => Value::Netns(Some(netns.clone())),
            Key::IpProto => Value::IpProto(Some(17)),
            Key::Saddr | Key::Daddr => Value::Address("10.0.0.1".parse().ok()),
            Key::Sport => Value::Port(Some(4000)),
            Key::Dport => Value::Port(Some(port)),
            Key::Stack => Value::Stack(Some(vec![frame("udp_rcv"), frame("ip_rcv")])),
            _ => Value::Protocol(None),
        });
        super::super::tests::row(count, values.collect())
    }

    #[test]
    fn a_drop_is_told_in_each_table() {
        let mut breakdown = Breakdown::default();
        breakdown.add(&BY, &row(3, 53, 7));
        breakdown.add(&BY, &row(4, 53, 8));
        breakdown.add(&BY, &row(5, 54, 8));
        let rows: Vec<_> = breakdown.tables(10).into_iter().map(|table| table.rows).collect();
        let rows: Vec<Vec<_>> =
            rows.iter().map(|rows| rows.iter().map(|(count, words)| (*count, &**words)).collect()).collect();
        assert_eq!(rows[0], [(9, "eth0 of 8"), (3, "eth0 of 7")]);
        assert_eq!(rows[1], [(9, "8"), (3, "7")]);
        assert_eq!(rows[2], [(7, "udp 10.0.0.1:4000 > 10.0.0.1:53"), (5, "udp 10.0.0.1:4000 > 10.0.0.1:54")]);
        assert_eq!(rows[3], [(12, "-")]);
        assert_eq!(rows[4], [(12, "udp_rcv < ip_rcv")]);
    }

    proptest! {
        /// However many there are, and however few are shown.
        #[test]
        fn each_table_adds_up_to_all_drops(
            rows in vec((1_u64..1000, 0_u16..20, 0_u32..20), 0..60),
            most in 0_usize..20,
            room in 0_usize..20,
        ) {
            let mut breakdown = Breakdown { room, ..Breakdown::default() };
            for (count, port, netns) in &rows {
                breakdown.add(&BY, &row(*count, *port, *netns));
            }
            let all: u64 = rows.iter().map(|(count, ..)| count).sum();
            prop_assert_eq!(breakdown.drops(), all);
            for Table { title, rows, cut, beyond } in breakdown.tables(most) {
                prop_assert!(rows.len() <= most);
                let shown: u64 = rows.iter().map(|(count, _)| count).sum();
                prop_assert_eq!(shown + cut.drops + beyond, all, "{}", title);
            }
            prop_assert!(breakdown.sections.iter().all(|counts| counts.known.len() <= room));
        }
    }
}
