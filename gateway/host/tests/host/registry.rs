//! The registry that plugins are generated from says the same as the core's tables.

use std::path::Path;

use evenkeel_core::{EntryKind, Metric, Op, Param};
use toml::{Table, Value};

/// The registry's tables of one name.
fn entries(name: &str) -> Vec<Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-sdk/wit/registry.toml");
    let registry: Table = std::fs::read_to_string(path)
        .expect("the registry is beside the contract")
        .parse()
        .unwrap();
    let entries = registry[name].as_array().unwrap().iter();
    entries.map(|entry| entry.as_table().unwrap().clone()).collect()
}

fn number(entry: &Table) -> u32 {
    entry["number"].as_integer().unwrap().try_into().unwrap()
}

fn text<'a>(entry: &'a Table, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn metrics_agree_with_the_registry() {
    let registry = entries("metric");
    let theirs =
        registry.iter().map(|entry| (number(entry), text(entry, "name"), text(entry, "unit")));
    let ours = Metric::ALL.iter().map(|&metric| (metric as u32, metric.key(), metric.unit()));
    assert_eq!(theirs.collect::<Vec<_>>(), ours.collect::<Vec<_>>());
}

#[test]
fn actions_agree_with_the_registry() {
    let registry = entries("op");
    let theirs = registry.iter().map(|entry| (number(entry), text(entry, "name")));
    let ours = Op::ALL.into_iter().map(|op| (op as u32, op.key()));
    assert_eq!(theirs.collect::<Vec<_>>(), ours.collect::<Vec<_>>());
}

#[test]
fn parameters_agree_with_the_registry() {
    let registry = entries("param");
    let theirs = registry.iter().map(|entry| text(entry, "name"));
    assert_eq!(theirs.collect::<Vec<_>>(), Param::ALL.map(Param::key));
}

#[test]
fn kinds_of_catalog_entries_agree_with_the_registry() {
    let registry = entries("entry-kind");
    let theirs = registry.iter().map(|entry| (number(entry), text(entry, "name")));
    let ours = [
        (EntryKind::Region as u32, "region"),
        (EntryKind::Zone as u32, "zone"),
        (EntryKind::Node as u32, "node"),
        (EntryKind::Home as u32, "home"),
    ];
    assert_eq!(theirs.collect::<Vec<_>>(), ours);
}
