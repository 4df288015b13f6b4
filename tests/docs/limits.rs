//! `docs/benchmarks.md`: its tables are made from `tests/limits.toml` and the reports that are kept in `tests/report/last`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use evenkeel_report::{AcceptanceRow, FigureLimit, KeptReport, LimitTable, RowLimits};
use serde_json::Value;

use crate::page::{Page, root};
use crate::telemetry::RENEW;

const PAGE: &str = "docs/benchmarks.md";

/// A table of limits: the section of `tests/limits.toml`, and the commands whose rows it has.
const LIMITS: [(&str, &[&str]); 9] = [
    ("chaos", &["chaos"]),
    ("bench", &["bench-quick", "bench"]),
    ("policy", &["bench-policy"]),
    ("media", &["bench-media"]),
    ("diagnosis", &["bench-diagnosis"]),
    ("forecast", &["bench-forecast"]),
    ("telemetry", &[]),
    ("e2e-telemetry", &["e2e-telemetry"]),
    ("interop", &["interop"]),
];

#[test]
fn tables_equal_the_reports() {
    let page = Page::read(PAGE);
    let table = LimitTable::load().unwrap();
    let mut tables: Vec<(&str, String)> = LIMITS
        .iter()
        .map(|(section, commands)| (*section, limits(&table, section, commands)))
        .collect();
    tables.push(("udp", udp()));
    tables.push(("quic", quic()));
    tables.push(("srtp", srtp()));
    tables.push(("srtp-relay", srtp_relay()));
    let made = page.with_tables(&tables);
    if std::env::var_os(RENEW).is_some() {
        fs::write(root().join(PAGE), made).unwrap();
        return;
    }
    let differs = page.text.lines().zip(made.lines()).find(|(is, should)| is != should);
    assert!(
        page.text == made,
        "{PAGE} is not what tests/limits.toml and tests/report/last say; run `make reference`: {differs:?}"
    );
}

/// The reports of these commands, oldest first.
fn reports(commands: &[&str]) -> Vec<KeptReport> {
    let mut all: Vec<KeptReport> =
        commands.iter().flat_map(|command| KeptReport::all_of(command).unwrap()).collect();
    all.sort_by(|one, other| one.run.date.cmp(&other.run.date));
    all
}

/// A run in words: `2026-11-29, commit 0123456789ab, 2 × …`.
fn run(report: &KeptReport) -> String {
    let KeptReport { run, .. } = report;
    let date = run.date.split('T').next().unwrap_or_default();
    // Rows may be those of a part.
    let part = run.arguments.iter().position(|word| word == "--rows");
    let part = part.and_then(|at| run.arguments.get(at + 1));
    let part = part.map_or(String::new(), |rows| format!(", rows with `{rows}` in their id"));
    format!("{date}, commit `{}`, {}{part}", run.commit, run.machine)
}

/// The limits of a section beside the figures of the last run of each row.
fn limits(table: &LimitTable, section: &str, commands: &[&str]) -> String {
    let reports = reports(commands);
    let mut last: BTreeMap<&str, &AcceptanceRow> = BTreeMap::new();
    let says_nothing = |row: &AcceptanceRow| {
        row.skipped.is_none()
            && row.not_measured.is_none()
            && row.misses.is_empty()
            && row.figures.values().all(Option::is_none)
    };
    for row in reports.iter().flat_map(|report| &report.rows).filter(|row| !says_nothing(row)) {
        last.insert(&row.id, row);
    }
    let mut text = String::new();
    for report in &reports {
        writeln!(text, "- {}", run(report)).unwrap();
    }
    if reports.is_empty() && !commands.is_empty() {
        text.push_str("Not measured yet in a run whose report is kept.\n");
    }
    text.push_str("\n| row | limit | aim | last run |\n|---|---|---|---|\n");
    for (key, limits) in table.entries(section) {
        let name = if key.is_empty() { "all".to_owned() } else { format!("`{key}`") };
        let bounds = |bound: fn(&FigureLimit) -> Option<f64>| bounds(&limits, bound);
        let measured = last.remove(key.as_str()).map_or(String::new(), figures);
        let (limit, aim) = (bounds(FigureLimit::limit), bounds(FigureLimit::aim));
        writeln!(text, "| {name} | {limit} | {aim} | {measured} |").unwrap();
    }
    // Rows of a pattern or a group.
    for (id, row) in last {
        let bound = |bounds: &BTreeMap<String, f64>| {
            let all = bounds.iter().map(|(name, bound)| match name.strip_suffix("_min") {
                Some(name) => format!("{name} ≥ {}", number(*bound)),
                None => format!("{name} ≤ {}", number(*bound)),
            });
            all.collect::<Vec<_>>().join(", ")
        };
        let (limit, aim) = (bound(&row.limits), bound(&row.aims));
        writeln!(text, "| {} | {limit} | {aim} | {} |", id.replace('|', "\\|"), figures(row))
            .unwrap();
    }
    text.push('\n');
    text
}

