//! Runs the rows by stage, so that relays are started once per stage.

use std::collections::{BTreeMap, BTreeSet};

use crate::namespace::First;
use crate::relay::{self, Kind, Places, Running, Stage};
use crate::report::{ByRelay, Figures, Ratio, RowReport};
use crate::rounds::{self, Effort};
use crate::row::Row;
use crate::table;

/// Numbers of sessions at which floor, limit and peers are also measured.
const COMPARED: [usize; 2] = [100, 1_000];

impl Row {
    fn stage(&self) -> Stage {
        let Row { leg, destinations, sessions, srtp, .. } = *self;
        Stage { leg, destinations, sessions, srtp, obeys_caps: false }
    }
}

/// Measures these rows with these relays. Rows are returned in the order of their stages; those so far are passed to
/// `save` after each stage, since a long run may be interrupted.
///
/// # Errors
/// A measurement or `save` failed.
pub(crate) fn rows(
    rows: &[Row],
    relays: &[Kind],
    places: &Places,
    effort: Effort,
    mut save: impl FnMut(&[RowReport]) -> Result<(), String>,
) -> Result<Vec<RowReport>, String> {
    let mut reports = Vec::new();
    let stages: BTreeSet<Stage> = rows.iter().map(Row::stage).collect();
    for stage in stages {
        let mut running = start(stage, relays, places)?;
        let _first = First::come();
        for row in rows.iter().filter(|row| row.stage() == stage) {
            let figures = loop {
                match rounds::measure(row, &mut running, effort) {
                    Ok(figures) => break figures,
                    // If a peer has ended, the row is repeated without it.
                    Err(why) => match running.iter_mut().position(Running::is_dead_peer) {
                        Some(at) => println!("skipped {}: {why}", running.remove(at).kind.name()),
                        None => return Err(why),
                    },
                }
            };
            let names = running.iter().map(|running| running.kind.name().to_owned());
            let report = report(row, names.zip(figures).collect());
            table::row(row, &report);
            reports.push(report);
        }
        save(&reports)?;
    }
    Ok(reports)
}

fn start(stage: Stage, relays: &[Kind], places: &Places) -> Result<Vec<Running>, String> {
    let mut running = Vec::new();
    // The gateway starts last, so that its nodes answer its probes from the start.
    for &kind in relays.iter().rev().filter(|kind| belongs(**kind, stage)) {
        match relay::start(kind, stage, places) {
            Ok(one) => running.push(one),
            // A peer that does not start is skipped.
            Err(why) if kind.is_peer() => println!("skipped {}: {why}", kind.name()),
            Err(why) => return Err(why),
        }
    }
    running.reverse();
    Ok(running)
}

/// Comparisons are made at 100 and 1,000 sessions. Peers use port legs in every stage.
fn belongs(kind: Kind, stage: Stage) -> bool {
    let is_compared = COMPARED.contains(&stage.sessions);
    kind == Kind::Ours || is_compared && (stage.srtp.is_none() || kind.has_srtp())
}

fn report(row: &Row, each: BTreeMap<String, Figures>) -> RowReport {
    let mut report = RowReport::new(row);
    report.cpu_ns = each.iter().map(|(name, figures)| (name.clone(), figures.cpu_ns)).collect();
    report.ratio = compared(&report.cpu_ns);
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

/// The gateway's cost divided by that of the others.
fn compared(cpu_ns: &ByRelay) -> Ratio {
    let of = |kind: Kind| cpu_ns.get(kind.name()).copied();
    let against = |other: Option<f64>| of(Kind::Ours).zip(other).map(|(ours, other)| ours / other);
    let peers = Kind::ALL.into_iter().filter(|kind| kind.is_peer());
    Ratio {
        floor: against(of(Kind::Floor)),
        limit: against(of(Kind::Limit)),
        best_peer: against(peers.filter_map(of).min_by(f64::total_cmp)),
        quinn_echo: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Leg;

    fn measured(leg: Leg, figures: &[(&str, f64)]) -> RowReport {
        let figure = |cpu_ns| Figures { cpu_ns, ..Figures::default() };
        let each = figures.iter().map(|(name, ns)| ((*name).to_owned(), figure(*ns))).collect();
        report(&Row::base(leg), each)
    }

    #[test]
    fn relays_without_srtp_take_no_part_in_its_rows() {
        let row = Row { srtp: Some(crate::row::Suite::Gcm), ..Row::base(Leg::Port) };
        let kinds = Kind::ALL.into_iter().filter(|kind| belongs(*kind, row.stage()));
        assert!(kinds.eq([Kind::Ours, Kind::Rtpengine]));
        assert!(Kind::ALL.into_iter().all(|kind| belongs(kind, Row::base(Leg::Port).stage())));
    }

    #[test]
    fn row_is_compared_with_measured_relays() {
        let all = [
            ("ours", 100.0),
            ("floor", 400.0),
            ("limit", 80.0),
            ("nginx", 500.0),
            ("envoy", 250.0),
        ];
        let ratio = measured(Leg::Trunk, &all).ratio;
        assert_eq!(
            (ratio.floor, ratio.limit, ratio.best_peer),
            (Some(0.25), Some(1.25), Some(0.4))
        );
        let ratio = measured(Leg::Port, &[("ours", 300.0), ("floor", 600.0)]).ratio;
        assert_eq!((ratio.floor, ratio.limit, ratio.best_peer), (Some(0.5), None, None));
        let ratio = measured(Leg::Port, &[("nginx", 500.0)]).ratio;
        assert_eq!(ratio.best_peer, None, "the gateway was not measured");
    }
}
