//! Commands of the knowledge, with what a row says in the place of words in braces, ready to be copied into a shell.
//!
//! Names of interfaces and namespaces are strangers': they are quoted, and left out where that does not help.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    escape::is_unsafe,
    model::{
        foreign::Foreign,
        keys::Key,
        report::{Netns, Row, Value},
    },
};

/// How commands of the network namespace of a row begin that are run in another one.
const OF_A_NAMESPACE: [&str; 19] = [
    "arping ",
    "bpftool net ",
    "bridge ",
    "cat /proc/net/",
    "conntrack ",
    "ethtool ",
    "ip ",
    "iptables-legacy-save",
    "iptables-save",
    "ipvsadm ",
    "iw ",
    "nft ",
    "nstat ",
    "ss ",
    "sysctl net.",
    "tc ",
    "tracepath ",
    "wg",
    "cat /proc/sys/net/",
];

/// How a command is run in a network namespace: the words before its own; none if that is not known.
pub type Enter = fn(&Netns) -> Option<Vec<String>>;

/// What a row says that commands are about.
#[derive(Debug, Default)]
pub struct Facts {
    /// By the words in braces.
    known: Vec<(&'static str, String)>,
    /// The words before commands of its namespace; none if that is not known.
    inside: Option<Vec<String>>,
}

impl Facts {
    /// What these values say.
    #[must_use]
    pub fn new(by: &[Key], row: &Row, enter: Enter) -> Self {
        let mut facts = Self::default();
        // What the row says comes first: its sample is one of its drops.
        let sampled = row.sampled.iter().map(|(key, value)| (key, value));
        for (key, value) in by.iter().zip(&row.values).chain(sampled) {
            if facts.known.iter().any(|(known, _)| *known == key.word()) {
                continue;
            }
            let text = match value {
                Value::Iface(Some(iface)) => iface.name.as_ref().and_then(argument),
                Value::Address(Some(address)) => Some(address.to_string()),
                Value::Port(Some(port)) => Some(port.to_string()),
                _ => None,
            };
            facts.known.extend(text.map(|text| (key.word(), text)));
            let netns = match value {
                Value::Netns(Some(netns)) => Some(netns),
                value => value.interface_namespace(),
            };
            facts.inside = facts.inside.or_else(|| netns.and_then(enter));
        }
        facts
    }

    /// The command. What is not known is a word in capitals, and is added to `missing`, as is the namespace.
    #[must_use]
    pub fn command(&self, run: &str, missing: &mut BTreeSet<String>) -> String {
        let mut prefix = String::new();
        if OF_A_NAMESPACE.iter().any(|start| run.starts_with(start)) {
            match &self.inside {
                Some(words) => prefix.extend(words.iter().flat_map(|word| [quoted(word), " ".into()])),
                None => _ = missing.insert(Key::Netns.word().to_owned()),
            }
        }
        let mut is_quoted = false;
        let filled = replaced(run, |before, name| {
            is_quoted ^= before.matches(['\'', '"']).count() % 2 == 1;
            let value = self.value(run, name).filter(|value| !is_quoted || is_plain(value));
            let word = value.as_deref().map(|value| quoted(value).into_owned());
            word.unwrap_or_else(|| {
                missing.insert(name.to_owned());
                name.to_uppercase()
            })
        });
        prefix + &filled
    }

    /// A sentence with what is known, to be read.
    #[must_use]
    pub fn sentence(&self, text: &str) -> String {
        let word = |name: &str| self.value("", name).map_or_else(|| name.to_uppercase(), Cow::into_owned);
        replaced(text, |_, name| word(name))
    }

    fn value(&self, run: &str, name: &str) -> Option<Cow<'_, str>> {
        let (_, value) = self.known.iter().find(|(key, _)| *key == name)?;
        // Dots separate there; one of a name is written as a slash.
        let is_sysctl = run.starts_with("sysctl ");
        Some(if is_sysctl { value.replace('.', "/").into() } else { value.into() })
    }
}

/// The text with other words for those in braces; `word` is also given what comes before them.
fn replaced(text: &str, mut word: impl FnMut(&str, &str) -> String) -> String {
    let (mut replaced, mut rest) = (String::new(), text);
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        replaced += before;
        replaced += &word(before, name);
        rest = after;
    }
    replaced + rest
}

/// A name that can be an argument: text, nothing that a terminal obeys, and no option.
fn argument(name: &Foreign) -> Option<String> {
    let text = str::from_utf8(name.bytes()).ok()?;
    (!text.contains(is_unsafe) && !text.starts_with('-')).then(|| text.to_owned())
}