/// Units that the name of a figure does not say.
const UNITS: [&str; 7] = ["%", "MiB", "bytes", "ms", "ns", "s", "µs"];

fn bounds(limits: &RowLimits, bound: fn(&FigureLimit) -> Option<f64>) -> String {
    let all = limits.iter().filter_map(|(figure, limit)| {
        let bound = bound(limit)?;
        let later = limit.from().map_or(String::new(), |issue| format!(" (from {issue})"));
        if bound == 0.0 {
            return Some(format!("{figure} 0{later}"));
        }
        let sign = if limit.is_least() { "≥" } else { "≤" };
        let unit = UNITS.into_iter().find(|unit| limit.unit() == *unit);
        let unit = unit.map_or(String::new(), |unit| format!(" {unit}"));
        Some(format!("{figure} {sign} {}{unit}{later}", number(bound)))
    });
    all.collect::<Vec<_>>().join(", ")
}

/// The figures of a row that have a limit or an aim, and the verdict. A figure of 0 with a limit of 0 holds it, as the verdict says.
fn figures(row: &AcceptanceRow) -> String {
    let names = row.limits.keys().chain(row.aims.keys());
    let mut names: Vec<&str> = names.map(|name| name.trim_end_matches("_min")).collect();
    names.sort_unstable();
    names.dedup();
    let is_zero = |name: &str| row.figure(name) == Some(0.0) && row.limits.get(name) == Some(&0.0);
    let measured = names.into_iter().filter(|name| !is_zero(name));
    let measured = measured.filter_map(|name| Some((name, row.figure(name)?)));
    let mut words: Vec<String> =
        measured.map(|(name, figure)| format!("{name} {}", number(figure))).collect();
    let reason = row.not_measured.as_ref().or(row.skipped.as_ref());
    let verdict = row.word();
    let why = row.misses.join("; ");
    let reason = reason.or((!why.is_empty()).then_some(&why));
    words.push(reason.map_or(verdict.to_owned(), |reason| format!("{verdict}: {reason}")));
    words.join(", ").replace('|', "\\|").replace('\n', " ")
}

/// A number with the digits that distinguish it.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1_000.0 || value.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}

/// A table of measured rows of the last report that has some: its cells for each.
fn measured(
    commands: &[&str],
    head: &str,
    is_wanted: fn(&Value) -> bool,
    cells: fn(&Value) -> Vec<String>,
) -> String {
    for report in reports(commands).iter().rev() {
        let rows = report.measurements.get("measurements").and_then(Value::as_array);
        let rows: Vec<&Value> = rows.into_iter().flatten().filter(|row| is_wanted(row)).collect();
        if rows.is_empty() {
            continue;
        }
        let columns = "---|".repeat(head.matches('|').count() - 1);
        let mut text = format!("{}\n\n{head}\n|{columns}\n", run(report));
        for row in rows {
            writeln!(text, "| {} |", cells(row).join(" | ")).unwrap();
        }
        return text;
    }
    "Not measured yet in a run whose report is kept.\n".to_owned()
}

