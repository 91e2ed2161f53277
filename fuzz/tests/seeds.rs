//! Every input of the repository, and changes of each: the same ones in every run, unless `DROPWATCH_FUZZ_SEED` or
//! `DROPWATCH_FUZZ_RUNS` says otherwise.

use std::{env, fs, panic};

use dropwatch_fuzz::{TARGETS, Target, seeds, target};
use dropwatch_testing::packets::Random;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// Tries an input; one that fails is kept.
fn attempt(target: &Target, input: &[u8]) {
    if let Err(panic) = panic::catch_unwind(|| (target.run)(input)) {
        let file = env::temp_dir().join(format!("dropwatch-fuzz-{}", target.name));
        fs::write(&file, input).expect("the input is kept");
        eprintln!("this input fails: cargo xtask fuzz {} --input {}", target.name, file.display());
        panic::resume_unwind(panic);
    }
}

/// Something near one of the seeds: a few changes, most of them of the kinds that parsers stumble over.
fn changed(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(8)).min(input.len());
        match random.below(7) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => drop(input.splice(at..at, random.bytes(3))),
            3 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            4 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend(&other[from..]);
            }
            5 => {
                let odd = random.pick(&[0, 1, 0x7f, 0x80, 0xff, b'0', b' ', b'\n', b'"', b'(', b':', b'-']);
                input[at..end].fill(odd);
            }
            _ => input[at..end].iter_mut().for_each(|byte| *byte ^= 1 << random.below(8)),
        }
    }
    input
}

fn near_the_seeds(name: &str) {
    let target = target(name).expect("a target");
    let seeds = seeds(target);
    for seed in &seeds {
        attempt(target, seed);
    }
    attempt(target, b"");
    let mut random = Random::new(setting("DROPWATCH_FUZZ_SEED", 1));
    for _ in 0..setting("DROPWATCH_FUZZ_RUNS", 3000) {
        attempt(target, &changed(&seeds, &mut random));
    }
}

/// A test for each target.
macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                near_the_seeds(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tried() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

targets! {
    arguments btf code counters dig durations explain filter http iptables kallsyms modules netlink reasons_format rules services
    system_map
    trace walks web_config
}
