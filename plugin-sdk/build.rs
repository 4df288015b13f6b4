//! Generates the registry's constants and typed views from `wit/registry.toml`, and the contract's version from
//! `wit/policy.wit`.

use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

use toml::Table;

fn main() {
    for file in ["wit/registry.toml", "wit/policy.wit"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let registry: Table = read("wit/registry.toml").parse().expect("registry.toml is valid TOML");
    let mut code = String::new();
    write_contract(&mut code, &read("wit/policy.wit"));
    write_metrics(&mut code, &entries(&registry, "metric"));
    write_views(&mut code, &entries(&registry, "metric"));
    write_ops(&mut code, &entries(&registry, "op"));
    write_params(&mut code, &entries(&registry, "param"));
    write_labels(&mut code, &entries(&registry, "label"));
    write_entry_kinds(&mut code, &entries(&registry, "entry-kind"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("registry.rs"), code).expect("OUT_DIR can be written");
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One `[[table]]` of the registry.
struct Entry {
    number: i64,
    name: String,
    unit: String,
    doc: String,
    of: Vec<String>,
    values: Vec<String>,
    flag: bool,
}

impl Entry {
    /// `loss-up` as the name of a type or variant: `LossUp`.
    fn variant(&self) -> String {
        camel(&self.name)
    }

    /// `loss-up` in ppm as the name of a function: `loss_up_ppm`.
    fn function(&self) -> String {
        let suffix = if self.unit == "count" { String::new() } else { format!("_{}", self.unit) };
        self.name.replace('-', "_") + &suffix
    }

    fn subject(&self) -> bool {
        self.of.iter().any(|of| of == "session" || of == "room")
    }
}

fn entries(registry: &Table, kind: &str) -> Vec<Entry> {
    let tables = registry[kind].as_array().expect("an array of tables");
    let mut entries: Vec<Entry> = tables
        .iter()
        .map(|table| {
            let text = |key: &str| table[key].as_str().expect("a string").to_owned();
            let list = |key: &str| -> Vec<String> {
                let items = table.get(key).and_then(|list| list.as_array());
                let items = items.into_iter().flatten();
                items.map(|item| item.as_str().expect("a string").to_owned()).collect()
            };
            Entry {
                number: table["number"].as_integer().expect("an integer"),
                name: text("name"),
                unit: text("unit"),
                doc: text("doc"),
                of: list("of"),
                values: list("values"),
                flag: table.get("flag").and_then(toml::Value::as_bool).unwrap_or(false),
            }
        })
        .collect();
    entries.sort_by_key(|entry| entry.number);
    for pair in entries.windows(2) {
        assert!(pair[0].number < pair[1].number, "{kind} {} is there twice", pair[1].number);
    }
    entries
}

fn camel(name: &str) -> String {
    let words = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.collect()
}

fn write_contract(code: &mut String, wit: &str) {
    let package = wit.lines().find_map(|line| line.strip_prefix("package evenkeel:policy@"));
    let version = package.expect("policy.wit names its package").trim_end_matches(';');
    line(code, "/// Version of the contract this SDK is generated from.");
    line(code, &format!("pub const CONTRACT: &str = {version:?};"));
}

/// An enum with a number, a name and a unit for each variant.
fn write_enum(code: &mut String, name: &str, doc: &str, entries: &[Entry]) {
    line(code, &format!("/// {doc}"));
    line(code, "#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]");
    line(code, &format!("#[repr(u32)] pub enum {name} {{"));
    for entry in entries {
        line(code, &format!("/// {} Unit: {}.", entry.doc, entry.unit));
        line(code, &format!("{} = {},", entry.variant(), entry.number));
    }
    line(code, "}");
    line(code, &format!("impl {name} {{"));
    write_set(code, "ALL", "All of them, by number.", name, entries.iter());
    line(code, "/// The registry's name, as in `registry.toml`.");
    line(code, "pub const fn name(self) -> &'static str { match self {");
    for entry in entries {
        line(code, &format!("{name}::{} => {:?},", entry.variant(), entry.name));
    }
    line(code, "} }");
    line(code, "}");
}

fn write_set<'a>(
    code: &mut String,
    set: &str,
    doc: &str,
    name: &str,
    entries: impl Iterator<Item = &'a Entry>,
) {
    let variants: Vec<_> = entries.map(|entry| format!("{name}::{}", entry.variant())).collect();
    line(code, &format!("/// {doc}"));
    line(code, &format!("pub const {set}: &[{name}] = &[{}];", variants.join(", ")));
}

fn write_metrics(code: &mut String, metrics: &[Entry]) {
    write_enum(code, "Metric", "Something measured that a policy may read.", metrics);
    line(code, "impl Metric {");
    for kind in ["session", "room", "node", "region"] {
        let of = metrics.iter().filter(|metric| metric.of.iter().any(|of| of == kind));
        let doc = format!("Those that a row about a {kind} may carry.");
        write_set(code, &kind.to_uppercase(), &doc, "Metric", of);
    }
    line(
        code,
        "/// Whether it is a column of frames about sessions and rooms (else: nodes and regions).",
    );
    line(code, "pub(crate) const fn is_subject(self) -> bool { match self {");
    for metric in metrics {
        line(code, &format!("Metric::{} => {},", metric.variant(), metric.subject()));
    }
    line(code, "} }");
    let highest = metrics.iter().map(|metric| metric.number).max().unwrap_or(0);
    line(code, "/// One more than the highest number.");
    line(code, &format!("pub(crate) const WIDTH: usize = {};", highest + 1));
    line(code, "}");
    for metric in metrics.iter().filter(|metric| !metric.values.is_empty()) {
        line(code, &format!("/// {}", metric.doc));
        line(code, "#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]");
        line(code, &format!("#[repr(u32)] pub enum {} {{", metric.variant()));
        for (number, value) in metric.values.iter().enumerate() {
            line(code, &format!("/// `{value}` ({number}).\n{} = {number},", camel(value)));
        }
        line(code, "}");
    }
}

/// One accessor per metric on each view that may carry it.
fn write_views(code: &mut String, metrics: &[Entry]) {
    for (kind, view) in [
        ("session", "<S> Session<'_, S>"),
        ("room", "<S> Room<'_, S>"),
        ("node", " Node<'_>"),
        ("region", " Region<'_>"),
    ] {
        line(code, &format!("impl{view} {{"));
        for metric in metrics.iter().filter(|metric| metric.of.iter().any(|of| of == kind)) {
            let (variant, function) = (metric.variant(), metric.function());
            let unit =
                if metric.unit == "count" { "" } else { &format!(" Unit: {}.", metric.unit) };
            line(code, &format!("/// {}{unit} `None` where it was not measured.", metric.doc));
            if metric.flag {
                line(code, &format!("pub fn {function}(&self) -> Option<bool> {{"));
                line(code, &format!("self.measured(Metric::{variant}).map(|value| value != 0) }}"));
            } else if metric.values.is_empty() {
                line(code, &format!("pub fn {function}(&self) -> Option<u32> {{"));
                line(code, &format!("self.measured(Metric::{variant}) }}"));
            } else {
                line(code, &format!("pub fn {function}(&self) -> Option<{variant}> {{"));
                line(code, &format!("match self.measured(Metric::{variant})? {{"));
                for (number, value) in metric.values.iter().enumerate() {
                    line(code, &format!("{number} => Some({variant}::{}),", camel(value)));
                }
                line(code, "_ => None, } }");
            }
        }
        line(code, "}");
    }
}

fn write_ops(code: &mut String, ops: &[Entry]) {
    write_enum(code, "Op", "What a degradation policy may tell the data plane.", ops);
}

fn write_params(code: &mut String, params: &[Entry]) {
    write_enum(code, "Param", "What a scenario policy may set.", params);
    line(code, "impl Params {");
    for param in params {
        let (variant, function) = (param.variant(), param.function());
        line(code, &format!("/// {} Unit: {}.", param.doc, param.unit));
        line(code, &format!("pub fn {function}(&mut self, value: u32) -> &mut Self {{"));
        line(code, &format!("self.set(Param::{variant}, i64::from(value)) }}"));
    }
    line(code, "}");
}

fn write_labels(code: &mut String, labels: &[Entry]) {
    line(code, "/// Labels that mean the same to every policy. A session may carry others.");
    line(code, "pub mod label {");
    for label in labels {
        let constant = label.name.replace('-', "_").to_uppercase();
        line(code, &format!("/// {} Unit: {}.", label.doc, label.unit));
        line(code, &format!("pub const {constant}: &str = {:?};", label.name));
    }
    line(code, "}");
}

fn write_entry_kinds(code: &mut String, kinds: &[Entry]) {
    for kind in kinds {
        line(code, &format!("/// {}", kind.doc));
        let constant = kind.name.to_uppercase();
        line(code, &format!("pub(crate) const KIND_{constant}: u32 = {};", kind.number));
    }
}

fn line(code: &mut String, text: &str) {
    writeln!(code, "{text}").expect("writing to a string cannot fail");
}
