//! Faults at random, several at a time, on links that lose and reorder.

use std::time::Duration;

use evenkeel_ownership::Cluster;

use super::network::{Way, between_members, to_voters};
use super::world::{World, id_of};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// After the last fault, one member owns and the other one is ready by then.
const SETTLED_WITHIN: Duration = ms(10_000);

pub(super) fn play(world: &mut World, lasts: Duration) {
    while world.now < lasts && world.violations.is_empty() {
        strike(world);
        let pause = if world.rng.bool() { world.rng.u64(0..40) } else { world.rng.u64(40..1_500) };
        world.pass(ms(pause));
    }
    repair(world);
    if world.violations.is_empty() && world.until(SETTLED_WITHIN, World::is_settled).is_none() {
        world.violate("group-settles", format!("not settled after {SETTLED_WITHIN:?}"));
    }
}

fn strike(world: &mut World) {
    let (members, agents, voters) = (world.members.len(), world.agents(), world.voters());
    let member = world.rng.usize(0..members);
    let runs = world.members[member].process.is_some();
    let ended = world.others(member).filter(|other| world.members[*other].process.is_none());
    let ended: Vec<_> = ended.map(|other| id_of(other, member)).collect();
    if let Some(store) = world.store().filter(|_| world.rng.u8(0..4) == 0) {
        return strike_store(world, store, member);
    }
    match world.rng.u8(0..16) {
        0 if runs => {
            let host_runs = world.rng.bool();
            world.kill(member, host_runs);
        }
        1 if runs => {
            world.kill(member, true);
            world.start(member);
        }
        0..=2 if !runs => world.start(member),
        2 | 3 => {
            let stopped = world.rng.bool();
            world.stop(member, stopped);
        }
        4 => {
            // A stall of any length.
            world.stop(member, true);
            let stalls = world.rng.u64(1..200);
            world.pass(ms(stalls));
            world.stop(member, false);
        }
        5 => world.network.cut(between_members(members)),
        6 => {
            let from = world.rng.usize(0..members);
            world.network.cut([Way::Beats(from)]);
        }
        7 => world.network.cut(to_voters(member, voters)),
        8 => world.network.cut(between_members(members).chain(to_voters(member, voters))),
        9 if voters > 0 => {
            let voter = world.rng.usize(0..voters);
            world.network.cut([Way::Up(member, voter), Way::Down((member + 1) % members, voter)]);
        }
        10 => {
            world.tell(member, Cluster::handle_hand_over);
        }
        11 if agents > 0 => {
            let agent = world.rng.usize(0..agents);
            let stopped = world.rng.bool();
            world.stop_agent(agent, stopped);
        }
        12 if agents > 0 => {
            let agent = world.rng.usize(0..agents);
            world.restart_agent(agent);
        }
        13 => upgrade(world, member),
        // An operator tells the truth. It may be refused.
        14 if !ended.is_empty() => {
            world.tell(member, |cluster, now| cluster.handle_take_over(&ended, now));
        }
        _ => world.network.heal(),
    }
}

fn strike_store(world: &mut World, store: usize, member: usize) {
    match world.rng.u8(0..7) {
        0 => world.stop_store(true),
        1 => world.stop_store(false),
        2 => {
            let slowest = if world.rng.bool() { 40 } else { 2_000 };
            let latency = ms(world.rng.u64(0..slowest));
            world.slow_store(latency);
        }
        3 => world.network.cut([Way::Up(member, store), Way::Down(member, store)]),
        // Its writes count.
        4 => world.network.cut([Way::Down(member, store)]),
        _ => world.forget_writes(),
    }
}

fn upgrade(world: &mut World, member: usize) {
    world.tell(member, |cluster, now| cluster.set_resting(true, now));
    let waits = world.rng.u64(1..50);
    world.pass(ms(waits));
    match world.tell(member, |cluster, now| cluster.continued(now)).flatten() {
        Some(continued) => {
            // The pause of an upgrade.
            world.stop(member, true);
            let pause = world.rng.u64(1..300);
            world.pass(ms(pause));
            world.upgrade(member, continued);
        }
        None => {
            world.tell(member, |cluster, now| cluster.set_resting(false, now));
        }
    }
}

fn repair(world: &mut World) {
    world.say(|| "repaired".to_owned());
    world.network.heal();
    world.network.loss = 0.0;
    world.network.jitter = Duration::ZERO;
    world.stop_store(false);
    world.slow_store(Duration::ZERO);
    for agent in 0..world.agents() {
        world.stop_agent(agent, false);
    }
    for member in 0..world.members.len() {
        match world.members[member].process {
            Some(_) => {
                world.stop(member, false);
                world.tell(member, |cluster, now| cluster.set_resting(false, now));
            }
            None => world.start(member),
        }
    }
}
