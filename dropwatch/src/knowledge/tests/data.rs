//! What the texts must keep to, so that what they say can be typed and is true.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    fakes::AnyNamespace,
    filter::Filter,
    knowledge::{ENTRIES, Entry, Query, knows_reason, lookup},
};

/// Lines of `NAME: WORD WORD …`; comments begin with `#`.
fn lists(text: &'static str) -> BTreeMap<&'static str, Vec<&'static str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, words)| (name, words.split(' ').collect()))
        .collect()
}

/// Every reason of every kernel that we have seen, of the core and of subsystems.
#[test]
fn every_reason_of_every_kernel_has_an_entry() {
    let kernels = lists(include_str!("reasons.txt"));
    assert_eq!(kernels.len(), 13);
    for (kernel, reasons) in kernels {
        for reason in reasons {
            assert!(knows_reason(reason), "{reason} of {kernel}");
            let anywhere = lookup(Query { reason: Some(reason), ..Query::default() });
            assert!(anywhere.is_some(), "{reason} of {kernel} has an entry for some functions only");
        }
    }
}

/// And no reason that no kernel has: a mistyped name would never be found.
#[test]
fn every_reason_is_one_of_some_kernel() {
    let kernels = lists(include_str!("reasons.txt"));
    let known: BTreeSet<_> = kernels.values().flatten().copied().collect();
    // Of mac80211: values that are no reasons, and names that only its newest versions have.
    let others = [
        "RX_CONTINUE",
        "RX_QUEUED",
        "RX_DROP_U_UNEXPECTED_4ADDR_FRAME",
        "RX_DROP_U_BAD_BCN_KEYIDX",
        "RX_DROP_U_BAD_MGMT_KEYIDX",
    ];
    for reason in ENTRIES.iter().flat_map(|entry| entry.reasons) {
        assert!(known.contains(reason) || others.contains(reason), "{reason}");
    }
}

/// The functions that free without a reason, or with one that misleads, are known.
#[test]
fn functions_that_give_no_reason_have_an_entry() {
    let functions = [
        "ip_rcv_finish_core",
        "ip_error",
        "ip_forward",
        "dst_discard",
        "dst_discard_out",
        "ip6_pkt_discard",
        "ip6_mc_input",
        "icmp_rcv",
        "ping_rcv",
        "do_xdp_generic",
        "veth_xdp_rcv_skb",
        "br_handle_frame_finish",
        "__dev_forward_skb2",
        "nf_hook_slow",
        "nft_do_chain",
        "tcp_v4_rcv",
        "tcp_v6_rcv",
        "sk_stream_kill_queues",
        "skb_queue_purge_reason",
        "skb_release_data",
        "unix_stream_connect",
        "unix_dgram_sendmsg",
        "neigh_invalidate",
        "neigh_resolve_output",
        "net_tx_action",
        "kfree_skb_list",
        "kfree_skb_list_reason",
        "vxlan_xmit_one",
        "gre_rcv",
        "tun_net_xmit",
        "tun_queue_purge",
        "packet_rcv",
        "tpacket_rcv",
        "xfrm_input",
        "xfrm_output",
        "__rtnl_unlock",
    ];
    for function in functions {
        let found = lookup(Query { reason: Some("NOT_SPECIFIED"), function: Some(function), module: None });
        assert!(found.is_some_and(|entry| !entry.functions.is_empty()), "{function}");
    }
}

/// The same reason in the same function of the same module has one meaning.
#[test]
fn no_two_entries_are_about_the_same() {
    let mut seen = BTreeMap::new();
    for entry in ENTRIES {
        for reason in if entry.reasons.is_empty() { &[""] } else { entry.reasons } {
            for function in if entry.functions.is_empty() { &[""] } else { entry.functions } {
                let before = seen.insert((*reason, *function, entry.module), entry.title);
                assert_eq!(before, None, "{reason} {function}");
            }
        }
    }
}

/// A pattern is a name or the start of one, and no entry is about everything.
#[test]
fn patterns_are_names_or_their_start() {
    for entry in ENTRIES {
        assert!(!entry.reasons.is_empty() || !entry.functions.is_empty(), "{entry:?}");
        assert!(entry.module.is_none() || !entry.functions.is_empty(), "{entry:?}");
        for pattern in entry.functions {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            assert!(is_name && name.len() >= 3, "{pattern}");
        }
    }
}

/// All words of an entry that people read.
fn words(entry: &Entry) -> impl Iterator<Item = &'static str> {
    let checks = entry.check.iter().flat_map(|check| [check.run, check.shows]);
    let whens = entry.when.iter().map(|when| when.because);
    [entry.title, entry.meaning].into_iter().chain(entry.causes.iter().copied()).chain(checks).chain(whens)
}

/// Titles fit a column, meanings are sentences, and nothing is left empty or has characters that a terminal lacks.
#[test]
fn texts_are_fit_to_print() {
    for entry in ENTRIES {
        let name = entry.name();
        assert!(entry.title.len() <= 90 && !entry.title.ends_with('.'), "{name}: {}", entry.title);
        assert!(entry.meaning.ends_with(['.', ')']), "{name}: {}", entry.meaning);
        assert!(entry.meaning.len() <= 450, "{name}: {} characters", entry.meaning.len());
        assert!(!entry.causes.is_empty() && !entry.check.is_empty(), "{name}");
        for text in words(entry).chain(entry.seen).chain(entry.since).chain(entry.until) {
            assert!(!text.trim().is_empty(), "{name}");
            assert!(
                text.bytes().all(|byte| (b' '..=b'~').contains(&byte) || text.contains('…')),
                "{name}: {text}"
            );
        }
        for cause in entry.causes {
            assert!(!cause.ends_with('.'), "{name}: {cause}");
        }
    }
}

