//! The rows of the report: figures with the limits of `tests/limits.toml`. A figure that was not measured is null.

use evenkeel_media::srtp::SrtpProfile;
use evenkeel_report::{AcceptanceRow, FigureLimit, LimitTable, RowLimits};

use crate::report::{Overload, OverloadLeg, Report, RowReport, TelemetryCost, WebrtcSetUp};
use crate::row::{Direction, Leg, Load, Path};
use crate::srtp;

/// The figure of each row: the worst that was measured for its limit.
const WORST: &str = "worst";

/// Prints each row and whether it is within its limit.
pub(crate) fn print(rows: &[AcceptanceRow]) {
    if !rows.is_empty() {
        println!("limits");
    }
    for row in rows.iter().filter(|row| row.figure(WORST).is_some()) {
        let bound = |(name, limit): (&String, &f64)| {
            let word = if name == WORST { "at most" } else { "at least" };
            format!("({word} {})", figure(*limit))
        };
        let bound = row.limits.iter().map(bound).collect::<String>();
        let found = row.figure(WORST).map_or("-".to_owned(), figure);
        println!("  {:<10} {:<72} {found:>10} {bound}", row.word(), row.id);
    }
}

/// Formats a figure with enough digits to compare.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

/// Rows of one group of limits.
struct GroupRows<'a> {
    limits: RowLimits,
    rows: &'a mut Vec<AcceptanceRow>,
}

impl GroupRows<'_> {
    /// Adds the row of a figure.
    fn add(&mut self, id: &str, key: &str, found: Option<f64>) {
        self.add_scaled(id, key, 1.0, found);
    }

    /// `scale`: this many of the figure's unit are one of the limit's.
    fn add_scaled(&mut self, id: &str, key: &str, scale: f64, found: Option<f64>) {
        let mut row = AcceptanceRow::new(id);
        row.set_figure(WORST, found);
        row.limit_scaled(WORST, &self.limits, key, scale);
        row.judge();
        self.rows.push(row);
    }

    /// Adds the row of the worst of many measurements, with the title of that one.
    fn add_worst(
        &mut self,
        id: &str,
        key: &str,
        measured: &[RowReport],
        figure: impl Fn(&RowReport) -> Option<f64>,
    ) {
        let figures = measured.iter().filter_map(|row| Some((figure(row)?, row)));
        let is_least = self.limits.get(key).is_some_and(FigureLimit::is_least);
        let worst =
            figures.max_by(
                |(one, _), (other, _)| {
                    if is_least { other.total_cmp(one) } else { one.total_cmp(other) }
                },
            );
        match worst {
            Some((found, row)) => self.add(&format!("{id} [{}]", row.title()), key, Some(found)),
            None => self.add(id, key, None),
        }
    }
}

/// The rows of all figures.
///
/// # Errors
/// The table lacks a group of limits.
pub(crate) fn judge(report: &Report, table: &LimitTable) -> Result<Vec<AcceptanceRow>, String> {
    let mut rows = Vec::new();
    let mut in_group = |group: &str, add: &dyn Fn(&mut GroupRows<'_>)| -> Result<(), String> {
        let limits = table.group("bench", Some(group))?;
        add(&mut GroupRows { limits, rows: &mut rows });
        Ok(())
    };
    in_group("packet", &|packet| add_packets(packet, &report.rows))?;
    in_group("delay", &|delay| add_delays(delay, &report.rows))?;
    in_group("quic", &|quic| {
        let id = "QUIC, of quinn's own echo and the floor";
        quic.add_worst(id, "of_echo_and_floor", &report.rows, |row| row.ratio.quinn_echo);
    })?;
    in_group("packet", &|packet| {
        let loss = report.loss_at_best_peer_limit;
        let id = "loss where the best peer begins to lose";
        packet.add(id, "loss_where_peer_begins_to_lose", loss);
    })?;
    in_group("overload", &|rows| add_overload(rows, report.overload.as_ref()))?;
    in_group("code", &|code| {
        code.add("own code per packet, ns", "own_ns", report.forward_ns);
        code.add("allocations per packet", "allocations", report.forward_allocations);
    })?;
    in_group("srtp", &|srtp| add_srtp(srtp, report))?;
    in_group("webrtc", &|webrtc| add_webrtc(webrtc, report))?;
    in_group("scale", &|scale| {
        let memory = report.memory.as_ref();
        let per_session = memory.map(|m| m.per_session_bytes);
        scale.add("memory per idle session, bytes", "bytes_per_idle_session", per_session);
        let mib = memory.map(|m| m.rss_100k_mib);
        scale.add("memory of 100,000 sessions, MiB", "mib_at_100000", mib);
    })?;
    in_group("setup", &|setup| {
        let [core, http] = [report.setup_per_s.core, report.setup_per_s.http];
        setup.add("sessions set up by the core a second", "core_per_second", core);
        setup.add("sessions set up through the API a second", "http_per_second", http);
    })?;
    in_group("flip", &|flip| {
        let id = "look that condemns a node to the first packet on the second hop, µs";
        flip.add(id, "flip_us", report.flip_us);
    })?;
    in_group("start", &|start| {
        let id = "start of the process to the first packet forwarded, ms";
        start.add(id, "first_packet", report.start_ms);
    })?;
    in_group("scale", &|scale| {
        let id = "cost per packet with 100,000 sessions, of that with 1,000";
        scale.add(id, "growth_1000_to_100000", report.growth);
    })?;
    let limits = table.group("telemetry", None)?;
    add_telemetry(&mut GroupRows { limits, rows: &mut rows }, report.telemetry.as_ref());
    Ok(rows)
}

