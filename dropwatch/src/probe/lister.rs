//! Lists what the kernel has, with a program that runs over all of it.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use aya::Pod;
use dropwatch_common::{
    names,
    socket::{ListedProcess, SocketOffsets},
};

use super::{
    loader::{Arguments, Loader},
    offsets::socket_offsets,
};
use crate::{
    kernel::{btf::Btf, namespaces::ListProcesses},
    sys,
};

/// The iterator over tasks, as the kernel calls it.
const TASKS: &str = "bpf_iter_task";
/// As much as is read at once.
const CHUNK: usize = 1 << 16;

/// A program that writes lines, loaded.
#[derive(Clone, Debug)]
pub struct Lister {
    link: Arc<OwnedFd>,
}

impl Lister {
    /// Loads a program for the iterator whose function has this number in the type information.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(super) fn load(iterator: u32, program: &str, offsets: SocketOffsets) -> Result<Self> {
        let object = Loader::kfree_skb().constant(names::SOCKET_OFFSETS, offsets);
        let loaded = object.load(program, Arguments::Iterator(iterator))?;
        Ok(Self { link: Arc::new(loaded.attach()?) })
    }

    /// All lines at this moment.
    ///
    /// # Errors
    /// Whatever the kernel answers.
    pub(super) fn read<T: Pod>(&self) -> io::Result<Vec<T>> {
        let mut file = File::from(sys::open_iterator(self.link.as_fd())?);
        let mut bytes = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(sys::values_of(&bytes)),
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
                // There was nothing in so many files that the kernel returned for a pause.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A program that lists processes, loaded.
#[derive(Clone, Debug)]
pub struct ProcessLister(Lister);

impl ProcessLister {
    /// Loads the program.
    ///
    /// # Errors
    /// What the kernel refuses or lacks.
    pub fn load(btf: &Btf<'_>) -> Result<Self> {
        let iterator = btf.function(TASKS).with_context(|| format!("this kernel has no {TASKS}"))?;
        Ok(Self(Lister::load(iterator, names::LIST_PROCESSES, socket_offsets(btf)?)?))
    }
}

impl ListProcesses for ProcessLister {
    fn list(&self) -> io::Result<Vec<ListedProcess>> {
        self.0.read()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use dropwatch_testing::skip;

    use super::*;
    use crate::kernel::btf::KernelBtf;

    /// What is listed as the host name of this process.
    pub(in crate::probe) fn own_host_name() -> [u8; 64] {
        const HOSTS: u64 = 0xefff_fffe;
        let mut name = fs::read("/proc/sys/kernel/hostname").expect("a name").trim_ascii_end().to_vec();
        if fs::metadata("/proc/self/ns/uts").expect("the own namespace").ino() == HOSTS {
            name.clear();
        }
        name.resize(64, 0);
        name.try_into().expect("a name that fits")
    }

    #[test]
    fn this_process_is_listed_once() {
        let kernel = KernelBtf::default();
        let Ok(btf) = kernel.get() else { return skip("no type information") };
        if !nix::unistd::geteuid().is_root() {
            return skip("loading a program needs root");
        }
        let listed = ProcessLister::load(btf).expect("a lister").list().expect("a list");
        let own: Vec<_> = listed.iter().filter(|listed| listed.tgid == std::process::id()).collect();
        let [own] = own[..] else { panic!("{own:?}") };
        let netns = fs::metadata("/proc/self/ns/net").expect("the own namespace").ino();
        assert_eq!(u64::from(own.netns), netns);
        assert_eq!(own.nodename, own_host_name(), "{own:?}");
        assert!(listed.iter().all(|listed| listed.tgid != 2), "the kernel's own threads say nothing");
    }
}
