//! Random worlds, each from one seed: the invariants hold after every step, whatever the order of inputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_model::{
    AdmitVerdict, Affinity, Ask, ClientIdentity, CoreEvent, Decider, DegradationAction,
    FailureScope, HOPS_MAX, Hook, HookAnswer, Hop, HopGrant, IdSet, IngressProtocol, Measures,
    ModeChange, MoveCause, NodeId, NodeSettings, OfferId, PluginFault, PolicyName, PolicyQuestion,
    RedundancyMode, RegionId, RegionRole, RoomId, RoutingMove, Scenario, SessionId, StartPhase,
    Starts, StreamKind,
};
use evenkeel_nodes::{NodeEffect, NodeEvidence};
use fastrand::Rng;

use super::super::{GatewayEffect, NotOpened};
use super::world::{Driver, Says, bound, listed};
use super::*;
use crate::Failback;
use crate::effects::Timer;
use crate::legs::LegState;
use crate::rooms::room::Room;
use crate::sessions::Session;

const SEEDS: u64 = 200;
const STEPS: usize = 300;

#[test]
fn promises_hold_whatever_happens() {
    let only = std::env::var("EVENKEEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut reached = BTreeSet::new();
    for seed in only.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        let run = std::panic::catch_unwind(|| Swarm::new(seed, Instant::now()).run());
        match run {
            Ok(words) => reached.extend(words),
            Err(_) => panic!("seed {seed}: run again with EVENKEEL_SEED={seed}"),
        }
    }
    let everywhere = ["drain", "link", "manual", "no-capacity", "node-down", "quality"];
    let others =
        ["failover", "rescued", "stranded", "hop-removed", "rerouted", "failback", "drained"];
    let others =
        others.into_iter().chain(["hitless", "copies-differ", "started", "forgot", "restored"]);
    let given_up = ["superseded", "target-lost", "not-opened", "closed"];
    let wanted = everywhere.into_iter().chain(others).chain(given_up);
    assert!(only.is_some() || wanted.clone().all(|word| reached.contains(word)), "{reached:?}");
}

/// A room was lost at a cold node, which answered the next process before the restore.
#[test]
fn cold_node_answers_during_upgrade() {
    Swarm::new(561, Instant::now()).run();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let start = Instant::now();
    let run = || {
        let mut swarm = Swarm::new(7, start);
        (0..100).for_each(|_| swarm.step());
        format!("{:?}", swarm.history)
    };
    assert_eq!(run(), run());
}

struct Swarm {
    world: World,
    rng: Rng,
    offers: BTreeSet<OfferId>,
    muted: BTreeSet<NodeId>,
    seen: Seen,
    history: Vec<GatewayEffect>,
    /// Nodes added so far.
    added: u32,
    /// Draws when another process takes over; a separate generator keeps the other steps of a seed.
    upgrades: Rng,
}

/// The state that a listener derives from the outputs.
#[derive(Default)]
struct Seen {
    installed: BTreeSet<SessionId>,
    legs: BTreeSet<(SessionId, Hop)>,
    stands: BTreeMap<RoomId, Option<Hop>>,
    epochs: BTreeMap<RoomId, evenkeel_model::Epoch>,
    moves: BTreeMap<RoomId, VecDeque<Instant>>,
    finished: u32,
    rescued: bool,
    restored: bool,
    forgot: bool,
    failover: bool,
}

