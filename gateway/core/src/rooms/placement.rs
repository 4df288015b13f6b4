//! The choice of nodes for rooms, and the rules that every placement obeys.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use evenkeel_model::{
    ClientLabel, CoreSettings, Decider, FailureDomain, FailureScope, GuardRule, HOPS_MAX, Hook,
    Hop, Measures, Metric, MoveCause, NodeId, PluginState, PolicyName, RedundancyMode, RegionId,
    RoomId, RoomRow, Row, Scenario, SessionId,
};
use evenkeel_nodes::{Node, NodeTable, OpeningClass, QueuePosition};
use evenkeel_revisions::Revision;
use evenkeel_slo::SloTable;

use crate::capacity::{Capacity, Holding};
use crate::effects::{Effects, GatewayEffect};
use crate::policy::questions::{FaultSubject, UsableNodes};
use crate::rooms::RoomTable;
use crate::rooms::room::Room;
use crate::rooms::survey::{PlacementSurvey, Takes};
use crate::sessions::{Session, SessionPhase, SessionTable};

/// Silent sessions are kept this long while their room waits for a node: as long as the longest start may take.
const HELD_FOR: Duration = Duration::from_secs(600);

/// Round trips that differ by less count as equal: sequence numbers reserved in vain look like loss.
const LEAD_MIN: Duration = Duration::from_millis(2);

/// Capacity of a node in per cent that a raise leaves free, so that no session must be reduced again at once.
const LEAVES_FREE: u64 = 5;

/// The tables that placement reads, and that routes, moves, openings and reroutes change together.
#[derive(Debug)]
pub(crate) struct CoreTables {
    pub(crate) settings: CoreSettings,
    pub(crate) sessions: SessionTable,
    pub(crate) rooms: RoomTable,
    pub(crate) nodes: NodeTable,
    pub(crate) capacity: Capacity,
    pub(crate) slos: SloTable,
    pub(crate) effects: Effects,
}

impl CoreTables {
    /// Requests key frames from the senders in a room for sessions that receive its video again.
    pub(crate) fn request_key_frames(&mut self, room: RoomId, receivers: &[SessionId]) {
        let mut senders = Placement(self).live_sessions(room);
        // No session receives its own media.
        senders.retain(|sender| *receivers != [*sender]);
        if !senders.is_empty() {
            self.effects.push(GatewayEffect::KeyFrame(senders));
        }
    }
}

/// Chooses nodes for rooms by the state of everything, and changes nothing.
#[derive(Clone, Copy)]
pub(crate) struct Placement<'a>(pub(crate) &'a CoreTables);

impl<'a> Placement<'a> {
    pub(crate) fn is_away(self, id: RoomId, on: NodeId) -> bool {
        self.0.rooms.get(&id).is_some_and(|room| room.is_away(on, &self.0.nodes))
    }

    /// The route's hops in order, without `but`, starting with the first that has capacity for the room. `None` if none
    /// has.
    pub(crate) fn own_next(
        self,
        id: RoomId,
        but: Option<NodeId>,
        now: Instant,
    ) -> Option<Vec<NodeId>> {
        let kbps = self.room_kbps(id);
        let shunned = self.shunned(id, now);
        let room = self.0.rooms.get(&id)?;
        let fit = |hop: &Hop| {
            self.0.nodes.is_up(*hop)
                && Some(hop.node) != but
                && !shunned.contains(&hop.node)
                && self.0.nodes.get(hop.node).is_some_and(Node::takes_rooms)
        };
        let mut nodes: Vec<NodeId> =
            room.route().hops.iter().filter(|(hop, _)| fit(hop)).map(|(hop, _)| hop.node).collect();
        let ledger = self.0.capacity.ledger.without(room.holding);
        let first = nodes.iter().position(|&node| ledger.fits(node, kbps))?;
        nodes[..=first].rotate_right(1);
        Some(nodes)
    }

    /// Some node without a queue, and not in `shunned`, has capacity for this load in kbit/s.
    pub(crate) fn has_free_node(self, kbps: u64, shunned: &[NodeId]) -> bool {
        self.0.nodes.iter().any(|node| {
            let (id, pace) = (node.id, self.0.nodes.pace(node.id));
            let open = node.welcomes_rooms() && !pace.is_busy() && !shunned.contains(&id);
            open && self.0.capacity.ledger().fits(id, kbps)
        })
    }

