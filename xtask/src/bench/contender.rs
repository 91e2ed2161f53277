//! What is attached to the tracepoint while packets are dropped.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray},
    programs::{RawTracePoint, raw_trace_point::RawTracePointLink},
};

use super::monitor::Monitor;
use crate::{
    ebpf::{self, Variant},
    workspace,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// No program: what everything else is compared with.
    Nothing,
    /// A program that returns at once.
    Empty,
    /// A program that increments a number of its CPU.
    Array,
    /// The shipped program, with its monitor waiting for the end of a long interval.
    Dropwatch,
}

impl Contender {
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Empty, Self::Array, Self::Dropwatch];
}

/// The programs of the contenders, ready to be attached.
pub struct Programs<'a> {
    bench: Ebpf,
    drops: PerCpuArray<MapData, u64>,
    dropwatch: &'a Path,
}

/// A contender that is attached until this ends.
pub enum Attached {
    Nothing,
    Empty(#[expect(dead_code, reason = "detaches when it is dropped")] RawTracePointLink),
    /// With what had been counted before.
    Array(#[expect(dead_code, reason = "detaches when it is dropped")] RawTracePointLink, u64),
    Dropwatch(Monitor),
}

impl<'a> Programs<'a> {
    pub fn load(dropwatch: &'a Path) -> Result<Self> {
        ebpf::build_fresh(Variant::Bench)?;
        let object = workspace::fresh_object(Variant::Bench);
        let object = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
        let mut bench = EbpfLoader::new().load(&object).context("cannot load the benchmark's programs")?;
        let drops = bench.take_map("DROPS").context("the benchmark's object has no map DROPS")?;
        for name in ["empty", "array"] {
            program(&mut bench, name)?.load().with_context(|| format!("the kernel refuses `{name}`"))?;
        }
        Ok(Self { bench, drops: PerCpuArray::try_from(drops)?, dropwatch })
    }

    pub fn attach(&mut self, contender: Contender) -> Result<Attached> {
        Ok(match contender {
            Contender::Nothing => Attached::Nothing,
            Contender::Empty => Attached::Empty(self.link("empty")?),
            Contender::Array => {
                let before = self.counted()?;
                Attached::Array(self.link("array")?, before)
            }
            Contender::Dropwatch => {
                let monitor = Monitor::start(self.dropwatch, "1h")?;
                monitor.settle()?;
                Attached::Dropwatch(monitor)
            }
        })
    }

    /// Detaches, after making sure that what was to count has counted: other drops of the machine come on top.
    pub fn detach(&self, attached: Attached, drops: u64) -> Result<()> {
        let counted = match attached {
            Attached::Nothing | Attached::Empty(_) => return Ok(()),
            Attached::Array(_, before) => self.counted()? - before,
            Attached::Dropwatch(monitor) => monitor.stop()?,
        };
        ensure!(counted >= drops, "{drops} packets were dropped but only {counted} counted");
        Ok(())
    }

    fn link(&mut self, name: &str) -> Result<RawTracePointLink> {
        let program = program(&mut self.bench, name)?;
        let attached = program.attach("kfree_skb").and_then(|id| program.take_link(id));
        attached.with_context(|| format!("cannot attach `{name}` to skb:kfree_skb"))
    }

    /// What `array` has counted on all CPUs.
    fn counted(&self) -> Result<u64> {
        Ok(self.drops.get(&0, 0).context("cannot read the benchmark's counter")?.iter().sum())
    }
}

fn program<'a>(bench: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint> {
    let program = bench.program_mut(name).with_context(|| format!("the object has no program `{name}`"))?;
    Ok(program.try_into()?)
}
