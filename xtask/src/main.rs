//! The tasks of the project's developers.

fn main() {}