impl Swarm {
    fn new(seed: u64, start: Instant) -> Swarm {
        let mut rng = Rng::with_seed(seed);
        let nodes: Vec<(u32, u64)> =
            (0..rng.usize(2..7)).map(|_| (rng.u32(0..3), rng.u64(60..900))).collect();
        let hooks: Vec<Hook> = Hook::ALL.into_iter().filter(|_| rng.bool()).collect();
        let mut settings = bound(settings_of(&nodes), &hooks);
        for node in &mut settings.nodes {
            node.role = if rng.u8(0..4) == 0 { RegionRole::Standby } else { RegionRole::Active };
            node.starts = if rng.u8(0..5) == 0 {
                Starts::ByHook { within: ms(30_000) }
            } else {
                Starts::ByItself
            };
        }
        // Separate generators keep the other draws of a seed.
        let mut reserves = Rng::with_seed(seed ^ 0x5e5e);
        let mut outside = Rng::with_seed(seed ^ 0x0d5e);
        for scenario in settings.scenarios.values_mut() {
            any_mode(&mut rng, scenario);
            // One more than there are: the default.
            scenario.reserve =
                FailureScope::ALL.get(reserves.usize(..=FailureScope::ALL.len())).copied();
            scenario.spares_outside = FailureScope::ALL[outside.usize(..FailureScope::ALL.len())];
            scenario.spares = rng.u8(1..4);
            scenario.close_after = ms(rng.u64(2_000..60_000));
        }
        settings.limits.open_within = ms(rng.u64(50..2_000));
        settings.limits.churn_percent = 100;
        // Few rooms make failovers that last if a turn is short.
        settings.limits.lost_at_once = rng.usize(1..4);
        settings.limits.openings_at_once = rng.u32(1..6);
        let mut world = World::begin(settings, start);
        let mut policy = rng.fork();
        world.answer_with(move |ask| says(&mut policy, ask, nodes.len() as u32));
        let mut driver = rng.fork();
        world.drive_with(move |_, _| match driver.u8(0..10) {
            0 => Driver::Refuses,
            1..4 => Driver::Waits,
            _ => Driver::Opens,
        });
        let (offers, muted, seen) = Default::default();
        let upgrades = Rng::with_seed(!seed);
        Swarm { world, rng, offers, muted, seen, history: Vec::new(), added: 0, upgrades }
    }

