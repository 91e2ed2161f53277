//! Containers and services, by the paths of their cgroups.

use serde::Serialize;

use super::foreign::Foreign;

/// How much of a container's number is shown, as runtimes do.
const SHORT: usize = 12;
/// How long it is.
const LONG: usize = 64;

/// What a process runs in.
///
/// A container has a name and a number, a systemd unit only a name; anything else is named after its cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The host name inside, if it has one of its own, else the start of its number; or the unit.
    pub name: Foreign,
    /// The container's number.
    pub id: Option<String>,
    /// Who runs it: `docker`, `containerd`, `cri-o`, `podman`, `lxc`, `kubernetes`, `systemd`.
    pub runtime: Option<&'static str>,
    /// The number of the Kubernetes pod it is in.
    pub pod: Option<String>,
    /// The path of its cgroup.
    pub cgroup: Foreign,
}

/// What a part of a path says.
enum Part {
    Container(&'static str, String),
    Named(&'static str, Foreign),
}

impl Container {
    /// What the path of a cgroup says; `hostname` is the name that a process inside sees, if it differs from the host's.
    #[must_use]
    pub fn of(path: &Foreign, hostname: Option<&Foreign>) -> Self {
        let parts: Vec<&[u8]> =
            path.bytes().split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
        let pod = parts.iter().rev().find_map(|part| pod(part));
        // The innermost: containers run in containers.
        let container = (0..parts.len()).rev().find_map(|index| {
            let parent = index.checked_sub(1).map_or(&b""[..], |parent| parts[parent]);
            container(parts[index], parent)
        });
        let (name, id, runtime) = match container {
            Some(Part::Container(runtime, id)) => {
                let name = hostname.cloned().unwrap_or_else(|| Foreign::from(&id[..SHORT]));
                (name, Some(id), Some(runtime))
            }
            Some(Part::Named(runtime, name)) => (name, None, Some(runtime)),
            None => match parts.iter().rev().find(|part| is_unit(part)) {
                Some(unit) => (Foreign::from(*unit), None, Some("systemd")),
                None => (path.clone(), None, None),
            },
        };
        Self { name, id, runtime, pod, cgroup: path.clone() }
    }

    /// Whether it is a container, and not a service or just a cgroup.
    #[must_use]
    pub fn is_container(&self) -> bool {
        !matches!(self.runtime, None | Some("systemd"))
    }
}

/// The container that a part of a path stands for, if its parent does not make it something else.
fn container(part: &[u8], parent: &[u8]) -> Option<Part> {
    const SCOPES: [(&str, &str); 5] = [
        ("docker-", "docker"),
        ("cri-containerd-", "containerd"),
        ("nerdctl-", "containerd"),
        ("crio-", "cri-o"),
        ("libpod-", "podman"),
    ];
    let part = std::str::from_utf8(part).ok()?;
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in SCOPES {
        if let Some(id) = bare.strip_prefix(prefix).and_then(number) {
            return Some(Part::Container(runtime, id));
        }
    }
    // `kubepods-besteffort-pod….slice:cri-containerd:…`, as containerd makes it of a slice that it takes for a path.
    if let [_, runtime, id] = part.split(':').collect::<Vec<_>>()[..] {
        let runtime = SCOPES.iter().find(|(prefix, _)| prefix.strip_suffix('-') == Some(runtime))?.1;
        return number(id).map(|id| Part::Container(runtime, id));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(Part::Named("lxc", name.into()));
    }
    let id = number(part)?;
    if parent == b"docker" {
        return Some(Part::Container("docker", id));
    }
    pod(parent).map(|_| Part::Container("kubernetes", id))
}

/// A container's number, if it is one.
fn number(text: &str) -> Option<String> {
    (text.len() == LONG && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

/// The number of the pod that a part of a path stands for: `pod…`, or `kubepods-burstable-pod….slice` with underlines.
fn pod(part: &[u8]) -> Option<String> {
    let part = std::str::from_utf8(part).ok()?;
    let part = part.split(':').next()?;
    let (bare, is_slice) = match part.strip_suffix(".slice") {
        Some(bare) => (bare, true),
        None => (part, false),
    };
    let start = if is_slice && bare.starts_with("kubepods") { bare.rfind("-pod")? + 1 } else { 0 };
    let id = bare[start..].strip_prefix("pod")?.replace('_', "-");
    let is_id = id.len() >= 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_id.then_some(id)
}

/// Whether a part of a path is a unit of systemd in which processes are.
fn is_unit(part: &[u8]) -> bool {
    [&b".service"[..], b".scope", b".socket", b".mount", b".swap"].iter().any(|suffix| part.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f5e6d7c8b9a0123456789abcdef0123456789abcdef0123456789abcdef0123";
    const POD: &str = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

    fn of(path: &str) -> Container {
        let path = path.replace("ID", ID).replace("POD_", &POD.replace('-', "_")).replace("POD", POD);
        Container::of(&path.as_str().into(), None)
    }

    #[test]
    fn containers_are_known_by_their_cgroups() {
        for (path, runtime) in [
            ("/system.slice/docker-ID.scope", "docker"),
            ("/docker/ID", "docker"),
            ("/docker/ID/system.slice/nginx.service", "docker"),
            ("/system.slice/nerdctl-ID.scope", "containerd"),
            ("/machine.slice/libpod-ID.scope/container", "podman"),
            ("/libpod_parent/libpod-ID", "podman"),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podPOD_.slice/cri-containerd-ID.scope",
                "containerd",
            ),
            ("/kubepods.slice/kubepods-podPOD_.slice/crio-ID.scope", "cri-o"),
            (
                "/system.slice/containerd.service/kubepods-besteffort-podPOD_.slice:cri-containerd:ID",
                "containerd",
            ),
            ("/kubepods/burstable/podPOD/ID", "kubernetes"),
        ] {
            let container = of(path);
            assert_eq!((container.runtime, container.id.as_deref()), (Some(runtime), Some(ID)), "{path}");
            assert_eq!(container.name, *"4f5e6d7c8b9a", "{path}");
            assert_eq!(container.pod.as_deref(), path.contains("kubepods").then_some(POD), "{path}");
            assert!(container.is_container(), "{path}");
        }
    }

    #[test]
    fn services_and_sessions_are_units() {
        for (path, unit) in [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            ("/system.slice/nginx.service/workers", "nginx.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-editor.scope", "app-editor.scope"),
            // What podman and CRI-O watch their containers with runs beside them.
            ("/machine.slice/libpod-conmon-ID.scope", &format!("libpod-conmon-{ID}.scope")),
        ] {
            let container = of(path);
            assert_eq!(
                (container.name.text().as_ref(), container.runtime),
                (unit, Some("systemd")),
                "{path}"
            );
            assert_eq!((container.id.as_deref(), container.is_container()), (None, false), "{path}");
        }
    }

    #[test]
    fn anything_else_is_its_path() {
        for path in
            ["/", "/user.slice", "/docker/short", "/mine/ID", "/docker-xyz.slice", "/podcast/ID", "/a:b:c"]
        {
            let container = of(path);
            assert_eq!(container.name, container.cgroup, "{path}");
            assert_eq!((container.id, container.runtime, container.pod), (None, None, None), "{path}");
        }
        assert_eq!(of("/lxc.payload.web/init.scope").name, *"web");
    }

    #[test]
    fn a_container_is_called_what_it_calls_itself() {
        let path = format!("/docker/{ID}").as_str().into();
        let named = Container::of(&path, Some(&"web-7d9f".into()));
        assert_eq!((named.name, named.id.as_deref()), ("web-7d9f".into(), Some(ID)));
        let service = Container::of(&"/system.slice/a.service".into(), Some(&"web-7d9f".into()));
        assert_eq!(service.name, *"a.service", "a unit has its own name");
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_a_name(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let path = Foreign::from(bytes);
            proptest::prop_assert_eq!(Container::of(&path, None).cgroup, path);
        }
    }
}
