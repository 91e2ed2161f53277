//! Our words against those of tcpdump, and against any bytes.
#![expect(clippy::cast_possible_truncation, reason = "packets made here are small")]

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    thread,
};

use dropwatch_common::event::{DropEvent, known};
use dropwatch_testing::{generator, skip};
use proptest::{
    collection::vec, prelude::*, sample::select, strategy::ValueTree as _, test_runner::TestRunner,
};

use super::{Style, Summary};
use crate::{
    fakes::Kernel,
    trace::{
        dropped_packet::{DroppedPacket, tests::clock},
        event::{Event, tests::record},
        frame::{Frame, Link},
        pcapng::{Capture, Sink},
    },
};

/// A capture in memory.
#[derive(Default)]
struct Memory(Vec<u8>);

impl std::io::Write for &mut Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for &mut Memory {
    fn truncate(&mut self, length: u64) {
        self.0.truncate(length as usize);
    }
}

/// The event of an Ethernet frame of which so many bytes are captured.
fn event(frame: &[u8], captured: usize) -> Vec<u8> {
    let head = DropEvent {
        location: 0x1010,
        length: frame.len() as u32 - 14,
        frame_length: frame.len() as u32,
        captured: captured as u32,
        link_length: 14,
        link_type: 1,
        known: known::DEVICE_NAME,
        ..DropEvent::default()
    };
    record(head, &[], &frame[..captured])
}

/// What tcpdump says of a capture, a line each; none if there is no tcpdump.
fn tcpdump(capture: Vec<u8>, style: Style) -> Option<Vec<String>> {
    let mut child = match Command::new("tcpdump")
        .args(["-nn", "-t", "-S", "-r", "-"])
        .args(style.link_header.then_some("-e"))
        .args(style.quick.then_some("-q"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            skip(format_args!("no tcpdump to agree with: {error}"));
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(&capture).expect("tcpdump reads it all"));
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let ended = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    // What it cannot read it prints as bytes, after a blank.
    Some(text.lines().filter(|line| !line.starts_with('\t')).map(str::to_owned).collect())
}

/// Our words and tcpdump's of the same frames.
fn both(records: &[Vec<u8>], style: Style) -> Option<Vec<(String, String)>> {
    let mut memory = Memory::default();
    let mut capture = Capture::new(&mut memory, 262_144).unwrap();
    let mut ours = Vec::new();
    for record in records {
        let shown = DroppedPacket::new(Event::parse(record).unwrap(), clock(), &mut Kernel::small(), false);
        capture.write(&shown).unwrap();
        ours.push(Summary::of(&shown.frame, style).text);
    }
    capture.flush().unwrap();
    drop(capture);
    let theirs = tcpdump(memory.0, style)?;
    assert_eq!(ours.len(), theirs.len());
    Some(ours.into_iter().zip(theirs).collect())
}

/// So many frames, the same ones in every run.
fn frames(count: usize) -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| generator::frame().new_tree(&mut runner).unwrap().current()).collect()
}

/// Without what only we say: tags, and which part of a packet a fragment is.
fn ours_as_tcpdump(words: &str) -> String {
    let mut words = words;
    while words.starts_with("vlan ") || words.starts_with("DEI, ") {
        let commas = if words.starts_with("vlan ") { 2 } else { 1 };
        words = words.splitn(commas + 1, ", ").last().unwrap();
    }
    words.split(" (frag ").next().unwrap().to_owned()
}

/// Without its double blanks, and the colon before the bytes of what it does not know.
fn tidy(words: &str) -> String {
    words.replace("  ", " ").trim_end_matches([' ', ':']).to_owned()
}

/// All ways to say it.
const STYLES: [Style; 4] = [
    Style { link_header: false, quick: false },
    Style { link_header: true, quick: false },
    Style { link_header: false, quick: true },
    Style { link_header: true, quick: true },
];

#[test]
fn tcpdump_says_the_same() {
    STYLES.into_iter().for_each(says_the_same);
}

fn says_the_same(style: Style) {
    let records: Vec<_> = frames(3000).iter().map(|frame| event(frame, frame.len())).collect();
    let Some(both) = both(&records, style) else { return };
    let differ: Vec<_> =
        both.iter().filter(|(ours, tcpdump)| tidy(&ours_as_tcpdump(ours)) != tidy(tcpdump)).collect();
    for (ours, tcpdump) in differ.iter().take(30) {
        eprintln!("ours:    {ours}\ntcpdump: {tcpdump}");
    }
    assert!(differ.is_empty(), "{style:?}: {} of {} differ", differ.len(), both.len());
}

/// The words up to where either says that the packet is cut off.
fn before_the_cut(words: &str) -> String {
    tidy(words.split("[|").next().unwrap())
}

#[test]
fn tcpdump_agrees_as_far_as_a_cut_packet_goes() {
    STYLES.into_iter().for_each(agrees_as_far_as_a_cut_packet_goes);
}

fn agrees_as_far_as_a_cut_packet_goes(style: Style) {
    let cut = |(index, frame): (usize, &Vec<u8>)| event(frame, 14 + index % 70.min(frame.len() - 14).max(1));
    let records: Vec<_> = frames(3000).iter().enumerate().map(cut).collect();
    let Some(both) = both(&records, style) else { return };
    let mut cuts = 0;
    for (ours, tcpdump) in both {
        let (here, there) = (before_the_cut(&ours_as_tcpdump(&ours)), before_the_cut(&tcpdump));
        cuts += usize::from(ours.contains("[|"));
        assert!(here.starts_with(&there) || there.starts_with(&here), "ours:    {ours}\ntcpdump: {tcpdump}");
    }
    assert!(cuts > 100, "{style:?}: only {cuts} were cut inside a header");
}

proptest! {
    #[test]
    fn any_bytes_have_words(bytes in vec(any::<u8>(), 0..200), length in 0_u32..3000, style in select(STYLES.to_vec())) {
        let frame = Frame { bytes: (&bytes).into(), length, link: Link::Own };
        prop_assert!(!Summary::of(&frame, style).text.is_empty());
    }

    #[test]
    fn a_frame_cut_anywhere_has_words(
        frame in generator::frame(),
        flip in any::<(u16, u8)>(),
        style in select(STYLES.to_vec()),
    ) {
        let mut frame = frame;
        let at = usize::from(flip.0) % frame.len();
        frame[at] ^= flip.1;
        for captured in 0..frame.len() {
            let frame = Frame { bytes: (&frame[..captured]).into(), length: frame.len() as u32, link: Link::Own };
            prop_assert!(!Summary::of(&frame, style).text.is_empty());
        }
    }
}