    /// Runs the world. Returns the kinds of events that occurred.
    fn run(mut self) -> BTreeSet<&'static str> {
        for _ in 0..STEPS {
            self.step();
        }
        let words = self.history.iter().filter_map(|output| match output {
            GatewayEffect::Event(CoreEvent::Moved { to: None, .. }) => Some("stranded"),
            GatewayEffect::Event(CoreEvent::Moved { cause, .. }) => Some(cause.name()),
            GatewayEffect::Event(CoreEvent::Guarded { guard, .. }) => Some(guard.name()),
            GatewayEffect::Event(CoreEvent::HopRemoved { .. }) => Some("hop-removed"),
            GatewayEffect::Event(CoreEvent::Rerouted { .. }) => Some("rerouted"),
            GatewayEffect::Event(CoreEvent::Mode { to: RedundancyMode::Hitless, .. }) => {
                Some("hitless")
            }
            GatewayEffect::Event(CoreEvent::Mode {
                why: ModeChange::CopiesDiffer { .. }, ..
            }) => Some("copies-differ"),
            GatewayEffect::Event(CoreEvent::Start { step: StartPhase::Done { .. }, .. }) => {
                Some("started")
            }
            GatewayEffect::Event(CoreEvent::MoveEnded { outcome, .. }) => Some(outcome.name()),
            GatewayEffect::Event(CoreEvent::Drained { .. }) => Some("drained"),
            _ => None,
        });
        let mut words: BTreeSet<&'static str> = words.collect();
        words.extend(self.seen.rescued.then_some("rescued"));
        words.extend(self.seen.failover.then_some("failover"));
        words.extend(self.seen.restored.then_some("restored"));
        words.extend(self.seen.forgot.then_some("forgot"));
        self.end();
        words
    }

    fn step(&mut self) {
        if self.upgrades.u8(0..50) == 0 {
            self.upgrade();
            self.listen();
            self.check();
        }
        self.act();
        self.listen();
        self.check();
    }

    fn act(&mut self) {
        let (world, rng) = (&mut self.world, &mut self.rng);
        let nodes = world.gateway.tables.nodes.slots() as u32;
        let node = NodeId(rng.u32(0..nodes));
        let sessions: Vec<SessionId> = world.gateway.tables.sessions.keys().collect();
        let session = rng.choice(&sessions).copied();
        let room = rng.u32(0..6).to_string();
        match rng.u8(0..30) {
            0..5 => {
                let scenario = if rng.u8(0..5) == 0 { "stream" } else { "call" };
                let bitrate = rng.bool().then(|| rng.u32(1..300));
                let address = ([127, 0, 0, 1], rng.u16(..)).into();
                let identity = match rng.u8(0..5) {
                    0 => ClientIdentity::Open { address, listener: 0 },
                    _ => ClientIdentity::Declared { address, rtcp: None },
                };
                let streams = [(StreamKind::Audio, 111, bitrate), (StreamKind::Video, 96, Some(0))];
                let offer =
                    world.offer_with(&room, scenario, &streams, IngressProtocol::Udp(identity));
                self.offers.insert(offer);
            }
            5..7 => {
                if let Some(session) = session {
                    world.gateway.handle_close(session, world.now).unwrap();
                }
            }
            7 => {
                world.mute(node);
                self.muted.insert(node);
            }
            8 => {
                world.mute(node);
                self.muted.insert(node);
                world.gateway.handle_evidence(node, NodeEvidence::KernelError, world.now);
            }
            9..12 => {
                if let Some(node) = self.muted.pop_first() {
                    world.unmute(node);
                }
            }
            12 => {
                let _ = world.gateway.handle_move(&room.as_str().into(), node, world.now);
            }
            13 => {
                let within = rng.bool().then(|| ms(rng.u64(10..5_000)));
                let _ = match rng.u8(0..6) {
                    0 => world
                        .gateway
                        .change_nodes(world.now, |nodes| nodes.handle_eject(node, world.now)),
                    1 => world.gateway.change_nodes(world.now, |nodes| nodes.handle_return(node)),
                    2 => {
                        let failback = *rng.choice(&Failback::ALL).unwrap();
                        world.gateway.handle_failback(None, failback, world.now)
                    }
                    _ => world.gateway.change_nodes(world.now, |nodes| {
                        nodes.handle_drain(node, rng.bool(), within, world.now)
                    }),
                };
            }
            14..16 => {
                let opening: Vec<(SessionId, Hop)> = world.opening.iter().copied().collect();
                for (session, hop) in opening {
                    if rng.bool() {
                        world.opening.remove(&(session, hop));
                        let result = if rng.u8(0..6) == 0 { Err(NotOpened) } else { Ok(()) };
                        self.opened(session, hop, result);
                        break;
                    }
                }
            }
            16 => {
                if let Some(session) = session {
                    let legs = world.gateway.tables.sessions[&session].legs();
                    let hops: Vec<Hop> = legs.iter().map(|(hop, _)| *hop).collect();
                    if let Some(hop) = rng.choice(&hops) {
                        world.gateway.handle_port_closed(session, *hop, world.now);
                    }
                }
            }
            17 => {
                for session in &sessions {
                    if rng.u8(0..4) > 0 {
                        let now = Some(world.now);
                        world.gateway.handle_summary(*session, Measures::default(), now);
                    }
                }
            }
            18 => {
                let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
                world.gateway.handle_policy_changed(&policy, world.now);
            }
            25 => {
                let mut scenarios = world.gateway.tables.settings.scenarios.clone();
                for scenario in scenarios.values_mut() {
                    any_mode(rng, scenario);
                    scenario.spares = rng.u8(1..4);
                }
                world.gateway.handle_scenarios(&scenarios, world.now);
            }
            26 => {
                if let Some(session) = session {
                    let room = world.gateway.tables.sessions[&session].room();
                    let route = world.gateway.rooms[&room].route();
                    let hops: Vec<Hop> = route.hops.iter().map(|(hop, _)| *hop).collect();
                    if let [first, second, ..] = hops[..] {
                        world.gateway.handle_unalike(session, [second, first], world.now);
                    }
                }
            }
            27 => {
                if let Some(node) = world.starts.pop() {
                    match rng.u8(0..3) {
                        0 => world.gateway.change_nodes(world.now, |nodes| {
                            nodes.handle_start_failed(node, world.now);
                        }),
                        _ => world.unmute(node),
                    }
                }
            }
            24 => match rng.u8(0..4) {
                0 => world
                    .gateway
                    .change_nodes(world.now, |nodes| nodes.handle_full(node, world.now)),
                1 => world.gateway.change_nodes(world.now, |nodes| {
                    nodes.handle_load(node, rng.u16(0..1_200), world.now);
                }),
                _ => world.gateway.handle_evidence(
                    node,
                    NodeEvidence::Willing(rng.bool()),
                    world.now,
                ),
            },
            19 => {
                if !world.held.is_empty() {
                    let ask = world.held.swap_remove(rng.usize(0..world.held.len()));
                    if let Some(result) = says(rng, &ask, nodes) {
                        world.answer(&ask, result);
                    }
                }
            }
            20 => world.pass(ms(rng.u64(200..1_500))),
            28 => {
                let _ = match rng.u8(0..4) {
                    0 => {
                        let capacity_kbps = rng.u64(60..900);
                        let settings = NodeSettings { capacity_kbps, ..listed(rng.u32(0..3)) };
                        self.added += 1;
                        let name = format!("new{}", self.added).into();
                        world.add(NodeSettings { name, ..settings }).map(drop)
                    }
                    1 => world
                        .gateway
                        .change_nodes(world.now, |nodes| nodes.handle_node_kept(node, world.now)),
                    // A measured capacity below the carried load breaks no guarantee, and is tested separately.
                    2 => {
                        match world.gateway.tables.nodes.get(node).map(|node| node.settings.clone())
                        {
                            Some(NodeSettings { name, capacity_kbps, .. }) => {
                                let capacity_kbps = capacity_kbps + rng.u64(0..300);
                                let settings = listed(rng.u32(0..3));
                                let settings = NodeSettings { name, capacity_kbps, ..settings };
                                world.gateway.change_nodes(world.now, |nodes| {
                                    nodes.handle_node_changed(node, settings, world.now)
                                })
                            }
                            None => Ok(()),
                        }
                    }
                    _ => {
                        let within = rng.bool().then(|| ms(rng.u64(10..5_000)));
                        world.gateway.change_nodes(world.now, |nodes| {
                            nodes.handle_node_removed(node, within, world.now)
                        })
                    }
                };
            }
            _ => {
                // The next input may well come during a failover.
                for _ in 0..rng.u64(0..40) {
                    world.pass(ms(1));
                    if world.gateway.fails_over() && rng.u8(0..4) > 0 {
                        break;
                    }
                }
            }
        }
        self.world.settle();
    }

    /// Another process continues the sessions.
    fn upgrade(&mut self) {
        let gateway = &self.world.gateway;
        if gateway.tables.nodes.iter().all(|node| node.trust.removed) {
            return;
        }
        let nodes: BTreeMap<NodeId, Hop> =
            gateway.tables.nodes.iter().map(|node| (node.id, node.hop())).collect();
        let live = gateway.tables.sessions.values().filter(|session| session.is_live());
        let live: BTreeSet<SessionId> = live.map(Session::id).collect();
        let alone = if self.upgrades.bool() { 0 } else { self.upgrades.u64(1..300) };
        let hops = self.world.hand_over(ms(alone));
        let seen = &mut self.seen;
        seen.restored |= !live.is_empty();
        let mapped = |(session, hop): &(SessionId, Hop)| Some((*session, hops.map(*hop)?));
        seen.legs.retain(|(session, _)| live.contains(session));
        seen.legs = seen.legs.iter().filter_map(mapped).collect();
        seen.installed = live;
        seen.stands.values_mut().flatten().for_each(|hop| *hop = hops.past(*hop));
        let moved = |node: &NodeId| Some(hops.map(*nodes.get(node)?)?.node);
        self.muted = self.muted.iter().filter_map(moved).collect();
        self.offers.clear();
        self.world.replies.clear();
    }

    fn opened(&mut self, session: SessionId, hop: Hop, result: Result<(), NotOpened>) {
        if result.is_err() {
            self.seen.legs.remove(&(session, hop));
        }
        self.world.gateway.handle_opened(session, hop, result, self.world.now);
    }

    /// Checks that the outputs of this step are consistent with earlier ones.
    fn listen(&mut self) {
        let outputs = std::mem::take(&mut self.world.outputs);
        let seen = &mut self.seen;
        for output in &outputs {
            match output {
                GatewayEffect::Install(it, _) => assert!(seen.installed.insert(it.session)),
                GatewayEffect::Open { session, hop, .. } => {
                    assert!(seen.installed.contains(session), "{output:?}");
                    // The driver may have refused the opening at once.
                    seen.legs.insert((*session, *hop));
                }
                GatewayEffect::CloseAt { session, hop } => {
                    assert!(seen.installed.contains(session), "{output:?}");
                    assert!(seen.legs.remove(&(*session, *hop)), "{output:?}");
                }
                GatewayEffect::Plan { session, .. } => assert!(seen.installed.contains(session)),
                GatewayEffect::KeyFrame(sessions) => {
                    assert!(!sessions.is_empty());
                    assert!(sessions.iter().all(|session| seen.installed.contains(session)));
                }
                GatewayEffect::End { session, .. } => {
                    assert!(seen.installed.remove(session), "{output:?}");
                    // The driver had refused the remaining legs.
                    seen.legs.retain(|(other, _)| other != session);
                }
                GatewayEffect::Reply { result: Ok(accepted), .. } => {
                    assert!(seen.installed.contains(&accepted.session));
                }
                GatewayEffect::Event(event) => seen.hear(event, self.world.now),
                GatewayEffect::Finished => seen.finished += 1,
                GatewayEffect::Restore(it) => assert!(seen.installed.contains(&it.session)),
                GatewayEffect::Ask(_)
                | GatewayEffect::Reply { .. }
                | GatewayEffect::Node(NodeEffect::Probe { .. })
                | GatewayEffect::Node(NodeEffect::Canary { .. })
                | GatewayEffect::Node(NodeEffect::Start(_))
                | GatewayEffect::Node(NodeEffect::EndStart { .. })
                | GatewayEffect::Node(NodeEffect::Stop(_) | NodeEffect::EndStop(_))
                | GatewayEffect::Rollout(_)
                | GatewayEffect::Unload { .. }
                | GatewayEffect::PolicyChanged(_) => {}
                GatewayEffect::Node(NodeEffect::Forget(_)) => seen.forgot = true,
            }
        }
        self.history.extend(outputs);
    }

    fn check(&mut self) {
        let gateway = &self.world.gateway;
        let seen = &mut self.seen;
        seen.failover |= gateway.fails_over();
        match gateway.tables.capacity.ledger().audit(gateway.rooms.values().map(Room::holding)) {
            // While a failover is under way, standbys carry what they kept free for one death, and still keep for others.
            Err(wrong) if gateway.fails_over() && wrong.contains("over its capacity") => {}
            right => right.unwrap(),
        }
        seen.stands.retain(|id, _| gateway.rooms.contains_key(id));
        seen.epochs.retain(|id, _| gateway.rooms.contains_key(id));
        let live = gateway.tables.sessions.values().filter(|session| session.is_live());
        assert_eq!(gateway.live(), live.count());
        for region in gateway.tables.nodes.regions() {
            let away = gateway
                .tables
                .worklists
                .away
                .rooms()
                .iter()
                .filter(|id| gateway.rooms[*id].region() == region);
            assert_eq!(gateway.tables.worklists.away.of_region(region), away.count());
        }
        for room in gateway.rooms.values() {
            assert_eq!(gateway.rooms.named(room.name()), Some((room.name(), room.id())));
            assert!(!room.sessions().is_empty());
            assert!(
                room.sessions().iter().all(|id| gateway.tables.sessions[id].room() == room.id())
            );
            let route = room.route();
            let dead =
                gateway.tables.worklists.failover.deaths().into_iter().map(|death| death.hop());
            let dead: Vec<Hop> = dead.filter(|dead| room.leads_to(*dead)).collect();
            let hops: Vec<Hop> = route.hops.iter().map(|(hop, _)| *hop).collect();
            let pending = room.heading().map(|heading| heading.hops().to_vec());
            for hops in [Some(&hops), pending.as_ref()].into_iter().flatten() {
                let nodes: BTreeSet<NodeId> = hops.iter().map(|hop| hop.node).collect();
                assert!(nodes.len() == hops.len() && hops.len() <= HOPS_MAX, "{hops:?}");
                let up = |hop: &Hop| dead.contains(hop) || gateway.tables.nodes.is_up(*hop);
                assert!(hops.iter().all(up), "a dead hop on {hops:?}");
            }
            let nodes: Vec<NodeId> = hops.iter().map(|hop| hop.node).collect();
            let allowed = gateway.tables.node_choice(room, self.world.now);
            let allowed = allowed.without_inside_spares(&nodes);
            let changes = gateway.tables.worklists.changing.contains(&room.id());
            assert!(nodes == allowed || changes, "a spare beside the first of {hops:?}");
            for (place, (_, grant)) in route.hops.iter().enumerate() {
                match (place, grant) {
                    (0, HopGrant::Admitted) | (_, HopGrant::Gated) => {}
                    (1, HopGrant::Reserved) => assert!(room.mode().opens_ahead(), "{route:?}"),
                    (1, HopGrant::Admitted) => {
                        assert_eq!(route.mode, RedundancyMode::Hitless, "{route:?}");
                    }
                    wrong => panic!("{wrong:?} on {route:?}"),
                }
            }
            if room.is_placed() && !gateway.tables.worklists.changing.contains(&room.id()) {
                assert_eq!(room.mode(), gateway.tables.settings.scenarios[room.scenario()].mode);
                assert!(
                    route.mode == room.mode() || room.mode() == RedundancyMode::Hitless,
                    "{route:?}"
                );
            }
            let now = route.first_usable(gateway.tables.nodes.board());
            let lost = now.is_none() && room.is_placed();
            assert!(lost == room.stranded().is_some() || !dead.is_empty());
            if let Some((_, epoch)) = now {
                let last = seen.epochs.insert(room.id(), epoch);
                assert!(last.is_none_or(|last| last <= epoch), "{last:?} {epoch:?}");
            }
            if room.is_placed() {
                // The event comes when the room fails over.
                let waits = dead.iter().find(|dead| room.holding().on == Some(dead.node));
                let stands = waits.copied().or(now.map(|(hop, _)| hop));
                let told = seen.stands.insert(room.id(), stands);
                assert!(told.is_none_or(|told| told == stands), "{told:?}, not {stands:?}");
            }
            assert!(!room.is_opened(), "nothing keeps it back");
            let listed: BTreeSet<NodeId> =
                hops.iter().chain(pending.iter().flatten()).map(|hop| hop.node).collect();
            let found = |at: &IdSet<RoomId>| at.contains(room.id());
            let places = gateway
                .tables
                .worklists
                .by_node
                .all()
                .iter()
                .enumerate()
                .filter(|(_, at)| found(at));
            assert!(places.map(|(at, _)| NodeId(at as u32)).eq(listed));
        }
        for session in gateway.tables.sessions.values() {
            let told =
                session.legs().iter().filter(|(_, leg)| !matches!(leg, LegState::Waiting { .. }));
            assert!(told.map(|(hop, _)| hop).all(|hop| seen.legs.contains(&(session.id(), *hop))));
            let used = gateway.rooms[&session.room()].hops_in_use(self.world.now);
            assert!(
                session.legs().iter().all(|(hop, _)| used.contains(hop)),
                "a leg was left behind: {session:?} {used:?}"
            );
            let there = |hop: &Hop| gateway.tables.nodes.get(hop.node).is_some();
            assert!(
                session.legs().iter().all(|(hop, _)| there(hop)),
                "a leg at a node that is gone"
            );
        }
        assert_eq!(
            gateway.standing_rooms(),
            gateway.rooms.values().filter(|room| room.is_placed()).count()
        );
        for result in self.world.replies.values().flatten() {
            if let Some(room) = gateway.rooms.get(&result.room) {
                assert!(std::sync::Arc::ptr_eq(room.cell(), &result.route));
            }
        }
        for (place, pace) in gateway.tables.nodes.opening_windows().enumerate() {
            let legs = gateway.tables.sessions.values().flat_map(|session| session.legs().iter());
            let here = legs.filter(|(hop, _)| hop.node.0 as usize == place);
            let (waiting, asked): (Vec<_>, Vec<_>) = here
                .filter(|(_, leg)| **leg != LegState::Open)
                .partition(|(_, leg)| matches!(leg, LegState::Waiting { .. }));
            assert_eq!(pace.counts(), (asked.len() as u32, waiting.len()), "n{place}");
        }
        let (rooms, sessions) = (gateway.rooms.len(), gateway.tables.sessions.len());
        let bound = gateway.tables.nodes.count() * 4
            + gateway.questions.in_flight().len()
            + sessions
            + rooms * 2
            + 8;
        assert!(gateway.tables.effects.timers_set() <= bound);
        assert!(
            gateway.tables.worklists.stranded.len() <= rooms
                && gateway.tables.worklists.unprotected() <= rooms
        );
        assert_eq!(gateway.tables.worklists.stranded.len(), {
            gateway.rooms.values().filter(|room| room.stranded().is_some()).count()
        });
    }

    /// Closes all sessions. Then no state must remain, and every offer was answered.
    fn end(mut self) {
        self.world.gateway.handle_shutdown(Duration::from_secs(3), self.world.now);
        self.world.pass(Duration::from_secs(20));
        self.listen();
        self.check();
        let gateway = &self.world.gateway;
        assert!(gateway.tables.sessions.is_empty() && gateway.rooms.len() == 0);
        assert!(gateway.rooms.len() == 0 && gateway.questions.in_flight().len() == 0);
        assert!(gateway.rooms.calls() == 0 && gateway.tables.worklists.changing.is_empty());
        assert!(gateway.tables.worklists.by_node.all().iter().all(IdSet::is_empty));
        assert!(gateway.questions.most_rerouted() == 0);
        assert!(
            gateway.tables.worklists.stranded.is_empty()
                && gateway.tables.worklists.unprotected() == 0
        );
        assert!(
            gateway.tables.worklists.away.is_empty() && gateway.tables.capacity.reduced.len() == 0
        );
        assert!(gateway.tables.nodes.opening_windows().all(|pace| pace.counts() == (0, 0)));
        assert!(gateway.tables.sessions.most_ticked() == 0 && gateway.tables.reviews.len() == 0);
        let endless = |timer: &Timer| {
            let of_nodes = matches!(timer, Timer::Probe(_) | Timer::StartLate(_));
            of_nodes
                || matches!(timer, Timer::Sweep | Timer::Weigh | Timer::Tick(_) | Timer::Breakers)
        };
        assert!(gateway.tables.effects.timers().iter().all(|timer| endless(&timer)));
        assert_eq!(self.seen.finished, 1);
        assert!(self.seen.installed.is_empty() && self.seen.legs.is_empty());
        assert!(self.offers.iter().all(|offer| self.world.replies.contains_key(offer)));
    }
}

