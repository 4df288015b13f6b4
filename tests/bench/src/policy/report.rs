//! What `target/bench/policy.json` holds, the table that is printed of it, and the targets. What was not measured is null.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::rounds::{median, spread};

/// Everything that was measured.
#[derive(Clone, Default, Debug)]
pub(crate) struct Report {
    /// A call that does nothing.
    pub(crate) empty_ns: Figure,
    /// One placement among 50 nodes by `route-nearest`.
    pub(crate) place_ns: Distribution,
    /// One session of a tick of 256, with 8 metrics and 64 bytes of state.
    pub(crate) tick_ns: Figure,
    /// The same of `degrade-ladder`.
    pub(crate) ladder_tick_ns: Figure,
    /// A policy from a compiled plugin: its instance, settings and catalog.
    pub(crate) instantiate_us: Tail,
    /// From a question that traps to the answer of the next one.
    pub(crate) trap_to_serving_ms: Tail,
    /// What a runaway call takes over its budget, until the policy can be asked again.
    pub(crate) cut_over_ms: Tail,
    /// From the order to put a revision in force to its first question.
    pub(crate) activate_us: Tail,
    /// From the rename of a plugin's file that nobody saw before to its revision in force.
    pub(crate) cold_ms: Tail,
    /// The same of one that was in force before.
    pub(crate) cached_ms: Tail,
    /// From the command to its answer.
    pub(crate) rollback_ms: Tail,
    pub(crate) swap: Option<Swap>,
}

/// Medians over rounds, Wasm and native.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) wasm: Option<f64>,
    pub(crate) native: Option<f64>,
    /// Of Wasm: (largest - smallest) / median.
    pub(crate) spread: Option<f64>,
}

/// The middle and the end of what was measured one by one; the target is for the end.
#[derive(Clone, Copy, Default, Debug, PartialEq, Serialize)]
pub(crate) struct Tail {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// Medians over rounds of the middle and the end, Wasm and native.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct Distribution {
    pub(crate) wasm: Tail,
    pub(crate) native: Tail,
    /// Of Wasm's middle: (largest - smallest) / median.
    pub(crate) spread: Option<f64>,
}

/// A revision every 100 ms under load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Swap {
    /// Swaps in all windows.
    pub(crate) n: usize,
    /// Those that were refused, or followed upon another revision than the one before.
    pub(crate) out_of_order: usize,
    /// Questions that policies were asked meanwhile, and that failed.
    pub(crate) calls: u64,
    pub(crate) faults: u64,
    pub(crate) packets: u64,
    pub(crate) packets_lost: u64,
    pub(crate) packets_lost_without: u64,
    pub(crate) misdelivered: u64,
    pub(crate) p999_us: Latency,
    /// Memory of the gateway after the first window with swaps, and what it had grown by after the last one.
    pub(crate) rss_mib: f64,
    pub(crate) grown_mib: f64,
}

/// Forwarding latency, p99.9: medians over windows that take turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) with: f64,
    pub(crate) without: f64,
    /// The largest less the smallest of the windows without.
    pub(crate) spread: f64,
}

impl Figure {
    pub(crate) fn of(wasm: &[f64], native: &[f64]) -> Figure {
        let of = |values: &[f64]| (!values.is_empty()).then(|| median(values.iter().copied()));
        let spread = (!wasm.is_empty()).then(|| spread(wasm.iter().copied()));
        Figure { wasm: of(wasm), native: of(native), spread }
    }
}

impl Tail {
    /// By nearest rank; sorts them.
    pub(crate) fn of(values: &mut [f64]) -> Tail {
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let place = (share * values.len() as f64).ceil() as usize;
            values.get(place.saturating_sub(1)).copied()
        };
        Tail { p50: rank(0.5), p99: rank(0.99) }
    }

    /// In nanoseconds.
    pub(crate) fn of_times(times: &[Duration]) -> Tail {
        let mut nanos: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e9).collect();
        Tail::of(&mut nanos)
    }
}

impl Distribution {
    pub(crate) fn of(wasm: &[Tail], native: &[Tail]) -> Distribution {
        let medians = |tails: &[Tail]| {
            let of = |part: fn(&Tail) -> Option<f64>| {
                let values: Vec<f64> = tails.iter().filter_map(part).collect();
                (!values.is_empty()).then(|| median(values))
            };
            Tail { p50: of(|tail| tail.p50), p99: of(|tail| tail.p99) }
        };
        let middles = wasm.iter().filter_map(|tail| tail.p50);
        Distribution {
            wasm: medians(wasm),
            native: medians(native),
            spread: (!wasm.is_empty()).then(|| spread(middles)),
        }
    }
}

