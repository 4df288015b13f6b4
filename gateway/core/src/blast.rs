//! Copies of the gateway in virtual time, made of its record. One loses nodes, for the blast radius of their loss: the decisions
//! are those of the core; nodes open sessions at once, and no policy is asked. Another one has no sessions and one policy, for the
//! proof of a revision.

mod modes;

pub use modes::{ExpectedOutage, ModePrediction};

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, CoreSettings, Health, Hop, MediaDescription, NodeId, NodeProbing, NodeSettings,
    PolicyName, RoomId, SessionId,
};
use evenkeel_nodes::{Node, OpeningWindow};

use crate::NodeEffect;
use crate::capacity::Holding;
use crate::effects::{GatewayEffect, Timer};
use crate::gateway::Gateway;
use crate::record::{GatewayRecord, RestoreError, RoomRecord, SessionRecord};
use crate::records::Records;
use crate::rooms::placement::CoreTables;
use crate::sessions::{SessionPhase, WHOLE};

/// Virtual time after the loss for which the copy is played: rooms have found nodes and spares by then, or will not.
const PLAYED: Duration = Duration::from_secs(5);

/// No session of a copy ends for silence: its clients are not heard there.
const NEVER_SILENT: Duration = Duration::from_secs(86_400);

/// First number of rooms and sessions of a copy that begins without them: none of the copied gateway's has it.
const FIRST_NUMBER: u64 = 1 << 63;

/// A copy of a gateway: its settings, nodes and regions, and the rooms that were added.
#[derive(Clone, Debug)]
pub struct GatewayCopy {
    settings: CoreSettings,
    /// Names a node by its place in `nodes`.
    record: GatewayRecord,
    /// Indexed by the node's number in the copy.
    nodes: Vec<CopiedNode>,
    /// Rooms of the gateway that are not covered.
    unprotected: u32,
    /// The next reviews of all rooms, with their times.
    reviews: Vec<(Timer, Instant)>,
}

/// The facts of a node that no record contains.
#[derive(Clone, Debug)]
struct CopiedNode {
    id: NodeId,
    refuses: bool,
    loses: bool,
    /// The pace of openings.
    openings: OpeningWindow,
    /// The round trip of its probes; zero without one.
    round_trip: Duration,
    /// The usual time until its death is detected.
    detected_within: Duration,
    /// Other names of the same machine.
    beside: Vec<NodeId>,
}

/// A live session, for a copy.
#[derive(Clone, Debug)]
pub struct SessionCopy {
    session: SessionRecord,
    media: Arc<MediaDescription>,
}

impl SessionCopy {
    /// The record of the session.
    pub fn record(&self) -> &SessionRecord {
        &self.session
    }
}

/// The effect of a loss of nodes.
#[derive(Clone, PartialEq, Debug)]
pub struct BlastRadius {
    /// The lost nodes that were not down before.
    pub nodes: Vec<NodeId>,
    /// The rooms that these nodes carry, in order of their ids.
    pub rooms: Vec<RoomLoss>,
    /// Sessions of these rooms by label. Names and values come from clients.
    pub labels: BTreeMap<(Box<str>, Box<str>), u32>,
    /// Rooms of the gateway that are not covered against the death that their scenario names, before the loss.
    pub unprotected_before: u32,
    /// The same after it.
    pub unprotected: u32,
    /// The names of the rooms that are covered before the loss and not after it.
    pub without_spare: Vec<Arc<str>>,
    /// The other nodes.
    pub loads: Vec<LoadChange>,
    /// Cold nodes whose start hook would be called.
    pub started: Vec<NodeId>,
}

/// A room of a lost node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomLoss {
    /// The number of the room.
    pub room: RoomId,
    /// The unique name.
    pub name: Arc<str>,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The number of live sessions.
    pub sessions: u32,
    /// The lost node.
    pub from: NodeId,
    /// The first node after the loss; `None` if no node has capacity for the room. It may fail back from there.
    pub to: Option<NodeId>,
    /// The time from the detection until packets take the new node, without the time in which it opens sessions.
    pub after: Option<Duration>,
    /// Sessions that get a smaller share of their bit rate, since capacity is short.
    pub reduced: u32,
}

/// The load of a node that stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadChange {
    /// The number of the node.
    pub node: NodeId,
    /// Load and reservations before the loss, thousandths of the capacity.
    pub before_permille: u32,
    /// The same after it.
    pub after_permille: u32,
}

impl BlastRadius {
    /// The number of sessions in the rooms of lost nodes.
    pub fn sessions(&self) -> u32 {
        self.rooms.iter().map(|room| room.sessions).sum()
    }

