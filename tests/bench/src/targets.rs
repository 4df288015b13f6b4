//! The targets and whether they are met. A figure that was not measured is not judged.

use std::collections::BTreeMap;

use evenkeel_report::AcceptanceRow;

use crate::report::{Overload, OverloadLeg, Report, RowReport, TelemetryCost, WebrtcSetUp};
use crate::row::{Direction, Leg, Load, Path};

/// A target and the worst figure that was measured for it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Judged {
    what: String,
    found: f64,
    target: Target,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Judged {
    /// The row of the report.
    pub(crate) fn row(&self) -> AcceptanceRow {
        let (limit, bound) = match self.target {
            Target::AtMost(most) => ("worst", most),
            Target::AtLeast(least) => ("worst_min", least),
        };
        let map = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        AcceptanceRow::measured(&self.what, map("worst", self.found), map(limit, bound))
    }

    fn is_met(&self) -> bool {
        self.row().held
    }
}

/// Prints each target and whether it is met.
pub(crate) fn print(report: &Report) {
    let judged = judge(report);
    if judged.is_empty() {
        return;
    }
    println!("targets");
    for one in judged {
        let (word, bound) = match one.target {
            Target::AtMost(most) => ("at most", most),
            Target::AtLeast(least) => ("at least", least),
        };
        let mark = if one.is_met() { "met   " } else { "MISSED" };
        println!("  {mark} {:<72} {:>10} ({word} {})", one.what, figure(one.found), figure(bound));
    }
}

/// Formats a figure with enough digits to compare.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

/// Judges the figures that were measured.
pub(crate) fn judge(report: &Report) -> Vec<Judged> {
    let mut judged = rows(&report.rows);
    let mut add = |what: &str, found: Option<f64>, target| {
        let what = what.to_owned();
        judged.extend(found.map(|found| Judged { what, found, target }));
    };
    use Target::{AtLeast, AtMost};
    let memory = report.memory.as_ref();
    add("loss where the best peer begins to lose", report.loss_at_best_peer_limit, AtMost(0.0));
    let kept = report.overload.as_ref().map(Overload::kept);
    add("goodput at three times the capacity, of the peak", kept, AtLeast(0.9));
    let legs = || report.overload.iter().flat_map(|overload| [&overload.port, &overload.trunk]);
    let worst = |figure: fn(&OverloadLeg) -> f64| legs().map(figure).max_by(f64::total_cmp);
    let least = legs().map(|leg| leg.least_share).min_by(f64::total_cmp);
    add("overload: least of a session, of the mean", least, AtLeast(0.5));
    add("overload: nodes down", worst(|leg| leg.condemned as f64), AtMost(0.0));
    add("overload: the API's longest answer, ms", worst(|leg| leg.api_ms), AtMost(100.0));
    add("overload: memory of the process, MiB", worst(|leg| leg.rss_mib), AtMost(256.0));
    add("own code per packet, ns", report.forward_ns, AtMost(150.0));
    add("allocations per packet", report.forward_allocations, AtMost(0.0));
    for (row, cost) in report.srtp.iter().flat_map(|srtp| &srtp.rows) {
        let most = if row.contains("GCM") { 300.0 } else { 800.0 };
        add(row, Some(cost.ours_ns), AtMost(most));
        add(&format!("{row}, of libsrtp"), cost.ratio, AtMost(1.0));
    }
    let setup = |figure: fn(&WebrtcSetUp) -> f64| report.webrtc.map(|cost| figure(&cost.setup));
    let per_s = setup(|setup| setup.per_processor_s);
    add("webrtc.setup: set-ups a second of processor time", per_s, AtLeast(300.0));
    let p50_ms = setup(|setup| setup.first_packet_ms.p50);
    add("webrtc.setup: offer to the first packet at the node p50, ms", p50_ms, AtMost(60.0));
    let p99_ms = setup(|setup| setup.first_packet_ms.p99);
    add("webrtc.setup: offer to the first packet at the node p99, ms", p99_ms, AtMost(150.0));
    let handshakes = report.webrtc.map(|cost| cost.handshakes);
    let complete = handshakes.map(|handshakes| handshakes.complete as f64);
    add("webrtc.handshakes: complete of 1,000 at once", complete, AtLeast(1_000.0));
    let change_ms = handshakes.map(|handshakes| handshakes.change_ms());
    add("webrtc.handshakes: change of the delay p99 of other media, ms", change_ms, AtMost(2.0));
    add("memory per idle session, bytes", memory.map(|m| m.per_session_bytes), AtMost(1_400.0));
    add("memory of 100,000 sessions, MiB", memory.map(|m| m.rss_100k_mib), AtMost(256.0));
    add("sessions set up by the core a second", report.setup_per_s.core, AtLeast(20_000.0));
    add("sessions set up through the API a second", report.setup_per_s.http, AtLeast(3_000.0));
    add(
        "look that condemns a node to the first packet on the second hop, µs",
        report.flip_us,
        AtMost(1_000.0),
    );
    add("start of the process to the first packet forwarded, ms", report.start_ms, AtMost(150.0));
    add("cost per packet with 100,000 sessions, of that with 1,000", report.growth, AtMost(1.2));
    let telemetry = |figure: fn(&TelemetryCost) -> f64| report.telemetry.as_ref().map(figure);
    add(
        "telemetry of 10,000 sessions with 1 % of the traces, % of a core",
        telemetry(TelemetryCost::healthy_percent),
        AtMost(2.0),
    );
    add(
        "telemetry: a dead or slow receiver, % of a core beyond that",
        telemetry(TelemetryCost::failing_percent),
        AtMost(1.0),
    );
    add(
        "telemetry: memory for a dead or slow receiver, MiB",
        telemetry(TelemetryCost::failing_mib),
        AtMost(16.0),
    );
    add(
        "slowest list of 10,000 sessions with all pages, ms",
        telemetry(TelemetryCost::slowest_list_ms),
        AtMost(100.0),
    );
    judged
}

