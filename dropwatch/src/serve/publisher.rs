//! From intervals to what clients read.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use tokio::sync::{Semaphore, watch};

use super::{
    Moment, Published, Shared,
    labels::{self, Labels, OTHER},
    metrics::{Kind, Metric, Number, Texts},
    process,
    series::Series,
};
use crate::{
    kernel::names::KernelNames,
    model::{
        class::{Class, Split},
        counter::Counter,
        interval::{Cost, Interval},
        keys::{self, Key},
        report::{Report, View},
        snapshot::Ledger,
    },
    process::host,
    render::{Format, Render, Style, renderer},
    session::sink::Sink,
};

/// How many intervals are remembered.
const HISTORY: usize = 300;
/// How many streams of events there may be.
const STREAMS: usize = 64;
/// Reports that may be missing before something is wrong.
const MISSING: u32 = 10;

/// Names what was counted, adds it to what was counted before, and publishes both.
pub struct Publisher {
    by: Vec<Key>,
    names: KernelNames,
    json: Box<dyn Render>,
    totals: Totals,
    history: VecDeque<Moment>,
    number: u64,
    sender: watch::Sender<Arc<Published>>,
}

/// What was counted since the start.
struct Totals {
    limit: usize,
    drops: Series,
    counters: Series,
    /// By class, where the keys determine it.
    split: Option<Split>,
    ledger: Ledger,
    cost: Option<Cost>,
}

impl Publisher {
    /// A publisher of drops by these keys in at most so many series, and where it publishes.
    pub fn new(
        by: &[Key],
        limit: usize,
        names: KernelNames,
        interval: Duration,
        cost: bool,
    ) -> (Self, Shared) {
        let totals = Totals::new(by, limit, cost);
        let json = renderer(Format::Json, Style { host: host::name(), ..Style::default() });
        let first = nothing_yet(by, &totals);
        let (sender, published) = watch::channel(Arc::new(first));
        let stale = (interval * MISSING).max(Duration::from_secs(10));
        let shared = Shared { published, streams: Arc::new(Semaphore::new(STREAMS)), stale };
        let by = by.to_vec();
        (Self { by, names, json, totals, history: VecDeque::new(), number: 0, sender }, shared)
    }

    fn publish(&mut self, mut report: Report) -> Result<()> {
        // Each row says what it means.
        report.is_explained = true;
        self.totals.add(&report);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Moment {
            ended: report.time,
            elapsed: report.elapsed,
            drops: report.drops,
            split: report.split.unwrap_or_default(),
        });
        let mut json = Vec::new();
        self.json.report(&report, &mut json).context("cannot write a report as JSON")?;
        self.number += 1;
        let texts = Texts::new(self.totals.metrics(report.time));
        let (number, history) = (self.number, self.history.iter().copied().collect());
        self.sender.send_replace(Arc::new(Published { number, report, json: json.into(), history, texts }));
        Ok(())
    }
}

impl Sink for Publisher {
    fn interval(&mut self, interval: Interval) -> Result<ControlFlow<()>> {
        if self.sender.is_closed() {
            return Ok(ControlFlow::Break(()));
        }
        let report = Report::new(interval, &self.by, View::default(), &mut self.names.for_report());
        self.publish(report)?;
        Ok(ControlFlow::Continue(()))
    }
}

/// What there is before the first interval has ended.
fn nothing_yet(by: &[Key], totals: &Totals) -> Published {
    let texts = Texts::new(totals.metrics(SystemTime::now()));
    Published {
        number: 0,
        report: Report::empty(SystemTime::now(), by),
        json: Bytes::new(),
        history: Vec::new(),
        texts,
    }
}

/// What clients read of a run that has ended without a drop.
#[cfg(any(test, feature = "fakes"))]
pub fn ended() -> Shared {
    let by = [Key::Class, Key::Reason, Key::Function];
    let mut published = nothing_yet(&by, &Totals::new(&by, 1000, true));
    published.json = Bytes::from_static(b"{\"drops\":0}\n");
    let (_, published) = watch::channel(Arc::new(published));
    Shared { published, streams: Arc::new(Semaphore::new(STREAMS)), stale: Duration::from_secs(10) }
}

impl Totals {
    fn new(by: &[Key], limit: usize, cost: bool) -> Self {
        let has_class = keys::counted(by).contains(&Key::Class);
        let others = Labels::new([("name", OTHER.into())]);
        Self {
            limit,
            drops: Series::new(limit, Labels::of_others(by)),
            counters: Series::new(limit, others),
            split: has_class.then(Split::default),
            ledger: Ledger::default(),
            cost: cost.then(Cost::default),
        }
    }

    fn add(&mut self, report: &Report) {
        for row in &report.rows {
            self.drops.add(Labels::of_row(&report.by, &row.values), row.count);
        }
        for counter in &report.counters {
            self.counters.add(counter_labels(counter), counter.count);
        }
        if let (Some(split), Some(more)) = (&mut self.split, report.split) {
            split.join(more);
        }
        self.ledger = self.ledger.plus(report.ledger);
        if let (Some(cost), Some(more)) = (&mut self.cost, report.cost) {
            cost.runs += more.runs;
            cost.nanoseconds += more.nanoseconds;
        }
    }

