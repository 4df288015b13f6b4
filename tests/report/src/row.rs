//! A row of a report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::RowLimits;

/// A row of `target/COMMAND/report.json`. All commands that measure or accept write this form.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct AcceptanceRow {
    pub id: String,
    /// Each judged figure is within its limit. Null if one was not measured, or no limit is judged.
    #[serde(default)]
    pub held: Option<bool>,
    /// The reason for which the row was not run.
    #[serde(default)]
    pub skipped: Option<String>,
    /// The reason for which the run is no measurement.
    #[serde(rename = "not-measured", default)]
    pub not_measured: Option<String>,
    /// Null: not measured.
    #[serde(default)]
    pub figures: BTreeMap<String, Option<f64>>,
    /// The upper bound of the figure of the same name. A key that ends in `_min` is a lower bound.
    #[serde(default)]
    pub limits: BTreeMap<String, f64>,
    /// Figures that are wanted, by the keys of limits.
    #[serde(default)]
    pub aims: BTreeMap<String, f64>,
    /// Limits that are not judged until a later issue, with its name.
    #[serde(default)]
    pub from: BTreeMap<String, String>,
    /// The reasons for which the row did not hold, if the command tells them: limits that were exceeded, and checks without a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misses: Vec<String>,
}

/// A figure beside its limit.
struct Judged<'a> {
    name: &'a str,
    figure: Option<f64>,
    limit: f64,
    is_least: bool,
}

impl Judged<'_> {
    /// `None` without a measurement.
    fn is_within(&self) -> Option<bool> {
        let figure = self.figure?;
        Some(if self.is_least { figure >= self.limit } else { figure <= self.limit })
    }
}

/// The end of the key of a lower bound.
const LEAST: &str = "_min";

impl AcceptanceRow {
    /// A row without figures.
    pub fn new(id: impl Into<String>) -> AcceptanceRow {
        AcceptanceRow { id: id.into(), ..AcceptanceRow::default() }
    }

    pub fn skipped(id: impl Into<String>, reason: impl Into<String>) -> AcceptanceRow {
        AcceptanceRow { skipped: Some(reason.into()), ..AcceptanceRow::new(id) }
    }

    pub fn not_measured(id: impl Into<String>, reason: impl Into<String>) -> AcceptanceRow {
        AcceptanceRow { not_measured: Some(reason.into()), ..AcceptanceRow::new(id) }
    }

    /// A judged row with limits that stand in no table.
    pub fn measured(
        id: impl Into<String>,
        figures: BTreeMap<String, f64>,
        limits: BTreeMap<String, f64>,
    ) -> AcceptanceRow {
        let figures = figures.into_iter().map(|(name, figure)| (name, Some(figure))).collect();
        let mut row = AcceptanceRow { figures, limits, ..AcceptanceRow::new(id) };
        row.judge();
        row
    }