/// Where the packet decides, it decides otherwise than the rest of the entry, and once.
#[test]
fn exceptions_are_exceptions() {
    for entry in ENTRIES {
        let mut destinations = BTreeSet::new();
        for when in entry.when {
            assert_ne!(when.class, entry.class, "{}", entry.name());
            assert!(destinations.insert(when.destination.name()), "{}", entry.name());
        }
    }
}

/// Commands, and the packages of Debian that have them.
const COMMANDS: &[(&str, &str)] = &[
    ("arping", "iputils-arping"),
    ("bluetoothctl", "bluez"),
    ("bpftool", "bpftool"),
    ("bridge", "iproute2"),
    ("cat", "coreutils"),
    ("conntrack", "conntrack"),
    ("dmesg", "util-linux"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iptables-legacy-save", "iptables"),
    ("iptables-save", "iptables"),
    ("ipvsadm", "ipvsadm"),
    ("iw", "iw"),
    ("journalctl", "systemd"),
    ("lsmod", "kmod"),
    ("nft", "nftables"),
    ("nstat", "iproute2"),
    ("ovs-appctl", "openvswitch-common"),
    ("ovs-ofctl", "openvswitch-common"),
    ("ss", "iproute2"),
    ("sysctl", "procps"),
    ("systemctl", "systemd"),
    ("tc", "iproute2"),
    ("tracepath", "iputils-tracepath"),
    ("wg", "wireguard-tools"),
];

/// Every command exists in Debian, or is this program.
#[test]
fn every_command_is_one_of_debian() {
    let known: BTreeSet<_> = COMMANDS.iter().map(|(command, _)| *command).collect();
    let mut used = BTreeSet::new();
    for check in ENTRIES.iter().flat_map(|entry| entry.check) {
        let command = check.run.split(' ').next().unwrap();
        assert!(known.contains(command) || command == "dropwatch", "{}", check.run);
        used.insert(command);
    }
    let unused: Vec<_> = known.difference(&used).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// Words in braces are those that a row can fill in, and quotes are closed.
#[test]
fn commands_can_be_typed() {
    let placeholders = ["{iface}", "{netns}", "{saddr}", "{daddr}", "{sport}", "{dport}"];
    for check in ENTRIES.iter().flat_map(|entry| entry.check) {
        // What is in quotes reaches the command as it is.
        let bare: String = check.run.split('\'').step_by(2).collect();
        let rest = placeholders.iter().fold(bare, |run, word| run.replace(word, "x"));
        assert!(!rest.contains(['{', '}', '|', '>', '<', ';', '&', '`', '$']), "{}", check.run);
        assert_eq!(check.run.matches('\'').count() % 2, 0, "{}", check.run);
    }
    for setting in ENTRIES.iter().flat_map(|entry| entry.sysctls) {
        let rest = setting.replace("{iface}", "x");
        let is_name = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        assert!(is_name && rest.split('.').count() > 1, "{setting}");
    }
}

/// Our own commands are understood by our own parser: options, keys and filters.
#[test]
fn our_own_commands_parse() {
    use clap::Parser as _;
    let mut parsed = 0;
    for check in
        ENTRIES.iter().flat_map(|entry| entry.check).filter(|check| check.run.starts_with("dropwatch "))
    {
        let run =
            ["{iface}", "{netns}"].iter().fold(check.run.to_string(), |run, word| run.replace(word, "lo"));
        let run = run
            .replace("{dport}", "80")
            .replace("{sport}", "80")
            .replace("{saddr}", "::1")
            .replace("{daddr}", "::1");
        // The only quotes there are go around a filter.
        let mut arguments = Vec::new();
        for (index, part) in run.split('\'').enumerate() {
            if index % 2 == 1 {
                arguments.push(part.to_string());
                Filter::parse(part, &AnyNamespace(knows_reason))
                    .unwrap_or_else(|error| panic!("{}: {error}", check.run));
            } else {
                arguments.extend(part.split_whitespace().map(str::to_string));
            }
        }
        crate::cli::Cli::try_parse_from(&arguments).unwrap_or_else(|error| panic!("{}: {error}", check.run));
        parsed += 1;
    }
    assert!(parsed > 20);
}

/// Every counter is one of Linux 6.18, where all of them were read.
#[test]
fn every_counter_exists() {
    let files = lists(include_str!("counters.txt"));
    let known: BTreeSet<_> = files.values().flatten().copied().collect();
    let named = ENTRIES.iter().flat_map(|entry| entry.counters.iter().copied());
    // `nstat -az` prints nothing for a name that it does not know.
    let asked =
        ENTRIES.iter().flat_map(|entry| entry.check).filter_map(|check| check.run.strip_prefix("nstat -az "));
    for counter in named.chain(asked.flat_map(|names| names.split(' '))) {
        assert!(known.contains(counter), "{counter}");
    }
}
