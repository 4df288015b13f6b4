//! The world around the gateway: a driver, nodes that send and answer probes, and policies with the answers of a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_model::{
    AcceptedOffer, AdmitOnFault, AdmitVerdict, Affinity, Ask, CapBounds, ClientIdentity, CoreEvent,
    CoreSettings, FailureScope, FeedbackSupport, GatewayLimits, Hook, HookAnswer, Hop, HopGrant,
    Incarnation, IngressProtocol, Labels, MediaDescription, MediaStream, NodeId, NodeSettings,
    Offer, OfferId, OfferRefusal, PayloadType, PluginFault, PluginState, PolicyName,
    RedundancyMode, RegionId, RevisionAnswer, RoomId, RtcpPort, Scenario, SessionId, Srtp, Stamp,
    Starts, StreamKind, Timings, Zone, ZoneId,
};
use evenkeel_nodes::{NodeEffect, NodeEvidence, WATCH_EVERY};

use super::super::{Gateway, GatewayEffect, Impossible, NotOpened};
use super::restoring::assert_continued;
use crate::rooms::placement::UsableNodes;
use crate::rooms::room::Room;
use crate::{ArmStatistics, ChangedRecords, GatewayRecord, HopMap, RoomRecord, SessionRecord};

pub(crate) const A: NodeId = NodeId(0);
pub(super) const B: NodeId = NodeId(1);
pub(super) const C: NodeId = NodeId(2);
pub(super) const D: NodeId = NodeId(3);

/// The load of a voice session.
pub(super) const VOICE: u64 = 64;

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two zones at home and one in another region. One node each, and a second in the first zone. All have enough
/// capacity.
pub(crate) fn settings() -> CoreSettings {
    settings_of(&[(0, 100_000), (1, 100_000), (0, 100_000), (2, 100_000)])
}

/// Nodes by zone and capacity in kbit/s. No policies are bound; every scenario is named `call` or `late`.
pub(super) fn settings_of(nodes: &[(u32, u64)]) -> CoreSettings {
    let zone = |name: &str, region| Zone { name: name.into(), region: RegionId(region) };
    let scenario = Scenario {
        set: "call".into(),
        bound: [false; 4],
        bounds: CapBounds { floor_kbps: 24, ceiling_kbps: 2_000 },
        mode: RedundancyMode::Hot,
        affinity: Affinity::Room,
        regions: Vec::new(),
        spares: 1,
        reserve: Some(FailureScope::Node),
        spares_outside: FailureScope::Node,
        close_after: Duration::from_secs(30),
        priority: 0,
        slo: None,
        on_admission_fault: AdmitOnFault::Admit,
        on_degradation_fault: evenkeel_model::DegradeOnFault::Hold,
    };
    let node = |(at, &(zone, capacity_kbps)): (usize, &(u32, u64))| {
        NodeSettings::new(format!("n{at}"), ZoneId(zone), capacity_kbps)
    };
    CoreSettings {
        home: RegionId(0),
        regions: vec!["home".into(), "away".into()],
        carriers: Vec::new(),
        zones: vec![zone("a", 0), zone("b", 0), zone("c", 1)],
        nodes: nodes.iter().enumerate().map(node).collect(),
        scenarios: BTreeMap::from([
            ("call".into(), scenario.clone()),
            ("stream".into(), Scenario { priority: -1, ..scenario }),
        ]),
        timings: Timings::default(),
        limits: GatewayLimits::default(),
    }
}

/// Settings of a node that a test may add.
pub(crate) fn listed(zone: u32) -> NodeSettings {
    NodeSettings { name: "new".into(), ..settings_of(&[(zone, 100_000)]).nodes.remove(0) }
}

/// The driver's answer to the request to open a session at a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Driver {
    Opens,
    Refuses,
    Waits,
}

/// The answer of a policy.
pub(super) type Says = Option<Result<HookAnswer, PluginFault>>;
type Policy = Box<dyn FnMut(&Ask) -> Says>;

