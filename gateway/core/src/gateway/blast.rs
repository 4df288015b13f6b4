//! The blast radius of a loss: a copy of the gateway loses nodes in virtual time, as it is or with all rooms in another redundancy
//! mode. The decisions are those of the core; nodes open sessions at once, and no policy is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{CoreEvent, CoreSettings, Hop, NodeId, RedundancyMode, RoomId, SessionId};
use evenkeel_nodes::{Node, NodeEffect};

use crate::capacity::Holding;
use crate::effects::GatewayEffect;
use crate::gateway::copy::{CopiedNode, GatewayCopy};
use crate::gateway::{Gateway, Tables};
use crate::record::RestoreError;
use crate::sessions::Session;
use crate::shares::WHOLE;

/// Virtual time after the loss for which the copy is played: rooms have found nodes and spares by then, or will not.
const PLAYED: Duration = Duration::from_secs(5);

/// Maximum virtual time in which rooms take the mode.
const CHANGED_WITHIN: Duration = Duration::from_secs(60);

/// Rooms are looked at again after this virtual time, until all have taken the mode.
const CHANGE_STEP: Duration = Duration::from_millis(500);

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
    /// Cold nodes that would be started by their hooks.
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

/// The spares, capacity and bandwidth of all rooms in one mode, and the loss of nodes then.
#[derive(Clone, PartialEq, Debug)]
pub struct ModePrediction {
    /// The mode that all rooms have in the copy.
    pub mode: RedundancyMode,
    /// The number of rooms that a node carries.
    pub rooms: u32,
    /// Rooms for which no second node has capacity: all, in a mode that keeps none.
    pub rooms_without_spare: u32,
    /// The load of rooms that lack the second node which the mode wants, kbit/s: capacity that is needed beside what is free.
    pub needed_kbps: u64,
    /// Capacity of the nodes that take rooms, without loads and reserves, kbit/s.
    pub free_kbps: u64,
    /// The load at first hops, kbit/s.
    pub media_kbps: u64,
    /// The load that second hops carry as well, kbit/s.
    pub copied_kbps: u64,
    /// The loss. Opening a session takes a round trip to the node.
    pub loss: BlastRadius,
    /// The outage of sessions at lost nodes, without those that find no other node; `None` if there are no others.
    pub outage: Option<ExpectedOutage>,
}

/// The time from the last packet of a lost node to the first one of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpectedOutage {
    /// The median of the outages of sessions.
    pub median: Duration,
    /// The longest outage.
    pub longest: Duration,
}

impl GatewayCopy {
    /// Plays the loss of these nodes at once.
    ///
    /// # Errors
    /// If the copied parts contradict each other: the gateway changed after the first was copied and before the last was.
    pub fn lose(&self, lost: &BTreeSet<NodeId>, now: Instant) -> Result<BlastRadius, RestoreError> {
        let mut trial = LossTrial::begin(self, self.settings().clone(), now)?;
        let before = trial.survey();
        trial.lose(lost);
        trial.play(now + PLAYED);
        Ok(trial.compare(self, &before))
    }

    /// Plays the change of all rooms to a mode, and then the loss of these nodes at once.
    ///
    /// # Errors
    /// As [`GatewayCopy::lose`].
    pub fn lose_in_mode(
        &self,
        mode: RedundancyMode,
        lost: &BTreeSet<NodeId>,
        now: Instant,
    ) -> Result<ModePrediction, RestoreError> {
        let mut settings = self.settings().clone();
        settings.scenarios.values_mut().for_each(|scenario| scenario.mode = mode);
        let mut trial = LossTrial::begin(self, settings, now)?;
        trial.opens_within = self.nodes().iter().map(CopiedNode::round_trip).collect();
        while !trial.gateway.tables.worklists.changing.is_empty()
            && trial.now < now + CHANGED_WITHIN
        {
            trial.play(trial.now + CHANGE_STEP);
        }
        trial.play(trial.now + PLAYED);
        let before = trial.survey();
        let table = &trial.gateway.rooms;
        let Tables { nodes, capacity, worklists, .. } = &trial.gateway.tables;
        let placed = || before.holdings.values().filter(|holding| holding.on.is_some());
        let rooms = placed().count() as u32;
        let media_kbps = placed().map(|holding| holding.kbps).sum();
        let doubled = placed().filter(|holding| holding.twin().is_some());
        let copied_kbps = doubled.map(|holding| holding.kbps).sum();
        let rooms_without_spare = match mode.opens_ahead() {
            true => worklists.unprotected() as u32,
            false => rooms,
        };
        let unprotected = worklists.unprotected_rooms().filter_map(|id| table.get(&id));
        let needed_kbps = unprotected.map(|room| room.holding().kbps).sum();
        let ledger = capacity.ledger();
        // The capacity of a machine with two names exists once.
        let takes = |id: &NodeId| nodes.get(*id).is_some_and(Node::welcomes_rooms);
        let is_one =
            |node: &&Node| ledger.beside(node.id).filter(takes).all(|other| other > node.id);
        let takers = nodes.iter().filter(|node| node.welcomes_rooms()).filter(is_one);
        let free = |node: &Node| {
            let used = ledger.carried(node.id) + ledger.reserve(node.id);
            ledger.capacity(node.id).saturating_sub(used)
        };
        let free_kbps = takers.map(free).sum();
        trial.lose(lost);
        trial.play(trial.now + PLAYED);
        let loss = trial.compare(self, &before);
        let outage = self.outage(&before, lost, &loss);
        Ok(ModePrediction {
            mode,
            rooms,
            rooms_without_spare,
            needed_kbps,
            free_kbps,
            media_kbps,
            copied_kbps,
            loss,
            outage,
        })
    }

