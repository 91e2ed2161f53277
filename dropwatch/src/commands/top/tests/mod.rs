//! The screen without a terminal: staged reports, keys, and what is drawn.

mod draws;
mod picture;
mod soak;
mod staged;
mod states;
