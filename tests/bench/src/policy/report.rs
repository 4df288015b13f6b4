//! The report, `target/bench-policy/report.json`. A figure that was not measured is null.

use std::path::Path;
use std::time::Duration;

use evenkeel_report::{AcceptanceRow, LimitTable};
use serde::Serialize;

use super::judged::JudgedRevision;
use crate::rounds::{median, spread};

/// The cost of calls, each beside the same function compiled natively.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct CallCosts {
    /// A call of the empty policy.
    pub(crate) empty_ns: Figure,
    /// One placement among 50 nodes by `route-nearest`.
    pub(crate) place_ns: Distribution,
    /// One session of a tick of 256, with 8 metrics and 64 bytes of state.
    pub(crate) tick_ns: Figure,
    /// One session of a tick of `degrade-ladder`.
    pub(crate) ladder_tick_ns: Figure,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Report {
    /// Plugins as they are built, which are called flat.
    pub(crate) flat: CallCosts,
    /// The same plugins, called through the component model.
    pub(crate) component: CallCosts,
    /// Creating a policy from a compiled plugin: instance, settings and catalog.
    pub(crate) instantiate_us: Tail,
    /// From a question that traps to the answer of the next one.
    pub(crate) trap_to_serving_ms: Tail,
    /// The time of a runaway call beyond its budget, until the policy can be called again.
    pub(crate) cut_over_ms: Tail,
    /// From the command to activate a revision to its first question.
    pub(crate) activate_us: Tail,
    /// From the rename of a new plugin's file to its activation.
    pub(crate) cold_ms: Tail,
    /// Like `cold_ms`, for a plugin that was active before.
    pub(crate) cached_ms: Tail,
    /// From the command to roll back to its answer.
    pub(crate) rollback_ms: Tail,
    pub(crate) swap: Option<Swap>,
    /// The outcome of each hostile plugin.
    pub(crate) hostile: Vec<Hostile>,
    /// From the first decisions of a harmful policy, or earlier, until the previous revision is active again.
    pub(crate) bad_policy_rollback_ms: Tail,
    pub(crate) harm_reason: Option<String>,
    pub(crate) harm_packets_lost: u64,
    /// The rollouts of the corpus.
    pub(crate) judged: Vec<JudgedRevision>,
    pub(crate) replay: Option<Replay>,
}

/// A hostile plugin, pushed under load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hostile {
    pub(crate) guest: String,
    pub(crate) packets_lost: u64,
    /// The gateway's reason for the outcome.
    pub(crate) reason: String,
    pub(crate) hook: &'static str,
    pub(crate) packets: u64,
    pub(crate) misdelivered: u64,
    /// `refused`, `rolled-back`, `failed`, or `curbed`: it answered, and invalid answers were rejected.
    pub(crate) outcome: String,
    /// True if the outcome is the expected one.
    pub(crate) expected: bool,
    /// Policies other than the attacked one that changed or failed meanwhile.
    pub(crate) others_affected: Vec<String>,
}

/// Replay of decisions that were recorded under load and swaps.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Replay {
    #[serde(skip)]
    pub(crate) exact: bool,
    pub(crate) calls: u64,
    pub(crate) same: u64,
    /// Calls that exceeded a time limit, in the recording or the replay.
    pub(crate) not_comparable: u64,
    /// Calls that the gateway could not record.
    pub(crate) missed: u64,
    /// Packets lost during the recording.
    pub(crate) packets_lost: u64,
}

/// Medians over rounds, Wasm and native.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) wasm: Option<f64>,
    pub(crate) native: Option<f64>,
    /// Spread of the Wasm figures: (largest - smallest) / median.
    pub(crate) spread: Option<f64>,
}

/// Median and tail; the target is for the tail.
#[derive(Clone, Copy, Default, Debug, PartialEq, Serialize)]
pub(crate) struct Tail {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// Medians over rounds of the median and the tail, Wasm and native.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct Distribution {
    pub(crate) wasm: Tail,
    pub(crate) native: Tail,
    /// Spread of the median in Wasm: (largest - smallest) / median.
    pub(crate) spread: Option<f64>,
}

/// A revision every 100 ms under load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Swap {
    /// Swaps in all windows.
    pub(crate) n: usize,
    /// Rollouts that were refused, or that followed an unexpected revision.
    pub(crate) out_of_order: usize,
    /// Recorded decisions; decisions that identify their revision; decisions of two revisions; and calls that could not
    /// be recorded.
    pub(crate) decisions: usize,
    pub(crate) marked: u64,
    pub(crate) two_revisions: usize,
    pub(crate) unrecorded: u64,
    /// Questions to policies meanwhile, and the failed ones.
    pub(crate) calls: u64,
    pub(crate) faults: u64,
    /// The last fault in the gateway's lifetime.
    pub(crate) last_fault: Option<String>,
    pub(crate) packets: u64,
    pub(crate) packets_lost: u64,
    pub(crate) packets_lost_without: u64,
    pub(crate) misdelivered: u64,
    pub(crate) p999_us: Latency,
    /// Resident memory in the middle of the windows, and its growth until the end.
    pub(crate) rss_mib: f64,
    pub(crate) grown_mib: f64,
}

