//! Repeated runs of a row: how many held, and the spread of its figures.

use std::collections::BTreeMap;

use evenkeel_report::AcceptanceRow;
use serde::Serialize;

/// The runs of one row.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct RowRuns {
    pub(crate) id: String,
    pub(crate) runs: usize,
    /// Runs with figures of all limits.
    pub(crate) runs_measured: usize,
    /// Runs within each limit.
    pub(crate) runs_held: usize,
    /// Figures with a limit of zero that exceeded it in a run.
    pub(crate) above_zero: Vec<String>,
    /// Enough runs held.
    pub(crate) held: bool,
    /// Figures with a limit.
    pub(crate) spread: BTreeMap<String, Spread>,
}

/// A figure over the runs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl RowRuns {
    /// `None` without a run. `may_exceed`: the share of the runs whose times may exceed a limit; limits of zero hold in each run.
    pub(crate) fn of(runs: &[AcceptanceRow], may_exceed: f64) -> Option<RowRuns> {
        let first = runs.first()?;
        let runs_held = runs.iter().filter(|run| run.held == Some(true)).count();
        let runs_measured = runs.iter().filter(|run| run.held.is_some()).count();
        let mut spread = BTreeMap::new();
        let mut above_zero = Vec::new();
        for (name, limit) in &first.limits {
            let Some(figures) = Spread::of(runs.iter().filter_map(|run| run.figure(name))) else {
                continue;
            };
            if *limit == 0.0 && figures.most > 0.0 {
                above_zero.push(name.clone());
            }
            spread.insert(name.clone(), figures);
        }
        let exceeded = (runs_measured - runs_held) as f64;
        let enough = runs_measured > 0 && exceeded <= runs_measured as f64 * may_exceed;
        let held = enough && above_zero.is_empty();
        let (id, runs) = (first.id.clone(), runs.len());
        Some(RowRuns { id, runs, runs_measured, runs_held, above_zero, held, spread })
    }
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_unstable_by(f64::total_cmp);
        let median = *figures.get(figures.len().saturating_sub(1) / 2)?;
        Some(Spread { least: *figures.first()?, median, most: *figures.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAY_EXCEED: f64 = 0.1;

    /// A run with this figure and this one of a limit of zero.
    fn run(held: bool, gap_ms: f64, lost: f64) -> AcceptanceRow {
        let named = |[gap, lost]: [f64; 2]| [("gap_ms".to_owned(), gap), ("lost".to_owned(), lost)];
        let (figures, limits) = (named([gap_ms, lost]).into(), named([45.0, 0.0]).into());
        let run = AcceptanceRow::measured("row", figures, limits);
        assert_eq!(run.held, Some(held));
        run
    }

    #[test]
    fn one_run_of_ten_may_exceed_a_time() {
        let mut runs = vec![run(true, 40.0, 0.0); 9];
        runs.push(run(false, 50.0, 0.0));
        let of = RowRuns::of(&runs, MAY_EXCEED).unwrap();
        assert_eq!((of.runs, of.runs_held, of.held), (10, 9, true));
        assert_eq!(of.spread["gap_ms"], Spread { least: 40.0, median: 40.0, most: 50.0 });
        runs.push(run(false, 51.0, 0.0));
        assert!(!RowRuns::of(&runs, MAY_EXCEED).unwrap().held);
    }

    #[test]
    fn no_run_may_exceed_zero() {
        let mut runs = vec![run(true, 40.0, 0.0); 19];
        runs.push(run(false, 40.0, 3.0));
        let of = RowRuns::of(&runs, MAY_EXCEED).unwrap();
        assert_eq!((of.above_zero, of.held), (vec!["lost".to_owned()], false));
    }

    #[test]
    fn run_that_was_not_measured_holds_nothing() {
        let missing = AcceptanceRow::not_measured("row", "busy");
        let of = RowRuns::of(&[missing.clone(), missing], MAY_EXCEED).unwrap();
        assert_eq!((of.runs, of.runs_measured, of.held), (2, 0, false));
    }
}