/// The targets of rows, each judged by its worst row.
fn rows(rows: &[RowReport]) -> Vec<Judged> {
    let mut judged = Vec::new();
    let mut worst = |what: &str, most: f64, figure: &dyn Fn(&RowReport) -> Option<f64>| {
        let figures = rows.iter().filter_map(|row| figure(row).map(|figure| (figure, row)));
        if let Some((found, row)) = figures.max_by(|one, other| one.0.total_cmp(&other.0)) {
            let what = format!("{what} [{}]", row.title());
            judged.push(Judged { what, found, target: Target::AtMost(most) });
        }
    };
    let is_udp = |row: &RowReport| {
        row.name == Path::UdpUdp && row.srtp.is_none() && [100, 1_000].contains(&row.sessions)
    };
    let is_busy_trunk = |row: &RowReport| {
        is_udp(row)
            && (row.leg, row.direction, row.load)
                == (Leg::Trunk, Direction::ToNode, Load::Saturated)
    };
    let is_port = |row: &RowReport| is_udp(row) && row.leg == Leg::Port;
    worst("trunk, saturated, of the floor", 0.4, &|row| {
        is_busy_trunk(row).then_some(row.ratio.floor).flatten()
    });
    worst("trunk, saturated, of the best peer", 0.35, &|row| {
        is_busy_trunk(row).then_some(row.ratio.best_peer).flatten()
    });
    worst("of the limit", 1.3, &|row| is_udp(row).then_some(row.ratio.limit).flatten());
    worst("port legs, of the best peer", 0.8, &|row| {
        is_port(row).then_some(row.ratio.best_peer).flatten()
    });
    for (leg, what) in [
        (Leg::Port, "SRTP clients, port legs, saturated, of rtpengine"),
        (Leg::Trunk, "SRTP clients, trunk, saturated, of rtpengine"),
    ] {
        worst(what, 0.7, &|row| {
            (row.srtp.is_some() && row.leg == leg).then_some(row.ratio.best_peer).flatten()
        });
    }
    let is_paced = |row: &RowReport| is_udp(row) && row.load != Load::Saturated;
    worst("delay p50, of 250 µs or the floor's p99", 1.0, &|row| {
        let ours = row.delay_us.p50.filter(|_| is_paced(row))?;
        Some(ours / 250.0_f64.max(floor_p99(row).unwrap_or(0.0)))
    });
    worst("delay p99, of 500 µs or the floor's p99", 1.0, &|row| {
        let ours = row.delay_us.p99.filter(|_| is_paced(row))?;
        Some(ours / 500.0_f64.max(floor_p99(row).unwrap_or(0.0)))
    });
    worst("QUIC, of quinn's own echo and the floor", 0.65, &|row| row.ratio.quinn_echo);
    judged
}