/// The true state of a simulated node.
#[derive(Clone, Copy, Default)]
struct Fake {
    dead: bool,
    /// The node answers probes, and sends no media.
    hushed: bool,
    /// The node opens sessions, and forwards nothing.
    gray: bool,
    /// An agent answers probes for the node without checking its process.
    agent: bool,
    /// Percentage of lost probes.
    lost_percent: u32,
    received: u64,
    last_received: Option<Instant>,
}

pub(super) struct World {
    pub(super) gateway: Gateway,
    pub(super) now: Instant,
    fakes: Vec<Fake>,
    policy: Policy,
    driver: Box<dyn FnMut(SessionId, Hop) -> Driver>,
    /// Probes to each node.
    pub(super) probes: BTreeMap<NodeId, u32>,
    /// All outputs except probes and canaries.
    pub(super) outputs: Vec<GatewayEffect>,
    pub(super) replies: BTreeMap<OfferId, Result<AcceptedOffer, OfferRefusal>>,
    /// Unanswered questions.
    pub(super) held: Vec<Ask>,
    /// Nodes with a start hook that was called.
    pub(super) starts: Vec<NodeId>,
    /// The records, as a follower has them.
    followed: BTreeMap<SessionId, (SessionRecord, Arc<MediaDescription>)>,
    followed_rooms: BTreeMap<RoomId, RoomRecord>,
    /// Openings that the driver has not finished.
    pub(super) opening: BTreeSet<(SessionId, Hop)>,
    last_stamps: Instant,
    /// New sessions obey caps by REMB.
    pub(super) takes_remb: bool,
    /// New sessions obey caps of video by TMMBR.
    pub(super) takes_tmmbr: bool,
    /// Labels of the next offers.
    pub(super) labels: Labels,
    rng: fastrand::Rng,
    offers: u64,
    next_port: u16,
}

impl World {
    pub(super) fn new(settings: CoreSettings) -> World {
        World::begin(settings, Instant::now())
    }

    pub(super) fn begin(settings: CoreSettings, now: Instant) -> World {
        let fake =
            |node: &NodeSettings| Fake { dead: node.starts != Starts::ByItself, ..Fake::default() };
        let fakes = settings.nodes.iter().map(fake).collect();
        let mut world = World {
            gateway: Gateway::new(settings, now),
            now,
            fakes,
            policy: Box::new(|_| None),
            driver: Box::new(|_, _| Driver::Opens),
            probes: BTreeMap::new(),
            outputs: Vec::new(),
            replies: BTreeMap::new(),
            held: Vec::new(),
            starts: Vec::new(),
            followed: BTreeMap::new(),
            followed_rooms: BTreeMap::new(),
            opening: BTreeSet::new(),
            last_stamps: now,
            takes_remb: true,
            takes_tmmbr: false,
            labels: Labels::default(),
            rng: fastrand::Rng::with_seed(7),
            offers: 0,
            next_port: 1_000,
        };
        world.gateway.records().follow();
        // Long enough to measure each node's rate.
        world.pass(ms(3_000));
        world.outputs.clear();
        world
    }

    /// A world with these hooks bound to one closure; `None` leaves a question unanswered.
    pub(super) fn with_policy(
        settings: CoreSettings,
        hooks: &[Hook],
        policy: impl FnMut(&Ask) -> Says + 'static,
    ) -> World {
        let mut world = World::new(bound(settings, hooks));
        world.policy = Box::new(policy);
        world
    }

    pub(super) fn answer_with(&mut self, policy: impl FnMut(&Ask) -> Says + 'static) {
        self.policy = Box::new(policy);
    }

    pub(super) fn drive_with(&mut self, driver: impl FnMut(SessionId, Hop) -> Driver + 'static) {
        self.driver = Box::new(driver);
    }

