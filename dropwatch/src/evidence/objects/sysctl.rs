//! Settings with their present values.

use std::fs;

use super::Question;
use crate::{
    evidence::places::Inside,
    knowledge::{self, Query},
    model::{
        evidence::{Certainty, Evidence, Kind},
        foreign::Foreign,
    },
};

/// Where an interface stands in a name.
const IFACE: &str = "{iface}";
/// The ethertype of IPv6.
const IPV6: u16 = 0x86dd;

/// What there is to say of it.
pub fn find(question: &Question, inside: Inside<'_>) -> Vec<Evidence> {
    let query =
        Query { reason: question.reason.as_deref(), function: question.function.as_deref(), module: None };
    let Some(entry) = knowledge::lookup(query) else { return Vec::new() };
    let iface = question.iface.as_ref().map(|(_, name)| name);
    let read = |setting: &Setting| setting.read(iface, inside);
    let settings = settings(entry.sysctls, question.protocol == Some(IPV6));
    let found: Vec<_> =
        settings.iter().filter_map(|setting| Some(setting.judge(read(setting)?, iface))).collect();
    // Where the value of one explains the drop, those of the others do not matter.
    let explains = |found: &Evidence| found.certainty == Certainty::Certain;
    if found.iter().any(explains) { found.into_iter().filter(explains).collect() } else { found }
}

/// How the value for an interface and that for all of them count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// There is one.
    One,
    /// The larger one counts.
    Larger,
    /// That of the interface counts.
    Interface,
}

/// A setting whose value can be the cause by itself.
struct Known {
    /// The end of its name, or all of it.
    name: &'static str,
    scope: Scope,
    /// Which values are the cause.
    is_cause: fn(i64) -> bool,
    /// What such a value does.
    meaning: &'static str,
}

fn is_off(value: i64) -> bool {
    value <= 0
}

fn is_on(value: i64) -> bool {
    value > 0
}

/// Those that packets are dropped for.
const KNOWN: &[Known] = &[
    Known {
        name: "net.ipv4.ip_forward",
        scope: Scope::One,
        is_cause: is_off,
        meaning: "IPv4 packets for others are not forwarded",
    },
    Known {
        name: "net.ipv6.conf.all.forwarding",
        scope: Scope::One,
        is_cause: is_off,
        meaning: "IPv6 packets for others are not forwarded",
    },
    Known {
        name: ".forwarding",
        scope: Scope::Interface,
        is_cause: is_off,
        meaning: "packets for others that it receives are not forwarded",
    },
    Known {
        name: ".rp_filter",
        scope: Scope::Larger,
        is_cause: is_on,
        meaning: "sources without a way back are refused",
    },
    Known {
        name: ".accept_local",
        scope: Scope::Larger,
        is_cause: is_off,
        meaning: "packets from this host's own addresses are refused",
    },
    Known {
        name: ".route_localnet",
        scope: Scope::Larger,
        is_cause: is_off,
        meaning: "packets from and to 127.0.0.0/8 are refused",
    },
    Known {
        name: ".drop_unicast_in_l2_multicast",
        scope: Scope::Larger,
        is_cause: is_on,
        meaning: "packets for one host in frames for many are refused",
    },
    Known { name: ".disable_ipv6", scope: Scope::Interface, is_cause: is_on, meaning: "IPv6 is off there" },
    Known {
        name: ".suppress_frag_ndisc",
        scope: Scope::Interface,
        is_cause: is_on,
        meaning: "fragments of neighbour discovery are refused",
    },
    Known {
        name: "net.ipv4.icmp_echo_ignore_all",
        scope: Scope::One,
        is_cause: is_on,
        meaning: "pings are not answered",
    },
    Known {
        name: "net.ipv4.icmp_echo_ignore_broadcasts",
        scope: Scope::One,
        is_cause: is_on,
        meaning: "pings to many hosts are not answered",
    },
    Known {
        name: ".seg6_enabled",
        scope: Scope::Larger,
        is_cause: is_off,
        meaning: "segment routing is off there",
    },
    Known {
        name: "net.mpls.platform_labels",
        scope: Scope::One,
        is_cause: is_off,
        meaning: "no MPLS label is known",
    },
];

/// A setting that the knowledge says is worth a look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    name: &'static str,
}

/// The values of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Values {
    /// Names and values, that of the interface first.
    read: Vec<(String, String)>,
    /// The one that counts.
    effective: String,
}

