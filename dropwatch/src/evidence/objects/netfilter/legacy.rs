//! Rules of iptables-legacy, which all count.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::IpAddr,
    time::{Instant, SystemTime},
};

use serde_json::{Map, Value, json};

use super::{
    hook::{Family, Hook, Place},
    noted::{Counters, Moved},
    packet::Packet,
    programs::Runner,
};
use crate::{
    escape::Escaped,
    evidence::{objects::Question, places::Inside},
    model::evidence::{Certainty, Evidence, Kind},
};

/// The tables in the order in which packets pass them.
const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
/// More rules are not named for one drop.
const MOST_NAMED: usize = 3;

/// A rule or a policy: its table, its chain, its text, and which one of that text it is.
type Key = (&'static str, String, String, usize);

/// What is known of the namespace's rules.
#[derive(Debug, Default)]
pub struct Legacy {
    noted: HashMap<u32, Counters<Key>>,
    runner: Runner,
    /// The number of the report.
    report: u64,
}

impl Legacy {
    /// Notes what the rules have counted, where there are any.
    pub fn note(&mut self, netns: u32, inside: Inside<'_>) {
        for family in [Family::Ip, Family::Ip6] {
            if let Some(saved) = self.save(family, inside) {
                self.noted.entry(netns).or_default().note(Instant::now(), saved.counters());
            }
        }
    }

    /// A report begins: forgets namespaces that have gone.
    pub fn begin(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.report += 1;
        self.noted.retain(|netns, _| is_there(*netns));
    }

    /// The rules that may have dropped the packet.
    pub fn find(
        &mut self,
        question: &Question,
        netns: u32,
        inside: Inside<'_>,
        place: Place,
        packet: &Packet,
    ) -> Vec<Evidence> {
        let (Some(family), Some((_, hook))) = (packet.family(), place.hook) else { return Vec::new() };
        let Some(saved) = self.save(family, inside) else { return Vec::new() };
        let now = Instant::now();
        let noted = self.noted.entry(netns).or_default();
        noted.begin(self.report);
        let mut suspects = Vec::new();
        for suspect in saved.suspects(hook, &Matcher::of(question, packet)) {
            let moved = noted.moved(now, &suspect.key, suspect.packets, question.began);
            if moved.is_none_or(|moved| moved.packets > 0) {
                suspects.push((suspect, moved));
            }
        }
        noted.note(now, saved.counters());
        let all = suspects.len();
        let suspects = suspects.into_iter().take(MOST_NAMED);
        suspects.map(|(suspect, moved)| suspect.evidence(family, hook, moved, all)).collect()
    }

    /// The rules with their counters; none if there are none. Only tables that are there are read: reading makes them.
    fn save(&mut self, family: Family, inside: Inside<'_>) -> Option<Saved> {
        let (names, programs) = match family {
            Family::Ip => {
                ("ip_tables_names", ["/usr/sbin/iptables-legacy-save", "/sbin/iptables-legacy-save"])
            }
            _ => ("ip6_tables_names", ["/usr/sbin/ip6tables-legacy-save", "/sbin/ip6tables-legacy-save"]),
        };
        let names = fs::read_to_string(inside.directory.join(names)).ok()?;
        let is_there = |table: &&str| names.lines().any(|name| name == *table);
        let mut saved = Saved::default();
        for table in TABLES.into_iter().filter(is_there) {
            saved.add(table, &self.runner.run(&programs, &["-c", "-t", table]).ok()?);
        }
        (!saved.tables.is_empty()).then_some(saved)
    }
}

/// Tables as `iptables-save` prints them.
#[derive(Debug, Default)]
struct Saved {
    tables: Vec<(&'static str, HashMap<String, Chain>)>,
}

#[derive(Debug, Default)]
struct Chain {
    /// What it counts if its policy is to drop.
    policy: Option<u64>,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    packets: u64,
    text: String,
    words: Vec<String>,
    /// Which of the chain's rules with this text.
    number: usize,
}

/// What may have dropped a packet.
#[derive(Debug)]
struct Suspect {
    key: Key,
    verdict: &'static str,
    packets: u64,
}

impl Saved {
    fn add(&mut self, table: &'static str, text: &str) {
        let mut chains: HashMap<String, Chain> = HashMap::new();
        let mut alike: HashMap<String, usize> = HashMap::new();
        for line in text.lines() {
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
                let packets = words.next().and_then(packets).unwrap_or(0);
                chains.entry(name.to_owned()).or_default().policy = (policy == "DROP").then_some(packets);
            } else if let Some((counter, rule)) = line.split_once(" -A ")
                && let (Some(packets), Some(words)) = (packets(counter), shlex::split(rule))
                && let Some(chain) = words.first()
            {
                let text = format!("-A {rule}");
                let before = alike.entry(text.clone()).or_default();
                let number = std::mem::replace(before, *before + 1);
                chains.entry(chain.clone()).or_default().rules.push(Rule { packets, text, words, number });
            }
        }
        self.tables.push((table, chains));
    }

    /// All counters.
    fn counters(&self) -> impl Iterator<Item = (Key, u64)> {
        self.tables.iter().flat_map(|(table, chains)| {
            chains.iter().flat_map(move |(name, chain)| {
                let rule =
                    |rule: &Rule| ((*table, name.clone(), rule.text.clone(), rule.number), rule.packets);
                let policy = chain.policy.map(|packets| ((*table, name.clone(), String::new(), 0), packets));
                chain.rules.iter().map(rule).chain(policy).collect::<Vec<_>>()
            })
        })
    }

    /// The rules of a hook that drop and do not contradict the packet, and policies.
    fn suspects(&self, hook: Hook, matcher: &Matcher) -> Vec<Suspect> {
        let base = hook.to_string().to_uppercase();
        let mut suspects = Vec::new();
        for (table, chains) in &self.tables {
            let Some(chain) = chains.get(&base) else { continue };
            collect(table, chains, &base, matcher, &mut suspects);
            if let Some(packets) = chain.policy {
                let key = (*table, base.clone(), String::new(), 0);
                suspects.push(Suspect { key, verdict: "policy", packets });
            }
        }
        suspects
    }
}

/// Adds the rules that drop in a chain and in those that it calls, each chain once.
///
/// Without recursion: chains may call each other to any depth.
fn collect<'a>(
    table: &'static str,
    chains: &'a HashMap<String, Chain>,
    base: &'a str,
    matcher: &Matcher,
    suspects: &mut Vec<Suspect>,
) {
    let mut seen = HashSet::new();
    let mut enter = |name: &'a str| {
        let chain = chains.get(name).filter(|_| seen.insert(name))?;
        Some((name, chain.rules.iter().filter(|rule| !matcher.contradicts(&rule.words))))
    };
    let mut open: Vec<_> = enter(base).into_iter().collect();
    while let Some((name, rules)) = open.last_mut() {
        let Some(rule) = rules.next() else {
            open.pop();
            continue;
        };
        let verdict = match target(&rule.words) {
            Some("DROP") => "drop",
            Some("REJECT") => "reject",
            Some("NFQUEUE" | "QUEUE") => "queue",
            Some(other) => {
                open.extend(enter(other));
                continue;
            }
            None => continue,
        };
        let key = (table, (*name).to_owned(), rule.text.clone(), rule.number);
        suspects.push(Suspect { key, verdict, packets: rule.packets });
    }
}

