//! Rules about drops, and what came of them: values in, words out.

pub mod annotation;
pub mod contradictions;
pub mod document;
pub mod excluded;
pub mod existence;
pub mod rule;
pub mod scope;
pub mod uncounted;
pub mod verdict;