    /// Some node without a queue has capacity for this room; otherwise a search is useless.
    pub(crate) fn has_free_node_for(self, id: RoomId, now: Instant) -> bool {
        self.has_free_node(self.room_kbps(id), &self.shunned(id, now))
    }

    /// The room's hops if reserves are ignored: a running call takes precedence over possible future deaths.
    pub(crate) fn hops_of_reserves(self, id: RoomId, busy: &[NodeId], now: Instant) -> Vec<NodeId> {
        self.native_hops_without(id, Takes::Reserves, &[], busy, now)
    }

    /// The room waits for a node to start, so its silent sessions are kept for a while.
    pub(crate) fn is_held(self, id: RoomId, now: Instant) -> bool {
        let room = self.0.rooms.get(&id).filter(|room| room.mode == RedundancyMode::Cold);
        room.and_then(Room::stranded)
            .is_some_and(|stranded| now.saturating_duration_since(stranded.since) < HELD_FOR)
    }

    /// A new session may be redirected to the region: its room is not placed, and the region is another one of this
    /// gateway.
    pub(crate) fn may_redirect(self, id: SessionId, region: RegionId) -> bool {
        let session = self.0.sessions.get(&id);
        let standing = session.and_then(|session| self.region_of_room(session.room));
        standing.is_none()
            && (region.0 as usize) < self.0.settings.regions.len()
            && region != self.0.nodes.home()
    }

    /// Order of openings: sessions of stranded rooms before those of live ones, then new sessions, then spares; calls
    /// before streams.
    pub(crate) fn turn(self, session: &Session, hop: Hop) -> QueuePosition {
        let order = self.0.nodes.pace(hop.node).drawn();
        let Some(room) = self.0.rooms.get(&session.room) else {
            return (OpeningClass::Spare, Reverse(0), order);
        };
        let carries = match &room.pending {
            Some(pending) => pending.hops[0] == hop || room.route().is_first(hop),
            None => room.route().is_first(hop),
        };
        let class = match (carries, room.stranded(), session.phase) {
            (false, ..) => OpeningClass::Spare,
            (true, Some(_), _) => OpeningClass::Stranded,
            (true, None, SessionPhase::Live) => OpeningClass::Moving,
            (true, None, _) => OpeningClass::Newcomer,
        };
        (class, Reverse(room.priority), order)
    }

    /// The degradation policy of the session's scenario.
    pub(crate) fn ticks(self, id: SessionId) -> Option<PolicyName> {
        let scenario = &self.0.sessions.get(&id)?.request.scenario;
        let scenario = self.0.settings.scenarios.get(scenario)?;
        scenario.binds(Hook::Degradation).then(|| scenario.policy(Hook::Degradation))
    }

    pub(crate) fn waiting_for_placement(self, id: RoomId) -> Vec<SessionId> {
        let mut sessions = self.sessions_from(id, SessionPhase::Placing);
        sessions.retain(|id| self.0.sessions[id].phase == SessionPhase::Placing);
        sessions
    }

    /// The native default: where an unplaced room would go, or a placed room's node with its spares.
    pub(crate) fn native_hops(self, id: RoomId, standing: &[NodeId], now: Instant) -> Vec<NodeId> {
        self.native_hops_but(id, standing, &[], now)
    }

    /// The native default without the nodes in `but`. Zones and regions with open breakers are avoided, except that a placed room
    /// uses them if there is no alternative.
    pub(crate) fn native_hops_but(
        self,
        id: RoomId,
        standing: &[NodeId],
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let kept = self.0.rooms.get(&id).map(Room::hops_to_open).unwrap_or_default();
        let keeps = |node| kept.iter().any(|hop| hop.node == node);
        let mut avoided = self.0.capacity.shut_nodes(id, keeps, &self.0.nodes);
        let avoids = !avoided.is_empty();
        avoided.extend(but);
        let nodes = self.native_hops_without(id, Takes::Free, standing, &avoided, now);
        let enough = nodes.len() > 1 || !self.0.rooms.get(&id).is_some_and(Room::is_placed);
        if enough || !avoids {
            return nodes;
        }
        let first = nodes.first().map_or(standing, std::slice::from_ref);
        self.native_hops_without(id, Takes::Free, first, but, now)
    }

