//! What happened, told to whoever listens.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::Event;

use super::thread::Control;
use super::words::{Caller, Happened, Rollout, Told, Wanted};
use crate::worker::Totals;

/// A worker tells what a session carried with its next pass; after this it is not waited for.
const TOTALS_WITHIN: Duration = Duration::from_secs(1);

/// A session that ended, and of which its worker has not told yet what it carried.
pub(super) struct Closing {
    pub(super) event: Event,
    /// As was told last.
    pub(super) totals: Totals,
    pub(super) since: Instant,
}

impl Control {
    /// Tells an event; that of a session's end waits for what it carried.
    pub(super) fn tell_or_hold(&mut self, event: Event) {
        match event {
            Event::Closed { session, .. } => match self.homes.get(session) {
                Some(resident) => {
                    let totals = resident.totals;
                    let closing = Closing { event, totals, since: Instant::now() };
                    self.closing.insert(session, closing);
                }
                None => self.tell(event, None),
            },
            event => self.tell(event, None),
        }
    }

    /// A worker's last word on a session may be lost when many end at once; the one before will do.
    pub(super) fn tell_of_unheard(&mut self, now: Instant) {
        let unheard =
            |closing: &Closing| now.saturating_duration_since(closing.since) >= TOTALS_WITHIN;
        let late: Vec<Closing> = self
            .closing
            .extract_if(.., |_, closing| unheard(closing))
            .map(|(_, late)| late)
            .collect();
        late.into_iter().for_each(|late| self.tell(late.event, Some(late.totals)));
    }

    pub(super) fn tell(&self, event: Event, totals: Option<Totals>) {
        let (event, caller) = match event {
            Event::Opened { session, .. } => {
                let resident = self.homes.get(session);
                (Happened::Core(event), resident.and_then(|resident| resident.caller.clone()))
            }
            Event::Refused { offer, ref scenario, .. } => match self.offers.get(&offer) {
                Some(pending) => {
                    let homeless = pending.homeless.map(|homeless| Happened::TurnedAway {
                        scenario: scenario.clone(),
                        reason: homeless.name(),
                    });
                    let caller = Caller::of(&pending.wanted, pending.arrived);
                    (homeless.unwrap_or(Happened::Core(event)), Some(caller))
                }
                None => (Happened::Core(event), None),
            },
            event => (Happened::Core(event), None),
        };
        let told = Told { at: SystemTime::now(), event, totals, caller };
        // Nobody listens, perhaps; that is no failure.
        let _ = self.events.send(Arc::new(told));
    }

    /// An offer that the core never saw.
    pub(super) fn tell_turned_away(&self, wanted: &Wanted, reason: &'static str, arrived: Instant) {
        let event = Happened::TurnedAway { scenario: wanted.scenario.clone(), reason };
        let caller = Some(Caller::of(wanted, arrived));
        let _ =
            self.events.send(Arc::new(Told { at: SystemTime::now(), event, totals: None, caller }));
    }

    pub(super) fn tell_rollout(&self, rollout: Rollout) {
        self.tell_happened(Happened::Rollout(rollout));
    }

    pub(super) fn tell_happened(&self, event: Happened) {
        let told = Told { at: SystemTime::now(), event, totals: None, caller: None };
        let _ = self.events.send(Arc::new(told));
    }
}
