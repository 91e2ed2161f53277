//! The text of rules, as `nft` prints it.

use std::collections::HashMap;

use super::{
    programs::{Missing, Runner},
    rules::Table,
};

const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];
/// Chains with more rules are not listed: of so many, `nft` takes a fifth of a second.
const MOST_RULES: usize = 10_000;
/// Chains are forgotten when there are more.
const MOST_CHAINS: usize = 256;

/// A chain of a namespace.
type Key = (u32, Table, Vec<u8>);

/// Texts of rules, kept until the ruleset changes.
#[derive(Debug, Default)]
pub struct Texts {
    known: HashMap<Key, (u32, HashMap<u64, String>)>,
    runner: Runner,
}

impl Texts {
    /// The text of a rule in a chain of so many rules; the thread is in the chain's namespace.
    ///
    /// # Errors
    /// Why there is none.
    pub fn of(
        &mut self,
        netns: u32,
        generation: u32,
        (table, chain): (&Table, &[u8]),
        size: usize,
        handle: u64,
    ) -> Result<String, Missing> {
        let key = (netns, table.clone(), chain.to_vec());
        let is_known = self.known.get(&key).is_some_and(|(then, _)| *then == generation);
        if !is_known {
            let listed = self.list(table, chain, size)?;
            if self.known.len() >= MOST_CHAINS {
                self.known.clear();
            }
            self.known.insert(key.clone(), (generation, lines(&listed)));
        }
        self.known[&key].1.get(&handle).cloned().ok_or(Missing::Output)
    }

    /// Notes that a change of ours, which concerns no chain that is known, has made a ruleset another one.
    pub fn carry(&mut self, netns: u32, before: u32, after: u32) {
        let of_it = self.known.iter_mut().filter(|((of, ..), (then, _))| *of == netns && *then == before);
        of_it.for_each(|(_, (then, _))| *then = after);
    }

    /// Forgets namespaces that have gone.
    pub fn keep(&mut self, is_there: &dyn Fn(u32) -> bool) {
        self.known.retain(|(netns, ..), _| is_there(*netns));
    }

    /// What `nft` prints of a chain, with handles and without counters.
    fn list(&mut self, table: &Table, chain: &[u8], size: usize) -> Result<String, Missing> {
        let (name, chain) = (str::from_utf8(&table.name), str::from_utf8(chain));
        let (Ok(name), Ok(chain), ..=MOST_RULES) = (name, chain, size) else { return Err(Missing::Output) };
        self.runner.run(&PROGRAMS, &["-s", "-a", "list", "chain", table.family.name(), name, chain])
    }
}

/// The rules in a listing, by their handles.
fn lines(listing: &str) -> HashMap<u64, String> {
    let (mut rules, mut rule) = (HashMap::new(), String::new());
    for line in listing.lines().map(str::trim) {
        if !rule.is_empty() {
            rule.push(' ');
        }
        rule.push_str(line);
        if line.starts_with("table ") || line.starts_with("chain ") {
            rule.clear();
        } else if let Some((text, handle)) = rule.rsplit_once(" # handle ") {
            if let Ok(handle) = handle.parse() {
                rules.insert(handle, text.to_owned());
            }
            rule.clear();
        } else if is_closed(&rule) {
            rule.clear();
        }
    }
    rules
}

/// Whether every brace outside of quotes is closed: the elements of a set continue on the next line.
fn is_closed(text: &str) -> bool {
    let outside = text.split('"').step_by(2);
    let depth =
        |part: &str| part.matches('{').count().cast_signed() - part.matches('}').count().cast_signed();
    outside.map(depth).sum::<isize>() <= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_their_handles() {
        let listing = "table inet filter {\n\tchain media { # handle 4\n\t\tcomment \"a chain {\"\n\
                       \t\ttype filter hook input priority filter; policy drop;\n\
                       \t\tmeta length > 1000 counter drop comment \"no # handle 7\" # handle 21\n\
                       \t\tip saddr { 10.0.0.1, 10.0.0.2,\n\t\t\t     10.0.0.3 } drop # handle 22\n\t}\n}\n";
        let rules = lines(listing);
        assert_eq!(rules.len(), 2, "{rules:?}");
        assert_eq!(rules[&21], "meta length > 1000 counter drop comment \"no # handle 7\"");
        assert_eq!(rules[&22], "ip saddr { 10.0.0.1, 10.0.0.2, 10.0.0.3 } drop");
    }

    proptest::proptest! {
        #[test]
        fn no_listing_makes_it_panic(listing in "[a-z{}\"# \n0-9handle]{0,200}") {
            let _ = lines(&listing);
        }
    }
}