    /// The native default, whose first node may use this kind of capacity, regardless of breakers.
    fn native_hops_without(
        self,
        id: RoomId,
        takes: Takes,
        standing: &[NodeId],
        but: &[NodeId],
        now: Instant,
    ) -> Vec<NodeId> {
        let kbps = self.room_kbps(id);
        let Some(room) = self.0.rooms.get(&id) else { return Vec::new() };
        let mut shunned = self.shunned(id, now);
        shunned.extend(but);
        let survey = PlacementSurvey {
            region: room.region,
            carrier: ClientLabel::Carrier.value(&room.labels),
            mode: room.mode,
            regions: self.scenario_of(room).map_or(&[], |scenario| &scenario.regions),
            kbps,
            takes,
            spares: room.spares,
            reserve: self.reserve_scope(room),
            spares_outside: self.spares_outside(room),
            current: standing,
            shunned: &shunned,
            nodes: &self.0.nodes,
            ledger: self.0.capacity.ledger.without(room.holding),
        };
        survey.hops()
    }

    pub(crate) fn shunned(self, id: RoomId, now: Instant) -> Vec<NodeId> {
        self.0.rooms.get(&id).map_or_else(Vec::new, |room| room.shunned_nodes(&self.0.nodes, now))
    }

    pub(crate) fn fits(self, id: RoomId, node: NodeId) -> bool {
        let holding = self.0.rooms.get(&id).map(|room| room.holding).unwrap_or_default();
        self.0.capacity.ledger.without(holding).fits(node, self.room_kbps(id))
    }

    /// The hops without spares in the first one's domain that the scenario names in `spares_outside`. A stranded room
    /// keeps all, since it may continue at any.
    pub(crate) fn without_inside_spares<T: Copy>(
        self,
        id: RoomId,
        hops: &[T],
        node: impl Fn(&T) -> NodeId,
    ) -> Vec<T> {
        let room = self.0.rooms.get(&id).filter(|room| room.stranded().is_none());
        let scope = room.map_or(FailureScope::Node, |room| self.spares_outside(room));
        let first = hops.first().map(&node);
        let is_first = |spare| Some(spare) == first;
        let is_inside =
            |spare| first.is_some_and(|first| self.0.nodes.share_domain(first, spare, scope));
        let may = |hop: &&T| is_first(node(hop)) || !is_inside(node(hop));
        hops.iter().filter(may).copied().collect()
    }

    /// Checks that each hop exists, takes rooms or already has this one, has not just refused it, and occurs once. A revision
    /// that names only nodes that its question showed as usable could not know better.
    pub(crate) fn check_hops(
        self,
        id: RoomId,
        nodes: &[NodeId],
        shown: &UsableNodes,
        now: Instant,
    ) -> Result<(), GuardRule> {
        let shunned = self.shunned(id, now);
        let route = self.0.rooms.get(&id).map(Room::route);
        let takes = |node: &Node| {
            let has_it = route.as_ref().is_some_and(|route| route.holds(node.hop()));
            if has_it { node.takes_rooms() } else { node.welcomes_rooms() }
        };
        let usable =
            |node: &NodeId| self.0.nodes.get(*node).is_some_and(takes) && !shunned.contains(node);
        let distinct = nodes.iter().collect::<BTreeSet<_>>().len() == nodes.len();
        let possible = (1..=HOPS_MAX).contains(&nodes.len()) && distinct;
        let kept = |node: &&NodeId| route.as_ref().is_some_and(|r| r.leads_to(**node));
        let shut = |node: &NodeId| !self.0.capacity.may_enter(id, *node, &self.0.nodes);
        match nodes.iter().all(usable) {
            _ if !possible => Err(GuardRule::UnusableNode),
            true if nodes.iter().filter(|node| !kept(node)).any(shut) => {
                Err(GuardRule::BreakerOpen)
            }
            true => Ok(()),
            false if nodes.iter().all(|node| shown.contains(*node)) => Err(GuardRule::Outdated),
            false => Err(GuardRule::UnusableNode),
        }
    }

