//! Connection tracking: how full its table is.

use std::{fs, path::Path, time::SystemTime};

use serde_json::{Map, Value, json};

use super::Question;
use crate::{
    evidence::places::Inside,
    model::evidence::{Certainty, Evidence, Kind},
};

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// What is lost because of the table, by the names of its statistics.
const LOSSES: [&str; 3] = ["drop", "early_drop", "insert_failed"];

/// How full the table of connections is, if it may have dropped the packet.
pub fn find(question: &Question, inside: Inside<'_>) -> Vec<Evidence> {
    // Rules have a place of their own, and only rules.
    let is_by_rule =
        question.function.as_deref().is_some_and(|function| function.starts_with("nft_do_chain"));
    if is_by_rule || !inside.is_entered {
        return Vec::new();
    }
    let (Some(count), Some(most)) = (number(Path::new(COUNT)), number(Path::new(MOST))) else {
        return Vec::new();
    };
    let statistics = fs::read_to_string(inside.directory.join("stat/nf_conntrack")).unwrap_or_default();
    evidence(count, most, &statistics).into_iter().collect()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What a table with so many connections says; nothing if it has room and lost none.
fn evidence(count: u64, most: u64, statistics: &str) -> Option<Evidence> {
    let losses = LOSSES.map(|name| (name, total(statistics, name)));
    let is_full = count >= most && most > 0;
    if !is_full && losses.iter().all(|(_, lost)| lost.unwrap_or(0) == 0) {
        return None;
    }
    let state = if is_full { "the table of connections is full: " } else { "the table of connections has " };
    let mut text = vec![format!("{state}{count} of {most}")];
    let mut fields = Map::from_iter([("count".to_owned(), json!(count)), ("max".to_owned(), json!(most))]);
    for (name, lost) in losses {
        fields.insert(name.to_owned(), lost.map_or(Value::Null, Value::from));
        if let Some(lost @ 1..) = lost {
            text.push(format!("{name} {lost} since its start"));
        }
    }
    Some(Evidence {
        kind: Kind::Conntrack,
        certainty: Certainty::Possible,
        text: text.join("; "),
        source: "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max; conntrack -S"
            .to_owned(),
        time: SystemTime::now(),
        fields,
    })
}

/// The sum over all CPUs of a column, which has its name in the first line.
fn total(statistics: &str, name: &str) -> Option<u64> {
    let mut lines = statistics.lines();
    let column = lines.next()?.split_whitespace().position(|column| column == name)?;
    let of_line = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
    Some(lines.filter_map(of_line).fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATISTICS: &str = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error\n\
        00000003  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000010 00000000 00000000\n\
        00000003  00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001 00000000 00000000\n";

    #[test]
    fn a_full_table_says_so_with_its_losses() {
        let evidence = evidence(3, 3, STATISTICS).expect("it is full");
        assert_eq!(evidence.text, "the table of connections is full: 3 of 3; drop 17 since its start");
        assert_eq!((&evidence.fields["max"], &evidence.fields["insert_failed"]), (&json!(3), &json!(0)));
    }

    #[test]
    fn a_table_with_room_that_lost_nothing_is_not_worth_a_line() {
        assert_eq!(evidence(3, 65_536, ""), None);
        let lost = evidence(3, 65_536, STATISTICS).expect("it was full before").text;
        assert_eq!(lost, "the table of connections has 3 of 65536; drop 17 since its start");
        assert!(evidence(0, 0, "").is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_statistics_make_it_panic(text in "[a-f0-9 \ndrop]{0,100}") {
            let _ = total(&text, "drop");
        }
    }
}