    /// The rooms that no node takes.
    pub fn unplaced(&self) -> impl Iterator<Item = &RoomLoss> {
        self.rooms.iter().filter(|room| room.to.is_none())
    }
}

impl Records<'_> {
    /// Copies the settings, the nodes and the regions.
    pub fn copy_nodes(&self) -> GatewayCopy {
        let table = &self.tables.nodes;
        let copied = |node: &Node| CopiedNode {
            id: node.id,
            refuses: node.takes_rooms() && !node.welcomes_rooms(),
            loses: node.loses(),
            openings: table.pace(node.id).idle(),
            round_trip: node.detector.round_trip().map_or(Duration::ZERO, |(smoothed, _)| smoothed),
            detected_within: node.detector.detects_within(node.settings.probed),
            beside: self.tables.capacity.ledger().beside(node.id).collect(),
        };
        // A copy sends no probes.
        let unprobed = |node: &Node| NodeSettings {
            probed: NodeProbing::No,
            canary: false,
            ..node.settings.clone()
        };
        let mut settings = CoreSettings {
            zones: table.zones().to_vec(),
            nodes: table.iter().map(unprobed).collect(),
            ..self.tables.settings.clone()
        };
        for scenario in settings.scenarios.values_mut() {
            scenario.bound.fill(false);
        }
        let mut record = self.of_places();
        for (place, node) in record.nodes.iter_mut().enumerate() {
            node.name = place.to_string().into();
            // A restored node is listed again.
            node.trust.draining |= node.trust.removed;
        }
        let due = |timer: Timer| self.tables.effects.timers.due(&timer).map(|at| (timer, at));
        GatewayCopy {
            settings,
            record,
            nodes: table.iter().map(copied).collect(),
            unprotected: self.tables.rooms.unprotected() as u32,
            reviews: [Timer::Weigh, Timer::Failback].into_iter().filter_map(due).collect(),
        }
    }

    /// Copies the rooms after this one in order of their ids. A room without a record has no copy.
    pub fn copy_rooms(
        &self,
        after: RoomId,
        now: Instant,
    ) -> impl Iterator<Item = (RoomId, Option<RoomRecord>)> {
        let none_waits = BTreeSet::new();
        let rooms = self.tables.rooms.after(after).filter(|room| room.is_placed());
        rooms.map(move |room| (room.id, self.room(room.id, &none_waits, now)))
    }

    /// Copies the sessions after this one in order of their ids. A session that is not live has no copy.
    pub fn copy_sessions(
        &self,
        after: SessionId,
    ) -> impl Iterator<Item = (SessionId, Option<SessionCopy>)> {
        let rest = self.tables.sessions.range((Bound::Excluded(after), Bound::Unbounded));
        rest.map(|(id, session)| {
            let is_live = session.phase == SessionPhase::Live;
            let copy = is_live.then(|| SessionCopy {
                session: self.session(session, 0),
                media: Arc::clone(&session.request.media),
            });
            (id, copy)
        })
    }
}

impl GatewayCopy {
    /// The settings of the copied gateway, with its present nodes; no scenario binds a policy.
    pub fn settings(&self) -> &CoreSettings {
        &self.settings
    }

    /// Begins a gateway without sessions on the copied nodes. Of the policies only this one decides.
    ///
    /// # Errors
    /// If the copied parts contradict each other.
    pub fn begin(&self, policy: &PolicyName, now: Instant) -> Result<Gateway, RestoreError> {
        let mut settings = self.settings.clone();
        for scenario in settings.scenarios.values_mut().filter(|it| it.set == policy.set) {
            scenario.bound[policy.hook as usize] = true;
        }
        let (next_room, next_session) = (FIRST_NUMBER, FIRST_NUMBER);
        let record = GatewayRecord { next_room, next_session, ..self.record.clone() };
        self.restored(settings, record, now)
    }

    fn restored(
        &self,
        settings: CoreSettings,
        record: GatewayRecord,
        now: Instant,
    ) -> Result<Gateway, RestoreError> {
        let mut gateway = Gateway::new(settings, now);
        gateway.handle_summaries_within(NEVER_SILENT);
        let by_place = |name: &str| name.parse().ok().map(NodeId);
        gateway.handle_record(record, by_place, now)?;
        for (here, copied) in (0..).map(NodeId).zip(&self.nodes) {
            copied.apply(here, self, gateway.records().tables, now);
        }
        gateway.settle_restored(now);
        Ok(gateway)
    }

    /// Adds a room.
    pub fn add_room(&mut self, room: RoomRecord) {
        self.record.next_room = self.record.next_room.max(room.id.0.max(room.call.0) + 1);
        self.record.rooms.push(room);
    }

