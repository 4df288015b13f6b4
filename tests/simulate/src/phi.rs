//! The detector's probe rule compared with phi-accrual (Hayashibara et al. 2004) on the same traces. Not part of the
//! product; it documents the choice of the rule. `evenkeel-simulate --phi` prints the table.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_core::{Gateway, GatewayEffect};
use evenkeel_model::{Health, NodeId, Stamp};
use evenkeel_nodes::{NodeEffect, NodeEvidence, WATCH_EVERY};
use fastrand::Rng;

use crate::script::settings;

const PROBE_EVERY_US: u64 = 10_000;
const WATCH_EVERY_US: u64 = WATCH_EVERY.as_micros() as u64;

/// Probe latency and loss of a path.
#[derive(Clone, Copy)]
struct Trace {
    name: &'static str,
    loss: f64,
    /// Bursts of total loss: the probability that a probe begins one, and its length in probes.
    burst: (f64, u64),
    /// Uniform additional latency, on top of a round trip of 1 ms.
    jitter_us: u64,
    /// A loaded machine: the probability that an answer has this uniform additional latency.
    stall: (f64, u64),
}

const QUIET: Trace =
    Trace { name: "quiet LAN", loss: 0.0, burst: (0.0, 0), jitter_us: 200, stall: (0.0, 0) };

const TRACES: [Trace; 6] = [
    QUIET,
    Trace { name: "jitter ±80 ms", jitter_us: 160_000, ..QUIET },
    Trace { name: "1 % loss", loss: 0.01, ..QUIET },
    Trace { name: "5 % loss", loss: 0.05, ..QUIET },
    Trace { name: "bursts of 3, 1 %", burst: (0.003, 3), ..QUIET },
    Trace { name: "loaded machine", stall: (0.02, 30_000), ..QUIET },
];

/// Arrival times of the answers in microseconds; `None` if lost.
fn answers(trace: Trace, probes: u64, rng: &mut Rng) -> Vec<Option<u64>> {
    let mut burst = 0;
    (0..probes)
        .map(|probe| {
            if rng.f64() < trace.burst.0 {
                burst = trace.burst.1;
            }
            let lost = burst > 0 || rng.f64() < trace.loss;
            burst = burst.saturating_sub(1);
            let stalled = rng.f64() < trace.stall.0;
            let stall = if stalled { rng.u64(0..=trace.stall.1) } else { 0 };
            let late = 1_000 + rng.u64(0..=trace.jitter_us) + stall;
            (!lost).then_some(probe * PROBE_EVERY_US + late)
        })
        .collect()
}

/// A detection rule, evaluated every 2 ms.
trait Rule {
    fn sent(&mut self, sequence: u64, at: Instant);
    fn answered(&mut self, sequence: u64, at: Instant);
    fn suspects(&mut self, now: Instant) -> bool;
}

/// The product's rule (two consecutive unanswered probes after round trip and slack), in a gateway with one idle node.
struct ProbeRule {
    gateway: Gateway,
    /// Probe sequence numbers by their index in the trace.
    sequences: BTreeMap<u64, u64>,
}

impl ProbeRule {
    fn new(now: Instant) -> ProbeRule {
        let mut settings = settings(&[0], &[(0, 1_000)]);
        // A single node cannot be distinguished from a loss of the gateway's own uplink.
        settings.timings.panic_percent = 100;
        ProbeRule { gateway: Gateway::new(settings, now), sequences: BTreeMap::new() }
    }

    fn probe(&mut self) -> Option<u64> {
        let mut sent = None;
        while let Some(output) = self.gateway.poll_output() {
            if let GatewayEffect::Node(NodeEffect::Probe { sequence, .. }) = output {
                sent = Some(sequence);
            }
        }
        sent
    }
}

impl Rule for ProbeRule {
    fn sent(&mut self, place: u64, at: Instant) {
        self.gateway.handle_timeout(at);
        if let Some(sequence) = self.probe() {
            self.sequences.insert(place, sequence);
        }
    }

    fn answered(&mut self, place: u64, at: Instant) {
        if let Some(sequence) = self.sequences.remove(&place) {
            self.gateway.handle_evidence(NodeId(0), NodeEvidence::ProbeAnswered(sequence), at);
        }
    }

    fn suspects(&mut self, now: Instant) -> bool {
        self.gateway.handle_watch(&[Stamp::default()], Duration::ZERO, now);
        self.probe();
        let health = self.gateway.views().nodes().next().map(|node| node.health);
        matches!(health, Some(Health::Suspect | Health::Down))
    }
}

