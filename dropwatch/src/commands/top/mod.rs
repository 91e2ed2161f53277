//! `dropwatch top`: a full-screen live view.
//!
//! ```text
//! probe - collector - report (Feed, a sink's thread) - State - draw (Ui, a thread of its own) - terminal
//!                                              keys - Action -^
//! ```
//!
//! Counting waits for none of the others. Another filter or other keys are another probe: it is attached before the old
//! one is closed.

pub mod detail;
pub mod draw;
pub mod history;
pub mod input;
pub mod keys;
mod names;
mod run;
mod screen;
pub mod state;
pub mod terminal;

pub use run::run;

#[cfg(test)]
mod tests;
