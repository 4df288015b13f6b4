//! Names the segment of a session's path that impairs its media. `evenkeel-diagnosis` judges a path.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use evenkeel_diagnosis::{
    DeviceSlot, ImpairmentChange, OwnFaults, PathContext, ProbedLeg, RoomUplinks, SessionPath,
    StandingImpairment,
};
use evenkeel_model::{
    CoreEvent, FlowCounts, Impairment, ImpairmentSign, NodeId, NodeProbing, PathSegment, RoomId,
    SessionId,
};
use evenkeel_nodes::NodeTable;

use crate::effects::Effects;
use crate::rooms::RoomTable;
use crate::sessions::SessionTable;

/// The shortest slot: two of them have 100 packets of voice.
const SLOT: Duration = Duration::from_secs(1);

/// Reports on sessions come at least this often in a slot, so that counts of several sessions cover about the same time.
const REPORTS_PER_SLOT: u32 = 4;

/// Paths that are checked for idleness at a time, as sessions are for silence.
const SWEPT_AT_ONCE: usize = 1_024;

/// Idle paths are forgotten after this many slots.
const IDLE_SLOTS: u64 = 4;

/// Sessions of a call between two. In larger rooms people mute their microphones before they join.
const CALL_SESSIONS: usize = 2;

#[derive(Debug)]
pub(crate) struct Diagnosis {
    began: Instant,
    slot_length: Duration,
    /// Sessions with packets lately.
    paths: BTreeMap<SessionId, Box<SessionPath>>,
    /// The senders' uplinks of rooms, for listeners.
    uplinks: BTreeMap<RoomId, RoomUplinks>,
    /// The number of sessions that each node impairs, by itself or by the leg to it.
    impaired_by: BTreeMap<NodeId, u32>,
    own: OwnFaults,
    swept: SessionId,
}

impl Diagnosis {
    pub(crate) fn new(now: Instant) -> Diagnosis {
        Diagnosis {
            began: now,
            slot_length: SLOT,
            paths: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            impaired_by: BTreeMap::new(),
            own: OwnFaults::default(),
            swept: SessionId(0),
        }
    }

    /// The impairment of the session, if any.
    pub(crate) fn impairment(&self, id: SessionId) -> Option<Impairment> {
        self.paths.get(&id)?.impairment.map(|standing| standing.impairment)
    }

    /// The number of sessions that the node impairs, by itself or by the leg to it.
    pub(crate) fn impaired_by(&self, node: NodeId) -> u32 {
        self.impaired_by.get(&node).copied().unwrap_or(0)
    }

    fn change_count(&mut self, from: Option<NodeId>, to: Option<NodeId>) {
        if from == to {
            return;
        }
        if let Some(node) = from
            && let Some(sessions) = self.impaired_by.get_mut(&node)
        {
            *sessions -= 1;
            if *sessions == 0 {
                self.impaired_by.remove(&node);
            }
        }
        if let Some(node) = to {
            *self.impaired_by.entry(node).or_default() += 1;
        }
    }

    /// The session loses packets on its own uplink or downlink; `None` if neither is measured. Jitter and delay alone are no
    /// reason to limit its group.
    pub(crate) fn loses_by_client(&self, id: SessionId) -> Option<bool> {
        let by_client = |it: Impairment| {
            it.at == id
                && it.sign == ImpairmentSign::Loss
                && matches!(it.segment, PathSegment::Uplink | PathSegment::Downlink)
        };
        let path = self.paths.get(&id)?;
        let loses = path.impairment.is_some_and(|standing| by_client(standing.impairment));
        (loses || path.measures_client()).then_some(loses)
    }

    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Forgets a session that has just been closed. Its impairment ends before it.
    pub(crate) fn end_session(&mut self, id: SessionId, effects: &mut Effects) {
        let Some(path) = self.paths.remove(&id) else { return };
        self.change_count(path.impairing_node(), None);
        if let Some(StandingImpairment { impairment, since, .. }) = path.impairment {
            effects.explain_close(id, |room_name, scenario| CoreEvent::Impaired {
                session: id,
                room_name,
                scenario,
                impairment: None,
                ended: Some((Box::new(impairment), since)),
            });
        }
    }

    pub(crate) fn forget_room(&mut self, id: RoomId) {
        self.uplinks.remove(&id);
    }

    /// The gateway did not read packets for this time.
    pub(crate) fn note_late(&mut self, late: Duration, now: Instant) {
        self.own.note_late(self.slot_of(now), late);
    }

    /// Takes the number of packets that the gateway has dropped by its own fault since it began.
    pub(crate) fn note_dropped(&mut self, dropped: u64, now: Instant) {
        self.own.note_dropped(self.slot_of(now), dropped);
    }

    /// Sets the maximum age of the workers' last report on a session. Slots double while comparisons need longer ones, and
    /// halve once a quarter of their length is enough.
    pub(crate) fn note_reports_within(&mut self, within: Duration) {
        let needed = within * REPORTS_PER_SLOT;
        let length = if needed > self.slot_length {
            self.slot_length * 2
        } else if needed * 4 <= self.slot_length && self.slot_length > SLOT {
            self.slot_length / 2
        } else {
            return;
        };
        self.slot_length = length;
        self.uplinks.clear();
        self.own.reset();
        self.paths.values_mut().for_each(|path| path.reset_counts());
    }