    /// Polls all outputs, as required after every input.
    pub(super) fn settle(&mut self) {
        self.follow();
        while let Some(output) = self.gateway.poll_output() {
            match &output {
                GatewayEffect::Node(NodeEffect::Probe { node, sequence }) => {
                    *self.probes.entry(*node).or_default() += 1;
                    let fake = self.fakes[node.0 as usize];
                    if self.rng.u32(0..100) < fake.lost_percent {
                        continue;
                    }
                    if fake.agent {
                        self.gateway.handle_evidence(
                            *node,
                            NodeEvidence::AgentAnswered(*sequence),
                            self.now,
                        );
                    } else if !fake.dead {
                        self.gateway.handle_evidence(
                            *node,
                            NodeEvidence::ProbeAnswered(*sequence),
                            self.now,
                        );
                    }
                    continue;
                }
                GatewayEffect::Node(NodeEffect::Canary { node, sequence }) => {
                    let fake = self.fakes[node.0 as usize];
                    if !fake.dead {
                        self.gateway.handle_evidence(*node, NodeEvidence::CanaryOpen, self.now);
                    }
                    if !fake.dead && !fake.gray {
                        self.gateway.handle_evidence(
                            *node,
                            NodeEvidence::CanaryPassed(*sequence),
                            self.now,
                        );
                    }
                    continue;
                }
                GatewayEffect::Ask(ask) => match (self.policy)(ask) {
                    Some(result) => self.answer(ask, result),
                    None => self.held.push(ask.clone()),
                },
                GatewayEffect::Open { session, hop, .. } => match (self.driver)(*session, *hop) {
                    Driver::Opens => self.gateway.handle_opened(*session, *hop, Ok(()), self.now),
                    Driver::Refuses => {
                        self.gateway.handle_opened(*session, *hop, Err(NotOpened), self.now);
                    }
                    Driver::Waits => {
                        self.opening.insert((*session, *hop));
                    }
                },
                GatewayEffect::Reply { offer, result } => {
                    let before = self.replies.insert(*offer, result.clone());
                    assert!(before.is_none(), "{offer} was answered twice");
                }
                GatewayEffect::Install(..)
                | GatewayEffect::Restore(_)
                | GatewayEffect::CloseAt { .. }
                | GatewayEffect::Plan { .. }
                | GatewayEffect::Node(NodeEffect::EndStart { .. })
                | GatewayEffect::Node(NodeEffect::Stop(_) | NodeEffect::EndStop(_))
                | GatewayEffect::KeyFrame(_)
                | GatewayEffect::End { .. }
                | GatewayEffect::Rollout(_)
                | GatewayEffect::Unload { .. }
                | GatewayEffect::PolicyChanged(_)
                | GatewayEffect::Event(_)
                | GatewayEffect::Finished => {}
                GatewayEffect::Node(NodeEffect::Start(node)) => self.starts.push(*node),
                GatewayEffect::Node(NodeEffect::Forget(node)) => {
                    self.fakes[node.0 as usize] = Fake { dead: true, ..Fake::default() };
                }
            }
            self.outputs.push(output);
        }
    }

    pub(super) fn answer(&mut self, ask: &Ask, result: Result<HookAnswer, PluginFault>) {
        let answered = result.map(|answer| RevisionAnswer {
            answer,
            revision: "0123456789ab".into(),
            notes: Vec::new(),
            took: Duration::from_micros(5),
            isolated: None,
            reasons: [].into(),
            ungranted: 0,
        });
        self.gateway.handle_answer(ask.id, answered, self.now);
    }

    /// Answers the oldest unanswered question.
    pub(super) fn answer_held(&mut self, result: Result<HookAnswer, PluginFault>) {
        let ask = self.held.remove(0);
        self.answer(&ask, result);
        self.settle();
    }

    /// Completes the driver's pending openings at this node.
    pub(super) fn finish_opening(&mut self, node: NodeId, result: Result<(), NotOpened>) {
        for (session, hop) in self.opening.clone() {
            if hop.node == node {
                self.opening.remove(&(session, hop));
                self.gateway.handle_opened(session, hop, result, self.now);
                self.settle();
            }
        }
    }

