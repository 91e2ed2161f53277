//! `cargo xtask picture`: draws `docs/top.svg`, which a test compares with what the program draws.

use anyhow::Result;

use crate::{command, workspace};

pub fn main() -> Result<()> {
    let mut cargo = command::cargo();
    cargo.args([
        "test",
        "--quiet",
        "--locked",
        "--package",
        "dropwatch",
        "--lib",
        "the_picture_is_the_screen",
    ]);
    cargo.env("DROPWATCH_WRITE_PICTURE", "1").current_dir(workspace::root());
    command::run(&mut cargo)
}
