//! Whether this can be done here, asked before anything is done.

use std::fs;

use caps::{CapSet, Capability};

use crate::{failure::Refusal, sys};

const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
const PERF_PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// What is needed beyond counting.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// The running kernel's own symbols, not those of a file.
    pub symbols: bool,
    /// BPF statistics are to be switched on, which is host-wide.
    pub statistics: bool,
}

/// Refuses what cannot be done here; otherwise says what will be missing, one message each.
///
/// # Errors
/// The privilege or the kernel feature that is missing, and the cure.
pub fn check(needs: Needs) -> Result<Vec<String>, Refusal> {
    privileges(needs)?;
    if let Err(error) = sys::probe_bpf() {
        return Err(Refusal::new(if error.raw_os_error() == Some(libc::ENOSYS) {
            "this kernel is built without BPF: it takes one with CONFIG_BPF_SYSCALL=y".to_owned()
        } else {
            "a seccomp filter forbids bpf(2) here: run outside the container, or with a profile that allows it"
                .to_owned()
        }));
    }
    Ok(degraded(needs))
}

/// A capability we need, and what for.
struct Privilege {
    name: &'static str,
    purpose: &'static str,
}

fn privileges(needs: Needs) -> Result<(), Refusal> {
    let held = caps::read(None, CapSet::Effective)
        .map_err(|error| Refusal::new(format!("cannot read this process's capabilities: {error}")))?;
    let admin = held.contains(&Capability::CAP_SYS_ADMIN);
    let mut missing = Vec::new();
    for (capability, name, purpose) in [
        (Capability::CAP_BPF, "CAP_BPF", "to load the probe"),
        (Capability::CAP_PERFMON, "CAP_PERFMON", "to attach it"),
    ] {
        if !admin && !held.contains(&capability) {
            missing.push(Privilege { name, purpose });
        }
    }
    if needs.symbols && !held.contains(&Capability::CAP_SYSLOG) && !shown_to_all() {
        missing.push(Privilege { name: "CAP_SYSLOG", purpose: "to see where functions are in memory" });
    }
    if needs.statistics && !admin {
        missing.push(Privilege { name: "CAP_SYS_ADMIN", purpose: "to switch on BPF statistics for --cost" });
    }
    if missing.is_empty() { Ok(()) } else { Err(lacks(&missing)) }
}

fn lacks(missing: &[Privilege]) -> Refusal {
    let list: Vec<_> =
        missing.iter().map(|privilege| format!("{} ({})", privilege.name, privilege.purpose)).collect();
    let lower: Vec<_> = missing.iter().map(|privilege| privilege.name.to_lowercase()).collect();
    let program =
        std::env::current_exe().map_or_else(|_| "dropwatch".into(), |path| path.display().to_string());
    Refusal::new(format!(
        "this process lacks {}. Run it as root (sudo {program}), or give the program the privilege once: \
         sudo setcap {}+ep {program}",
        list.join(", "),
        lower.join(","),
    ))
}

/// Whether /proc/kallsyms shows addresses to processes without any privilege.
fn shown_to_all() -> bool {
    number(KPTR_RESTRICT) == Some(0) && number(PERF_PARANOID).is_some_and(|level| level <= 1)
}

/// What will work less well here, and why.
fn degraded(needs: Needs) -> Vec<String> {
    let mut warnings = Vec::new();
    if needs.symbols && number(KPTR_RESTRICT).is_some_and(|level| level >= 2) {
        warnings.push(
            "the kernel hides addresses from everybody (kernel.kptr_restrict=2), so locations are printed as \
             addresses: `sysctl kernel.kptr_restrict=1` shows root their names"
                .to_owned(),
        );
    }
    warnings
}

fn number(path: &str) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