    /// Lets time pass: due timers fire, and workers' stamps come every 2 ms.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        loop {
            let stamps = self.last_stamps + WATCH_EVERY;
            let timer = self.gateway.poll_timeout().unwrap_or(end);
            let next = stamps.min(timer);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if timer <= self.now {
                self.gateway.handle_timeout(self.now);
                self.settle();
            }
            if stamps <= self.now {
                self.stamp(Duration::ZERO);
            }
        }
        self.now = end;
    }

    /// Sends the workers' stamps: every live node has sent two packets, and was just sent one.
    pub(super) fn stamp(&mut self, workers_late: Duration) {
        self.last_stamps = self.now;
        let now = self.now;
        let stamps: Vec<Stamp> = self
            .fakes
            .iter_mut()
            .map(|fake| {
                if !fake.dead && !fake.hushed {
                    fake.received += 2;
                    fake.last_received = Some(now);
                }
                Stamp {
                    last_received: fake.last_received,
                    received: fake.received,
                    last_sent: Some(now),
                }
            })
            .collect();
        self.gateway.handle_watch(&stamps, workers_late, now);
        self.settle();
    }

    /// Ends the node's process, which the kernel reports. Returns when the gateway has noticed.
    pub(super) fn kill(&mut self, node: NodeId) {
        self.fakes[node.0 as usize].dead = true;
        self.gateway.handle_evidence(node, NodeEvidence::KernelError, self.now);
        for _ in 0..20 {
            self.pass(WATCH_EVERY);
            if !self.gateway.board().cell(node).unwrap().up {
                return;
            }
        }
        panic!("{node} died, and nobody knows after 40 ms");
    }

    pub(super) fn mute(&mut self, node: NodeId) {
        self.fakes[node.0 as usize].dead = true;
    }

    pub(super) fn hush(&mut self, node: NodeId) {
        self.fakes[node.0 as usize].hushed = true;
    }

    /// Loses this percentage of the node's probes from now on.
    pub(super) fn lose_probes(&mut self, node: NodeId, percent: u32) {
        self.fakes[node.0 as usize].lost_percent = percent;
    }

    /// Makes the node open sessions and answer probes without forwarding.
    pub(super) fn turn_gray(&mut self, node: NodeId, gray: bool) {
        let fake = &mut self.fakes[node.0 as usize];
        (fake.gray, fake.hushed) = (gray, gray);
    }

    pub(super) fn answer_probes_for(&mut self, node: NodeId) {
        self.fakes[node.0 as usize].agent = true;
    }

    pub(super) fn unmute(&mut self, node: NodeId) {
        self.fakes[node.0 as usize].dead = false;
    }

    /// Another process continues the sessions, after it has run for `alone` without them. It lists the nodes that are
    /// not being removed, in the same order.
    pub(super) fn hand_over(&mut self, alone: Duration) -> HopMap {
        self.settle();
        let last = self.gateway.records().take_changed(None, self.now);
        self.take(last);
        let record = self.gateway.record(self.now);
        self.assert_followed(&record);
        let failing = self.gateway.fails_over();
        self.restart(alone);
        let hops = self.begin_restore(&record);
        let all_listed = record.nodes.iter().all(|node| hops.map(node.hop).is_some());
        if alone.is_zero() && all_listed && !failing {
            assert_continued(&record, &self.gateway.record(self.now), &hops);
        }
        self.settle();
        hops
    }

    /// Replaces the gateway by one without sessions, which runs for this time.
    pub(super) fn restart(&mut self, alone: Duration) {
        let listed = self.gateway.tables.nodes.iter().filter(|node| !node.trust.removed);
        let (fakes, nodes) = listed
            .map(|node| (self.fakes[node.id.0 as usize], node.settings.clone()))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let zones = self.gateway.node_table().zones().to_vec();
        let settings = CoreSettings { nodes, zones, ..self.gateway.tables.settings.clone() };
        self.gateway = Gateway::new(settings, self.now);
        self.followed.clear();
        self.followed_rooms.clear();
        self.gateway.records().follow();
        self.fakes = fakes;
        self.held.clear();
        self.opening.clear();
        self.starts.clear();
        if !alone.is_zero() {
            self.pass(alone);
        }
    }

    /// Takes some records that changed.
    fn follow(&mut self) {
        let changed = self.gateway.records().take_changed(Some(3), self.now);
        self.take(changed);
    }

    fn take(&mut self, changed: ChangedRecords) {
        let ChangedRecords { core, ended, dissolved, .. } = changed;
        let session = |record: SessionRecord| {
            let media = Arc::clone(&core.media[record.media as usize]);
            (record.id, (record, media))
        };
        self.followed.extend(core.sessions.into_iter().map(session));
        self.followed_rooms.extend(core.rooms.into_iter().map(|room| (room.id, room)));
        ended.iter().for_each(|id| _ = self.followed.remove(id));
        dissolved.iter().for_each(|id| _ = self.followed_rooms.remove(id));
    }

    /// The follower has all records. It learns late when sessions were heard, and knows itself when times pass.
    fn assert_followed(&self, record: &GatewayRecord) {
        let sessions = record.sessions.iter().map(|session| {
            let (followed, media) = &self.followed[&session.id];
            assert_eq!(*media, record.media[session.media as usize]);
            let mut followed = followed.clone();
            (followed.media, followed.last_heard) = (session.media, session.last_heard);
            assert_eq!(followed, *session);
        });
        assert_eq!(sessions.count(), self.followed.len());
        let rooms = record.rooms.iter().map(|room| {
            let mut followed = self.followed_rooms[&room.id].clone();
            followed.leaving = followed.leaving.filter(|(_, until)| self.now < *until);
            assert_eq!(followed, *room);
        });
        assert_eq!(rooms.count(), self.followed_rooms.len());
    }

    /// Restores a record as another process reads it.
    pub(super) fn restore(&mut self, record: &GatewayRecord) -> HopMap {
        let hops = self.begin_restore(record);
        self.settle();
        hops
    }

    fn begin_restore(&mut self, record: &GatewayRecord) -> HopMap {
        let decoded: GatewayRecord = instant::relative_to(self.now, || {
            let encoded = rmp_serde::to_vec_named(record).unwrap();
            rmp_serde::from_slice(&encoded).unwrap()
        });
        assert_eq!(decoded, *record);
        let nodes: BTreeMap<Box<str>, NodeId> = self
            .gateway
            .tables
            .nodes
            .iter()
            .map(|node| (node.settings.name.clone(), node.id))
            .collect();
        let named = |name: &str| nodes.get(name).copied();
        let hops = self.gateway.handle_record(decoded, named, self.now).unwrap();
        self.gateway.settle_restored(self.now);
        hops
    }

    /// Adds a running node.
    pub(super) fn add(&mut self, settings: NodeSettings) -> Result<NodeId, Impossible> {
        let dead = settings.starts != Starts::ByItself;
        let node = self
            .gateway
            .change_nodes(self.now, |nodes| nodes.handle_node_added(settings, self.now))?;
        let slots = self.fakes.len().max(node.0 as usize + 1);
        self.fakes.resize(slots, Fake::default());
        self.fakes[node.0 as usize] = Fake { dead, ..Fake::default() };
        self.settle();
        Ok(node)
    }

    /// Restarts the node's process. Returns when the gateway has readmitted the node.
    pub(super) fn revive(&mut self, node: NodeId) {
        self.unmute(node);
        for _ in 0..700 {
            self.pass(ms(100));
            if self.gateway.board().cell(node).unwrap().up {
                return;
            }
        }
        panic!("{node} is back, and not let in after 70 s");
    }

    pub(super) fn offer(&mut self, room: &str) -> OfferId {
        self.offer_as(room, "call")
    }

    pub(super) fn offer_as(&mut self, room: &str, scenario: &str) -> OfferId {
        self.next_port = self.next_port.wrapping_add(1);
        let address = ([127, 0, 0, 1], self.next_port).into();
        let identity = ClientIdentity::Declared { address, rtcp: None };
        self.offer_with(
            room,
            scenario,
            &[(StreamKind::Audio, 111, None)],
            IngressProtocol::Udp(identity),
        )
    }

    pub(super) fn offer_with(
        &mut self,
        room: &str,
        scenario: &str,
        streams: &[(StreamKind, u8, Option<u32>)],
        ingress: IngressProtocol,
    ) -> OfferId {
        self.offers += 1;
        let id = OfferId(self.offers);
        let feedback = FeedbackSupport {
            remb: self.takes_remb,
            tmmbr: self.takes_tmmbr,
            ..FeedbackSupport::default()
        };
        let streams = streams
            .iter()
            .map(|&(kind, number, bitrate_kbps)| MediaStream {
                kind,
                payload_types: vec![PayloadType::new(number, "x", 48_000)],
                feedback,
                bitrate_kbps,
            })
            .collect();
        let media = MediaDescription::new(streams, RtcpPort::Mux, Srtp::Plain);
        let offer = Offer {
            id,
            scenario: scenario.into(),
            room: room.into(),
            labels: self.labels.clone(),
            ingress,
            media: Arc::new(media),
        };
        self.gateway.handle_offer(offer, self.now);
        self.settle();
        id
    }

    /// Opens a session that may send at once.
    pub(super) fn open(&mut self, room: &str) -> SessionId {
        let offer = self.offer(room);
        self.accepted(offer).session
    }

    pub(super) fn accepted(&self, offer: OfferId) -> &AcceptedOffer {
        self.replies.get(&offer).expect("no reply yet").as_ref().expect("refused")
    }

    pub(super) fn close(&mut self, session: SessionId) {
        self.gateway.handle_close(session, self.now).unwrap();
        self.settle();
    }

    pub(super) fn room(&self, name: &str) -> RoomId {
        self.gateway.rooms.named(name).unwrap().1
    }

    /// Nodes of the room's route with their grants.
    pub(super) fn route(&self, room: &str) -> Vec<(NodeId, HopGrant)> {
        let route = self.gateway.rooms[&self.room(room)].route();
        route.hops.iter().map(|(hop, grant)| (hop.node, *grant)).collect()
    }

    /// The node that carries the room.
    pub(super) fn stands(&self, room: &str) -> Option<NodeId> {
        self.gateway.stands_at(self.room(room)).map(|hop| hop.node)
    }

    /// The node's current hop.
    pub(super) fn hop(&self, node: NodeId) -> Hop {
        let incarnation = self.gateway.board().cell(node).map(|cell| cell.incarnation);
        Hop { node, incarnation: incarnation.unwrap_or(Incarnation(0)) }
    }

    /// The session's sending cap in kbit/s; 0: no cap.
    pub(super) fn cap(&self, session: SessionId) -> u32 {
        self.gateway.tables.sessions[&session].plan_now().cap_kbps()
    }

    /// Checks that the ledger is the sum of its rooms, and that no node exceeds its capacity.
    pub(super) fn audit(&self) {
        self.gateway
            .tables
            .capacity
            .ledger()
            .audit(self.gateway.rooms.values().map(Room::holding))
            .unwrap();
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &CoreEvent> {
        self.outputs.iter().filter_map(|output| match output {
            GatewayEffect::Event(event) => Some(event),
            _ => None,
        })
    }

    /// All moves so far: from, to.
    pub(super) fn moves(&self) -> Vec<(NodeId, Option<NodeId>)> {
        let step = |event: &CoreEvent| match event {
            CoreEvent::Moved { from, to, .. } => Some((from.node, to.map(|to| to.node))),
            _ => None,
        };
        self.events().filter_map(step).collect()
    }

    pub(super) fn guards(&self) -> Vec<evenkeel_model::GuardRule> {
        let guard = |event: &CoreEvent| match event {
            CoreEvent::Guarded { guard, times, .. } => vec![*guard; *times as usize],
            _ => Vec::new(),
        };
        self.events().flat_map(guard).collect()
    }

    pub(super) fn closed_at(&self) -> Vec<(SessionId, NodeId)> {
        let step = |output: &GatewayEffect| match output {
            GatewayEffect::CloseAt { session, hop } => Some((*session, hop.node)),
            _ => None,
        };
        self.outputs.iter().filter_map(step).collect()
    }

    pub(super) fn asked(&self, hook: Hook) -> usize {
        let of = |output: &&GatewayEffect| matches!(output, GatewayEffect::Ask(ask) if ask.policy.hook == hook);
        self.outputs.iter().filter(of).count()
    }
}

