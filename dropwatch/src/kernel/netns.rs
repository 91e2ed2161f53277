//! Which network namespace a user means: by name, number, path or `self`.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::namespaces::{HOST, Namespaces};
use crate::{
    escape::is_unsafe,
    model::{
        namespace::{Namespace, WhichNetns},
        report::Netns,
    },
};

/// Where `ip netns` mounts them.
const NAMED: &str = "/run/netns";
/// Where Docker does.
const NAMED_BY_DOCKER: &str = "/run/docker/netns";
/// The own one.
const OWN: &str = "/proc/self/ns/net";
/// The number of no namespace is below this.
const FIRST_INUM: u32 = 0xefff_fff0;

/// The namespace that is `self`, or has a number, or is at a path; or those that have a name.
///
/// # Errors
/// There is none, and cannot be: why, and what to write.
pub fn which(text: &str, namespaces: &Namespaces) -> Result<WhichNetns, String> {
    let one = |path: &str| namespaces.identify(Path::new(path)).map(WhichNetns::One);
    match text {
        "self" => one(OWN).map_err(|error| format!("{OWN}: {error}")),
        path if path.contains('/') => one(path).map_err(|error| wrong_path(path, &error)),
        "" | "." | ".." => Err("a network namespace has a name".to_owned()),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            numbered(digits, namespaces).map(WhichNetns::One)
        }
        name => {
            Ok(described(name, namespaces)?
                .map_or_else(|| WhichNetns::Named(name.to_owned()), WhichNetns::One))
        }
    }
}

/// The namespace that reports describe in this way, as the host's or by a process in it, unless it is a name.
fn described(name: &str, namespaces: &Namespaces) -> Result<Option<Namespace>, String> {
    namespaces.refresh();
    if !namespaces.bearers(name).is_empty() {
        return Ok(None);
    }
    if name == HOST {
        return Ok(namespaces.host());
    }
    let Some((command, pid)) = name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) else {
        return Ok(None);
    };
    let process = Path::new("/proc").join(pid);
    let comm = fs::read(process.join("comm")).unwrap_or_default();
    if pid.parse::<u32>().is_err() || comm.strip_suffix(b"\n") != Some(command.as_bytes()) {
        return Err(format!(
            "there is no process {name} now, and no network namespace of that name: write the namespace's number, which \
             reports print in front of it"
        ));
    }
    let path = process.join("ns/net");
    let identified = namespaces.identify(&path);
    identified.map(Some).map_err(|error| wrong_path(&path.to_string_lossy(), &error))
}

fn wrong_path(path: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{path}: {error} (a path is looked up once, at the start; a name may appear later: write the name alone)"
        ),
        _ => format!("{path}: {error}"),
    }
}

/// The namespace with an inode number, if one is found: some have no name and no process that we may inspect.
fn numbered(digits: &str, namespaces: &Namespaces) -> Result<Namespace, String> {
    let path = Path::new(NAMED).join(digits);
    let named = if path.exists() {
        format!("; for the one called '{digits}' write {}", path.display())
    } else {
        String::new()
    };
    let inum = digits.parse().ok().filter(|inum| *inum >= FIRST_INUM).ok_or_else(|| {
        let process = PathBuf::from("/proc").join(digits).join("ns/net");
        let of_process = if named.is_empty() && process.parent().is_some_and(Path::exists) {
            format!("; for that of process {digits} write {}", process.display())
        } else {
            String::new()
        };
        format!("no network namespace has the number {digits}{named}{of_process}")
    })?;
    Ok(namespaces.numbered(inum).unwrap_or(Namespace { inum, cookie: 0 }))
}

