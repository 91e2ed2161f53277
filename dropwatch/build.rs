//! Picks the BPF object to embed, and makes the texts of `src/knowledge` and the catalogue of counters part of the
//! program.

#[path = "build/knowledge.rs"]
mod knowledge;

#[path = "build/counters.rs"]
mod counters;

#[path = "src/model/words.rs"]
mod words;

use std::{env, path::PathBuf};

const VARIABLE: &str = "DROPWATCH_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=src/model/words.rs");
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    pick_object(&package);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let catalogue = package.join("src/evidence/counters/catalogue.toml");
    for generated in [
        knowledge::generate(&package.join("src/knowledge"), &out.join("knowledge.rs")),
        counters::generate(&catalogue, &out.join("counters.rs")),
    ] {
        if let Err(error) = generated {
            println!("cargo::error={}", error.replace('\n', "\ncargo::error="));
        }
    }
}

/// The committed BPF object, or the one that `DROPWATCH_BPF_OBJECT` names.
///
/// The second way is for changing the BPF program: `cargo xtask run` and `cargo xtask test` embed an object built a
/// moment ago without touching the committed one.
fn pick_object(package: &std::path::Path) {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let object = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let object = object.map_or_else(|| package.join("bpf/dropwatch.bpf.o"), |path| package.join(path));
    println!("cargo::rerun-if-changed={}", object.display());
    if object.exists() {
        println!("cargo::rustc-env={VARIABLE}={}", object.display());
    } else {
        println!("cargo::error=no BPF object {}: build it with `cargo xtask ebpf`", object.display());
    }
}
