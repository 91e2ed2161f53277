//! Any bytes as the type information of a kernel, and the same bytes as that of a module on top of it.
#![no_main]

use dropwatch::{btf::Btf, reasons::Reasons};
use libfuzzer_sys::fuzz_target;

fn ask(btf: &Btf<'_>) {
    let names: Vec<&str> = btf.enums().map(|found| found.name()).take(16).collect();
    for name in names.into_iter().chain(["skb_drop_reason", "sk_buff", "a"]) {
        let _ = btf.enum_values(name);
        let _ = btf.has_function(name);
        let _ = btf.tracepoint(name);
        for path in ["a", "dev", "nd_net.net", "a.a.a"] {
            let _ = btf.field(name, path);
        }
    }
}

fuzz_target!(|bytes: (&[u8], &[u8])| {
    let (kernel, module) = bytes;
    let Ok(kernel) = Btf::parse(kernel) else { return };
    ask(&kernel);
    let mut reasons = Reasons::from_btf(&kernel);
    if let Ok(module) = Btf::parse_split(module, &kernel) {
        ask(&module);
        reasons.add_module(&module);
    }
    for reason in reasons.iter() {
        let shown = reason.to_string();
        let _ = reasons.find(&shown);
    }
});
