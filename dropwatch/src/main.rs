//! The `dropwatch` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    dropwatch::main()
}
