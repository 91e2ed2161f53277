//! The ruleset of the namespace that this thread is in, read over netlink as far as a packet gets in it.

use std::{collections::HashMap, fs, io, sync::Arc};

use nix::sys::{socket::SockProtocol, utsname::uname};

use super::{
    decide::{Found, Ruleset},
    packet::Known,
    rules::{self, BaseChain, Rule, Table, Verdict},
};
use crate::evidence::{
    budget::Budget,
    netlink::{Netlink, writer},
};

/// Messages about rules of nftables.
pub const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 0xa;
const GET_ELEMENT: u16 = SUBSYSTEM | 0xd;
const GET_GENERATION: u16 = SUBSYSTEM | 0x10;

/// Whether the kernel has nftables at work. A request would load the module where it is not.
pub fn is_there() -> bool {
    let lists =
        |file: &str, line: &dyn Fn(&str) -> bool| Some(fs::read_to_string(file).ok()?.lines().any(line));
    let is_loaded = lists("/proc/modules", &|line| line.starts_with("nf_tables ")).unwrap_or(false);
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let file = format!("/lib/modules/{release}/modules.builtin");
    // Without such a list, nothing could be loaded.
    is_loaded || lists(&file, &|line| line.ends_with("/nf_tables.ko")).unwrap_or(true)
}

/// A chain or a set of a table.
type Named = (Table, Vec<u8>);

/// Chains with more rules are read once: a rule costs the kernel some two microseconds.
const LARGE: usize = 200;
/// Rules of a namespace that are kept from one report to the next.
const MOST_KEPT: usize = 20_000;

/// What has been read of a ruleset that has not changed since.
#[derive(Debug, Default)]
pub struct Kept {
    generation: u32,
    base_chains: Option<Vec<BaseChain>>,
    chains: HashMap<Named, Chain>,
    /// How long the keys of sets are.
    keys: HashMap<Named, Option<usize>>,
}

/// The rules of a chain.
#[derive(Clone, Debug)]
struct Chain {
    rules: Arc<[Rule]>,
    /// Whether they were read for an earlier report: their counters have moved since.
    is_old: bool,
}

impl Kept {
    /// A report begins: of small chains, counters are read again.
    pub fn age(&mut self) {
        self.chains.retain(|_, chain| chain.rules.len() > LARGE);
        if self.chains.values().map(|chain| chain.rules.len()).sum::<usize>() > MOST_KEPT {
            self.chains.clear();
        }
        for chain in self.chains.values_mut() {
            chain.is_old = true;
        }
    }
}

/// The ruleset as the kernel has it now.
pub struct Live {
    netlink: Netlink,
    budget: Budget,
    kept: Kept,
    /// The chains that were read now.
    read: Vec<Named>,
    /// Whether the time was up before all was read.
    is_cut: bool,
}

impl Live {
    /// Of the namespace that this thread is in.
    ///
    /// # Errors
    /// The kernel refuses, or has no netfilter.
    pub fn open(budget: Budget) -> io::Result<Self> {
        let netlink = Netlink::open(SockProtocol::NetlinkNetFilter)?;
        Ok(Self { netlink, budget, kept: Kept::default(), read: Vec::new(), is_cut: false })
    }

