//! What this machine is called.

use std::sync::OnceLock;

use nix::sys::utsname::uname;

/// The name of the host, or of the container that has one of its own, when it was first read.
#[must_use]
pub fn name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    let read = || uname().map(|names| names.nodename().to_string_lossy().into_owned()).unwrap_or_default();
    NAME.get_or_init(read)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_is_the_kernels() {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
        assert_eq!(super::name(), name.trim_end());
    }
}
