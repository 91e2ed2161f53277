use std::collections::HashMap;

use super::*;
use crate::evidence::objects::{
    Question,
    netfilter::hook::{Family, Hook},
};

/// A key, and the verdict it leads to.
type Element = (Vec<u8>, Option<Verdict>);

/// A ruleset in memory.
#[derive(Default)]
struct Rules {
    chains: HashMap<&'static str, Vec<Rule>>,
    sets: HashMap<&'static str, Vec<Element>>,
    unreadable: Option<&'static str>,
}

impl Ruleset for Rules {
    fn rules(&mut self, _: &Table, chain: &[u8]) -> Option<Arc<[Rule]>> {
        let chain = str::from_utf8(chain).expect("text");
        (self.unreadable != Some(chain)).then(|| self.chains.get(chain).cloned().unwrap_or_default().into())
    }

    fn find(&mut self, _: &Table, set: &[u8], key: &[Known]) -> Found {
        let elements = &self.sets[str::from_utf8(set).expect("text")];
        let length = elements[0].0.len();
        let Some(key) = key[..length].iter().copied().collect::<Option<Vec<_>>>() else {
            return Found::Unknown;
        };
        let element = elements.iter().find(|(known, _)| *known == key);
        element.map_or(Found::No, |(_, verdict)| Found::Yes(verdict.clone()))
    }

    fn verdicts(&mut self, _: &Table, map: &[u8]) -> Option<Vec<Verdict>> {
        let elements = &self.sets[str::from_utf8(map).expect("text")];
        Some(elements.iter().filter_map(|(_, verdict)| verdict.clone()).collect())
    }
}

fn rule(handle: u64, expressions: &[Expression]) -> Rule {
    Rule { handle, expressions: expressions.to_vec(), comment: None }
}

fn dport(port: u16) -> [Expression; 2] {
    [load_dport(), Expression::Compare { from: 0, how: 0, data: port.to_be_bytes().into() }]
}

fn load_dport() -> Expression {
    Expression::Payload { base: 2, offset: 2, length: 2, to: 0 }
}

/// `meta length LOW-HIGH`
fn length(low: u32, high: u32) -> [Expression; 4] {
    [
        Expression::Meta { key: 0, to: 0 },
        Expression::Swap { from: 0, to: 0, length: 4, word: 4 },
        Expression::Compare { from: 0, how: 5, data: low.to_be_bytes().into() },
        Expression::Compare { from: 0, how: 3, data: high.to_be_bytes().into() },
    ]
}

/// `ct state invalid`
fn invalid() -> [Expression; 3] {
    [
        Expression::Opaque,
        Expression::Mask { from: 0, to: 0, mask: vec![1, 0, 0, 0], flip: vec![0; 4] },
        Expression::Compare { from: 0, how: 1, data: vec![0; 4] },
    ]
}

const DROP: Expression = Expression::Verdict(Verdict::Drop);
const ACCEPT: Expression = Expression::Verdict(Verdict::Accept);

fn jump(chain: &str) -> Expression {
    Expression::Verdict(Verdict::Jump(chain.into()))
}

fn count(packets: u64) -> Expression {
    Expression::Counter { packets }
}

fn packet() -> Packet {
    let question = Question {
        protocol: Some(0x0800),
        ipproto: Some(17),
        saddr: Some([10, 0, 0, 1].into()),
        daddr: Some([10, 0, 0, 2].into()),
        dport: Some(6500),
        length: 328,
        ..Question::default()
    };
    Packet::of(&question, Some(Hook::Input), true)
}

fn base(name: &str, drops: bool) -> BaseChain {
    let table = Table { family: Family::Inet, name: b"filter".into() };
    let (name, devices) = (name.into(), Vec::new());
    BaseChain { table, name, hook: Hook::Input, priority: 0, devices, drops }
}