/// Forwarding latency, p99.9: medians over windows that take turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) with: f64,
    pub(crate) without: f64,
    /// Largest minus smallest value of the windows without swaps.
    pub(crate) spread: f64,
}

impl Figure {
    pub(crate) fn of(wasm: &[f64], native: &[f64]) -> Figure {
        let of = |values: &[f64]| (!values.is_empty()).then(|| median(values.iter().copied()));
        let spread = (!wasm.is_empty()).then(|| spread(wasm.iter().copied()));
        Figure { wasm: of(wasm), native: of(native), spread }
    }

    /// The figure in Wasm, and the native one.
    pub(crate) fn both(&self) -> [Option<f64>; 2] {
        [self.wasm, self.native]
    }
}

impl Tail {
    /// Selects by nearest rank, and sorts the values.
    pub(crate) fn of(values: &mut [f64]) -> Tail {
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let place = (share * values.len() as f64).ceil() as usize;
            values.get(place.saturating_sub(1)).copied()
        };
        Tail { p50: rank(0.5), p99: rank(0.99) }
    }

    /// Median and tail of times, in nanoseconds.
    pub(crate) fn of_times(times: &[Duration]) -> Tail {
        let mut nanos: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e9).collect();
        Tail::of(&mut nanos)
    }
}

impl Distribution {
    /// The medians in Wasm, and natively.
    pub(crate) fn p50(&self) -> [Option<f64>; 2] {
        [self.wasm.p50, self.native.p50]
    }

    /// The tails in Wasm, and natively.
    pub(crate) fn p99(&self) -> [Option<f64>; 2] {
        [self.wasm.p99, self.native.p99]
    }

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

impl Report {
    pub(crate) fn misdelivered(&self) -> u64 {
        let swapped = self.swap.as_ref().map_or(0, |swap| swap.misdelivered);
        swapped + self.hostile.iter().map(|one| one.misdelivered).sum::<u64>()
    }

    pub(crate) fn write(&self, path: &Path, limits: &LimitTable) -> Result<(), String> {
        evenkeel_report::write(&self.json(&self.rows(limits)?), path)
    }

    /// Wasm figures by name, native figures under `native`, and the spread of rounds under `spread`.
    fn json(&self, rows: &[AcceptanceRow]) -> serde_json::Value {
        serde_json::json!({
            "rows": rows,
            "empty_ns": self.flat.empty_ns.wasm,
            "place_ns": self.flat.place_ns.wasm,
            "tick_ns": self.flat.tick_ns.wasm,
            "ladder_tick_ns": self.flat.ladder_tick_ns.wasm,
            "native": {
                "empty_ns": self.flat.empty_ns.native,
                "place_ns": self.flat.place_ns.native,
                "tick_ns": self.flat.tick_ns.native,
                "ladder_tick_ns": self.flat.ladder_tick_ns.native,
            },
            "component": {
                "empty_ns": self.component.empty_ns.wasm,
                "place_ns": self.component.place_ns.wasm,
                "tick_ns": self.component.tick_ns.wasm,
                "ladder_tick_ns": self.component.ladder_tick_ns.wasm,
            },
            "spread": {
                "empty_ns": self.flat.empty_ns.spread,
                "place_ns": self.flat.place_ns.spread,
                "tick_ns": self.flat.tick_ns.spread,
                "ladder_tick_ns": self.flat.ladder_tick_ns.spread,
            },
            "instantiate_us": self.instantiate_us,
            "trap_to_serving_ms": self.trap_to_serving_ms.p99,
            "cut_over_ms": self.cut_over_ms.p99,
            "activate_us": self.activate_us.p99,
            "cold_ms": self.cold_ms.p50,
            "cached_ms": self.cached_ms.p50,
            "rollback_ms": self.rollback_ms.p99,
            "swap": self.swap,
            "hostile": self.hostile,
            "bad_policy_rollback_ms": self.bad_policy_rollback_ms.p99,
            "bad_policy": {"reason": self.harm_reason, "packets_lost": self.harm_packets_lost},
            "judged": self.judged,
            "replay_exact": self.replay.map(|replay| replay.exact),
            "replay": self.replay,
        })
    }
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
    fn what_was_not_measured_is_null() {
        let json = Report::default().json(&[]);
        assert!(json["empty_ns"].is_null() && json["swap"].is_null());
        assert!(json["place_ns"]["p50"].is_null());
    }
}
