//! What comes back from a node over a link that changes: the same for every rule that is to judge it.

use std::time::{Duration, Instant};

use crate::{Conditions, Fate, Impairment};

/// What a link is like for a while.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stretch {
    /// How long.
    pub lasts: Duration,
    /// What it does to packets, each way.
    pub link: Conditions,
    /// Whether the node answers.
    pub alive: bool,
}

/// One probe, and when its answer came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Its number, from 1.
    pub sequence: u64,
    /// When it was sent.
    pub sent: Instant,
    /// When its answer came, if one did.
    pub answered: Option<Instant>,
}

/// What was seen of a node, from one seed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// Probes in the order they were sent.
    pub probes: Vec<Probe>,
    /// When media came from it, in order.
    pub media: Vec<Instant>,
    /// When each stretch began, and at last when the trace ends.
    pub marks: Vec<Instant>,
}

/// What is sent: how often the node is probed, and how often a packet of media goes there that it answers with one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clocks {
    /// Between two probes.
    pub probe_every: Duration,
    /// Between two packets of media, as a mean; the first at random phase.
    pub media_every: Duration,
}

/// Bytes of what is sent, as a link of limited rate counts them: a packet of voice.
const BYTES: usize = 200;

impl Trace {
    /// Sends over these stretches one after the other.
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
                    trace.probes.push(Probe { sequence, sent: now, answered: back });
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
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_dead_node_answers_nothing_and_a_seed_gives_one_trace() {
        let link = Conditions { delay: MS, jitter: MS * 3, ..Conditions::default() };
        let stretches = [
            Stretch { lasts: MS * 1_000, link, alive: true },
            Stretch { lasts: MS * 500, link, alive: false },
        ];
        let clocks = Clocks { probe_every: MS * 10, media_every: MS * 2 };
        let start = Instant::now();
        let trace = Trace::record(3, clocks, &stretches, start);
        assert_eq!(trace, Trace::record(3, clocks, &stretches, start));
        assert_eq!(trace.probes.len(), 150);
        let answered = |probe: &&Probe| probe.answered.is_some();
        assert_eq!(trace.probes.iter().filter(answered).count(), 100);
        assert!(trace.media.len() > 400 && trace.media.is_sorted());
        let last = trace.media.last().copied().into_iter().max();
        assert!(last < Some(trace.marks[1] + MS * 8), "the last came from before the death");
    }
}