/// Those that concern the packet's protocol, one of which is for an interface and for all.
fn settings(names: &[&'static str], is_ipv6: bool) -> Vec<Setting> {
    let of_others = |name: &str| {
        let ipv4 = ["net.ipv4.conf.", "net.ipv4.neigh.", "net.ipv4.ip", "net.ipv4.icmp"];
        if is_ipv6 { ipv4.iter().any(|start| name.starts_with(start)) } else { name.starts_with("net.ipv6.") }
    };
    let of_iface = |name: &str| names.contains(&name.replace(".all.", ".{iface}.").as_str());
    let is_double = |name: &str| name.contains(".all.") && of_iface(name);
    let own = names.iter().filter(|name| !of_others(name) && !is_double(name));
    own.map(|&name| Setting { name }).collect()
}

impl Setting {
    fn known(&self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| match known.name.strip_prefix('.') {
            Some(end) => self.name.contains(".conf.") && self.name.rsplit('.').next() == Some(end),
            None => self.name == known.name,
        })
    }

    /// Its values now; none if they cannot be read.
    fn read(&self, iface: Option<&Foreign>, inside: Inside<'_>) -> Option<Values> {
        // The directory of settings is that of the reader's namespace.
        if self.name.starts_with("net.") && !inside.is_entered {
            return None;
        }
        let own = if self.name.contains(IFACE) { Some(iface?) } else { None };
        let scope = self.known().map_or(Scope::One, |known| known.scope);
        let of_one = value(self.name, own)?;
        let of_all = match (scope, own) {
            (Scope::Larger, Some(_)) => value(&self.name.replace(IFACE, "all"), None),
            _ => None,
        };
        let larger = of_all.as_ref().filter(|(_, all)| number(all) > number(&of_one.1));
        let effective = larger.unwrap_or(&of_one).1.clone();
        Some(Values { effective, read: [Some(of_one), of_all].into_iter().flatten().collect() })
    }

    fn judge(&self, values: Values, iface: Option<&Foreign>) -> Evidence {
        let cause = self.known().filter(|known| number(&values.effective).is_some_and(known.is_cause));
        let read: Vec<_> = values.read.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let differ = values.read.iter().any(|(_, value)| *value != values.effective);
        let counts = differ.then(|| format!("{} counts, the larger one", values.effective));
        let meaning = cause.map(|cause| cause.meaning.to_owned());
        let read = format!("{} now", read.join(" and "));
        let text = [Some(read), counts, meaning].into_iter().flatten().collect::<Vec<_>>().join(": ");
        let certainty = if cause.is_some() { Certainty::Certain } else { Certainty::Possible };
        let names: Vec<_> = values.read.iter().map(|(name, _)| name.as_str()).collect();
        let source = format!("sysctl {}", names.join(" "));
        let settings: serde_json::Map<_, _> =
            values.read.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let found = Evidence::new(Kind::Sysctl, certainty, text, source).with("settings", settings);
        let found = found.with("effective", values.effective).with("explains", cause.is_some());
        if self.name.contains(IFACE) { found.with("device", iface) } else { found }
    }
}

fn number(value: &str) -> Option<i64> {
    value.parse().ok()
}

/// A setting's full name and value.
fn value(name: &str, iface: Option<&Foreign>) -> Option<(String, String)> {
    // A dot in the name of an interface does not separate.
    let mut path = b"/proc/sys/".to_vec();
    for (place, part) in name.split(IFACE).enumerate() {
        if place > 0 {
            path.extend_from_slice(iface?.bytes());
        }
        path.extend(part.bytes().map(|byte| if byte == b'.' { b'/' } else { byte }));
    }
    let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(&path);
    let text = fs::read_to_string(path).ok()?;
    let shown = iface.map_or_else(|| name.to_owned(), |iface| name.replace(IFACE, &iface.to_string()));
    Some((shown, text.split_whitespace().collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&'static str], is_ipv6: bool) -> Vec<&'static str> {
        settings(names, is_ipv6).into_iter().map(|setting| setting.name).collect()
    }

    #[test]
    fn settings_of_the_other_protocol_are_left_out() {
        let both = &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
        assert_eq!(names(both, false), ["net.ipv4.ip_forward"]);
        assert_eq!(names(both, true), ["net.ipv6.conf.all.forwarding"]);
        let tcp = &["net.ipv4.tcp_mem"];
        assert_eq!(names(tcp, true), ["net.ipv4.tcp_mem"]);
    }

    #[test]
    fn one_for_all_is_read_with_that_of_the_interface() {
        let both = &["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.{iface}.rp_filter"];
        assert_eq!(names(both, false), ["net.ipv4.conf.{iface}.rp_filter"]);
    }

    fn judged(name: &'static str, read: &[(&str, &str)], effective: &str) -> Evidence {
        let read = read.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Setting { name }.judge(Values { read, effective: effective.to_owned() }, Some(&"eth0".into()))
    }

    #[test]
    fn the_value_that_counts_says_whether_it_is_the_cause() {
        let name = "net.ipv4.conf.{iface}.rp_filter";
        let read = [("net.ipv4.conf.eth0.rp_filter", "0"), ("net.ipv4.conf.all.rp_filter", "1")];
        let found = judged(name, &read, "1");
        assert_eq!(found.certainty, Certainty::Certain);
        let expected = "net.ipv4.conf.eth0.rp_filter = 0 and net.ipv4.conf.all.rp_filter = 1 now: \
            1 counts, the larger one: sources without a way back are refused";
        assert_eq!(found.text, expected);
        assert_eq!(
            judged("net.ipv4.ip_forward", &[("net.ipv4.ip_forward", "1")], "1").certainty,
            Certainty::Possible
        );
        assert_eq!(judged("net.core.rmem_max", &[("net.core.rmem_max", "0")], "0").fields["explains"], false);
    }

    #[test]
    fn a_value_is_read_by_its_dotted_name() {
        let (name, value) = value("net.ipv4.conf.{iface}.rp_filter", Some(&"lo".into())).expect("a value");
        assert_eq!((name.as_str(), value.len()), ("net.ipv4.conf.lo.rp_filter", 1));
    }

    #[test]
    fn every_known_setting_is_one_that_the_knowledge_names() {
        for known in KNOWN {
            let is_it =
                |name: &&'static str| Setting { name }.known().is_some_and(|found| found.name == known.name);
            let all = knowledge::ENTRIES.iter().flat_map(|entry| entry.sysctls);
            assert!(all.clone().any(is_it), "{}", known.name);
        }
    }
}