impl Seen {
    fn hear(&mut self, event: &CoreEvent, now: Instant) {
        let CoreEvent::Moved { room, cause, by, from, to, .. } = event else { return };
        match self.stands.get(room) {
            Some(Some(stood)) => assert_eq!(stood, from, "{event:?}"),
            Some(None) => self.rescued = true,
            None => {}
        }
        assert_ne!(Some(*from), *to);
        self.stands.insert(*room, *to);
        if *cause == MoveCause::NodeDown || *by == Decider::Operator {
            return;
        }
        let moves = self.moves.entry(*room).or_default();
        moves.push_back(now);
        moves.retain(|at| now - *at < Duration::from_secs(59));
        assert!(moves.len() <= 3, "{event:?}");
    }
}

/// A random mode, order of regions and affinity.
fn any_mode(rng: &mut Rng, scenario: &mut Scenario) {
    scenario.mode = RedundancyMode::ALL[rng.usize(0..RedundancyMode::ALL.len())];
    scenario.affinity = if rng.u8(0..4) == 0 { Affinity::Session } else { Affinity::Room };
    scenario.regions = (0..rng.u32(0..3)).map(RegionId).collect();
    rng.shuffle(&mut scenario.regions);
}

/// The answer of a policy: often valid, sometimes invalid, a fault, or none.
fn says(rng: &mut Rng, ask: &Ask, nodes: u32) -> Says {
    match rng.u8(0..10) {
        0 => return None,
        1 => return Some(Err(PluginFault::Deadline)),
        2 => return Some(Ok(HookAnswer::Params(vec![("spares".into(), rng.i64(..))]))),
        _ => {}
    }
    let hops = |rng: &mut Rng| -> Vec<NodeId> {
        let mut hops: Vec<NodeId> = (0..nodes).map(NodeId).collect();
        rng.shuffle(&mut hops);
        hops.truncate(rng.usize(0..6));
        if rng.u8(0..10) == 0 {
            hops.push(NodeId(rng.u32(..)));
        }
        hops
    };
    let row = |rng: &mut Rng, rows: usize| rng.u32(0..rows as u32 + 1);
    Some(Ok(match &ask.question {
        PolicyQuestion::Resolve { .. } => {
            let keys = ["bitrate-ceiling", "bitrate-floor", "spares", "priority", "close-after"];
            let params = keys.map(|key| (key.into(), rng.i64(-5..3_000)));
            HookAnswer::Params(params.into_iter().collect())
        }
        PolicyQuestion::Admit { .. } => HookAnswer::Admit {
            verdict: match rng.u8(0..9) {
                0 => AdmitVerdict::Reject(rng.u32(..)),
                1 => AdmitVerdict::Redirect(RegionId(rng.u32(0..4))),
                2 => AdmitVerdict::AcceptCapped(rng.u32(..)),
                3 => AdmitVerdict::Abstain,
                _ => AdmitVerdict::Accept,
            },
            reason: 0,
        },
        PolicyQuestion::Place { .. } => placement(&hops(rng), rng.u32(0..3) * 200),
        PolicyQuestion::Reroute { rooms, .. } => HookAnswer::Moves {
            moves: (0..rng.usize(0..4))
                .map(|_| RoutingMove {
                    row: row(rng, rooms.len()),
                    hops: hops(rng),
                    ttl_ms: rng.u32(0..3) * 200,
                    reason: 0,
                })
                .collect(),
            states: vec![(row(rng, rooms.len()), state(b"s"))],
            memo: Some(state(b"m")),
        },
        PolicyQuestion::Tick { sessions, .. } => HookAnswer::Actions {
            actions: (0..rng.usize(0..4))
                .map(|_| DegradationAction {
                    row: row(rng, sessions.len()),
                    op: rng.u32(0..4),
                    arg: rng.u64(0..3),
                    reason: 0,
                })
                .collect(),
            states: vec![(row(rng, sessions.len()), state(b"s"))],
            memo: None,
        },
    }))
}
