//! The `dropwatch` command.

fn main() {}