    /// Adds a session. It is left out if its room was not added.
    pub fn add_session(&mut self, SessionCopy { session, media }: SessionCopy) {
        self.record.next_session = self.record.next_session.max(session.id.0 + 1);
        let place = self.record.media.len() as u32;
        self.record.sessions.push(SessionRecord { media: place, ..session });
        self.record.media.push(media);
    }

    /// Plays the loss of these nodes at once.
    ///
    /// # Errors
    /// If the copied parts contradict each other: the gateway changed after the first was copied and before the last was.
    pub fn lose(&self, lost: &BTreeSet<NodeId>, now: Instant) -> Result<BlastRadius, RestoreError> {
        let mut trial = LossTrial::begin(self, self.settings.clone(), now)?;
        let before = trial.survey();
        trial.lose(lost);
        trial.play(now + PLAYED);
        Ok(trial.compare(self, &before))
    }

    /// The copy's record, in the order that a restore expects.
    fn consistent_record(&self) -> GatewayRecord {
        let mut record = self.record.clone();
        let newest: BTreeMap<Arc<str>, RoomId> =
            record.rooms.iter().map(|room| (Arc::clone(&room.name), room.id)).collect();
        record.rooms.retain(|room| newest.get(&room.name) == Some(&room.id));
        let known: BTreeSet<RoomId> = record.rooms.iter().map(|room| room.id).collect();
        record.sessions.retain(|session| known.contains(&session.room));
        record.sessions.sort_by_key(|session| session.id);
        let used: BTreeSet<RoomId> = record.sessions.iter().map(|session| session.room).collect();
        record.rooms.retain(|room| used.contains(&room.id));
        record
    }
}

impl CopiedNode {
    fn apply(&self, here: NodeId, copy: &GatewayCopy, tables: &mut CoreTables, now: Instant) {
        let Some(node) = tables.nodes.get_mut(here) else { return };
        node.handle_willing(!self.refuses, now);
        node.fares_badly = self.loses;
        if node.health() == Health::Cold {
            // A hook is called only for a node that is known not to run.
            node.detector.handle_agent(false, now);
        }
        *tables.nodes.pace_mut(here) = self.openings.clone();
        let other = |id: &NodeId| copy.nodes.iter().position(|node| node.id == *id);
        for other in self.beside.iter().filter_map(other) {
            tables.capacity.ledger.is_one_machine([here, NodeId(other as u32)]);
        }
    }
}

/// A gateway that continues a copy in virtual time.
struct LossTrial {
    gateway: Gateway,
    /// The numbers of the nodes at the copied gateway.
    ids: Vec<NodeId>,
    /// The lost nodes, by their numbers here.
    lost: BTreeSet<NodeId>,
    /// The lost nodes that ran.
    died: BTreeSet<NodeId>,
    started: BTreeSet<NodeId>,
    /// The first new node of each room, with the time.
    found: BTreeMap<RoomId, (NodeId, Instant)>,
    /// The time that each node takes to open a session, by their numbers here; none without an entry.
    opens_within: Vec<Duration>,
    openings: BTreeSet<(Instant, SessionId, Hop)>,
    lost_at: Instant,
    now: Instant,
}

/// The facts before the loss.
struct LossSurvey {
    /// The capacity that rooms use.
    holdings: BTreeMap<RoomId, Holding>,
    shares: BTreeMap<SessionId, u16>,
    permille: BTreeMap<NodeId, u32>,
    /// Rooms that are not covered.
    unprotected: BTreeSet<RoomId>,
}

impl LossTrial {
    fn begin(
        copy: &GatewayCopy,
        settings: CoreSettings,
        now: Instant,
    ) -> Result<LossTrial, RestoreError> {
        let mut trial = LossTrial {
            gateway: copy.restored(settings, copy.consistent_record(), now)?,
            ids: copy.nodes.iter().map(|node| node.id).collect(),
            lost: BTreeSet::new(),
            died: BTreeSet::new(),
            started: BTreeSet::new(),
            found: BTreeMap::new(),
            opens_within: Vec::new(),
            openings: BTreeSet::new(),
            lost_at: now,
            now,
        };
        trial.take_outputs();
        for (timer, at) in &copy.reviews {
            trial.gateway.records().tables.effects.set(timer.clone(), *at);
        }
        // The restore asks for reviews of rooms that the gateway itself has reviewed.
        trial.play(now);
        Ok(trial)
    }

    fn tables(&self) -> &CoreTables {
        self.gateway.views().tables
    }

    fn survey(&self) -> LossSurvey {
        let tables = self.tables();
        let holdings = tables.rooms.values().map(|room| (room.id, room.holding));
        let shares = tables.sessions.values().map(|session| (session.id, session.share));
        let ledger = tables.capacity.ledger();
        let permille = tables.nodes.iter().map(|node| (node.id, ledger.permille(node.id) as u32));
        LossSurvey {
            holdings: holdings.collect(),
            shares: shares.collect(),
            permille: permille.collect(),
            unprotected: tables.rooms.unprotected_rooms().map(|room| room.id).collect(),
        }
    }

