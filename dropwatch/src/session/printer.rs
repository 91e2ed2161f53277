//! Turns intervals into reports on standard output.

use std::{
    io::{self, BufWriter, Stdout, Write as _},
    ops::ControlFlow,
};

use anyhow::{Context as _, Result};

use super::{evidence::Looker, sink::Sink};
use crate::{
    kernel::names::KernelNames,
    model::{
        interval::Interval,
        keys::Key,
        report::{Report, View},
    },
    render::Render,
};

/// Names, sorts, cuts and prints.
pub struct Printer {
    by: Vec<Key>,
    view: View,
    names: KernelNames,
    render: Box<dyn Render>,
    looker: Option<Looker>,
    out: BufWriter<Stdout>,
}

impl Printer {
    /// A printer of reports by these keys, of these rows.
    #[must_use]
    pub fn new(by: Vec<Key>, view: View, names: KernelNames, render: Box<dyn Render>) -> Self {
        Self { by, view, names, render, looker: None, out: BufWriter::new(io::stdout()) }
    }

    /// The same, with what shows the cause of lost rows.
    #[must_use]
    pub fn with_evidence(mut self, looker: Option<Looker>) -> Self {
        self.looker = looker;
        self
    }
}

impl Sink for Printer {
    fn interval(&mut self, interval: Interval) -> Result<ControlFlow<()>> {
        let mut report = Report::new(interval, &self.by, self.view, &mut self.names.for_report());
        if let Some(looker) = &mut self.looker {
            looker.look(&mut report, &mut self.names);
        }
        match self.render.report(&report, &mut self.out).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            // A reader that went away is a good end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(error).context("cannot write the report"),
        }
    }

    fn end(&mut self) -> Result<()> {
        match self.render.end(&mut self.out).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write the summary")
            }
            _ => Ok(()),
        }
    }
}
