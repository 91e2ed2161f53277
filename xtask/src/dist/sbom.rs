//! What the program is made of, as `CycloneDX` has it.
//!
//! From the two lock files and nothing else: tools that do the same know only one of them, and write down where the sources
//! were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Release, build::Built};
use crate::{arch::Arch, command, ebpf::digest, workspace};

/// Writes the list beside the other files.
pub fn write(release: &Release, arch: Arch, built: &Built) -> Result<()> {
    let mut crates = Crates::default();
    crates.read("Cargo.toml", "dropwatch", arch.target())?;
    crates.read("dropwatch-ebpf/Cargo.toml", "dropwatch-ebpf", "bpfel-unknown-none")?;
    let program = fs::read(&built.program).context("cannot read the program")?;
    let document = crates.document(release, built, &digest::of_bytes(&program));
    let path = release.out.join(format!("{}.cdx.json", release.name(arch)));
    let text = serde_json::to_string_pretty(&document)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Crates by name and version, with those that each needs.
#[derive(Default)]
struct Crates {
    components: BTreeMap<String, Value>,
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Crates {
    /// Adds what a package of a workspace is built of, its own build scripts' crates left out.
    fn read(&mut self, manifest: &str, package: &str, target: &str) -> Result<()> {
        let mut metadata = command::cargo();
        metadata.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
        metadata.args(["--manifest-path", manifest]).current_dir(workspace::root());
        let metadata: Value = serde_json::from_str(&command::output(&mut metadata)?)?;
        let sums = checksums(&workspace::root().join(manifest).with_file_name("Cargo.lock"))?;
        let packages: BTreeMap<_, _> =
            entries(&metadata["packages"]).map(|of| (text(&of["id"]), of)).collect();
        let nodes: BTreeMap<_, _> =
            entries(&metadata["resolve"]["nodes"]).map(|of| (text(&of["id"]), of)).collect();
        let first = packages.iter().find(|(_, of)| of["name"] == package).map(|(id, _)| *id);
        let mut left = vec![first.with_context(|| format!("cargo knows no package {package}"))?];
        while let Some(id) = left.pop() {
            let (Some(package), Some(node)) = (packages.get(id), nodes.get(id)) else { continue };
            let purl = purl(package);
            if self.needs.contains_key(&purl) {
                continue;
            }
            let needed: Vec<_> =
                entries(&node["deps"]).filter(|dep| is_built_in(dep)).map(|dep| text(&dep["pkg"])).collect();
            let purls = needed.iter().filter_map(|id| packages.get(id)).map(|of| self::purl(of)).collect();
            self.components.insert(purl.clone(), component(package, &purl, &sums));
            self.needs.insert(purl, purls);
            left.extend(needed);
        }
        Ok(())
    }

    fn document(&self, release: &Release, built: &Built, sum: &str) -> Value {
        let depends = |(of, on): (&String, &BTreeSet<String>)| json!({ "ref": of, "dependsOn": on });
        let program = format!("pkg:cargo/dropwatch@{}", release.version);
        let components: Vec<_> =
            self.components.iter().filter(|(purl, _)| **purl != program).map(|(_, of)| of).collect();
        json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "timestamp": release.rfc3339(),
                "tools": { "components": [{ "type": "application", "name": built.compiler }] },
                "component": {
                    "type": "application",
                    "bom-ref": program,
                    "name": "dropwatch",
                    "version": release.version,
                    "purl": program,
                    "licenses": [{ "expression": "MIT OR Apache-2.0" }],
                    "hashes": [{ "alg": "SHA-256", "content": sum }],
                },
            },
            "components": components,
            "dependencies": self.needs.iter().map(depends).collect::<Vec<_>>(),
        })
    }
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether it becomes part of the program: neither a test's nor a build script's.
fn is_built_in(dependency: &Value) -> bool {
    entries(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null())
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
}

fn component(package: &Value, purl: &str, sums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let mut component = json!({
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
    });
    if let Some(licence) = package["license"].as_str() {
        // The old way to write a choice.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(sum) = sums.get(&(name.into(), version.into())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// The sums of crates in a lock file, by name and version.
fn checksums(lock: &std::path::Path) -> Result<BTreeMap<(String, String), String>> {
    let text = fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    Ok(sums_of(&text))
}

fn sums_of(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|line| line.trim_matches('"').to_string())
    };
    let packages = lock.split("[[package]]");
    packages
        .filter_map(|of| Some(((value(of, "name")?, value(of, "version")?), value(of, "checksum")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_from_a_lock_file() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"12ab\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let sums = sums_of(lock);
        assert_eq!(sums.len(), 1, "what is not from a registry has no sum");
        assert_eq!(sums[&("a".to_string(), "1.0.0".to_string())], "12ab");
    }

    /// What a test needs is not in the program.
    #[test]
    fn only_what_is_built_in_is_listed() {
        let kind = |kind: Value| json!({ "dep_kinds": [{ "kind": kind }] });
        assert!(is_built_in(&kind(Value::Null)));
        assert!(!is_built_in(&kind("dev".into())) && !is_built_in(&kind("build".into())));
    }
}
