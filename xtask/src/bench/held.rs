//! A program that another process loaded, attached and detached here at will: to start the process anew for each
//! round would take longer than the round, and let the machine change between contenders that are compared.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::programs::{
    BtfTracePoint, ProgramInfo, RawTracePoint, TracePoint, loaded_programs,
    raw_trace_point::RawTracePointLink, tp_btf::BtfTracePointLink, trace_point::TracePointLink,
};
use nix::unistd::Pid;

use super::fdinfo::{self, field};

/// As the kernel numbers them; `fdinfo` has the number.
const TRACEPOINT: u32 = 5;
const RAW_TRACEPOINT: u32 = 17;

/// Programs of dropwatch that no drop runs: two list what there is, one reads cookies of namespaces.
const ON_REQUEST: [&str; 3] = ["list_sockets", "list_processes", "net_cookie"];

/// A program for `skb:kfree_skb`; its maps live while it does.
pub enum Program {
    Raw(RawTracePoint),
    Typed(BtfTracePoint),
    Perf(TracePoint),
}

/// Detaches when it is dropped.
#[expect(dead_code, reason = "they are held, never looked at")]
pub enum Link {
    Raw(RawTracePointLink),
    Typed(BtfTracePointLink),
    Perf(TracePointLink),
}

impl Program {
    /// The only program that the process has loaded, but for those that run on request.
    pub fn of(pid: Pid) -> Result<Self> {
        let loaded = loaded_by(Path::new(&format!("/proc/{pid}/fdinfo")))?;
        // Programs of others may go while all are looked at.
        let kind = |id| loaded.iter().find(|(of_it, _)| *of_it == id).map(|(_, kind)| *kind);
        let mut programs: Vec<_> = loaded_programs()
            .flatten()
            .filter(|program| !program.name_as_str().is_some_and(|name| ON_REQUEST.contains(&name)))
            .filter_map(|program| Some((kind(program.id())?, program)))
            .collect();
        ensure!(programs.len() == 1, "expected one BPF program of process {pid}, not {}", programs.len());
        let (kind, info) = programs.swap_remove(0);
        Self::of_kind(kind, info)
    }

    fn of_kind(kind: u32, info: ProgramInfo) -> Result<Self> {
        Ok(match kind {
            TRACEPOINT => Self::Perf(TracePoint::from_program_info(info, "held".into())?),
            RAW_TRACEPOINT => Self::Raw(RawTracePoint::from_program_info(info, "held".into())?),
            _ => Self::Typed(typed(info)?),
        })
    }

    pub fn attach(&mut self) -> Result<Link> {
        let link = match self {
            Self::Raw(program) => {
                program.attach("kfree_skb").and_then(|id| program.take_link(id)).map(Link::Raw)
            }
            Self::Typed(program) => program.attach().and_then(|id| program.take_link(id)).map(Link::Typed),
            Self::Perf(program) => {
                program.attach("skb", "kfree_skb").and_then(|id| program.take_link(id)).map(Link::Perf)
            }
        };
        link.context("cannot attach a program to skb:kfree_skb")
    }
}

/// A program of the type that `fentry` and others share with `tp_btf`.
#[expect(unsafe_code, reason = "aya requires a promise about the type of the program")]
fn typed(info: ProgramInfo) -> Result<BtfTracePoint> {
    // SAFETY: it is called for dropwatch's program, which is a `tp_btf` one if it is no raw one.
    Ok(unsafe { BtfTracePoint::from_program_info(info, "held".into())? })
}

/// Number and type of the programs a process has loaded, each once.
pub fn loaded_by(fdinfo: &Path) -> Result<Vec<(u32, u32)>> {
    let mut programs: Vec<_> = fdinfo::texts(fdinfo)?.iter().filter_map(|text| program(text)).collect();
    programs.sort_unstable();
    programs.dedup();
    Ok(programs)
}

/// A link names its program, too, but not what type it is of.
fn program(fdinfo: &str) -> Option<(u32, u32)> {
    Some((field(fdinfo, "prog_id")?, field(fdinfo, "prog_type")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link to it would count it twice.
    #[test]
    fn programs_and_links_are_distinguished() {
        assert_eq!(program("pos:\t0\nprog_type:\t17\nprog_jited:\t1\nprog_id:\t41\n"), Some((41, 17)));
        assert_eq!(program("pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t7\nprog_id:\t41\n"), None);
    }
}
