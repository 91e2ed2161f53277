//! Contenders against each other, in rounds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{
    contender::Contender,
    sender::{SLICE, Sender},
    statistics::{Random, Sample},
    table::Figure,
};

/// What is timed in a round, in slices: about 20,000 drops.
const TIMED: usize = 80;

/// Slices before each round that are not timed: they bring what was attached just now into the caches.
const WARM_UP: usize = 8;

/// A part ends after so long however many rounds are left: on a busy machine they take longer.
const LIMIT: Duration = Duration::from_secs(140);

/// How often progress is printed.
const PROGRESS: Duration = Duration::from_secs(5);

/// What was measured of one contender.
struct Measured {
    /// All slices, in nanoseconds for each drop.
    slices: Vec<f64>,
    /// The least of each round it took part in, and the number of the round.
    least: Vec<(u32, f64)>,
}

/// The packets that were dropped in a round.
pub const DROPS: u64 = ((WARM_UP + TIMED) * SLICE) as u64;

/// Runs them all in each round, in random order, and returns what each adds to the first one, which has nothing
/// attached, with ratios to `array`; and how many rounds there were.
pub fn run(
    part: &str,
    contenders: &mut [Contender],
    sender: &Sender,
    rounds: u32,
) -> Result<(Vec<Figure>, u32)> {
    let mut random = Random::from_time();
    let mut all: Vec<_> =
        contenders.iter().map(|_| Measured { slices: Vec::new(), least: Vec::new() }).collect();
    let mut order: Vec<_> = (0..contenders.len()).collect();
    let start = Instant::now();
    let mut told = start;
    let mut done = 0;
    while done < rounds && (done == 0 || start.elapsed() < LIMIT) {
        random.shuffle(&mut order);
        for &which in &order {
            let contender = &mut contenders[which];
            if done % contender.every == 0 {
                let slices = one(contender, sender).with_context(|| contender.name.clone())?;
                all[which].add(done, slices);
            }
        }
        done += 1;
        if told.elapsed() > PROGRESS {
            eprintln!("{part}: {done} of {rounds} rounds, {} s", start.elapsed().as_secs());
            told = Instant::now();
        }
    }
    Ok((figures(part, contenders, &all), done))
}

/// Nanoseconds for each drop, of each slice.
fn one(contender: &mut Contender, sender: &Sender) -> Result<Vec<f64>> {
    let ring = contender.ring.clone();
    let attached = contender.attach()?;
    let times = match ring {
        Some(ring) => sender.drop_recorded(WARM_UP + TIMED, ring)?,
        None => sender.drop_packets(WARM_UP + TIMED)?,
    };
    drop(attached);
    Ok(times.into_iter().skip(WARM_UP).map(per_drop).collect())
}

fn per_drop(slice: Duration) -> f64 {
    slice.as_secs_f64() * 1e9 / f64::from(u32::try_from(SLICE).unwrap_or(u32::MAX))
}

impl Measured {
    fn add(&mut self, round: u32, slices: Vec<f64>) {
        self.least.push((round, slices.iter().copied().fold(f64::INFINITY, f64::min)));
        self.slices.extend(slices);
    }

    /// What it costs more than nothing did in the same round. A machine that is slower for seconds at a time, as
    /// shared ones are, is slower for both; the least of all rounds may not be.
    fn paired(&self, nothing: &Self) -> Sample {
        let of = |round| nothing.least.iter().find(|(other, _)| *other == round).map(|(_, least)| *least);
        let differences = self.least.iter().filter_map(|&(round, least)| Some(least - of(round)?));
        Sample::new(differences.collect())
    }
}

fn figures(part: &str, contenders: &[Contender], all: &[Measured]) -> Vec<Figure> {
    let samples: Vec<_> = all.iter().map(|measured| Sample::new(measured.slices.clone())).collect();
    let nothing = &samples[0];
    let array = contenders.iter().position(|contender| contender.id == "array");
    let array = array.map(|at| (samples[at].least() - nothing.least(), all[at].paired(&all[0]).median()));
    let mut figures = vec![
        Figure::new(format!("{part}.nothing"), &contenders[0].name, nothing.least(), "ns")
            .with_spread(nothing.spread()),
    ];
    for ((contender, measured), sample) in contenders.iter().zip(all).zip(&samples).skip(1) {
        let added = sample.least() - nothing.least();
        let paired = measured.paired(&all[0]);
        let mut figure =
            Figure::new(format!("{part}.{}", contender.id), &format!("+ {}", contender.name), added, "ns")
                .with_spread(sample.spread())
                .with_paired(paired.median(), paired.middle_half());
        if let Some((least, median)) = array {
            figure = figure.with_ratios(ratio(added, least), ratio(paired.median(), median));
        }
        figures.push(figure);
    }
    figures
}

/// None to what seems to cost nothing, or less.
fn ratio(of: f64, to: f64) -> Option<f64> {
    (to > 0.0).then_some(of / to)
}
