//! Lost flows: a session receives nothing any more while others continue. Only the room of that session leaves the hop.

use std::time::{Duration, Instant};

use evenkeel_model::{FlowCounts, Hop, RoomId, SessionId, Strike};
use evenkeel_nodes::NodeTable;

use super::Quality;
use crate::flow::{FlowTracker, SendingState};
use crate::rooms::{Failover, Placement};
use crate::sessions::{SessionPhase, SessionTable};
use crate::timer::Timer;

const JUDGE_EVERY: Duration = Duration::from_millis(100);

/// Maximum age of reports on a session while there are few sessions. Any further delay is passed as `slack`.
const TOLD_WITHIN: Duration = Duration::from_millis(200);

/// A node that was not heard for this long sends nothing to any session. That is no lost flow, and other witnesses
/// cover it.
const NODE_HEARD_WITHIN: Duration = Duration::from_millis(200);

/// The verdict on a session that receives nothing any more.
enum FlowVerdict {
    /// This hop fails to deliver what other sessions send.
    Lost(Hop),
    /// No hop is to blame, or it cannot be determined.
    Innocent,
    Wait,
}

impl Quality {
    /// Takes the packets between a session and its node since the last report. Returns whether the session is live and
    /// carried.
    pub(crate) fn handle_flow(
        &mut self,
        id: SessionId,
        flow: &FlowCounts,
        failover: &mut Failover,
        now: Instant,
    ) -> bool {
        let slack = slack(failover.sessions);
        let Some(session) =
            failover.sessions.unrecorded_mut(&id).filter(|s| s.phase == SessionPhase::Live)
        else {
            return false;
        };
        let room = session.room;
        let carriers =
            failover.rooms.get(&room).and_then(|room| room.cell.carriers(failover.nodes.board()));
        let Some((first, other)) = carriers else {
            return false;
        };
        // With two carrying hops, the client receives from the leading one.
        let hop = other.filter(|other| flow.hears == Some(*other)).unwrap_or(first);
        let track = session.track.get_or_insert_with(|| Box::new(FlowTracker::new(hop, now)));
        if track.hop() != hop {
            track.goes_to(hop, now);
        }
        if flow.came != [0; 2]
            && let Some(from) = flow.hears
            && let Some(node) = failover.nodes.get_mut(from.node)
            && node.hop() == from
        {
            node.detector.handle_delivered(now);
        }
        // Packets from a previous hop say nothing about this one.
        let is_here = flow.hears == Some(hop);
        // With two carrying hops, loss at both accuses neither, and the other hop covers the loss at one.
        let is_its_own = is_here && other.is_none();
        let (expected, lost) = if is_its_own { (flow.expected, flow.lost) } else { (0, 0) };
        let came = if is_here { flow.came } else { [0; 2] };
        let falls_silent = track.note(&FlowCounts { came, expected, lost, ..*flow }, slack, now);
        if is_its_own {
            self.tally(room, hop, flow, failover, now);
        }
        if falls_silent {
            self.silent.insert((room, id));
            failover.effects.set_if_idle(Timer::Flows, now + JUDGE_EVERY);
        }
        true
    }

    /// Judges the silent sessions only.
    pub(crate) fn judge_flows(&mut self, failover: &mut Failover, now: Instant) {
        for (room, session) in std::mem::take(&mut self.silent) {
            failover.catch_up(room, now);
            match judge_flow(room, session, failover.placement(), now) {
                FlowVerdict::Wait => _ = self.silent.insert((room, session)),
                FlowVerdict::Innocent => {
                    with_track(failover.sessions, session, FlowTracker::forget);
                }
                FlowVerdict::Lost(hop) => {
                    with_track(failover.sessions, session, FlowTracker::moved);
                    failover.drop_hop(room, hop, (Strike::FlowLost, Some(session)), now);
                }
            }
        }
        if !self.silent.is_empty() {
            failover.effects.set(Timer::Flows, now + JUDGE_EVERY);
        }
    }

    /// The control thread was late: packets of sessions that seem silent may not have been read.
    pub(crate) fn excuse_flows(&self, late: Duration, sessions: &mut SessionTable) {
        for (_, session) in &self.silent {
            let session = sessions.unrecorded_mut(session);
            if let Some(track) = session.and_then(|session| session.track.as_deref_mut()) {
                track.excuse(late);
            }
        }
    }
}

fn slack(sessions: &SessionTable) -> Duration {
    sessions.told_within.saturating_sub(TOLD_WITHIN)
}

fn with_track(
    sessions: &mut SessionTable,
    session: SessionId,
    change: impl FnOnce(&mut FlowTracker),
) {
    if let Some(track) = sessions.unrecorded_mut(&session).and_then(|s| s.track.as_deref_mut()) {
        change(track);
    }
}

fn judge_flow(id: RoomId, session: SessionId, state: Placement, now: Instant) -> FlowVerdict {
    let Placement { sessions, rooms, nodes, .. } = state;
    let slack = slack(sessions);
    let track = sessions.get(&session).and_then(|session| session.track.as_deref());
    let (Some(track), Some(room)) = (track, rooms.get(&id)) else {
        return FlowVerdict::Innocent;
    };
    let carries =
        |(first, other): (Hop, Option<Hop>)| first == track.hop() || other == Some(track.hop());
    if !track.is_silent() || !room.cell.carriers(nodes.board()).is_some_and(carries) {
        return FlowVerdict::Innocent;
    }
    let Some(silent) = track.lost_since(slack, now) else {
        return FlowVerdict::Wait;
    };
    if !is_heard(nodes, track.hop(), now) {
        return FlowVerdict::Innocent;
    }
    let kinds = track.heard();
    let mut fed = false;
    for other in room.sessions.iter() {
        let track = sessions.get(other).and_then(|session| session.track.as_deref());
        match track.map_or(SendingState::Not, |track| track.sending(kinds, silent, slack, now)) {
            // The silent session may have been hearing this sender.
            SendingState::Stopped => return FlowVerdict::Innocent,
            // A session alone in its room may hear itself.
            SendingState::On => fed |= *other != session || room.sessions.len() == 1,
            SendingState::Not => {}
        }
    }
    if fed { FlowVerdict::Lost(track.hop()) } else { FlowVerdict::Innocent }
}

/// The node sends to some session.
fn is_heard(nodes: &NodeTable, hop: Hop, now: Instant) -> bool {
    let received = nodes.get(hop.node).and_then(|node| node.detector.last_received());
    received.is_some_and(|at| now.saturating_duration_since(at) < NODE_HEARD_WITHIN)
}
