//! Probes and media of a node over a changing link: a common input for all failure detectors.

use std::time::{Duration, Instant};

use crate::{Conditions, Fate, Impairment};

/// A period with constant conditions of the link.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stretch {
    pub lasts: Duration,
    pub link: Conditions,
    /// True if the node answers.
    pub alive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceProbe {
    /// Sequence number, from 1.
    pub sequence: u64,
    pub sent: Instant,
    pub answered: Option<Instant>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// Probes in sending order.
    pub probes: Vec<TraceProbe>,
    /// Arrivals of media, in order.
    pub media: Vec<Instant>,
    /// Start time of each stretch, then the end of the trace.
    pub marks: Vec<Instant>,
}

/// Sending intervals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clocks {
    pub probe_every: Duration,
    /// Mean interval of media packets, each answered by one packet; the first has a random phase.
    pub media_every: Duration,
}

/// Size of every packet on a link of limited rate: voice.
const BYTES: usize = 200;

impl Trace {
    /// Runs the stretches one after the other.
    #[must_use]
    pub fn record(seed: u64, clocks: Clocks, stretches: &[Stretch], start: Instant) -> Trace {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut up, mut down) = (Impairment::new(rng.u64(..)), Impairment::new(rng.u64(..)));
        let mut trace = Trace { probes: Vec::new(), media: Vec::new(), marks: vec![start] };
        let mut probe_at = start;
        let mut media_at = start + clocks.media_every.mul_f64(rng.f64());
        let mut end = start;
        for stretch in stretches {
            end += stretch.lasts;
            (up.conditions, down.conditions) = (stretch.link, stretch.link);
            while probe_at.min(media_at) < end {
                let now = probe_at.min(media_at);
                let back = stretch.alive.then(|| there_and_back(&mut up, &mut down, now)).flatten();
                if probe_at <= media_at {
                    let sequence = trace.probes.len() as u64 + 1;
                    trace.probes.push(TraceProbe { sequence, sent: now, answered: back });
                    probe_at += clocks.probe_every;
                } else {
                    trace.media.extend(back);
                    media_at +=
                        clocks.media_every.mul_f64(rng.f64() * 2.0).max(Duration::from_micros(1));
                }
            }
            trace.marks.push(end);
        }
        trace.media.sort_unstable();
        trace
    }
}

fn there_and_back(up: &mut Impairment, down: &mut Impairment, now: Instant) -> Option<Instant> {
    let Fate::Deliver { at, .. } = up.decide(now, BYTES) else { return None };
    let Fate::Deliver { at, .. } = down.decide(at, BYTES) else { return None };
    Some(at)
}

#[cfg(test)]
mod tests;