fn add_packets(packet: &mut GroupRows<'_>, rows: &[RowReport]) {
    let is_saturated_udp = |row: &RowReport| is_udp(row) && row.load == Load::Saturated;
    let is_busy_trunk = |row: &RowReport| {
        is_saturated_udp(row) && (row.leg, row.direction) == (Leg::Trunk, Direction::ToNode)
    };
    packet.add_worst("trunk, saturated, of the floor", "trunk_saturated_of_floor", rows, |row| {
        is_busy_trunk(row).then_some(row.ratio.floor).flatten()
    });
    packet.add_worst("trunk, saturated, of the best peer", "trunk_of_peer", rows, |row| {
        is_busy_trunk(row).then_some(row.ratio.best_peer).flatten()
    });
    packet.add_worst(
        "saturated, carried, of the floor",
        "saturated_carried_of_floor",
        rows,
        |row| {
            let carried = |relay: &str| Some(row.each.get(relay)?.pps);
            is_saturated_udp(row).then(|| Some(carried("ours")? / carried("floor")?)).flatten()
        },
    );
    packet.add_worst("of the limit", "of_limit", rows, |row| {
        is_udp(row).then_some(row.ratio.limit).flatten()
    });
    packet.add_worst("port legs, of the best peer", "port_of_peer", rows, |row| {
        (is_udp(row) && row.leg == Leg::Port).then_some(row.ratio.best_peer).flatten()
    });
}

fn add_delays(delay: &mut GroupRows<'_>, rows: &[RowReport]) {
    let is_paced = |row: &RowReport| is_udp(row) && row.load != Load::Saturated;
    let p50 = |row: &RowReport| row.delay_us.p50.filter(|_| is_paced(row));
    let p99 = |row: &RowReport| row.delay_us.p99.filter(|_| is_paced(row));
    // The floor's own p99, if it is longer than the limit.
    let allowed_us = |row: &RowReport, limit_ms: Option<f64>| {
        Some((limit_ms? * 1e3).max(floor_p99(row).unwrap_or(0.0)))
    };
    let [p50_ms, p99_ms] = ["p50_ms", "p99_ms"].map(|key| delay.limits.judged(key));
    delay.add_worst("delay p50, of 250 µs or the floor's p99", "p50_of_allowed", rows, |row| {
        Some(p50(row)? / allowed_us(row, p50_ms)?)
    });
    delay.add_worst("delay p99, of 500 µs or the floor's p99", "p99_of_allowed", rows, |row| {
        Some(p99(row)? / allowed_us(row, p99_ms)?)
    });
    delay.add_worst("delay p50, ms", "p50_ms", rows, |row| Some(p50(row)? / 1e3));
    delay.add_worst("delay p99, of the floor's p99", "p99_of_floor", rows, |row| {
        Some(p99(row)? / floor_p99(row)?)
    });
}

fn add_overload(rows: &mut GroupRows<'_>, overload: Option<&Overload>) {
    let legs = || overload.into_iter().flat_map(|overload| [&overload.port, &overload.trunk]);
    let worst = |figure: fn(&OverloadLeg) -> f64| legs().map(figure).max_by(f64::total_cmp);
    let least = legs().map(|leg| leg.least_share).min_by(f64::total_cmp);
    let kept = overload.map(Overload::kept);
    rows.add("goodput at three times the capacity, of the peak", "goodput_of_peak", kept);
    rows.add("overload: least of a session, of the mean", "least_share", least);
    rows.add("overload: nodes down", "nodes_down", worst(|leg| leg.condemned as f64));
    rows.add("overload: the API's longest answer, ms", "api_ms", worst(|leg| leg.api_ms));
    rows.add("overload: memory of the process, MiB", "rss_mib", worst(|leg| leg.rss_mib));
}

