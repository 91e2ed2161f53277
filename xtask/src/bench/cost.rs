//! How much longer a drop takes with something attached.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};

use super::{
    contender::{Contender, Programs},
    sender::{SLICE, Sender},
    statistics::{Random, Sample},
    table::Figure,
};

/// What is timed in a round, in slices: about 20,000 drops.
const TIMED: usize = 10;

/// Slices before each round that are not timed: they bring what was attached just now into the caches.
const WARM_UP: usize = 1;

pub fn measure(dropwatch: &Path, rounds: u32) -> Result<Vec<Figure>> {
    check_statistics_off()?;
    let mut programs = Programs::load(dropwatch)?;
    let sender = Sender::start()?;
    let mut random = Random::from_time();
    let mut times = Contender::ALL.map(|_| Vec::new());
    let mut rounds_of_all = Vec::new();
    let mut order = [0, 1, 2, 3];
    for round in 0..rounds {
        if round % 10 == 0 {
            eprintln!("cost: {round} of {rounds} rounds");
        }
        random.shuffle(&mut order);
        let mut least = [0.0; 4];
        for &which in &order {
            let slices = one_round(&mut programs, Contender::ALL[which], &sender)?;
            let slices = Sample::new(slices.into_iter().map(per_drop).collect());
            least[which] = slices.least();
            times[which].push(slices);
        }
        rounds_of_all.push(least);
    }
    let mut figures = figures(&times.map(Sample::join));
    figures.extend(paired(&rounds_of_all));
    Ok(figures)
}

fn one_round(programs: &mut Programs, contender: Contender, sender: &Sender) -> Result<Vec<Duration>> {
    let attached = programs.attach(contender)?;
    sender.drop_packets(WARM_UP)?;
    let times = sender.drop_packets(TIMED)?;
    programs.detach(attached, ((WARM_UP + TIMED) * SLICE) as u64)?;
    Ok(times)
}

/// Nanoseconds.
fn per_drop(slice: Duration) -> f64 {
    slice.as_secs_f64() * 1e9 / f64::from(u32::try_from(SLICE).unwrap_or(u32::MAX))
}

/// In the order of [`Contender::ALL`].
fn figures([nothing, empty, array, dropwatch]: &[Sample; 4]) -> Vec<Figure> {
    let added = |sample: &Sample| sample.least() - nothing.least();
    let figure = |id, name, sample| Figure::new(id, name, added(sample), "ns").with_spread(sample.spread());
    vec![
        Figure::new("cost.nothing", "a sent and dropped packet, nothing attached", nothing.least(), "ns")
            .with_spread(nothing.spread()),
        figure("cost.empty", "a drop more, with an empty program", empty),
        figure("cost.array", "a drop more, with an array increment", array),
        figure("cost.dropwatch", "a drop more, with dropwatch", dropwatch),
        Figure::new(
            "cost.ratio",
            "dropwatch to the array increment",
            added(dropwatch) / added(array),
            "times",
        ),
    ]
}

/// What a contender costs more than nothing did in the same round, at the median of the rounds. A machine that is
/// slower for seconds at a time, as shared ones are, is slower for both; the least of all rounds may not be.
fn paired(rounds: &[[f64; 4]]) -> Vec<Figure> {
    let differences = |contender: usize| {
        let values = rounds.iter().map(|least| least[contender] - least[0]).collect();
        Sample::new(values)
    };
    let figure = |id, name, contender| {
        let differences = differences(contender);
        Figure::new(id, name, differences.median(), "ns").with_spread(differences.middle_half())
    };
    vec![
        figure("cost.paired.empty", "round by round, with an empty program", 1),
        figure("cost.paired.array", "round by round, with an array increment", 2),
        figure("cost.paired.dropwatch", "round by round, with dropwatch", 3),
    ]
}

/// The kernel's own measurement of programs would be measured as well.
fn check_statistics_off() -> Result<()> {
    let on = fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() != "0");
    ensure!(
        !on,
        "BPF statistics are on, which costs more than what is measured here: switch them off with \
         `sysctl kernel.bpf_stats_enabled=0`"
    );
    Ok(())
}
