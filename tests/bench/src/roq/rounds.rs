//! Rows of RTP over QUIC: the gateway, quinn's echo and the floor in turn, by rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::{Direction as Way, Edge, Offer, Pace, Trace};
use crate::process::Metered;

use super::sessions::{self, Running};
use crate::namespace::First;
use crate::relay::{self, Kind, Places, Stage};
use crate::report::{Delay, Figures, RowReport};
use crate::rounds::{self, Effort, Sample};
use crate::row::{Direction, Leg, Row};
use crate::table;

/// Time before a relay is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// Name of quinn's echo in the report.
const ECHO: &str = "quinn-echo";

/// Measures these rows and their comparison.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    rows: &[Row],
    places: &Places,
    effort: Effort,
) -> Result<Vec<RowReport>, String> {
    let trace = Trace::voice().map_err(|error| error.to_string())?;
    let mut reports = Vec::new();
    let mut stages: Vec<(Leg, usize)> = rows.iter().map(|row| (row.leg, row.sessions)).collect();
    stages.dedup();
    for (leg, sessions) in stages {
        let stage = Stage { leg, destinations: 1, sessions, srtp: None, obeys_caps: false };
        let mut floor = relay::start(Kind::Floor, stage, places)?;
        let mut echo = sessions::echo(sessions, places)?;
        let mut ours = sessions::ours(leg, sessions, places)?;
        let _first = First::come();
        for row in rows.iter().filter(|row| (row.leg, row.sessions) == (leg, sessions)) {
            let mut samples: [Vec<Sample>; 3] = Default::default();
            for _ in 0..effort.rounds {
                samples[0].push(window(row.direction, &mut ours, || echo.load.idle(), effort)?);
                samples[1].push(window(Direction::Both, &mut echo, || ours.load.idle(), effort)?);
                samples[2].push(floor_window(row, &mut floor, &trace, effort, || {
                    ours.load.idle();
                    echo.load.idle();
                })?);
            }
            let report = report(row, samples.map(|samples| rounds::figures(&samples)));
            table::row(row, &report);
            reports.push(report);
        }
    }
    Ok(reports)
}

fn window(
    direction: Direction,
    running: &mut Running,
    mut others: impl FnMut(),
    effort: Effort,
) -> Result<Sample, String> {
    let Running { process, load } = running;
    load.run(direction, WARM_UP, &mut others);
    let sessions = load.sessions();
    let begin = process.processor_ns();
    let mut window = load.run(direction, effort.window, others);
    let cpu = process.processor_ns().saturating_sub(begin) as f64;
    process.must_run()?;
    let delay = Delay {
        p50: window.seen.delay_us(0.5),
        p99: window.seen.delay_us(0.99),
        p999: window.seen.delay_us(0.999),
    };
    Ok(Sample {
        cpu_ns: cpu / window.delivered.max(1) as f64,
        pps: window.delivered as f64 / window.seconds,
        offered: window.sent as f64 / window.seconds,
        busy: cpu / (window.seconds * 1e9),
        loss: 1.0 - window.seen.came as f64 / window.sent.max(1) as f64,
        delay,
        other_end_ns: None,
        misdelivered: window.misdelivered,
        moved: 0,
        least_share: window.seen.least_share(sessions),
    })
}

/// Measures the floor towards the node at the row's packet rate.
fn floor_window(
    row: &Row,
    floor: &mut relay::Running,
    trace: &Trace,
    effort: Effort,
    mut others: impl FnMut(),
) -> Result<Sample, String> {
    let crate::row::Load::Paced(rate) = row.load else {
        return Err("rows of RTP over QUIC have a pace".to_owned());
    };
    let offer = Offer {
        direction: Way::ToNode,
        pace: Pace::Rate(rate.into()),
        trace,
        warm_up: WARM_UP,
        length: effort.window,
    };
    let mut edges = [0; 2];
    let process = &floor.process;
    let edge = |edge| match edge {
        Edge::Begin => edges[0] = process.processor_ns(),
        Edge::End => edges[1] = process.processor_ns(),
    };
    let others = || {
        others();
        Ok(())
    };
    let window = floor.rig.run(&offer, others, edge).map_err(|error| error.to_string())?;
    Ok(rounds::sample(window, floor.rig.sessions(), edges))
}

fn report(row: &Row, [ours, echo, floor]: [Figures; 3]) -> RowReport {
    let mut report = RowReport::new(row);
    let names = [Kind::Ours.name(), ECHO, Kind::Floor.name()];
    let each: BTreeMap<String, Figures> =
        names.map(str::to_owned).into_iter().zip([ours, echo, floor]).collect();
    report.cpu_ns = each.iter().map(|(name, figures)| (name.clone(), figures.cpu_ns)).collect();
    report.ratio.quinn_echo = against_echo(row.direction, ours.cpu_ns, echo.cpu_ns, floor.cpu_ns);
    report.delay_us = ours.delay_us;
    report.loss = Some(ours.loss);
    report.misdelivered = each.values().map(|figures| figures.misdelivered).sum();
    report.spread = Some(ours.spread);
    report.each = each;
    report
}

/// The gateway's cost per round trip of two packets, divided by that of an echoed datagram and a forwarded packet.
fn against_echo(direction: Direction, ours: f64, echo: f64, floor: f64) -> Option<f64> {
    (direction == Direction::Both).then(|| 2.0 * ours / (echo + floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_is_compared_with_echo_and_forward() {
        assert_eq!(against_echo(Direction::Both, 4_000.0, 12_000.0, 8_000.0), Some(0.4));
        assert_eq!(against_echo(Direction::ToNode, 4_000.0, 12_000.0, 8_000.0), None);
    }
}
