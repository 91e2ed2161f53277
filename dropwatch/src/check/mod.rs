//! Rules about drops, and what came of them: values in, words out.

pub mod document;
pub mod rule;
pub mod verdict;
