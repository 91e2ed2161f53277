//! What tests have in place of a host and of a running kernel.

use crate::{
    filter::NameLookup,
    model::{
        class::{Class, Destination},
        foreign::Foreign,
        location::{Location, SourceLine, Symbol},
        namespace::{Namespace, WhichNetns},
        reason::Reason,
        report::Names,
        symbol_spec::CodePlace,
    },
};

/// The host's own network namespace.
pub const HOST_NETNS: u32 = 4_026_531_840;

/// A host with two reasons, some namespaces and four CPUs.
#[derive(Debug)]
pub struct Host;

impl NameLookup for Host {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        match name {
            "NO_SOCKET" => Ok(vec![3]),
            "NETFILTER_DROP" | "core:12" => Ok(vec![12, 70]),
            _ => Err(format!("this kernel has no reason '{name}': did you mean 'NO_SOCKET'?")),
        }
    }

    fn netns(&self, name: &str) -> Result<WhichNetns, String> {
        match name {
            "self" | "host" | "4026531840" => Ok(WhichNetns::One(Namespace { inum: HOST_NETNS, cookie: 1 })),
            "4026532100" | "/run/netns/blue" => {
                Ok(WhichNetns::One(Namespace { inum: 4_026_532_100, cookie: 0 }))
            }
            "blue" | "d" | "e" | "former" => Ok(WhichNetns::Named(name.into())),
            _ => Err(format!("there is no network namespace '{name}'")),
        }
    }

    fn code(&self, place: &CodePlace) -> Result<(), String> {
        let text = place.to_string();
        if text.contains("chian") { Err(format!("there is no function '{text}'")) } else { Ok(()) }
    }

    fn cpu(&self, cpu: u32) -> Result<(), String> {
        if cpu < 4 { Ok(()) } else { Err(format!("there is no CPU {cpu}")) }
    }
}

/// A host that has every namespace, and the reasons that a test says.
#[derive(Debug)]
pub struct AnyNamespace(pub fn(&str) -> bool);

impl NameLookup for AnyNamespace {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        if (self.0)(name) { Ok(vec![1]) } else { Err(format!("there is no reason '{name}'")) }
    }

    fn netns(&self, name: &str) -> Result<WhichNetns, String> {
        Ok(WhichNetns::Named(name.to_owned()))
    }
}

/// A host on which every name means something.
#[derive(Debug)]
pub struct Anything;

impl NameLookup for Anything {
    fn reason(&self, name: &str) -> Result<Vec<u32>, String> {
        Ok(vec![u32::try_from(name.len()).expect("a short name")])
    }

    fn netns(&self, name: &str) -> Result<WhichNetns, String> {
        let inum = u32::try_from(name.len()).expect("a short name");
        Ok(if name.starts_with('n') {
            WhichNetns::Named(name.to_owned())
        } else {
            WhichNetns::One(Namespace { inum, cookie: inum.into() })
        })
    }
}

/// How many bytes each function of a [`Kernel`] has.
const SIZE: u64 = 0x100;

/// A kernel of a few functions; of the rest, nothing is known but what a test says.
#[derive(Debug)]
pub struct Kernel {
    /// Where each begins, its name and its module.
    pub functions: &'static [(u64, &'static str, &'static str)],
    /// The reason of a number.
    pub reason: fn(u32) -> Option<Reason>,
    /// The class of a reason, wherever it happens.
    pub class: fn(u32, Destination) -> Option<Class>,
}

impl Kernel {
    /// One that knows nothing.
    #[must_use]
    pub fn nameless() -> Self {
        Self { functions: &[], reason: |_| None, class: |_, _| None }
    }

    /// One of two functions and one reason.
    #[must_use]
    pub fn small() -> Self {
        Self {
            functions: &[(0x1000, "udp_rcv", "kernel"), (0x2000, "ip_rcv", "kernel")],
            reason: |code| {
                let name = (code == 3).then(|| "NO_SOCKET".into());
                Some(Reason { code, subsystem: Some("core".into()), name })
            },
            ..Self::nameless()
        }
    }
}

impl Names for Kernel {
    fn location(&mut self, address: u64) -> Location {
        let mut functions = self.functions.iter();
        let function = functions.find(|(start, ..)| (*start..start + SIZE).contains(&address));
        let symbol = function.map(|&(start, name, module)| Symbol {
            name: name.into(),
            offset: address - start,
            size: Some(SIZE),
            module: module.into(),
        });
        Location { address, symbol }
    }

    fn netns(&mut self, namespace: Namespace) -> Option<Foreign> {
        (namespace.inum == HOST_NETNS).then(|| "host".into())
    }

    fn source(&mut self, _location: &Location) -> Option<SourceLine> {
        None
    }

    fn reason(&mut self, code: u32) -> Option<Reason> {
        (self.reason)(code)
    }

    fn class(&mut self, _location: u64, reason: u32, destination: Destination) -> Option<Class> {
        (self.class)(reason, destination)
    }
}

/// Names that are all hostile: function, module, namespace, reason.
#[derive(Debug)]
pub struct Hostile(pub [Vec<u8>; 4]);

impl Names for Hostile {
    fn location(&mut self, address: u64) -> Location {
        let [name, module, ..] = self.0.clone();
        let symbol = Symbol { name: name.into(), offset: 1, size: None, module: module.into() };
        Location { address, symbol: Some(symbol) }
    }

    fn netns(&mut self, _namespace: Namespace) -> Option<Foreign> {
        Some(self.0[2].clone().into())
    }

    fn source(&mut self, _location: &Location) -> Option<SourceLine> {
        None
    }

    fn reason(&mut self, code: u32) -> Option<Reason> {
        let name = String::from_utf8_lossy(&self.0[3]).into();
        Some(Reason { code, subsystem: None, name: Some(name) })
    }
}
