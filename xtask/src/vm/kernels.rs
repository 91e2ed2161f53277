//! Which kernels are booted, and which packages they are in.

use std::cmp::Reverse;

use crate::arch::Arch;

/// A line of kernels to test on: the newest of it that its suites have.
#[derive(Debug)]
pub struct Series {
    /// What `--kernel` takes.
    pub name: &'static str,
    /// What its versions begin with.
    prefix: &'static str,
    /// Its configuration, as the end of a package's name.
    flavour: &'static str,
    pub arch: Arch,
    /// The suites of Debian to look in.
    pub suites: &'static [&'static str],
    /// Why it is tested.
    pub why: &'static str,
    /// The only tests to run, by what is in their names.
    pub only: Option<&'static str>,
    /// Tests that are left out, by what is in their names: emulation is slow.
    pub left_out: &'static [&'static [&'static str]],
    pub booted: Booted,
}

/// When a kernel is booted without being named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Booted {
    /// By its name alone: it is slow, and much like another one.
    ByName,
    /// With the checks of the sources: its programs have to be compiled for it.
    WithSources,
    /// With each test of all kernels.
    Always,
}

/// What no kernel changes: what is printed and served, the terminal, signals and files. This machine's kernel runs it.
const OUTPUT: &[&str] = &[
    "altnames::",
    "capture::trace_samples_",
    "capture::trace_takes_",
    "capture::trace_without_",
    "explain::",
    "files::",
    "page::",
    "serve::",
    "signals::",
    "table::",
    "trace::a_",
    "trace::ends_",
    "trace::shown_",
    "trace::without_",
];

/// Whose names things have, in reports and in the rules of a check: the oldest kernel has other means for it.
const NAMES: &[&str] = &["check::", "names::", "trace::any_"];

/// What the oldest and the newest kernel do not change, no kernel between them does: what is permitted, and what is read
/// from files and sockets of the kernel for what is staged.
const ENDS: &[&str] = &[
    "counters::",
    "dig::a_tree_",
    "evidence::",
    "hostile::",
    "incidents::",
    "privileges::",
    "processors::",
    "program::",
];

/// What the probe does on Linux 6.12 as on any newer kernel: there is no other way of reading a packet between them.
const NEW: &[&str] = &["counts::", "filter::", "healthy::", "keys::", "objects::"];

/// What all kernels are tested with.
const CLOUD: Series = Series {
    name: "",
    prefix: "",
    flavour: "-cloud-amd64",
    arch: Arch::X86,
    suites: &[],
    why: "",
    only: None,
    left_out: &[OUTPUT, NAMES, ENDS],
    booted: Booted::Always,
};

/// Where Linux 6.12 is.
const NEWER: &[&str] = &["bookworm-security", "bookworm-backports"];

/// Oldest first, then those that are not always booted: with them, all checks together would take half as long again.
pub static SERIES: [Series; 7] = [
    Series {
        name: "5.10",
        prefix: "5.10.",
        suites: &["bullseye-security", "bullseye"],
        why: "no drop reasons, no recursion guard",
        left_out: &[OUTPUT],
        ..CLOUD
    },
    Series {
        name: "6.1",
        prefix: "6.1.",
        suites: &["bookworm-security", "bookworm"],
        why: "drop reasons, one argument fewer than today",
        ..CLOUD
    },
    Series {
        name: "6.12",
        prefix: "6.12.",
        suites: NEWER,
        why: "reasons of subsystems, the receiving socket as an argument",
        left_out: &[OUTPUT, NAMES, ENDS, NEW],
        ..CLOUD
    },
    Series {
        name: "7",
        prefix: "7.",
        suites: &["forky"],
        why: "the newest that is packaged",
        left_out: &[OUTPUT, NAMES],
        ..CLOUD
    },
    Series {
        name: "rt",
        prefix: "6.12.",
        flavour: "-rt-amd64",
        suites: NEWER,
        why: "a real-time kernel, whose softirqs are threads and can be preempted",
        booted: Booted::ByName,
        ..CLOUD
    },
    Series {
        name: "generic",
        prefix: "6.12.",
        flavour: "-amd64",
        suites: NEWER,
        why: "the configuration of machines that are not virtual",
        booted: Booted::ByName,
        ..CLOUD
    },
    Series {
        name: "arm64",
        prefix: "6.12.",
        flavour: "-cloud-arm64",
        arch: Arch::Arm,
        suites: NEWER,
        why: "another processor; only the cases that inject drops",
        only: Some("inject::"),
        booted: Booted::WithSources,
        ..CLOUD
    },
];

/// The packages of one kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Packages {
    /// What `uname -r` says.
    pub release: String,
    /// Everything to unpack.
    pub names: Vec<String>,
}

impl Series {
    /// The kernels of this series among the names of packages, newest first: an archive may list what it does not have.
    pub fn candidates(&self, available: &[String]) -> Vec<Packages> {
        let mut images: Vec<_> =
            available.iter().filter_map(|name| Some((self.release(name)?, name))).collect();
        // Signed ones first: where only one of the two is left, it is that one.
        images.sort_by_key(|(release, name)| (Reverse(numbers(release)), name.ends_with(UNSIGNED)));
        images.into_iter().map(|(release, image)| Packages::new(release, image, available)).collect()
    }

