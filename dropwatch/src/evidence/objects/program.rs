//! BPF programs: XDP, tc, tcx, cgroup.

use std::{
    fs::{self, File},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya_obj::generated::bpf_attach_type::{
    self, BPF_CGROUP_INET_EGRESS, BPF_CGROUP_INET_INGRESS, BPF_TCX_EGRESS, BPF_TCX_INGRESS,
};
use serde_json::{Map, Value, json};

use super::{
    Question, base,
    device::Device,
    route_netlink,
    tc::{self, Dropper, Filter, Side},
};
use crate::{
    evidence::{netlink::Netlink, places::Inside},
    model::{
        evidence::{Certainty, Evidence, Kind},
        foreign::Foreign,
        plural::counted,
    },
    sys::{self, AttachedTo},
};

/// What there is to say of it.
pub fn find(question: &Question, inside: Inside<'_>) -> Vec<Evidence> {
    let found = match Hook::of(question) {
        Some(Hook::Xdp) => xdp(question, inside),
        Some(Hook::Tc(side)) => filters(question, inside, side),
        Some(Hook::Cgroup(way)) => {
            let cgroup = question.socket.as_ref().map(|socket| socket.key.cgroup);
            let found = cgroup.filter(|&cgroup| cgroup != 0).map(|cgroup| of_cgroup(cgroup, way));
            // It may also have been the socket's own filter.
            let doubt = |mut found: Evidence| {
                found.certainty =
                    if question.is_for("SOCKET_FILTER") { Certainty::Possible } else { found.certainty };
                found
            };
            found.map(|found| found.into_iter().map(doubt).collect())
        }
        None => None,
    };
    found.unwrap_or_default()
}

/// Where programs decide about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    /// Before it is a packet, or right after.
    Xdp,
    /// On a side of an interface.
    Tc(Side),
    /// For all sockets of a cgroup.
    Cgroup(bpf_attach_type),
}

impl Hook {
    fn of(question: &Question) -> Option<Self> {
        let function = question.function.as_deref().map(base).unwrap_or_default();
        Some(match question.reason.as_deref() {
            Some("TC_INGRESS") => Self::Tc(Side::Ingress),
            Some("TC_EGRESS") => Self::Tc(Side::Egress),
            Some("BPF_CGROUP_EGRESS") => Self::Cgroup(BPF_CGROUP_INET_EGRESS),
            Some("SOCKET_FILTER") => Self::Cgroup(BPF_CGROUP_INET_INGRESS),
            Some("XDP") => Self::Xdp,
            _ if function.contains("xdp") || function == "veth_ptr_free" => Self::Xdp,
            _ if function == "sch_handle_ingress" => Self::Tc(Side::Ingress),
            _ if function == "sch_handle_egress" => Self::Tc(Side::Egress),
            _ => return None,
        })
    }
}

/// What can drop, and whether it is a program.
struct Suspect {
    kind: Kind,
    text: String,
    source: String,
    fields: Map<String, Value>,
}

/// One alone did it; of several, any may have.
fn judge(suspects: Vec<Suspect>) -> Vec<Evidence> {
    let certainty = if suspects.len() == 1 { Certainty::Certain } else { Certainty::Possible };
    let judge = |suspect: Suspect| {
        let mut found = Evidence::new(suspect.kind, certainty, suspect.text, suspect.source);
        found.fields = suspect.fields;
        found
    };
    suspects.into_iter().map(judge).collect()
}

/// `763 (drop_all)`
fn named(id: u32, otherwise: Option<&Foreign>) -> (String, Option<Foreign>) {
    let name = sys::program_name(id).ok().filter(|name| !name.is_empty()).map(Foreign::from);
    let name = name.or_else(|| otherwise.cloned());
    (name.as_ref().map_or_else(|| id.to_string(), |name| format!("{id} ({name})")), name)
}

fn fields(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

fn xdp(question: &Question, inside: Inside<'_>) -> Option<Vec<Evidence>> {
    let netlink = route_netlink(inside)?;
    let device = Device::get(&netlink, question.iface.as_ref()?.0).ok()?;
    let suspects = device.xdp.iter().filter(|(_, mode)| *mode == mode_of(question)).map(|&(id, mode)| {
        let (words, name) = named(id, None);
        Suspect {
            kind: Kind::Program,
            text: format!("XDP program {words} is attached to {} now, in {mode} mode", device.name),
            source: format!("bpftool net show dev {}", device.name),
            fields: fields(json!({
                "id": id, "name": name, "attached": "xdp", "mode": mode, "device": device.name,
            })),
        }
    });
    Some(judge(suspects.collect()))
}

/// The mode in which the function that dropped the packet runs programs.
fn mode_of(question: &Question) -> &'static str {
    let generic =
        ["do_xdp_generic", "netif_receive_generic_xdp", "generic_xdp_tx", "bpf_prog_run_generic_xdp"];
    let is_core = question.is_in(&["__netif_receive_skb_core"]);
    if question.is_in(&generic) || is_core { "generic" } else { "driver" }
}

