//! The probe of `dig`: the drops that match with their packets, and the calls on the way to one of them.

mod links;
pub mod text;

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use dropwatch_common::{
    dig::{Counted, Step, WALKERS, WALKS as WALK_COUNT, WalkHead},
    names,
};

use self::links::{Links, Programs};
use crate::{
    kernel::{btf::KernelBtf, code::FunctionProbes},
    probe::{
        dig::text::TextReader,
        kfree_skb::{
            refusal::explain,
            typed::{KernelFilter, filter_maps, interface_names, room, tell_names, typed_loader},
        },
        loader::Arguments,
        offsets::trace_offsets,
        source::{AttachError, Decide, FilterMaps, Filtered, TrampolineMap},
        types::KernelTypes,
    },
    sys::{self, Ends},
};

/// Room for drops: `dig` needs one of them at a time.
const DROPS: u32 = 1 << 20;
/// Room for some thirty walks.
const WALKS: u32 = 1 << 20;
/// How much of a packet is captured.
const SNAPLEN: u32 = 256;
/// A probe that is attached to the tracepoint from [`DigProbe::attach`] to its end, and to functions while
/// [`DigProbe::follow`] says so. Nothing of it is pinned.
pub struct DigProbe {
    /// Drops that match, as the probe of `trace` writes them.
    pub drops: RingBuf<MapData>,
    /// Walks in which one of them was.
    pub walks: RingBuf<MapData>,
    /// What reads the kernel's text.
    pub text: TextReader,
    filter_maps: Option<FilterMaps>,
    trampolines: Option<TrampolineMap>,
    decide: Option<Decide>,
    place: Array<MapData, u64>,
    /// Which task has which walk, and the other way round.
    walkers: [Array<MapData, u64>; 2],
    counts: PerCpuArray<MapData, u64>,
    how: FunctionProbes,
    programs: Programs,
    /// What keeps it attached to functions.
    links: Links,
    /// What keeps it attached to the tracepoint.
    _link: OwnedFd,
    has_reason: bool,
}

impl DigProbe {
    /// Loads and attaches to the tracepoint.
    ///
    /// # Errors
    /// A refusal by the kernel, with what can be done about it.
    pub fn attach(
        filter: Option<&KernelFilter>,
        kernel: &KernelBtf,
        how: FunctionProbes,
    ) -> Result<Self, AttachError> {
        Self::load(filter, kernel, how).map_err(|error| explain(error, "ring buffers and walks of 4 MB"))
    }

    fn load(filter: Option<&KernelFilter>, kernel: &KernelBtf, how: FunctionProbes) -> Result<Self> {
        let types = KernelTypes::read(kernel, "dropwatch dig", trace_offsets)?;
        let names = interface_names(filter, &[]);
        let mut loaded = typed_loader(&types, filter, filter.map_or(0, KernelFilter::gathered))?
            .constant(names::TRACE_OFFSETS, types.more)
            .constant(names::SNAPLEN, SNAPLEN)
            .constant(names::STACK, 1_u8)
            .constant(names::RING_SIZE, u64::from(DROPS))
            .constant(names::ARM, u8::from(cfg!(target_arch = "aarch64")))
            .max_entries(names::RING, DROPS)
            .max_entries(names::DUG, WALKS)
            .max_entries(names::INTERFACES, room(&names))
            .load_with(
                names::DIG_DROP,
                Arguments::Typed(types.layout.tracepoint.type_id),
                &[&[(names::READ_TEXT, Arguments::Raw)], &*programs(how, is_return(kernel))].concat(),
            )?;
        let filter_maps = Some(filter_maps(&mut loaded, filter)?);
        tell_names(&mut loaded, &names)?;
        Ok(Self {
            drops: RingBuf::try_from(loaded.take(names::RING)?)?,
            walks: RingBuf::try_from(loaded.take(names::DUG)?)?,
            text: TextReader::new(
                loaded.take_program(names::READ_TEXT)?,
                Array::try_from(loaded.take(names::TEXT)?)?,
            ),
            filter_maps,
            trampolines: Some(Array::try_from(loaded.take(names::TRAMPOLINES)?)?),
            decide: None,
            place: Array::try_from(loaded.take(names::DIG_PLACE)?)?,
            walkers: [
                Array::try_from(loaded.take(names::WALKERS)?)?,
                Array::try_from(loaded.take(names::HOLDERS)?)?,
            ],
            counts: PerCpuArray::try_from(loaded.take(names::WALK_COUNTS)?)?,
            how,
            programs: match loaded.take_program(names::DIG_SESSION) {
                Ok(both) => Programs::Session(both),
                Err(_) => Programs::Two {
                    call: loaded.take_program(names::DIG_CALL)?,
                    returned: loaded.take_program(names::DIG_RETURN)?,
                },
            },
            links: Links::default(),
            _link: loaded.attach()?,
            has_reason: types.layout.has_reason(),
        })
    }

