//! Metrics as text, in the format of OpenMetrics 1.0 and in the older one of Prometheus.
//!
//! Both are written here: `prometheus-client` writes only the newer one, and counts by itself what is counted already.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    sync::{Arc, OnceLock},
};

use axum::body::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::labels::Labels;

/// A family of samples.
#[derive(Clone, Debug)]
pub struct Metric {
    /// What its samples are called, without the suffix that their kind gives them.
    pub name: &'static str,
    /// What it says, a sentence without its full stop.
    pub help: &'static str,
    /// What its values do.
    pub kind: Kind,
    /// Its values.
    pub samples: Vec<(Arc<Labels>, Number)>,
}

/// What values do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are 1: the labels say it.
    Info,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Of something that is counted.
    Count(u64),
    /// Of something that is measured.
    Measure(f64),
}

/// The format of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// What Prometheus had before.
    Prometheus,
}

/// The texts of metrics, each written at its first request.
#[derive(Debug, Default)]
pub struct Texts {
    metrics: Vec<Metric>,
    plain: [OnceLock<Bytes>; 2],
    zipped: [OnceLock<Bytes>; 2],
}

impl Metric {
    /// One with a value and no labels.
    pub fn single(name: &'static str, help: &'static str, kind: Kind, value: Number) -> Self {
        Self { name, help, kind, samples: vec![(Arc::default(), value)] }
    }

    fn write(&self, format: Format, out: &mut String) {
        let Self { name, help, kind, samples } = self;
        let sample = format!("{name}{}", kind.suffix());
        let (family, kind) = match format {
            Format::OpenMetrics => (*name, kind.word()),
            Format::Prometheus if *kind == Kind::Info => (&*sample, Kind::Gauge.word()),
            Format::Prometheus => (&*sample, kind.word()),
        };
        let _ = writeln!(out, "# HELP {family} {help}.\n# TYPE {family} {kind}");
        if let (Format::OpenMetrics, Some(unit)) = (format, self.unit()) {
            let _ = writeln!(out, "# UNIT {family} {unit}");
        }
        for (labels, value) in samples {
            let _ = match labels.text() {
                "" => writeln!(out, "{sample} {value}"),
                labels => writeln!(out, "{sample}{{{labels}}} {value}"),
            };
        }
    }

    fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"].into_iter().find(|unit| self.name.ends_with(unit))
    }
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
            Self::Info => "_info",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Measure(value) => value.fmt(f),
        }
    }
}

impl Format {
    /// The best of what a client's `Accept` allows.
    pub fn accepted(accept: &str) -> Self {
        let weight = |format: Format| {
            let weights = accept.split(',').filter_map(|range| format.weight(range));
            weights.max_by(f64::total_cmp).unwrap_or(0.0)
        };
        let new = weight(Self::OpenMetrics);
        if new > 0.0 && new >= weight(Self::Prometheus) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// How much a range of media types prefers this format, if it includes it.
    fn weight(self, range: &str) -> Option<f64> {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?.to_ascii_lowercase();
        let mut weight = 1.0;
        for part in parts {
            match part.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))) {
                Some(("q", value)) => weight = value.parse().ok()?,
                Some(("version", version)) if self == Self::OpenMetrics && version != "1.0.0" => return None,
                _ => {}
            }
        }
        let is_included = match self {
            Self::OpenMetrics => media == "application/openmetrics-text",
            Self::Prometheus => matches!(&*media, "text/plain" | "text/*" | "*/*"),
        };
        is_included.then_some(weight)
    }

    /// What it is called in HTTP.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Texts {
    /// Texts of these metrics.
    pub fn new(metrics: Vec<Metric>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// The text in a format.
    pub fn plain(&self, format: Format) -> Bytes {
        self.plain[format as usize].get_or_init(|| write(&self.metrics, format).into()).clone()
    }

    /// The same, compressed.
    pub fn zipped(&self, format: Format) -> Bytes {
        self.zipped[format as usize].get_or_init(|| zip(&self.plain(format))).clone()
    }
}

/// Metrics in a format.
fn write(metrics: &[Metric], format: Format) -> String {
    let mut text = String::new();
    for metric in metrics {
        metric.write(format, &mut text);
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Compresses with gzip.
pub fn zip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    // Memory does not refuse to be written.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default().into()
}
