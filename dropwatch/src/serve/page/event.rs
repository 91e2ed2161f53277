//! An interval as the page reads it.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    model::class::Class,
    process::host,
    serve::{Moment, Published},
};

/// When the first page was opened, in milliseconds since the epoch.
static RUN: LazyLock<u64> = LazyLock::new(|| milliseconds(SystemTime::now()));

#[derive(Serialize)]
struct Interval<'a> {
    host: &'static str,
    /// Another one, another run: one that has begun anew may have ended more intervals than a page has seen of the last.
    run: u64,
    number: u64,
    /// The intervals before, with the first event of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Point>>,
    last: Option<Point>,
    report: Option<&'a RawValue>,
}

/// When an interval ended, in milliseconds since the epoch; how long it was, in seconds; its drops by class.
#[derive(Serialize)]
struct Point(u64, f64, [u64; 3]);

impl From<&Moment> for Point {
    fn from(moment: &Moment) -> Self {
        Self(milliseconds(moment.ended), moment.elapsed.as_secs_f64(), by_class(moment))
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since: Duration = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where the labels do not tell the class, a drop is a loss, as everywhere.
fn by_class(moment: &Moment) -> [u64; 3] {
    let [lost, refused, harmless] = Class::ALL.map(|class| moment.split.of(class));
    [lost + moment.drops.saturating_sub(lost + refused + harmless), refused, harmless]
}

/// One line of JSON.
///
/// # Panics
/// Never: what is written is text and numbers.
pub fn text(published: &Published, is_first: bool) -> String {
    let (last, earlier) = match published.history.split_last() {
        Some((last, earlier)) => (Some(last), earlier),
        None => (None, &[][..]),
    };
    let interval = Interval {
        host: host::name(),
        run: *RUN,
        number: published.number,
        history: is_first.then(|| earlier.iter().map(Point::from).collect()),
        last: last.map(Point::from),
        report: serde_json::from_slice(published.json.trim_ascii()).ok(),
    };
    serde_json::to_string(&interval).expect("text and numbers can be written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::class::Split;

    #[test]
    fn drops_without_a_class_are_losses() {
        let mut split = Split::default();
        split.add(Class::Harmless, 2);
        let ended = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let moment = Moment { ended, elapsed: Duration::from_millis(500), drops: 5, split };
        let json = serde_json::to_string(&Point::from(&moment)).expect("JSON");
        assert_eq!(json, "[1500,0.5,[3,0,2]]");
    }
}