    /// How functions are followed.
    #[must_use]
    pub fn how(&self) -> FunctionProbes {
        self.how
    }

    /// Whether this kernel gives reasons for drops.
    #[must_use]
    pub fn has_reason(&self) -> bool {
        self.has_reason
    }

    /// How drops are decided about that passed because the kernel did not know all that decides.
    pub fn take_decide(&mut self) -> Option<Decide> {
        self.decide.take()
    }

    /// Follows calls of functions, by address and cookie, for the next drop at a place, besides those that are followed
    /// already. How many are left out because the kernel refuses them.
    ///
    /// # Errors
    /// The kernel does not attach to functions.
    pub fn follow(&mut self, functions: &[(u64, u64)], location: u64) -> Result<usize> {
        let attached = self.links.attach(self.how, &self.programs, functions);
        let refused = attached.context("cannot follow the calls of the kernel's functions")?;
        self.place.set(0, location, 0).context("cannot set the place that is looked for")?;
        Ok(refused)
    }

    /// Follows no function any more.
    ///
    /// # Errors
    /// The kernel does not let its maps be written.
    pub fn leave(&mut self) -> Result<()> {
        self.rest()?;
        self.log_cost();
        self.links = Links::default();
        Ok(())
    }

    /// Looks for no drop any more, but stays attached.
    ///
    /// # Errors
    /// The kernel does not let its maps be written.
    pub fn rest(&mut self) -> Result<()> {
        self.place.set(0, 0, 0).context("cannot set the place that is looked for")?;
        // Those in the middle of a walk will not come to its end.
        for (map, length) in self.walkers.iter_mut().zip([WALKERS, WALK_COUNT]) {
            (0..length).try_for_each(|place| map.set(place, 0, 0)).context("cannot end walks")?;
        }
        Ok(())
    }

    /// How many walks there have been.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn walk_counts(&self) -> Result<WalkCounts> {
        let sum = |what| -> Result<u64> {
            let of_cpus =
                self.counts.get(&(what as u32), 0).context("cannot read how many walks there were")?;
            Ok(of_cpus.iter().sum())
        };
        Ok(WalkCounts {
            begun: sum(Counted::Begun)?,
            passed_over: sum(Counted::PassedOver)?,
            handed_over: sum(Counted::HandedOver)?,
            unread: sum(Counted::Unread)?,
        })
    }

    /// How many walks there were, and what the programs have cost, where BPF statistics are enabled.
    fn log_cost(&self) {
        if let Ok(WalkCounts { begun, passed_over, handed_over, unread }) = self.walk_counts()
            && begun + passed_over > 0
        {
            log::info!(
                "{begun} walks begun, {passed_over} passed over, {handed_over} with the drop handed over, {unread} unread"
            );
        }
        for (name, program) in self.programs.all() {
            if let Ok(stats) = sys::program_stats(program.as_fd())
                && let Some(each) = stats.run_time_ns.checked_div(stats.runs)
            {
                log::info!("{} {name} reported, {each} ns each", stats.runs);
            }
        }
    }

    /// How many calls and returns the probe has not seen: the kernel keeps a program from running inside of another one.
    /// Of all tasks, and since they are followed. Where each function has probes of its own, they are not counted.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn missed(&self) -> Result<Option<u64>> {
        if self.how == FunctionProbes::Each {
            return Ok(None);
        }
        let mut missed = self.links.missed()?;
        for (_, program) in self.programs.all() {
            missed += sys::program_stats(program.as_fd())?.recursion_missed.unwrap_or(0);
        }
        Ok(Some(missed))
    }
}

