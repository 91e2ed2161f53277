//! What is attached to the tracepoint while packets are dropped.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray},
    programs::RawTracePoint,
};

use super::{
    held::{Link, Program},
    monitor::Monitor,
    other::{ONE_LINER, RAW_ONE_LINER, Running, Tool},
    ring::{self, Ring},
    sender::{SLICE, Sender},
    tracefs::{self, Enabled, Ftrace},
    tracer::Tracer,
};
use crate::ebpf::{self, Variant};

/// How often a contender that has to be started for each of its rounds takes part.
const SELDOM: u32 = 10;

/// Several times what a trace takes to find its share of the drops with `--rate`.
const ADAPTED: Duration = Duration::from_millis(400);

pub struct Contender {
    /// For programs: never changes.
    pub id: String,
    /// Text, for people.
    pub name: String,
    /// It takes part in every n-th round.
    pub every: u32,
    /// The ring buffer with a record of each drop, which must be emptied.
    pub ring: Option<Ring>,
    kind: Kind,
}

/// What a trace does with the drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Shown,
    NotShown,
    /// They would be shown if anything was ever taken out of the ring buffer.
    NoRoom,
}

enum Kind {
    /// What everything else is compared with.
    Nothing,
    Program(Box<Program>),
    Ftrace(Ftrace),
    Perf(Tool),
}

/// A contender that is attached until this is dropped.
#[expect(dead_code, reason = "they are held, never looked at")]
pub enum Attached<'a> {
    Nothing,
    Program(Link),
    Ftrace(Enabled<'a>),
    Perf(Running),
}

impl Contender {
    fn new(id: &str, name: impl Into<String>, kind: Kind) -> Self {
        let every = if matches!(kind, Kind::Perf(_)) { SELDOM } else { 1 };
        Self { id: id.to_owned(), name: name.into(), every, ring: None, kind }
    }

    pub fn nothing(name: &str) -> Self {
        Self::new("nothing", name, Kind::Nothing)
    }

    pub fn attach(&mut self) -> Result<Attached<'_>> {
        Ok(match &mut self.kind {
            Kind::Nothing => Attached::Nothing,
            Kind::Program(program) => Attached::Program(program.attach()?),
            Kind::Ftrace(ftrace) => Attached::Ftrace(ftrace.enable()?),
            Kind::Perf(tool) => Attached::Perf(Running::perf(tool)?),
        })
    }

    /// dropwatch with these arguments. What is measured is the program that it loaded, after it has counted all of
    /// a thousand drops, or none if they are to be filtered out.
    pub fn dropwatch(
        [id, name]: [&str; 2],
        path: &Path,
        args: &[&str],
        counts: bool,
        sender: &Sender,
    ) -> Result<Self> {
        let mut monitor = Monitor::start(path, "200ms", args)?;
        // A report that may have begun before the drops, and one that has not.
        sender.drop_packets(1)?;
        monitor.report()?;
        let total = monitor.report()?["total"].as_u64().context("dropwatch's report has no total")?;
        let enough = if counts { total >= SLICE as u64 } else { total == 0 };
        ensure!(enough, "dropwatch {args:?} counted {total} of {SLICE} drops");
        // It is killed, not ended: its maps stay as they are while it watches.
        let program = Program::of(monitor.pid())?;
        Ok(Self::new(id, name, Kind::Program(program.into())))
    }

    /// `dropwatch trace` with these arguments. What is measured is the program that it loaded, after it has shown all
    /// of a thousand drops, or hardly any.
    pub fn trace(
        [id, name]: [&str; 2],
        path: &Path,
        args: &[&str],
        fate: Fate,
        sender: &Sender,
    ) -> Result<Self> {
        let tracer = Tracer::start(path, args, Stdio::null())?;
        let start = Instant::now();
        while start.elapsed() < ADAPTED {
            sender.drop_packets(1)?;
        }
        let (program, map) = (Program::of(tracer.pid())?, ring::map_of(tracer.pid())?);
        let summary = tracer.stop()?;
        let shows = summary.shown >= SLICE as u64;
        ensure!(shows == (fate != Fate::NotShown), "dropwatch trace {args:?}: {summary:?}");
        let ring = (fate == Fate::Shown).then(|| Ring::new(map)).transpose()?;
        Ok(Self { ring, ..Self::new(id, name, Kind::Program(program.into())) })
    }
}

/// The benchmark's own programs.
pub struct Yardsticks {
    drops: PerCpuArray<MapData, u64>,
}

impl Yardsticks {
    pub fn load() -> Result<(Self, [Contender; 2])> {
        ebpf::build_fresh(Variant::Bench)?;
        let object = ebpf::fresh_object(Variant::Bench);
        let object = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
        let mut bench = EbpfLoader::new().load(&object).context("cannot load the benchmark's programs")?;
        let drops = bench.take_map("DROPS").context("the benchmark's object has no map DROPS")?;
        let contenders = [
            Contender::new("empty", "an empty program", Kind::Program(program(&mut bench, "empty")?.into())),
            Contender::new(
                "array",
                "an array increment",
                Kind::Program(program(&mut bench, "array")?.into()),
            ),
        ];
        Ok((Self { drops: PerCpuArray::try_from(drops)? }, contenders))
    }

    /// What `array` has counted on all CPUs.
    pub fn counted(&self) -> Result<u64> {
        Ok(self.drops.get(&0, 0).context("cannot read the benchmark's counter")?.iter().sum())
    }
}

fn program(bench: &mut Ebpf, name: &str) -> Result<Program> {
    let program = bench.program_mut(name).with_context(|| format!("the object has no program `{name}`"))?;
    let program: &mut RawTracePoint = program.try_into()?;
    program.load().with_context(|| format!("the kernel refuses `{name}`"))?;
    Ok(Program::Raw(RawTracePoint::from_program_info(program.info()?, name.to_owned().into())?))
}

/// What else there is on this machine; what there is not is said, and left out.
pub fn others() -> Vec<Contender> {
    if let Err(error) = tracefs::mount() {
        eprintln!("skipped: ftrace, bpftrace and perf need tracefs: {error:#}");
        return Vec::new();
    }
    let mut all = Vec::new();
    match Ftrace::new() {
        Ok(ftrace) => all.push(Contender::new("ftrace", "an enabled ftrace event", Kind::Ftrace(ftrace))),
        Err(error) => eprintln!("skipped: ftrace: {error:#}"),
    }
    if let Some(tool) = Tool::find("bpftrace") {
        all.extend(bpftrace(&tool, "bpftrace", ONE_LINER));
        all.extend(bpftrace(&tool, "bpftrace-raw", RAW_ONE_LINER));
    }
    if let Some(tool) = Tool::find("perf") {
        let name = format!("{}, record -a -e skb:kfree_skb", tool.version);
        all.push(Contender::new("perf", name, Kind::Perf(tool)));
    }
    all
}

/// The program that bpftrace makes of this, unless it cannot.
fn bpftrace(tool: &Tool, id: &str, one_liner: &str) -> Option<Contender> {
    let program = Running::bpftrace(tool, one_liner).and_then(|running| Program::of(running.pid()));
    let name = format!("{}, {}", tool.version, one_liner.split(' ').next().unwrap_or_default());
    match program {
        Ok(program) => Some(Contender::new(id, name, Kind::Program(program.into()))),
        Err(error) => {
            eprintln!("skipped: {name}: {error:#}");
            None
        }
    }
}
