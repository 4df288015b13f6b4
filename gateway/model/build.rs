//! Generates the tables of metrics, actions, reasons, parameters and entry kinds from the registry of the contract.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use registry::RegistryEntry;

// The SDK reads the registry by the same lines.
#[path = "../../plugin-sdk/build/registry.rs"]
#[allow(dead_code, reason = "each side needs a part of it")]
mod registry;

const REGISTRY: &str = "../../plugin-sdk/wit/registry.toml";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={REGISTRY}");
    println!("cargo::rerun-if-changed=../../plugin-sdk/build/registry.rs");
    if let Err(sentence) = generate() {
        println!("cargo::error={REGISTRY}: {sentence}");
        std::process::exit(1);
    }
}

fn generate() -> Result<(), String> {
    let text = fs::read_to_string(Path::new(REGISTRY)).map_err(|error| error.to_string())?;
    let registry = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let of = |table: &str| registry::entries(&registry, table);
    let mut code = String::new();

    let metrics = of("metric")?;
    let doc = "A metric of the registry. Its number is what plugins and recordings carry.";
    write_enum(&mut code, "Metric", doc, &metrics, List::Slice);
    write_from_number(&mut code, "Metric", "metric", &metrics);
    write_places(&mut code, &metrics);
    write_rows_and_values(&mut code, &metrics);

    let ops = of("op")?;
    write_enum(
        &mut code,
        "Op",
        "A degradation action. Its number is what plugins carry.",
        &ops,
        List::Array,
    );
    write_from_number(&mut code, "Op", "action", &ops);

    let reasons = of("reason")?;
    let doc = "A reason that means the same in every policy. Its number is what plugins carry; lower ones are their own.";
    write_enum(&mut code, "CommonReason", doc, &reasons, List::Array);
    write_from_number(&mut code, "CommonReason", "reason", &reasons);

    line(
        &mut code,
        "/// Common reasons have numbers from this on; those that plugins name themselves are lower.",
    );
    line(
        &mut code,
        &format!("pub const COMMON_REASONS_FROM: u32 = {};", registry::COMMON_REASONS_FROM),
    );

    let params = of("param")?;
    let doc = "A parameter of the data plane that a scenario plugin sets. Plugins carry its key.";
    write_enum(&mut code, "Param", doc, &params, List::Array);
    write_bounds(&mut code, &params);

    let kinds = of("entry-kind")?;
    write_enum(&mut code, "EntryKind", "What a catalog entry is.", &kinds, List::Array);

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("registry.rs"), code).map_err(|error| error.to_string())
}

/// How `ALL` is given: a slice where the registry grows often, an array where callers map over it.
#[derive(Clone, Copy)]
enum List {
    Slice,
    Array,
}

/// An enum with a number, a key and a unit for each variant.
fn write_enum(code: &mut String, name: &str, doc: &str, entries: &[RegistryEntry], list: List) {
    line(code, &format!("/// {doc}"));
    line(code, "#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]");
    line(code, &format!("#[repr(u32)] pub enum {name} {{"));
    for entry in entries {
        let unit = match entry.unit.as_str() {
            "none" | "id" => String::new(),
            unit => format!(" Unit: {unit}."),
        };
        line(code, &format!("/// {}{unit}", entry.doc));
        line(code, &format!("{} = {},", entry.variant(), entry.number));
    }
    line(code, "}");
    line(code, &format!("impl {name} {{"));
    let all: Vec<_> = entries.iter().map(|entry| format!("{name}::{}", entry.variant())).collect();
    let kind = match list {
        List::Slice => format!("&[{name}] = &"),
        List::Array => format!("[{name}; {}] = ", entries.len()),
    };
    line(code, "/// All of them, by number.");
    line(code, &format!("pub const ALL: {kind}[{}];", all.join(", ")));
    for (function, doc, value) in [
        ("key", "name", (|entry| &entry.name) as fn(&RegistryEntry) -> &String),
        ("unit", "unit", |entry| &entry.unit),
    ] {
        let example = &value(&entries[0]);
        line(code, &format!("/// The registry's {doc}: `{example}`."));
        line(code, &format!("pub fn {function}(self) -> &'static str {{ match self {{"));
        for entry in entries {
            line(code, &format!("{name}::{} => {:?},", entry.variant(), value(entry)));
        }
        line(code, "} }");
    }
    line(code, "}");
}

fn write_from_number(code: &mut String, name: &str, word: &str, entries: &[RegistryEntry]) {
    line(code, &format!("impl {name} {{"));
    line(code, &format!("/// The {word} with this number, if this gateway knows it."));
    line(code, &format!("pub fn from_number(number: u32) -> Option<{name}> {{ match number {{"));
    for entry in entries {
        line(code, &format!("{} => Some({name}::{}),", entry.number, entry.variant()));
    }
    line(code, "_ => None, } } }");
}

/// The place of each metric: numbers have gaps, rooms have none.
fn write_places(code: &mut String, metrics: &[RegistryEntry]) {
    line(code, "/// Room for every metric of the registry.");
    line(code, &format!("pub(crate) const WIDTH: usize = {};", metrics.len()));
    line(code, "/// Where a metric has its room.");
    line(code, "pub(crate) const fn place(metric: Metric) -> usize { match metric {");
    for (place, metric) in metrics.iter().enumerate() {
        line(code, &format!("Metric::{} => {place},", metric.variant()));
    }
    line(code, "} }");
}

fn write_rows_and_values(code: &mut String, metrics: &[RegistryEntry]) {
    line(code, "impl Metric {");
    line(code, "/// A metric of sessions and rooms, and not of nodes and regions.");
    line(code, "pub fn is_subject(self) -> bool { match self {");
    for metric in metrics {
        line(code, &format!("Metric::{} => {},", metric.variant(), metric.subject()));
    }
    line(code, "} }");
    line(code, "/// Names of the values 0, 1, 2 and so on; empty for a measurement.");
    line(code, "pub fn values(self) -> &'static [&'static str] { match self {");
    for metric in metrics {
        line(code, &format!("Metric::{} => &{:?},", metric.variant(), metric.values));
    }
    line(code, "} } }");
}

fn write_bounds(code: &mut String, params: &[RegistryEntry]) {
    line(code, "impl Param {");
    line(code, "/// The lowest and the highest value that mean something, where not all do.");
    line(code, "pub fn bounds(self) -> Option<(i64, i64)> { match self {");
    for param in params {
        line(code, &format!("Param::{} => {:?},", param.variant(), param.bounds));
    }
    line(code, "} } }");
}

fn line(code: &mut String, text: &str) {
    writeln!(code, "{text}").expect("writing to a string cannot fail");
}
