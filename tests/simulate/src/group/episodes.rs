//! Faults one at a time on clean links, each with its limit.

use std::time::Duration;

use evenkeel_ownership::Cluster;

use super::network::{Way, between_members, to_voters};
use super::store::VOTES_WITHIN;
use super::world::{World, id_of};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The end of a process is known to the standby by then, with clocks that differ and processes that run up to a
/// millisecond late.
const ENDED_WITHIN: Duration = ms(20);
/// A silent owner is replaced by then, and a question to an agent and its answer later.
const SILENT_WITHIN: Duration = ms(40);
/// Holds of agents that are further away than this end before they arrive.
const AGENTS_NEAR: Duration = ms(6);
/// The owner sends by then with holds of distant agents, and a question and its answer later.
const BARRED_WITHIN: Duration = ms(60);
/// A claimant learns of the owner's last write by a claim that fails, and waits for the end of its hold.
const HELD_WITHIN: Duration = ms(26);
/// Holds of a store that is further away end before they arrive.
const STORE_NEAR: Duration = ms(6);
/// The owner has a hold to the end of its epoch by then, also with voters that are near.
const BARRED_LATE: Duration = ms(1_200);
const HANDED_WITHIN: Duration = ms(60);
/// An operator's takeover is accepted after this silence: no agent has heard the owner recently.
const LONG_SILENT: Duration = ms(2_500);
/// After a fault, one member owns and the other one is ready by then.
const SETTLED_WITHIN: Duration = ms(5_000);
/// And it has stayed so for this long before the next fault: agents that restarted vote again after a survey.
const SETTLED_FOR: Duration = ms(600);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// The owner's host disappears.
    HostDies,
    Stop,
    IsolateOwner,
    IsolateStandby,
    Partition,
    OneWay,
    KillStandby,
    StopStandby,
    HandOver,
    Upgrade,
    RestartAgent,
    StopAgent,
    StopStore,
    SlowStore,
    /// The standby is cut from the store.
    CutStore,
    /// The store forgets holds of the owner, which cannot reach it any more. The link between the members is cut.
    ForgetWrites,
    /// The link between the members is cut while the standby's process restarts.
    RestartCut,
    /// All hosts disappear, and an operator makes the first one that returns the owner.
    PowerLoss,
}

const FAULTS: [Fault; 19] = [
    Fault::Kill,
    Fault::HostDies,
    Fault::Stop,
    Fault::IsolateOwner,
    Fault::IsolateStandby,
    Fault::Partition,
    Fault::OneWay,
    Fault::KillStandby,
    Fault::StopStandby,
    Fault::HandOver,
    Fault::Upgrade,
    Fault::RestartAgent,
    Fault::StopAgent,
    Fault::StopStore,
    Fault::SlowStore,
    Fault::CutStore,
    Fault::ForgetWrites,
    Fault::RestartCut,
    Fault::PowerLoss,
];

/// The members start, and `faults` faults follow each other.
pub(super) fn play(world: &mut World, faults: usize) {
    settle(world);
    for _ in 0..faults {
        if !world.violations.is_empty() {
            return;
        }
        // The phase of beats and surveys is random.
        let phase = Duration::from_micros(world.rng.u64(0..300_000));
        world.pass(phase);
        let fault = FAULTS[world.rng.usize(0..FAULTS.len())];
        world.say(|| format!("{fault:?}"));
        strike(world, fault);
        world.network.heal();
        settle(world);
    }
}

fn settle(world: &mut World) {
    let began = world.now;
    // A question to the store that a fault left without an answer is given up meanwhile.
    let settled_for = world.store().map_or(SETTLED_FOR, |_| SETTLED_FOR + VOTES_WITHIN);
    let mut since = None;
    while world.now < began + SETTLED_WITHIN {
        world.pass(ms(10));
        since = world.is_settled().then(|| since.unwrap_or(world.now));
        if since.is_some_and(|since| world.now >= since + settled_for) {
            return;
        }
    }
    world.violate("group-settles", format!("not settled after {SETTLED_WITHIN:?}"));
}

