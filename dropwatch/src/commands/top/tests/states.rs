//! What reports and keys do to the state.

use std::time::Duration;

use super::staged::{BY, count, empty, incident, kernel, lines, report, screen};
use crate::{
    cli::config::{Asked, Query},
    commands::top::{
        draw::look::Look,
        history::MARKED,
        keys::Action,
        state::{Effect, Entry, Sort, State, is_marked},
    },
    model::{class::Class, keys::Key, report::Value, snapshot::Ledger},
};

fn second(state: &mut State, number: u64, counts: &[(u64, u32, u64)]) {
    let counts =
        counts.iter().map(|&(location, reason, drops)| count(location, reason, drops, drops)).collect();
    state.report(0, &report(number, counts, Vec::new(), Ledger::default()));
}

/// The table in words: a row by its reason, all harmless ones as a number.
fn table(state: &State) -> Vec<String> {
    let words = |entry: &Entry<'_>| match entry {
        Entry::Row(line) => line.row.values[0].words(),
        Entry::Folded(lines) => {
            let folded = lines.values().filter(|line| line.id.1 == Some(Class::Harmless));
            format!("{} folded", folded.count())
        }
    };
    state.entries().iter().map(words).collect()
}

#[test]
fn what_is_lost_comes_first_and_what_is_harmless_is_folded() {
    let mut state = empty();
    second(&mut state, 0, &[(0x6010, 9, 5000), (0x4091, 3, 300), (0x1037, 6, 2), (0x7020, 2, 1)]);
    assert_eq!(table(&state), ["SOCKET_RCVBUFF", "NO_SOCKET", "2 folded"]);
    state.act(Action::All);
    assert_eq!(table(&state), ["SOCKET_RCVBUFF", "NO_SOCKET", "OTHERHOST", "NOT_SPECIFIED"]);
    state.act(Action::Sort);
    assert_eq!(state.sort, Sort::Recent);
    assert_eq!(table(&state), ["OTHERHOST", "NO_SOCKET", "SOCKET_RCVBUFF", "NOT_SPECIFIED"]);
}

/// Nine lost datagrams below a flood of harmless drops: they are the first row, and they are marked.
#[test]
fn news_is_marked_for_some_seconds() {
    let mut state = empty();
    for number in 0..5 {
        second(&mut state, number, &[(0x6010, 9, 5000), (0x4091, 3, 20)]);
    }
    let marks = |state: &State| -> Vec<(bool, bool)> {
        let clock = state.data().history.clock;
        let marks = |entry: &Entry<'_>| match entry {
            Entry::Row(line) => (is_marked(line.new_at, clock), is_marked(line.grown_at, clock)),
            Entry::Folded(_) => (false, false),
        };
        state.entries().iter().map(marks).collect()
    };
    assert_eq!(marks(&state), [(false, false), (false, false)], "what is there from the start is not news");
    second(&mut state, 5, &[(0x6010, 9, 5000), (0x4091, 3, 90), (0x1037, 6, 9)]);
    assert_eq!(table(&state), ["SOCKET_RCVBUFF", "NO_SOCKET", "1 folded"]);
    assert_eq!(marks(&state), [(true, false), (false, true), (false, false)]);
    state.act(Action::Sort);
    state.act(Action::Sort);
    state.act(Action::Sort);
    assert_eq!(state.sort, Sort::News);
    for number in 0..MARKED.as_secs() {
        second(&mut state, 6 + number, &[(0x4091, 3, 20)]);
    }
    assert!(marks(&state).iter().all(|marks| *marks == (false, false)), "news gets old");
}

#[test]
fn the_selection_follows_its_row() {
    let mut state = empty();
    second(&mut state, 0, &[(0x1037, 6, 50), (0x3044, 27, 40), (0x20e8, 8, 30)]);
    state.act(Action::Down(1));
    let selected = |state: &State| state.selected_row().map(|line| line.row.values[0].words());
    assert_eq!(selected(&state).as_deref(), Some("QDISC_DROP"));
    second(&mut state, 1, &[(0x3044, 27, 4000)]);
    assert_eq!((state.place(), selected(&state).as_deref()), (0, Some("QDISC_DROP")));
    second(&mut state, 2, &[(0x1037, 6, 90_000), (0x20e8, 8, 50_000)]);
    assert_eq!((state.place(), selected(&state).as_deref()), (2, Some("QDISC_DROP")));
    state.act(Action::Down(99));
    assert_eq!(state.place(), 2, "there is no more");
    state.act(Action::First);
    assert_eq!(selected(&state).as_deref(), Some("SOCKET_RCVBUFF"));
}

