//! Whose drops a filter or a rule means: a process's, a container's, those of a cgroup.

use super::{
    container::Container,
    foreign::Foreign,
    socket::{Ownership, Process},
};

/// How many letters of a container's number are enough.
const ENOUGH: usize = 12;
/// Where cgroups are mounted, usually: beside those of the first version, and alone.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// What a filter's term names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// A process, by its name or its number, or by both as reports show them.
    Process(String),
    /// A container or a service, as reports show it, or the number of the container or its start, or the path of its
    /// cgroup.
    Container(String),
    /// A cgroup or any below it.
    Cgroup(String),
}

/// Whose drops are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The process.
    pub process: Ownership,
    /// What it runs in.
    pub container: Option<Container>,
    /// Whether that there is none is certain.
    pub is_container_known: bool,
}

/// What is in no container, for certain.
impl From<Ownership> for Owned {
    fn from(process: Ownership) -> Self {
        Self { process, container: None, is_container_known: true }
    }
}

impl Belonging {
    /// A cgroup by its path, in the hierarchy or in the file system.
    ///
    /// # Errors
    /// It is no path.
    pub fn cgroup(path: &str) -> Result<Self, String> {
        let inside = CGROUPS.iter().find_map(|mount| path.strip_prefix(mount)).unwrap_or(path);
        let inside = inside.trim_end_matches('/');
        if !path.starts_with('/') {
            return Err(format!(
                "'{path}' is not the path of a cgroup: it begins with '/', as in /proc/PID/cgroup"
            ));
        }
        Ok(Self::Cgroup(if inside.is_empty() { "/" } else { inside }.to_owned()))
    }

    /// The word for it, and the name.
    #[must_use]
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Process(name) => ("process", name),
            Self::Container(name) => ("container", name),
            Self::Cgroup(path) => ("cgroup", path),
        }
    }

    /// Whether drops are meant; unknown if whose they are is not known.
    #[must_use]
    pub fn means(&self, owned: &Owned) -> Option<bool> {
        let Owned { process, container, is_container_known } = owned;
        match (self, container) {
            (Self::Process(wanted), _) => is_process(wanted, process),
            (_, None) => is_container_known.then_some(false),
            (Self::Container(wanted), Some(container)) => Some(is_container(wanted, container)),
            (Self::Cgroup(path), Some(container)) => Some(is_below(path, &container.cgroup)),
        }
    }
}

/// Whether drops are a process's; unknown if whose they are is not known.
#[must_use]
pub fn is_process(wanted: &str, owner: &Ownership) -> Option<bool> {
    match owner {
        Ownership::Process(Process { pid, comm, .. }) => {
            Some(*comm == *wanted || wanted.parse() == Ok(*pid) || format!("{comm}[{pid}]") == *wanted)
        }
        Ownership::Kernel => Some(wanted == "kernel"),
        Ownership::Nobody => Some(false),
        Ownership::Unknown => None,
    }
}

/// Whether a container is the one that is meant.
#[must_use]
pub fn is_container(wanted: &str, container: &Container) -> bool {
    let id = container.id.as_deref();
    container.name == *wanted
        || container.cgroup == *wanted
        || id.is_some_and(|id| wanted.len() >= ENOUGH && id.starts_with(wanted))
}

fn is_below(path: &str, cgroup: &Foreign) -> bool {
    let rest = if path == "/" { Some(&b"/"[..]) } else { cgroup.bytes().strip_prefix(path.as_bytes()) };
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(cgroup: Option<&str>) -> Owned {
        let process = Process { pid: 812, comm: "nginx".into(), others: 1 };
        let container = cgroup.map(|path| Container::of(&path.into(), None));
        Owned { process: Ownership::Process(process), container, is_container_known: false }
    }

    #[test]
    fn a_process_is_found_by_name_or_number() {
        for (wanted, is_it) in
            [("nginx", true), ("812", true), ("nginx[812]", true), ("ngin", false), ("81", false)]
        {
            assert_eq!(Belonging::Process(wanted.into()).means(&owned(None)), Some(is_it), "{wanted}");
        }
        let unknown = Owned { process: Ownership::Unknown, ..owned(None) };
        assert_eq!(Belonging::Process("nginx".into()).means(&unknown), None);
        assert_eq!(Belonging::Container("nginx".into()).means(&unknown), None);
    }

    #[test]
    fn a_cgroup_includes_those_below_it() {
        let of = |path: &str, cgroup: &str| {
            Belonging::cgroup(path).expect("a path").means(&owned(Some(cgroup))).expect("known")
        };
        assert!(of("/system.slice", "/system.slice"));
        assert!(of("/sys/fs/cgroup/system.slice/", "/system.slice/cron.service"));
        assert!(of("/sys/fs/cgroup/unified/a", "/a/b"));
        assert!(of("/", "/system.slice"));
        assert!(!of("/system.slice", "/system.slices"));
        assert!(!of("/system.slice/cron.service", "/system.slice"));
        assert!(Belonging::cgroup("system.slice").is_err());
    }
}