    fn lose(&mut self, lost: &BTreeSet<NodeId>) {
        let places = (0..).map(NodeId).zip(&self.ids);
        self.lost = places.filter(|(_, id)| lost.contains(*id)).map(|(here, _)| here).collect();
        // The restore has moved rooms and started nodes as the gateway itself would have.
        self.found.clear();
        self.started.clear();
        let (lost, now) = (self.lost.clone(), self.now);
        self.lost_at = now;
        self.died = self.gateway.change_nodes(now, |nodes| {
            for id in &lost {
                // A cold node of the place is lost, too.
                if let Some(node) = nodes.0.nodes.get_mut(*id).filter(|node| !node.runs()) {
                    node.trust.draining = true;
                }
            }
            nodes.lose(lost, now)
        });
        self.take_outputs();
    }

    fn play(&mut self, until: Instant) {
        loop {
            let opening = self.openings.first().map(|(at, ..)| *at);
            let next = self.gateway.poll_timeout().into_iter().chain(opening).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            while self.openings.first().is_some_and(|(at, ..)| *at <= self.now)
                && let Some((_, session, hop)) = self.openings.pop_first()
            {
                self.gateway.handle_opened(session, hop, Ok(()), self.now);
            }
            self.gateway.handle_timeout(self.now);
            self.take_outputs();
        }
        self.now = self.now.max(until);
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.gateway.poll_output() {
            match output {
                GatewayEffect::Open { session, hop, .. } => {
                    let within = self.opens_within.get(hop.node.0 as usize);
                    match within.filter(|within| !within.is_zero()) {
                        Some(within) => {
                            self.openings.insert((self.now + *within, session, hop));
                        }
                        None => self.gateway.handle_opened(session, hop, Ok(()), self.now),
                    }
                }
                GatewayEffect::Node(NodeEffect::Start(node)) => _ = self.started.insert(node),
                GatewayEffect::Event(CoreEvent::Moved { room, to: Some(to), .. }) => {
                    self.found.entry(room).or_insert((to.node, self.now));
                }
                _ => {}
            }
        }
    }

    fn compare(self, copy: &GatewayCopy, before: &LossSurvey) -> BlastRadius {
        let tables = self.tables();
        let listed = |here: &NodeId| self.ids[here.0 as usize];
        let carriers = before.holdings.iter().filter_map(|(room, it)| Some((*room, it.on?)));
        let hit: BTreeMap<RoomId, NodeId> =
            carriers.filter(|(_, on)| self.died.contains(on)).collect();
        let rooms = hit.iter().filter_map(|(id, on)| {
            let room = tables.rooms.get(id)?;
            let found = self.found.get(id);
            let after = found.map(|(_, at)| at.saturating_duration_since(self.lost_at));
            let reduced = room.sessions.iter().filter(|id| {
                let share = tables.sessions.get(id).map_or(WHOLE, |session| session.share);
                before.shares.get(*id).is_some_and(|before| share < *before)
            });
            Some(RoomLoss {
                room: *id,
                name: Arc::clone(&room.name),
                scenario: Arc::clone(&room.scenario),
                sessions: room.sessions.len() as u32,
                from: listed(on),
                to: found.map(|(to, _)| listed(to)),
                after,
                reduced: reduced.count() as u32,
            })
        });
        let rooms = rooms.collect();
        let mut labels = BTreeMap::new();
        for session in copy.record.sessions.iter().filter(|session| hit.contains_key(&session.room))
        {
            for label in session.labels.iter() {
                *labels.entry(label.clone()).or_insert(0) += 1;
            }
        }
        let bare = tables.rooms.unprotected_rooms();
        let bare = bare.filter(|room| !before.unprotected.contains(&room.id));
        let ledger = tables.capacity.ledger();
        let stay = tables.nodes.iter().filter(|node| !self.lost.contains(&node.id));
        let loads = stay.map(|node| LoadChange {
            node: listed(&node.id),
            before_permille: before.permille.get(&node.id).copied().unwrap_or(0),
            after_permille: ledger.permille(node.id) as u32,
        });
        BlastRadius {
            nodes: self.died.iter().map(listed).collect(),
            rooms,
            labels,
            unprotected_before: copy.unprotected,
            unprotected: tables.rooms.unprotected() as u32,
            without_spare: bare.map(|room| Arc::clone(&room.name)).collect(),
            loads: loads.collect(),
            started: self.started.iter().map(listed).collect(),
        }
    }
}
