//! The names that rules and filters may use on this host, looked up before anything is loaded.

use std::cell::OnceCell;

use crate::{
    btf::KernelBtf,
    check::rule::Vocabulary,
    filter::{Resolver, netns},
    reasons::{Loaded, Reasons, Source},
    spelling,
};

/// This host. What nobody asks for is not read.
#[derive(Debug)]
pub struct Host {
    kernel: KernelBtf,
    reasons: OnceCell<Option<Reasons>>,
}

impl Host {
    /// The host of this kernel.
    #[must_use]
    pub fn new(kernel: &KernelBtf) -> Self {
        Self { kernel: kernel.clone(), reasons: OnceCell::new() }
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

impl Vocabulary for Host {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        let Some(reasons) = self.reasons() else {
            return Err("this kernel gives no reasons for drops: use the location".to_owned());
        };
        let codes = reasons.find(name);
        if !codes.is_empty() {
            return Ok(codes);
        }
        let known: Vec<_> = reasons.iter().filter_map(|reason| reason.name).collect();
        let hint = spelling::hint(name, known.iter().map(|name| &**name));
        Err(format!("this kernel has no reason '{name}'{hint}"))
    }
}

impl Resolver for Host {
    fn netns(&self, name: &str) -> Result<u32, String> {
        netns::number(name)
    }
}
