//! Limits on the structure of the source.

use std::fs;
use std::path::{Path, PathBuf};

use crate::page::root;

const FILE_LINES_MAX: usize = 800;

/// Lines of a file of the product, without its tests.
const PRODUCT_FILE_LINES_MAX: usize = 600;

/// More fields of `Gateway` belong to one of its parts.
const GATEWAY_FIELDS_MAX: usize = 15;

/// `Control` dispatches; its parts own the state.
const CONTROL_FIELDS_MAX: usize = 12;

/// A method of `Gateway` elsewhere belongs to one of its parts.
const GATEWAY_FILES_MAX: usize = 2;

/// Effects, inputs, and the suspension. A method of `Control` elsewhere belongs to one of its parts.
const CONTROL_FILES_MAX: usize = 3;

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

/// True for sources of crates of `gateway/`, except tests.
fn is_product(path: &Path) -> bool {
    let inside = path.strip_prefix(root().join("gateway"));
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    inside.is_ok_and(|path| !is_test(path) && !path.ends_with("tests.rs"))
}

#[test]
fn source_files_are_short() {
    let folders = ["gateway", "plugin-sdk", "plugins", "tests"].map(|name| root().join(name));
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|folder| sources(folder)).collect();
    assert!(files.len() > 500, "{} files", files.len());
    files.retain(|path| {
        let most = if is_product(path) { PRODUCT_FILE_LINES_MAX } else { FILE_LINES_MAX };
        lines(path) > most
    });
    assert!(
        files.is_empty(),
        "more than {FILE_LINES_MAX} lines, or {PRODUCT_FILE_LINES_MAX} in the product: {files:#?}"
    );
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
    &["client", "links", "media", "model", "process"],
    &["agent", "dataplane", "host", "nodes", "ownership", "recording", "revisions"],
    &["config", "core"],
    &["drivers", "policies"],
    &["control"],
    &["runtime", "telemetry"],
    &["group"],
    &["handover", "index"],
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

/// Lines of a crate without its tests.
const CRATE_LINES_MAX: usize = 12_000;

#[test]
fn crates_are_small() {
    for name in LAYERS.iter().copied().flatten() {
        let files = sources(&root().join("gateway").join(name).join("src"));
        let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
        let lines: usize = files.iter().filter(|path| is_product(path.as_path())).map(lines).sum();
        assert!(lines <= CRATE_LINES_MAX, "`{name}` has {lines} lines, at most {CRATE_LINES_MAX}");
    }
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
