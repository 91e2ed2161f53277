//! Where the commands of the documentation run: a private network, a folder, and a dropwatch that ends soon.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A folder with the programs that the commands call, in namespaces of the calling thread.
pub struct Scene {
    folder: TempDir,
}

impl Scene {
    /// Moves this thread, and those that it starts, into namespaces of their own.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("new namespaces");
        let scene = Self { folder: tempfile::tempdir().expect("a folder") };
        let root = scene.folder.path();
        fs::create_dir(root.join("bin")).expect("a folder");
        for (name, script) in [
            ("bin/dropwatch", include_str!("dropwatch.sh")),
            ("bin/sudo", "#!/bin/sh\nexec \"$@\"\n"),
            ("bin/inferno-flamegraph", "#!/bin/sh\nexec cat\n"),
            ("my-test", "#!/bin/sh\n"),
            ("smoke-test", include_str!("smoke-test.sh")),
            ("load-test", "#!/bin/sh\nexec ip netns exec web ./smoke-test\n"),
        ] {
            write_program(&root.join(name), script);
        }
        let set_up = concat!("mount --make-rprivate /\n", include_str!("scene.sh"));
        let output = scene.command(set_up).output().expect("a shell");
        assert!(output.status.success(), "the scene: {}", String::from_utf8_lossy(&output.stderr));
        scene
    }

    fn command(&self, line: &str) -> Command {
        let root = self.folder.path();
        let path = std::env::var("PATH").expect("a path to programs");
        let mut command = Command::new("timeout");
        command
            .args(["--signal=INT", "60", "bash", "-c", line])
            .current_dir(root)
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", root.join("bin").display()))
            .env("DROPWATCH", env!("CARGO_BIN_EXE_dropwatch"))
            .env_remove("GITHUB_ACTIONS")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command line to its end.
    pub fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("a shell")
    }

    /// Drops packets in the namespace `web` for as long as the result lives.
    pub fn drops(&self) -> Drops {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", "web", "bash", "-c", include_str!("drops.sh")]);
        Drops(command.current_dir(self.folder.path()).stdin(Stdio::null()).spawn().expect("a shell"))
    }

    /// A file that a command has written.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).expect("a file")
    }
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, script).expect("a script");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("its mode");
}

/// Packets being dropped.
pub struct Drops(Child);

impl Drop for Drops {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
