//! Packages of other suites of Debian, without a trace in the system's own package lists.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{arch::Arch, command};

/// The keys of Debian's archive, newer suites' included as far as the package is new.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lists younger than this are not fetched again.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// Where this machine gets Debian from.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirror {
    archive: String,
    security: String,
}

impl Mirror {
    /// The mirror that the system's own sources name.
    pub fn of_system() -> Result<Self> {
        let mut list = Command::new("apt-get");
        list.args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME)",
            "Created-By: Packages",
            "Origin: Debian",
        ]);
        let list = command::output(&mut list).context("kernels are Debian packages, which need apt-get")?;
        Self::from_targets(&list).context(
            "apt's sources name no mirror of Debian that was read so far: add one, or only run `apt-get update`",
        )
    }

    /// Reads lines of an address and a suite's name.
    fn from_targets(list: &str) -> Option<Self> {
        let find = |security: bool| {
            let mut targets = list.lines().filter_map(|line| line.split_once(' '));
            targets
                .find(|(_, suite)| suite.ends_with("-security") == security)
                .map(|(uri, _)| uri.to_string())
        };
        let archive = find(false)?;
        // A machine without security updates has a mirror of them beside the archive's, as a rule.
        let security = find(true).unwrap_or_else(|| format!("{}-security/", archive.trim_end_matches('/')));
        Some(Self { archive, security })
    }

    fn of_suite(&self, suite: &str) -> &str {
        if suite.ends_with("-security") { &self.security } else { &self.archive }
    }
}

/// A directory of the cache, which is outside the repository: what is downloaded outlives a clone.
pub fn cache(name: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    cache.unwrap_or_else(|| home().join(".cache")).join("dropwatch").join(name)
}

/// The suites that this system's packages are from.
pub fn suites_here() -> Result<[String; 2]> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no suite of Debian")?.trim_matches('"');
    Ok([format!("{codename}-security"), codename.to_string()])
}

/// An apt with lists of its own.
pub struct Apt {
    dir: PathBuf,
    arch: Arch,
}

