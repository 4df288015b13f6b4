//! The table of limits, `tests/limits.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use crate::AcceptanceRow;

/// The table as a file, read when a command runs.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../limits.toml");

/// The section of figures, beside those of commands.
const FIGURES: &str = "figures";

/// With fewer samples the 99th percentile is the maximum.
pub const SAMPLES_MIN: usize = 100;

/// All limits, by command.
#[derive(Debug)]
pub struct LimitTable {
    figures: BTreeMap<String, FigureKind>,
    sections: BTreeMap<String, Section>,
}

/// What is said of a figure, wherever it stands.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FigureKind {
    unit: String,
    /// The limit is a lower bound.
    #[serde(default)]
    least: bool,
}

/// The entries of a command.
#[derive(Default, Debug)]
struct Section {
    /// The limits of all rows.
    common: Entry,
    /// By the id of a row, or a pattern of ids.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Default, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    limit: BTreeMap<String, f64>,
    #[serde(default)]
    aim: BTreeMap<String, f64>,
    from: Option<From>,
    /// `make gate` runs the rows of the entry.
    #[serde(default)]
    gate: bool,
    source: String,
}

/// The issue that brings limits: all of an entry, or by figure.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(untagged)]
enum From {
    All(String),
    Some(BTreeMap<String, String>),
}

impl Entry {
    /// The issue that brings the limit of this figure.
    fn from(&self, figure: &str) -> Option<&str> {
        match self.from.as_ref()? {
            From::All(name) => Some(name),
            From::Some(names) => names.get(figure).map(String::as_str),
        }
    }

    /// True if a later issue brings the row.
    fn is_later(&self) -> bool {
        matches!(self.from, Some(From::All(_)))
    }
}

/// The limit and aim of a figure of a row.
#[derive(Clone, PartialEq, Debug)]
pub struct FigureLimit {
    limit: Option<f64>,
    aim: Option<f64>,
    from: Option<String>,
    unit: String,
    is_least: bool,
    is_common: bool,
}

impl FigureLimit {
    /// The limit, judged or not.
    pub fn limit(&self) -> Option<f64> {
        self.limit
    }

    pub fn aim(&self) -> Option<f64> {
        self.aim
    }

    /// The issue that brings the limit, which is not judged until then.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// True for a lower bound.
    pub fn is_least(&self) -> bool {
        self.is_least
    }

    /// True if all rows of the section have the limit.
    pub fn is_common(&self) -> bool {
        self.is_common
    }
}

/// The limits of a row, by figure.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct RowLimits(BTreeMap<String, FigureLimit>);

impl RowLimits {
    /// The limit of a figure, if it is judged.
    pub fn judged(&self, figure: &str) -> Option<f64> {
        self.0.get(figure).filter(|found| found.from.is_none())?.limit
    }

    /// Judges the maximum by the stricter of both limits: with fewer than [`SAMPLES_MIN`] samples it is the 99th percentile.
    pub fn judge_maximum(&mut self, p99: &str, max: &str) {
        let Some(of_p99) = self.0.remove(p99) else { return };
        let of_max = self.0.entry(max.to_owned()).or_insert_with(|| of_p99.clone());
        let stricter = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        of_max.limit = stricter(of_p99.limit, of_max.limit);
        of_max.aim = stricter(of_p99.aim, of_max.aim);
    }

    /// Raises the limit of a figure to that of another one, if that is higher and judged.
    pub fn widen(&mut self, figure: &str, other: &str) {
        let Some(other) = self.judged(other) else { return };
        if let Some(limit) = self.0.get_mut(figure).and_then(|found| found.limit.as_mut()) {
            *limit = limit.max(other);
        }
    }

    pub fn get(&self, figure: &str) -> Option<&FigureLimit> {
        self.0.get(figure)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &FigureLimit)> {
        self.0.iter().map(|(figure, limit)| (figure.as_str(), limit))
    }

    /// A row of one figure.
    pub fn row(
        &self,
        id: impl Into<String>,
        name: &str,
        key: &str,
        figure: Option<f64>,
    ) -> AcceptanceRow {
        let mut row = AcceptanceRow::new(id);
        row.set_figure(name, figure);
        row.limit_by(name, self, key);
        row.judge();
        row
    }
}

