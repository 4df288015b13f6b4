//! The layers of crates, and rules that every test file obeys.

use std::fs;
use std::path::{Path, PathBuf};

use crate::page::root;

/// Rust files below a folder, without build output.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources.extend(self::sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    sources
}

/// Crates of `gateway/` in layers; a crate depends on crates of layers before its own.
const LAYERS: &[&[&str]] = &[
    &["client", "forecast", "media", "model", "process"],
    &[
        "agent",
        "breakers",
        "dataplane",
        "diagnosis",
        "dtls",
        "host",
        "nodes",
        "ownership",
        "recording",
        "revisions",
        "sdp",
        "slo",
    ],
    &["config", "core"],
    &["drivers", "policies"],
    &["control", "registry"],
    &["runtime", "telemetry"],
    &["group"],
    &["alerts", "handover", "index"],
    &["api"],
    &["server"],
    &["author", "lab"],
    &["cli"],
];

#[test]
fn crates_depend_on_lower_layers() {
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let listed: usize = LAYERS.iter().map(|layer| layer.len()).sum();
    let mut crates = 0;
    for entry in fs::read_dir(root().join("gateway")).unwrap() {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        crates += 1;
        let name = manifest.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let own = layer(name).unwrap_or_else(|| panic!("`{name}` stands in no layer"));
        let section = text.split("\n[dependencies]\n").nth(1).expect("dependencies");
        let section = section.split("\n[").next().unwrap();
        for dependency in section.lines().filter_map(|line| line.strip_prefix("evenkeel-")) {
            let dependency = dependency.split(['.', ' ']).next().unwrap();
            // Crates beside `gateway/` have no layer.
            let Some(lower) = layer(dependency) else { continue };
            assert!(lower < own, "`{name}` depends on `{dependency}`, which is not below it");
        }
    }
    assert_eq!(crates, listed, "crates of `gateway/`");
}

/// A test that cannot run here is ignored, by `#[required]`.
#[test]
fn no_test_prints_that_it_is_skipped() {
    let folders = ["gateway", "plugin-sdk", "tests/bench/tests", "tests/behaviour"];
    let folders = folders.into_iter().chain(["tests/docs", "tests/interop", "tests/testkit"]);
    let prints = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let mut printed = text.split("println!(").skip(1).map(|rest| rest.split(");").next());
        printed.any(|words| words.is_some_and(|words| words.contains("skipped")))
    };
    let mut files: Vec<PathBuf> = folders.flat_map(|name| sources(&root().join(name))).collect();
    files.retain(prints);
    assert!(files.is_empty(), "{files:#?}");
}
