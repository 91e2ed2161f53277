//! One measurement of `cargo xtask bench`, in a process and a build of its own: the time until one address has a
//! name. Its arguments are the resolver and the address; it prints nanoseconds of processor time.

use std::{env, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use blazesym::{
    Addr, MaybeDefault,
    symbolize::{Input, Symbolizer, source},
};
use dropwatch::internals::{KallsymsSource, Symbols};
use nix::time::{ClockId, clock_gettime};

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [resolver, address] = &arguments[..] else { bail!("expected a resolver and an address") };
    let address = u64::from_str_radix(address.trim_start_matches("0x"), 16).context("no address")?;
    let before = processor_time()?;
    let name = match resolver.as_str() {
        "dropwatch" => dropwatch(address),
        "blazesym" => blazesym(address)?,
        other => bail!("no resolver {other}"),
    };
    let took = processor_time()?.saturating_sub(before);
    ensure!(name.is_some(), "{resolver} has no name for {address:#x}");
    println!("{}", took.as_nanos());
    Ok(())
}

/// Of all threads: dropwatch reads its table in one of its own.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("no processor time")?.into())
}

fn dropwatch(address: u64) -> Option<String> {
    let table = Symbols::start(KallsymsSource::Running).table();
    table.locate(address).symbol.map(|symbol| symbol.name.to_string())
}

/// From kallsyms as well: with a kernel image at hand it would parse that, which is another task.
fn blazesym(address: Addr) -> Result<Option<String>> {
    let kernel = source::Kernel { vmlinux: MaybeDefault::None, ..source::Kernel::default() };
    let symbolizer = Symbolizer::new();
    let named = symbolizer
        .symbolize_single(&source::Source::Kernel(kernel), Input::AbsAddr(address))
        .context("blazesym cannot read the kernel's symbols")?;
    Ok(named.as_sym().map(|symbol| symbol.name.to_string()))
}
