//! What the running kernel's type information says, for programs that are about to be loaded.

use std::fs;

use anyhow::{Context as _, Result};
use dropwatch_common::probe::KindReasons;

use crate::{
    kernel::btf::{Btf, KernelBtf},
    probe::offsets::{KernelLayout, Missing, kind_reasons},
};

/// Whether programs are compiled: not where it is 0.
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

/// What the running kernel says about itself, for programs that read its structures.
pub(crate) struct KernelTypes<T> {
    /// The tracepoint, and where things are.
    pub layout: KernelLayout,
    /// More of that.
    pub more: T,
    /// The reasons with which a packet's destination matters.
    pub kind_reasons: KindReasons,
    /// Whether a drop can interrupt the counting of another.
    pub nested: bool,
    /// The number of the function that makes pointers of any addresses.
    pub cast: Option<u32>,
}

impl<T> KernelTypes<T> {
    /// Reads the kernel's type information. Without it, the error names the feature that needs it and the kernel
    /// option that provides it.
    pub fn read(
        kernel: &KernelBtf,
        feature: &str,
        more: impl FnOnce(&Btf<'_>) -> Result<T, Missing>,
    ) -> Result<Self> {
        let btf = kernel.get().with_context(|| {
            format!(
                "{feature} needs the kernel's type information, that of a kernel built with CONFIG_DEBUG_INFO_BTF=y"
            )
        })?;
        Ok(Self::with(btf, KernelLayout::read(btf)?, more(btf)?))
    }

    fn with(btf: &Btf<'_>, layout: KernelLayout, more: T) -> Self {
        Self {
            layout,
            more,
            kind_reasons: kind_reasons(btf),
            nested: !guards_recursion(btf.bytes()),
            cast: cast(btf),
        }
    }
}

impl KernelTypes<()> {
    /// The same, as far as telling kinds of packets apart needs it.
    pub fn of_packets(kernel: &KernelBtf) -> Result<Self> {
        let btf = kernel.get()?;
        Ok(Self::with(btf, KernelLayout::of_packets(btf)?, ()))
    }
}

/// The kernel's function that makes a pointer of any address, through which loads cannot fault: since Linux 6.17, which says so.
///
/// No kernel calls its own functions from programs that it interprets.
fn cast(btf: &Btf<'_>) -> Option<u32> {
    const OFF: &str = "0";
    let takes_any =
        btf.enum_values("bpf_features")?.iter().any(|(name, _)| *name == "BPF_FEAT_RDONLY_CAST_TO_VOID");
    let is_interpreted = fs::read_to_string(JIT).is_ok_and(|mode| mode.trim() == OFF);
    if takes_any && !is_interpreted { btf.function("bpf_rdonly_cast") } else { None }
}

/// Whether a drop can interrupt the counting of another.
pub(crate) fn drops_nest(kernel: &KernelBtf) -> bool {
    !kernel.get().is_ok_and(|btf| guards_recursion(btf.bytes()))
}

/// Whether the kernel keeps a raw tracepoint's program from interrupting itself (Linux 6.1).
///
/// The commit that added the guard made this function global, so the type information of exactly those
/// kernels names it. Without type information the answer is no: counting atomically is right everywhere.
fn guards_recursion(types: &[u8]) -> bool {
    memchr::memmem::find(types, b"\0bpf_prog_inc_misses_counter\0").is_some()
}
