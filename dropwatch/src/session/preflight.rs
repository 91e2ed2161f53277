//! Whether this can be done here, checked before anything is done.

use std::{
    fs,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability, CapsHashSet};

use crate::{
    cli::config::Query,
    escape::Escaped,
    evidence::objects::LISTING_RULES,
    probe::source::LOCKED_DOWN,
    process::{
        failure::Refusal,
        files, limits,
        notice::Notices,
        privileges::{self, Kept},
    },
    sys,
};

const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";
const PERF_PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// What a run needs beyond attaching a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The running kernel's own symbols, not those of a file.
    Symbols,
    /// Switching on BPF statistics, which is host-wide.
    Statistics,
    /// The probe reads the kernel's memory: packets, devices, namespaces.
    Memory,
    /// Programs that are attached to functions while it runs.
    Functions,
    /// Maps that are made while it runs.
    FreshMaps,
    /// Names of network namespaces after processes in them.
    Namespaces,
    /// Other network namespaces are entered, to do this there.
    Enter(&'static str),
    /// The processes that have sockets open.
    Owners,
    /// Rules of iptables-legacy, which are read through a raw socket.
    Legacy,
    /// Rules of netfilter, queue disciplines and programs.
    Objects,
    /// A command that is sent signals.
    Command,
    /// A file that is put in its place, or removed, while it runs.
    File(PathBuf),
    /// A directory that is read while it runs.
    Directory(PathBuf),
}

/// What counting needs: with the running kernel's own symbols, the probe's cost, and the kernel's counters, if these are
/// wanted.
#[must_use]
pub fn counting(query: &Query, own_symbols: bool, cost: bool, counters: bool) -> Vec<Need> {
    let mut needs = Vec::new();
    if own_symbols && query.names_functions() {
        needs.push(Need::Symbols);
    }
    if cost {
        needs.push(Need::Statistics);
    }
    if query.reads_memory() {
        needs.extend([Need::Memory, Need::FreshMaps]);
    }
    if query.names_namespaces() || counters {
        needs.push(Need::Namespaces);
    }
    if counters {
        needs.push(Need::Enter("to read what interfaces and sockets of other network namespaces lose"));
        needs.push(Need::Owners);
    }
    needs
}

/// Refuses what cannot be done here; otherwise warns of what will be missing. Decides which privileges are kept once the
/// probe is attached.
///
/// # Errors
/// The privilege or the kernel feature that is missing, and the cure.
pub fn check(needs: &[Need], notices: &Notices) -> Result<(), Refusal> {
    limits::files()?;
    sysfs(Path::new("/sys"))?;
    if needs.contains(&Need::Memory) {
        lockdown(Path::new("/sys"))?;
    }
    privileges(needs)?;
    if let Err(error) = sys::probe_bpf() {
        return Err(Refusal::new(if error.raw_os_error() == Some(libc::ENOSYS) {
            "this kernel is built without BPF: dropwatch needs CONFIG_BPF_SYSCALL=y".to_owned()
        } else {
            "a seccomp filter forbids bpf(2) here: run outside the container, or with a profile that allows it"
                .to_owned()
        }));
    }
    let kept = kept(needs, &privileges::held());
    for Privilege { capability, purpose } in &kept {
        log::info!("{capability} is kept: {purpose}");
    }
    log::info!("all other privileges are dropped once the probe is attached");
    let here: CapsHashSet = kept.into_iter().map(|privilege| privilege.capability).collect();
    let lists_rules = needs.contains(&Need::Objects);
    let by_programs = here.iter().filter(|privilege| lists_rules && LISTING_RULES.contains(privilege));
    privileges::keep(Kept { by_programs: by_programs.copied().collect(), here });
    for warning in degraded(needs) {
        notices.warn(warning);
    }
    Ok(())
}

/// The kernel says there which CPUs it may have, and describes its types.
fn sysfs(sys: &Path) -> Result<(), Refusal> {
    if sys.join("devices/system/cpu").exists() {
        return Ok(());
    }
    Err(Refusal::new("sysfs is not mounted at /sys: `mount -t sysfs sysfs /sys`"))
}

/// Under lockdown for confidentiality, no BPF program can read the kernel's memory; the error does not say so.
fn lockdown(sys: &Path) -> Result<(), Refusal> {
    let modes = fs::read_to_string(sys.join("kernel/security/lockdown")).unwrap_or_default();
    if modes.contains("[confidentiality]") {
        return Err(Refusal::new(LOCKED_DOWN));
    }
    Ok(())
}

/// A capability, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Privilege {
    capability: Capability,
    purpose: String,
}

impl Privilege {
    fn new(capability: Capability, purpose: impl Into<String>) -> Self {
        Self { capability, purpose: purpose.into() }
    }
}