/// The limits of a command's rows.
#[derive(Clone, Default, Debug)]
pub struct SectionLimits {
    rows: BTreeMap<String, RowLimits>,
    gate: BTreeSet<String>,
}

impl SectionLimits {
    /// The limits of this row. A row that is no row of the section has none.
    pub fn of(&self, row: &str) -> RowLimits {
        self.rows.get(row).cloned().unwrap_or_default()
    }

    /// True if `make gate` runs this row.
    pub fn is_gate(&self, row: &str) -> bool {
        self.gate.contains(row)
    }
}

impl LimitTable {
    /// Reads `tests/limits.toml`.
    ///
    /// # Errors
    /// The file is missing, or has an unknown key.
    pub fn load() -> Result<LimitTable, String> {
        let text = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        LimitTable::parse(&text).map_err(|error| format!("{}: {error}", Path::new(FILE).display()))
    }

    /// Reads a table.
    ///
    /// # Errors
    /// It has an unknown key.
    pub fn parse(text: &str) -> Result<LimitTable, String> {
        let mut tables: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let figures = tables.remove(FIGURES).ok_or(format!("no [{FIGURES}]"))?;
        let figures = figures.try_into().map_err(|error| format!("[{FIGURES}]: {error}"))?;
        let mut table = LimitTable { figures, sections: BTreeMap::new() };
        for (name, section) in tables {
            let section = table.section(&section).map_err(|error| format!("[{name}]: {error}"))?;
            table.sections.insert(name, section);
        }
        Ok(table)
    }

    fn section(&self, value: &Value) -> Result<Section, String> {
        let mut own = value.as_table().ok_or("no table")?.clone();
        let is_field =
            |key: &String| ["limit", "aim", "from", "gate", "source"].contains(&key.as_str());
        let keys: Vec<String> = own.keys().filter(|key| !is_field(key)).cloned().collect();
        let mut section = Section::default();
        for key in keys {
            let entry = own.remove(&key).unwrap_or(Value::Boolean(false));
            if !entry.is_table() {
                return Err(format!("unknown key {key}"));
            }
            let entry = self.entry(entry).map_err(|error| format!("{key}: {error}"))?;
            section.entries.insert(key, entry);
        }
        if !own.is_empty() {
            section.common = self.entry(Value::Table(own))?;
        }
        Ok(section)
    }

    fn entry(&self, value: Value) -> Result<Entry, String> {
        let entry: Entry = value.try_into().map_err(|error: toml::de::Error| error.to_string())?;
        if entry.limit.is_empty() {
            return Err("no limit".to_owned());
        }
        let named = match &entry.from {
            Some(From::Some(names)) => names.keys().collect(),
            _ => Vec::new(),
        };
        let stranger = named.iter().find(|figure| !entry.limit.contains_key(**figure));
        if let Some(figure) = stranger {
            return Err(format!("`from` names {figure}, which has no limit"));
        }
        let mut figures = entry.limit.keys().chain(entry.aim.keys());
        match figures.find(|figure| !self.figures.contains_key(*figure)) {
            Some(figure) => Err(format!("{figure} is not in [{FIGURES}]")),
            None => Ok(entry),
        }
    }

    /// The limits of a command that has these rows.
    ///
    /// # Errors
    /// A row has no entry, or an entry no row.
    pub fn rows_of(&self, section: &str, rows: &[&str]) -> Result<SectionLimits, String> {
        let Section { common, entries } =
            self.sections.get(section).ok_or(format!("tests/limits.toml has no [{section}]"))?;
        let unmatched = entries.iter().find(|(key, entry)| {
            !entry.is_later() && !rows.iter().any(|row| specificity(key, row).is_some())
        });
        if let Some((key, _)) = unmatched {
            return Err(format!("[{section}.\"{key}\"] of tests/limits.toml matches no row"));
        }
        let mut found = SectionLimits::default();
        for row in rows {
            let matching =
                entries.iter().filter_map(|(key, entry)| Some((specificity(key, row)?, entry)));
            let own = matching.max_by_key(|(specificity, _)| *specificity).map(|(_, entry)| entry);
            // Limits of all rows suffice where no row has its own.
            if own.is_none() && (common.limit.is_empty() || !entries.is_empty()) {
                return Err(format!("tests/limits.toml has no entry for {row} of [{section}]"));
            }
            found.rows.insert((*row).to_owned(), self.resolve(common, own));
            if own.is_some_and(|entry| entry.gate) {
                found.gate.insert((*row).to_owned());
            }
        }
        Ok(found)
    }

