//! A finding as text, and as an object of JSON.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::SystemTime,
};

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::{
    meaning,
    verdict::{Finding, NamedCall, Part, Verdict},
};
use crate::{
    dig::{meaning::Packet, plan::Reach, tree::End},
    escape::word,
    knowledge::{Entry, Meanings},
    model::{
        foreign::Foreign,
        keys::Key,
        location::{KERNEL, SourceLine},
        report::{Row, Value},
    },
    render::{Enter, compact_json, explanation},
    trace::{
        dissect::{Style, Summary},
        dropped_packet::DroppedPacket,
        json,
    },
};

/// The column in which values begin, unless a name reaches beyond it.
const VALUES: usize = 44;

/// What is known of one dropped packet.
#[derive(Debug)]
pub struct Dug<'a> {
    /// The packet.
    pub drop: &'a DroppedPacket<'a>,
    /// What the calls say; none if the walk could not be read.
    pub finding: &'a Finding,
    /// How many calls and returns the kernel left out meanwhile, if it counts them.
    pub missed: Option<u64>,
    /// How far the calls of the function that decides were followed, if that is known.
    pub reach: Option<Reach>,
    /// The drop as a row of a report, with what shows its cause.
    pub row: Option<&'a Row>,
    /// What the row's values are.
    pub by: &'a [Key],
    /// How commands are run in its namespace.
    pub enter: Enter,
}

impl Dug<'_> {
    fn meaning(&self) -> Option<String> {
        meaning::of(&self.finding.refusal, &packet(self.drop))
    }

    /// Why the tree is not whole, if it is not.
    fn incomplete(&self) -> Option<String> {
        let gaps = self.finding.gaps;
        let mut why = Vec::new();
        if gaps.lost > 0 {
            why.push(format!("{} calls and returns found no room", gaps.lost));
        }
        if gaps.unpaired > 0 {
            why.push(format!("{} calls or returns were not seen", gaps.unpaired));
        }
        match self.missed {
            Some(0) => {}
            Some(missed) => {
                why.push(format!("the kernel left out {missed} calls or returns on this host meanwhile"));
            }
            None => {
                why.push("this kernel does not count the calls and returns that it leaves out".to_owned());
            }
        }
        let decides = self.finding.decides.source_name();
        match self.reach {
            Some(Reach::Itself) => why.push(format!("not all that {decides} calls was followed")),
            Some(Reach::Named) => {
                why.push(format!("what {decides} calls through pointers was not followed"));
            }
            Some(Reach::Whole) | None => {}
        }
        (!why.is_empty()).then(|| why.join(", "))
    }

    fn sentence(&self) -> String {
        let sentence = match (&self.finding.verdict, self.reach) {
            (Verdict::Itself { by, .. }, Some(Reach::Named)) => format!(
                "no call that was followed below {by} refused the packet: it may be one that {by} makes through pointers"
            ),
            (verdict, _) => verdict.sentence(),
        };
        match self.meaning() {
            Some(meaning) => format!("{sentence}: {meaning}"),
            None => sentence,
        }
    }

    /// A line for the packet, the tree, and the verdict; explanations are broken at a width.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_text(&self, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
        let Self { drop, .. } = self;
        let words = Summary::of(&drop.frame, Style::default()).text;
        let words = words.strip_prefix("IP ").or_else(|| words.strip_prefix("IP6 ")).unwrap_or(&words);
        write!(out, "{words}   {} at {}", word(&drop.reason.words()), drop.location.words())?;
        if let Value::Location { source: Some(source), .. } = &drop.location {
            write!(out, " ({})", word(&source.to_string()))?;
        }
        writeln!(out, "   iface {}   netns {}", word(&drop.iface.words()), word(&drop.netns.words()))?;
        write_call(&self.finding.root, 1, out)?;
        if let Some(why) = self.incomplete() {
            writeln!(out, "the tree may be incomplete: {why}")?;
        }
        writeln!(out, "{}", self.sentence())?;
        self.explanation(width).iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// What is known of drops in this place.
    fn entry(&self) -> Option<&'static Entry> {
        Meanings::default().entry(&self.row?.values)
    }

    fn explanation(&self, width: Option<usize>) -> Vec<String> {
        let (Some(entry), Some(row)) = (self.entry(), self.row) else { return Vec::new() };
        explanation(entry, self.by, row, SystemTime::now(), self.enter, width)
    }

    /// The same as an object, on a line of its own: that of `trace`, with a tree and a verdict.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut line = Vec::new();
        json::write(self.drop, Style::default(), &mut line)?;
        let mut object: Map<String, Json> = serde_json::from_slice(&line)?;
        object.insert("type".to_owned(), "dig".into());
        object.insert("tree".to_owned(), tree(&self.finding.root));
        object.insert("complete".to_owned(), self.incomplete().is_none().into());
        object.insert("verdict".to_owned(), self.verdict());
        object.insert("meaning".to_owned(), json!(self.entry().map(|entry| entry.title)));
        object.insert("evidence".to_owned(), json!(self.row.and_then(|row| row.evidence.as_ref())));
        writeln!(out, "{}", compact_json(&object)?)
    }

    fn verdict(&self) -> Json {
        let answer = |call: &Option<(String, String)>| {
            call.as_ref().map(|(function, value)| json!({"function": function, "value": value}))
        };
        let (refused, function, error, last) = match &self.finding.verdict {
            Verdict::Refused { by, with, after } => (true, by, Some(with), answer(after)),
            Verdict::Itself { by, last } => (false, by, None, answer(last)),
        };
        json!({
            "refused": refused,
            "function": function,
            "error": error,
            "last": last,
            "meaning": self.meaning(),
            "sentence": self.sentence(),
        })
    }
}