/// Reads what may be the rules of a table, and what of them may drop a packet.
///
/// # Panics
/// One is found twice.
#[cfg(feature = "fakes")]
pub fn read_saved(bytes: &[u8]) {
    let mut saved = Saved::default();
    saved.add("filter", &String::from_utf8_lossy(bytes));
    let (source, destination) = (Some([192, 0, 2, 1].into()), Some([198, 51, 100, 7].into()));
    let matcher = Matcher { protocol: Some(17), source, destination, sport: Some(4711), dport: Some(53) };
    let counters = saved.counters().count();
    for hook in [Hook::Input, Hook::Forward, Hook::Output] {
        assert!(saved.suspects(hook, &matcher).len() <= counters, "each rule once");
    }
}

/// What a rule calls.
fn target(words: &[String]) -> Option<&str> {
    let at = words.iter().position(|word| word == "-j" || word == "-g")?;
    words.get(at + 1).map(String::as_str)
}

/// The packets in `[12:3456]`.
fn packets(counter: &str) -> Option<u64> {
    counter.strip_prefix('[')?.split(':').next()?.parse().ok()
}

/// What of a packet can contradict a rule.
struct Matcher {
    protocol: Option<u8>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    sport: Option<u16>,
    dport: Option<u16>,
}

impl Matcher {
    fn of(question: &Question, packet: &Packet) -> Self {
        Self {
            protocol: packet.ipproto,
            source: question.saddr,
            destination: question.daddr,
            sport: question.sport,
            dport: question.dport,
        }
    }

