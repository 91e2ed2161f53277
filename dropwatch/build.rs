//! Picks the BPF object to embed: the committed one, or the one that `DROPWATCH_BPF_OBJECT` names.
//!
//! The second way is for whoever changes the BPF program: `cargo xtask run` and `cargo xtask test` embed an object
//! built a moment ago without touching the committed one.

use std::{env, path::PathBuf};

const VARIABLE: &str = "DROPWATCH_BPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let object = env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let object = object.map_or_else(|| package.join("bpf/dropwatch.bpf.o"), |path| package.join(path));
    println!("cargo::rerun-if-changed={}", object.display());
    if object.exists() {
        println!("cargo::rustc-env={VARIABLE}={}", object.display());
    } else {
        println!("cargo::error=no BPF object {}: build it with `cargo xtask ebpf`", object.display());
    }
}