fn add_srtp(rows: &mut GroupRows<'_>, report: &Report) {
    let peer = report.srtp.as_ref().and_then(|srtp| srtp.libsrtp.as_deref());
    let with_openssl = peer.is_some_and(|peer| peer.contains("OpenSSL"));
    let of_libsrtp = if with_openssl { "of_libsrtp_openssl" } else { "of_libsrtp" };
    for profile in SrtpProfile::ALL {
        for row in srtp::row_names(profile) {
            let cost = report.srtp.as_ref().and_then(|srtp| srtp.rows.get(&row));
            let key = if row.contains("GCM") { "gcm_ns" } else { "cm_ns" };
            rows.add(&row, key, cost.map(|cost| cost.ours_ns));
            let ratio = cost.and_then(|cost| cost.ratio);
            rows.add(&format!("{row}, of libsrtp"), of_libsrtp, ratio);
        }
    }
    for (leg, key, id) in [
        (Leg::Port, "port_leg_of_rtpengine", "SRTP clients, port legs, saturated, of rtpengine"),
        (Leg::Trunk, "trunk_leg_of_rtpengine", "SRTP clients, trunk, saturated, of rtpengine"),
    ] {
        rows.add_worst(id, key, &report.rows, |row| {
            (row.srtp.is_some() && row.leg == leg).then_some(row.ratio.best_peer).flatten()
        });
    }
}

fn add_webrtc(rows: &mut GroupRows<'_>, report: &Report) {
    let setup = |figure: fn(&WebrtcSetUp) -> f64| report.webrtc.map(|cost| figure(&cost.setup));
    let per_s = setup(|setup| setup.per_processor_s);
    rows.add("webrtc.setup: set-ups a second of processor time", "setups_per_second", per_s);
    let p50_ms = setup(|setup| setup.first_packet_ms.p50);
    let id = "webrtc.setup: offer to the first packet at the node p50, ms";
    rows.add(id, "first_packet_p50", p50_ms);
    let p99_ms = setup(|setup| setup.first_packet_ms.p99);
    let id = "webrtc.setup: offer to the first packet at the node p99, ms";
    rows.add(id, "first_packet_p99", p99_ms);
    let handshakes = report.webrtc.map(|cost| cost.handshakes);
    let complete = handshakes.map(|handshakes| handshakes.complete as f64);
    rows.add("webrtc.handshakes: complete of 1,000 at once", "handshakes_complete", complete);
    let change_ms = handshakes.map(|handshakes| handshakes.change_ms());
    let id = "webrtc.handshakes: change of the delay p99 of other media, ms";
    rows.add(id, "delay_p99_change_at_1000_handshakes", change_ms);
}

fn add_telemetry(rows: &mut GroupRows<'_>, cost: Option<&TelemetryCost>) {
    let percent = 100.0;
    let figure = |figure: fn(&TelemetryCost) -> f64| cost.map(figure);
    let healthy = figure(TelemetryCost::healthy_percent);
    let id = "telemetry of 10,000 sessions with 1 % of the traces, % of a core";
    rows.add_scaled(id, "sampled_1_percent_core", percent, healthy);
    let failing = figure(TelemetryCost::failing_percent);
    let id = "telemetry: a dead or slow receiver, % of a core beyond that";
    rows.add_scaled(id, "dead_receiver_core", percent, failing);
    let mib = figure(TelemetryCost::failing_mib);
    rows.add("telemetry: memory for a dead or slow receiver, MiB", "dead_receiver_mib", mib);
    let list_ms = figure(TelemetryCost::slowest_list_ms);
    rows.add("slowest list of 10,000 sessions with all pages, ms", "list_ms", list_ms);
}

