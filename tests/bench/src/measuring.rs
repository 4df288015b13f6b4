//! Goes through the rows, a stage at a time: relays are set up once for all rows of a stage.

use std::collections::{BTreeMap, BTreeSet};

use crate::namespace::First;
use crate::relay::{self, Kind, Places, Running, Stage};
use crate::report::{Figures, RowReport};
use crate::rounds::{self, Effort};
use crate::row::Row;
use crate::table;

/// Sessions with which floor, limit and peers are measured too.
const COMPARED: [usize; 2] = [100, 1_000];

impl Row {
    fn stage(&self) -> Stage {
        let Row { leg, destinations, sessions, .. } = *self;
        Stage { leg, destinations, sessions }
    }
}

/// Measures these rows with these relays. Rows come back in the order of their stages.
///
/// # Errors
/// What could not be measured, in a sentence.
pub(crate) fn rows(
    rows: &[Row],
    relays: &[Kind],
    places: &Places,
    effort: Effort,
) -> Result<Vec<RowReport>, String> {
    let mut reports = Vec::new();
    let stages: BTreeSet<Stage> = rows.iter().map(Row::stage).collect();
    for stage in stages {
        let mut running = start(stage, relays, places)?;
        let _first = First::come();
        for row in rows.iter().filter(|row| row.stage() == stage) {
            let figures = rounds::measure(row, &mut running, effort)?;
            let names = running.iter().map(|running| running.kind.name().to_owned());
            let report = report(row, names.zip(figures).collect());
            table::row(row, &report);
            reports.push(report);
        }
    }
    compare(&mut reports);
    Ok(reports)
}

fn start(stage: Stage, relays: &[Kind], places: &Places) -> Result<Vec<Running>, String> {
    let mut running = Vec::new();
    // Ours last: from then on its nodes answer it all the time, and it has no reason to think them dead.
    for &kind in relays.iter().rev().filter(|kind| belongs(**kind, stage)) {
        match relay::start(kind, stage, places) {
            Ok(one) => running.push(one),
            // Somebody else's that does not come up is no reason to measure nothing.
            Err(why) if kind.is_peer() => println!("skipped {}: {why}", kind.name()),
            Err(why) => return Err(why),
        }
    }
    running.reverse();
    Ok(running)
}

/// Whether a relay is measured there: peers have port legs, and what is compared is compared at 100 and 1,000.
fn belongs(kind: Kind, stage: Stage) -> bool {
    let is_compared = COMPARED.contains(&stage.sessions);
    kind == Kind::Ours || (is_compared && (!kind.is_peer() || stage.leg == crate::row::Leg::Port))
}

fn report(row: &Row, each: BTreeMap<String, Figures>) -> RowReport {
    let mut report = RowReport::new(row);
    report.cpu_ns = each.iter().map(|(name, figures)| (name.clone(), figures.cpu_ns)).collect();
    report.misdelivered = each.values().map(|figures| figures.misdelivered).sum();
    if let Some(ours) = each.get(Kind::Ours.name()) {
        report.other_end_ns = ours.other_end_ns;
        report.delay_us = ours.delay_us;
        report.loss = Some(ours.loss);
        report.spread = Some(ours.spread);
    }
    report.each = each;
    report
}

/// Fills in the ratios; rows of trunk legs are compared with what peers need for the same on port legs.
fn compare(reports: &mut [RowReport]) {
    let best: Vec<Option<f64>> = reports.iter().map(|report| best_peer(report, reports)).collect();
    for (report, best) in reports.iter_mut().zip(best) {
        let ours = report.cpu_ns.get(Kind::Ours.name()).copied();
        let against = |other: Option<f64>| ours.zip(other).map(|(ours, other)| ours / other);
        let of = |kind: Kind| report.cpu_ns.get(kind.name()).copied();
        report.ratio.floor = against(of(Kind::Floor));
        report.ratio.limit = against(of(Kind::Limit));
        report.ratio.best_peer = against(best);
    }
}

fn best_peer(report: &RowReport, reports: &[RowReport]) -> Option<f64> {
    let same = |other: &&RowReport| {
        other.name == report.name
            && other.leg == crate::row::Leg::Port
            && other.load == report.load
            && other.direction == report.direction
            && other.destinations == report.destinations
            && other.sessions == report.sessions
            && other.sizes == report.sizes
    };
    let peers = Kind::ALL.into_iter().filter(|kind| kind.is_peer());
    let there = reports.iter().find(same)?;
    peers.filter_map(|peer| there.cpu_ns.get(peer.name()).copied()).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Leg, Load};

    fn measured(leg: Leg, figures: &[(&str, f64)]) -> RowReport {
        let figure = |cpu_ns| Figures { cpu_ns, ..Figures::default() };
        let each = figures.iter().map(|(name, ns)| ((*name).to_owned(), figure(*ns))).collect();
        report(&Row::base(leg), each)
    }

    #[test]
    fn trunk_legs_are_compared_with_the_port_legs_of_the_best_peer() {
        let mut reports = [
            measured(Leg::Trunk, &[("ours", 100.0), ("floor", 400.0), ("limit", 80.0)]),
            measured(Leg::Port, &[("ours", 300.0), ("floor", 600.0), ("nginx", 500.0)]),
        ];
        compare(&mut reports);
        let [trunk, port] = &reports;
        assert_eq!(trunk.ratio.floor, Some(0.25));
        assert_eq!(trunk.ratio.limit, Some(1.25));
        assert_eq!(trunk.ratio.best_peer, Some(0.2));
        assert_eq!((port.ratio.floor, port.ratio.limit), (Some(0.5), None));
        assert_eq!(port.ratio.best_peer, Some(0.6));
    }

    #[test]
    fn a_row_without_a_peer_at_its_load_has_no_such_ratio() {
        let mut other = measured(Leg::Port, &[("nginx", 500.0)]);
        other.load = Load::Saturated;
        let mut reports = [measured(Leg::Trunk, &[("ours", 100.0)]), other];
        compare(&mut reports);
        assert_eq!(reports[0].ratio.best_peer, None);
        assert_eq!(reports[1].ratio.best_peer, None, "ours was not measured");
    }
}