/// Whether a shell takes it as it is, inside quotes as well.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_/".contains(&byte))
}

fn quoted(text: &str) -> Cow<'_, str> {
    shlex::try_quote(text).unwrap_or(Cow::Borrowed("''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        escape::tests::hostile,
        knowledge::ENTRIES,
        model::{namespace::Namespace, report::Iface},
    };

    const BY: [Key; 3] = [Key::Iface, Key::Daddr, Key::Dport];

    fn enter(netns: &Netns) -> Option<Vec<String>> {
        let name = netns.name.as_ref()?;
        Some(["ip", "netns", "exec"].into_iter().map(Into::into).chain([name.text().into_owned()]).collect())
    }

    fn row(iface: &[u8], netns: Option<&[u8]>) -> Facts {
        let namespace = Namespace { inum: 7, cookie: 7 };
        let netns = netns.map(|name| Netns { namespace, name: Some(name.into()), names: Vec::new() });
        let iface = Iface { index: 2, name: Some(iface.into()), altnames: Vec::new(), netns };
        let address = "10.0.0.2".parse().ok();
        let values = vec![Value::Iface(Some(iface)), Value::Address(address), Value::Port(Some(53))];
        Facts::new(&BY, &Row { values, ..crate::render::tests::row(1, []) }, enter)
    }

    fn command(facts: &Facts, run: &str) -> (String, Vec<String>) {
        let mut missing = BTreeSet::new();
        (facts.command(run, &mut missing), missing.into_iter().collect())
    }

    #[test]
    fn what_a_row_says_is_filled_in_and_the_rest_is_in_capitals() {
        let facts = row(b"eth0", Some(b"blue"));
        let whole = |text: &str| (text.to_owned(), Vec::new());
        assert_eq!(
            command(&facts, "ss -lnup 'sport = :{dport}'"),
            whole("ip netns exec blue ss -lnup 'sport = :53'")
        );
        assert_eq!(
            command(&facts, "dropwatch trace -f 'udp port {dport}'"),
            whole("dropwatch trace -f 'udp port 53'")
        );
        assert_eq!(
            command(&facts, "ip route get {daddr} from {saddr} iif {iface}"),
            ("ip netns exec blue ip route get 10.0.0.2 from SADDR iif eth0".into(), vec!["saddr".into()])
        );
        let missing = vec!["iface".into(), "netns".into()];
        assert_eq!(
            command(&Facts::default(), "tc -s qdisc show dev {iface}"),
            ("tc -s qdisc show dev IFACE".into(), missing)
        );
    }

    #[test]
    fn names_of_strangers_are_quoted_or_left_out() {
        let run = "ip link show dev {iface}";
        let filled = |name: &[u8]| command(&row(name, None), run).0;
        assert_eq!(filled(b"a;reboot"), "ip link show dev 'a;reboot'");
        assert_eq!(filled(b"-all"), "ip link show dev IFACE");
        assert_eq!(filled(b"\xff"), "ip link show dev IFACE");
        assert_eq!(filled(b"\x1b[2J"), "ip link show dev IFACE");
        let facts = row(b"eth0.100", Some(b"it's"));
        let sysctl = "sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.{iface}.rp_filter";
        let expected =
            r#"ip netns exec "it's" sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.eth0/100.rp_filter"#;
        assert_eq!(command(&facts, sysctl).0, expected);
        assert_eq!(command(&row(b"$(id)", None), "echo '{iface}'").0, "echo 'IFACE'");
    }

    proptest! {
        /// Whatever an interface and its namespace are called, a shell reads as many words, and the names whole.
        #[test]
        fn a_shell_reads_every_command_of_the_knowledge_as_it_is_meant(iface in hostile(), netns in hostile()) {
            let (plain, strange) = (row(b"eth0", Some(b"blue")), row(&iface, Some(&netns)));
            for run in ENTRIES.iter().flat_map(|entry| entry.check).map(|check| check.run) {
                let words = |facts: &Facts| shlex::split(&command(facts, run).0);
                let (plain, strange) = (words(&plain).expect("words"), words(&strange).expect("words"));
                prop_assert_eq!(plain.len(), strange.len(), "{:?}", strange);
                for (plain, strange) in plain.iter().zip(&strange) {
                    prop_assert!(plain == strange || ["eth0", "blue"].iter().any(|name| plain.contains(name)));
                }
            }
        }
    }
}