    pub(crate) fn check_placement(
        self,
        id: RoomId,
        nodes: &[NodeId],
        shown: &UsableNodes,
        now: Instant,
    ) -> Result<(), GuardRule> {
        self.check_hops(id, nodes, shown, now)?;
        let is_new = self.0.rooms.get(&id).is_some_and(|room| !room.is_placed());
        let is_left = |place: NodeId| !self.0.nodes.pace(place).is_busy();
        let may = !is_new || !self.0.rooms.stranded_go_first() || is_left(nodes[0]);
        if may && self.fits(id, nodes[0]) { Ok(()) } else { Err(GuardRule::NoCapacity) }
    }

    /// Names a decision in the reason of a rollback: `unusable-node, node fra-2, room support-7`.
    pub(crate) fn name_decision(
        self,
        rule: Option<GuardRule>,
        node: Option<NodeId>,
        subject: Option<FaultSubject>,
    ) -> Box<str> {
        let node = node.map(|node| match self.0.nodes.get(node) {
            Some(node) => format!("node {}", node.settings.name),
            None => format!("unknown node {}", node.0),
        });
        let subject = subject.map(|subject| match subject {
            FaultSubject::Room(room) => format!("room {}", self.0.rooms.name_of(room)),
            FaultSubject::Session(session) => format!("session {session}"),
        });
        let rule = rule.map(|rule| rule.name().to_owned());
        rule.into_iter().chain(node).chain(subject).collect::<Vec<_>>().join(", ").into()
    }

    /// A room as routing policies see it. `reads` is the revision that is asked.
    pub(crate) fn room_row(self, id: RoomId, reads: Option<&Revision>, now: Instant) -> RoomRow {
        let room = &self.0.rooms[&id];
        let mut measures = Measures::default();
        measures.set(Metric::Sessions, room.sessions.len() as u64);
        let sessions = || room.sessions.iter().filter_map(|id| self.0.sessions.get(id));
        let worst = [
            Metric::LossUp,
            Metric::LossDown,
            Metric::JitterUp,
            Metric::JitterDown,
            Metric::RttClient,
        ];
        for metric in worst {
            if let Some(value) = sessions().filter_map(|session| session.measured(metric)).max() {
                measures.set(metric, u64::from(value));
            }
        }
        if let Some(first) = sessions().map(|session| session.offered).min() {
            measures.set(Metric::Age, now.saturating_duration_since(first).as_millis() as u64);
        }
        if let Some(burn) = self.0.slos.burn_centi(&room.scenario, &self.0.settings, now) {
            measures.set(Metric::SloBurn, burn);
        }
        RoomRow {
            row: Row { id: id.0, measures },
            scenario: room.scenario.clone(),
            labels: room.labels.clone(),
            standing: room.nodes_of_route(),
            state: room.memory.read(reads).map(|state| PluginState::clone(state)),
        }
    }

    /// If no endpoint supports caps, the minimum cap that policies see is 0, no cap.
    pub(crate) fn session_measures(self, session: &Session, now: Instant) -> Measures {
        let mut measures = session.measures(now);
        if let Some(room) = self.0.rooms.get(&session.room) {
            measures.set(Metric::Sessions, room.sessions.len() as u64);
        }
        if !self.obeys_caps(session) {
            measures.set(Metric::Floor, u64::from(session.request.bounds.ceiling_kbps));
        }
        measures
    }

    /// An endpoint obeys caps on the session: its own endpoint or, in a room of two, the other one.
    pub(crate) fn obeys_caps(self, session: &Session) -> bool {
        if session.request.media.takes_remb() {
            return true;
        }
        let in_room =
            self.0.rooms.get(&session.room).into_iter().flat_map(|room| room.sessions.iter());
        let live = in_room.filter_map(|id| self.0.sessions.get(id));
        let live = live.filter(|other| other.phase == SessionPhase::Live).take(3);
        let (count, taking) = live.fold((0, false), |(count, taking), other| {
            (count + 1, taking || other.request.media.takes_remb())
        });
        count == 2 && taking
    }

    /// The room, if its route still has this version and neither an operator nor a rescue is moving it.
    pub(crate) fn unchanged(self, (id, version): (RoomId, u64)) -> Option<RoomId> {
        let room = self.0.rooms.get(&id).filter(|room| room.route().version == version)?;
        let taken = room.pending.as_ref().is_some_and(|pending| {
            matches!(pending.by, Decider::Operator | Decider::Node)
                || pending.cause.is_loss()
                || pending.cause == MoveCause::Link
        });
        (!taken).then_some(id)
    }

