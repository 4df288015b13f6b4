//! Repeated runs of a row: how many held, and the spread of its figures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::RowReport;

/// Runs of a row whose times may exceed a limit, per cent. Limits of zero hold in each run.
const MAY_EXCEED_PERCENT: usize = 10;

/// The runs of one row.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct RowRuns {
    pub(crate) id: &'static str,
    pub(crate) runs: usize,
    /// Runs within each limit.
    pub(crate) runs_held: usize,
    /// Figures with a limit of zero that exceeded it in a run.
    pub(crate) above_zero: Vec<&'static str>,
    /// Enough runs held.
    pub(crate) held: bool,
    /// Figures with a limit.
    pub(crate) spread: BTreeMap<&'static str, Spread>,
}

/// A figure over the runs.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl RowRuns {
    /// `None` without a run.
    pub(crate) fn of(runs: &[RowReport]) -> Option<RowRuns> {
        let first = runs.first()?;
        let runs_held = runs.iter().filter(|run| run.held).count();
        let mut spread = BTreeMap::new();
        let mut above_zero = Vec::new();
        for (name, limit) in &first.limits {
            let Some(figures) = Spread::of(runs.iter().filter_map(|run| run.figures.get(name)))
            else {
                continue;
            };
            if *limit == 0.0 && figures.most > 0.0 {
                above_zero.push(*name);
            }
            spread.insert(*name, figures);
        }
        let enough = (runs.len() - runs_held) * 100 <= runs.len() * MAY_EXCEED_PERCENT;
        let held = enough && above_zero.is_empty();
        Some(RowRuns { id: first.id, runs: runs.len(), runs_held, above_zero, held, spread })
    }
}

impl Spread {
    fn of<'a>(figures: impl Iterator<Item = &'a f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.copied().collect();
        figures.sort_unstable_by(f64::total_cmp);
        let median = *figures.get(figures.len().saturating_sub(1) / 2)?;
        Some(Spread { least: *figures.first()?, median, most: *figures.last()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;

    /// A run with this figure and this one of a limit of zero.
    fn run(held: bool, gap_ms: f64, lost: f64) -> RowReport {
        let mut run = RowReport::skipped(&rows::all()[0], String::new());
        run.held = held;
        run.limits = [("gap_ms", 45.0), ("lost", 0.0)].into();
        run.figures = [("gap_ms", gap_ms), ("lost", lost)].into();
        run
    }

    #[test]
    fn one_run_of_ten_may_exceed_a_time() {
        let mut runs = vec![run(true, 40.0, 0.0); 9];
        runs.push(run(false, 50.0, 0.0));
        let of = RowRuns::of(&runs).unwrap();
        assert_eq!((of.runs, of.runs_held, of.held), (10, 9, true));
        assert_eq!(of.spread["gap_ms"], Spread { least: 40.0, median: 40.0, most: 50.0 });
        runs.push(run(false, 51.0, 0.0));
        assert!(!RowRuns::of(&runs).unwrap().held);
    }

    #[test]
    fn no_run_may_exceed_zero() {
        let mut runs = vec![run(true, 40.0, 0.0); 19];
        runs.push(run(false, 40.0, 3.0));
        let of = RowRuns::of(&runs).unwrap();
        assert_eq!((of.above_zero, of.held), (vec!["lost"], false));
    }
}