    /// What `uname -r` says of the kernel in a package, if it is of this series.
    fn release<'a>(&self, package: &'a str) -> Option<&'a str> {
        let name = package.strip_prefix("linux-image-")?;
        let release = name.strip_suffix(UNSIGNED).unwrap_or(name);
        let version = release.strip_prefix(self.prefix)?.strip_suffix(self.flavour)?;
        // Another configuration's name may end like this one's.
        let is_another = version.contains("-cloud") || version.contains("-rt");
        (!is_another).then_some(release)
    }
}

/// The end of the name of an image without a signature.
const UNSIGNED: &str = "-unsigned";

impl Packages {
    fn new(release: &str, image: &str, available: &[String]) -> Self {
        // Newer packages have the modules and the kernel itself beside the image.
        let companions =
            ["linux-binary-", "linux-modules-", "linux-base-"].map(|kind| format!("{kind}{release}"));
        let companions = companions.into_iter().filter(|name| available.contains(name));
        let names = std::iter::once(image.to_string()).chain(companions).collect();
        Self { release: release.to_string(), names }
    }
}

/// The numbers in a release, which order the kernels of one series.
fn numbers(release: &str) -> Vec<u64> {
    let end = release.rfind("amd64").or_else(|| release.rfind("arm64")).unwrap_or(release.len());
    release[..end].split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn series(name: &str) -> &'static Series {
        SERIES.iter().find(|series| series.name == name).unwrap()
    }

    /// Numbers are compared as numbers, and neither metapackages nor debug symbols are kernels.
    #[test]
    fn the_newest_version_wins() {
        let available = names(&[
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-55-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-dbg",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.12.90-cloud-amd64",
        ]);
        let newest = series("6.1").candidates(&available);
        let releases: Vec<_> = newest.iter().map(|packages| &*packages.release).collect();
        assert_eq!(releases, ["6.1.0-56-cloud-amd64", "6.1.0-55-cloud-amd64", "6.1.0-9-cloud-amd64"]);
        assert_eq!(newest[0].names, ["linux-image-6.1.0-56-cloud-amd64-unsigned"]);
        assert_eq!(series("5.10").candidates(&available), []);
    }

    /// A rebuild has one number more, and is newer.
    #[test]
    fn a_rebuild_is_newer() {
        let available =
            names(&["linux-image-6.12.90+deb12.1-cloud-amd64", "linux-image-6.12.90+deb12-cloud-amd64"]);
        assert_eq!(series("6.12").candidates(&available)[0].release, "6.12.90+deb12.1-cloud-amd64");
    }

    /// Where the kernel is split into packages, all of them are taken.
    #[test]
    fn split_packages_come_together() {
        let available = names(&[
            "linux-base-7.2.12+deb14-cloud-amd64",
            "linux-binary-7.2.12+deb14-cloud-amd64",
            "linux-image-7.2.12+deb14-cloud-amd64",
            "linux-modules-7.2.12+deb14-cloud-amd64",
            "linux-modules-7.2.11+deb14-cloud-amd64",
        ]);
        let newest = &series("7").candidates(&available)[0];
        assert_eq!(newest.names.len(), 4);
        assert!(!newest.names.contains(&"linux-modules-7.2.11+deb14-cloud-amd64".to_string()));
    }

    /// A package index may still list an image that has gone, while the same kernel's signed one is there.
    #[test]
    fn the_signed_image_comes_first() {
        let available = names(&[
            "linux-image-5.10.0-46-cloud-amd64-unsigned",
            "linux-image-5.10.0-46-cloud-amd64",
            "linux-image-5.10.0-45-cloud-amd64",
        ]);
        let candidates = series("5.10").candidates(&available);
        let images: Vec<_> = candidates.iter().map(|packages| &*packages.names[0]).collect();
        assert_eq!(
            images,
            [
                "linux-image-5.10.0-46-cloud-amd64",
                "linux-image-5.10.0-46-cloud-amd64-unsigned",
                "linux-image-5.10.0-45-cloud-amd64",
            ]
        );
    }

    /// A generic kernel's name ends as a real-time one's does.
    #[test]
    fn configurations_are_told_apart() {
        let available = names(&[
            "linux-image-6.12.90+deb12-amd64",
            "linux-image-6.12.91+deb12-rt-amd64",
            "linux-image-6.12.92+deb12-cloud-amd64",
            "linux-image-6.12.93+deb12-cloud-arm64",
        ]);
        let release = |name| series(name).candidates(&available)[0].release.clone();
        assert_eq!(release("generic"), "6.12.90+deb12-amd64");
        assert_eq!(release("rt"), "6.12.91+deb12-rt-amd64");
        assert_eq!(release("6.12"), "6.12.92+deb12-cloud-amd64");
        assert_eq!(release("arm64"), "6.12.93+deb12-cloud-arm64");
    }
}
