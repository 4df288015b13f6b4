//! Generates the registry's constants and typed views from `wit/registry.toml`, and the contract's
//! version from `wit/policy.wit`.

use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

use registry::{RegistryEntry, camel};

// The gateway's build script shares this file.
#[path = "build/registry.rs"]
#[allow(dead_code, reason = "each side uses a part of it")]
mod registry;

fn main() {
    for file in ["build.rs", "build/registry.rs", "wit/registry.toml", "wit/policy.wit"] {
        println!("cargo::rerun-if-changed={file}");
    }
    if let Err(sentence) = generate() {
        println!("cargo::error={sentence}");
        std::process::exit(1);
    }
}

fn generate() -> Result<(), String> {
    let text = read("wit/registry.toml")?;
    let registry = text.parse().map_err(|error| format!("wit/registry.toml: {error}"))?;
    let of = |table: &str| {
        registry::entries(&registry, table).map_err(|wrong| format!("wit/registry.toml: {wrong}"))
    };
    let mut code = String::new();
    write_contract(&mut code, &read("wit/policy.wit")?);
    write_metrics(&mut code, &of("metric")?);
    write_views(&mut code, &of("metric")?);
    write_measured(&mut code, &of("metric")?);
    write_ops(&mut code, &of("op")?);
    write_reasons(&mut code, &of("reason")?);
    write_params(&mut code, &of("param")?);
    write_labels(&mut code, &of("label")?);
    write_entry_kinds(&mut code, &of("entry-kind")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("registry.rs"), code).map_err(|error| format!("OUT_DIR: {error}"))
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

/// Returns the function name of an entry: `loss_up_ppm` for `loss-up` in ppm.
fn function(entry: &RegistryEntry) -> String {
    let suffix = if entry.unit == "count" { String::new() } else { format!("_{}", entry.unit) };
    entry.name.replace('-', "_") + &suffix
}

/// Returns the unit for the doc comment of an entry.
fn unit(entry: &RegistryEntry) -> String {
    let bounds = entry.bounds.map_or(String::new(), |(low, high)| format!(", {low} to {high}"));
    match entry.unit.as_str() {
        "none" => String::new(),
        unit => format!(" Unit: {unit}{bounds}."),
    }
}

fn write_contract(code: &mut String, wit: &str) {
    let package = wit.lines().find_map(|line| line.strip_prefix("package evenkeel:policy@"));
    let version = package.expect("policy.wit names its package").trim_end_matches(';');
    line(code, "/// Version of the contract this SDK is generated from.");
    line(code, &format!("pub const CONTRACT: &str = {version:?};"));
}

/// Writes an enum with a number, a name and a unit for each variant.
fn write_enum(code: &mut String, name: &str, doc: &str, entries: &[RegistryEntry]) {
    line(code, &format!("/// {doc}"));
    line(code, "#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]");
    line(code, &format!("#[repr(u32)] pub enum {name} {{"));
    for entry in entries {
        line(code, &format!("/// {}{}", entry.doc, unit(entry)));
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
    entries: impl Iterator<Item = &'a RegistryEntry>,
) {
    let variants: Vec<_> = entries.map(|entry| format!("{name}::{}", entry.variant())).collect();
    line(code, &format!("/// {doc}"));
    line(code, &format!("pub const {set}: &[{name}] = &[{}];", variants.join(", ")));
}

fn write_metrics(code: &mut String, metrics: &[RegistryEntry]) {
    write_enum(code, "Metric", "A metric that a policy may read.", metrics);
    line(code, "impl Metric {");
    for kind in ["session", "room", "node", "region"] {
        let of = metrics.iter().filter(|metric| metric.of.iter().any(|of| of == kind));
        let doc = format!("Metrics of a {kind}.");
        write_set(code, &kind.to_uppercase(), &doc, "Metric", of);
    }
    line(
        code,
        "/// True for a column of frames about sessions and rooms, false for nodes and regions.",
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

/// Writes one accessor per metric on each view that may carry it.
fn write_views(code: &mut String, metrics: &[RegistryEntry]) {
    for (kind, view) in [
        ("session", "<S> Session<'_, S>"),
        ("room", "<S> Room<'_, S>"),
        ("node", " Node<'_>"),
        ("region", " Region<'_>"),
    ] {
        line(code, &format!("impl{view} {{"));
        for metric in metrics.iter().filter(|metric| metric.of.iter().any(|of| of == kind)) {
            let (variant, name) = (metric.variant(), function(metric));
            let unit = if metric.unit == "count" { String::new() } else { unit(metric) };
            line(code, &format!("/// {}{unit} `None` if not measured.", metric.doc));
            if metric.flag {
                line(code, &format!("pub fn {name}(&self) -> Option<bool> {{"));
                line(code, &format!("self.measured(Metric::{variant}).map(|value| value != 0) }}"));
            } else if metric.values.is_empty() {
                line(code, &format!("pub fn {name}(&self) -> Option<u32> {{"));
                line(code, &format!("self.measured(Metric::{variant}) }}"));
            } else {
                line(code, &format!("pub fn {name}(&self) -> Option<{variant}> {{"));
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

/// Writes one setter per metric on test measurements.
fn write_measured(code: &mut String, metrics: &[RegistryEntry]) {
    line(code, "#[cfg(not(target_arch = \"wasm32\"))]");
    line(code, "impl crate::trial::Measurements {");
    for metric in metrics {
        let (variant, name) = (metric.variant(), function(metric));
        let (kind, value) = match (metric.flag, metric.values.is_empty()) {
            (true, _) => ("bool", "u32::from(value)"),
            (false, true) => ("u32", "value"),
            (false, false) => (&*variant, "value as u32"),
        };
        line(code, &format!("/// {}{}", metric.doc, unit(metric)));
        line(code, "#[must_use]");
        line(code, &format!("pub fn {name}(self, value: {kind}) -> Self {{"));
        line(code, &format!("self.with(Metric::{variant}, {value}) }}"));
    }
    line(code, "}");
}

fn write_ops(code: &mut String, ops: &[RegistryEntry]) {
    write_enum(code, "Op", "An action of a degradation policy.", ops);
}

fn write_reasons(code: &mut String, reasons: &[RegistryEntry]) {
    let doc = "A reason shared by all policies, for `because` instead of one of the plugin's own.";
    write_enum(code, "CommonReason", doc, reasons);
    let from = registry::COMMON_REASONS_FROM;
    line(code, "/// First number of common reasons; a plugin's own have lower numbers, from 1.");
    line(code, &format!("pub const COMMON_REASONS_FROM: u32 = {from};"));
}

fn write_params(code: &mut String, params: &[RegistryEntry]) {
    write_enum(code, "Param", "A parameter of a scenario policy.", params);
    line(code, "impl Params {");
    for param in params {
        let (variant, name) = (param.variant(), function(param));
        line(code, &format!("/// {}{}", param.doc, unit(param)));
        line(code, &format!("pub fn {name}(&mut self, value: u32) -> &mut Self {{"));
        line(code, &format!("self.set(Param::{variant}, i64::from(value)) }}"));
    }
    line(code, "}");
}

fn write_labels(code: &mut String, labels: &[RegistryEntry]) {
    line(code, "/// Labels with a common meaning. A session may carry others.");
    line(code, "pub mod label {");
    for label in labels {
        let constant = label.name.replace('-', "_").to_uppercase();
        line(code, &format!("/// {}{}", label.doc, unit(label)));
        line(code, &format!("pub const {constant}: &str = {:?};", label.name));
    }
    line(code, "}");
}

fn write_entry_kinds(code: &mut String, kinds: &[RegistryEntry]) {
    for kind in kinds {
        line(code, &format!("/// {}", kind.doc));
        let constant = kind.name.to_uppercase();
        line(code, &format!("pub(crate) const KIND_{constant}: u32 = {};", kind.number));
    }
}

fn line(code: &mut String, text: &str) {
    writeln!(code, "{text}").expect("writing to a string cannot fail");
}