    /// `None` or NaN: the figure was not measured.
    pub fn set_figure(&mut self, name: &str, figure: Option<f64>) {
        self.figures.insert(name.to_owned(), figure.filter(|figure| !figure.is_nan()));
    }

    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name).copied().flatten()
    }

    /// Sets a limit that stands in no table.
    pub fn set_limit(&mut self, name: &str, most: f64) {
        self.limits.insert(name.to_owned(), most);
    }

    /// Sets the limit and the aim of a figure to those of a key of the table, if it has them.
    pub fn limit_by(&mut self, name: &str, limits: &RowLimits, key: &str) {
        self.limit_scaled(name, limits, key, 1.0);
    }

    /// The same in another unit, of which this many are one of the table's.
    pub fn limit_scaled(&mut self, name: &str, limits: &RowLimits, key: &str, scale: f64) {
        let Some(found) = limits.get(key) else { return };
        let name = if found.is_least() { format!("{name}{LEAST}") } else { name.to_owned() };
        if let Some(from) = found.from() {
            self.from.insert(name.clone(), from.to_owned());
        }
        if let Some(aim) = found.aim() {
            self.aims.insert(name.clone(), aim * scale);
        }
        if let Some(limit) = found.limit() {
            self.limits.insert(name, limit * scale);
        }
    }

    /// Judges the figures by the limits.
    pub fn judge(&mut self) {
        self.held = self.verdict();
    }

    /// A row with misses did not hold.
    pub fn miss(&mut self, misses: Vec<String>) {
        if !misses.is_empty() {
            self.held = Some(false);
        }
        self.misses = misses;
    }

    /// Each judged limit with its figure; `None` if the figure was not measured.
    fn judged(&self) -> impl Iterator<Item = Judged<'_>> {
        let judged = self.limits.iter().filter(|(name, _)| !self.from.contains_key(*name));
        judged.map(|(name, limit)| {
            let least = name.strip_suffix(LEAST);
            let name = least.unwrap_or(name);
            Judged { name, figure: self.figure(name), limit: *limit, is_least: least.is_some() }
        })
    }

    /// The figures beyond their limits.
    pub fn exceeded(&self) -> impl Iterator<Item = String> {
        self.judged().filter(|judged| judged.is_within() == Some(false)).map(|judged| {
            let Judged { name, limit, is_least, .. } = judged;
            let figure = judged.figure.unwrap_or_default();
            match is_least {
                true => format!("{name} {figure:.1}, of at least {limit}"),
                false => format!("{name} {figure:.1}, {limit} is the limit"),
            }
        })
    }

    fn verdict(&self) -> Option<bool> {
        if self.skipped.is_some() || self.not_measured.is_some() {
            return None;
        }
        let each: Vec<Option<bool>> = self.judged().map(|judged| judged.is_within()).collect();
        if each.contains(&Some(false)) {
            return Some(false);
        }
        (!each.is_empty() && !each.contains(&None)).then_some(true)
    }

    /// The verdict as a word.
    pub fn word(&self) -> &'static str {
        match (&self.skipped, &self.not_measured, self.held) {
            (Some(_), ..) => "skipped",
            (_, Some(_), _) => "not measured",
            (.., Some(true)) => "held",
            (.., Some(false)) => "MISSED",
            (.., None) => "not judged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: Option<f64>, limit: &str) -> AcceptanceRow {
        let mut row = AcceptanceRow::new("row");
        row.set_figure("pps", figure);
        row.limits.insert(limit.to_owned(), 10.0);
        row.judge();
        row
    }

    #[test]
    fn row_holds_within_its_limits() {
        let held = |figure, limit| row(Some(figure), limit).held.unwrap();
        assert_eq!([9.0, 10.0, 11.0].map(|figure| held(figure, "pps")), [true, true, false]);
        assert_eq!([9.0, 10.0, 11.0].map(|figure| held(figure, "pps_min")), [false, true, true]);
    }

    #[test]
    fn exceeded_limits_are_named() {
        let named = |figure, limit| row(figure, limit).exceeded().collect::<Vec<_>>();
        assert_eq!(named(Some(11.0), "pps"), ["pps 11.0, 10 is the limit"]);
        assert_eq!(named(Some(9.0), "pps_min"), ["pps 9.0, of at least 10"]);
        assert_eq!(named(None, "pps"), [""; 0]);
        let mut missed = row(Some(9.0), "pps");
        missed.miss(vec!["a node was marked down".to_owned()]);
        assert_eq!((missed.held, missed.misses.len()), (Some(false), 1));
    }

    #[test]
    fn row_without_a_measurement_is_not_held() {
        assert_eq!(row(None, "pps").held, None);
        assert_eq!(row(Some(1.0), "loss").held, None, "the figure of the limit is missing");
        assert_eq!(AcceptanceRow::skipped("row", "no peer").held, None);
        assert_eq!(AcceptanceRow::not_measured("row", "busy").held, None);
        let mut partly = row(None, "pps");
        partly.set_figure("loss", Some(1.0));
        partly.limits.insert("loss".to_owned(), 0.0);
        partly.judge();
        assert_eq!(partly.held, Some(false), "one figure is beyond its limit");
        let text = serde_json::to_value(&partly).unwrap();
        assert!(text["figures"]["pps"].is_null() && text["figures"].get("pps").is_some());
    }

    #[test]
    fn later_limits_are_reported_and_not_judged() {
        let mut row = row(Some(11.0), "pps");
        row.from.insert("pps".to_owned(), "judge".to_owned());
        row.judge();
        assert_eq!((row.held, row.limits["pps"]), (None, 10.0));
        row.set_figure("loss", Some(0.0));
        row.limits.insert("loss".to_owned(), 0.0);
        row.judge();
        assert_eq!(row.held, Some(true));
    }
}
