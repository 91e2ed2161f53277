//! What programs of the kernel are loaded with: aya's loader, and what the kernel's type information says.

use std::{path::Path, thread};

use anyhow::{Context as _, Result};
use aya::EbpfLoader;

use crate::{btf, offsets::Missing};

/// What the running kernel says about itself, for programs that read its structures.
pub(crate) struct KernelTypes<T> {
    /// Where they find what they read.
    pub layout: T,
    /// Whether a drop can interrupt the counting of another.
    pub nested: bool,
    /// For aya, which looks up the tracepoint.
    pub btf: aya::Btf,
}

/// Gets a loader, and does something meanwhile.
///
/// aya's loader reads and parses the type information for itself, needed or not, which takes longer than all the
/// rest of a start.
pub(crate) fn beside_loader<T>(work: impl FnOnce() -> T) -> (EbpfLoader<'static>, T) {
    thread::scope(|scope| {
        let loader = scope.spawn(EbpfLoader::new);
        let done = work();
        (loader.join().unwrap_or_default(), done)
    })
}

/// Frees what a loader has read, some hundred thousand pieces, while others go on.
pub(crate) fn discard(loader: EbpfLoader<'static>) {
    // Without a thread it is freed here.
    let _ = thread::Builder::new().name("loader".into()).spawn(move || drop(loader));
}

impl<T> KernelTypes<T> {
    /// Reads the kernel's type information; without it, says who takes it, and what kernel it takes.
    pub fn read(who_takes: &str, layout: impl FnOnce(&btf::Btf<'_>) -> Result<T, Missing>) -> Result<Self> {
        let path = Path::new(btf::DIRECTORY).join(btf::VMLINUX);
        let bytes = btf::read_vmlinux().with_context(|| {
            format!(
                "{who_takes} the kernel's type information, {}: it takes a kernel with CONFIG_DEBUG_INFO_BTF=y",
                path.display()
            )
        })?;
        let btf = btf::Btf::parse(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self {
            layout: layout(&btf).with_context(|| format!("cannot use {}", path.display()))?,
            nested: !guards_recursion(&bytes),
            btf: aya::Btf::parse(&bytes, aya::Endianness::default())
                .with_context(|| format!("cannot read {}", path.display()))?,
        })
    }
}

/// Whether a drop can interrupt the counting of another.
pub(crate) fn drops_nest() -> bool {
    !btf::read_vmlinux().is_ok_and(|bytes| guards_recursion(&bytes))
}

/// Whether the kernel keeps a raw tracepoint's program from interrupting itself (Linux 6.1).
///
/// The commit that added the guard made this function global, so the type information of exactly those
/// kernels names it. Without type information the answer is no: counting atomically is right everywhere.
fn guards_recursion(types: &[u8]) -> bool {
    memchr::memmem::find(types, b"\0bpf_prog_inc_misses_counter\0").is_some()
}
