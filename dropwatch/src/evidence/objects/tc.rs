//! Filters of traffic control that can drop a packet: what `tc -s filter show` shows.

use std::io;

use crate::{
    evidence::netlink::{Netlink, attribute, attributes, text, u32_at},
    model::foreign::Foreign,
};

/// `RTM_GETTFILTER`.
const GET: u16 = 46;
/// `struct tcmsg`.
const HEADER: usize = 20;
const INDEX: usize = 4;
const HANDLE: usize = 8;
const PARENT: usize = 12;
const INFO: usize = 16;
/// Attributes, `TCA_…`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// Of a BPF filter, `TCA_BPF_…`.
const BPF_OPS: u16 = 5;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_ID: u16 = 11;
/// The program's verdict counts, without an action.
const DIRECT: u32 = 1;
/// Where each kind has its actions, `TCA_…_ACT`.
const ACTIONS: [(&str, u16); 9] = [
    ("bpf", 1),
    ("cgroup", 1),
    ("matchall", 2),
    ("flower", 3),
    ("basic", 3),
    ("fw", 4),
    ("route", 6),
    ("u32", 7),
    ("flow", 9),
];
/// Of an action, `TCA_ACT_…`.
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const ACTION_STATS: u16 = 4;
/// Of a BPF action, `TCA_ACT_BPF_…`.
const ACTION_BPF_NAME: u16 = 6;
const ACTION_BPF_ID: u16 = 10;
/// `TC_ACT_SHOT`, in the third number of `struct tc_gact`, which is `TCA_GACT_PARMS`.
const SHOT: u32 = 2;
const GACT_PARMS: u16 = 2;
const VERDICT: usize = 8;
/// `TCA_STATS_QUEUE`, in which the drops are the third number.
const STATS_QUEUE: u16 = 3;
const DROPS: usize = 8;

/// The side of an interface that filters are on: a class of `clsact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What it receives.
    Ingress,
    /// What it sends.
    Egress,
}

impl Side {
    /// As `tc` calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// A filter that can drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its kind, such as `flower`.
    pub kind: Foreign,
    /// Filters are tried by rising numbers.
    pub pref: u32,
    /// Which one of these.
    pub handle: u32,
    /// What drops in it.
    pub dropper: Dropper,
}

/// What in a filter can drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dropper {
    /// A BPF program, by its number, if it has one, and the name that the filter gives it.
    Program {
        /// Its number; none of a classic program.
        id: Option<u32>,
        /// How the filter calls it.
        name: Option<Foreign>,
    },
    /// An action, and what it has dropped so far.
    Action {
        /// Its kind: `gact` or `police`.
        kind: Foreign,
        /// How many packets.
        drops: u32,
    },
}

/// The filters that can drop on one side of an interface.
///
/// # Errors
/// They could not be read whole.
pub fn read(netlink: &Netlink, index: u32, side: Side) -> io::Result<Vec<Filter>> {
    let mut request = vec![0; HEADER];
    request[INDEX..INDEX + 4].copy_from_slice(&index.to_ne_bytes());
    request[PARENT..PARENT + 4].copy_from_slice(&side.parent().to_ne_bytes());
    Ok(netlink.dump(GET, &request)?.iter().flat_map(|message| parse(message)).collect())
}

pub(super) fn parse(message: &[u8]) -> Vec<Filter> {
    let filter = || {
        let kind: Foreign = text(attribute(message, HEADER, KIND)?).into();
        // A chain of filters is listed before the filters in it, without options.
        let options = attribute(message, HEADER, OPTIONS)?;
        Some((kind, u32_at(message, INFO)? >> 16, u32_at(message, HANDLE)?, options))
    };
    let Some((kind, pref, handle, options)) = filter() else { return Vec::new() };
    let droppers = direct(&kind, options).into_iter().chain(in_actions(&kind, options));
    droppers.map(|dropper| Filter { kind: kind.clone(), pref, handle, dropper }).collect()
}

/// The program of a BPF filter whose verdict counts.
fn direct(kind: &Foreign, options: &[u8]) -> Option<Dropper> {
    let flags = attribute(options, 0, BPF_FLAGS).and_then(|value| u32_at(value, 0)).unwrap_or_default();
    if *kind != *"bpf" || flags & DIRECT == 0 {
        return None;
    }
    let id = attribute(options, 0, BPF_ID).and_then(|value| u32_at(value, 0));
    let is_classic = attribute(options, 0, BPF_OPS).is_some();
    let name = attribute(options, 0, BPF_NAME).map(|name| text(name).into());
    Some(Dropper::Program { id: id.filter(|_| !is_classic), name })
}

/// What drops among the actions of a filter.
fn in_actions(kind: &Foreign, options: &[u8]) -> Vec<Dropper> {
    let place = ACTIONS.iter().find(|(known, _)| *kind == **known);
    let actions = place.and_then(|&(_, place)| attribute(options, 0, place)).unwrap_or_default();
    attributes(actions, 0).filter_map(|(_, action)| dropper(action)).collect()
}

fn dropper(action: &[u8]) -> Option<Dropper> {
    let kind = text(attribute(action, 0, ACTION_KIND)?);
    let options = attribute(action, 0, ACTION_OPTIONS).unwrap_or_default();
    let in_options = |number| attribute(options, 0, number);
    let stats = attribute(action, 0, ACTION_STATS).and_then(|stats| attribute(stats, 0, STATS_QUEUE));
    let drops = stats.and_then(|queue| u32_at(queue, DROPS)).unwrap_or_default();
    match kind {
        b"bpf" => Some(Dropper::Program {
            id: in_options(ACTION_BPF_ID).and_then(|value| u32_at(value, 0)),
            name: in_options(ACTION_BPF_NAME).map(|name| text(name).into()),
        }),
        b"gact" if in_options(GACT_PARMS).and_then(|value| u32_at(value, VERDICT)) != Some(SHOT) => None,
        b"gact" | b"police" => Some(Dropper::Action { kind: kind.into(), drops }),
        _ => None,
    }
}
