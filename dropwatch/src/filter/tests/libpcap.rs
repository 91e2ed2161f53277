//! Random expressions over random packets, against what libpcap makes of them.

use std::process::Command;

use dropwatch_common::{
    packet::{Packet, ethertype, protocol},
    program::{self, Facts, TAGGED, need},
};

use super::{
    classic::Program,
    decider,
    expressions::{self, Expression},
    facts, filter, machine,
    packets::{HARDWARE, Random, Sample},
};

/// Numbers of VLANs.
const VLANS: [u16; 4] = [0, 5, 10, 4095];

/// How many packets each expression is tried on.
const PACKETS: usize = 200;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

/// Whether libpcap is available; where nothing may be skipped, it must be.
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
        .args(["-O", "-ddd", "-y", "EN10MB", "--", expression])
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

/// A packet's frame with its tag, if it has one, and what is known of it.
fn framed(random: &mut Random, sample: &Sample, tag: Option<u16>) -> (Vec<u8>, Facts) {
    let mut frame = sample.frame(random.pick(&HARDWARE));
    let mut facts = facts(sample.ethertype, &sample.bytes);
    facts.link.copy_from_slice(&frame[..12]);
    facts.known |= program::known::LINK;
    if let Some(tag) = tag {
        let [high, low] = tag.to_be_bytes();
        frame.splice(12..12, [random.pick(&[0x81, 0x88, 0x91]), 0, high, low]);
        frame[13] = if frame[12] == 0x88 { 0xa8 } else { 0 };
        facts.tags[0] = TAGGED | tag & 0xfff;
    }
    (frame, facts)
}

/// Compares decisions on random packets, of which some have a tag if that can be told apart.
fn compare(cases: u64, seed: u64, has_tags: bool, any: impl Fn(&mut Random) -> Expression) {
    let mut random = Random::new(seed);
    let (mut compared, mut passed) = (0_u64, 0_u64);
    for case in 0..cases {
        let expression = any(&mut random);
        let ours = filter(&expression.ours);
        assert_eq!(filter(&ours.to_string()).expression(), ours.expression(), "printed and read again");
        let program = compiled(&expression.libpcap);
        let decider = decider(&ours);
        for _ in 0..PACKETS {
            let sample = Sample::any(&mut random);
            if is_known_difference(ours.needs(), &sample) {
                continue;
            }
            let tag =
                (has_tags && random.chance(80)).then(|| random.pick(&VLANS) | random.pick(&[0, 0xe000]));
            let (frame, mut facts) = framed(&mut random, &sample, tag);
            if ours.needs() & need::PACKET == 0 {
                facts.packet = Packet { ethertype: sample.ethertype, ..Packet::default() };
            }
            let expected = program.passes(&frame);
            assert_eq!(
                decider.decide(&facts, &machine::Packet::whole(&sample.bytes)) != 0,
                expected,
                "seed {seed} case {case}: {:?} (libpcap: {:?}) on {frame:02x?}, {facts:x?}, {:x?}",
                expression.ours,
                expression.libpcap,
                ours.insns(),
            );
            compared += 1;
            passed += u64::from(expected);
        }
    }
    // A comparison in which nothing or everything passes compares nothing.
    assert!(passed * 20 > compared && passed * 20 < compared * 19, "{passed} of {compared} pass");
    println!("{passed} of {compared} pass");
}

/// `DROPWATCH_FILTER_CASES` and `DROPWATCH_FILTER_SEED` change how many expressions and which.
#[test]
fn decides_as_libpcap_does() {
    if has_tcpdump() {
        let cases = setting("DROPWATCH_FILTER_CASES", 600);
        compare(cases, setting("DROPWATCH_FILTER_SEED", 1), false, expressions::any);
    }
}

/// Numbers calculated from bytes of the packet, and nothing else.
#[test]
fn compares_numbers_as_libpcap_does() {
    if has_tcpdump() {
        let cases = setting("DROPWATCH_FILTER_CASES", 600);
        compare(cases, setting("DROPWATCH_FILTER_SEED", 1), false, expressions::relation);
    }
}

/// What comes after `vlan` is about what is inside the tag, there as here.
#[test]
fn looks_into_tags_as_libpcap_does() {
    if has_tcpdump() {
        let cases = setting("DROPWATCH_FILTER_CASES", 600) / 4;
        compare(cases, setting("DROPWATCH_FILTER_SEED", 1), true, expressions::tagged);
    }
}
