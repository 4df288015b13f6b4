//! The course of sessions: openings, refusals, moves, pauses of media and ends.

use std::time::Duration;

use evenkeel_control::{MediaPause, NodeName, TraceCaller};
use evenkeel_model::{CoreEvent, Decider, MoveCause, NodeId, SessionId};
use tracing::{debug, warn};

use super::EventRecorder;
use super::rows::decider_name;
use crate::exemplars::SampledSpan;
use crate::registry::{Attribute, Count, Histogram};
use crate::spans::{Moment, RefusedOffer};

/// Log interval of sessions that a node did not open.
const NOT_OPENED_TOLD: Duration = Duration::from_secs(10);

/// The labels of a scenario's sessions at a place.
fn placed<'a>(scenario: &'a str, place: &'a NodeName) -> [(Attribute, &'a str); 3] {
    [
        (Attribute::Scenario, scenario),
        (Attribute::Region, &*place.region),
        (Attribute::Zone, &*place.zone),
    ]
}

impl EventRecorder {
    fn exemplar(&self, session: SessionId) -> Option<SampledSpan> {
        self.spans.as_ref()?.exemplar(session)
    }

    pub(super) fn opened(&mut self, event: &CoreEvent, caller: Option<&TraceCaller>, at: Moment) {
        let CoreEvent::Opened { session, room, scenario, hop, offered, .. } = event else { return };
        let place = self.names.of_hop(*hop);
        debug!(%session, %room, scenario = &**scenario, node = %place.node, "session opened");
        if let Some(spans) = &mut self.spans {
            spans.opened(event, caller, at);
        }
        let took = at.now.saturating_duration_since(*offered);
        let (labels, span) = (placed(scenario, &place), self.exemplar(*session));
        self.instruments.time_of(Histogram::SessionOpen, took, &labels, span);
    }

    pub(super) fn refused(
        &mut self,
        refused: &RefusedOffer<'_>,
        caller: Option<&TraceCaller>,
        at: Moment,
    ) {
        let RefusedOffer { scenario, word, .. } = *refused;
        debug!(scenario, reason = word, "offer refused");
        let known = if self.scenarios.contains(scenario) { scenario } else { "" };
        let labels = [(Attribute::Scenario, known), (Attribute::Reason, word)];
        self.instruments.count(Count::SessionsRefused, 1, &labels);
        if let Some(spans) = &mut self.spans {
            spans.refused(refused, caller, at);
        }
    }

    /// Logs the first failed opening of a series, and counts all.
    pub(super) fn handle_not_opened(
        &mut self,
        session: SessionId,
        node: NodeId,
        reason: &str,
        at: Moment,
    ) {
        let name = self.names.of_node(node).node;
        let told = self.not_opened.get(&node);
        if told.is_some_and(|told| at.now.saturating_duration_since(*told) < NOT_OPENED_TOLD) {
            debug!(node = %name, %session, reason, "node did not open a session");
        } else {
            self.not_opened.insert(node, at.now);
            warn!(node = %name, %session, reason, "node did not open a session");
        }
    }

    pub(super) fn closed(&mut self, event: &CoreEvent, at: Moment) {
        let CoreEvent::Closed { session, room, reason, .. } = event else { return };
        debug!(%session, %room, reason = reason.name(), "session closed");
        if let Some(spans) = &mut self.spans {
            spans.closed(event, at);
        }
    }

    pub(super) fn moved(&mut self, event: &CoreEvent, at: Moment) {
        let CoreEvent::Moved {
            room,
            scenario,
            sessions,
            cause,
            by,
            from,
            to,
            started,
            is_final,
            ..
        } = event
        else {
            return;
        };
        let place = self.names.of_hop(*from);
        let to_node = to.map(|to| self.names.of_hop(to).node);
        let took = at.now.saturating_duration_since(*started);
        debug!(%room, cause = cause.name(), by = by.to_string(), from = %place.node, to = to_node.as_deref(), ?took, "room moved");
        if let Some(spans) = &mut self.spans {
            spans.moved(event, at);
        }
        if to.is_none() {
            let why = (Attribute::Cause, cause.name());
            return self.instruments.count(Count::RoomsStranded, 1, &[why]);
        }
        // Counted once its cause is known.
        if *is_final {
            self.count_move(*cause, by, scenario, sessions, &place, took);
        }
    }

    /// Counts a move off a node.
    pub(super) fn count_move(
        &self,
        cause: MoveCause,
        by: &Decider,
        scenario: &str,
        sessions: &[SessionId],
        place: &NodeName,
        took: Duration,
    ) {
        let why = (Attribute::Cause, cause.name());
        self.instruments.count(Count::RoomsMoved, 1, &[why, (Attribute::By, &*decider_name(by))]);
        let [scenario, region, zone] = placed(scenario, place);
        let labels = [why, scenario, region, zone];
        self.instruments.count(Count::SessionsMoved, sessions.len() as u64, &labels);
        let span = sessions.iter().find_map(|session| self.exemplar(*session));
        self.instruments.time_of(Histogram::RoomMove, took, &[why], span);
    }

    pub(super) fn paused(&self, pauses: &[MediaPause]) {
        for MediaPause { session, scenario, hop, gap, freezes } in pauses {
            let place = self.names.of_hop(*hop);
            let labels = placed(scenario, &place);
            if *freezes > 0 {
                self.instruments.count(Count::SessionFreezes, u64::from(*freezes), &labels);
            }
            if let Some(gap) = gap {
                let span = self.exemplar(*session);
                self.instruments.time_of(Histogram::SessionGap, *gap, &labels, span);
            }
        }
    }
}