fn is_udp(row: &RowReport) -> bool {
    row.name == Path::UdpUdp && row.srtp.is_none() && [100, 1_000].contains(&row.sessions)
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
    use std::collections::BTreeSet;

    use evenkeel_report::earlier_rows;

    use super::*;
    use crate::row::{Row, Suite};

    fn judged(report: &Report) -> Vec<AcceptanceRow> {
        judge(report, &LimitTable::load().unwrap()).unwrap()
    }

    /// The figure and the verdict of each row whose id begins so.
    fn found(rows: Vec<RowReport>, id: &str) -> Vec<(f64, bool)> {
        let mut rows = judged(&Report { rows, ..Report::default() });
        rows.retain(|row| row.id.starts_with(id));
        rows.iter().map(|row| (row.figure(WORST).unwrap(), row.held.unwrap())).collect()
    }

    #[test]
    fn each_limit_of_the_table_has_a_row() {
        let code = include_str!("targets.rs").split("#[cfg(test)]").next().unwrap();
        let table = LimitTable::load().unwrap();
        for section in ["bench", "telemetry"] {
            for (group, limits) in table.entries(section) {
                for (key, _) in limits.iter() {
                    assert!(code.contains(&format!("\"{key}\"")), "{section}.{group}: {key}");
                }
            }
        }
    }

    fn trunk(floor: f64) -> RowReport {
        let row = Row { load: Load::Saturated, ..Row::base(Leg::Trunk) };
        let mut report = RowReport::new(&row);
        report.ratio.floor = Some(floor);
        report
    }

    #[test]
    fn a_target_is_judged_by_its_worst_row() {
        let id = "trunk, saturated, of the floor";
        assert_eq!(found(vec![trunk(0.3), trunk(0.41), trunk(0.2)], id), [(0.41, false)]);
        assert_eq!(found(vec![trunk(0.4)], id), [(0.4, true)]);
    }

    #[test]
    fn lower_bound_is_judged_by_the_least() {
        let carried = |ours: f64| {
            let mut row = trunk(0.1);
            for (relay, pps) in [("ours", ours), ("floor", 100.0)] {
                let figures = crate::report::Figures { pps, ..Default::default() };
                row.each.insert(relay.to_owned(), figures);
            }
            row
        };
        let id = "saturated, carried, of the floor";
        assert_eq!(found(vec![carried(84.0), carried(90.0)], id), [(0.84, false)]);
        assert_eq!(found(vec![carried(85.0)], id), [(0.85, true)]);
    }

    #[test]
    fn srtp_row_is_judged_by_its_own_target() {
        let srtp = Some(Suite::Gcm);
        let mut row = RowReport::new(&Row { load: Load::Saturated, srtp, ..Row::base(Leg::Port) });
        row.ratio.best_peer = Some(0.75);
        let id = "SRTP clients, port legs, saturated, of rtpengine";
        assert_eq!(
            found(vec![row.clone()], id),
            [(0.75, false)],
            "port legs without SRTP have 0.8"
        );
        row.ratio.best_peer = Some(0.7);
        assert_eq!(found(vec![row], id), [(0.7, true)]);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let rows = judged(&Report::default());
        let is_null = |row: &AcceptanceRow| row.figures.get(WORST) == Some(&None);
        assert!(rows.iter().all(|row| is_null(row) && row.held.is_none()), "{rows:?}");
        let rows = judged(&Report { start_ms: Some(51.0), ..Report::default() });
        let held: Vec<bool> = rows.iter().filter_map(|row| row.held).collect();
        assert_eq!(held, [false]);
    }

    #[test]
    fn each_row_of_a3d43ed3_is_there() {
        let rows = judged(&Report::default());
        let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let earlier = ["bench", "telemetry"].into_iter().flat_map(earlier_rows);
        // The templates of that commit.
        let is_template = |row: &str| row.contains('{');
        let gone: Vec<&str> =
            earlier.filter(|row| !is_template(row) && !ids.contains(row)).collect();
        assert!(gone.is_empty(), "{gone:?}");
        let of_srtp = |end: &str| {
            ids.iter().filter(|id| id.starts_with("srtp.") && id.ends_with(end)).count()
        };
        assert_eq!((of_srtp("protect"), of_srtp(", of libsrtp")), (10, 10));
    }

    #[test]
    fn telemetry_is_judged_by_its_worse_receiver() {
        let cost = TelemetryCost {
            core_percent: [("off", 5.0), ("healthy", 6.5), ("dead", 6.0), ("slow", 8.0)].into(),
            grown_mib: [("off", 3.0), ("dead", 12.0), ("slow", 11.0)].into(),
            list_ms: [("nodes", 1.0), ("sessions", 90.0)].into(),
        };
        let judged = judged(&Report { telemetry: Some(cost), ..Report::default() });
        let found = judged.iter().filter_map(|row| Some((row.figure(WORST)?, row.held?)));
        let found: Vec<(f64, bool)> = found.collect();
        assert_eq!(found, [(1.5, true), (1.5, false), (9.0, true), (90.0, true)]);
    }

    #[test]
    fn slow_floor_relaxes_the_delay_target() {
        let mut row = RowReport::new(&Row::base(Leg::Port));
        row.delay_us.p99 = Some(900.0);
        let id = "delay p99, of 500";
        assert!(!found(vec![row.clone()], id)[0].1);
        let mut floor = crate::report::Figures::default();
        floor.delay_us.p99 = Some(901.0);
        row.each.insert("floor".to_owned(), floor);
        assert!(found(vec![row], id)[0].1);
    }
}