    /// All metrics, as of a moment.
    fn metrics(&self, time: SystemTime) -> Vec<Metric> {
        let counted = |series: &Series| {
            series
                .snapshot()
                .into_iter()
                .map(|(labels, count)| (labels, Number::Count(count)))
                .collect::<Vec<_>>()
        };
        let drops = counted(&self.drops);
        let series = drops.len() as u64;
        let mut metrics =
            vec![counter("dropwatch_drops", "Packets that the kernel has dropped, by why and where", drops)];
        metrics.extend(self.split.map(by_class));
        metrics.push(ledger(self.ledger));
        let help =
            "What the kernel's own counters have lost and no drop accounts for, by the name that tools print";
        metrics.push(counter("dropwatch_kernel_counter", help, counted(&self.counters)));
        metrics.extend(self.cost.into_iter().flat_map(probe));
        let single = |name, help, value| Metric::single(name, help, Kind::Gauge, value);
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        metrics.extend([
            single("dropwatch_series", "Series of drops that there are", Number::Count(series)),
            single(
                "dropwatch_series_limit",
                "Series of drops that there may be",
                Number::Count(self.limit as u64),
            ),
            single(
                "dropwatch_snapshot_timestamp_seconds",
                "When these counts were read, since the epoch",
                Number::Measure(since),
            ),
            build(),
        ]);
        metrics.extend(process::metrics());
        metrics
    }
}

fn counter(name: &'static str, help: &'static str, samples: Vec<(Arc<Labels>, Number)>) -> Metric {
    Metric { name, help, kind: Kind::Counter, samples }
}

/// One label, and a count.
fn labelled(label: &'static str, value: &str, count: u64) -> (Arc<Labels>, Number) {
    (Arc::new(Labels::new([(label, value.into())])), Number::Count(count))
}

fn by_class(split: Split) -> Metric {
    let samples = Class::ALL.into_iter().map(|class| labelled("class", class.name(), split.of(class)));
    counter("dropwatch_class_drops", "The same packets by what such a drop is worth alone", samples.collect())
}

fn ledger(ledger: Ledger) -> Metric {
    let Ledger {
        map_full,
        update_failed,
        stack_failed,
        socket_failed,
        recursion_missed,
        undecided,
        headers_unreadable,
        names_unreadable,
    } = ledger;
    let causes = [
        ("map_full", Some(map_full)),
        ("update_failed", Some(update_failed)),
        ("stack_failed", Some(stack_failed)),
        ("socket_failed", Some(socket_failed)),
        ("recursion_missed", recursion_missed),
        ("undecided", Some(undecided)),
        ("headers_unreadable", Some(headers_unreadable)),
        ("names_unreadable", Some(names_unreadable)),
    ];
    let samples = causes.into_iter().filter_map(|(cause, count)| Some(labelled("cause", cause, count?)));
    counter(
        "dropwatch_lost",
        "What the probe has seen and not counted, or not counted in full",
        samples.collect(),
    )
}

fn counter_labels(counter: &Counter) -> Labels {
    let Counter { name, netns, part, is_loss, .. } = counter;
    let mut labels = Labels::default();
    labels.add("name", &name.to_string());
    labels.add("loss", if *is_loss { "true" } else { "false" });
    labels.add("netns", &netns.as_ref().map(labels::netns).unwrap_or_default());
    labels.add("iface", &part.iface.as_ref().map(labels::iface).unwrap_or_default());
    labels.add("qdisc", &part.qdisc.as_ref().map(|qdisc| qdisc.kind.to_string()).unwrap_or_default());
    labels
}

fn probe(Cost { runs, nanoseconds }: Cost) -> [Metric; 2] {
    let seconds = Duration::from_nanos(nanoseconds).as_secs_f64();
    [
        Metric::single("dropwatch_probe_runs", "How often the probe ran", Kind::Counter, Number::Count(runs)),
        Metric::single(
            "dropwatch_probe_seconds",
            "How long the probe ran",
            Kind::Counter,
            Number::Measure(seconds),
        ),
    ]
}

fn build() -> Metric {
    let labels = Labels::new([("version", env!("CARGO_PKG_VERSION").into())]);
    let help = "The version of dropwatch";
    Metric {
        name: "dropwatch_build",
        help,
        kind: Kind::Info,
        samples: vec![(Arc::new(labels), Number::Count(1))],
    }
}

#[cfg(test)]
mod tests {
    use dropwatch_common::row::RowKey;

    use super::*;
    use crate::{fakes::Kernel, model::interval::Count};

    /// So many drops at an address.
    fn report(location: u64, count: u64, names: &mut Kernel) -> Report {
        let key = RowKey { location, ..RowKey::default() };
        let counts = vec![Count { key, count, total: None, peak: None }];
        Report::new(Interval::of(counts), &[Key::Function], View::default(), names)
    }

    #[test]
    fn a_module_that_is_loaded_again_goes_on_with_its_series() {
        let mut totals = Totals::new(&[Key::Function], 1000, false);
        let mut once = Kernel { functions: &[(0x1000, "gre_rcv", "gre")], ..Kernel::nameless() };
        let mut again = Kernel { functions: &[(0x5000, "gre_rcv", "gre")], ..Kernel::nameless() };
        totals.add(&report(0x1010, 13, &mut once));
        totals.add(&report(0x1010, 1, &mut again));
        totals.add(&report(0x5010, 17, &mut again));
        let series: Vec<_> = totals
            .drops
            .snapshot()
            .into_iter()
            .map(|(labels, count)| (labels.text().to_owned(), count))
            .collect();
        let [loaded, gone] = ["gre_rcv", "-"].map(|name| format!("function=\"{name}\",module="));
        assert_eq!(series, [(format!("{loaded}\"gre\""), 30), (format!("{gone}\"-\""), 1)]);
    }
}