    /// The room has no spare at all. A missing policy answer must not leave it so.
    pub(crate) fn is_bare(self, id: RoomId) -> bool {
        self.0.rooms.get(&id).is_some_and(|room| {
            room.pending.is_none() && room.is_placed() && room.route().hops.len() < 2
        })
    }

    /// The native default for the room's route: it stays on its node.
    pub(crate) fn native_route(self, id: RoomId, now: Instant) -> Vec<NodeId> {
        let standing = self.stands_at(id).map_or_else(Vec::new, |stands| {
            let others =
                self.0.rooms[&id].nodes_of_route().into_iter().filter(|node| *node != stands.node);
            std::iter::once(stands.node).chain(others).collect()
        });
        self.native_hops(id, &standing, now)
    }

    /// 2: on these nodes the room has a standby with capacity for the death that its scenario names; 1: only for the death of its
    /// node; 0: for none.
    fn redundancy(self, id: RoomId, hops: &[NodeId]) -> u8 {
        let (Some(room), [first, second, ..]) = (self.0.rooms.get(&id), hops) else { return 0 };
        let (ledger, kbps) = (self.0.capacity.ledger.without(room.holding), self.room_kbps(id));
        let fits = |covers| match room.mode {
            RedundancyMode::Hitless => ledger.fits(*second, kbps),
            _ => ledger.fits_reserve(*second, *first, covers, kbps),
        };
        let covers = self.covers(room, *first, *second);
        u8::from(fits(None)) + u8::from(covers.is_some() && fits(covers))
    }

    /// On these nodes the room has less redundancy than the native default would give it.
    pub(crate) fn spends_redundancy(self, id: RoomId, hops: &[NodeId], now: Instant) -> bool {
        let first = hops.get(..1).unwrap_or_default();
        let native = || self.native_hops(id, first, now);
        let hops = self.without_inside_spares(id, hops, |node| *node);
        self.0.rooms.get(&id).is_some_and(|room| room.mode.opens_ahead())
            && self.redundancy(id, &hops) < self.redundancy(id, &native())
    }

    /// The difference of round trips by which the new hop delivers sooner, plus the variation of both. Sequence numbers
    /// are reserved for packets of the old hop that arrive within this time.
    pub(crate) fn lead(self, old: NodeId, new: NodeId) -> Duration {
        let round_trip = |id| self.0.nodes.get(id)?.detector.round_trip_seen();
        let Some(((old, late), (new, soon))) = round_trip(old).zip(round_trip(new)) else {
            return Duration::ZERO;
        };
        match old.saturating_sub(new) {
            sooner if sooner < LEAD_MIN => Duration::ZERO,
            sooner => (sooner + late + soon.min(new)).min(self.0.settings.limits.leave_within),
        }
    }

    /// Asking the policy could help. A spare without a reserve that a policy chose is deliberate.
    pub(crate) fn can_gain_reserve(self, id: RoomId, now: Instant) -> bool {
        let Some(standing) = self.stands_at(id).filter(|_| self.0.rooms[&id].pending.is_none())
        else {
            return false;
        };
        let policy_has_a_say =
            self.scenario_of(&self.0.rooms[&id]).is_some_and(|s| s.binds(Hook::Routing));
        let room = &self.0.rooms[&id];
        let (ledger, kbps) = (self.0.capacity.ledger.without(room.holding), self.room_kbps(id));
        let gains = |second: &NodeId| {
            let wanted = self.covers(room, standing.node, *second);
            match (room.mode, room.holding.twin, room.holding.reserve) {
                (RedundancyMode::Hitless, None, _) => ledger.fits(*second, kbps),
                (RedundancyMode::Hitless, Some(_), _) => {
                    wanted.is_some() && ledger.fits(*second, kbps)
                }
                (_, _, None) => true,
                (_, _, Some(_)) => {
                    wanted.is_some() && ledger.fits_reserve(*second, standing.node, wanted, kbps)
                }
            }
        };
        (self.is_bare(id) || !policy_has_a_say)
            && self.native_hops(id, &[standing.node], now).get(1).is_some_and(gains)
    }

    pub(crate) fn fits_its_room(self, id: SessionId) -> bool {
        let Some(session) = self.0.sessions.get(&id) else { return false };
        let (holding, kbps) = (self.0.rooms[&session.room].holding, session.kbps());
        let mut carriers = holding.loads().peekable();
        carriers.peek().is_some() && carriers.all(|node| self.0.capacity.ledger().fits(node, kbps))
    }