fn cell(value: &Value) -> String {
    value.as_f64().map_or("–".to_owned(), number)
}

fn word<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}

/// `to node, port, 1,000, 20k`.
fn place(row: &Value) -> String {
    let direction = word(row, "direction").replace('_', " ");
    format!("{direction}, {}, {}, {}", word(row, "leg"), cell(&row["sessions"]), word(row, "load"))
}

fn delays(row: &Value) -> String {
    let delay = &row["delay_us"];
    format!("{} / {}", cell(&delay["p50"]), cell(&delay["p99"]))
}

fn udp() -> String {
    let head = "| direction, leg, sessions, load | Evenkeel | floor | limit | nginx | ÷ limit | ÷ best peer | p50 / p99, µs |";
    let is_wanted = |row: &Value| {
        let is_base = row["sizes"] == "voice" && row["destinations"] == 6;
        row["name"] == "udp-udp" && row["srtp"].is_null() && row["sessions"] == 1_000 && is_base
    };
    measured(&["bench-quick", "bench"], head, is_wanted, |row| {
        let mut cells = vec![place(row)];
        cells.extend(["ours", "floor", "limit", "nginx"].map(|relay| cell(&row["cpu_ns"][relay])));
        cells.extend(["limit", "best_peer"].map(|other| cell(&row["ratio"][other])));
        cells.push(delays(row));
        cells
    })
}

fn quic() -> String {
    let head = "| path, leg, connections | Evenkeel | quinn's echo | floor | ÷ (echo + floor) | p50 / p99, µs |";
    let is_wanted = |row: &Value| row["name"] != "udp-udp";
    measured(&["bench"], head, is_wanted, |row| {
        let (path, leg) = (word(row, "name"), word(row, "leg"));
        let mut cells = vec![format!("{path}, {leg}, {}", cell(&row["sessions"]))];
        cells.extend(["ours", "quinn-echo", "floor"].map(|relay| cell(&row["cpu_ns"][relay])));
        cells.push(cell(&row["ratio"]["quinn_echo"]));
        cells.push(delays(row));
        cells
    })
}

fn srtp_relay() -> String {
    let head = "| direction, leg, sessions, load | suite | Evenkeel | rtpengine | ÷ |";
    measured(
        &["bench"],
        head,
        |row| row["srtp"].is_string(),
        |row| {
            let mut cells = vec![place(row), format!("`{}`", word(row, "srtp"))];
            cells.extend(["ours", "rtpengine"].map(|relay| cell(&row["cpu_ns"][relay])));
            cells.push(cell(&row["ratio"]["best_peer"]));
            cells
        },
    )
}

/// The cost of SRTP in the last report that has it.
fn srtp() -> String {
    for report in reports(&["bench-quick", "bench"]).iter().rev() {
        let Some(srtp) = report.measurements.get("srtp").filter(|srtp| !srtp.is_null()) else {
            continue;
        };
        let peer = srtp["libsrtp"].as_str().unwrap_or("no libsrtp");
        let mut text = format!("{}, beside {peer}\n\n", run(report));
        text.push_str("| suite and call | Evenkeel, ns | libsrtp, ns | ÷ |\n|---|---|---|---|\n");
        for (name, cost) in srtp["rows"].as_object().into_iter().flatten() {
            let cells = ["ours_ns", "libsrtp_ns", "ratio"].map(|key| cell(&cost[key]));
            writeln!(text, "| `{name}` | {} |", cells.join(" | ")).unwrap();
        }
        return text;
    }
    "Not measured yet in a run whose report is kept.\n".to_owned()
}

#[test]
fn numbers_have_the_digits_that_matter() {
    let found = [0.0, 0.35, 1.234, 41.26, 1_234.5, 10_849.0, 0.002].map(number);
    assert_eq!(found, ["0", "0.35", "1.23", "41.3", "1,234", "10,849", "0.002"]);
}