/// Phi-accrual: the probability of the current interval without an answer, given the last 1,000 as a normal distribution.
/// The deviation is at least 1 ms, because it would be 0 in a quiet LAN.
struct Phi {
    threshold: f64,
    last: Option<Instant>,
    intervals: VecDeque<f64>,
    sum: f64,
    squares: f64,
}

impl Phi {
    fn new(threshold: f64) -> Phi {
        Phi { threshold, last: None, intervals: VecDeque::new(), sum: 0.0, squares: 0.0 }
    }
}

impl Rule for Phi {
    fn sent(&mut self, _: u64, _: Instant) {}

    fn answered(&mut self, _: u64, at: Instant) {
        if let Some(last) = self.last.replace(at) {
            let interval = at.saturating_duration_since(last).as_secs_f64() * 1e3;
            self.intervals.push_back(interval);
            (self.sum, self.squares) = (self.sum + interval, self.squares + interval * interval);
            if self.intervals.len() > 1_000
                && let Some(old) = self.intervals.pop_front()
            {
                (self.sum, self.squares) = (self.sum - old, self.squares - old * old);
            }
        }
    }

    fn suspects(&mut self, now: Instant) -> bool {
        let Some(last) = self.last.filter(|_| self.intervals.len() >= 100) else { return false };
        let count = self.intervals.len() as f64;
        let mean = self.sum / count;
        let deviation = (self.squares / count - mean * mean).max(0.0).sqrt().max(1.0);
        let y = (now.saturating_duration_since(last).as_secs_f64() * 1e3 - mean) / deviation;
        // The logistic approximation of the normal distribution in Akka and Cassandra.
        let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
        let later = if y > 0.0 { e / (1.0 + e) } else { 1.0 - 1.0 / (1.0 + e) };
        -later.max(1e-300).log10() >= self.threshold
    }
}

/// Returns false suspicions within an hour, the longest of them in ms, and the time from death to suspicion in ms.
fn judge(rule: &mut dyn Rule, trace: Trace, seed: u64, start: Instant) -> (u32, u64, u64) {
    const HOUR: u64 = 3_600_000_000;
    let at = |us: u64| start + Duration::from_micros(us);
    let mut coming: Vec<(u64, u64)> =
        answers(trace, HOUR / PROBE_EVERY_US, &mut Rng::with_seed(seed))
            .into_iter()
            .enumerate()
            .filter_map(|(probe, at)| Some((at?, probe as u64)))
            .collect();
    coming.sort_unstable();
    let mut coming = coming.into_iter().peekable();
    let (mut since, mut times, mut longest, mut sent) = (None, 0, 0, 0);
    let died = HOUR;
    for now in (0..).step_by(WATCH_EVERY_US as usize).map(|now: u64| now + 300) {
        while sent * PROBE_EVERY_US <= now {
            rule.sent(sent, at(sent * PROBE_EVERY_US));
            sent += 1;
        }
        while let Some((us, probe)) = coming.next_if(|(us, _)| *us <= now.min(died)) {
            rule.answered(probe, at(us));
        }
        let suspects = rule.suspects(at(now));
        if now >= died && suspects {
            return (times, longest, (now - died) / 1_000);
        }
        times += u32::from(suspects && since.is_none());
        since = suspects.then(|| since.unwrap_or(now));
        longest = longest.max(since.map_or(0, |since| (now - since) / 1_000));
        assert!(now < died + 60_000_000, "the rule never suspects");
    }
    unreachable!("the loop has no end")
}

/// Prints the table: an hour of each trace, with a death at its end.
pub fn compare() {
    let start = Instant::now();
    println!("false suspicions per hour, the longest in ms; time from death to suspicion in ms");
    println!("{:<18} {:>18} {:>18} {:>18}", "", "probe rule", "phi 8", "phi 12");
    for trace in TRACES {
        let rules: [Box<dyn Rule>; 3] =
            [Box::new(ProbeRule::new(start)), Box::new(Phi::new(8.0)), Box::new(Phi::new(12.0))];
        let cells = rules.map(|mut rule| {
            let (times, longest, ms) = judge(&mut *rule, trace, 1, start);
            format!("{times}, {longest}; {ms}")
        });
        println!("{:<18} {:>18} {:>18} {:>18}", trace.name, cells[0], cells[1], cells[2]);
    }
}
