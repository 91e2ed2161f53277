//! Addresses in the kernel, with the function and the line of source that they are in.

use std::fmt;

use serde::Serialize;

use super::foreign::Foreign;

/// What stands for a module in locations of the kernel proper.
pub const KERNEL: &str = "kernel";

/// An address in the kernel, with the function it is in. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The address itself.
    pub address: u64,
    /// The function, if known.
    pub symbol: Option<Symbol>,
}

/// A position in a function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Symbol {
    /// The function's name.
    pub name: Foreign,
    /// Bytes from the function's start.
    pub offset: u64,
    /// The function's size in bytes, if known.
    pub size: Option<u64>,
    /// The module's name, [`KERNEL`] for the kernel proper.
    pub module: Foreign,
}

impl Symbol {
    /// Whether it is in the kernel proper, not in a module.
    #[must_use]
    pub fn is_in_kernel(&self) -> bool {
        self.module == *KERNEL
    }
}

/// What a function returns to, in place of its caller, while another tracer has a return probe on it. If the function frees
/// packets, that hides from every tracer where they are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnProbe {
    /// A trampoline of the kernel: a kretprobe, or the function graph tracer.
    Kernel,
    /// A trampoline made for BPF programs: fexit.
    Program,
}

/// Whose trampoline a function is, if it is one.
#[must_use]
pub fn return_probe(function: &str) -> Option<ReturnProbe> {
    const NAMES: [&str; 4] =
        ["arch_rethook_trampoline", "return_to_handler", "__kretprobe_trampoline", "kretprobe_trampoline"];
    if NAMES.contains(&function) {
        Some(ReturnProbe::Kernel)
    } else {
        function.starts_with("bpf_trampoline_").then_some(ReturnProbe::Program)
    }
}

impl Location {
    /// Whether a return probe of another tracer hides where it is.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.symbol.as_ref().is_some_and(|symbol| return_probe(&symbol.name.text()).is_some())
    }

    /// The address that a call returns to, of which this is the last byte.
    #[must_use]
    pub fn returned(mut self, address: u64) -> Self {
        self.address = address;
        if let Some(symbol) = &mut self.symbol {
            symbol.offset += 1;
        }
        self
    }
}

/// `tcp_v4_rcv+0xaa/0x8d0 [kernel]`; `tcp_v4_rcv+0xaa [kernel]` without a size; the address without a symbol.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Symbol { name, offset, size, module }) = &self.symbol else {
            return write!(f, "{:#018x}", self.address);
        };
        let (name, module) = (name.word(), module.word());
        match size {
            Some(size) => write!(f, "{name}+{offset:#x}/{size:#x} [{module}]"),
            None => write!(f, "{name}+{offset:#x} [{module}]"),
        }
    }
}

/// A line of source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLine {
    /// The file, below the root of the kernel's source if that is known.
    pub file: Foreign,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
