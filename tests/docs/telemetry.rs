//! `docs/telemetry.md`: the tables are made from the registry, and the events are those that the API sends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use evenkeel_control::GatewayEvent;
use evenkeel_model::{CoreEvent, DropReason, ListedEvent, NoticeRow};
use evenkeel_telemetry::alerts::{INHIBITIONS, inhibit_rules_file, rules_file, rules_of_file};
use evenkeel_telemetry::registry::{Attribute, Count, Described, Histogram, Level, Sampled, Span};

use crate::page::{Page, quoted, root};

const PAGE: &str = "docs/telemetry.md";
const RULES_FILE: &str = "docs/alerts/rules.yml";
const INHIBIT_RULES_FILE: &str = "docs/alerts/alertmanager.yml";

/// Set to write generated files and tables instead of comparing them.
pub(crate) const RENEW: &str = "EVENKEEL_RENEW";

#[test]
fn tables_equal_the_registry() {
    let page = Page::read(PAGE);
    let tables = [
        ("counters", metrics(Count::ALL.iter().map(|metric| metric.described()))),
        ("gauges", metrics(Level::ALL.iter().map(|metric| metric.described()))),
        ("histograms", metrics(Histogram::ALL.iter().map(|metric| metric.described()))),
        ("spans", spans()),
        ("attributes", attributes()),
        ("events", events()),
        ("alerts", alert_rules()),
        ("inhibitions", inhibitions()),
    ];
    let made = page.with_tables(&tables);
    let files = [(RULES_FILE, rules_file()), (INHIBIT_RULES_FILE, inhibit_rules_file())];
    if std::env::var_os(RENEW).is_some() {
        fs::write(root().join(PAGE), made).unwrap();
        files.iter().for_each(|(file, text)| fs::write(root().join(file), text).unwrap());
        return;
    }
    for (file, text) in files {
        let is_new = fs::read_to_string(root().join(file)).is_ok_and(|found| found == text);
        assert!(is_new, "{file} is not what the registry says; run `make reference`");
    }
    let differs = page.text.lines().zip(made.lines()).find(|(is, should)| is != should);
    assert!(
        page.text == made,
        "{PAGE} is not what the registry says; run `make reference`: {differs:?}"
    );
}

#[test]
fn events_equal_those_of_the_api() {
    let listed = Page::read(PAGE).names_under("## Events");
    let sent: BTreeSet<String> = sent().into_keys().collect();
    assert_eq!(listed, sent, "{PAGE}: left, the events listed; right, those of the contract");
}

#[test]
fn fields_of_events_equal_those_of_the_api() {
    let page = Page::read(PAGE);
    let sent = sent();
    let mut wrong = Vec::new();
    for (place, cells) in page.rows() {
        let Some(fields) = quoted(&cells[0]).first().and_then(|name| sent.get(*name)) else {
            continue;
        };
        // The fields of a rollout and of a reload stand in other structs.
        let is_elsewhere = fields.contains("rollout") || fields.contains("changes");
        if cells.len() != 3 || fields.is_empty() || is_elsewhere {
            continue;
        }
        let listed: BTreeSet<&str> = quoted(&cells[2]).into_iter().collect();
        let fields: BTreeSet<&str> = fields.iter().map(String::as_str).collect();
        if listed != fields {
            wrong.push(format!("{place}: {} is sent with {fields:?}", cells[0]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn drop_reasons_equal_the_core() {
    let listed = Page::read(PAGE).names_under("## Drop reasons");
    let known: BTreeSet<String> = DropReason::ALL.iter().map(|why| why.name().to_owned()).collect();
    assert_eq!(listed, known, "{PAGE}: left, the reasons listed; right, those of the core");
}

/// Server-sent events with their fields, without the time that all have, by the contract.
fn sent() -> BTreeMap<String, BTreeSet<String>> {
    let read =
        |file: &str| fs::read_to_string(root().join("gateway/contract/src").join(file)).unwrap();
    let source = read("events.rs");
    let types = source.clone() + &read("policies.rs") + &read("gateway.rs");
    let (_, listed) = source.split_once("\nnames! {\n").unwrap();
    let (listed, _) = listed.split_once("\n}\n").unwrap();
    let mut events: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in listed.lines() {
        let (data, name) = line.trim().trim_end_matches(',').split_once(" = ").unwrap();
        let (_, body) = types.split_once(&format!("\npub struct {data} {{\n")).unwrap();
        let (body, _) = body.split_once("\n}\n").unwrap();
        let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub "));
        let fields = fields.filter_map(|line| line.split(':').next());
        let fields = fields.filter(|field| *field != "at_us").map(str::to_owned);
        events.entry(name.trim_matches('"').to_owned()).or_default().extend(fields);
    }
    events
}

/// The events of `GET /v1/events` with their meanings.
fn notices() -> impl Iterator<Item = (&'static str, NoticeRow)> {
    let rows = CoreEvent::rows().iter().chain(GatewayEvent::rows());
    rows.filter_map(|row| Some((row.doc, row.notice?)))
}

fn events() -> String {
    let mut table = "| event | meaning | fields |\n|---|---|---|\n".to_owned();
    let mut names: Vec<&str> = Vec::new();
    for (_, NoticeRow { name, .. }) in notices() {
        if names.contains(&name) {
            continue;
        }
        names.push(name);
        let of_name = || notices().filter(|(_, notice)| notice.name == name);
        let docs: Vec<&str> = of_name().map(|(doc, _)| doc).collect();
        let fields: String = of_name().map(|(_, notice)| notice.fields).collect();
        writeln!(table, "| `{name}` | {} | {fields} |", cell(&docs.join(" "))).unwrap();
    }
    table + "| `missed` | This listener was too slow. | `notices`: how many events it missed |\n"
}

fn metrics(all: impl Iterator<Item = Described>) -> String {
    let mut table = "| metric | unit | attributes | meaning |\n|---|---|---|---|\n".to_owned();
    for Described { name, unit, doc, attributes, .. } in all {
        let keys = keys(attributes);
        writeln!(table, "| `{name}` | `{unit}` | {keys} | {} |", cell(doc)).unwrap();
    }
    table
}

fn alert_rules() -> String {
    let mut table =
        "| alert | tier | expression | for | runbook |\n|---|---|---|---|---|\n".to_owned();
    for rule in rules_of_file() {
        let (name, tier, runbook) = (rule.name, rule.tier.name(), rule.runbook);
        let (lasts, page) = (rule.lasts_text(), runbook.split('#').next().unwrap_or(runbook));
        // A bar would end the cell.
        let expression = rule.expression().replace('|', "\\|");
        writeln!(table, "| `{name}` | {tier} | `{expression}` | {lasts} | [{page}]({runbook}) |")
            .unwrap();
    }
    table
}

fn inhibitions() -> String {
    let mut table =
        "| while it fires | these are not sent | of the same |\n|---|---|---|\n".to_owned();
    for inhibition in INHIBITIONS {
        let targets: Vec<String> = inhibition.targets.iter().map(|it| format!("`{it}`")).collect();
        let equal = inhibition.equal.iter().map(|label| {
            let name = label.strip_prefix("evenkeel_").unwrap_or(label);
            format!("`{name}`")
        });
        let equal: Vec<String> = equal.collect();
        let (source, targets, equal) = (inhibition.source, targets.join(", "), equal.join(", "));
        writeln!(table, "| `{source}` | {targets} | {equal} |").unwrap();
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
