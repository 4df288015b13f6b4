//! The printed table of a report, with the limit of each figure.

use std::collections::BTreeMap;

use evenkeel_report::AcceptanceRow;

use super::report::{Hostile, Latency, Report, Tail};

/// A line of the table: name, Wasm, native, limit.
type Line = (&'static str, Option<f64>, Option<f64>, Option<f64>);

impl Report {
    /// Prints each figure beside its native counterpart and its target.
    pub(crate) fn print(&self) {
        println!("{:<58} {:>10} {:>10} {:>7} {:>9}", "", "Wasm", "native", "ratio", "limit");
        for (what, wasm, native, most) in self.lines() {
            let Some(wasm) = wasm else { continue };
            let shown = |value: Option<f64>| value.map_or_else(String::new, figure);
            let ratio = native.map_or_else(String::new, |native| format!("{:.1}", wasm / native));
            let judged = match most {
                None => "",
                Some(most) if wasm <= most => "held",
                Some(_) => "MISSED",
            };
            println!(
                "{what:<58} {:>10} {:>10} {ratio:>7} {:>9} {judged}",
                figure(wasm),
                shown(native),
                shown(most)
            );
        }
    }

    /// The measured lines as rows of the report.
    pub(crate) fn rows(&self) -> Vec<AcceptanceRow> {
        let measured = self.lines().into_iter().filter(|(_, wasm, ..)| wasm.is_some());
        let map = |figures: [(&str, Option<f64>); 2]| -> BTreeMap<String, f64> {
            let known = |(name, value): (&str, Option<f64>)| Some((name.to_owned(), value?));
            figures.into_iter().filter_map(known).collect()
        };
        let row = |(what, wasm, native, most): Line| {
            let figures = map([("wasm", wasm), ("native", native)]);
            AcceptanceRow::measured(what.trim(), figures, map([("wasm", most), ("native", None)]))
        };
        measured.map(row).chain(self.judged_rows()).collect()
    }

    fn lines(&self) -> Vec<Line> {
        let one = |tail: Tail| tail.p99;
        let twice = |native: Option<f64>| native.map(|native| 2.0 * native);
        let (flat, other) = (&self.flat, &self.component);
        let mut lines: Vec<Line> = vec![
            ("call.empty, ns", flat.empty_ns.wasm, flat.empty_ns.native, Some(250.0)),
            ("call.empty by component, ns", other.empty_ns.wasm, other.empty_ns.native, None),
            (
                "call.place of 50 nodes, ns, p50",
                flat.place_ns.wasm.p50,
                flat.place_ns.native.p50,
                twice(flat.place_ns.native.p50),
            ),
            (
                "call.place of 50 nodes, ns, p99",
                flat.place_ns.wasm.p99,
                flat.place_ns.native.p99,
                None,
            ),
            (
                "call.place of 50 nodes by component, ns, p50",
                other.place_ns.wasm.p50,
                other.place_ns.native.p50,
                None,
            ),
            (
                "call.tick of 256: 8 metrics, 64 bytes, ns a session",
                flat.tick_ns.wasm,
                flat.tick_ns.native,
                twice(flat.tick_ns.native),
            ),
            (
                "call.tick of 256 by component, ns a session",
                other.tick_ns.wasm,
                other.tick_ns.native,
                None,
            ),
            (
                "call.ladder of 256, ns a session",
                flat.ladder_tick_ns.wasm,
                flat.ladder_tick_ns.native,
                twice(flat.ladder_tick_ns.native),
            ),
            (
                "call.ladder of 256 by component, ns a session",
                other.ladder_tick_ns.wasm,
                other.ladder_tick_ns.native,
                None,
            ),
            ("call.instantiate, µs, p99", one(self.instantiate_us), None, Some(50.0)),
            ("trap to serving, ms, p99", one(self.trap_to_serving_ms), None, Some(1.0)),
            ("runaway call beyond its budget, ms, p99", one(self.cut_over_ms), None, Some(2.0)),
            ("activation, µs, p99", one(self.activate_us), None, Some(100.0)),
            ("file to active, cold, ms, p50", self.cold_ms.p50, None, Some(500.0)),
            ("file to active, seen before, ms, p50", self.cached_ms.p50, None, Some(50.0)),
            ("rollback, ms, p99", one(self.rollback_ms), None, Some(10.0)),
        ];
        if let Some(swap) = &self.swap {
            let Latency { with, without, spread } = swap.p999_us;
            let count = |number: u64| Some(number as f64);
            let most = without + spread.max(LATENCY_MORE_US);
            lines.extend([
                ("swaps every 100 ms: packets lost", count(swap.packets_lost), None, Some(0.0)),
                ("  without swaps", count(swap.packets_lost_without), None, None),
                ("  latency p99.9 with, µs", Some(with), None, Some(most)),
                ("  latency p99.9 without, µs", Some(without), None, None),
                ("  decisions of two revisions", count(swap.two_revisions as u64), None, Some(0.0)),
                ("  swaps out of order", count(swap.out_of_order as u64), None, Some(0.0)),
                ("  failed calls", count(swap.faults), None, Some(0.0)),
                ("  memory grown, MiB", Some(swap.grown_mib), None, Some(MEMORY_FLAT_MIB)),
            ]);
        }
        self.add_harm(&mut lines);
        lines
    }
}

impl Report {
    /// Adds hostile and harmful plugins, and the replay.
    fn add_harm(&self, lines: &mut Vec<Line>) {
        let count = |number: usize| Some(number as f64);
        if !self.hostile.is_empty() {
            let lost: u64 = self.hostile.iter().map(|one| one.packets_lost).sum();
            let those = |is: fn(&&Hostile) -> bool| count(self.hostile.iter().filter(is).count());
            lines.extend([
                ("hostile plugins", count(self.hostile.len()), None, None),
                ("  packets lost", Some(lost as f64), None, Some(0.0)),
                (
                    "  that affected other policies",
                    those(|one| !one.others_affected.is_empty()),
                    None,
                    Some(0.0),
                ),
                ("  without a reason", those(|one| one.reason.is_empty()), None, Some(0.0)),
                (
                    "  with another outcome than expected",
                    those(|one| !one.expected),
                    None,
                    Some(0.0),
                ),
            ]);
        }
        let undone = self.bad_policy_rollback_ms.p99;
        lines.push(("harmful policy to rollback, ms", undone, None, Some(2_000.0)));
        let judged = self.judged_lines().into_iter();
        lines.extend(judged.map(|(what, count, most)| (what, Some(count), None, most)));
        if let Some(replay) = self.replay {
            let differ = replay.calls - replay.same - replay.not_comparable;
            lines.extend([
                ("decisions replayed", Some(replay.calls as f64), None, None),
                ("  that differ", Some(differ as f64), None, Some(0.0)),
            ]);
        }
    }
}

/// The latency that swaps may add if the windows without swaps differ by less.
const LATENCY_MORE_US: f64 = 50.0;

/// Memory that an allocator may keep in a minute; a leaked revision would be hundreds of KiB, 600 times.
const MEMORY_FLAT_MIB: f64 = 8.0;

/// Formats a figure with enough digits to compare.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::super::report::Swap;
    use super::*;

    #[test]
    fn swap_latency_limit_is_at_least_50_us() {
        let most = |spread| {
            let p999_us = Latency { with: 1.0, without: 200.0, spread };
            let swap = Swap {
                n: 1,
                out_of_order: 0,
                decisions: 1,
                marked: 1,
                two_revisions: 0,
                unrecorded: 0,
                calls: 1,
                faults: 0,
                last_fault: None,
                packets: 1,
                packets_lost: 0,
                packets_lost_without: 0,
                misdelivered: 0,
                p999_us,
                rss_mib: 1.0,
                grown_mib: 0.0,
            };
            let report = Report { swap: Some(swap), ..Report::default() };
            let lines = report.lines();
            lines.iter().find(|line| line.0.contains("latency p99.9 with,")).unwrap().3
        };
        assert_eq!((most(49.0), most(51.0)), (Some(250.0), Some(251.0)));
    }
}
