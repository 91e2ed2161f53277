//! What is drawn, at several sizes and on several terminals, kept as snapshots.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::{Color, Modifier};

use super::staged::{count, empty, incident, lines, report, screen};
use crate::{
    commands::top::{
        draw::look::Look,
        input::{Typed, Vocabulary},
        keys::Action,
        state::State,
    },
    model::snapshot::Ledger,
    process::notice::{Notice, Severity},
};

fn utf8() -> Look {
    Look::new(true, false)
}

fn assert_drawn(name: &str, state: &mut State, size: (u16, u16), look: &Look) {
    insta::assert_snapshot!(name, lines(&screen(state, size, look)));
}

#[test]
fn it_fits_screens_of_all_sizes() {
    for (width, height) in [(40, 10), (80, 24), (120, 40), (300, 100)] {
        assert_drawn(&format!("incident_{width}x{height}"), &mut incident(130), (width, height), &utf8());
    }
    assert_drawn("too_small", &mut incident(10), (39, 24), &utf8());
    assert_drawn("before_the_first_report_80x24", &mut empty(), (80, 24), &utf8());
}

#[test]
fn a_terminal_without_colours_and_one_of_ascii_show_the_same() {
    let plain = Look::new(false, false);
    assert_drawn("no_colour_80x24", &mut incident(130), (80, 24), &plain);
    let ascii = Look::new(true, true);
    assert_drawn("ascii_80x24", &mut incident(130), (80, 24), &ascii);
    let mut paused = incident(130);
    paused.act(Action::Help);
    let buffer = screen(&mut paused, (120, 40), &Look::new(false, true));
    assert!(buffer.content.iter().all(|cell| cell.symbol().is_ascii()), "{}", lines(&buffer));
    assert!(buffer.content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
}

/// On light and on dark backgrounds, and with sixteen colours: the background is never set, and no colour is one of those
/// that vanish on either.
#[test]
fn colours_can_be_read_on_every_background() {
    let buffer = screen(&mut incident(130), (120, 40), &utf8());
    let colours: Vec<_> = buffer.content.iter().map(|cell| cell.fg).collect();
    let readable = [Color::Reset, Color::Red, Color::Magenta, Color::Green, Color::Cyan];
    assert!(colours.iter().all(|colour| readable.contains(colour)));
    assert!(readable[..3].iter().all(|colour| colours.contains(colour)), "they are used");
    assert!(buffer.content.iter().all(|cell| cell.bg == Color::Reset));
    let selected = buffer.content.iter().filter(|cell| cell.modifier.contains(Modifier::REVERSED)).count();
    assert_eq!(selected, 120, "one line");
}

#[test]
fn help_and_notices_are_over_the_table() {
    let mut state = incident(130);
    state.act(Action::Help);
    assert_drawn("help_80x24", &mut state, (80, 24), &utf8());
    state.act(Action::Close);
    let text = "3 drops are in no row: all rows are taken (16; see --max-rows)".to_owned();
    state.notice(Notice { severity: Severity::Warning, text });
    state.say("copied");
    assert_drawn("a_warning_stays_80x24", &mut state, (80, 24), &utf8());
    state.act(Action::Notices);
    assert_drawn("notices_80x24", &mut state, (80, 24), &utf8());
}

#[test]
fn the_ledger_is_in_the_status_line() {
    let mut state = incident(3);
    let ledger = Ledger { map_full: 12, recursion_missed: Some(2), ..Ledger::default() };
    state.report(0, &report(3, vec![count(0x1037, 6, 1, 1000)], Vec::new(), ledger));
    let text = lines(&screen(&mut state, (80, 24), &utf8()));
    assert!(text.contains("ledger since the start: map_full 12, recursion_missed 2"), "{text}");
    state.report(0, &report(4, Vec::new(), Vec::new(), Ledger::default()));
    let text = lines(&screen(&mut state, (80, 24), &utf8()));
    assert!(text.contains("map_full 12"), "it is not forgotten:\n{text}");
}

#[test]
fn a_filter_is_typed_completed_and_faulty() {
    let mut state = incident(130);
    state.act(Action::Filter);
    for character in "reason NO".chars() {
        let input = state.input.as_mut().expect("a line");
        assert_eq!(input.key(KeyEvent::from(KeyCode::Char(character)), &Vocabulary::default()), Typed::Still);
    }
    let names = Vocabulary {
        reasons: ["NO_SOCKET", "NOT_SPECIFIED", "NETFILTER_DROP"].map(str::to_owned).to_vec(),
        ..Vocabulary::default()
    };
    // They are read while the line is being typed.
    state.know(names.clone());
    assert_drawn("a_filter_is_completed_80x24", &mut state, (80, 24), &utf8());
    for character in "PE and port 53".chars() {
        state.input.as_mut().expect("a line").key(KeyEvent::from(KeyCode::Char(character)), &names);
    }
    state.faulty("this kernel has no reason 'NOPE': did you mean 'NOMEM'?".to_owned(), Some(7..11));
    let text = lines(&screen(&mut state, (80, 24), &utf8()));
    insta::assert_snapshot!("a_filter_is_faulty_80x24", text);
    let at = |needle: &str| text.lines().find_map(|line| line.find(needle)).expect("it is shown");
    assert_eq!(at("^^^^"), at("NOPE"), "the caret is under the fault");
    assert_eq!(state.asked.filter, "", "the old one stays");
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let mut state = empty();
    state.about.host = "\u{1b}]0;x\u{7}\u{202e}".to_owned();
    state.say("\u{1b}[2J\u{9b}31m");
    let buffer = screen(&mut state, (80, 24), &utf8());
    let is_safe = |cell: &ratatui::buffer::Cell| !cell.symbol().contains(crate::escape::is_unsafe);
    assert!(buffer.content.iter().all(is_safe), "{}", lines(&buffer));
}