    /// The limits of one entry of a command whose entries are groups of figures.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn group(&self, section: &str, group: Option<&str>) -> Result<RowLimits, String> {
        let found = self.sections.get(section).and_then(|section| match group {
            Some(group) => section.entries.get(group),
            None => Some(&section.common),
        });
        let group = group.unwrap_or_default();
        let entry = found.ok_or(format!("tests/limits.toml has no [{section}.{group}]"))?;
        Ok(self.resolve(&Entry::default(), Some(entry)))
    }

    fn resolve(&self, common: &Entry, own: Option<&Entry>) -> RowLimits {
        let mut limits = RowLimits::default();
        for (entry, is_common) in [(Some(common), true), (own, false)] {
            let Some(entry) = entry else { continue };
            let figures: BTreeSet<&String> = entry.limit.keys().chain(entry.aim.keys()).collect();
            for figure in figures {
                let FigureKind { unit, least } = self.figures[figure].clone();
                let of_all = limits.0.get(figure).and_then(FigureLimit::limit);
                let limit = FigureLimit {
                    limit: entry.limit.get(figure).copied().or(of_all),
                    aim: entry.aim.get(figure).copied(),
                    from: entry.from(figure).map(str::to_owned),
                    unit,
                    is_least: least,
                    is_common,
                };
                limits.0.insert(figure.clone(), limit);
            }
        }
        limits
    }

    /// The entries of a command in order, each with its limits: for tables.
    pub fn entries(&self, section: &str) -> Vec<(String, RowLimits)> {
        let Some(Section { common, entries }) = self.sections.get(section) else {
            return Vec::new();
        };
        let none = Entry::default();
        let own = |entry| self.resolve(&none, Some(entry));
        let all = (!common.limit.is_empty()).then(|| (String::new(), own(common)));
        all.into_iter()
            .chain(entries.iter().map(|(key, entry)| (key.clone(), own(entry))))
            .collect()
    }
}

