//! Turns `src/evidence/counters/catalogue.toml` into constants.

use std::{
    fmt::{Display, Write as _},
    fs,
    path::Path,
};

use serde::Deserialize;

use crate::words::Source;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    counter: Vec<Counter>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Counter {
    name: String,
    source: Source,
    meaning: String,
    #[serde(default)]
    reasons: Vec<String>,
    #[serde(default)]
    functions: Vec<String>,
    #[serde(default)]
    partly: bool,
    #[serde(default)]
    no_loss: bool,
    unless: Option<String>,
    #[serde(default = "cards")]
    kinds: Vec<String>,
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cause {
    name: String,
    meaning: String,
    advice: Option<String>,
}

fn cards() -> Vec<String> {
    vec!["card".to_owned()]
}

/// Writes the catalogue as Rust.
///
/// # Errors
/// The file cannot be read, or has a field or a word that does not exist.
pub fn generate(catalogue: &Path, output: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed={}", catalogue.display());
    println!("cargo::rerun-if-changed=build/counters.rs");
    let at = |error: &dyn Display| format!("{}: {error}", catalogue.display());
    let text = fs::read_to_string(catalogue).map_err(|error| at(&error))?;
    let Catalogue { counter } = toml::from_str(&text).map_err(|error| at(&error))?;
    let mut code = String::from("&[\n");
    for Counter { name, source, meaning, reasons, functions, partly, no_loss, unless, kinds, causes } in
        counter
    {
        let causes = causes.iter().map(|Cause { name, meaning, advice }| {
            format!("Cause {{ name: {name:?}, meaning: {meaning:?}, advice: {advice:?} }}")
        });
        let causes = causes.collect::<Vec<_>>().join(", ");
        let rows = format!("InRows {{ reasons: &{reasons:?}, functions: &{functions:?}, partly: {partly} }}");
        let _ = writeln!(
            code,
            "Counter {{ name: {name:?}, source: Source::{source:?}, meaning: {meaning:?}, rows: {rows}, \
             is_loss: {}, unless: {unless:?}, kinds: &{kinds:?}, causes: &[{causes}] }},",
            !no_loss,
        );
    }
    code.push_str("]\n");
    fs::write(output, code).map_err(|error| format!("{}: {error}", output.display()))
}
