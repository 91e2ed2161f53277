//! The probe in the kernel: load, attach, read, detach.

use std::{fs, io, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::{
    EbpfLoader,
    maps::MapError,
    programs::{ProgramError, ProgramFd, RawTracePoint, raw_trace_point::RawTracePointLink},
};
use dropwatch_common::{Loss, names};

use crate::{
    snapshot::{Ledger, MapReader, Snapshot},
    sys::{self, ProgramStats},
};

/// The BPF object: the committed one, or the one `DROPWATCH_BPF_OBJECT` named when this was built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("DROPWATCH_BPF_OBJECT"));

/// What the probe is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Room for distinct keys.
    pub max_rows: u32,
}

/// A probe that counts drops from [`Probe::attach`] until [`Probe::detach`] or its end.
///
/// Nothing is pinned: when the process dies, however it dies, the kernel takes the probe away.
pub struct Probe {
    maps: MapReader,
    program: ProgramFd,
    link: Option<RawTracePointLink>,
    has_reason: bool,
    #[cfg(feature = "bpf-log")]
    log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

impl Probe {
    /// Loads and attaches; every drop after this call is counted.
    ///
    /// The kernel itself says whether the tracepoint has a `reason` argument: a program that could read a
    /// missing argument is refused at attach. That needs no BTF and trusts no version.
    ///
    /// # Errors
    /// A refusal by the kernel, with what can be done about it.
    pub fn attach(config: ProbeConfig) -> Result<Self> {
        let nested = !guards_recursion();
        log::debug!("drops can nest on this kernel: {nested}");
        match Self::attach_variant(config, nested, true) {
            Err(error) if is_missing_argument(&error) => {
                log::debug!("the tracepoint has no reason argument");
                Self::attach_variant(config, nested, false)
            }
            probe => probe,
        }
        .map_err(|error| explain(error, config))
    }

    fn attach_variant(config: ProbeConfig, nested: bool, has_reason: bool) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global(names::HAS_REASON, &u8::from(has_reason), true)
            .override_global(names::NESTED, &u8::from(nested), true)
            .map_max_entries(names::COUNTS, config.max_rows)
            .load(OBJECT)?;
        let mut take =
            |name| ebpf.take_map(name).with_context(|| format!("the BPF object has no map {name}"));
        let maps = MapReader::new(take(names::COUNTS)?, take(names::LEDGER)?)?;
        let program = ebpf.program_mut(names::PROGRAM).context("the BPF object has no program")?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        let link = program.attach("kfree_skb").and_then(|id| program.take_link(id))?;
        let program = program.fd()?.try_clone()?;
        Ok(Self {
            maps,
            program,
            link: Some(link),
            has_reason,
            #[cfg(feature = "bpf-log")]
            log: aya_log::EbpfLogger::init(&mut ebpf).context("this is no object built for logging")?,
        })
    }

    /// Whether this kernel gives reasons for drops.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.has_reason
    }

    /// Everything counted since the probe was attached.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        // The counts first: a loss that is read later than the drops beside it is never missed.
        let counts = self.maps.counts()?;
        #[cfg(feature = "bpf-log")]
        self.log.flush();
        let ledger = Ledger {
            map_full: self.maps.lost(Loss::MapFull)?,
            update_failed: self.maps.lost(Loss::UpdateFailed)?,
            recursion_missed: self.stats()?.recursion_missed,
        };
        Ok(Snapshot { counts, ledger })
    }

    /// What the kernel counts about the probe itself.
    pub fn stats(&self) -> Result<ProgramStats> {
        sys::program_stats(self.program.as_fd()).context("cannot read the probe's statistics")
    }

    /// Stops counting; what has been counted can still be read.
    pub fn detach(&mut self) {
        self.link = None;
    }
}

/// Whether the kernel keeps a raw tracepoint's program from interrupting itself (Linux 6.1).
///
/// The commit that added the guard made this function global, so the type information of exactly those
/// kernels names it. Without type information the answer is no: counting atomically is right everywhere.
fn guards_recursion() -> bool {
    fs::read("/sys/kernel/btf/vmlinux")
        .is_ok_and(|btf| memchr::memmem::find(&btf, b"\0bpf_prog_inc_misses_counter\0").is_some())
}

/// Whether attaching failed because the program reads an argument that the tracepoint does not have.
fn is_missing_argument(error: &anyhow::Error) -> bool {
    let Some(ProgramError::SyscallError(error)) = error.downcast_ref::<ProgramError>() else {
        return false;
    };
    error.io_error.raw_os_error() == Some(libc::EINVAL)
}

/// Adds to a failure to load or attach what it means to the person who started us.
fn explain(error: anyhow::Error, config: ProbeConfig) -> anyhow::Error {
    let errno = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    let creating_map =
        error.chain().any(|cause| matches!(cause.downcast_ref(), Some(MapError::CreateError { .. })));
    let advice = match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "the kernel refused although the capabilities are there: in a container it takes those of the \
             host (not of a user namespace) and a seccomp profile that allows bpf(2)"
                .to_owned()
        }
        Some(libc::ENOMEM | libc::E2BIG) if creating_map => {
            format!("the kernel has no memory for {} rows: ask for fewer with --max-rows", config.max_rows)
        }
        Some(libc::ENOENT) => "this kernel has no tracepoint skb:kfree_skb".to_owned(),
        _ => return error.context("cannot attach the probe to skb:kfree_skb"),
    };
    error.context(format!("cannot attach the probe to skb:kfree_skb: {advice}"))
}
