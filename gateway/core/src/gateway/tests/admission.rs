//! Admission: order, pace and shares.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_model::{
    ClientIdentity, CoreEvent, Decider, Hook, Hop, HopGrant, IngressProtocol, NodeId, OfferRefusal,
    Op, SessionId, StreamKind,
};
use evenkeel_nodes::NodeEvidence;

use super::super::NotOpened;
use super::world::{Driver, VOICE};
use super::*;
use crate::legs::LegState;

/// A driver that answers after a delay, with the time of each unanswered opening.
struct Slow {
    asked: BTreeSet<(Instant, SessionId, Hop)>,
    seen: BTreeSet<(SessionId, Hop)>,
    most: usize,
}

impl Slow {
    fn new() -> Slow {
        Slow { asked: BTreeSet::new(), seen: BTreeSet::new(), most: 0 }
    }

    /// Lets time pass, and answers every opening once it is `takes` old.
    fn pass(&mut self, world: &mut World, time: Duration, takes: Duration) {
        let end = world.now + time;
        while world.now < end {
            world.pass(ms(2));
            for told in world.opening.clone() {
                if self.seen.insert(told) {
                    self.asked.insert((world.now, told.0, told.1));
                }
            }
            self.most = self.most.max(self.asked.len());
            while let Some(&(at, session, hop)) = self.asked.first()
                && world.now >= at + takes
            {
                self.asked.pop_first();
                self.seen.remove(&(session, hop));
                world.opening.remove(&(session, hop));
                world.gateway.handle_opened(session, hop, Ok(()), world.now);
                world.settle();
            }
            world.audit();
        }
    }
}

