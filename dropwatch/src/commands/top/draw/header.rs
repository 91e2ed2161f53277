//! The two lines at the top: where this is, what is counted, and how much of it there is.

use std::time::{Duration, SystemTime};

use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect},
};
use unicode_width::UnicodeWidthStr as _;

use super::{
    State,
    look::{Look, Role},
    put, put_all, rate,
};
use crate::{escape::Escaped, model::class::Class};

pub fn draw(buffer: &mut Buffer, area: Rect, state: &State, look: &Look) {
    let data = state.data();
    let time = data.time.map(clock).unwrap_or_default();
    let paused = if state.is_paused() { "PAUSED " } else { "" };
    let first = [
        ("dropwatch top".to_owned(), Role::Title),
        (format!("  {}", Escaped::new(&state.about.host)), Role::Plain),
        (format!("  Linux {}", Escaped::new(&state.about.kernel)), Role::Dim),
        (format!("  every {}", humantime::format_duration(state.interval)), Role::Dim),
    ];
    put_all(buffer, area, area.y, &first, look);
    let right = format!(" {paused}{time}");
    let width = u16::try_from(right.width()).unwrap_or(u16::MAX).min(area.width);
    let role = if state.is_paused() { Role::Fault } else { Role::Plain };
    put(buffer, Position { x: area.right() - width, y: area.y }, width, &right, look.style(role));
    put_all(buffer, area, area.y + 1, &totals(state, look), look);
}

/// `738 drops, 73.8/s: lost 0.9/s, refused 13.9/s, harmless 59.0/s`, and what restricts them.
fn totals(state: &State, look: &Look) -> Vec<(String, Role)> {
    let data = state.data();
    let Some(column) = data.history.columns.back() else {
        let (filter, role) = filter(state);
        return vec![("waiting for the first interval".to_owned(), Role::Dim), (filter, role)];
    };
    let per_second = |drops: u64| {
        #[expect(clippy::cast_precision_loss, reason = "it is shown to a few digits")]
        let drops = drops as f64;
        let seconds = f64::from(column.seconds);
        rate(if seconds > 0.0 { drops / seconds } else { 0.0 })
    };
    let mut words = vec![(format!("{} drops, {}", data.total, per_second(data.drops)), Role::Title)];
    if column.others == 0 {
        for class in Class::ALL {
            words.push((look.dot().to_owned(), Role::Dim));
            words.push((
                format!("{} {}", class.name(), per_second(column.split.of(class))),
                Some(class).into(),
            ));
        }
    }
    words.push(filter(state));
    words
}

fn filter(state: &State) -> (String, Role) {
    match state.asked.filter.as_str() {
        "" => (String::new(), Role::Plain),
        filter => (format!("  filter: {}", Escaped::new(filter)), Role::Key),
    }
}

/// `10:02:07Z`
fn clock(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let of_day = seconds % (24 * 60 * 60);
    format!("{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}
