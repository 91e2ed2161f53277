//! What the running kernel's type information says, for programs that are about to be loaded.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{
    btf,
    offsets::{KernelLayout, Missing},
};

/// What the running kernel says about itself, for programs that read its structures.
pub(crate) struct KernelTypes<T> {
    /// The tracepoint, and where things are.
    pub layout: KernelLayout,
    /// More of that.
    pub more: T,
    /// Whether a drop can interrupt the counting of another.
    pub nested: bool,
}

impl<T> KernelTypes<T> {
    /// Reads the kernel's type information; without it, says who takes it, and what kernel it takes.
    pub fn read(who_takes: &str, more: impl FnOnce(&btf::Btf<'_>) -> Result<T, Missing>) -> Result<Self> {
        let path = Path::new(btf::DIRECTORY).join(btf::VMLINUX);
        let bytes = btf::read_vmlinux().with_context(|| {
            format!(
                "{who_takes} the kernel's type information, {}: it takes a kernel with CONFIG_DEBUG_INFO_BTF=y",
                path.display()
            )
        })?;
        let btf = btf::Btf::parse(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
        let cannot_use = || format!("cannot use {}", path.display());
        Ok(Self {
            layout: KernelLayout::read(&btf).with_context(cannot_use)?,
            more: more(&btf).with_context(cannot_use)?,
            nested: !guards_recursion(&bytes),
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
