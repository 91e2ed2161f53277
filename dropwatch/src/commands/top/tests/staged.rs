//! A host with an incident, always the same.

use std::time::{Duration, SystemTime};

use dropwatch_common::{kind, row::RowKey};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use crate::{
    cli::config::Asked,
    commands::top::{
        draw::{draw, look::Look},
        state::{About, State},
    },
    fakes::Kernel,
    model::{
        class::{Class, Destination},
        counter::{InRows, Listener, MovedCounter, Part},
        interval::{Count, Interval},
        keys::Key,
        reason::Reason,
        report::{Report, View},
        snapshot::Ledger,
    },
};

/// What rows stand for.
pub const BY: [Key; 2] = [Key::Reason, Key::Location];
/// The interval.
pub const SECOND: Duration = Duration::from_secs(1);

/// The kernel of that host.
pub fn kernel() -> Kernel {
    const REASONS: [(u32, &str); 6] = [
        (2, "NOT_SPECIFIED"),
        (3, "NO_SOCKET"),
        (6, "SOCKET_RCVBUFF"),
        (8, "NETFILTER_DROP"),
        (9, "OTHERHOST"),
        (27, "QDISC_DROP"),
    ];
    Kernel {
        functions: &[
            (0x1000, "udp_queue_rcv_one_skb", "kernel"),
            (0x2000, "nft_do_chain", "nf_tables"),
            (0x3000, "__dev_xmit_skb", "kernel"),
            (0x4000, "tcp_v4_rcv", "kernel"),
            (0x5000, "__udp4_lib_rcv", "kernel"),
            (0x6000, "ip_rcv_core", "kernel"),
            (0x7000, "unix_release_sock", "kernel"),
        ],
        reason: |code| {
            let name = REASONS.iter().find(|(known, _)| *known == code).map(|(_, name)| (*name).into());
            Some(Reason { code, subsystem: Some("core".into()), name })
        },
        class: |reason, destination| {
            assert_eq!(destination, Destination::Unicast, "what is staged");
            Some(match reason {
                3 => Class::Refused,
                2 | 9 => Class::Harmless,
                _ => Class::Lost,
            })
        },
    }
}

/// A count by location and reason.
pub fn count(location: u64, reason: u32, count: u64, total: u64) -> Count {
    let known = dropwatch_common::row::known::KIND;
    let key = RowKey { location, reason, kind: kind::UNICAST, known, ..RowKey::default() };
    Count { key, count, total: Some(total), peak: None }
}

/// A second's report of these counts.
pub fn report(second: u64, counts: Vec<Count>, counters: Vec<MovedCounter>, ledger: Ledger) -> Report {
    let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_298_405 + second);
    let interval = Interval { ended, elapsed: SECOND, ledger, counters, ..Interval::of(counts) };
    Report::new(interval, &BY, View::default(), &mut kernel())
}

/// Before the first report.
pub fn empty() -> State {
    let about = About { host: "web-17".to_owned(), kernel: "6.18.44".to_owned() };
    let asked = Asked { by: "reason,location".to_owned(), filter: String::new() };
    State::new(about, asked, BY.to_vec(), SECOND, false)
}

/// What a place drops in a second: always the same, and never steady.
fn drops(place: u64, second: u64) -> u64 {
    let wave = (second * (place + 3)) % 17;
    match place {
        0 if second % 7 < 2 => 240 + 11 * wave,
        0 => 3,
        1 if second >= 100 => 60 + wave,
        2 => 40 + 3 * wave,
        3 => 9 + wave / 3,
        4 => 2 + wave / 8,
        5 => 120 + 5 * wave,
        6 if second.is_multiple_of(9) => 4,
        _ => 0,
    }
}

/// The places, and the reasons there.
const PLACES: [(u64, u32); 7] =
    [(0x1037, 6), (0x20e8, 8), (0x3044, 27), (0x4091, 3), (0x50bc, 3), (0x6010, 9), (0x7020, 2)];

/// An accept queue that is full.
fn listener(count: u64) -> MovedCounter {
    let local = "10.77.0.2:8080".parse().expect("an address");
    let listener = Listener { local, queue: 5, limit: 4, drops: count, process: None };
    MovedCounter {
        name: "TcpExtListenDrops".into(),
        count,
        netns: None,
        part: Part { listeners: vec![listener], ..Part::default() },
        meaning: "accept queue full".to_owned(),
        rows: InRows::default(),
        is_loss: true,
    }
}

/// So many seconds of an incident.
pub fn incident(seconds: u64) -> State {
    let mut state = empty();
    let mut totals = [0; PLACES.len()];
    for second in 0..seconds {
        let counts =
            PLACES.iter().zip(&mut totals).zip(0..).filter_map(|((&(location, reason), total), place)| {
                let drops = drops(place, second);
                *total += drops;
                (drops > 0).then(|| count(location, reason, drops, *total))
            });
        let counters = if second % 5 == 1 { vec![listener(3)] } else { Vec::new() };
        let ledger = Ledger { recursion_missed: Some(0), ..Ledger::default() };
        state.report(0, &report(second, counts.collect(), counters, ledger));
    }
    state
}

/// The screen at some size.
pub fn screen(state: &mut State, (width, height): (u16, u16), look: &Look) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    terminal.draw(|frame| draw(frame, state, None, look)).expect("a frame");
    terminal.backend().buffer().clone()
}

/// Its lines.
pub fn lines(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width).map(|line| {
        let text: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}