/// What the start needs.
fn required(needs: &[Need]) -> Vec<Privilege> {
    let mut required = vec![
        Privilege::new(Capability::CAP_BPF, "to load the probe"),
        Privilege::new(Capability::CAP_PERFMON, "to attach it"),
    ];
    if needs.contains(&Need::Symbols) && !shown_to_all() {
        required.push(Privilege::new(Capability::CAP_SYSLOG, "to see where functions are in memory"));
    }
    if needs.contains(&Need::Statistics) {
        required.push(Privilege::new(Capability::CAP_SYS_ADMIN, "to switch on BPF statistics for --cost"));
    }
    required
}

/// What is needed for longer, of what is held.
fn kept(needs: &[Need], held: &CapsHashSet) -> Vec<Privilege> {
    let mut kept = Vec::new();
    let is_kept = needs.iter().any(|need| matches!(need, Need::FreshMaps | Need::Functions));
    if !is_kept && privileges::without(sys::probe_bpf).is_err() {
        kept.push(Privilege::new(bpf(held), "this kernel requires it for every read of a map"));
    }
    if needs.contains(&Need::Functions) {
        kept.push(Privilege::new(bpf(held), "to follow the calls of functions"));
        kept.push(Privilege::new(Capability::CAP_PERFMON, "to follow the calls of functions"));
    }
    for need in needs {
        kept.extend(match need {
            Need::Symbols => {
                Some(Privilege::new(Capability::CAP_SYSLOG, "to read symbols when modules change"))
            }
            Need::FreshMaps => Some(Privilege::new(bpf(held), "to make room for more rows")),
            Need::Namespaces => Some(Privilege::new(
                Capability::CAP_SYS_PTRACE,
                "to see which network namespace a process is in",
            )),
            Need::Owners => Some(Privilege::new(
                Capability::CAP_DAC_READ_SEARCH,
                "to see which process has a socket open that loses packets",
            )),
            Need::Legacy => Some(Privilege::new(Capability::CAP_NET_RAW, "to read rules of iptables-legacy")),
            Need::Objects => Some(Privilege::new(
                Capability::CAP_NET_ADMIN,
                "to read the rules and programs that drop packets",
            )),
            Need::Enter(purpose) => Some(Privilege::new(Capability::CAP_SYS_ADMIN, *purpose)),
            Need::Command => Some(Privilege::new(
                Capability::CAP_KILL,
                "to forward signals to the command, whatever user it runs as",
            )),
            Need::File(path) => privileges::without(|| files::missing_right(path))
                .map(|capability| Privilege::new(capability, format!("to write {}", Escaped::path(path)))),
            Need::Directory(path) => privileges::without(|| !files::can_be_read(path)).then(|| {
                let purpose = format!("to read {}", Escaped::path(path));
                Privilege::new(Capability::CAP_DAC_READ_SEARCH, purpose)
            }),
            Need::Statistics | Need::Memory | Need::Functions => None,
        });
    }
    kept.retain(|privilege| held.contains(&privilege.capability));
    kept
}

/// The capability that bpf(2) requires: the older one includes the newer one.
fn bpf(held: &CapsHashSet) -> Capability {
    if held.contains(&Capability::CAP_BPF) { Capability::CAP_BPF } else { Capability::CAP_SYS_ADMIN }
}

fn privileges(needs: &[Need]) -> Result<(), Refusal> {
    let held = caps::read(None, CapSet::Effective)
        .map_err(|error| Refusal::new(format!("cannot read this process's capabilities: {error}")))?;
    let required = required(needs);
    let missing: Vec<_> =
        required.iter().filter(|privilege| !includes(&held, privilege.capability)).collect();
    if missing.is_empty() { Ok(()) } else { Err(lacks(&missing, &required)) }
}

fn includes(held: &CapsHashSet, capability: Capability) -> bool {
    held.contains(&capability)
        || matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
            && held.contains(&Capability::CAP_SYS_ADMIN)
}

/// setcap(8) replaces what a program has, so the command names all that is required.
fn lacks(missing: &[&Privilege], required: &[Privilege]) -> Refusal {
    let list: Vec<_> =
        missing.iter().map(|privilege| format!("{} ({})", privilege.capability, privilege.purpose)).collect();
    let all: Vec<_> =
        required.iter().map(|privilege| privilege.capability.to_string().to_lowercase()).collect();
    let program =
        std::env::current_exe().map_or_else(|_| "dropwatch".into(), |path| Escaped::path(&path).to_string());
    Refusal::new(format!(
        "this process lacks {}. Run it as root (sudo {program}), or give the program what it needs once: \
         sudo setcap {}+ep {program}",
        list.join(", "),
        all.join(","),
    ))
}

