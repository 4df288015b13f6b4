//! The table beside the limits that stood in code at commit a3d43ed3.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::BTreeMap;

use evenkeel_report::{FigureLimit, LimitTable, SectionLimits};

const EARLIER: &str = include_str!("../limits-a3d43ed3.txt");

/// A limit, or a row without one.
struct EarlierLimit<'a> {
    section: &'a str,
    row: &'a str,
    key: &'a str,
    limit: Option<f64>,
    entry: &'a str,
    table_key: &'a str,
    scale: Option<f64>,
}

fn earlier() -> Vec<EarlierLimit<'static>> {
    let lines = EARLIER.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<EarlierLimit<'_>> = lines
        .map(|line| {
            let fields: Vec<&str> = line.split('|').collect();
            let [section, row, key, limit, entry, table_key, scale] = fields[..] else {
                panic!("{line}");
            };
            let (limit, scale) = (limit.parse().ok(), scale.parse().ok());
            EarlierLimit { section, row, key, limit, entry, table_key, scale }
        })
        .collect();
    assert!(all.len() > 800, "{} limits", all.len());
    all
}

/// The limits of the earlier rows of a section, and of those that came since. The entry of all rows has an empty key.
fn limits_of_rows(table: &LimitTable, section: &str, all: &[EarlierLimit<'_>]) -> SectionLimits {
    let earlier = all.iter().filter(|it| it.section == section && it.row != "*");
    let entries = table.entries(section);
    let own = entries
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| !key.is_empty() && !key.contains('*'));
    let rows: Vec<&str> = earlier.map(|it| it.row).chain(own).collect();
    table.rows_of(section, &rows).unwrap()
}

#[test]
fn no_limit_is_looser_than_in_code() {
    let table = LimitTable::load().unwrap();
    let all = earlier();
    let of_rows = ["chaos", "e2e-telemetry", "interop"]
        .map(|section| (section, limits_of_rows(&table, section, &all)));
    let of_rows = BTreeMap::from(of_rows);
    let mut looser = Vec::new();
    for EarlierLimit { section, row, key, limit, entry, table_key, scale } in &all {
        let Some(limit) = *limit else { continue };
        let is_of_all = entry.is_empty() || ["diagnosis", "forecast"].contains(section);
        let now = match of_rows.get(section) {
            Some(rows) if !is_of_all => rows.of(entry),
            _ => table.group(section, Some(*entry).filter(|_| !is_of_all)).unwrap(),
        };
        let found = now.judged(table_key).map(|found| found * scale.unwrap());
        let is_least = now.get(table_key).is_some_and(FigureLimit::is_least);
        let is_kept = found.is_some_and(|now| if is_least { now >= limit } else { now <= limit });
        // With fewer than 100 samples the maximum has the limit of the 99th percentile.
        let mut of_few = now.clone();
        of_few.judge_maximum("p99", "max");
        let is_maximum =
            *table_key == "p99" && of_few.judged("max").is_some_and(|now| now <= limit);
        if !is_kept && !is_maximum {
            looser.push(format!("{section} {row} {key}: {limit}, now {found:?}"));
        }
    }
    assert!(looser.is_empty(), "{looser:#?}");
}