    /// Counts the workers' report on a live session, and judges the session once per slot. Returns the slot of its device that ended.
    pub(crate) fn handle_flow(
        &mut self,
        id: SessionId,
        flow: &FlowCounts,
        sessions: &SessionTable,
        rooms: &RoomTable,
        nodes: &NodeTable,
        effects: &mut Effects,
        now: Instant,
    ) -> Option<DeviceSlot> {
        let session = sessions.get(&id)?;
        let (slot, room) = (self.slot_of(now), session.room());
        let path = self.paths.entry(id).or_default();
        let before = path.impairing_node();
        let mut device = None;
        if slot > path.slot {
            let ended = path.slot;
            path.begin_slot(slot);
            device = (ended > 0).then(|| path.device_slot(id, self.slot_length));
            path.note_frames(self.slot_length, session.is_capped());
            if ended + 1 == slot
                && let Some(uplink) = path.uplink(id)
            {
                self.uplinks.entry(room).or_default().note(ended, uplink);
            }
            let change = self.judge(id, room, rooms, nodes, now);
            change.into_iter().for_each(|it| report(id, it, sessions, rooms, effects));
        }
        self.own.note_packets(slot, flow.packets());
        let path = self.paths.get_mut(&id)?;
        let change = path.add(flow);
        let impairing = path.impairing_node();
        self.change_count(before, impairing);
        if let Some(change) = change {
            report(id, change, sessions, rooms, effects);
        }
        device
    }

    #[cfg(test)]
    pub(crate) fn slot_length(&self) -> Duration {
        self.slot_length
    }

    fn slot_of(&self, now: Instant) -> u64 {
        // The first slot is 1: 0 is a path without any.
        1 + (now.saturating_duration_since(self.began).as_millis() / self.slot_length.as_millis())
            as u64
    }

    fn judge(
        &mut self,
        id: SessionId,
        room: RoomId,
        rooms: &RoomTable,
        nodes: &NodeTable,
        now: Instant,
    ) -> Option<ImpairmentChange> {
        let slot = self.slot_of(now);
        let path = self.paths.get_mut(&id)?;
        let in_room = rooms.get(&room);
        let on = in_room.and_then(|room| room.stands_at(nodes.board()));
        let node = on.and_then(|hop| nodes.get(hop.node));
        let node = node.filter(|node| node.settings.probed == NodeProbing::Yes);
        let found = path.judge(&PathContext {
            id,
            slot_length: self.slot_length,
            senders: self.uplinks.get(&room).and_then(|uplinks| uplinks.heard_by(id, slot)),
            probes: node.map(|node| ProbedLeg {
                loss_ppm: node.detector.loss_ppm(),
                round_trip: node.detector.round_trip_deviation(),
            }),
            own: self.own.lately(slot),
            is_call: in_room.is_some_and(|room| room.sessions().len() <= CALL_SESSIONS),
        });
        path.take_finding(found, now)
    }

    /// Forgets the next idle paths. The impairment of a session without packets ends.
    pub(crate) fn forget_idle(
        &mut self,
        sessions: &SessionTable,
        rooms: &RoomTable,
        effects: &mut Effects,
        now: Instant,
    ) {
        let slot = self.slot_of(now);
        let after = (Bound::Excluded(self.swept), Bound::Unbounded);
        let turn: Vec<SessionId> =
            self.paths.range(after).map(|(id, _)| *id).take(SWEPT_AT_ONCE).collect();
        let is_last = turn.len() < SWEPT_AT_ONCE;
        self.swept = turn.last().copied().filter(|_| !is_last).unwrap_or(SessionId(0));
        let idle_since = slot.saturating_sub(IDLE_SLOTS);
        for id in turn {
            // The counts of slot 0 were reset.
            let is_idle = |path: &SessionPath| (1..idle_since).contains(&path.slot);
            if !self.paths.get(&id).is_some_and(|path| is_idle(path)) {
                continue;
            }
            let Some(path) = self.paths.remove(&id) else { continue };
            self.change_count(path.impairing_node(), None);
            if let Some(session) = sessions.get(&id)
                && self.uplinks.get(&session.room()).is_some_and(|it| it.is_idle_since(idle_since))
            {
                self.uplinks.remove(&session.room());
            }
            if path.impairment.is_some() {
                let ended = ImpairmentChange { ended: path.impairment, now: None };
                report(id, ended, sessions, rooms, effects);
            }
        }
    }
}

fn report(
    id: SessionId,
    change: ImpairmentChange,
    sessions: &SessionTable,
    rooms: &RoomTable,
    effects: &mut Effects,
) {
    let Some(session) = sessions.get(&id) else { return };
    let Some(room) = rooms.get(&session.room()) else { return };
    let (scenario, room_name) = (session.scenario().clone(), room.name().clone());
    let ended = change.ended.map(|ended| (Box::new(ended.impairment), ended.since));
    let (session, impairment) = (id, change.now.map(Box::new));
    let event = CoreEvent::Impaired { session, room_name, scenario, impairment, ended };
    effects.event(event);
}
