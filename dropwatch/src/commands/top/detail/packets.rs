//! The last packets of a row, as `trace` words them, and the file that they are written to.

use std::{
    collections::{HashSet, VecDeque},
    fs::File,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use super::{
    Target, Tools,
    view::{Writing, clock},
    worker::{Shared, Sought, words},
};
use crate::{
    escape::Escaped,
    filter::assume::Decision,
    kernel::names::KernelNames,
    model::{
        identity::Identity,
        keys::Key,
        location::Symbol,
        report::{Function, Value},
        socket::Socket,
    },
    probe::{
        clock::Clock,
        kfree_skb::{
            batch::Batch,
            trace::{TraceProbe, TraceProbeConfig},
        },
        source::{Belongs, Decide},
    },
    process::{failure::Failure, files, privileges},
    session::{digger::row::key, life::Life, open::Opened},
    trace::{
        dissect::{Style, Summary},
        dropped_packet::{DroppedPacket, Owner},
        event::Event,
        pcapng::Capture,
        printer::question,
    },
};

/// How often packets are read.
const TICK: Duration = Duration::from_millis(50);
/// How many of them are shown.
const SHOWN: usize = 24;
/// The bytes of those that are kept, to be written to a file.
const KEPT: usize = 1 << 20;
/// At most so many a second, unless they are written.
const RATE: u32 = 50;
/// As many bytes of each packet as the kernel keeps.
const SNAPLEN: u32 = 262_144;

/// What is to be done.
#[derive(Debug)]
pub enum Order {
    /// Packets are written there: those that are kept, and what is dropped from now on.
    Write(PathBuf),
    /// The file ends.
    Finish,
}

/// Reads packets until the pane is closed.
pub fn run(target: &Target, tools: &Tools, shared: &Shared, orders: &Receiver<Order>) {
    privileges::give_up_in_thread();
    let mut packets = match Packets::open(target, tools, shared) {
        Ok(packets) => packets,
        Err(failure) => {
            return shared.change(|view| view.less.push(format!("without packets: {}", words(failure))));
        }
    };
    loop {
        match orders.recv_timeout(TICK) {
            Ok(Order::Write(path)) => packets.write(&path, tools),
            Ok(Order::Finish) => packets.finish(tools),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return packets.end(),
        }
        packets.read();
    }
}

/// A probe that hands over packets.
struct Stream {
    probe: TraceProbe,
    decide: Option<Decide>,
    names: KernelNames,
    /// Drops that it saw, and that were not the row's, or cannot be told to be.
    _life: Life,
}

struct Packets {
    shared: Shared,
    sought: Sought,
    stream: Stream,
    kept: VecDeque<(Vec<u8>, Clock)>,
    lines: VecDeque<String>,
    writer: Option<Writer>,
}

impl Packets {
    fn open(target: &Target, tools: &Tools, shared: &Shared) -> Result<Self, Failure> {
        let sought = Sought::new(target);
        let stream = Stream::open(&sought, Some(RATE), tools)?;
        let (kept, lines) = (VecDeque::new(), VecDeque::new());
        Ok(Self { shared: shared.clone(), sought, stream, kept, lines, writer: None })
    }

    fn read(&mut self) {
        // The probe holds to its own limit until the next reading.
        let _ = self.stream.probe.adapt();
        let mut has_news = false;
        loop {
            let batch = self.stream.probe.batch();
            if batch.is_empty() {
                break;
            }
            has_news |= self.take(&batch);
        }
        let not_shown = self.stream.probe.left_out().read().unwrap_or_default();
        let writing = self.writer.as_mut().map(|writer| writer.state(not_shown));
        if self.writer.as_ref().is_some_and(|writer| writer.writing.has_ended) {
            self.writer = None;
        }
        let lines = has_news.then(|| self.lines.iter().cloned().collect());
        let mut view = self.shared.lock();
        let has_changed = has_news || writing.is_some() || view.not_shown != not_shown;
        view.not_shown = not_shown;
        view.packets = lines.unwrap_or_else(|| std::mem::take(&mut view.packets));
        view.writing = writing.or_else(|| view.writing.take());
        drop(view);
        if has_changed {
            self.shared.change(|_| {});
        }
    }

    /// Takes those that are the row's. Whether there are any.
    fn take(&mut self, batch: &Batch) -> bool {
        let Self { sought, stream, kept, lines, writer, .. } = self;
        let mut has_news = false;
        for record in batch.records() {
            let Ok(event) = Event::parse(record) else { continue };
            if !stream.matches(&event) {
                continue;
            }
            let mut names = stream.names.for_report();
            let drop = DroppedPacket::new(event, batch.clock, &mut names, true);
            if !is_own(&sought.identity, &event, &drop) {
                continue;
            }
            has_news = true;
            if let Some(writer) = writer {
                writer.write_new(&drop);
            }
            keep(lines, line(&drop));
            kept.push_back((record.to_vec(), batch.clock));
            while kept.iter().map(|(record, _)| record.len()).sum::<usize>() > KEPT || kept.len() > SHOWN {
                kept.pop_front();
            }
        }
        has_news
    }

    /// Begins a file with the packets that are kept, and has all handed over from now on.
    fn write(&mut self, path: &Path, tools: &Tools) {
        let begun = self.begin(path, tools);
        let file = Escaped::path(path).to_string();
        match begun {
            Ok(writer) => self.writer = Some(writer),
            Err(fault) => {
                let writing = Writing { file, has_ended: true, fault: Some(fault), ..Writing::default() };
                self.shared.change(|view| view.writing = Some(writing));
            }
        }
    }

    fn begin(&mut self, path: &Path, tools: &Tools) -> Result<Writer, String> {
        files::check(path).map_err(|why| format!("{} {why}", Escaped::path(path)))?;
        // Before the file: without this there is nothing to write.
        let stream = Stream::open(&self.sought, None, tools).map_err(words)?;
        self.read();
        let capture = files::begin(path, |file| Capture::new(file, SNAPLEN));
        let capture = capture.map_err(|error| format!("cannot write {}: {error}", Escaped::path(path)))?;
        self.stream = stream;
        let mut writer = Writer::new(path, capture);
        for (record, clock) in &self.kept {
            let Ok(event) = Event::parse(record) else { continue };
            let mut names = self.stream.names.for_report();
            writer.write(&DroppedPacket::new(event, *clock, &mut names, true));
            writer.kept.insert((event.head.time, event.head.cpu));
        }
        Ok(writer)
    }

    /// Ends the file.
    fn finish(&mut self, tools: &Tools) {
        if self.writer.is_none() {
            return;
        }
        self.read();
        self.end();
        // Where that fails, all packets go on to come.
        if let Ok(stream) = Stream::open(&self.sought, Some(RATE), tools) {
            self.stream = stream;
        }
    }

    fn end(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        writer.finish();
        let not_shown = self.stream.probe.left_out().read().unwrap_or_default();
        let state = writer.state(not_shown);
        self.shared.change(|view| view.writing = Some(state));
    }
}

impl Stream {
    fn open(sought: &Sought, rate: Option<u32>, tools: &Tools) -> Result<Self, Failure> {
        let (opener, socket) = (&tools.opener, sought.needs_sockets());
        let config = TraceProbeConfig { snaplen: SNAPLEN, rate, stack: true, socket };
        let by: &[Key] = if socket { &[Key::Process, Key::Container] } else { &[] };
        let attach = |filter: Option<crate::probe::kfree_skb::typed::KernelFilter>| {
            TraceProbe::attach(config, filter.as_ref(), &opener.kernel)
        };
        let Opened { mut probe, symbols, owners, life } =
            opener.attach_with(sought.filter.as_ref(), by, &tools.symbols, attach)?;
        let decide = probe.take_decide();
        let names = KernelNames::new(
            symbols,
            probe.has_reason(),
            opener.kernel.clone(),
            opener.namespaces.clone(),
            opener.notices.clone(),
        );
        Ok(Self { probe, decide, names: names.with_owners(owners), _life: life })
    }

    /// Whether a drop matches the filter, where the kernel could not decide it.
    fn matches(&mut self, event: &Event<'_>) -> bool {
        let socket = event.socket().map(|view| Socket { key: view.key, seen: view.seen });
        if let Some(socket) = &socket {
            self.names.look_for_owners(&[socket.owned_inode()]);
        }
        let belongs = if socket.is_some() { Belongs::To(0) } else { Belongs::Unknown };
        let Some(question) = question(event, Some(belongs)) else { return true };
        let Some(decide) = &mut self.decide else { return false };
        decide(&[question], &|_| socket.clone()).first() == Some(&Decision::Matches)
    }
}

/// Whether a packet is the row's.
pub fn is_own(identity: &Identity, event: &Event<'_>, drop: &DroppedPacket<'_>) -> bool {
    let symbol = match &drop.location {
        Value::Location { location, .. } => location.symbol.clone(),
        _ => None,
    };
    let function = symbol.map(|Symbol { name, module, .. }| Function { symbol: name, module });
    let function = Value::Function(function);
    let class = Value::Class(drop.class);
    identity.is(&key(event), Some(drop.class), |key| match key {
        Key::Function => Some(&function),
        Key::Class => Some(&class),
        Key::Stack => drop.stack.as_ref(),
        Key::Socket => drop.owner.as_ref().map(|Owner { socket, .. }| socket),
        Key::Process => drop.owner.as_ref().map(|Owner { process, .. }| process),
        Key::Container => drop.owner.as_ref().map(|Owner { container, .. }| container),
        _ => None,
    })
}

/// A packet in a line: what all of them have in common is in the row.
fn line(drop: &DroppedPacket<'_>) -> String {
    let time = humantime::format_rfc3339_millis(drop.time).to_string();
    let time =
        time.split_once('T').map_or(clock(drop.time), |(_, time)| time.trim_end_matches('Z').to_owned());
    let (iface, length) = (drop.iface.word(), drop.event.head.length);
    format!("{time} {iface} length {length}: {}", Summary::of(&drop.frame, Style::default()).text)
}

fn keep(lines: &mut VecDeque<String>, line: String) {
    lines.push_back(line);
    if lines.len() > SHOWN {
        lines.pop_front();
    }
}

/// A capture that is being written.
struct Writer {
    capture: Capture<File>,
    writing: Writing,
    /// What no capture has: local sockets send no frames.
    frameless: u64,
    /// The packets from before, which two probes have seen if they came just then.
    kept: HashSet<(u64, u32)>,
}

impl Writer {
    fn new(path: &Path, capture: Capture<File>) -> Self {
        let writing = Writing { file: Escaped::path(path).to_string(), ..Writing::default() };
        Self { capture, writing, frameless: 0, kept: HashSet::new() }
    }

    fn write_new(&mut self, drop: &DroppedPacket<'_>) {
        if !self.kept.contains(&(drop.event.head.time, drop.event.head.cpu)) {
            self.write(drop);
        }
    }

    fn write(&mut self, drop: &DroppedPacket<'_>) {
        if self.writing.has_ended {
            return;
        }
        if !drop.frame.is_of_a_network() {
            self.frameless += 1;
            return;
        }
        match self.capture.write(drop) {
            Ok(()) => self.writing.written += 1,
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &std::io::Error) {
        let fault = format!("cannot write {}: {error}", self.writing.file);
        (self.writing.fault, self.writing.has_ended) = (Some(fault), true);
    }

    fn finish(&mut self) {
        match self.capture.finish() {
            Ok(()) => self.writing.has_ended = true,
            Err(error) => self.fail(&error),
        }
    }

    /// How far it has come, when the probe has left out so many.
    fn state(&mut self, left_out: u64) -> Writing {
        if !self.writing.has_ended
            && let Err(error) = self.capture.flush()
        {
            self.fail(&error);
        }
        self.writing.missing = left_out + self.frameless;
        self.writing.clone()
    }
}
