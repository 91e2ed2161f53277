//! A bare system in a folder, and what runs in it.

use std::{
    env,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{command, workspace};

/// Longer than compiling takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Certificates that were added to Debian's.
const TRUSTED: &str = "/usr/local/share/ca-certificates";

/// What keeps two runs of the live tests from each other's drops: there and here, it is the same file.
const LOCK: &str = "/tmp/dropwatch-live.lock";

/// A bare system, which is removed at the end.
pub struct System {
    root: TempDir,
}

impl System {
    fn empty() -> Result<Self> {
        Ok(Self { root: tempfile::Builder::new().prefix("dropwatch-fresh-").tempdir()? })
    }

    /// Debian's essential packages, and apt.
    pub fn debian(suite: &str) -> Result<Self> {
        let system = Self::empty()?;
        let mut build = Command::new("mmdebstrap");
        // apt's own user cannot check signatures everywhere: on one machine it did not find gpgv.
        build.args(["--quiet", "--variant=minbase", "--aptopt=APT::Sandbox::User \"root\"", suite]);
        build.arg(system.root()).stdin(Stdio::null());
        command::run(&mut build)?;
        // How this machine reaches others, and whom it trusts.
        fs::copy("/etc/resolv.conf", system.path("etc/resolv.conf")).context("the name servers")?;
        let trusted = fs::read_dir(TRUSTED).into_iter().flatten().flatten();
        fs::create_dir_all(system.path(&TRUSTED[1..])).context("a folder for certificates")?;
        for certificate in trusted {
            let to = system.path(&TRUSTED[1..]).join(certificate.file_name());
            fs::copy(certificate.path(), to).context("this machine's certificates")?;
        }
        Ok(system)
    }

    /// One static program, and not a library.
    pub fn busybox() -> Result<Self> {
        let system = Self::empty()?;
        for directory in ["bin", "proc", "sys", "dev", "run", "tmp", "root"] {
            fs::create_dir(system.path(directory)).with_context(|| format!("cannot create /{directory}"))?;
        }
        let busybox = command::find("busybox").context("there is no busybox here")?;
        fs::copy(busybox, system.path("bin/busybox")).context("cannot copy busybox")?;
        let mut names = Command::new("chroot");
        command::run(names.arg(system.root()).args(["/bin/busybox", "--install", "-s", "/bin"]))?;
        Ok(system)
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where a file of the system is here.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    /// Copies what is committed.
    pub fn clone_source(&self) -> Result<()> {
        let mut clone = Command::new("git");
        clone.args(["clone", "--quiet", "--no-hardlinks"]).arg(workspace::root()).arg(self.path("src"));
        command::run(&mut clone)
    }

    /// A command line in the system, in its source if that is there, with kernel file systems that end with it.
    ///
    /// The folder is the root of a mount namespace: to one that is only another root for its processes, the kernel refuses
    /// user namespaces, and `ip netns exec` cannot change mounts.
    fn command(&self, line: &str) -> Command {
        const INSIDE: &str = "mount --make-rprivate / && mount --bind \"$0\" \"$0\" && \
            mount --rbind /proc \"$0/proc\" && mount --rbind /sys \"$0/sys\" && \
            mount --rbind /dev \"$0/dev\" && mount -t tmpfs run \"$0/run\" && \
            : >>\"$2\" && : >>\"$0$2\" && mount --bind \"$2\" \"$0$2\" && \
            mkdir \"$0/run/before\" && cd \"$0\" && pivot_root . run/before && \
            umount -l /run/before && rmdir /run/before && \
            exec sh -c \"cd /src 2>/dev/null || cd /; $1\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", INSIDE]).arg(self.root()).arg(line).arg(LOCK);
        let kept = ["PATH", "TERM"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        command.env_clear().envs(kept).env("HOME", "/root").env("DEBIAN_FRONTEND", "noninteractive");
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Result<()> {
        command::run(&mut self.command(line))
    }

    /// What a command line prints.
    pub fn output(&self, line: &str) -> Result<String> {
        command::output(&mut self.command(line))
    }

    /// Starts a monitor, and waits until it says that it monitors.
    pub fn monitor(&self, line: &str) -> Result<Monitor> {
        // Without a shell between them, the signal that ends it comes to it alone.
        Monitor::start(self.command(&format!("exec {line}")), line, self.root())
    }
}

/// A monitor that runs somewhere else.
pub struct Monitor {
    child: Child,
    line: String,
    said: PathBuf,
    reported: PathBuf,
}

impl Monitor {
    /// Starts one, with files for what it says and reports in a directory, and waits until it says that it monitors.
    pub fn start(mut command: Command, line: &str, directory: &Path) -> Result<Self> {
        let (said, reported) = (directory.join("monitor.log"), directory.join("monitor.out"));
        command.process_group(0).stderr(File::create(&said)?).stdout(File::create(&reported)?);
        let mut monitor = Self { child: command.spawn()?, line: line.to_owned(), said, reported };
        monitor.wait()?;
        Ok(monitor)
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let said = fs::read_to_string(&self.said)?;
            if said.contains("Monitoring for dropped packets") {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended before it monitored: {status}\n{said}");
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "it does not monitor after {} s\n{said}",
                PATIENCE.as_secs()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it as Ctrl-C does, and returns what it reported.
    pub fn stop(self) -> Result<String> {
        killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        self.ended()
    }

    /// Waits until it ends by itself, and returns what it reported.
    pub fn ended(mut self) -> Result<String> {
        let status = self.child.wait()?;
        let said = fs::read_to_string(&self.said)?;
        ensure!(status.success(), "`{}` ended with {status}\n{said}", self.line);
        Ok(fs::read_to_string(&self.reported)?)
    }
}

impl Drop for Monitor {
    /// One that did not come to its end must not stay.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
