//! An hour of intervals in which rows come and go: what is kept is bounded, and what is counted is right.

use super::staged::{count, empty, report, screen};
use crate::{
    commands::top::{
        draw::look::Look,
        history::{MOST_ROWS, OF_A_ROW, OF_ALL},
        state::State,
    },
    model::snapshot::Ledger,
};

/// Rows that are new in each interval: more than can be kept.
const NEW: u64 = 18;

/// What is kept of rows and columns, in values.
fn kept(state: &State) -> (usize, usize, usize) {
    let history = &state.data().history;
    let rates = history.lines.values().map(|line| line.rates.capacity()).sum();
    (history.lines.len(), rates, history.columns.capacity())
}

#[test]
fn an_hour_of_churn_leaves_memory_flat() {
    let (mut state, look) = (empty(), Look::new(true, false));
    let (mut total, mut after_minutes) = (0, None);
    for second in 0..3600 {
        let churn = (0..NEW).map(|row| count(0x10_0000 + second * NEW + row, 6, 1 + row % 7, 1 + row % 7));
        total += 100;
        let counts = churn.chain([count(0x1037, 6, 100, total)]).collect();
        state.report(0, &report(second, counts, Vec::new(), Ledger::default()));
        if second % 600 == 0 {
            screen(&mut state, (120, 40), &look);
        }
        let (rows, rates, columns) = kept(&state);
        assert!(rows <= MOST_ROWS, "{rows} rows");
        assert!(rates <= MOST_ROWS * OF_A_ROW * 2 && columns <= OF_ALL * 2, "{rates}, {columns}");
        if second == 600 {
            after_minutes = Some((rows, columns));
        }
    }
    let (rows, _, columns) = kept(&state);
    assert_eq!(Some((rows, columns)), after_minutes, "as many after an hour as after ten minutes");
    let steady = state.entries().first().and_then(|entry| match entry {
        crate::commands::top::state::Entry::Row(line) => Some((line.total, line.rates.len())),
        crate::commands::top::state::Entry::Folded(_) => None,
    });
    assert_eq!(steady, Some((360_000, OF_A_ROW)), "the row that stays is whole, and the first");
}

/// Notices and counters are bounded as well.
#[test]
fn what_is_said_is_bounded() {
    let mut state = empty();
    for number in 0..10_000 {
        state.say(&format!("notice {number}"));
    }
    assert_eq!(state.notices().count(), 100);
    let newest = state.notices().next().map(|(_, notice)| notice.text.clone());
    assert_eq!(newest.as_deref(), Some("notice 9999"));
}