fn floor_p99(row: &RowReport) -> Option<f64> {
    row.each.get("floor")?.delay_us.p99
}

impl RowReport {
    /// The title of the measured row, as in [`Row::title`](crate::row::Row::title).
    fn title(&self) -> String {
        crate::row::Row {
            path: self.name,
            leg: self.leg,
            direction: self.direction,
            load: self.load,
            destinations: self.destinations,
            sessions: self.sessions,
            sizes: self.sizes,
            srtp: self.srtp,
        }
        .title()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Row, Suite};

    fn trunk(floor: f64) -> RowReport {
        let row = Row { load: Load::Saturated, ..Row::base(Leg::Trunk) };
        let mut report = RowReport::new(&row);
        report.ratio.floor = Some(floor);
        report
    }

    #[test]
    fn a_target_is_judged_by_its_worst_row() {
        let judged = rows(&[trunk(0.3), trunk(0.41), trunk(0.2)]);
        let [one] = &judged[..] else { panic!("{judged:?}") };
        assert_eq!((one.found, one.is_met()), (0.41, false));
        assert!(rows(&[trunk(0.4)])[0].is_met());
    }

    #[test]
    fn srtp_row_is_judged_by_its_own_target() {
        let srtp = Some(Suite::Gcm);
        let mut row = RowReport::new(&Row { load: Load::Saturated, srtp, ..Row::base(Leg::Port) });
        row.ratio.best_peer = Some(0.75);
        let judged = rows(&[row]);
        let [one] = &judged[..] else { panic!("{judged:?}") };
        assert_eq!(
            (one.found, one.is_met()),
            (0.75, false),
            "0.8 holds for port legs without SRTP"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(judge(&Report::default()), []);
        let judged = judge(&Report { start_ms: Some(151.0), ..Report::default() });
        assert_eq!((judged.len(), judged[0].is_met()), (1, false));
    }

    #[test]
    fn telemetry_is_judged_by_its_worse_receiver() {
        let cost = TelemetryCost {
            core_percent: [("off", 5.0), ("healthy", 6.5), ("dead", 6.0), ("slow", 8.0)].into(),
            grown_mib: [("off", 3.0), ("dead", 12.0), ("slow", 11.0)].into(),
            list_ms: [("nodes", 1.0), ("sessions", 90.0)].into(),
        };
        let judged = judge(&Report { telemetry: Some(cost), ..Report::default() });
        let found: Vec<(f64, bool)> = judged.iter().map(|one| (one.found, one.is_met())).collect();
        assert_eq!(found, [(1.5, true), (1.5, false), (9.0, true), (90.0, true)]);
    }

    #[test]
    fn slow_floor_relaxes_the_delay_target() {
        let mut row = RowReport::new(&Row::base(Leg::Port));
        row.delay_us.p99 = Some(900.0);
        assert!(!rows(&[row.clone()])[0].is_met());
        let mut floor = crate::report::Figures::default();
        floor.delay_us.p99 = Some(901.0);
        row.each.insert("floor".to_owned(), floor);
        assert!(rows(&[row])[0].is_met());
    }
}
