//! Which kernels are booted, and which packages they are in.

/// A line of kernels to test on: the newest of it that its suites have.
#[derive(Debug)]
pub struct Series {
    /// What `--kernel` takes.
    pub name: &'static str,
    /// What its versions begin with.
    prefix: &'static str,
    /// The suites of Debian to look in.
    pub suites: &'static [&'static str],
    /// Why it is tested.
    pub why: &'static str,
}

/// Oldest first.
pub static SERIES: [Series; 4] = [
    Series {
        name: "5.10",
        prefix: "5.10.",
        suites: &["bullseye-security", "bullseye"],
        why: "no drop reasons, no recursion guard",
    },
    Series {
        name: "6.1",
        prefix: "6.1.",
        suites: &["bookworm-security", "bookworm"],
        why: "drop reasons, one argument fewer than today",
    },
    Series {
        name: "6.12",
        prefix: "6.12.",
        suites: &["bookworm-security", "bookworm-backports"],
        why: "reasons of subsystems, the receiving socket as an argument",
    },
    Series { name: "7", prefix: "7.", suites: &["forky"], why: "the newest that is packaged" },
];

/// The packages of one kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Packages {
    /// What `uname -r` says.
    pub release: String,
    /// All that is to be unpacked.
    pub names: Vec<String>,
}

impl Series {
    /// The newest kernel of this series among the names of packages.
    pub fn newest(&self, available: &[String]) -> Option<Packages> {
        let image = available.iter().filter(|name| self.is_image(name)).max_by_key(|name| version(name))?;
        let release = image.trim_start_matches("linux-image-").trim_end_matches("-unsigned").to_string();
        // Newer packages have the modules and the kernel itself beside the image.
        let companions =
            ["linux-binary-", "linux-modules-", "linux-base-"].map(|kind| format!("{kind}{release}"));
        let companions = companions.into_iter().filter(|name| available.contains(name));
        let names = std::iter::once(image.clone()).chain(companions).collect();
        Some(Packages { release, names })
    }

    fn is_image(&self, package: &str) -> bool {
        let Some(version) = package.strip_prefix("linux-image-") else { return false };
        let version = version.strip_suffix("-unsigned").unwrap_or(version);
        version.starts_with(self.prefix) && version.ends_with("-cloud-amd64")
    }
}

/// The numbers in a package's name, which order the kernels of one series.
fn version(package: &str) -> Vec<u64> {
    let name = package.trim_end_matches("-unsigned").trim_end_matches("-cloud-amd64");
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
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
        let newest = series("6.1").newest(&available).unwrap();
        assert_eq!(newest.release, "6.1.0-56-cloud-amd64");
        assert_eq!(newest.names, ["linux-image-6.1.0-56-cloud-amd64-unsigned"]);
        assert_eq!(series("5.10").newest(&available), None);
    }

    /// A rebuild has one number more, and is newer.
    #[test]
    fn a_rebuild_is_newer() {
        let available =
            names(&["linux-image-6.12.90+deb12.1-cloud-amd64", "linux-image-6.12.90+deb12-cloud-amd64"]);
        assert_eq!(series("6.12").newest(&available).unwrap().release, "6.12.90+deb12.1-cloud-amd64");
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
        let newest = series("7").newest(&available).unwrap();
        assert_eq!(newest.names.len(), 4);
        assert!(!newest.names.contains(&"linux-modules-7.2.11+deb14-cloud-amd64".to_string()));
    }
}
