//! Random expressions over random packets, against what libpcap makes of them.

use std::process::Command;

use dropwatch_common::{
    packet::{ethertype, protocol},
    rules::need,
};

use super::{
    classic::Program,
    expressions, facts, filter,
    packets::{Random, Sample},
    passes,
};

/// How many packets each expression is tried on.
const PACKETS: usize = 200;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// Whether the oracle can be asked; where nothing may be skipped, it must be.
fn has_tcpdump() -> bool {
    let found = Command::new("tcpdump").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found || std::env::var_os("DROPWATCH_REQUIRE_LIVE").is_none(), "install tcpdump");
    if !found {
        eprintln!("SKIPPED: no tcpdump, no comparison with libpcap");
    }
    found
}

/// What libpcap makes of an expression, before it optimises: the order of its loads is what it means.
fn compiled(expression: &str) -> Program {
    let output = Command::new("tcpdump")
        .args(["-O", "-ddd", "-y", "EN10MB", expression])
        .output()
        .expect("tcpdump runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "libpcap does not take {expression:?}: {errors}");
    Program::parse(&String::from_utf8_lossy(&output.stdout))
}

/// Where we mean to differ: ports behind extension headers of IPv6.
fn is_known_difference(needs: u32, sample: &Sample) -> bool {
    const EXTENSIONS: [u8; 5] = [
        protocol::HOP_BY_HOP,
        protocol::ROUTING,
        protocol::FRAGMENT,
        protocol::AUTHENTICATION,
        protocol::DESTINATION,
    ];
    let next = sample.bytes.get(6);
    needs & need::PORTS != 0
        && sample.ethertype == ethertype::IPV6
        && next.is_some_and(|next| EXTENSIONS.contains(next))
}

/// `DROPWATCH_FILTER_CASES` and `DROPWATCH_FILTER_SEED` change how many expressions and which.
#[test]
fn decides_as_libpcap_does() {
    if !has_tcpdump() {
        return;
    }
    let seed = setting("DROPWATCH_FILTER_SEED", 1);
    let mut random = Random::new(seed);
    let (mut compared, mut passed) = (0_u64, 0_u64);
    for case in 0..setting("DROPWATCH_FILTER_CASES", 600) {
        let expression = expressions::any(&mut random);
        let ours = filter(&expression.ours);
        assert_eq!(filter(&ours.to_string()).expression(), ours.expression(), "printed and read again");
        let program = compiled(&expression.libpcap);
        for _ in 0..PACKETS {
            let sample = Sample::any(&mut random);
            if is_known_difference(ours.needs(), &sample) {
                continue;
            }
            let expected = program.passes(&sample.frame([2, 0, 0, 0, 0, 1]));
            let facts = facts(sample.ethertype, &sample.bytes);
            assert_eq!(
                passes(&ours, &facts),
                expected,
                "seed {seed} case {case}: {:?} (libpcap: {:?}) on {sample:02x?}, {facts:x?}, {:x?}",
                expression.ours,
                expression.libpcap,
                ours.rules(),
            );
            compared += 1;
            passed += u64::from(expected);
        }
    }
    // A comparison in which nothing or everything passes compares nothing.
    assert!(passed * 10 > compared && passed * 10 < compared * 9, "{passed} of {compared} pass");
    println!("{passed} of {compared} pass");
}