/// A line of the table: what, Wasm, native, and the most that it may be.
type Line = (&'static str, Option<f64>, Option<f64>, Option<f64>);

impl Report {
    /// Packets that reached somebody else than they were for.
    pub(crate) fn misdelivered(&self) -> u64 {
        self.swap.as_ref().map_or(0, |swap| swap.misdelivered)
    }

    /// Writes it as JSON, its folder made where there is none.
    ///
    /// # Errors
    /// What the system said, with the path.
    pub(crate) fn write(&self, path: &Path) -> Result<(), String> {
        evenkeel_lab::report::write(&self.json(), path)
    }

    /// Figures of Wasm by their names, the same natively under `native`, and how far rounds were apart under `spread`.
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "empty_ns": self.empty_ns.wasm,
            "place_ns": self.place_ns.wasm,
            "tick_ns": self.tick_ns.wasm,
            "ladder_tick_ns": self.ladder_tick_ns.wasm,
            "native": {
                "empty_ns": self.empty_ns.native,
                "place_ns": self.place_ns.native,
                "tick_ns": self.tick_ns.native,
                "ladder_tick_ns": self.ladder_tick_ns.native,
            },
            "spread": {
                "empty_ns": self.empty_ns.spread,
                "place_ns": self.place_ns.spread,
                "tick_ns": self.tick_ns.spread,
                "ladder_tick_ns": self.ladder_tick_ns.spread,
            },
            "instantiate_us": self.instantiate_us,
            "trap_to_serving_ms": self.trap_to_serving_ms.p99,
            "cut_over_ms": self.cut_over_ms.p99,
            "activate_us": self.activate_us.p99,
            "cold_ms": self.cold_ms.p50,
            "cached_ms": self.cached_ms.p50,
            "rollback_ms": self.rollback_ms.p99,
            "swap": self.swap,
        })
    }

    /// Each figure beside the same natively and its target.
    pub(crate) fn print(&self) {
        println!("{:<58} {:>10} {:>10} {:>7} {:>9}", "", "Wasm", "native", "ratio", "target");
        for (what, wasm, native, most) in self.lines() {
            let Some(wasm) = wasm else { continue };
            let shown = |value: Option<f64>| value.map_or_else(String::new, figure);
            let ratio = native.map_or_else(String::new, |native| format!("{:.1}", wasm / native));
            let judged = match most {
                None => "",
                Some(most) if wasm <= most => "met",
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

    fn lines(&self) -> Vec<Line> {
        let one = |tail: Tail| tail.p99;
        let mut lines: Vec<Line> = vec![
            ("empty call, ns", self.empty_ns.wasm, self.empty_ns.native, Some(150.0)),
            (
                "place among 50 nodes, ns, p50",
                self.place_ns.wasm.p50,
                self.place_ns.native.p50,
                Some(1_000.0),
            ),
            (
                "place among 50 nodes, ns, p99",
                self.place_ns.wasm.p99,
                self.place_ns.native.p99,
                None,
            ),
            (
                "tick of 256: 8 metrics, 64 bytes, ns a session",
                self.tick_ns.wasm,
                self.tick_ns.native,
                Some(50.0),
            ),
            (
                "tick of 256 by degrade-ladder, ns a session",
                self.ladder_tick_ns.wasm,
                self.ladder_tick_ns.native,
                None,
            ),
            ("instantiate, µs, p99", one(self.instantiate_us), None, Some(50.0)),
            ("trap to serving, ms, p99", one(self.trap_to_serving_ms), None, Some(1.0)),
            ("runaway call over its budget, ms, p99", one(self.cut_over_ms), None, Some(2.0)),
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
                ("  swaps out of order", count(swap.out_of_order as u64), None, Some(0.0)),
                ("  questions that failed", count(swap.faults), None, Some(0.0)),
                ("  memory grown, MiB", Some(swap.grown_mib), None, Some(MEMORY_FLAT_MIB)),
            ]);
        }
        lines
    }
}

/// Swaps may cost so much latency, where windows without them are closer together.
const LATENCY_MORE_US: f64 = 50.0;

/// What an allocator keeps or gives back in a minute; a revision that stayed would be hundreds of KiB, 600 times.
const MEMORY_FLAT_MIB: f64 = 8.0;

/// With as many digits as tell it apart.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_of_the_nearest_rank() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(Tail::of(&mut values), Tail { p50: Some(100.0), p99: Some(198.0) });
        assert_eq!(Tail::of(&mut [7.0]), Tail { p50: Some(7.0), p99: Some(7.0) });
        assert_eq!(Tail::of(&mut []), Tail::default());
    }

    #[test]
    fn swaps_are_judged_by_how_far_windows_without_them_are_apart_and_50_us_at_the_least() {
        let most = |spread| {
            let p999_us = Latency { with: 1.0, without: 200.0, spread };
            let swap = Swap {
                n: 1,
                out_of_order: 0,
                calls: 1,
                faults: 0,
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

    #[test]
    fn what_was_not_measured_is_null() {
        let json = Report::default().json();
        assert!(json["empty_ns"].is_null() && json["swap"].is_null());
        assert!(json["place_ns"]["p50"].is_null());
    }
}
