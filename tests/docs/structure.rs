//! The layers of crates, and rules that every test file obeys.

use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, ExprAsync, ExprClosure, ExprIf, ExprReturn, Ident, ItemFn};

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
    &["contract", "forecast", "instant", "model", "process"],
    &[
        "breakers",
        "client",
        "diagnosis",
        "host",
        "kept",
        "media",
        "nodes",
        "recording",
        "revisions",
        "slo",
    ],
    &["agent", "dataplane", "dtls", "ownership", "sdp"],
    &["config", "core"],
    &["http"],
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

/// An item has one path, that of its crate.
#[test]
fn no_crate_passes_on_items_of_another() {
    let passes_on = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().any(|line| line.trim_start().starts_with("pub use evenkeel_"))
    };
    let mut files = sources(&root().join("gateway"));
    files.retain(passes_on);
    assert!(files.is_empty(), "{files:#?}");
}

/// The identifiers of an expression.
#[derive(Default)]
struct Names(Vec<Ident>);

impl<'a> Visit<'a> for Names {
    fn visit_ident(&mut self, name: &'a Ident) {
        self.0.push(name.clone());
    }
}

/// Test functions that return before their end.
#[derive(Default)]
struct EarlyReturns {
    /// The test that is visited.
    test: Option<String>,
    found: Vec<String>,
}

impl<'a> Visit<'a> for EarlyReturns {
    fn visit_item_fn(&mut self, item: &'a ItemFn) {
        let is_test = |attribute: &Attribute| {
            attribute.path().segments.last().is_some_and(|name| name.ident == "test")
        };
        let name = item.sig.ident.to_string();
        // Input without a meaning ends a fuzzed test.
        let is_test = item.attrs.iter().any(is_test) && !name.starts_with("fuzz_");
        let outside = std::mem::replace(&mut self.test, is_test.then_some(name));
        syn::visit::visit_item_fn(self, item);
        self.test = outside;
    }

    fn visit_expr_if(&mut self, item: &'a ExprIf) {
        // A test that writes a page has nothing to compare.
        let mut names = Names::default();
        names.visit_expr(&item.cond);
        if !names.0.iter().any(|name| name == "RENEW") {
            syn::visit::visit_expr_if(self, item);
        }
    }

    fn visit_expr_closure(&mut self, _: &'a ExprClosure) {}

    fn visit_expr_async(&mut self, _: &'a ExprAsync) {}

    fn visit_expr_return(&mut self, item: &'a ExprReturn) {
        if item.expr.is_none() {
            self.found.extend(self.test.clone());
        }
    }
}

/// The folders of tests.
fn folders_of_tests() -> impl Iterator<Item = PathBuf> {
    let folders = ["gateway", "plugin-sdk", "plugins", "tests"];
    folders.into_iter().map(|name| root().join(name))
}

#[test]
fn no_test_returns_early() {
    let files = folders_of_tests().flat_map(|folder| sources(&folder));
    let mut found = Vec::new();
    for file in files {
        let mut returns = EarlyReturns::default();
        returns.visit_file(&syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap());
        found.extend(returns.found.iter().map(|test| format!("{}: {test}", file.display())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn early_return_of_a_test_is_found() {
    let found = |body: &str| {
        let text = format!(
            "#[tokio::test] async fn one() {{ {body} }} #[test] fn fuzz_it() {{ return; }}"
        );
        let mut returns = EarlyReturns::default();
        returns.visit_file(&syn::parse_file(&text).unwrap());
        returns.found.len()
    };
    assert_eq!(found("let Ok(entries) = list() else { return };"), 1);
    assert_eq!(found("for at in 0..3 { if at > 1 { return; } }"), 1);
    assert_eq!(found("let read = |it| { if it { return; } };"), 0);
    assert_eq!(found("if std::env::var_os(RENEW).is_some() { return; }"), 0);
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
