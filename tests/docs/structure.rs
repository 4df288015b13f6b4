//! Limits on the structure of the source.

use std::fs;
use std::path::{Path, PathBuf};

use crate::page::root;

/// More fields of `Gateway` belong to one of its parts.
const GATEWAY_FIELDS_MAX: usize = 15;

/// `Control` dispatches; its parts own the state.
const CONTROL_FIELDS_MAX: usize = 12;

/// Inputs, answers of policies, and their revisions. A method of `Gateway` elsewhere belongs to one of its parts.
const GATEWAY_FILES_MAX: usize = 3;

/// Effects, inputs, requests, and the suspension. A method of `Control` elsewhere belongs to one of its parts.
const CONTROL_FILES_MAX: usize = 4;

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

fn fields(file: &str, name: &str) -> Vec<String> {
    let source = fs::read_to_string(root().join(file)).unwrap();
    let body = source.split(&format!("struct {name} {{\n")).nth(1).expect("the struct");
    let body = body.split("\n}").next().unwrap();
    let is_field = |line: &&str| !line.trim().starts_with("//") && line.contains(": ");
    body.lines().filter(is_field).map(str::to_owned).collect()
}

#[test]
fn gateway_has_few_fields() {
    let fields = fields("gateway/core/src/gateway.rs", "Gateway");
    assert!((1..=GATEWAY_FIELDS_MAX).contains(&fields.len()), "{fields:#?}");
}

#[test]
fn control_has_few_fields() {
    let fields = fields("gateway/control/src/control.rs", "Control");
    assert!((1..=CONTROL_FIELDS_MAX).contains(&fields.len()), "{fields:#?}");
}

/// Asserts that the methods of a type stand in few files of a crate.
#[track_caller]
fn assert_few_files(crate_name: &str, type_name: &str, files_max: usize) {
    let head = format!("impl {type_name} {{");
    let has_impl = |path: &PathBuf| {
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        !is_test && fs::read_to_string(path).unwrap().lines().any(|line| line == head)
    };
    let mut files = sources(&root().join("gateway").join(crate_name).join("src"));
    files.retain(has_impl);
    let count = files.len();
    assert!((1..=files_max).contains(&count), "`{head}` in {count} files: {files:#?}");
}

#[test]
fn gateway_stands_in_few_files() {
    assert_few_files("core", "Gateway", GATEWAY_FILES_MAX);
}

#[test]
fn control_stands_in_few_files() {
    assert_few_files("control", "Control", CONTROL_FILES_MAX);
}

/// Crates of `gateway/` in layers; a crate depends on crates of layers before its own.
const LAYERS: &[&[&str]] = &[
    &["toolchain"],
    &["client", "forecast", "links", "media", "model", "process"],
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
        "token",
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

#[test]
fn tests_of_one_crate_have_the_features_of_all() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let features = read("tests/features/Cargo.toml");
    let workspace = read("Cargo.toml");
    let section = workspace.split("\n[workspace.dependencies]\n").nth(1).unwrap();
    let names = section.split("\n[").next().unwrap().lines();
    let names = names.filter_map(|line| line.split_once(" = ").map(|(name, _)| name));
    // Loom has flags of its own.
    let mut external: Vec<&str> =
        names.filter(|name| !name.starts_with("evenkeel-") && *name != "loom").collect();
    assert!(external.len() > 50, "{external:?}");
    external
        .retain(|name| !features.lines().any(|line| line.split(['.', ' ']).next() == Some(name)));
    assert!(external.is_empty(), "tests/features/Cargo.toml lacks {external:?}");
    for name in LAYERS.iter().copied().flatten().filter(|name| **name != "toolchain") {
        let manifest = read(&format!("gateway/{name}/Cargo.toml"));
        let (_, dev) = manifest.split_once("dev-dependencies]\n").expect("dev-dependencies");
        assert!(
            dev.contains("\nevenkeel-features.") || dev.starts_with("evenkeel-features."),
            "{name}"
        );
    }
}

/// A test that cannot run here is ignored, by `#[required]`.
#[test]
fn no_test_prints_that_it_is_skipped() {
    let folders =
        ["gateway", "plugin-sdk", "tests/attacks", "tests/bench/tests", "tests/behaviour"];
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