fn retry(world: &World, offer: evenkeel_model::OfferId) -> Duration {
    match denied(world.replies.get(&offer)) {
        Some(OfferRefusal::NoNode { retry_after } | OfferRefusal::Full { retry_after }) => {
            retry_after
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn dead_region_is_admitted_at_pace_and_limits() {
    const ROOMS: u64 = 10_000;
    // The home node dies, and the remaining nodes have capacity for all but a hundred of its rooms.
    let room = (ROOMS - 100) * VOICE;
    let nodes = [(0, ROOMS * VOICE * 3), (2, room / 2), (2, room / 2)];
    let mut settings = settings_of(&nodes);
    settings.limits.lost_at_once = 256;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    for scenario in world.gateway.tables.settings.scenarios.values_mut() {
        scenario.bounds.floor_kbps = VOICE as u32;
    }
    for number in 0..ROOMS {
        let offer =
            world.offer_as(&number.to_string(), if number % 2 == 0 { "stream" } else { "call" });
        world.accepted(offer);
    }
    world.drive_with(|_, _| Driver::Waits);
    world.kill(A);
    assert_eq!(world.opening.len(), 2 * 32, "carefully to begin with");
    let mut slow = Slow::new();
    slow.pass(&mut world, ms(3_000), ms(5));
    assert!(slow.most <= 2 * 1_024, "{}", slow.most);
    let on =
        |node| world.gateway.rooms.values().filter(|room| room.holding().on == Some(node)).count();
    assert_eq!((on(B) + on(C)) as u64, ROOMS - 100);
    // All calls are admitted before any stream.
    let left: Vec<&str> = (0..ROOMS)
        .map(|number| world.room(&number.to_string()))
        .map(|id| &world.gateway.rooms[&id])
        .filter(|room| room.stranded().is_some())
        .map(|room| &**room.scenario())
        .collect();
    assert_eq!(left, ["stream"; 100]);
}

#[test]
fn new_sessions_wait_behind_stranded_ones() {
    let mut settings = settings_of(&[(0, 100_000), (1, 100_000)]);
    settings.limits.openings_at_once = 2;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    for number in 0..20 {
        world.open(&number.to_string());
    }
    world.answer_with(place(&[B]));
    world.drive_with(|_, _| Driver::Waits);
    // The rooms move to B, which is slow with two others.
    let before = [world.offer("x"), world.offer("y"), world.offer("z")];
    world.kill(A);
    let late = world.offer("late");
    let retry = retry(&world, late);
    assert!((ms(5_000)..ms(10_000)).contains(&retry), "some wait for their turn: {retry:?}");
    let hop = world.hop(B);
    let of = |world: &World, name: &str| {
        *world.gateway.rooms[&world.room(name)].sessions().iter().next().unwrap()
    };
    let z = of(&world, "z");
    let leg = world.gateway.tables.sessions[&z].legs().get(&hop);
    assert!(matches!(leg, Some(LegState::Waiting { .. })));
    let mut order = Vec::new();
    while let Some((session, hop)) = world.opening.pop_first() {
        world.gateway.handle_opened(session, hop, Ok(()), world.now);
        world.pass(ms(1));
        order.push(session);
    }
    assert_eq!(order.len(), 23);
    assert_eq!(
        order.iter().position(|session| *session == z),
        Some(22),
        "it came first, and goes last"
    );
    assert!(before.iter().all(|offer| world.accepted(*offer).session.0 > 0));
}

#[test]
fn unusable_capacity_goes_to_new_sessions() {
    let mut settings = settings_of(&[(0, 100_000), (1, 100_000), (0, VOICE)]);
    settings.limits.openings_at_once = 2;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    for number in 0..40 {
        world.open(&(number / 2).to_string());
    }
    world.drive_with(|_, _| Driver::Waits);
    world.kill(A);
    // Rooms of two wait for B, because they are too large for C.
    world.answer_with(place(&[B]));
    let (late, next) = (world.offer("late"), world.offer("next"));
    assert!(!world.replies.contains_key(&late));
    assert_eq!(world.route("late")[0].0, C, "though its policy would have it wait with them");
    assert!((ms(5_000)..ms(10_000)).contains(&retry(&world, next)), "nothing else is left");
}

#[test]
fn waiting_session_precedes_new_one() {
    let mut settings = settings_of(&[(0, 100_000), (1, 100_000), (0, VOICE)]);
    settings.limits.openings_at_once = 2;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    for number in 0..40 {
        world.open(&(number / 2).to_string());
    }
    world.open("alone");
    world.drive_with(|_, _| Driver::Waits);
    world.kill(A);
    world.pass(ms(10));
    // Rooms of two wait for B, because they are too large for C.
    let last = world.room("alone");
    assert!(world.gateway.rooms[&last].heading().unwrap().hops().contains(&world.hop(C)));
    let late = world.offer("late");
    assert!((ms(5_000)..ms(10_000)).contains(&retry(&world, late)), "nothing else is left");
}

#[test]
fn refused_openings_slow_only_their_node() {
    let mut settings = settings_of(&[(0, 1_000_000), (1, 1_000_000)]);
    settings.limits.openings_at_once = 64;
    let mut world = World::with_policy(settings, &[Hook::Routing], place(&[A]));
    world.drive_with(|_, hop| if hop.node == A { Driver::Waits } else { Driver::Opens });
    for number in 0..100 {
        world.offer(&number.to_string());
    }
    assert_eq!(world.opening.len(), 64);
    let pace = |world: &World, node: NodeId| world.gateway.tables.nodes.pace(node).counts();
    for number in 0..65 {
        let (session, hop) = world.opening.pop_first().unwrap();
        world.gateway.handle_opened(session, hop, Err(NotOpened), world.now);
        world.pass(if number < 5 { ms(110) } else { ms(0) });
    }
    assert!(pace(&world, A).0 == 4 && pace(&world, B).1 == 0);
}

#[test]
fn oversized_room_steps_down_before_stranding() {
    let mut world = World::with_policy(
        settings_of(&[(0, 100_000), (1, 6 * 64 + 63)]),
        &[Hook::Routing],
        place(&[A]),
    );
    let sessions: Vec<SessionId> = (0..7).map(|number| world.open(&number.to_string())).collect();
    world.answer_with(place(&[B]));
    world.kill(A);
    world.pass(ms(200));
    assert!((0..7).all(|number| world.stands(&number.to_string()) == Some(B)), "448 in 447");
    world.audit();
    let capped: Vec<SessionId> = sessions.iter().copied().filter(|id| world.cap(*id) > 0).collect();
    assert_eq!(capped.len(), 1);
    let native = |e: &&CoreEvent| {
        matches!(e, CoreEvent::Degraded { op: Op::Cap, by: Decider::Native, rung: 1, .. })
    };
    assert_eq!(world.events().filter(native).count(), capped.len());
    let spared = sessions.iter().copied().filter(|id| !capped.contains(id));
    for session in spared.collect::<Vec<_>>() {
        world.close(session);
    }
    world.pass(ms(7_000));
    assert!(capped.iter().all(|id| world.cap(*id) > 0), "not at once");
    world.pass(ms(20_000));
    assert!(capped.iter().all(|id| world.cap(*id) == 0));
    world.audit();
}

#[test]
fn new_session_is_capped_before_refused() {
    let second = |capacity| {
        let mut world = World::new(settings_of(&[(0, capacity)]));
        world.open("r");
        let session = world.open("r");
        world.audit();
        (world.cap(session), world)
    };
    assert_eq!((second(64 + 64).0, second(64 + 63).0, second(64 + 43).0), (0, 44, 24));
    let (_, mut world) = second(64 + 24);
    let mut waits: Vec<Duration> = (0..200)
        .map(|_| {
            let offer = world.offer("r");
            retry(&world, offer)
        })
        .collect();
    assert!(waits.iter().all(|wait| (ms(2_000)..ms(4_000)).contains(wait)), "{waits:?}");
    waits.sort_unstable();
    assert!(waits[20] < ms(2_600) && waits[180] > ms(3_400), "they do not come back together");
    // A session that obeys no cap keeps its full need.
    let mut deaf = World::new(settings_of(&[(0, 64 + 44)]));
    deaf.open("r");
    deaf.takes_remb = false;
    let offer = deaf.offer("r");
    retry(&deaf, offer);
}

#[test]
fn client_with_tmmbr_alone_is_capped() {
    for (kind, is_capped) in [(StreamKind::Video, true), (StreamKind::Audio, false)] {
        let mut world = World::new(settings_of(&[(0, 64 + 44)]));
        world.open("r");
        (world.takes_remb, world.takes_tmmbr) = (false, true);
        let address = ([127, 0, 0, 1], 9).into();
        let ingress = IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None });
        let offer = world.offer_with("r", "call", &[(kind, 96, Some(64))], ingress);
        if is_capped {
            let session = world.accepted(offer).session;
            assert_eq!(world.cap(session), 44);
        } else {
            // TMMBR of a client without video caps nothing.
            retry(&world, offer);
        }
        world.audit();
    }
}

#[test]
fn same_seed_gives_same_waits() {
    let waits = |seed| {
        let mut world = World::new(settings_of(&[(0, 10)]));
        world.gateway.handle_seed(seed);
        let offers: Vec<_> = (0..8).map(|_| world.offer("r")).collect();
        offers.into_iter().map(|offer| retry(&world, offer)).collect::<Vec<_>>()
    };
    assert_eq!(waits(7), waits(7));
    assert_ne!(waits(7), waits(8));
}

#[test]
fn nearly_full_node_is_believed() {
    let mut world = World::new(settings_of(&[(0, 1_000), (0, 1_000)]));
    for _ in 0..300 {
        world.gateway.change_nodes(world.now, |nodes| nodes.handle_load(A, 950, world.now));
        world.pass(ms(10));
    }
    let loads: Vec<u64> = world.gateway.views().nodes().map(|node| node.capacity_kbps).collect();
    assert!((100..200).contains(&loads[0]) && loads[1] == 1_000, "{loads:?}");
    for number in 0..10 {
        world.open(&number.to_string());
    }
    let on = |world: &World, node| {
        world.gateway.rooms.values().filter(|room| room.holding().on == Some(node)).count()
    };
    assert!(on(&world, A) <= 2, "{}", on(&world, A));
    // The node reports no load any more, and is tried again.
    world.pass(ms(20_000));
    assert_eq!(world.gateway.views().nodes().next().unwrap().capacity_kbps, 1_000);
}

#[test]
fn full_node_keeps_no_reservation_above_load() {
    let mut world = World::new(settings_of(&[(0, 600), (1, 600)]));
    for number in 0..4 {
        world.open(&number.to_string());
    }
    let reserved = |world: &World| {
        let on_b =
            |number: &i32| world.route(&number.to_string()).contains(&(B, HopGrant::Reserved));
        (0..4).filter(on_b).count()
    };
    assert!(reserved(&world) > 0);
    world.gateway.change_nodes(world.now, |nodes| nodes.handle_full(B, world.now));
    world.settle();
    assert_eq!(reserved(&world), 0, "what it cannot take it cannot keep free");
    world.pass(ms(20_000));
    assert!(reserved(&world) > 0, "it is asked again");
}

#[test]
fn explain_shows_place_reason_alternatives() {
    let mut settings = settings_of(&[(0, 1_000), (1, 1_000), (0, 10), (2, 1_000)]);
    settings.limits.openings_at_once = 1;
    let mut world = World::new(settings);
    let session = world.open("r");
    world
        .gateway
        .change_nodes(world.now, |nodes| nodes.handle_drain(D, true, None, world.now))
        .unwrap();
    world.settle();
    let said = world.gateway.views().explain(session, world.now).unwrap();
    assert_eq!(said.state.hop.map(|hop| hop.node), Some(A));
    assert_eq!((said.admitted_by, said.room.placed_by), (Decider::Native, Decider::Native));
    let why: Vec<(NodeId, &str)> =
        said.room.candidates.iter().map(|at| (at.hop.node, at.why.name())).collect();
    assert_eq!(why, [(B, "spare"), (C, "full"), (D, "draining")]);
    let spare = &said.room.candidates[0];
    assert_eq!(spare.carried_permille, 0, "it carries nothing");
    assert!(spare.load_permille > 0, "and reserves capacity for the room");
    world.gateway.handle_move(&"r".into(), B, world.now).unwrap();
    world.settle();
    world.gateway.handle_evidence(B, NodeEvidence::KernelError, world.now);
    world.pass(ms(1));
    let said = world.gateway.views().explain(session, world.now).unwrap();
    assert_eq!(
        said.room.witnesses.first().map(|(witness, _)| witness.name()),
        Some("kernel-error")
    );
    assert_eq!(said.room.moves.len(), 1);
    assert_eq!(
        (said.room.moves[0].cause.name(), said.room.moves[0].outcome.name()),
        ("manual", "completed")
    );
    assert_eq!(*said.room.moves[0].by, Decider::Operator);
    assert!(world.gateway.views().explain(SessionId(99), world.now).is_none());
}
