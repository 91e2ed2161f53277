//! The processors that dropwatch is built for, and what others call them.

use std::path::Path;

use clap::ValueEnum;

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// 64-bit Intel and AMD.
    #[value(name = "x86_64", alias = "amd64")]
    X86,
    /// 64-bit Arm.
    #[value(name = "aarch64", alias = "arm64")]
    Arm,
}

impl Arch {
    /// All that packages are made for.
    pub const ALL: [Self; 2] = [Self::X86, Self::Arm];
    /// The one of this machine.
    pub const HERE: Self = if cfg!(target_arch = "aarch64") { Self::Arm } else { Self::X86 };

    /// As the kernel and RPM call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// As Debian and Go call it.
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }

    /// As Rust calls it with glibc.
    pub fn target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-gnu",
            Self::Arm => "aarch64-unknown-linux-gnu",
        }
    }

    /// The directory of its libraries.
    pub fn triplet(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-linux-gnu",
            Self::Arm => "aarch64-linux-gnu",
        }
    }

    /// The emulator of a whole machine.
    pub fn qemu(self) -> &'static Path {
        Path::new(match self {
            Self::X86 => "qemu-system-x86_64",
            Self::Arm => "qemu-system-aarch64",
        })
    }

    /// The emulator of a single program.
    pub fn emulator(self) -> String {
        format!("qemu-{}-static", self.name())
    }

    /// The emulator's own options.
    pub fn machine(self) -> &'static [&'static str] {
        match self {
            // String instructions are emulated step by step: without these two features, the kernel clears and copies pages in
            // steps of eight bytes, not of one. On Linux 5.10 tests took 26 s, not 32.
            Self::X86 => &["-cpu", "max,erms=off,fsrm=off"],
            // Authentication of pointers in QEMU's own way: the architecture's is slow to emulate.
            Self::Arm => &["-M", "virt", "-cpu", "max,pauth-impdef=on"],
        }
    }

    /// What the kernel calls the emulator's first serial line.
    pub fn console(self) -> &'static str {
        match self {
            Self::X86 => "ttyS0",
            Self::Arm => "ttyAMA0",
        }
    }
}
