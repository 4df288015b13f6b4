//! `docs/telemetry.md`: the tables are made from the registry, and the events are those that the API sends.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use evenkeel_core::forward::Reason;
use evenkeel_server::telemetry::registry::{
    Attribute, Count, Described, Level, Sampled, Span, Time,
};

use crate::page::{Page, root};

const PAGE: &str = "docs/telemetry.md";

/// Set to write the tables instead of comparing them.
const RENEW: &str = "EVENKEEL_RENEW";

#[test]
fn tables_equal_the_registry() {
    let page = Page::read(PAGE).text;
    let tables = [
        ("counters", metrics(Count::ALL.iter().map(|metric| metric.described()))),
        ("gauges", metrics(Level::ALL.iter().map(|metric| metric.described()))),
        ("histograms", metrics(Time::ALL.iter().map(|metric| metric.described()))),
        ("spans", spans()),
        ("attributes", attributes()),
    ];
    let made = tables.iter().fold(page.clone(), |page, (name, table)| put(&page, name, table));
    if std::env::var_os(RENEW).is_some() {
        fs::write(root().join(PAGE), made).unwrap();
        return;
    }
    let differs = page.lines().zip(made.lines()).find(|(is, should)| is != should);
    assert!(
        page == made,
        "{PAGE} is not what the registry says; run `make reference`: {differs:?}"
    );
}

#[test]
fn events_equal_those_of_the_api() {
    let listed = Page::read(PAGE).names_under("## Events");
    assert_eq!(listed, sent(), "{PAGE}: left, the events listed; right, those in api/*.rs");
}

#[test]
fn drop_reasons_equal_the_core() {
    let listed = Page::read(PAGE).names_under("## Drop reasons");
    let known: BTreeSet<String> = Reason::ALL.iter().map(|why| why.name().to_owned()).collect();
    assert_eq!(listed, known, "{PAGE}: left, the reasons listed; right, those of the core");
}

/// Names of server-sent events, by how `api` words them.
fn sent() -> BTreeSet<String> {
    let api = root().join("gateway/server/src/api");
    let source = ["notice.rs", "events.rs"].map(|file| fs::read_to_string(api.join(file)).unwrap());
    let source: String = source.concat().split_whitespace().collect();
    let mut names = BTreeSet::new();
    let bodies = ["\",Body::", "\",&Body::", "\",body)"];
    for (at, _) in bodies.iter().flat_map(|body| source.match_indices(body)) {
        let from = source[..at].rfind('"').unwrap() + 1;
        names.insert(source[from..at].to_owned());
    }
    for rest in source.split("Notice{name:\"").skip(1) {
        names.insert(rest.split('"').next().unwrap().to_owned());
    }
    names
}

/// The page with a table between its marks.
fn put(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{PAGE}: no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{PAGE}: no {end}"));
    format!("{before}{begin}{table}{end}{after}")
}

fn metrics(all: impl Iterator<Item = Described>) -> String {
    let mut table = "| metric | unit | attributes | meaning |\n|---|---|---|---|\n".to_owned();
    for Described { name, unit, doc, attributes } in all {
        let keys = keys(attributes);
        writeln!(table, "| `{name}` | `{unit}` | {keys} | {} |", cell(doc)).unwrap();
    }
    table
}

fn spans() -> String {
    let mut table = "| span | sampled | attributes | meaning |\n|---|---|---|---|\n".to_owned();
    for span in Span::ALL {
        let (name, doc) = (span.name(), cell(span.doc()));
        let sampled = match span.sampled() {
            Sampled::Always => "always",
            Sampled::Share => "`sample`",
        };
        writeln!(table, "| `{name}` | {sampled} | {} | {doc} |", keys(span.attributes())).unwrap();
    }
    table
}

fn attributes() -> String {
    let mut table = "| attribute | meaning |\n|---|---|\n".to_owned();
    for attribute in Attribute::ALL {
        writeln!(table, "| `{}` | {} |", attribute.key(), cell(attribute.doc())).unwrap();
    }
    table
}

fn keys(attributes: &[Attribute]) -> String {
    let keys = attributes.iter().map(|attribute| {
        let key = attribute.key();
        format!("`{}`", key.strip_prefix("evenkeel.").unwrap_or(key))
    });
    keys.collect::<Vec<_>>().join(", ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