/// What a meaning needs to know of a packet.
fn packet(drop: &DroppedPacket<'_>) -> Packet {
    let facts = Summary::of(&drop.frame, Style::default()).facts;
    let iface = drop.event.iface().map(|name| name.to_string());
    Packet { iface, source: facts.source, destination: facts.destination, port: facts.destination_port }
}

fn write_call(call: &NamedCall, depth: usize, out: &mut dyn Write) -> io::Result<()> {
    let indent = depth * 2;
    let mut name = format!("{:indent$}{}", "", call.function.source_name());
    if call.function.module != *KERNEL {
        let _ = write!(name, " [{}]", call.function.module.word());
    }
    let value = call.value.to_string();
    let value = if value.is_empty() { value } else { format!("= {value}") };
    let part = match call.part {
        Part::None => "",
        Part::PassedOn => "<- passed it on",
        Part::Refused => "<- refused here",
        Part::LastAnswer => "   its last answer",
    };
    let source = call.source.as_ref().map(|source| format!("   ({})", word(&source.to_string())));
    let line = format!("{name:VALUES$} {value:24} {part}{}", source.unwrap_or_default());
    writeln!(out, "{}", line.trim_end())?;
    for call in &call.calls {
        write_call(call, depth + 1, out)?;
    }
    if call.end == End::Here {
        writeln!(out, "{:indent$}  ** freed here **", "")?;
    }
    Ok(())
}