/// Whether /proc/kallsyms shows addresses to processes without any privilege.
fn shown_to_all() -> bool {
    number(KPTR_RESTRICT) == Some(0) && number(PERF_PARANOID).is_some_and(|level| level <= 1)
}

/// What will work less well here, and why.
fn degraded(needs: &[Need]) -> Vec<String> {
    let mut warnings = Vec::new();
    if needs.contains(&Need::Symbols) && number(KPTR_RESTRICT).is_some_and(|level| level >= 2) {
        warnings.push(
            "the kernel hides addresses from everybody (kernel.kptr_restrict=2), so locations are printed as \
             addresses: `sysctl kernel.kptr_restrict=1` shows root their names"
                .to_owned(),
        );
    }
    warnings.extend(needs.contains(&Need::Objects).then(|| incomplete(&privileges::held())).flatten());
    warnings
}

/// What is missing to look at what drops packets, and what would give it.
fn incomplete(held: &CapsHashSet) -> Option<String> {
    let wanted = [
        Capability::CAP_NET_ADMIN,
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_SYS_PTRACE,
        Capability::CAP_DAC_READ_SEARCH,
    ];
    let missing: Vec<_> =
        wanted.iter().filter(|capability| !held.contains(capability)).map(ToString::to_string).collect();
    let all: Vec<_> = wanted.iter().map(|capability| capability.to_string().to_lowercase()).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "not all that shows the cause of drops can be looked at: this process lacks {}. Run it as root, or add {} to \
             what setcap(8) gives the program",
            missing.join(", "),
            all.join(","),
        )
    })
}

fn number(path: &str) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lockdown_for_confidentiality_is_refused_with_what_still_works() {
        let sys = tempfile::tempdir().unwrap();
        let refusal = |modes: &str| {
            fs::create_dir_all(sys.path().join("kernel/security")).unwrap();
            fs::write(sys.path().join("kernel/security/lockdown"), modes).unwrap();
            lockdown(sys.path()).err().map(|refusal| refusal.to_string())
        };
        assert_eq!(refusal("[none] integrity confidentiality\n"), None);
        assert_eq!(refusal("none [integrity] confidentiality\n"), None);
        let refusal = refusal("none integrity [confidentiality]\n").unwrap();
        assert!(refusal.contains("lockdown=confidentiality"), "{refusal}");
        assert!(refusal.contains("location and reason"), "{refusal}");
        assert!(lockdown(Path::new("/nonexistent")).is_ok(), "without securityfs nothing is known");
    }

    #[test]
    fn a_root_without_sys_is_refused_with_the_cure() {
        assert!(sysfs(Path::new("/sys")).is_ok());
        let empty = tempfile::tempdir().unwrap();
        assert!(sysfs(empty.path()).unwrap_err().to_string().contains("mount -t sysfs"));
    }

    fn set(capabilities: &[Capability]) -> CapsHashSet {
        capabilities.iter().copied().collect()
    }

    #[test]
    fn the_advice_names_all_that_is_required() {
        let required = [
            Privilege::new(Capability::CAP_BPF, "to load"),
            Privilege::new(Capability::CAP_PERFMON, "to attach"),
            Privilege::new(Capability::CAP_SYSLOG, "to name"),
        ];
        let message = lacks(&[&required[0]], &required).to_string();
        assert!(message.contains("lacks CAP_BPF (to load). Run"), "{message}");
        assert!(message.contains("setcap cap_bpf,cap_perfmon,cap_syslog+ep "), "{message}");
    }

    #[test]
    fn the_older_capability_includes_the_newer_ones() {
        let held = set(&[Capability::CAP_SYS_ADMIN]);
        assert!(includes(&held, Capability::CAP_BPF) && includes(&held, Capability::CAP_PERFMON));
        assert!(!includes(&held, Capability::CAP_SYSLOG));
        let kept = kept(&[Need::FreshMaps], &held);
        assert_eq!(kept, [Privilege::new(Capability::CAP_SYS_ADMIN, "to make room for more rows")]);
    }

    #[test]
    fn what_is_not_held_is_not_kept() {
        let needs =
            [Need::Symbols, Need::Namespaces, Need::Command, Need::Enter("to look"), Need::Statistics];
        assert_eq!(kept(&needs, &set(&[])), []);
        let kept = kept(&needs, &set(&[Capability::CAP_SYSLOG, Capability::CAP_NET_ADMIN]));
        assert_eq!(kept, [Privilege::new(Capability::CAP_SYSLOG, "to read symbols when modules change")]);
    }

    #[test]
    fn a_file_in_an_own_directory_needs_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let all = caps::all();
        assert_eq!(kept(&[Need::FreshMaps, Need::File(directory.path().join("report"))], &all).len(), 1);
    }
}