pub(super) fn bound(mut settings: CoreSettings, hooks: &[Hook]) -> CoreSettings {
    for scenario in settings.scenarios.values_mut() {
        for hook in hooks {
            scenario.bound[*hook as usize] = true;
        }
    }
    settings
}

pub(super) fn state(bytes: &[u8]) -> PluginState {
    PluginState { plugin: "test".into(), schema: 1, bytes: bytes.into() }
}

pub(super) fn accept() -> HookAnswer {
    HookAnswer::Admit { verdict: AdmitVerdict::Accept, reason: 0 }
}

pub(super) fn placement(hops: &[NodeId], ttl_ms: u32) -> HookAnswer {
    HookAnswer::Placed { hops: hops.to_vec(), ttl_ms, reason: 0, state: state(b"placed") }
}

/// A policy that places every room on these nodes and never moves it.
pub(super) fn place(hops: &'static [NodeId]) -> impl FnMut(&Ask) -> Says {
    move |ask| {
        Some(Ok(match &ask.question {
            evenkeel_model::PolicyQuestion::Place { .. } => placement(hops, 0),
            evenkeel_model::PolicyQuestion::Admit { .. } => accept(),
            evenkeel_model::PolicyQuestion::Reroute { .. } => {
                HookAnswer::Moves { moves: Vec::new(), states: Vec::new(), memo: None }
            }
            evenkeel_model::PolicyQuestion::Tick { .. } => {
                HookAnswer::Actions { actions: Vec::new(), states: Vec::new(), memo: None }
            }
            evenkeel_model::PolicyQuestion::Resolve { .. } => HookAnswer::Params(Vec::new()),
        }))
    }
}