fn strike(world: &mut World, fault: Fault) {
    let Some(owner) = world.owner() else { return };
    let (standby, agents, voters) = (world.peer_of(owner), world.agents(), world.voters());
    let members = world.members.len();
    let lasts = match world.rng.bool() {
        true => ms(world.rng.u64(1..100)),
        false => ms(world.rng.u64(100..3_000)),
    };
    match fault {
        Fault::Kill => {
            world.kill(owner, true);
            taken(world, standby, ENDED_WITHIN);
            world.pass(lasts);
            world.start(owner);
        }
        Fault::HostDies => {
            world.kill(owner, false);
            silent(world, standby);
            world.pass(lasts);
            world.start(owner);
        }
        Fault::Stop => {
            world.stop(owner, true);
            silent(world, standby);
            world.pass(lasts);
            world.stop(owner, false);
        }
        Fault::IsolateOwner => {
            world.network.cut(between_members(members).chain(to_voters(owner, voters)));
            if voters > 0 {
                silent(world, standby);
            }
            world.pass(lasts);
        }
        Fault::IsolateStandby => {
            world.network.cut(between_members(members).chain(to_voters(standby, voters)));
            stays(world, lasts);
        }
        Fault::Partition => {
            world.network.cut(between_members(members));
            stays(world, lasts);
        }
        Fault::OneWay => {
            let from = world.rng.usize(0..members);
            world.network.cut([Way::Beats(from)]);
            stays(world, lasts);
        }
        Fault::KillStandby => {
            let host_runs = world.rng.bool();
            world.kill(standby, host_runs);
            stays(world, lasts);
            world.start(standby);
        }
        Fault::StopStandby => {
            world.stop(standby, true);
            stays(world, lasts);
            world.stop(standby, false);
        }
        Fault::HandOver => {
            let accepted = world.tell(owner, Cluster::handle_hand_over);
            if accepted != Some(Ok(())) {
                world.violate("group-hand-over", format!("{accepted:?}"));
            }
            taken(world, standby, HANDED_WITHIN);
        }
        Fault::Upgrade => {
            world.tell(owner, |cluster, now| cluster.set_resting(true, now));
            world.pass(ms(20));
            match world.tell(owner, |cluster, now| cluster.continued(now)).flatten() {
                Some(continued) => {
                    world.stop(owner, true);
                    unchanged(world, lasts);
                    world.upgrade(owner, continued);
                }
                None => world.violate("group-rest", "the standby stays armed".to_owned()),
            }
        }
        Fault::RestartAgent | Fault::StopAgent if agents == 0 => {}
        Fault::RestartAgent => {
            let agent = world.rng.usize(0..agents);
            world.restart_agent(agent);
            stays(world, lasts);
        }
        Fault::StopAgent => {
            let agent = world.rng.usize(0..agents);
            world.stop_agent(agent, true);
            stays(world, lasts);
            world.stop_agent(agent, false);
        }
        Fault::StopStore => {
            world.stop_store(true);
            stays(world, lasts);
            world.stop_store(false);
        }
        Fault::SlowStore => {
            let before = world.store_latency();
            world.slow_store(lasts / 2);
            stays(world, lasts);
            world.slow_store(before);
        }
        Fault::CutStore => {
            if let Some(store) = world.store() {
                world.network.cut([Way::Up(standby, store), Way::Down(standby, store)]);
            }
            stays(world, lasts);
        }
        Fault::ForgetWrites => {
            let Some(store) = world.store() else { return };
            world.network.cut(between_members(members));
            if world.rng.bool() {
                world.network.cut([Way::Down(standby, store)]);
            }
            unchanged(world, BARRED_LATE);
            // No vote of the owner repeats what is forgotten.
            world.network.heal();
            world.network.cut(between_members(members).chain([Way::Up(owner, store)]));
            world.forget_writes();
            unchanged(world, lasts);
        }
        Fault::RestartCut => {
            world.network.cut(between_members(members));
            world.kill(standby, false);
            stays(world, lasts);
            world.start(standby);
            unchanged(world, ms(1_500));
        }
        Fault::PowerLoss => {
            (0..members).for_each(|member| world.kill(member, false));
            let first = world.rng.usize(0..members);
            world.start(first);
            unchanged(world, LONG_SILENT);
            let down: Vec<_> = world.others(first).map(|other| id_of(other, first)).collect();
            let accepted = world.tell(first, |cluster, now| cluster.handle_take_over(&down, now));
            if accepted != Some(Ok(())) || world.owner() != Some(first) {
                world.violate("group-operator", format!("{accepted:?}"));
            }
            world.pass(lasts);
            world.others(first).for_each(|other| world.start(other));
        }
    }
}

/// The standby may send within the limit.
fn taken(world: &mut World, standby: usize, limit: Duration) {
    if world.until(limit, |world| world.owner() == Some(standby)).is_none() {
        world.violate("group-takeover-late", format!("{standby} waits after {limit:?}"));
    }
}

/// The owner fell silent: with voters the standby takes over in time, without it never does.
fn silent(world: &mut World, standby: usize) {
    if world.voters() > 0 {
        let limit = SILENT_WITHIN + 2 * world.network.voters_further;
        let limit = if relies_on_store(world) {
            limit + HELD_WITHIN + 4 * store_round_trip(world)
        } else {
            limit
        };
        taken(world, standby, limit);
    } else {
        unchanged(world, ms(2_000));
    }
}

/// The agents are no majority of the voters.
fn relies_on_store(world: &World) -> bool {
    world.store().is_some() && world.agents() < 2
}

/// The greatest time of a request to the store and its result. The process runs a millisecond late at most.
fn store_round_trip(world: &World) -> Duration {
    2 * (world.network.voters_further + world.store_latency()) + ms(3)
}

/// The owner sends without a gap, or with one if its voters are distant.
fn stays(world: &mut World, lasts: Duration) {
    let further = world.network.voters_further;
    let barred_within = BARRED_WITHIN + 2 * further;
    let round_trip = store_round_trip(world);
    if relies_on_store(world) && round_trip > STORE_NEAR {
        // Any hold may come too late, and a lasting one is asked for then.
        unchanged(world, lasts);
        if world.until(barred_within + 4 * round_trip, |world| world.owner().is_some()).is_none() {
            world.violate("group-gap", "a reachable owner has no lease".to_owned());
        }
        return;
    }
    let doubtful = if further <= AGENTS_NEAR { Duration::ZERO } else { barred_within.min(lasts) };
    unchanged(world, doubtful);
    let before = world.lapses;
    unchanged(world, lasts - doubtful);
    let is_silent = doubtful == barred_within && world.owner().is_none();
    if world.lapses != before || is_silent {
        world.violate("group-gap", "the lease of a reachable owner lapsed".to_owned());
    }
}

/// Nothing is taken over.
fn unchanged(world: &mut World, lasts: Duration) {
    let takeovers = |world: &World| world.takeovers.values().sum::<u64>();
    let before = takeovers(world);
    world.pass(lasts);
    if takeovers(world) != before {
        world.violate("group-takeover-false", "a takeover without evidence".to_owned());
    }
}
