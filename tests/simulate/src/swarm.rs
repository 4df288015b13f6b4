//! Plays many seeds on all cores.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::check::Violation;
use crate::group;
use crate::indices;
use crate::losses;
use crate::outcome::{Digest, Outcome, Spread};
use crate::policies::Library;
use crate::records;
use crate::script::Script;
use crate::world::World;

#[derive(Clone, Debug)]
pub struct Swarm {
    pub seeds: Range<u64>,
    pub threads: usize,
    /// Stops at the first violated invariant.
    pub until_broken: bool,
}

#[derive(Default, Debug)]
pub struct Totals {
    pub worlds: u64,
    pub lasted: Duration,
    pub sum: Outcome,
    /// Outcomes with violations, by seed.
    pub broken: Vec<Outcome>,
    pub digests: BTreeMap<u64, Digest>,
}

impl Swarm {
    pub fn play(&self) -> Totals {
        let next = AtomicU64::new(self.seeds.start);
        let stop = AtomicBool::new(false);
        let parts: Vec<Totals> = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.max(1))
                .map(|_| scope.spawn(|| self.play_some(&next, &stop)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("a world does not panic"))
                .collect()
        });
        let mut totals = Totals::default();
        for part in parts {
            totals.worlds += part.worlds;
            totals.lasted += part.lasted;
            totals.broken.extend(part.broken);
            totals.digests.extend(part.digests);
            totals.take(part.sum);
        }
        totals.broken.sort_by_key(|outcome| outcome.seed);
        totals
    }

    fn play_some(&self, next: &AtomicU64, stop: &AtomicBool) -> Totals {
        let library = Library::new();
        let mut totals = Totals::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.seeds.end || stop.load(Ordering::Relaxed) {
                return totals;
            }
            let outcome = play(seed, &library);
            totals.worlds += 1;
            totals.lasted += outcome.lasted;
            totals.digests.insert(seed, outcome.digest);
            if !outcome.violations.is_empty() {
                stop.fetch_or(self.until_broken, Ordering::Relaxed);
                totals.broken.push(outcome.clone());
            }
            totals.take(outcome);
        }
    }
}

/// Plays a seed; a panic counts as a violation.
fn play(seed: u64, library: &Library) -> Outcome {
    let world = || {
        let mut outcome = World::new(Script::from_seed(seed), library).play();
        outcome.group = group::play(seed, false);
        outcome.violations.extend(outcome.group.violations.iter().cloned());
        outcome.records = records::play(seed, false);
        outcome.violations.extend(outcome.records.violations.iter().cloned());
        outcome.indices = indices::play(seed, false);
        outcome.violations.extend(outcome.indices.violations.iter().cloned());
        outcome.losses = losses::play(seed, library);
        outcome.violations.extend(outcome.losses.violations.iter().cloned());
        outcome
    };
    // No state of a world outlives it, so it is unwind safe.
    panic::catch_unwind(AssertUnwindSafe(world)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned()));
        let what = what.unwrap_or_default();
        let violation = Violation { invariant: "panic", at: Duration::ZERO, what };
        let mut outcome = Outcome::new(seed, &[]);
        outcome.violations.push(violation);
        outcome
    })
}

impl Totals {
    fn take(&mut self, outcome: Outcome) {
        let sum = &mut self.sum;
        sum.packets += outcome.packets;
        sum.delivered += outcome.delivered;
        sum.dropped += outcome.dropped;
        sum.admitted += outcome.admitted;
        sum.refused += outcome.refused;
        sum.asked += outcome.asked;
        sum.deaths += outcome.deaths;
        sum.started += outcome.started;
        sum.breakers += outcome.breakers;
        sum.struck += outcome.struck;
        sum.drained += outcome.drained;
        sum.listed += outcome.listed;
        sum.group.add(outcome.group);
        sum.records.add(outcome.records);
        sum.indices.add(outcome.indices);
        sum.losses.add(outcome.losses);
        for (kind, times) in outcome.begun {
            *sum.begun.entry(kind).or_default() += times;
        }
        for (witness, times) in outcome.witnesses {
            *sum.witnesses.entry(witness).or_default() += times;
        }
        for (budget, times) in outcome.known {
            *sum.known.entry(budget).or_default() += times;
        }
        sum.session_moves += outcome.session_moves;
        sum.outage += outcome.outage;
        for (cause, times) in outcome.moves {
            *sum.moves.entry(cause).or_default() += times;
        }
        for (kind, gaps) in outcome.gaps {
            sum.gaps.entry(kind).or_default().extend(gaps);
        }
        for (kind, lost) in outcome.lost {
            *sum.lost.entry(kind).or_default() += lost;
        }
    }

    pub fn spreads(&self) -> BTreeMap<&'static str, Spread> {
        self.sum.gaps.iter().map(|(kind, gaps)| (*kind, Spread::of(gaps))).collect()
    }
}