pub(super) fn denied(reply: Option<&Result<AcceptedOffer, OfferRefusal>>) -> Option<OfferRefusal> {
    reply.and_then(|reply| reply.as_ref().err().cloned())
}

impl Gateway {
    /// The hop that the room's packets take now.
    pub(super) fn stands_at(&self, room: RoomId) -> Option<Hop> {
        self.rooms.get(&room)?.stands_at(self.tables.nodes.board())
    }

    /// Applies an operator's action.
    pub(super) fn degrade(&mut self, id: SessionId, op: evenkeel_model::Op, arg: u64) {
        self.apply_action(id, op as u32, arg, &evenkeel_model::Decider::Operator).unwrap();
    }
}

impl World {
    pub(super) fn cohorts(&self, policy: &PolicyName) -> Option<[ArmStatistics; 2]> {
        let (mut tallies, mut after) = (BTreeMap::new(), Some(SessionId(0)));
        while let Some(last) = after {
            after = self.gateway.tally(&mut tallies, last);
        }
        self.gateway.cohorts(policy, &tallies.remove(policy).unwrap_or_default())
    }

    pub(super) fn check_hops(
        &mut self,
        room: &str,
        nodes: &[NodeId],
    ) -> Result<(), evenkeel_model::GuardRule> {
        let room = self.room(room);
        let shown = UsableNodes::of(&self.gateway.tables.nodes);
        self.gateway
            .tables
            .node_choice(&self.gateway.rooms[&room], self.now)
            .check_hops(nodes, &shown)
    }

    pub(super) fn has_free_node_for(&mut self, room: &str) -> bool {
        let room = self.room(room);
        self.gateway.tables.node_choice(&self.gateway.rooms[&room], self.now).has_free_node()
    }
}