    fn outage(
        &self,
        before: &LossSurvey,
        lost: &BTreeSet<NodeId>,
        loss: &BlastRadius,
    ) -> Option<ExpectedOutage> {
        let of_room = |room: &RoomLoss| {
            let holding = before.holdings.get(&room.room)?;
            let carrier = self.nodes().get(holding.on?.0 as usize)?;
            let survives = |spare: Option<NodeId>| {
                let spare = spare.and_then(|spare| self.nodes().get(spare.0 as usize));
                spare.is_some_and(|spare| !lost.contains(&spare.id()))
            };
            if survives(holding.twin()) {
                return Some(Duration::ZERO);
            }
            // Packets take a reserved hop as soon as the death is detected, before the room moves.
            let after = if survives(holding.reserve()) { Duration::ZERO } else { room.after? };
            Some(carrier.detected_within() + after)
        };
        let of_rooms = loss.rooms.iter().filter_map(|room| Some((of_room(room)?, room.sessions)));
        let mut outages: Vec<(Duration, u32)> = of_rooms.collect();
        outages.sort_unstable();
        let sessions: u32 = outages.iter().map(|(_, sessions)| *sessions).sum();
        let mut counted = 0_u32;
        let median = outages.iter().find(|(_, more)| {
            counted += more;
            counted * 2 >= sessions
        })?;
        let longest = outages.last()?;
        Some(ExpectedOutage { median: median.0, longest: longest.0 })
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
            gateway: copy.start(settings, now)?,
            ids: copy.nodes().iter().map(CopiedNode::id).collect(),
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
        for (timer, at) in copy.reviews() {
            trial.gateway.tables.effects.set(timer.clone(), *at);
        }
        // The restore asks for reviews of rooms that the gateway itself has reviewed.
        trial.play(now);
        Ok(trial)
    }

    fn survey(&self) -> LossSurvey {
        let rooms = &self.gateway.rooms;
        let Tables { sessions, nodes, capacity, worklists, .. } = &self.gateway.tables;
        let holdings = rooms.values().map(|room| (room.id(), room.holding()));
        let shares = sessions.values().map(|session| (session.id(), session.share_permille()));
        let ledger = capacity.ledger();
        let permille = nodes.iter().map(|node| (node.id, ledger.permille(node.id) as u32));
        LossSurvey {
            holdings: holdings.collect(),
            shares: shares.collect(),
            permille: permille.collect(),
            unprotected: worklists.unprotected_rooms().collect(),
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
                if let Some(node) = nodes.tables.nodes.get_mut(*id).filter(|node| !node.runs()) {
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
        let rooms = &self.gateway.rooms;
        let Tables { sessions, nodes, capacity, worklists, .. } = &self.gateway.tables;
        let listed = |here: &NodeId| self.ids[here.0 as usize];
        let carriers = before.holdings.iter().filter_map(|(room, it)| Some((*room, it.on?)));
        let hit: BTreeMap<RoomId, NodeId> =
            carriers.filter(|(_, on)| self.died.contains(on)).collect();
        let losses = hit.iter().filter_map(|(id, on)| {
            let room = rooms.get(id)?;
            let found = self.found.get(id);
            let after = found.map(|(_, at)| at.saturating_duration_since(self.lost_at));
            let reduced = room.sessions().iter().filter(|id| {
                let share = sessions.get(id).map_or(WHOLE, Session::share_permille);
                before.shares.get(*id).is_some_and(|before| share < *before)
            });
            Some(RoomLoss {
                room: *id,
                name: Arc::clone(room.name()),
                scenario: Arc::clone(room.scenario()),
                sessions: room.sessions().len() as u32,
                from: listed(on),
                to: found.map(|(to, _)| listed(to)),
                after,
                reduced: reduced.count() as u32,
            })
        });
        let losses = losses.collect();
        let mut labels = BTreeMap::new();
        for session in copy.sessions().iter().filter(|session| hit.contains_key(&session.room)) {
            for label in session.labels.iter() {
                *labels.entry(label.clone()).or_insert(0) += 1;
            }
        }
        let bare = worklists.unprotected_rooms().filter(|id| !before.unprotected.contains(id));
        let bare = bare.filter_map(|id| rooms.get(&id));
        let ledger = capacity.ledger();
        let stay = nodes.iter().filter(|node| !self.lost.contains(&node.id));
        let loads = stay.map(|node| LoadChange {
            node: listed(&node.id),
            before_permille: before.permille.get(&node.id).copied().unwrap_or(0),
            after_permille: ledger.permille(node.id) as u32,
        });
        BlastRadius {
            nodes: self.died.iter().map(listed).collect(),
            rooms: losses,
            labels,
            unprotected_before: copy.unprotected(),
            unprotected: worklists.unprotected() as u32,
            without_spare: bare.map(|room| Arc::clone(room.name())).collect(),
            loads: loads.collect(),
            started: self.started.iter().map(listed).collect(),
        }
    }
}
