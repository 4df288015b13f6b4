//! The runs of a row until one is a measurement.

use std::ops::ControlFlow;

use evenkeel_lab::machine::Timeliness;

use crate::limits::Limits;
use crate::play::RowEnd;
use crate::report::{Played, RowPlayed, RowReport};
use crate::row::Row;

/// A machine that stalls for a moment is no reason to skip a row; one that stalls in each control run cannot measure it.
const CONTROL_TRIES: u32 = 3;

/// A row that is played until a run measures it. If its sessions leave too little of the processors idle, the row is not measured, and played
/// again with half of them under an id of its own: gateways, nodes and clients share the processors, and the gaps would be those of clients that
/// lag. A row whose control run exceeds a limit is played again, and not measured if it does each time.
pub(crate) struct Tries<'a> {
    asked: Row,
    /// The row of the next run.
    row: Row,
    limits: &'a Limits,
    may_halve: bool,
    /// Control runs that exceeded a limit.
    unfit: u32,
    /// Those of earlier runs.
    reports: Vec<RowReport>,
}

impl<'a> Tries<'a> {
    pub(crate) fn begin(asked: Row, limits: &'a Limits, may_halve: bool) -> Tries<'a> {
        Tries { asked, row: asked, limits, may_halve, unfit: 0, reports: Vec::new() }
    }

    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    pub(crate) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// The next row with fewer sessions, if the machine is busy.
    fn halved(&self) -> Option<Row> {
        self.row.halved().filter(|_| self.may_halve)
    }

    /// The idle time of the processors in the control run, per cent, below which the row ends before its faults.
    pub(crate) fn busy_at(&self) -> f64 {
        self.halved().map_or(0.0, |_| self.limits.idle_min())
    }

    /// The next try after a run, or the reports of all runs.
    pub(crate) fn after(
        mut self,
        outcome: Result<RowEnd, String>,
        played: Played,
        machine: Timeliness,
    ) -> ControlFlow<Vec<RowReport>, Tries<'a>> {
        let Tries { asked, row, limits, .. } = self;
        let id = row.report_id();
        let outcome = match (outcome, self.halved()) {
            (Ok(RowEnd::Busy), Some(halved)) => {
                let (sessions, idle) = (row.sessions, played.control.idle_percent);
                let reason =
                    format!("{sessions} sessions leave {idle:.0} % of the processors idle");
                println!("{id}: {reason}; again with {}", halved.sessions);
                if self.reports.is_empty() {
                    let control = played.control;
                    self.reports.push(RowReport::not_measured(&asked, limits, control, reason));
                }
                self.row = halved;
                return ControlFlow::Continue(self);
            }
            (Ok(RowEnd::Unfit(reason)), _) => {
                self.unfit += 1;
                if self.unfit < CONTROL_TRIES {
                    println!("{id}: {reason}; again");
                    return ControlFlow::Continue(self);
                }
                let control = played.control;
                self.reports.push(RowReport::not_measured(&row, limits, control, reason));
                return ControlFlow::Break(self.reports);
            }
            (outcome, _) => outcome.map(drop),
        };
        let run = RowPlayed { row: &row, limits, machine, outcome };
        self.reports.push(RowReport::new(run, played));
        ControlFlow::Break(self.reports)
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_report::LimitTable;

    use crate::rows;

    use super::*;

    /// The id and the reason of each report after these runs.
    fn reports(may_halve: bool, runs: Vec<RowEnd>) -> Vec<(String, Option<String>)> {
        let row = rows::all().into_iter().find(|row| row.id == "gateway.kill").unwrap();
        let limits = Limits::default();
        let mut tries = Tries::begin(row, &limits, may_halve);
        for run in runs {
            match tries.after(Ok(run), Played::default(), Timeliness::default()) {
                ControlFlow::Continue(next) => tries = next,
                ControlFlow::Break(reports) => {
                    let rows = reports.into_iter().map(|report| report.row);
                    return rows.map(|row| (row.id, row.not_measured)).collect();
                }
            }
        }
        panic!("a run is due");
    }

    fn unfit() -> RowEnd {
        RowEnd::Unfit("slow".to_owned())
    }

    #[test]
    fn busy_row_is_played_with_half_of_its_sessions() {
        let busy = "500 sessions leave 0 % of the processors idle".to_owned();
        let both = [
            ("gateway.kill".to_owned(), Some(busy.clone())),
            ("gateway.kill@250".to_owned(), None),
        ];
        assert_eq!(reports(true, vec![RowEnd::Busy, RowEnd::Played]), both);
        let thrice = vec![RowEnd::Busy, RowEnd::Busy, RowEnd::Played];
        let both = [("gateway.kill".to_owned(), Some(busy)), ("gateway.kill@125".to_owned(), None)];
        assert_eq!(reports(true, thrice), both);
    }

    #[test]
    fn row_with_three_unfit_controls_is_not_measured() {
        let unfit_row = [("gateway.kill".to_owned(), Some("slow".to_owned()))];
        assert_eq!(reports(false, vec![unfit(), unfit(), unfit()]), unfit_row);
        let measured = [("gateway.kill".to_owned(), None)];
        assert_eq!(reports(false, vec![unfit(), unfit(), RowEnd::Played]), measured);
        assert_eq!(reports(true, vec![RowEnd::Busy, unfit(), unfit(), unfit()]).len(), 2);
    }

    #[test]
    fn row_without_a_smaller_one_is_never_too_busy() {
        let all = rows::all();
        let ids: Vec<&str> = all.iter().map(|row| row.id).collect();
        let table = LimitTable::load().unwrap().rows_of("chaos", &ids).unwrap();
        let row = all.into_iter().find(|row| row.id == "gateway.kill").unwrap();
        let limits = Limits::of(&row, &table);
        let busy_at = |may_halve| Tries::begin(row, &limits, may_halve).busy_at();
        assert_eq!((busy_at(true), busy_at(false)), (25.0, 0.0));
    }
}
