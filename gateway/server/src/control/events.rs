//! Events to subscribers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{CloseReason, Event, NodeId, SessionId};
use evenkeel_dataplane::worker::Totals;

use super::messages::{Caller, EventRecord, GatewayEvent, SessionRequest};
use super::thread::Control;

/// Workers report final totals with their next pass; later ones are not waited for.
const TOTALS_WITHIN: Duration = Duration::from_secs(1);

/// Sessions that ended, with final totals still to come from their workers.
#[derive(Default)]
pub(super) struct Closings(BTreeMap<SessionId, Closing>);

struct Closing {
    event: Event,
    /// Totals of the last summary.
    totals: Totals,
    since: Instant,
}

impl Closings {
    fn hold(&mut self, session: SessionId, event: Event, totals: Totals, since: Instant) {
        self.0.insert(session, Closing { event, totals, since });
    }

    /// Takes a closing session: its worker has reported, or no event is due.
    pub(super) fn take(&mut self, session: SessionId) -> Option<(Event, Totals)> {
        self.0.remove(&session).map(|closing| (closing.event, closing.totals))
    }

    /// The final report may be lost when many sessions end at once; then the last summary's totals are used.
    fn late(&mut self, now: Instant) -> Vec<(Event, Totals)> {
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
    pub(super) fn send_or_hold(&mut self, event: Event) {
        match event {
            Event::Closed { session, reason, .. } => match self.registry.get(session) {
                // Its worker has removed it and reports no more.
                Some(entry) if reason == CloseReason::Panicked => {
                    self.send_core_event(event, Some(entry.totals()));
                }
                Some(entry) => {
                    self.closing.hold(session, event, entry.totals(), Instant::now());
                }
                None => self.send_core_event(event, None),
            },
            event => self.send_core_event(event, None),
        }
    }

    /// Sends the events of sessions without a final report.
    pub(super) fn send_late_closings(&mut self, now: Instant) {
        for (event, totals) in self.closing.late(now) {
            self.send_core_event(event, Some(totals));
        }
    }

    pub(super) fn send_core_event(&self, event: Event, totals: Option<Totals>) {
        let (event, pending) = match event {
            Event::Opened { session, .. } => {
                let offer = self.registry.get(session).map(|entry| entry.offer);
                let pending = offer.and_then(|offer| self.offers.get(&offer));
                (GatewayEvent::Core(event), pending)
            }
            Event::Refused { offer, session, ref scenario, .. } => {
                let pending = self.offers.get(&offer);
                let turned_away = pending.and_then(|pending| pending.admit_error).map(|error| {
                    let (scenario, reason) = (scenario.clone(), error.name());
                    GatewayEvent::TurnedAway { scenario, reason, session }
                });
                (turned_away.unwrap_or(GatewayEvent::Core(event)), pending)
            }
            event => (GatewayEvent::Core(event), None),
        };
        let caller = pending.map(|pending| Caller::of(&pending.wanted, pending.arrived));
        self.send(EventRecord { totals, caller, ..EventRecord::now(event) });
    }

    /// An offer that the core never saw.
    pub(super) fn send_turned_away(
        &self,
        wanted: &SessionRequest,
        reason: &'static str,
        arrived: Instant,
    ) {
        let scenario = wanted.scenario.clone();
        let event = GatewayEvent::TurnedAway { scenario, reason, session: None };
        let caller = Some(Caller::of(wanted, arrived));
        self.send(EventRecord { caller, ..EventRecord::now(event) });
    }

    /// A session was not opened at a node. If the offer is refused for it the caller gets the reason too.
    pub(super) fn send_not_opened(&mut self, session: SessionId, node: NodeId, reason: Box<str>) {
        let offer = self.registry.get(session).map(|entry| entry.offer);
        if let Some(pending) = offer.and_then(|offer| self.offers.get_mut(&offer)) {
            pending.not_opened = Some((node, reason.clone()));
        }
        self.send_event(GatewayEvent::NotOpened { session, node, reason });
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