fn tree(call: &NamedCall) -> Json {
    #[derive(Serialize)]
    struct Object<'a> {
        function: String,
        symbol: &'a Foreign,
        module: &'a Foreign,
        value: Option<String>,
        sure: bool,
        part: Option<&'static str>,
        freed: bool,
        source: &'a Option<SourceLine>,
        calls: Vec<Json>,
    }
    let value = call.value.to_string();
    json!(Object {
        function: call.function.source_name(),
        symbol: &call.function.name,
        module: &call.function.module,
        value: (call.value.is_known()).then_some(value),
        sure: !call.value.is_unsure,
        part: match call.part {
            Part::None => None,
            Part::PassedOn => Some("passed on"),
            Part::Refused => Some("refused"),
            Part::LastAnswer => Some("last answer"),
        },
        freed: call.end == End::Here,
        source: &call.source,
        calls: call.calls.iter().map(tree).collect(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::{array, prelude::*};

    use super::*;
    use crate::{
        dig::{tree::Gaps, verdict::tests::ospf},
        escape::tests::{assert_safe, hostile},
        fakes::{Hostile, Kernel},
        trace::{
            dropped_packet::tests::{clock, datagram},
            event::Event,
        },
    };

    fn dug<'a>(drop: &'a DroppedPacket<'a>, finding: &'a Finding, missed: u64) -> Dug<'a> {
        Dug {
            drop,
            finding,
            missed: Some(missed),
            reach: Some(Reach::Whole),
            row: None,
            by: &[],
            enter: |_| None,
        }
    }

    fn text(finding: &Finding, missed: u64) -> String {
        text_of(finding, Some(missed), Reach::Whole)
    }

    fn text_of(finding: &Finding, missed: Option<u64>, reach: Reach) -> String {
        let record = datagram();
        let drop = DroppedPacket::new(Event::parse(&record).unwrap(), clock(), &mut Kernel::small(), false);
        let mut out = Vec::new();
        let dug = Dug { missed, reach: Some(reach), ..dug(&drop, finding, 0) };
        dug.write_text(None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_finding_is_a_tree_and_a_sentence() {
        insta::assert_snapshot!(text(&ospf(), 0));
    }

    #[test]
    fn calls_that_matter_have_lines_of_source() {
        let mut finding = ospf();
        finding.root.find_sources(&mut |function| {
            let file = format!("net/{}.c", function.source_name());
            Some(SourceLine { file: file.as_str().into(), line: 7 })
        });
        let text = text(&finding, 0);
        let with_lines: Vec<_> = text.lines().filter_map(|line| line.split("   (net/").nth(1)).collect();
        let expected =
            ["ip_rcv_finish_core", "ip_route_input_noref", "ip_route_input_rcu", "ip_check_mc_rcu"];
        assert_eq!(with_lines, expected.map(|name| format!("{name}.c:7)")));
    }

    #[test]
    fn what_was_not_followed_may_have_refused_it() {
        let finding = Finding {
            verdict: Verdict::Itself { by: "nf_hook_slow".to_owned(), last: None },
            refusal: Vec::new(),
            ..ospf()
        };
        assert!(!text_of(&finding, Some(0), Reach::Whole).contains("incomplete"));
        let uncounted = text_of(&finding, None, Reach::Whole);
        let words =
            "may be incomplete: this kernel does not count the calls and returns that it leaves out\n";
        assert!(uncounted.contains(words), "{uncounted}");
        let partly = text_of(&finding, Some(0), Reach::Itself);
        assert!(
            partly.contains("incomplete: not all that ip_route_input_rcu calls was followed\n"),
            "{partly}"
        );
        let text = text_of(&finding, Some(0), Reach::Named);
        assert!(text.contains("what ip_route_input_rcu calls through pointers was not followed"), "{text}");
        assert!(text.contains("it may be one that nf_hook_slow makes through pointers"), "{text}");
        assert!(!text.contains("by itself"), "{text}");
    }

    #[test]
    fn an_incomplete_tree_says_so() {
        let finding = Finding { gaps: Gaps { lost: 2, unpaired: 1 }, ..ospf() };
        let text = text(&finding, 3);
        let words = "the tree may be incomplete: 2 calls and returns found no room, 1 calls or returns were not seen, \
                     the kernel left out 3 calls or returns on this host meanwhile";
        assert!(text.lines().any(|line| line == words), "{text}");
    }

    #[test]
    fn a_finding_is_an_object() {
        let record = datagram();
        let drop = DroppedPacket::new(Event::parse(&record).unwrap(), clock(), &mut Kernel::small(), false);
        let mut out = Vec::new();
        dug(&drop, &ospf(), 0).write_json(&mut out).unwrap();
        let mut object: Json = serde_json::from_slice(&out).unwrap();
        object["host"] = "web1".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&object).unwrap());
    }

    proptest! {
        #[test]
        fn hostile_names_stay_in_their_lines(names in array::uniform4(hostile()), function in hostile()) {
            let record = datagram();
            let event = Event::parse(&record).unwrap();
            let drop = DroppedPacket::new(event, clock(), &mut Hostile(names), false);
            let mut finding = ospf();
            let source = SourceLine { file: function.clone().into(), line: 7 };
            finding.root.find_sources(&mut |_| Some(source.clone()));
            finding.root.function.name = function.clone().into();
            finding.root.function.module = function.into();
            let dug = dug(&drop, &finding, 0);
            let (mut text, mut object) = (Vec::new(), Vec::new());
            dug.write_text(None, &mut text).unwrap();
            assert_safe(&text, 10);
            dug.write_json(&mut object).unwrap();
            assert_safe(&object, 1);
        }
    }
}