fn filters(question: &Question, inside: Inside<'_>, side: Side) -> Option<Vec<Evidence>> {
    let netlink = route_netlink(inside)?;
    let (index, device) = question.iface.as_ref()?;
    let mut suspects: Vec<_> = tcx(*index, side).into_iter().map(|id| of_tcx(id, device, side)).collect();
    let filters = tc_filters(&netlink, *index, side);
    suspects.extend(filters.into_iter().map(|filter| of_filter(&filter, device, side)));
    Some(judge(suspects))
}

/// Programs that are attached without a filter (Linux 6.6).
fn tcx(index: u32, side: Side) -> Vec<u32> {
    let way = if side == Side::Ingress { BPF_TCX_INGRESS } else { BPF_TCX_EGRESS };
    sys::attached_programs(AttachedTo::Interface(index), way).unwrap_or_default()
}

fn of_tcx(id: u32, device: &Foreign, side: Side) -> Suspect {
    let (words, name) = named(id, None);
    Suspect {
        kind: Kind::Program,
        text: format!("tcx program {words} is attached to {device} {} now", side.word()),
        source: format!("bpftool net show dev {device}"),
        fields: fields(json!({
            "id": id, "name": name, "attached": format!("tcx_{}", side.word()), "device": device,
        })),
    }
}

/// Filters that may have dropped something: an action that has dropped nothing so far has not.
fn tc_filters(netlink: &Netlink, index: u32, side: Side) -> Vec<Filter> {
    let filters = tc::read(netlink, index, side).unwrap_or_default();
    let has_dropped = |filter: &Filter| !matches!(filter.dropper, Dropper::Action { drops: 0, .. });
    filters.into_iter().filter(has_dropped).collect()
}

fn of_filter(filter: &Filter, device: &Foreign, side: Side) -> Suspect {
    let Filter { kind, pref, handle, .. } = filter;
    let place = format!("filter {kind} pref {pref} handle {handle:#x} on {device} {}", side.word());
    let source = format!("tc -s filter show dev {device} {}", side.word());
    let common = json!({
        "device": device, "attached": format!("tc_{}", side.word()), "filter": kind, "pref": pref, "handle": handle,
    });
    let mut fields = fields(common);
    let (object, text) = match &filter.dropper {
        Dropper::Program { id: Some(id), name } => {
            let (words, name) = named(*id, name.as_ref());
            fields.extend([("id".to_owned(), json!(id)), ("name".to_owned(), json!(name))]);
            (Kind::Program, format!("tc program {words} is attached by {place} now"))
        }
        Dropper::Program { id: None, .. } => {
            (Kind::Program, format!("a classic BPF program decides in {place} now"))
        }
        Dropper::Action { kind, drops } => {
            fields.extend([("action".to_owned(), json!(kind)), ("drops".to_owned(), json!(drops))]);
            let dropped = counted((*drops).into(), "packet");
            (Kind::Qdisc, format!("{place}: its action {kind} has dropped {dropped} so far"))
        }
    };
    Suspect { kind: object, text, source, fields }
}

/// The programs that are in effect for a cgroup's sockets, and where each is attached.
pub fn of_cgroup(number: u64, way: bpf_attach_type) -> Vec<Evidence> {
    let Some((mount, group)) = open(number) else { return Vec::new() };
    let programs = sys::attached_programs(AttachedTo::CgroupAndAbove(group.as_fd()), way);
    let path = fs::read_link(format!("/proc/self/fd/{}", group.as_raw_fd())).unwrap_or_default();
    let word = if way == BPF_CGROUP_INET_INGRESS { "ingress" } else { "egress" };
    let suspects = programs.unwrap_or_default().into_iter().map(|id| {
        let (words, name) = named(id, None);
        let place = attached_at(id, way, &path, &mount).map(|place| shown(&place, &mount));
        let at = place.as_ref().map_or_else(|| "a cgroup above".to_owned(), ToString::to_string);
        let group = shown(&path, &mount);
        Suspect {
            kind: Kind::Program,
            text: format!("cgroup program {words} is attached to {at} for {word} now; the socket is of {group}"),
            source: "bpftool cgroup tree".to_owned(),
            fields: fields(json!({
                "id": id, "name": name, "attached": format!("cgroup_{word}"), "cgroup": place, "socket_cgroup": group,
            })),
        }
    });
    judge(suspects.collect())
}

/// A cgroup's directory, and where the hierarchy is mounted.
fn open(number: u64) -> Option<(PathBuf, OwnedFd)> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let mount = mounts.find_map(|mut words| {
        let path = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(path))
    })?;
    let group = sys::open_cgroup(File::open(&mount).ok()?.as_fd(), number).ok()?;
    Some((mount, group))
}

/// The nearest cgroup that a program is attached to itself.
fn attached_at(id: u32, way: bpf_attach_type, path: &Path, mount: &Path) -> Option<PathBuf> {
    let is_there = |path: &&Path| {
        let group = File::open(path).ok();
        let own = group.and_then(|group| sys::attached_programs(AttachedTo::Cgroup(group.as_fd()), way).ok());
        own.is_some_and(|own| own.contains(&id))
    };
    path.ancestors().take_while(|path| path.starts_with(mount)).find(is_there).map(Path::to_owned)
}

/// A cgroup's path below the mount.
fn shown(path: &Path, mount: &Path) -> Foreign {
    let below = path.strip_prefix(mount).unwrap_or(path);
    Foreign::from(Path::new("/").join(below).into_os_string())
}