    /// Whether a rule surely does not match; what is not known matches.
    fn contradicts(&self, words: &[String]) -> bool {
        words.windows(2).enumerate().any(|(at, pair)| {
            let is_inverse = at > 0 && words[at - 1] == "!";
            let known = match pair[0].as_str() {
                "-p" => self.protocol.and_then(|protocol| is_protocol(protocol, &pair[1])),
                "-s" => self.source.and_then(|address| is_in(address, &pair[1])),
                "-d" => self.destination.and_then(|address| is_in(address, &pair[1])),
                "--sport" => self.sport.and_then(|port| is_among(port, &pair[1])),
                "--dport" => self.dport.and_then(|port| is_among(port, &pair[1])),
                _ => None,
            };
            known == Some(is_inverse)
        })
    }
}

fn is_protocol(protocol: u8, wanted: &str) -> Option<bool> {
    let name = match protocol {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "ipv6-icmp",
        132 => "sctp",
        _ => return wanted.parse().ok().map(|wanted: u8| wanted == protocol),
    };
    Some(wanted == name)
}

/// Whether an address is in a network, which is written with the length of its prefix.
fn is_in(address: IpAddr, network: &str) -> Option<bool> {
    let (network, length) = network.split_once('/')?;
    let (network, length): (IpAddr, u32) = (network.parse().ok()?, length.parse().ok()?);
    let (bits, other, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return Some(false),
    };
    let ignored = u32::checked_sub(width, length)?;
    Some(bits.checked_shr(ignored).unwrap_or(0) == other.checked_shr(ignored).unwrap_or(0))
}

fn is_among(port: u16, range: &str) -> Option<bool> {
    let (low, high) = range.split_once(':').unwrap_or((range, range));
    Some((low.parse().ok()?..=high.parse().ok()?).contains(&port))
}

impl Suspect {
    fn evidence(&self, family: Family, hook: Hook, moved: Option<Moved>, all: usize) -> Evidence {
        let (table, chain, rule, _) = &self.key;
        let said = [
            Some(format!("{hook}: iptables-legacy {table} {}: {}", Escaped::new(chain), self.rule())),
            (self.verdict == "reject").then(|| "the sender was told".to_owned()),
            moved.map(|moved| format!("counted {} in {:.1} s", moved.packets, moved.within.as_secs_f64())),
            (all > 1 && moved.is_none()).then(|| format!("one of {all} that can drop it")),
        ];
        let program = if family == Family::Ip6 { "ip6tables-legacy-save" } else { "iptables-legacy-save" };
        let fields = json!({
            "hook": hook.to_string(),
            "family": family.name(),
            "table": table,
            "chain": chain,
            "handle": null,
            "verdict": self.verdict,
            "rule": (!rule.is_empty()).then_some(rule),
            "packets": moved.map(|moved| moved.packets),
            "candidates": all,
        });
        Evidence {
            kind: Kind::Netfilter,
            certainty: if moved.is_some() { Certainty::Counted } else { Certainty::Possible },
            text: said.into_iter().flatten().collect::<Vec<_>>().join("; "),
            source: format!("{program} -c -t {table}"),
            time: SystemTime::now(),
            fields: match fields {
                Value::Object(fields) => fields,
                _ => Map::new(),
            },
        }
    }