fn decided(policy_drops: bool, chains: &[(&'static str, &[Rule])]) -> Decision {
    let chains = chains.iter().map(|(name, rules)| (*name, rules.to_vec())).collect();
    let mut rules = Rules { chains, ..Rules::default() };
    decide(&[base("input", policy_drops)], &packet(), &mut rules)
}

/// The handles of those that may have dropped it, with whether they surely did; zero is a policy.
fn handles(decision: &Decision) -> Vec<(u64, bool)> {
    let handle = |candidate: &Candidate| match &candidate.ending {
        Ending::Policy => 0,
        Ending::Drop(named) | Ending::Reject(named, _) | Ending::Queue(named) => named.handle,
    };
    decision.candidates.iter().map(|candidate| (handle(candidate), candidate.is_sure)).collect()
}

#[test]
fn of_two_rules_that_differ_in_one_match_three_jumps_deep_the_right_one_is_found() {
    let jumbo = rule(8, &[&length(1000, 9000)[..], &[count(5), DROP]].concat());
    let media = rule(9, &[&length(300, 400)[..], &[count(60), DROP]].concat());
    let to = |handle, chain| rule(handle, &[jump(chain)]);
    let decision = decided(
        false,
        &[
            ("input", &[rule(20, &[&dport(6500)[..], &[jump("services")]].concat())]),
            ("services", &[to(17, "tenants")]),
            ("tenants", &[to(13, "media")]),
            ("media", &[jumbo, media]),
        ],
    );
    assert_eq!(handles(&decision), [(9, true)]);
    let [candidate] = &decision.candidates[..] else { unreachable!() };
    assert_eq!(candidate.path, [&b"input"[..], b"services", b"tenants", b"media"]);
    assert_eq!(candidate.counter, Some(Counter { packets: 60, is_behind: true }));
    assert!(!decision.is_partial);
}

#[test]
fn what_is_not_known_rules_nothing_out() {
    let invalid = rule(3, &[&invalid()[..], &[DROP]].concat());
    let other = rule(4, &[&dport(53)[..], &[DROP]].concat());
    let strange = rule(5, &[Expression::Strange]);
    let decision = decided(true, &[("input", &[invalid.clone(), other, strange])]);
    assert_eq!(handles(&decision), [(3, false), (0, false)]);
    assert!(decision.is_partial, "what is not known may drop");
    assert_eq!(handles(&decided(false, &[("input", &[invalid])])), [(3, false)]);
}

#[test]
fn a_packet_that_is_surely_accepted_is_not_dropped_behind_that() {
    let accept = rule(3, &[&dport(6500)[..], &[ACCEPT]].concat());
    let drop = rule(4, &[DROP]);
    assert_eq!(handles(&decided(true, &[("input", &[accept, drop.clone()])])), []);
    let maybe = rule(3, &[&invalid()[..], &[ACCEPT]].concat());
    assert_eq!(handles(&decided(true, &[("input", &[maybe, drop])])), [(4, false)]);
}

#[test]
fn a_policy_drops_what_no_rule_accepts() {
    let other = rule(3, &[&dport(53)[..], &[ACCEPT]].concat());
    assert_eq!(handles(&decided(true, &[("input", &[other])])), [(0, true)]);
}

#[test]
fn a_goto_does_not_come_back_and_a_return_does() {
    let goto = rule(3, &[Expression::Verdict(Verdict::Goto("other".into()))]);
    let back = rule(5, &[Expression::Verdict(Verdict::Return)]);
    let (inner, after) = (rule(6, &[DROP]), rule(4, &[DROP]));
    let chains = [("input", &[goto, after.clone()][..]), ("other", &[back.clone(), inner.clone()])];
    assert_eq!(handles(&decided(false, &chains)), []);
    let chains = [("input", &[rule(3, &[jump("other")]), after][..]), ("other", &[back, inner])];
    assert_eq!(handles(&decided(false, &chains)), [(4, true)]);
}

#[test]
fn the_first_of_two_hooks_chains_that_drops_is_it() {
    let mut rules = Rules::default();
    rules.chains.insert("first", vec![rule(3, &[DROP])]);
    rules.chains.insert("second", vec![rule(4, &[DROP])]);
    let chains = [base("first", false), base("second", true)];
    assert_eq!(handles(&decide(&chains, &packet(), &mut rules)), [(3, true)]);
    rules.chains.insert("first", vec![rule(3, &[ACCEPT])]);
    assert_eq!(handles(&decide(&chains, &packet(), &mut rules)), [(4, true)]);
    let maybe = rule(3, &[&invalid()[..], &[DROP]].concat());
    rules.chains.insert("first", vec![maybe, rule(5, &[DROP])]);
    assert_eq!(handles(&decide(&chains, &packet(), &mut rules)), [(3, false), (5, false)]);
}

#[test]
fn maps_and_sets_are_looked_up_by_what_is_known() {
    let lookup = |set: &str, to, is_inverse| Expression::Lookup { set: set.into(), from: 0, to, is_inverse };
    let map = rule(3, &[load_dport(), lookup("map", Target::Verdict, false)]);
    let key = |port: u16| port.to_be_bytes().to_vec();
    let in_map = |elements: Vec<Element>, rules: &[Rule]| {
        let mut ruleset = Rules::default();
        ruleset.sets.insert("map", elements);
        ruleset.chains.insert("input", rules.to_vec());
        handles(&decide(&[base("input", false)], &packet(), &mut ruleset))
    };
    let both = |wanted| vec![(key(22), Some(Verdict::Accept)), (key(wanted), Some(Verdict::Drop))];
    assert_eq!(in_map(both(6500), std::slice::from_ref(&map)), [(3, true)]);
    assert_eq!(in_map(both(80), &[map]), []);
    let unknown = rule(3, &[Expression::Opaque, lookup("map", Target::Verdict, false)]);
    assert_eq!(in_map(both(80), &[unknown]), [(3, false)]);
    let inverse = rule(3, &[load_dport(), lookup("map", Target::Nowhere, true), DROP]);
    assert_eq!(in_map(vec![(key(53), None)], std::slice::from_ref(&inverse)), [(3, true)]);
    assert_eq!(in_map(vec![(key(6500), None)], &[inverse]), []);
}

#[test]
fn a_chain_that_cannot_be_read_may_do_anything() {
    let mut rules = Rules { unreadable: Some("other"), ..Rules::default() };
    rules.chains.insert("input", vec![rule(3, &[jump("other")]), rule(4, &[DROP])]);
    let decision = decide(&[base("input", false)], &packet(), &mut rules);
    assert_eq!((handles(&decision), decision.is_partial), (vec![(4, false)], true));
}

#[test]
fn chains_that_jump_in_a_circle_end() {
    let decision = decided(true, &[("input", &[rule(3, &[jump("input")])])]);
    assert!(decision.is_partial);
}

/// The owner of a namespace can make more ways through its chains than can be walked. None of these reaches the end of a chain.
#[test]
fn ways_through_chains_are_walked_for_a_while() {
    const NAMES: [&str; 12] = ["input", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let back = rule(9, &[Expression::Verdict(Verdict::Return)]);
    let mut rules = Rules::default();
    for pair in NAMES.windows(2) {
        let mut chain = vec![rule(3, &[jump(pair[1])]); 50];
        chain.push(back.clone());
        rules.chains.insert(pair[0], chain);
    }
    rules.chains.insert("l", vec![back]);
    let decision = decide(&[base("input", true)], &packet(), &mut rules);
    assert!(decision.is_partial);
    assert_eq!(decision.candidates.len(), 1, "the policy, which a packet may come to");
    assert!(!decision.candidates[0].is_sure);
}

#[test]
fn a_counter_before_the_last_match_counts_more_than_the_rule() {
    let before = rule(3, &[&[count(7)], &dport(6500)[..], &[DROP]].concat());
    let decision = decided(false, &[("input", &[before])]);
    assert_eq!(decision.candidates[0].counter, Some(Counter { packets: 7, is_behind: false }));
}

#[test]
fn bytes_compare_as_far_as_they_are_known() {
    let bytes = [Some(10), None, Some(3)];
    assert_eq!(compared(&bytes, 0, &[10, 0, 4]), Some(false));
    assert_eq!(compared(&bytes, 1, &[10, 0, 4]), Some(true));
    assert_eq!(compared(&bytes, 0, &[10, 0, 3]), None);
    assert_eq!(compared(&bytes, 0, &[10]), Some(true));
    assert_eq!(compared(&bytes, 2, &[11, 0, 0]), Some(true));
    assert_eq!(compared(&bytes, 4, &[10, 0, 0]), None);
}
