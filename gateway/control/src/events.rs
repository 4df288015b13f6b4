//! Sends events to subscribers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{CloseReason, CoreEvent, NodeId, SessionId};

use super::messages::{EventRecord, GatewayEvent, OfferedSession, TraceCaller};
use super::thread::{Control, Reporting};

/// Wait for the final totals of a session. Workers report them with their next pass, well within this time.
const TOTALS_WITHIN: Duration = Duration::from_secs(1);

/// Ended sessions that wait for final totals from their workers.
#[derive(Default)]
pub(super) struct Closings(BTreeMap<SessionId, Closing>);

struct Closing {
    event: CoreEvent,
    /// Totals of the last summary.
    totals: Totals,
    since: Instant,
}

impl Closings {
    fn hold(&mut self, session: SessionId, event: CoreEvent, totals: Totals, since: Instant) {
        self.0.insert(session, Closing { event, totals, since });
    }

    /// Takes a session whose worker has reported the final totals.
    pub(super) fn take(&mut self, session: SessionId) -> Option<(CoreEvent, Totals)> {
        self.0.remove(&session).map(|closing| (closing.event, closing.totals))
    }

    /// Takes sessions whose final report did not come within [`TOTALS_WITHIN`], with the totals of the last summary.
    /// Reports may be lost when many sessions end at once.
    fn late(&mut self, now: Instant) -> Vec<(CoreEvent, Totals)> {
        let late = |_: &SessionId, closing: &mut Closing| {
            now.saturating_duration_since(closing.since) >= TOTALS_WITHIN
        };
        let late = self.0.extract_if(.., late);
        late.map(|(_, closing)| (closing.event, closing.totals)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Control {
    /// Sends an event. The event of a session's end waits for its final totals.
    pub(super) fn send_or_hold(&mut self, event: CoreEvent) {
        match event {
            CoreEvent::Closed { session, reason, .. } => match self.registry.get(session) {
                // The worker has removed the session and reports no totals.
                Some(entry) if reason == CloseReason::Panicked => {
                    self.send_core_event(event, Some(entry.totals()));
                }
                Some(entry) => {
                    self.reporting.closing.hold(session, event, entry.totals(), Instant::now());
                }
                None => self.send_core_event(event, None),
            },
            event => self.send_core_event(event, None),
        }
    }

    /// Sends the events of all ended sessions, with the totals that are known.
    pub(super) fn send_all_closings(&mut self) {
        for closing in std::mem::take(&mut self.reporting.closing).0.into_values() {
            self.send_core_event(closing.event, Some(closing.totals));
        }
    }

    pub(super) fn send_late_closings(&mut self, now: Instant) {
        for (event, totals) in self.reporting.closing.late(now) {
            self.send_core_event(event, Some(totals));
        }
    }

    pub(super) fn send_core_event(&self, event: CoreEvent, totals: Option<Totals>) {
        if let CoreEvent::Closed { session, room_name, reason, closed, .. } = &event {
            self.reporting.history.write(
                *session,
                room_name,
                *reason,
                closed,
                &totals.unwrap_or_default(),
            );
        }
        let (event, pending) = match event {
            CoreEvent::Opened { session, .. } => {
                let offer = self.registry.get(session).map(|entry| entry.offer);
                let pending = offer.and_then(|offer| self.offers.in_progress.get(&offer));
                (GatewayEvent::Core(event), pending)
            }
            CoreEvent::Refused { offer, session, ref scenario, .. } => {
                let pending = self.offers.in_progress.get(&offer);
                let turned_away = pending.and_then(|pending| pending.admit_error).map(|error| {
                    let (scenario, reason) = (scenario.clone(), error.name());
                    GatewayEvent::TurnedAway { scenario, reason, session }
                });
                (turned_away.unwrap_or(GatewayEvent::Core(event)), pending)
            }
            event => (GatewayEvent::Core(event), None),
        };
        let caller = pending.map(|pending| TraceCaller::of(&pending.request, pending.arrived));
        self.reporting.send(EventRecord { totals, caller, ..EventRecord::now(event) });
    }

    /// Records the reason for the caller as well, in case the offer is refused because of it.
    pub(super) fn send_not_opened(&mut self, session: SessionId, node: NodeId, reason: Box<str>) {
        let offer = self.registry.get(session).map(|entry| entry.offer);
        if let Some(pending) = offer.and_then(|offer| self.offers.in_progress.get_mut(&offer)) {
            pending.not_opened = Some((node, reason.clone()));
        }
        self.reporting.send_event(GatewayEvent::NotOpened { session, node, reason });
    }
}

impl Reporting {
    /// Sends the event of an offer that control refused before the core received it.
    pub(super) fn send_turned_away(
        &self,
        wanted: &OfferedSession,
        reason: &'static str,
        arrived: Instant,
    ) {
        let scenario = wanted.scenario.clone();
        let event = GatewayEvent::TurnedAway { scenario, reason, session: None };
        let caller = Some(TraceCaller::of(wanted, arrived));
        self.send(EventRecord { caller, ..EventRecord::now(event) });
    }

    pub(super) fn send_event(&self, event: GatewayEvent) {
        self.send(EventRecord::now(event));
    }

    fn send(&self, record: EventRecord) {
        // Fails only without subscribers.
        let _ = self.events.send(Arc::new(record));
    }
}

#[cfg(test)]
mod tests;