/// The words before a command that run it in a network namespace; none in front of one that is run in the own one.
///
/// By a name that `ip netns` knows, else by where it is mounted, else by a process that is in it.
#[must_use]
pub fn entering(netns: &Netns) -> Option<Vec<String>> {
    let is_it =
        |path: &Path| fs::metadata(path).is_ok_and(|file| file.ino() == u64::from(netns.namespace.inum));
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    if is_it(Path::new(OWN)) {
        return words(&[]);
    }
    let name = netns.name.as_ref()?.text();
    if !name.contains(is_unsafe) && !name.contains('/') {
        if is_it(&Path::new(NAMED).join(&*name)) && !name.starts_with('-') {
            return words(&["ip", "netns", "exec", &name]);
        }
        if is_it(&Path::new(NAMED_BY_DOCKER).join(&*name)) {
            return words(&["nsenter", &format!("--net={NAMED_BY_DOCKER}/{name}")]);
        }
    }
    let named = if name == HOST {
        Some("1")
    } else {
        name.strip_suffix(']').and_then(|name| Some(name.rsplit_once('[')?.1))
    };
    let has_process =
        |pid: &str| pid.parse::<u32>().is_ok() && is_it(&Path::new("/proc").join(pid).join("ns/net"));
    if let Some(pid) = named.filter(|pid| has_process(pid)) {
        return words(&["nsenter", "-t", pid, "-n"]);
    }
    // It is called after a container.
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let pid = pids.find(|pid| has_process(pid))?;
    words(&["nsenter", "-t", &pid, "-n"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::namespaces::tests::of_this_host;

    fn problem(text: &str) -> String {
        which(text, &of_this_host()).expect_err(text)
    }

    #[test]
    fn a_namespace_is_entered_by_a_process_unless_it_is_the_own_one() {
        let own = fs::metadata(OWN).expect("the own namespace").ino();
        let netns = |inum: u64, name: &str| {
            let namespace = Namespace { inum: u32::try_from(inum).expect("a number"), cookie: 0 };
            Netns { namespace, name: Some(name.into()), names: Vec::new() }
        };
        assert_eq!(entering(&netns(own, "whatever")), Some(Vec::new()));
        // The process is there and is in another one.
        let process = format!("cat[{}]", std::process::id());
        for name in [&process, "x", "host", "cat[99999999999]", "../../proc/self/ns/net", "[1]", "]"] {
            assert_eq!(entering(&netns(own - 1, name)), None, "{name}");
        }
    }

    #[test]
    fn a_namespace_is_found_by_its_path() {
        let namespaces = of_this_host();
        let own = which("self", &namespaces).expect("the own namespace");
        assert_eq!(which("/proc/self/ns/net", &namespaces), Ok(own.clone()));
        let WhichNetns::One(namespace) = own else { panic!("{own:?}") };
        assert_eq!(which(&namespace.inum.to_string(), &namespaces), Ok(WhichNetns::One(namespace)));
        for path in ["/proc/self/status", "/proc/self/ns/mnt", "/dev/null"] {
            assert!(problem(path).contains("not a network namespace"), "{path}");
        }
        assert!(problem("/no/such").contains("/no/such"));
        assert!(problem("..").contains("has a name"));
    }

    #[test]
    fn a_name_may_appear_later() {
        assert_eq!(which("no-such", &of_this_host()), Ok(WhichNetns::Named("no-such".into())));
    }

    #[test]
    fn what_reports_print_is_found() {
        let namespaces = of_this_host();
        let own = which("self", &namespaces).expect("the own namespace");
        let comm = fs::read_to_string("/proc/self/comm").expect("a name");
        let (comm, pid) = (comm.trim_end(), std::process::id());
        assert_eq!(which(&format!("{comm}[{pid}]"), &namespaces), Ok(own));
        assert!(problem(&format!("not-{comm}[{pid}]")).contains("no process"));
        let host = which(HOST, &namespaces).expect("it may be hidden");
        match namespaces.host() {
            Some(namespace) => assert_eq!(host, WhichNetns::One(namespace)),
            None => assert_eq!(host, WhichNetns::Named(HOST.into())),
        }
    }

    #[test]
    fn the_number_of_a_process_is_none_of_a_namespace() {
        let pid = std::process::id();
        let problem = problem(&pid.to_string());
        assert!(problem.contains(&format!("write /proc/{pid}/ns/net")), "{problem}");
    }
}