/// How many walks there have been, of all tasks, since the probe was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkCounts {
    /// Those whose calls were noted.
    pub begun: u64,
    /// Those that found no room.
    pub passed_over: u64,
    /// Those of them in which the packet was dropped.
    pub handed_over: u64,
    /// The same, but they came faster than they were read.
    pub unread: u64,
}

/// The number of the kernel's function that says at which end of a function a program is: there since Linux 6.10, which has
/// sessions.
fn is_return(kernel: &KernelBtf) -> Option<u32> {
    kernel.get().ok()?.function("bpf_session_is_return")
}

/// The programs that are attached to functions.
fn programs(how: FunctionProbes, is_return: Option<u32>) -> Vec<(&'static str, Arguments)> {
    let two = |call, returned| vec![(names::DIG_CALL, call), (names::DIG_RETURN, returned)];
    match (how, is_return) {
        (FunctionProbes::Each, _) => two(Arguments::Function, Arguments::Function),
        (FunctionProbes::AtOnce, Some(number)) => vec![(names::DIG_SESSION, Arguments::Session(number))],
        (FunctionProbes::AtOnce, None) => {
            two(Arguments::Functions(Ends::Start), Arguments::Functions(Ends::Return))
        }
    }
}

/// A record of a walk: what is known of it, and its steps.
#[must_use]
pub fn walk_of(record: &[u8]) -> Option<(WalkHead, Vec<Step>)> {
    let (head, steps) = record.split_at_checked(size_of::<WalkHead>())?;
    let head: WalkHead = sys::values_of(head).pop()?;
    let mut steps: Vec<Step> = sys::values_of(steps);
    steps.truncate(head.steps as usize);
    Some((head, steps))
}

impl Filtered for DigProbe {
    fn take_filter_maps(&mut self) -> Option<FilterMaps> {
        self.filter_maps.take()
    }

    fn take_trampolines(&mut self) -> Option<TrampolineMap> {
        self.trampolines.take()
    }

    fn decide_by(&mut self, decide: Decide) {
        self.decide = Some(decide);
    }
}

#[cfg(test)]
mod tests {
    use dropwatch_testing::skip;

    use super::*;
    use crate::probe::loader::Loader;

    /// Of all kernels: what this one could not attach, its verifier reads nevertheless.
    #[test]
    fn the_verifier_accepts_what_follows_functions() {
        if !nix::unistd::geteuid().is_root() {
            return skip("loading a program needs root");
        }
        let Some(number) = is_return(&KernelBtf::default()) else { return skip("no sessions here") };
        let loads = |how, is_return| {
            let programs = programs(how, is_return);
            Loader::kfree_skb().load_with(names::READ_TEXT, Arguments::Raw, &programs).map(drop)
        };
        for (how, is_return) in [
            (FunctionProbes::AtOnce, Some(number)),
            (FunctionProbes::AtOnce, None),
            (FunctionProbes::Each, None),
        ] {
            loads(how, is_return).unwrap_or_else(|error| panic!("{how:?}, {is_return:?}: {error:#}"));
        }
        loads(FunctionProbes::AtOnce, Some(1)).expect_err("not the number of a function");
    }
}
