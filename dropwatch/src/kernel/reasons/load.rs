//! Getting the reasons of the running kernel.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Reasons;
use crate::kernel::btf::{self, Btf, KernelBtf, LoadError};

/// Where tracefs is: mounted there by most systems, or (before Linux 4.1 and on some others) within debugfs.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const FORMAT: &str = "events/skb/kfree_skb/format";

/// The reasons of the running kernel, and how they were come by.
#[derive(Debug)]
pub struct Loaded {
    /// The reasons.
    pub reasons: Reasons,
    /// Where their names are from.
    pub source: Source,
    /// What could not be read, and therefore may be missing.
    pub warnings: Vec<Arc<LoadError>>,
}

/// What [`Reasons::refresh`] did.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// How many names it read. Some may have been known before.
    pub added: usize,
    /// What could not be read, and therefore may be missing.
    pub warnings: Vec<Arc<LoadError>>,
}

/// Where the names of reasons are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's type information: everything the kernel knows.
    Btf,
    /// The tracepoint's format in tracefs: the core's reasons, without those of other subsystems.
    Format,
    /// Nowhere. Without warnings: the kernel has no reasons (before Linux 5.17; stable kernels: 5.15).
    Nothing,
}

/// Where to look.
pub(super) struct Places {
    /// The directory with the type information of the kernel and its modules.
    pub(super) btf: PathBuf,
    /// Format files, the better one first.
    pub(super) formats: Vec<PathBuf>,
}

impl Places {
    fn of_the_system() -> Self {
        let formats = TRACEFS.iter().map(|tracefs| Path::new(tracefs).join(FORMAT)).collect();
        Self { btf: btf::DIRECTORY.into(), formats }
    }
}

impl Reasons {
    /// Reads the reasons of the running kernel.
    ///
    /// Reads some 5 MB and more with many modules, which takes milliseconds, and keeps a few kilobytes. Never
    /// fails: without any source, reasons are numbers, and the warnings say why.
    #[must_use]
    pub fn load(kernel: &KernelBtf) -> Loaded {
        Self::load_from(kernel, &Places::of_the_system())
    }

    /// Reads the reasons of modules loaded since. Does little if there are none.
    ///
    /// For the owner to call when [`Reasons::is_missing_subsystem`] says so of a reason that was seen, or
    /// when modules changed.
    pub fn refresh(&mut self) -> Refreshed {
        self.refresh_from(&Places::of_the_system())
    }

    pub(super) fn load_from(kernel: &KernelBtf, places: &Places) -> Loaded {
        let from_btf = kernel.get().map(|kernel| {
            let mut reasons = Self::from_btf(kernel);
            let refreshed = reasons.read_modules(places, kernel);
            (reasons, refreshed.warnings)
        });
        match from_btf {
            // Type information without reasons is a kernel without reasons: no other file would know more.
            Ok((reasons, warnings)) => {
                let source = if reasons.is_empty() { Source::Nothing } else { Source::Btf };
                Loaded { reasons, source, warnings }
            }
            Err(error) => Self::load_format(&places.formats, vec![error]),
        }
    }

    fn load_format(formats: &[PathBuf], mut warnings: Vec<Arc<LoadError>>) -> Loaded {
        for path in formats {
            match fs::read_to_string(path).map(|text| Self::from_format(&text)) {
                Ok(Some(reasons)) => return Loaded { reasons, source: Source::Format, warnings },
                Ok(None) => {}
                Err(cause) => warnings.push(Arc::new(LoadError::Read { path: path.clone(), cause })),
            }
        }
        Loaded { reasons: Self::unknown(), source: Source::Nothing, warnings }
    }

    pub(super) fn refresh_from(&mut self, places: &Places) -> Refreshed {
        if !self.has_new_modules(places) {
            return Refreshed::default();
        }
        match KernelBtf::at(&places.btf).get() {
            Ok(kernel) => self.read_modules(places, kernel),
            Err(error) => Refreshed { added: 0, warnings: vec![error] },
        }
    }

    /// Without subsystems, modules have no reasons, and the kernel need not be read again.
    fn has_new_modules(&mut self, places: &Places) -> bool {
        if self.subsystems.len() == 1 {
            return false;
        }
        let present = btf::modules(&places.btf).unwrap_or_default();
        // A module that left and comes back may be another build of it.
        self.modules.retain(|name| present.contains(name));
        present.len() > self.modules.len()
    }

    /// Reads the modules not read before.
    fn read_modules(&mut self, places: &Places, kernel: &Btf<'_>) -> Refreshed {
        let mut refreshed = Refreshed::default();
        if self.subsystems.len() == 1 {
            return refreshed;
        }
        for name in btf::modules(&places.btf).unwrap_or_default() {
            if !self.modules.insert(name.clone()) {
                continue;
            }
            match self.read_module(places, &name, kernel) {
                Ok(added) => refreshed.added += added,
                // Unloaded between the listing and now.
                Err(LoadError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refreshed.warnings.push(Arc::new(error)),
            }
        }
        refreshed
    }

    fn read_module(&mut self, places: &Places, name: &str, kernel: &Btf<'_>) -> Result<usize, LoadError> {
        let path = || places.btf.join(name);
        let bytes = btf::read(&places.btf, name).map_err(|cause| LoadError::Read { path: path(), cause })?;
        let module =
            Btf::parse_split(&bytes, kernel).map_err(|cause| LoadError::Parse { path: path(), cause })?;
        Ok(self.add_module(&module))
    }
}
