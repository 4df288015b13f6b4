//! Follows the sessions of control: each event, and all sessions whenever events may have been missed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_control::{EventRecord, GatewayEvent, Handle};
use evenkeel_model::CoreEvent;
use evenkeel_process::unix_us;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::desired::{DesiredEntries, GroupPart};
use super::entry::{IndexedSession, VERSION};

/// Interval at which all sessions are listed.
const LISTED_EVERY: Duration = Duration::from_secs(60);

/// Interval at which a change of the part in the group is noticed. No event tells of the sessions of a takeover.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub(super) struct IndexFeed {
    pub(super) handle: Handle,
    pub(super) events: Receiver<Arc<EventRecord>>,
    pub(super) desired: DesiredEntries,
}

impl IndexFeed {
    /// Follows the sessions until control ends.
    pub(super) async fn follow(&mut self, part: impl Fn() -> GroupPart) {
        let mut list_at = Some(Instant::now());
        let mut known = part();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let now = Instant::now();
            if list_at.is_some_and(|at| at <= now) {
                if self.list(known).await.is_err() {
                    return;
                }
                list_at = Some(now + LISTED_EVERY);
            }
            tokio::select! {
                event = self.events.recv() => match event {
                    Ok(record) => self.handle(&record.event),
                    Err(RecvError::Lagged(_)) => list_at = Some(now),
                    Err(RecvError::Closed) => return,
                },
                _ = look.tick() => {
                    if known != part() {
                        known = part();
                        list_at = Some(now);
                    }
                }
            }
        }
    }

    /// Handles the events that control left at its end.
    pub(super) fn finish(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(record) => self.handle(&record.event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn handle(&self, event: &GatewayEvent) {
        match event {
            GatewayEvent::Core(CoreEvent::Opened {
                session, room_name, scenario, offered, ..
            }) => {
                let (room, scenario) = (Arc::clone(room_name), Arc::clone(scenario));
                self.desired.open(*session, entry(room, scenario, offered.elapsed()));
            }
            GatewayEvent::Core(
                CoreEvent::Closed { session, .. }
                | CoreEvent::Refused { session: Some((session, _)), .. },
            )
            | GatewayEvent::TurnedAway { session: Some((session, _)), .. } => {
                self.desired.close(*session);
            }
            _ => {}
        }
    }

    /// Events that come meanwhile wait, and are handled after it.
    async fn list(&self, part: GroupPart) -> Result<(), ()> {
        let listed = self.handle.sessions().await.map_err(|_| ())?;
        let sessions: BTreeMap<_, _> = listed
            .into_iter()
            .map(|view| {
                let it = view.state;
                (it.session, entry(it.room, it.scenario, it.age))
            })
            .collect();
        self.desired.list(sessions, part);
        Ok(())
    }
}

fn entry(room: Arc<str>, scenario: Arc<str>, age: Duration) -> IndexedSession {
    let opened_us = unix_us(SystemTime::now() - age);
    IndexedSession { v: VERSION, room, scenario, opened_us, idempotency_key: None }
}