    fn rule(&self) -> String {
        let (.., rule, _) = &self.key;
        if rule.is_empty() { "policy DROP".to_owned() } else { Escaped::new(rule).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "*filter\n:INPUT DROP [7:700]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [9:900]\n:media - [0:0]\n\
        [60:5] -A INPUT -p udp -m udp --dport 6500 -j media\n\
        [3:9] -A INPUT -s 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable\n\
        [1:1] -A media -m length --length 1000:65535 -j DROP\n\
        [60:1] -A media -m length --length 300:400 -m comment --comment \"ticket -j 4711\" -j DROP\n\
        [5:5] -A media ! -s 10.0.0.0/8 -j DROP\nCOMMIT\n";

    fn matcher(dport: u16) -> Matcher {
        let source = Some([10, 0, 0, 1].into());
        Matcher { protocol: Some(17), source, destination: None, sport: None, dport: Some(dport) }
    }

    fn found(dport: u16) -> Vec<(String, &'static str, u64)> {
        let mut saved = Saved::default();
        saved.add("filter", SAVED);
        let suspects = saved.suspects(Hook::Input, &matcher(dport));
        suspects.into_iter().map(|suspect| (suspect.key.1, suspect.verdict, suspect.packets)).collect()
    }

    #[test]
    fn rules_that_drop_are_found_through_the_chains_that_lead_to_them() {
        let (input, media) = ("INPUT".to_owned(), "media".to_owned());
        assert_eq!(
            found(6500),
            [(media.clone(), "drop", 1), (media, "drop", 60), (input.clone(), "policy", 7)]
        );
        assert_eq!(found(53), [(input, "policy", 7)]);
    }

    /// Ways through these are more than can be walked, and one of them is a circle.
    #[test]
    fn chains_that_are_called_again_and_again_are_read_once() {
        let mut text = "[0:0] -A INPUT -j c0\n[0:0] -A c40 -j c0\n[1:1] -A c40 -j DROP\n".to_owned();
        for level in 0..40 {
            let call = format!("[0:0] -A c{level} -j c{}\n", level + 1);
            text.push_str(&call.repeat(8));
        }
        let mut saved = Saved::default();
        saved.add("filter", &text);
        assert_eq!(saved.suspects(Hook::Input, &matcher(53)).len(), 1);
    }

    /// The owner of a namespace decides how many there are. A call for each of these would overflow the stack.
    #[test]
    fn chains_may_call_each_other_however_deep() {
        const CHAINS: usize = 100_000;
        let call = |level: usize| format!("[0:0] -A c{level} -j c{}\n", level + 1);
        let calls: String = (0..CHAINS).map(call).collect();
        let mut saved = Saved::default();
        saved.add("filter", &format!("[0:0] -A INPUT -j c0\n{calls}[7:7] -A c{CHAINS} -j DROP\n"));
        let suspects = saved.suspects(Hook::Input, &matcher(53));
        assert_eq!(suspects.iter().map(|suspect| suspect.packets).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn counters_have_a_key_of_their_own_each() {
        let mut saved = Saved::default();
        saved.add("filter", &format!("{SAVED}[2:2] -A media -m length --length 1000:65535 -j DROP\n"));
        let counters: HashMap<_, _> = saved.counters().collect();
        assert_eq!(counters.len(), 7);
        let text = "-A media -m length --length 1000:65535 -j DROP".to_owned();
        assert_eq!(counters[&("filter", "media".to_owned(), text, 1)], 2);
    }

    #[test]
    fn addresses_and_ports_contradict_only_where_they_are_known() {
        assert_eq!(is_in([10, 1, 0, 1].into(), "10.0.0.0/8"), Some(true));
        assert_eq!(is_in([11, 1, 0, 1].into(), "10.0.0.0/8"), Some(false));
        assert_eq!(is_in([11, 1, 0, 1].into(), "0.0.0.0/0"), Some(true));
        assert_eq!(is_in([11, 1, 0, 1].into(), "10.0.0.0/255.0.255.0"), None);
        assert_eq!((is_among(53, "50:60"), is_among(53, "54")), (Some(true), Some(false)));
        assert_eq!((is_protocol(17, "udp"), is_protocol(47, "gre")), (Some(true), None));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([\\[\\]:0-9 A-Z\n\"-]|-A |-j ){0,200}") {
            let mut saved = Saved::default();
            saved.add("filter", &text);
            let _ = (saved.counters().count(), saved.suspects(Hook::Input, &matcher(53)).len());
        }
    }
}
