//! A takeover: the sessions of the owner before continue here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_contract::gateway::{NewOwner, TakenOver};
use evenkeel_control::{Continuation, Handle, Replica};
use evenkeel_dataplane::quic;
use evenkeel_ownership::TakeoverCause;
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Histogram};

use crate::group::{HandOverError, HandOverReply, TakeOverReply};
use crate::preparation::TakeoverPreparation;
use crate::task::{Task, outcome};

/// An owner that is asked to hand over does so within a fraction of this.
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(3);

/// The sessions that a takeover continues.
pub(super) enum TakenSessions {
    /// Those of a standby's copy, which control may have prepared.
    Copied { copy: Arc<Replica>, preparation: TakeoverPreparation },
    /// Those of this gateway, which were suspended for a hand-over.
    Suspended,
}

impl TakenSessions {
    /// Returns the number of copied sessions once they are served.
    async fn resume(self, handle: &Handle, cause: Continuation) -> Result<usize, String> {
        if let TakenSessions::Copied { copy, preparation } = self {
            if let Some(sessions) = preparation.finish(&copy, handle).await {
                let resumed = handle.resume_prepared(&copy, cause).await;
                resumed.map_err(|_| "control ended".to_owned())?;
                return Ok(sessions);
            }
            // Without sessions too: ids and answered keys continue.
            if copy.number() > 0 {
                let state = Arc::unwrap_or_clone(copy).snapshot_with_ports();
                let (snapshot, sockets) = state.ok_or("no record of a node came")?;
                let restored = handle.take_over(snapshot, sockets, cause).await;
                return restored.map(|it| it.sessions).map_err(|error| error.to_string());
            }
        }
        handle.resume(cause).await.map_err(|_| "control ended".to_owned())?;
        Ok(0)
    }
}

/// The time from which this gateway owns, and the last beat of the owner before.
pub(super) struct TakeoverTimes {
    pub(super) owner_heard: Option<Instant>,
    pub(super) owned: Instant,
}

impl TakeoverTimes {
    /// `now`: the sessions continue.
    fn record(&self, instruments: &Instruments, now: Instant) {
        let add = |phase: &str, took: Duration| {
            instruments.time(Histogram::Takeover, took, &[(Attribute::Phase, phase)]);
        };
        if let Some(heard) = self.owner_heard {
            add("decision", self.owned.saturating_duration_since(heard));
        }
        add("continuation", now.saturating_duration_since(self.owned));
    }
}

/// A takeover under way, and the operators who wait for its end.
pub(super) struct Takeover {
    /// The number of sessions, once they continue.
    sessions: Task<usize>,
    /// The operator who had this gateway, then the standby, ask for the ownership.
    request: Option<HandOverRequest>,
    /// The operator who confirmed that other members are down.
    confirmed: Option<TakeOverReply>,
}

impl Takeover {
    pub(super) fn begin(
        taken: TakenSessions,
        request: Option<HandOverRequest>,
        epoch: u64,
        cause: TakeoverCause,
        times: TakeoverTimes,
        handle: Handle,
        quic: Option<quic::Resumer>,
        instruments: Arc<Instruments>,
    ) -> Takeover {
        let continuation = match cause {
            TakeoverCause::HandOver => Continuation::HandOver,
            _ => Continuation::Takeover,
        };
        let sessions = tokio::spawn(async move {
            let sessions = taken.resume(&handle, continuation).await?;
            quic.iter().for_each(quic::Resumer::resume);
            let after_us = times.owned.elapsed().as_micros() as u64;
            tracing::info!(epoch, sessions, after_us, "sessions continue at this gateway");
            if cause != TakeoverCause::Start {
                times.record(&instruments, Instant::now());
            }
            Ok(sessions)
        });
        Takeover { sessions, request, confirmed: None }
    }

    /// An owner that sends again continues its own sessions. It admits none until they are counted.
    pub(super) fn of_own_sessions(handle: Handle) -> Takeover {
        let sessions = tokio::spawn(async move {
            let status = handle.status().await.map_err(|_| "control ended".to_owned())?;
            Ok(status.sessions)
        });
        Takeover { sessions, request: None, confirmed: None }
    }

    pub(super) fn confirm(&mut self, operator: TakeOverReply) {
        self.confirmed = Some(operator);
    }

    pub(super) fn take_late_request(&mut self, now: Instant) -> Option<HandOverRequest> {
        self.request.take_if(|request| request.is_late(now))
    }

    /// Returns the number of sessions once they continue. May be cancelled without a loss.
    pub(super) async fn wait(&mut self) -> Result<usize, String> {
        outcome(&mut self.sessions).await
    }

    /// Tells the operators that this many sessions continue here.
    pub(super) fn answer(self, owner: &NewOwner, sessions: usize) {
        // The clients may have disconnected.
        if let Some(request) = self.request {
            let _ = request.reply.send(Ok(owner.clone()));
        }
        if let Some(operator) = self.confirmed {
            let _ = operator.send(Ok(TakenOver { owner: owner.clone(), sessions }));
        }
    }
}

/// An operator who had this standby ask its owner to hand over.
pub(super) struct HandOverRequest {
    reply: HandOverReply,
    by: Instant,
}

impl HandOverRequest {
    pub(super) fn new(reply: HandOverReply, now: Instant) -> HandOverRequest {
        HandOverRequest { reply, by: now + HANDED_OVER_WITHIN }
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.by <= now
    }

    pub(super) fn refuse(self, refused: HandOverError) {
        // The client may have disconnected.
        let _ = self.reply.send(Err(refused));
    }
}

#[cfg(test)]
mod tests;
