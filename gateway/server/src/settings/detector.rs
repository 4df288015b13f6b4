//! How a node is judged.

use std::time::Duration;

use super::check::Check;
use super::raw;

/// `[detector]`: what counts as a witness against a node, and how many it takes.
#[derive(Clone, PartialEq, Debug)]
pub struct Detector {
    /// For nodes in the gateway's own region.
    pub in_region: Reach,
    /// For nodes in other regions.
    pub across: Reach,
    /// How much longer than the round trip a probe's answer may take. Default 5 ms.
    pub answer_within: Duration,
    /// The least silence of a node, while we were sending, that accuses it. Default 8 ms.
    pub silence: Duration,
    /// The arrivals that must be missing as well. Default 10.
    pub silence_arrivals: u32,
    /// Ports of different rooms that must be closed at once to accuse a `plain` node. Default 3.
    pub ports: u32,
    /// Within this time. Default 20 ms.
    pub ports_within: Duration,
    /// Lateness of our own that moves every deadline. Default 5 ms.
    pub stall: Duration,
    /// The share of nodes that must look dead at once for us to suspect ourselves, 0 to 1. Default 0.5.
    pub panic: f64,
    /// How long a node that came back is not trusted, the first time; doubles with each relapse. Default 2 s.
    pub wary_for: Duration,
    /// The most that may grow to. Default 5 min.
    pub wary_most: Duration,
}

/// What depends on how far a node is.
#[derive(Clone, PartialEq, Debug)]
pub struct Reach {
    /// How often its media port is probed. Default 10 ms in region, 50 ms across.
    pub probe_every: Duration,
    /// Probes in a row that must stay unanswered. Default 2 in region, 1 across.
    pub misses: u32,
    /// How long one witness alone must last to condemn. Default 200 ms in region, 500 ms across.
    pub condemn_alone_after: Duration,
}

const MS: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Detector {
    pub(super) fn check(raw: &raw::Detector, check: &mut Check) -> Detector {
        let short = MS..=1_000 * MS;
        let in_region = Reach { probe_every: 10 * MS, misses: 2, condemn_alone_after: 200 * MS };
        let across = Reach { probe_every: 50 * MS, misses: 1, condemn_alone_after: 500 * MS };
        let wary_for =
            check.duration(raw.wary_for.as_ref(), 2_000 * MS, Duration::ZERO..=60 * MINUTE);
        let wary_most =
            check.duration(raw.wary_most.as_ref(), 5 * MINUTE, Duration::ZERO..=24 * 60 * MINUTE);
        Detector {
            in_region: Reach::check(&raw.in_region, &in_region, check),
            across: Reach::check(&raw.across, &across, check),
            answer_within: check.duration(raw.answer_within.as_ref(), 5 * MS, short.clone()),
            silence: check.duration(raw.silence.as_ref(), 8 * MS, short.clone()),
            silence_arrivals: check.number(raw.silence_arrivals.as_ref(), 10, 1..=1_000),
            ports: check.number(raw.ports.as_ref(), 3, 1..=100),
            ports_within: check.duration(raw.ports_within.as_ref(), 20 * MS, short.clone()),
            stall: check.duration(raw.stall.as_ref(), 5 * MS, short),
            panic: check.share(raw.panic.as_ref(), 0.5),
            wary_for,
            wary_most: wary_most.max(wary_for),
        }
    }
}

impl Reach {
    fn check(raw: &raw::Reach, default: &Reach, check: &mut Check) -> Reach {
        let alone = 10 * MS..=MINUTE;
        Reach {
            probe_every: check.duration(
                raw.probe_every.as_ref(),
                default.probe_every,
                2 * MS..=10_000 * MS,
            ),
            misses: check.number(raw.misses.as_ref(), default.misses, 1..=100),
            condemn_alone_after: check.duration(
                raw.condemn_alone_after.as_ref(),
                default.condemn_alone_after,
                alone,
            ),
        }
    }
}
