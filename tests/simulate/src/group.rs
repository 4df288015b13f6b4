//! Two or three gateways of a group with their agents, a store, clocks and links.
//!
//! The members' decisions, the agents' memory and the votes of the store are those of the product. Promises: at no moment
//! may two members send, by real time while their clocks differ; epochs rise; an owner that ended or is isolated is replaced in time if the
//! kernel or an agent shows it, and never otherwise; an owner that hears its peer or an agent sends without a gap; once
//! all faults are over, one member owns and the other one is ready.

mod chaos;
mod clock;
mod episodes;
mod member;
mod network;
mod store;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use crate::check::Violation;
use network::Network;
use store::Store;
use world::World;

/// Faults of a clean world, and the duration of a chaotic one.
const FAULTS: usize = 4;
const CHAOS: Duration = Duration::from_secs(8);

#[derive(Clone, PartialEq, Default, Debug)]
pub struct GroupOutcome {
    pub violations: Vec<Violation>,
    pub lasted: Duration,
    pub takeovers: BTreeMap<&'static str, u64>,
    /// Leases that lapsed.
    pub lapses: u64,
}

/// Plays the group of a seed.
pub fn play(seed: u64, traced: bool) -> GroupOutcome {
    let mut rng = Rng::with_seed(seed ^ 0x6772_6f75_7073);
    let chaotic = rng.bool();
    let agents = rng.usize(0..7);
    let members = if seed % 3 == 2 { 3 } else { 2 };
    let network = Network::draw(&mut rng, chaotic);
    let lateness = Duration::from_micros(if chaotic { rng.u64(0..20_000) } else { 1_000 });
    // Of an even number of voters the last one does not vote, so few agents leave the decision to the store.
    let latency = Duration::from_micros(rng.u64(0..if chaotic { 10_000 } else { 1_500 }));
    let has_store = rng.bool();
    let store = has_store.then(|| Store::new(latency));
    let agents = if has_store { agents.saturating_sub(3) } else { agents };
    let mut world = World::new(rng, members, agents, store, network, lateness);
    world.traced = traced;
    world.say(|| {
        format!("{members} members, {agents} agents, store: {has_store}, chaos: {chaotic}")
    });
    match chaotic {
        true => chaos::play(&mut world, CHAOS),
        false => episodes::play(&mut world, FAULTS),
    }
    outcome(world)
}

/// A healthy group for this long, with jitter and loss on all links and processes that run late.
pub fn endure(seed: u64, lasts: Duration) -> GroupOutcome {
    let mut rng = Rng::with_seed(seed);
    let mut network = Network::draw(&mut rng, false);
    network.loss = 0.01;
    network.jitter = Duration::from_millis(2);
    let mut world = World::new(rng, 2, 3, None, network, Duration::from_millis(8));
    world.pass(lasts);
    outcome(world)
}

fn outcome(world: World) -> GroupOutcome {
    GroupOutcome {
        lasted: world.now,
        takeovers: world.takeovers,
        lapses: world.lapses,
        violations: world.violations,
    }
}

impl GroupOutcome {
    pub(crate) fn add(&mut self, other: GroupOutcome) {
        self.lasted += other.lasted;
        self.lapses += other.lapses;
        self.violations.extend(other.violations);
        for (evidence, times) in other.takeovers {
            *self.takeovers.entry(evidence).or_default() += times;
        }
    }
}