    pub(crate) fn shares(self, id: RoomId) -> Vec<(SessionId, u16)> {
        let sessions = self.sessions_from(id, SessionPhase::Placing).into_iter();
        sessions.map(|id| (id, self.0.sessions[&id].share)).collect()
    }

    /// All nodes that the room uses have this much more capacity free.
    pub(crate) fn leaves_room_for(self, id: RoomId, kbps: u64) -> bool {
        let holding = self.0.rooms[&id].holding;
        let fits = |node: NodeId| {
            let free = self.0.capacity.ledger().capacity(node) * LEAVES_FREE / 100;
            self.0.capacity.ledger().fits(node, kbps + free)
        };
        let reserved = holding.on.zip(holding.reserve);
        let reserves =
            |(on, at)| self.0.capacity.ledger().fits_reserve(at, on, holding.covers, kbps);
        holding.on.is_some() && holding.loads().all(fits) && reserved.is_none_or(reserves)
    }

    /// The hop that the room's packets take now.
    pub(crate) fn stands_at(self, id: RoomId) -> Option<Hop> {
        self.0.rooms.get(&id)?.stands_at(self.0.nodes.board())
    }

    pub(crate) fn sessions_of(self, id: RoomId) -> Vec<SessionId> {
        self.0.rooms.get(&id).map_or_else(Vec::new, |room| room.sessions.iter().copied().collect())
    }

    pub(crate) fn sessions_from(self, id: RoomId, phase: SessionPhase) -> Vec<SessionId> {
        let mut sessions = self.sessions_of(id);
        sessions.retain(|id| self.0.sessions.get(id).is_some_and(|it| it.phase >= phase));
        sessions
    }

    pub(crate) fn live_sessions(self, id: RoomId) -> Vec<SessionId> {
        self.sessions_from(id, SessionPhase::Live)
    }

    /// All live sessions of the room are open at the hop, or are being opened there.
    pub(crate) fn has_all_legs(self, id: RoomId, hop: Hop) -> bool {
        self.live_sessions(id).iter().all(|id| self.0.sessions[id].legs.contains_key(&hop))
    }

    pub(crate) fn room_kbps(self, id: RoomId) -> u64 {
        let sessions = self.sessions_from(id, SessionPhase::Placing);
        sessions.iter().map(|id| self.0.sessions[id].kbps()).sum()
    }

    /// The zone or region of `on` whose death the room's scenario names in `reserve`. `None`: the death of the node alone, or
    /// `standby` would die as well.
    pub(crate) fn covers(self, room: &Room, on: NodeId, standby: NodeId) -> Option<FailureDomain> {
        let scope = self.reserve_scope(room);
        let domain = self.0.nodes.domain_of(on, scope)?;
        (self.0.nodes.domain_of(standby, scope) != Some(domain)).then_some(domain)
    }

    pub(crate) fn reserve_scope(self, room: &Room) -> FailureScope {
        self.scenario_of(room).map_or(FailureScope::Node, |scenario| scenario.reserve)
    }

    fn spares_outside(self, room: &Room) -> FailureScope {
        self.scenario_of(room).map_or(FailureScope::Node, |scenario| scenario.spares_outside)
    }

    /// The room has a second node with capacity for the death that its scenario names. True of a room without a node.
    pub(crate) fn is_covered(self, room: &Room) -> bool {
        let Holding { on, reserve, covers, twin, .. } = room.holding;
        let Some(on) = on else { return true };
        let is_wide = self.reserve_scope(room) != FailureScope::Node;
        match (twin, reserve) {
            (Some(twin), _) => !is_wide || self.covers(room, on, twin).is_some(),
            (None, Some(_)) => !is_wide || covers.is_some(),
            (None, None) => false,
        }
    }

    pub(crate) fn scenario_of(self, room: &Room) -> Option<&'a Scenario> {
        self.0.settings.scenarios.get(&room.scenario)
    }

    /// The region that carries the room, or carried it before its node died.
    pub(crate) fn region_of_room(self, id: RoomId) -> Option<RegionId> {
        let room = self.0.rooms.get(&id)?;
        let on = room.holding.on.or(room.stranded().map(|stranded| stranded.lost.node))?;
        Some(self.0.nodes.region_of(on))
    }
}
