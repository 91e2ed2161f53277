//! How long the first symbol takes: the whole table has to be read for it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{statistics::Sample, table::Figure};
use crate::{
    command,
    ebpf::{self, Variant},
    run, workspace,
};

const RUNS: usize = 20;

/// A function that every kernel with BPF has, and none inlines.
const FUNCTION: &str = "__dev_queue_xmit";

pub fn measure() -> Result<Vec<Figure>> {
    let mut build = command::cargo();
    build.args(["build", "--release", "--package", "xtask", "--example", "first_symbol"]);
    // The example embeds no other object than the program did, lest they rebuild each other's library in turns.
    let program =
        run::built_program(ebpf::embed(&mut build, Variant::Shipped).current_dir(workspace::root()))?;
    let kallsyms = fs::read_to_string("/proc/kallsyms").context("cannot read /proc/kallsyms")?;
    let address = address(&kallsyms, FUNCTION).with_context(|| {
        format!("/proc/kallsyms has no address of {FUNCTION}: set kernel.kptr_restrict to 0 or 1")
    })?;
    eprintln!("symbols: {RUNS} runs of each");
    let (mut dropwatch, mut blazesym) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        dropwatch.push(first_symbol(&program, "dropwatch", address)?);
        blazesym.push(first_symbol(&program, "blazesym", address)?);
    }
    let figure =
        |id, name, sample: Sample| Figure::new(id, name, sample.least(), "ms").with_spread(sample.spread());
    Ok(vec![
        figure("symbols.dropwatch", "first symbol, processor time", Sample::new(dropwatch)),
        figure("symbols.blazesym", "first symbol with blazesym instead", Sample::new(blazesym)),
    ])
}

/// Milliseconds of processor time.
fn first_symbol(program: &Path, resolver: &str, address: &str) -> Result<f64> {
    let output = command::output(Command::new(program).args([resolver, address]))?;
    let nanoseconds: f64 = output.trim().parse().with_context(|| format!("no time: {output:?}"))?;
    Ok(nanoseconds / 1e6)
}

/// The address of a function, unless it is hidden.
fn address<'a>(kallsyms: &'a str, function: &str) -> Option<&'a str> {
    let mut lines = kallsyms.lines().map(|line| line.split_whitespace());
    let address = lines.find_map(|mut words| {
        let address = words.next()?;
        (words.nth(1)? == function).then_some(address)
    })?;
    address.contains(|digit| digit != '0').then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To measure how nothing is found would be easy and wrong.
    #[test]
    fn hidden_addresses_are_none() {
        let text = "ffffffff81000000 T _text\nffffffff81a0b0c0 T f\t[m]\n0000000000000000 T g\n";
        assert_eq!(address(text, "f"), Some("ffffffff81a0b0c0"));
        assert_eq!(address(text, "g"), None);
        assert_eq!(address(text, "h"), None);
    }
}
