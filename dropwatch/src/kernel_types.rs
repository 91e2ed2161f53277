//! What the running kernel's type information says, for programs that are about to be loaded.

use anyhow::{Context as _, Result};

use crate::{
    btf::{self, Btf, KernelBtf},
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
    pub fn read(
        kernel: &KernelBtf,
        who_takes: &str,
        more: impl FnOnce(&Btf<'_>) -> Result<T, Missing>,
    ) -> Result<Self> {
        let btf = kernel.get().with_context(|| {
            format!(
                "{who_takes} the kernel's type information, that of a kernel built with CONFIG_DEBUG_INFO_BTF=y"
            )
        })?;
        Ok(Self {
            layout: KernelLayout::read(btf)?,
            more: more(btf)?,
            nested: !guards_recursion(btf.bytes()),
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
