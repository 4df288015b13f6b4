//! Reroutes: the rows that policies see, and the moves that they ask for.

use std::time::Instant;

use evenkeel_model::{
    Decider, GuardRule, Measures, Metric, MoveCause, NodeId, PluginState, RoomId, RoomRow,
    RoutingMove, Row,
};
use evenkeel_revisions::Revision;

use super::Router;
use crate::policy::PartOutcome;
use crate::sessions::{Session, SessionPhase};

impl Router<'_> {
    /// A room as routing policies see it. `reads` is the revision that is asked.
    pub(crate) fn room_row(&self, id: RoomId, reads: Option<&Revision>, now: Instant) -> RoomRow {
        let room = &self.rooms[&id];
        let mut measures = Measures::default();
        measures.set(Metric::Sessions, room.sessions.len() as u64);
        let sessions = || room.sessions.iter().filter_map(|id| self.sessions.get(id));
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
        RoomRow {
            row: Row { id: id.0, measures },
            scenario: room.scenario.clone(),
            labels: room.labels.clone(),
            standing: room.standing(),
            state: room.memory.read(reads).map(|state| PluginState::clone(state)),
        }
    }

    /// If no endpoint supports caps, the minimum cap that policies see is 0, no cap.
    pub(crate) fn session_measures(&self, session: &Session, now: Instant) -> Measures {
        let mut measures = session.measures(now);
        if let Some(room) = self.rooms.get(&session.room) {
            measures.set(Metric::Sessions, room.sessions.len() as u64);
        }
        if !self.obeys_caps(session) {
            measures.set(Metric::Floor, u64::from(session.bounds.ceiling_kbps));
        }
        measures
    }

    /// An endpoint obeys caps on the session: its own endpoint or, in a room of two, the other one.
    pub(crate) fn obeys_caps(&self, session: &Session) -> bool {
        if session.request.media.takes_remb() {
            return true;
        }
        let in_room =
            self.rooms.get(&session.room).into_iter().flat_map(|room| room.sessions.iter());
        let live = in_room.filter_map(|id| self.sessions.get(id));
        let live = live.filter(|other| other.phase == SessionPhase::Live).take(3);
        let (count, taking) = live.fold((0, false), |(count, taking), other| {
            (count + 1, taking || other.request.media.takes_remb())
        });
        count == 2 && taking
    }

    /// The room, if its route still has this version and neither an operator nor a rescue is moving it.
    pub(crate) fn unchanged(&self, (id, version): (RoomId, u64)) -> Option<RoomId> {
        let room = self.rooms.get(&id).filter(|room| room.route().version == version)?;
        let taken = room.pending.as_ref().is_some_and(|pending| {
            matches!(pending.by, Decider::Operator | Decider::Node)
                || matches!(pending.cause, MoveCause::NodeDown | MoveCause::Link)
        });
        (!taken).then_some(id)
    }

    /// Applies a policy's move. Moves off a dead node bypass damping.
    pub(crate) fn take_move(
        &mut self,
        id: RoomId,
        step: &RoutingMove,
        by: &Decider,
        now: Instant,
    ) -> Result<PartOutcome, GuardRule> {
        self.check_hops(id, &step.hops, now)?;
        let room = &self.rooms[&id];
        let (stranded, heads) = (room.stranded.is_some(), room.pending.as_ref());
        let heads = heads.and_then(|pending| Some(pending.hops.first()?.node));
        let stands = self.stands_at(id).map(|hop| hop.node);
        // A repeated decision for the hop that the room is already moving to counts as one move.
        if ![stands, heads].contains(&step.hops.first().copied()) {
            self.check_placement(id, &step.hops, now)?;
            if !stranded {
                if self.is_damped(id, now) {
                    return Err(GuardRule::MovedTooOften);
                }
                let sessions = self.rooms[&id].sessions.len();
                let percent = self.settings.limits.churn_percent as usize;
                let allowed = self.sessions.live() * percent / 100;
                self.capacity.check_churn(sessions, allowed, now)?;
                self.capacity.note_churn(sessions, now);
            }
        }
        let Some(room) = self.rooms.get_mut(&id) else {
            return Ok(PartOutcome::Kept);
        };
        room.ttl_ms = step.ttl_ms;
        let heading = room.pending.as_ref().map(|pending| pending.hops.iter().map(|h| h.node));
        let same = heading
            .map_or_else(|| room.standing() == step.hops, |to| to.eq(step.hops.iter().copied()));
        if same {
            return Ok(PartOutcome::Kept);
        }
        let differs = step.hops != self.native_route(id, now);
        let cause = if stranded { MoveCause::NodeDown } else { MoveCause::Quality };
        self.head_for(id, &step.hops, cause, by.clone(), now);
        Ok(PartOutcome::Applied { differs })
    }

    /// The room has no spare at all. A missing policy answer must not leave it so.
    pub(crate) fn is_bare(&self, id: RoomId) -> bool {
        self.rooms.get(&id).is_some_and(|room| {
            room.pending.is_none() && room.is_placed() && room.route().hops.len() < 2
        })
    }

    /// The native default for the room's route: it stays on its node.
    fn native_route(&mut self, id: RoomId, now: Instant) -> Vec<NodeId> {
        let standing = self.stands_at(id).map_or_else(Vec::new, |stands| {
            let others = self.rooms[&id].standing().into_iter().filter(|node| *node != stands.node);
            std::iter::once(stands.node).chain(others).collect()
        });
        self.native_hops(id, &standing, now)
    }

    /// The native default never moves a placed room and keeps its spares. It adds spares, and puts one that reserves
    /// capacity before those that do not.
    pub(crate) fn reroute_natively(&mut self, id: RoomId, now: Instant) {
        self.catch_up(id, now);
        if self.stands_at(id).is_none() || self.rooms[&id].pending.is_some() {
            return;
        }
        let nodes = self.native_route(id, now);
        if self.rooms[&id].standing() != nodes {
            self.head_for(id, &nodes, MoveCause::Quality, Decider::Native, now);
        }
    }

    /// The policy answered about the room. `apart`: it failed, or left this room out.
    pub(crate) fn answered(&mut self, id: RoomId, apart: bool, now: Instant) {
        if self.rooms.contains_key(&id) {
            self.set_due(id, now);
            if apart || self.is_bare(id) {
                self.reroute_natively(id, now);
            }
        }
    }
}
