//! Turns the TOML of `src/knowledge` into constants: nothing is parsed when the program runs.
//!
//! A field that does not exist, a word that is none of its kind's, or an entry without text stops the build, and the
//! message names the file.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::words::{Class, Destination, Kind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    entry: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    reasons: Vec<String>,
    #[serde(default)]
    functions: Vec<String>,
    module: Option<String>,
    title: String,
    meaning: String,
    class: Class,
    #[serde(default)]
    when: Vec<When>,
    #[serde(default)]
    causes: Vec<String>,
    #[serde(default)]
    check: Vec<Check>,
    #[serde(default)]
    counters: Vec<String>,
    #[serde(default)]
    sysctls: Vec<String>,
    #[serde(default)]
    evidence: Vec<Kind>,
    #[serde(default)]
    in_doubt: bool,
    since: Option<String>,
    until: Option<String>,
    seen: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    destination: Destination,
    class: Class,
    because: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    run: String,
    shows: String,
}

/// Writes the constants.
///
/// # Errors
/// What cannot be read, or is wrong in which file.
pub fn generate(directory: &Path, output: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed={}", directory.display());
    println!("cargo::rerun-if-changed=build/knowledge.rs");
    let mut code = String::from("&[\n");
    for path in files(directory).map_err(|error| format!("{}: {error}", directory.display()))? {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file: File = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let topic = path.file_stem().unwrap_or_default().to_string_lossy();
        for entry in &file.entry {
            entry.write(&mut code, &topic);
        }
    }
    code.push_str("]\n");
    fs::write(output, code).map_err(|error| format!("{}: {error}", output.display()))
}

/// The TOML files, in an order that does not depend on the file system.
fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

impl Entry {
    fn write(&self, code: &mut String, topic: &str) {
        let Self { reasons, functions, module, title, meaning, class, when, causes, .. } = self;
        let Self { check, counters, sysctls, evidence, in_doubt, since, until, seen, .. } = self;
        let meaning = meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        let when = list(when, |when| {
            let When { destination, class, because } = when;
            format!(
                "When {{ destination: Destination::{destination:?}, class: Class::{class:?}, because: {because:?} }}"
            )
        });
        let check = list(check, |Check { run, shows }| format!("Check {{ run: {run:?}, shows: {shows:?} }}"));
        let evidence = list(evidence, |kind| format!("Evidence::{kind:?}"));
        writeln!(
            code,
            "Entry {{ topic: {topic:?}, reasons: &{reasons:?}, functions: &{functions:?}, module: {module:?}, \
             title: {title:?}, meaning: {meaning:?}, class: Class::{class:?}, when: &[{when}], causes: &{causes:?}, \
             check: &[{check}], counters: &{counters:?}, sysctls: &{sysctls:?}, evidence: &[{evidence}], in_doubt: {in_doubt}, \
             since: {since:?}, until: {until:?}, seen: {seen:?} }},"
        )
        .expect("a string can be written to");
    }
}

fn list<T>(values: &[T], word: impl FnMut(&T) -> String) -> String {
    values.iter().map(word).collect::<Vec<_>>().join(", ")
}