impl Apt {
    /// An apt in `dir` that knows `suites` of one architecture, and nothing else.
    pub fn new(dir: &Path, mirror: &Mirror, suites: &[&str], arch: Arch) -> Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))
                .with_context(|| format!("cannot create {}/{sub}", dir.display()))?;
        }
        let apt = Self { dir: dir.to_path_buf(), arch };
        apt.write("status", "")?;
        if Path::new(KEYRING).exists() {
            apt.write("sources.list", &sources(mirror, suites, arch, &format!("signed-by={KEYRING}")))?;
            match apt.update() {
                // A suite that is signed with newer keys than this machine has.
                Err(error) if format!("{error:#}").contains("NO_PUBKEY") => {}
                done => return done.map(|()| apt),
            }
        }
        eprintln!(
            "warning: the signature of {} cannot be checked here (newer keys: package debian-archive-keyring); its \
             kernel runs in a virtual machine only",
            suites.join(", ")
        );
        apt.write("sources.list", &sources(mirror, suites, arch, "trusted=yes"))?;
        apt.update()?;
        Ok(apt)
    }

    fn write(&self, name: &str, contents: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
    }

    fn command(&self, program: &str) -> Command {
        // Do not wait for ever for a mirror that stops answering.
        let mut apt = Command::new("timeout");
        apt.args(["900", program]);
        for (option, path) in [
            ("Dir::State::Lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Cache", "cache"),
        ] {
            apt.arg("-o").arg(format!("{option}={}", self.dir.join(path).display()));
        }
        apt.args(["-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Acquire::Languages=none"]);
        for option in ["APT::Architecture", "APT::Architectures"] {
            apt.arg("-o").arg(format!("{option}={}", self.arch.debian()));
        }
        // A mirror that stands still has kernels that are good enough. Signatures are checked all the same.
        apt.args(["-o", "Acquire::Check-Valid-Until=false"]);
        // The files are in the user's own cache, where apt's sandbox user may not go.
        apt.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=2"]);
        apt
    }

    /// Fetches the lists, unless they are of today or there is no network and there are older ones.
    fn update(&self) -> Result<()> {
        let stamp = self.dir.join("updated");
        let sources = fs::read_to_string(self.dir.join("sources.list")).unwrap_or_default();
        let last = fs::read_to_string(&stamp).is_ok_and(|of| of == sources);
        let age =
            fs::metadata(&stamp).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if last && age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        match command::output(self.command("apt-get").args(["-o", "APT::Update::Error-Mode=any", "update"])) {
            Ok(_) => self.write("updated", &sources),
            Err(error) if last => {
                eprintln!("warning: with package lists of an earlier day: {error:#}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The names of all packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = command::output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(ToString::to_string).collect())
    }

    /// Downloads packages and unpacks them into `to`; nothing runs, and nothing is installed.
    pub fn unpack(&self, packages: &[String], to: &Path) -> Result<()> {
        let debs = to.join("debs");
        fs::create_dir_all(&debs).with_context(|| format!("cannot create {}", debs.display()))?;
        command::output(self.command("apt-get").arg("download").args(packages).current_dir(&debs))?;
        let count = extract(&debs, to)?;
        if count != packages.len() {
            bail!("of {} packages apt-get downloaded {count}", packages.len());
        }
        fs::remove_dir_all(&debs).with_context(|| format!("cannot remove {}", debs.display()))
    }

    /// The same with all that they depend on.
    pub fn unpack_with_dependencies(&self, packages: &[&str], to: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        download.args(["install", "--download-only", "--yes", "--no-install-recommends"]).args(packages);
        command::output(&mut download)?;
        extract(&self.dir.join("cache/archives"), to)?;
        Ok(())
    }
}

/// Unpacks all packages of a directory, and returns how many these were.
fn extract(debs: &Path, to: &Path) -> Result<usize> {
    let mut count = 0;
    for deb in fs::read_dir(debs).with_context(|| format!("cannot read {}", debs.display()))? {
        let deb = deb?.path();
        if deb.extension().is_some_and(|kind| kind == "deb") {
            command::output(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(to))?;
            count += 1;
        }
    }
    Ok(count)
}

/// The lines of a sources.list.
fn sources(mirror: &Mirror, suites: &[&str], arch: Arch, trust: &str) -> String {
    // Nothing but the lists of packages: contents and translations are larger than they are useful.
    let options = format!("arch={} targets=Packages {trust}", arch.debian());
    let line = |suite: &&str| format!("deb [{options}] {} {suite} main\n", mirror.of_suite(suite));
    suites.iter().map(line).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two archives have two addresses; a machine without the second has it beside the first.
    #[test]
    fn the_mirror_is_the_system_s_own() {
        let both =
            "http://mirror.test/debian/ bookworm\nhttp://sec.test/debian-security/ bookworm-security\n";
        let mirror = Mirror::from_targets(both).unwrap();
        assert_eq!(mirror.of_suite("bullseye"), "http://mirror.test/debian/");
        assert_eq!(mirror.of_suite("bullseye-security"), "http://sec.test/debian-security/");
        let one = Mirror::from_targets("http://mirror.test/debian/ trixie\n").unwrap();
        assert_eq!(one.of_suite("bookworm-security"), "http://mirror.test/debian-security/");
        assert_eq!(Mirror::from_targets(""), None);
    }

    /// One line a suite, each with its own archive and with the keys to check it.
    #[test]
    fn sources_are_signed() {
        let mirror = Mirror { archive: "A/".into(), security: "S/".into() };
        let text = sources(&mirror, &["forky", "forky-security"], Arch::X86, "signed-by=/k");
        assert_eq!(
            text,
            "deb [arch=amd64 targets=Packages signed-by=/k] A/ forky main\n\
             deb [arch=amd64 targets=Packages signed-by=/k] S/ forky-security main\n"
        );
    }
}
