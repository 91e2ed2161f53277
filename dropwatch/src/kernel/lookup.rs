//! The names that rules and filters may use on this host, looked up before anything is loaded.

use std::{
    cell::OnceCell,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use aya::util::nr_cpus;

use crate::{
    filter::NameLookup,
    kernel::{
        btf::KernelBtf,
        functions,
        kallsyms::{
            Index,
            saved::{Running, Saved},
        },
        namespaces::Namespaces,
        netns,
        reasons::{Loaded, Reasons, Source},
    },
    model::{namespace::WhichNetns, services::Services, suggestions, symbol_spec::CodePlace},
};

const KALLSYMS: &str = "/proc/kallsyms";

/// The system's names of ports.
const SERVICES: &str = "/etc/services";
/// Its names of protocols above IP.
const PROTOCOLS: &str = "/etc/protocols";

/// The reasons that the kernel has for packets that it does not drop.
const NO_DROPS: [&str; 2] = ["NOT_DROPPED_YET", "CONSUMED"];

/// This host. Nothing is read before its first use.
#[derive(Debug)]
pub struct Host {
    kernel: KernelBtf,
    namespaces: Namespaces,
    /// A symbol file, if not the kernel's own table.
    kallsyms: Option<PathBuf>,
    reasons: OnceCell<Option<Reasons>>,
    functions: OnceCell<Result<Index, String>>,
    services: OnceCell<Services>,
}

impl Host {
    /// The host of this kernel.
    #[must_use]
    pub fn new(kernel: &KernelBtf, namespaces: &Namespaces) -> Self {
        Self {
            kernel: kernel.clone(),
            namespaces: namespaces.clone(),
            kallsyms: None,
            reasons: OnceCell::new(),
            functions: OnceCell::new(),
            services: OnceCell::new(),
        }
    }

    /// The same host, with functions from a symbol file if there is one.
    #[must_use]
    pub fn with_symbols(self, file: Option<&Path>) -> Self {
        Self { kallsyms: file.map(Path::to_owned), ..self }
    }

    /// The functions of the running kernel and its modules.
    fn functions(&self) -> Result<&Index, String> {
        let load = || match &self.kallsyms {
            Some(file) => Saved::load(file, &Running::read())
                .map(|saved| saved.index)
                .map_err(|error| error.to_string()),
            None => File::open(KALLSYMS)
                .and_then(|file| Index::read(BufReader::with_capacity(1 << 16, file)))
                .map_err(|error| format!("cannot read {KALLSYMS}: {error}")),
        };
        self.functions.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    /// The reasons of the running kernel; none on kernels that give none.
    fn reasons(&self) -> Option<&Reasons> {
        let load = || {
            let Loaded { reasons, source, warnings } = Reasons::load(&self.kernel);
            let gives_none = matches!(source, Source::Nothing) && warnings.is_empty();
            (!gives_none).then_some(reasons)
        };
        self.reasons.get_or_init(load).as_ref()
    }
}

impl NameLookup for Host {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        let Some(reasons) = self.reasons() else {
            return Err("this kernel gives no reasons for drops: use the location".to_owned());
        };
        let mut codes = reasons.find(name);
        codes.retain(|&code| reasons.can_be(code));
        let is_no_drop = |&code: &u32| reasons.get(code).name.is_some_and(|name| NO_DROPS.contains(&&*name));
        if !codes.is_empty() && codes.iter().all(is_no_drop) {
            return Err(format!("'{name}' is not a drop: no drop has it"));
        }
        if !codes.is_empty() {
            return Ok(codes);
        }
        let known: Vec<_> = reasons.iter().filter_map(|reason| reason.name).collect();
        let hint = suggestions::hint(name, known.iter().map(|name| &**name));
        Err(format!("this kernel has no reason '{name}'{hint}"))
    }

    fn netns(&self, text: &str) -> Result<WhichNetns, String> {
        netns::which(text, &self.namespaces)
    }

    fn code(&self, place: &CodePlace) -> Result<(), String> {
        functions::check(place, self.functions()?)
    }

    fn classes(&self) -> Result<(), String> {
        let why = functions::visible(self.functions()?);
        why.map_err(|why| format!("{why}, and the class of a drop depends on where it happened"))
    }

    fn cpu(&self, cpu: u32) -> Result<(), String> {
        match nr_cpus() {
            Ok(cpus) if cpu as usize >= cpus => Err(format!(
                "this machine has no CPU {cpu}: they are numbered from 0 to {}",
                cpus.saturating_sub(1)
            )),
            _ => Ok(()),
        }
    }

    fn services(&self) -> &Services {
        self.services.get_or_init(|| match fs::read_to_string(SERVICES) {
            Ok(text) => Services::parse(&text),
            Err(_) => Services::common().clone(),
        })
    }

    fn protocol(&self, name: &str) -> Option<u8> {
        protocol(&fs::read_to_string(PROTOCOLS).ok()?, name)
    }
}

/// A protocol's number in `/etc/protocols`: `NAME NUMBER ALIAS…`, `#` starts a comment.
fn protocol(text: &str, name: &str) -> Option<u8> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, number) = (words.next()?, words.next()?);
        (first == name || words.any(|alias| alias == name)).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_has_a_name_and_aliases() {
        let text = "# all of them\nip 0 IP # internet\nvrrp\t112\tVRRP Virtual\n\nodd\nbad many\n";
        assert_eq!(protocol(text, "vrrp"), Some(112));
        assert_eq!(protocol(text, "Virtual"), Some(112));
        assert_eq!(protocol(text, "internet"), None);
        assert_eq!(protocol(text, "odd"), None);
        assert_eq!(protocol(text, "bad"), None);
    }
}
