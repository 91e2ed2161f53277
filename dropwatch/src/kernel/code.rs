//! The kernel's functions as code: whether their calls can be followed, where they are, and what they return.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use super::{
    btf::{self, Btf, KernelBtf, Prototype},
    kallsyms::{Index, KERNEL},
};

/// How the kernel reports calls of its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionProbes {
    /// Of many functions at once.
    AtOnce,
    /// Of each function by two probes of its own, which are slow to attach and to go.
    Each,
}

/// How the kernel reports calls of its functions.
///
/// # Errors
/// The option that it was built without, if it cannot.
pub fn function_probes() -> Result<FunctionProbes, &'static str> {
    // Names are shown to everybody, even where addresses are hidden.
    let symbols = fs::read("/proc/kallsyms").unwrap_or_default();
    // Without names there will be an error that says more.
    if symbols.is_empty() { Ok(FunctionProbes::AtOnce) } else { found(&symbols) }
}

fn found(symbols: &[u8]) -> Result<FunctionProbes, &'static str> {
    let has = |name: &str| memchr::memmem::find(symbols, format!(" {name}\n").as_bytes()).is_some();
    if !has("register_kprobe") {
        Err("CONFIG_KPROBES=y")
    } else if has("register_fprobe_ips") && has("bpf_kprobe_multi_link_attach") {
        Ok(FunctionProbes::AtOnce)
    } else if has("create_local_trace_kprobe") && has("bpf_get_attach_cookie_trace") {
        Ok(FunctionProbes::Each)
    } else if has("register_fprobe_ips") {
        Err("CONFIG_BPF_EVENTS=y (Linux 5.18 and later)")
    } else {
        Err("CONFIG_FPROBE=y (Linux 5.18 and later)")
    }
}

/// What is behind the name of a part that the compiler has moved away from its function.
const COLD: &str = ".cold";

/// The function that a symbol is a part of, if it is one.
#[must_use]
pub fn function_of_part(name: &str) -> Option<&str> {
    name.strip_suffix(COLD)
}

/// The parts of functions that the compiler has moved away, by the function's name and module.
#[derive(Debug, Default)]
pub struct ColdParts(HashMap<(String, String), (u64, u64)>);

impl ColdParts {
    /// Those of a symbol table.
    #[must_use]
    pub fn of(index: &Index) -> Self {
        let parts = index.find_where(|name, _| function_of_part(name).is_some());
        let parts = parts.filter_map(|part| {
            let name = function_of_part(part.name)?.to_owned();
            Some(((name, part.module.to_string()), (part.start, part.size.unwrap_or(0))))
        });
        Self(parts.collect())
    }

    /// Where that of a function is, and its size.
    #[must_use]
    pub fn get(&self, name: &str, module: &str) -> Option<(u64, u64)> {
        self.0.get(&(name.to_owned(), module.to_owned())).copied()
    }
}

/// What functions return, by name and module. A function that is not described is left out.
pub fn prototypes<'a>(
    kernel: &KernelBtf,
    functions: impl Iterator<Item = (&'a str, &'a str)>,
) -> HashMap<(String, String), Prototype> {
    let mut wanted: HashMap<String, HashSet<String>> = HashMap::new();
    for (name, module) in functions {
        wanted.entry(module.to_owned()).or_default().insert(name.to_owned());
    }
    let Ok(base) = kernel.get() else { return HashMap::new() };
    let mut found = HashMap::new();
    for (module, names) in wanted {
        let of_module = if module == KERNEL {
            base.prototypes(&names)
        } else {
            let types = btf::read(Path::new(btf::DIRECTORY), &module);
            let types = types.ok().and_then(|types| Btf::parse_split(types, base).ok());
            types.map(|types| types.prototypes(&names)).unwrap_or_default()
        };
        found.extend(of_module.into_iter().map(|(name, prototype)| ((name, module.clone()), prototype)));
    }
    found
}

/// The functions of the kernel proper or of a loaded module that are known to return nothing.
#[must_use]
pub fn returning_nothing(kernel: &KernelBtf, module: &str) -> HashSet<String> {
    let owned = |types: &Btf<'_>| types.returning_nothing().into_iter().map(str::to_owned).collect();
    let Ok(base) = kernel.get() else { return HashSet::new() };
    if module == KERNEL {
        return owned(base);
    }
    let types = btf::read(Path::new(btf::DIRECTORY), module).ok();
    types.and_then(|types| Some(owned(&Btf::parse_split(types, base).ok()?))).unwrap_or_default()
}

/// The functions that are called with all of some structures, by name and module, of the kernel proper and of loaded modules.
#[must_use]
pub fn functions_with(structures: &[&str], kernel: &KernelBtf) -> HashSet<(String, String)> {
    let Ok(base) = kernel.get() else { return HashSet::new() };
    let named = |module: &str, types: &Btf<'_>| -> Vec<_> {
        types.functions_with(structures).map(|name| (name.to_owned(), module.to_owned())).collect()
    };
    let mut found: HashSet<_> = named(KERNEL, base).into_iter().collect();
    let directory = Path::new(btf::DIRECTORY);
    for module in btf::modules(directory).unwrap_or_default() {
        let types = btf::read(directory, &module).ok();
        let types = types.and_then(|types| Btf::parse_split(types, base).ok());
        found.extend(types.map(|types| named(&module, &types)).unwrap_or_default());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let kernel = |names: &[&str]| {
            let lines: Vec<_> = names.iter().map(|name| format!("0000000000000000 T {name}\n")).collect();
            lines.concat()
        };
        let probes = |names: &[&str]| found(kernel(names).as_bytes());
        assert_eq!(probes(&["bpf_kprobe_multi_link_attach"]), Err("CONFIG_KPROBES=y"));
        assert!(
            probes(&["register_kprobe", "register_kprobes"]).is_err_and(|lacks| lacks.contains("FPROBE"))
        );
        assert!(probes(&["register_kprobe", "register_fprobe_ips"]).is_err());
        let each = ["register_kprobe", "create_local_trace_kprobe", "bpf_get_attach_cookie_trace"];
        assert_eq!(probes(&each), Ok(FunctionProbes::Each));
        assert!(probes(&each[..2]).is_err());
        let many = ["register_kprobe", "register_fprobe_ips", "bpf_kprobe_multi_link_attach"];
        assert_eq!(probes(&many), Ok(FunctionProbes::AtOnce));
    }

    #[test]
    fn a_part_that_was_moved_away_belongs_to_its_function() {
        let table = "ffffffff81000000 T ip_rcv\nffffffff81000100 t ip_rcv.cold\nffffffff81000140 T _etext\n";
        let parts = ColdParts::of(&Index::read(table.as_bytes()).expect("a table"));
        assert_eq!(parts.get("ip_rcv", "kernel"), Some((0xffff_ffff_8100_0100, 0x40)));
        assert_eq!(parts.get("ip_rcv", "gre"), None);
    }
}