/// Rank of a key among those that match a row: the id itself, then the longest text before `*`. `None` if it does not match.
fn specificity(key: &str, row: &str) -> Option<[usize; 2]> {
    let Some((before, after)) = key.split_once('*') else {
        return (key == row).then_some([usize::MAX, usize::MAX]);
    };
    let inside = row.strip_prefix(before)?;
    inside.ends_with(after).then_some([before.len(), after.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with a lower bound `low`, an upper bound `high`, and these entries.
    fn table(entries: &str) -> Result<LimitTable, String> {
        let figures = "[figures]\nhigh = { unit = \"ms\" }\nlow = { unit = \"%\", least = true }\n";
        LimitTable::parse(&format!("{figures}{entries}"))
    }

    fn entry(key: &str, high: u32) -> String {
        format!("[chaos.\"{key}\"]\nlimit = {{ high = {high} }}\nsource = \"code\"\n")
    }

    #[test]
    fn shipped_table_is_read() {
        LimitTable::load().unwrap();
    }

    #[test]
    fn most_specific_key_counts() {
        let keys = [("*", 1), ("a.*", 2), ("a.b*", 3), ("*.c", 4), ("a.b.c", 5), ("d", 6)];
        let table = table(&keys.map(|(key, high)| entry(key, high)).concat()).unwrap();
        let rows = ["e", "e.c", "a.e", "a.c", "a.b.d", "a.b.c", "d"];
        let found = rows.map(|row| {
            table.rows_of("chaos", &rows).unwrap().of(row).judged("high").unwrap() as u32
        });
        assert_eq!(found, [1, 4, 2, 2, 3, 5, 6]);
    }

    #[test]
    fn row_replaces_limits_of_its_section() {
        let common = "[chaos]\nlimit = { high = 9, low = 7 }\nsource = \"code\"\n";
        let text = format!("{common}{}", ["a.*", "d"].map(|key| entry(key, 1)).concat());
        let limits = table(&text).unwrap().rows_of("chaos", &["a.b", "d"]).unwrap().of("d");
        assert_eq!((limits.judged("high"), limits.judged("low")), (Some(1.0), Some(7.0)));
        assert!(limits.get("low").is_some_and(FigureLimit::is_common));
        assert!(limits.get("high").is_some_and(|limit| !limit.is_common()));
    }

    #[test]
    fn row_without_an_entry_is_an_error() {
        let table = table(&entry("a.*", 1)).unwrap();
        assert!(table.rows_of("chaos", &["a.b"]).is_ok());
        let said = table.rows_of("chaos", &["a.b", "d"]).unwrap_err();
        assert_eq!(said, "tests/limits.toml has no entry for d of [chaos]");
        assert!(table.rows_of("bench", &[]).is_err());
    }

    #[test]
    fn key_without_a_row_is_an_error() {
        for key in ["b.*", "e"] {
            let table = table(&[entry("a.*", 1), entry(key, 1)].concat()).unwrap();
            let said = table.rows_of("chaos", &["a.b"]).unwrap_err();
            assert_eq!(said, format!("[chaos.\"{key}\"] of tests/limits.toml matches no row"));
        }
    }

    #[test]
    fn limit_of_a_later_issue_is_not_judged() {
        let later = entry("e", 1) + "from = \"judge\"\n";
        let partly =
            "[chaos.d]\nfrom = { low = \"judge\" }\nlimit = { low = 1, high = 2 }\nsource = \"\"\n";
        let table = table(&format!("{}{later}{partly}", entry("a.*", 1))).unwrap();
        let limits = table.rows_of("chaos", &["a.b", "d"]).unwrap().of("d");
        assert_eq!((limits.judged("low"), limits.judged("high")), (None, Some(2.0)));
        assert_eq!(limits.get("low").and_then(FigureLimit::from), Some("judge"));
    }

    #[test]
    fn gate_has_the_rows_of_its_entries() {
        let gate = entry("a.*", 1) + "gate = true\n";
        let table = table(&[gate, entry("a.c", 1), entry("d", 1)].concat()).unwrap();
        let rows = ["a.b", "a.c", "d"];
        let found = table.rows_of("chaos", &rows).unwrap();
        assert_eq!(rows.map(|row| found.is_gate(row)), [true, false, false]);
    }

    #[test]
    fn few_samples_have_a_maximum() {
        let limits = |text: &str| {
            let figures = "[figures]\np99 = { unit = \"ms\" }\nmax = { unit = \"ms\" }\n";
            let text = format!("{figures}[chaos]\nlimit = {{ {text} }}\nsource = \"code\"\n");
            let mut limits = LimitTable::parse(&text).unwrap().group("chaos", None).unwrap();
            limits.judge_maximum("p99", "max");
            (limits.judged("p99"), limits.judged("max"))
        };
        assert_eq!(limits("p99 = 50, max = 60"), (None, Some(50.0)));
        assert_eq!(limits("p99 = 50"), (None, Some(50.0)));
        assert_eq!(limits("max = 60"), (None, Some(60.0)));
    }

    #[test]
    fn unknown_key_is_an_error() {
        let stranger = "[chaos.\"a\"]\nlimit = { width = 1 }\nsource = \"code\"\n";
        for (text, expected) in [
            (stranger.to_owned(), "[chaos]: a: width is not in [figures]"),
            (entry("a", 1) + "limits = 3\n", "unknown field `limits`"),
            ("[chaos]\nlimits = 3\n".to_owned(), "[chaos]: unknown key limits"),
            (entry("a", 1) + "from = { low = \"b\" }\n", "`from` names low, which has no limit"),
            ("[chaos.a]\nlimit = { high = 1 }\n".to_owned(), "missing field `source`"),
        ] {
            let said = table(&text).unwrap_err();
            assert!(said.contains(expected), "{said}");
        }
    }
}