#[test]
fn the_selected_row_stays_on_the_screen() {
    let mut state = empty();
    let counts: Vec<_> = (0..100).map(|at| (0x1000 + at, 6, 1000 - at)).collect();
    second(&mut state, 0, &counts);
    let look = Look::new(false, false);
    for action in [Action::Last, Action::PageUp, Action::Up(7), Action::PageDown, Action::First] {
        state.act(action);
        for size in [(80, 24), (80, 50), (80, 12)] {
            screen(&mut state, size, &look);
            let shown = state.scroll..state.scroll + state.page;
            assert!(shown.contains(&state.place()), "{action:?} at {size:?}: {shown:?}, {}", state.place());
            assert!(shown.end <= 100, "no line is left empty: {shown:?}");
        }
    }
}

#[test]
fn pause_freezes_the_screen_and_not_the_counting() {
    let look = Look::new(false, false);
    let mut state = incident(20);
    state.act(Action::Pause);
    let frozen = lines(&screen(&mut state, (120, 40), &look));
    assert!(frozen.contains("PAUSED"), "{frozen}");
    let mut counted = incident(20);
    for number in 20..30 {
        for state in [&mut state, &mut counted] {
            second(state, number, &[(0x1037, 6, 1000)]);
        }
    }
    assert_eq!(lines(&screen(&mut state, (120, 40), &look)), frozen);
    state.act(Action::Pause);
    assert_eq!(lines(&screen(&mut state, (120, 40), &look)), lines(&screen(&mut counted, (120, 40), &look)));
}

#[test]
fn other_keys_are_another_probe_and_the_chart_goes_on() {
    let mut state = incident(20);
    let columns = state.data().history.columns.len();
    let asked = Asked { by: "reason".to_owned(), filter: String::new() };
    let query = Query { by: vec![Key::Reason], max_rows: 16, filter: None, interfaces: Vec::new() };
    state.applied(1, asked, &query);
    assert_eq!((table(&state), state.data().total), (Vec::new(), 0));
    // The last interval of the old probe, which comes late, with what it lost.
    let ledger = Ledger { map_full: 7, ..Ledger::default() };
    state.report(0, &report(20, vec![count(0x1037, 6, 5, 5)], Vec::new(), ledger));
    assert_eq!((table(&state), state.data().total), (Vec::new(), 0), "its rows have other keys");
    assert_eq!(state.data().history.columns.len(), columns + 1, "its drops are in the chart");
    assert_eq!(state.data().ledger.map_full, 7, "and its losses in the ledger");
    state.report(1, &report(21, vec![count(0x1037, 6, 5, 5)], Vec::new(), Ledger::default()));
    assert_eq!((table(&state).len(), state.data().total), (1, 5));
}

#[test]
fn a_row_without_drops_stays_while_its_history_does() {
    let mut state = empty();
    second(&mut state, 0, &[(0x1037, 6, 5), (0x4091, 3, 1)]);
    for number in 1..120 {
        second(&mut state, number, &[(0x4091, 3, 1)]);
    }
    assert_eq!(table(&state), ["SOCKET_RCVBUFF", "NO_SOCKET"]);
    second(&mut state, 120, &[(0x4091, 3, 1)]);
    assert_eq!(table(&state), ["NO_SOCKET"]);
}

#[test]
fn keys_ask_for_what_is_not_on_the_screen() {
    let mut state = incident(130);
    assert_eq!(state.act(Action::Quit), Some(Effect::Quit));
    assert_eq!(state.act(Action::Suspend), Some(Effect::Suspend));
    assert_eq!(state.act(Action::Open(None)), Some(Effect::Open(None)));
    state.act(Action::Last);
    assert_eq!((state.act(Action::Open(None)), state.all), (None, true), "what is folded is unfolded");
    assert_eq!(empty().act(Action::Open(None)), None, "there is no row");
}

#[test]
fn the_command_line_shows_the_same() {
    let mut state = incident(3);
    assert_eq!(state.command(), "dropwatch -i 1s -b 'reason,location'");
    state.asked.filter = "not (port 53 or reason 'X')".to_owned();
    state.interval = Duration::from_millis(1500);
    state.all = true;
    let words = shlex::split(&state.command()).expect("words of a shell");
    let expected =
        ["dropwatch", "-i", "1s500ms", "-b", "reason,location", "-f", "not (port 53 or reason 'X')", "-a"];
    assert_eq!(words, expected);
}

/// What is staged here is what reports look like.
#[test]
fn the_staged_kernel_names_what_it_drops() {
    let state = incident(130);
    let mut unnamed = state.data().history.lines.values().flat_map(|line| &line.row.values);
    assert!(
        !unnamed.any(|value| matches!(value, Value::Location { location, .. } if location.symbol.is_none()))
    );
    assert_eq!((state.data().by.as_slice(), kernel().functions.len()), (&BY[..], 7));
}