    /// The same, with what is known of the ruleset if it has this generation.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn with(kept: Option<Kept>, generation: u32, budget: Budget) -> io::Result<Self> {
        let kept = kept.filter(|kept| kept.generation == generation);
        let kept = kept.unwrap_or_else(|| Kept { generation, ..Kept::default() });
        Ok(Self { kept, ..Self::open(budget)? })
    }

    /// What is known of the ruleset now.
    pub fn into_kept(self) -> Kept {
        self.kept
    }

    /// A number that changes with every change of the ruleset.
    ///
    /// # Errors
    /// The kernel has no nftables, or the privilege is missing.
    pub fn generation(&self) -> io::Result<u32> {
        let answer = self.netlink.ask(GET_GENERATION, &[0; rules::HEADER])?;
        rules::number(&answer, rules::HEADER, 1).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// The chains that packets enter from hooks, in the order in which they pass them.
    ///
    /// # Errors
    /// There is no time, or the ruleset changes all the while.
    pub fn base_chains(&mut self) -> io::Result<&[BaseChain]> {
        let chains = match self.kept.base_chains.take() {
            Some(known) => known,
            None => self.read_base_chains()?,
        };
        Ok(self.kept.base_chains.insert(chains))
    }

    fn read_base_chains(&self) -> io::Result<Vec<BaseChain>> {
        let tables = self.dump(GET_TABLE, &[0; rules::HEADER])?;
        let tables: Vec<_> = tables.iter().filter_map(|table| rules::a_table(table)).collect();
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let chains = self.dump(GET_CHAIN, &[0; rules::HEADER])?;
        let mut chains: Vec<_> = chains.iter().filter_map(|chain| rules::base_chain(chain)).collect();
        chains.retain(|chain| tables.iter().any(|(table, dormant)| *table == chain.table && !dormant));
        chains.sort_by_key(|chain| chain.priority);
        Ok(chains)
    }

    /// All rules of all tables.
    ///
    /// # Errors
    /// There is no time, or the ruleset changes all the while.
    pub fn all_rules(&self) -> io::Result<Vec<(Table, Rule)>> {
        let rules = self.dump(GET_RULE, &[0; rules::HEADER])?;
        let one = |rule: &Vec<u8>| Some((rules::chain_of_rule(rule)?.0, rules::rule(rule)?));
        Ok(rules.iter().filter_map(one).collect())
    }

    /// The rules that were read now.
    pub fn seen(&self) -> impl Iterator<Item = (&Table, &Rule)> {
        let chains = self.read.iter().filter_map(|named| Some((&named.0, self.kept.chains.get(named)?)));
        chains.flat_map(|(table, chain)| chain.rules.iter().map(move |rule| (table, rule)))
    }

    /// How many rules a chain has that is known.
    pub fn size(&self, table: &Table, chain: &[u8]) -> usize {
        let chain = self.kept.chains.get(&(table.clone(), chain.to_vec()));
        chain.map_or(0, |chain| chain.rules.len())
    }

    /// Whether a chain's rules were read for an earlier report.
    pub fn is_old(&self, table: &Table, chain: &[u8]) -> bool {
        self.kept.chains.get(&(table.clone(), chain.to_vec())).is_some_and(|chain| chain.is_old)
    }

    /// A rule as it is now, if there is time.
    pub fn rule(&self, table: &Table, chain: &[u8], handle: u64) -> Option<Rule> {
        const HANDLE: u16 = 3;
        if self.is_cut {
            return None;
        }
        let handle = writer::attribute(HANDLE, &handle.to_be_bytes());
        rules::rule(&self.netlink.ask(GET_RULE, &request(table, &[name(2, chain), handle])).ok()?)
    }

    /// Whether the time was up before all was read.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn dump(&self, kind: u16, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.netlink.dump_within(kind, request, self.budget)
    }

    fn dump_or_end(&mut self, kind: u16, request: &[u8]) -> Option<Vec<Vec<u8>>> {
        if self.is_cut {
            return None;
        }
        let dumped = self.dump(kind, request);
        self.is_cut = matches!(&dumped, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        dumped.ok()
    }

    /// The rules in messages, if there is time for them.
    fn parse(&mut self, messages: &[Vec<u8>]) -> Option<Arc<[Rule]>> {
        const AT_ONCE: usize = 64;
        let mut parsed = Vec::with_capacity(messages.len());
        for some in messages.chunks(AT_ONCE) {
            parsed.extend(some.iter().filter_map(|rule| rules::rule(rule)));
            if self.budget.is_spent() {
                self.is_cut = true;
                return None;
            }
        }
        Some(parsed.into())
    }

    fn key_length(&mut self, table: &Table, set: &[u8]) -> Option<usize> {
        const LENGTH: u16 = 5;
        let key = (table.clone(), set.to_vec());
        if let Some(known) = self.kept.keys.get(&key) {
            return *known;
        }
        let asked = self.netlink.ask(GET_SET, &request(table, &[name(2, set)]));
        let length = asked.ok().and_then(|set| rules::number(&set, rules::HEADER, LENGTH));
        let length = length.and_then(|length| usize::try_from(length).ok());
        self.kept.keys.insert(key, length);
        length
    }

    /// The element that a set has for a key, or for all keys without one.
    fn element(&self, table: &Table, set: &[u8], which: Vec<u8>) -> Found {
        let list = writer::nested(3, &[writer::nested(1, &[which])]);
        match self.netlink.ask(GET_ELEMENT, &request(table, &[name(2, set), list])) {
            Ok(answer) => match rules::elements(&answer).pop() {
                Some(element) if !element.is_end => Found::Yes(element.verdict),
                Some(_) => Found::No,
                None => Found::Unknown,
            },
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Found::No,
            Err(_) => Found::Unknown,
        }
    }
}

impl Ruleset for Live {
    fn rules(&mut self, table: &Table, chain: &[u8]) -> Option<Arc<[Rule]>> {
        let key = (table.clone(), chain.to_vec());
        if let Some(known) = self.kept.chains.get(&key) {
            return Some(Arc::clone(&known.rules));
        }
        let read = self.dump_or_end(GET_RULE, &request(table, &[name(2, chain)]))?;
        let rules = self.parse(&read)?;
        self.read.push(key.clone());
        self.kept.chains.insert(key, Chain { rules: Arc::clone(&rules), is_old: false });
        Some(rules)
    }

    fn find(&mut self, table: &Table, set: &[u8], key: &[Known]) -> Found {
        const KEY: u16 = 1;
        const FLAGS: u16 = 3;
        const ALL_KEYS: u32 = 2;
        let Some(length) = self.key_length(table, set).filter(|_| !self.is_cut) else {
            return Found::Unknown;
        };
        let known: Option<Vec<u8>> = key.get(..length).and_then(|key| key.iter().copied().collect());
        let Some(known) = known else { return Found::Unknown };
        let key = writer::nested(KEY, &[writer::attribute(1, &known)]);
        match self.element(table, set, key) {
            // Kernels without such elements refuse the question.
            Found::No => match self.element(table, set, writer::attribute(FLAGS, &ALL_KEYS.to_be_bytes())) {
                found @ Found::Yes(_) => found,
                _ => Found::No,
            },
            found => found,
        }
    }

    fn verdicts(&mut self, table: &Table, map: &[u8]) -> Option<Vec<Verdict>> {
        let read = self.dump_or_end(GET_ELEMENT, &request(table, &[name(2, map)]))?;
        let elements = read.iter().flat_map(|answer| rules::elements(answer));
        Some(elements.filter_map(|element| element.verdict).collect())
    }
}

/// A request about something in a table.
fn request(table: &Table, parts: &[Vec<u8>]) -> Vec<u8> {
    let header = vec![table.family as u8, 0, 0, 0];
    [header, name(1, &table.name), parts.concat()].concat()
}

/// A name, with its zero.
fn name(kind: u16, name: &[u8]) -> Vec<u8> {
    writer::attribute(kind, &[name, b"\0"].concat())
}
