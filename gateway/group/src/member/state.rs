//! The states of a member.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::{Suspended, SuspensionGuard};
use tokio::sync::oneshot;

use super::takeover::{HandOverRequest, Takeover};
use crate::group::{HandOverReply, OwnershipState};
use crate::preparation::TakeoverPreparation;
use crate::rehearsal::{Rehearsal, Unready};
use crate::task::{Task, outcome};

/// The reason for which a member ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemberEnd {
    /// The peer took over.
    #[error(
        "{owner} owns the group's addresses since epoch {epoch}; this process ends, and its supervisor starts it as the standby"
    )]
    Replaced {
        /// The peer's name.
        owner: Arc<str>,
        epoch: u64,
    },
    /// The process that holds the addresses has ended.
    #[error(
        "`evenkeel hold-addresses` has ended; this process ends, and its supervisor starts both again"
    )]
    NoHolder,
    /// The records could not be continued, for this reason.
    #[error("sessions of the group not continued: {0}")]
    NotRestored(String),
    /// The thread of the group panicked.
    #[error("the thread of the group ended")]
    ThreadEnded,
}

/// The sessions of the group, as this member has carried out what the core decided. A member that has taken over never
/// stands by again: it ends once it has lost its ownership.
pub(super) enum MemberState {
    /// Another member owns, or none is known to.
    StandingBy(StandingBy),
    /// This member owns, and its sessions do not continue yet.
    TakingOver(Takeover),
    /// The sessions continue here.
    Owning,
    /// A hand-over has begun: the standby announces the addresses while this member still serves.
    Announcing {
        /// The hand-over goes on then.
        until: Instant,
        /// As in `Yielding`.
        operator: Option<HandOverReply>,
    },
    /// This member sends nothing more: control is being suspended.
    Yielding {
        suspension: Task<Suspended>,
        /// `None` if the standby asked for the hand-over, or if the addresses disappear.
        operator: Option<HandOverReply>,
    },
    /// The hand-over took too long. Control is still being suspended, and resumes then.
    GivenUp { suspension: Task<Suspended> },
    /// The standby has the last records, and owns as soon as it knows. Control is suspended.
    Yielded { guard: SuspensionGuard, operator: Option<HandOverReply> },
    /// The event loop ends.
    Ended(MemberEnd),
}

/// The end of the task of a state.
pub(super) enum TaskEnd {
    Rehearsed,
    /// The number of sessions that the takeover continued.
    Continued(Result<usize, String>),
    Suspended(Result<Box<Suspended>, String>),
    /// The addresses are announced by the standby, or it takes too long.
    AnnouncementOver,
}

impl MemberState {
    /// Takes the state for a transition, which puts the next one in its place.
    pub(super) fn take(&mut self) -> MemberState {
        std::mem::replace(self, MemberState::Ended(MemberEnd::ThreadEnded))
    }

    /// Returns once the task of this state has ended, if it has one. May be cancelled without a loss.
    pub(super) async fn task_end(&mut self) -> TaskEnd {
        match self {
            MemberState::StandingBy(standby) => {
                standby.rehearsal.ended().await;
                TaskEnd::Rehearsed
            }
            MemberState::TakingOver(takeover) => TaskEnd::Continued(takeover.wait().await),
            MemberState::Announcing { until, .. } => {
                tokio::time::sleep_until((*until).into()).await;
                TaskEnd::AnnouncementOver
            }
            MemberState::Yielding { suspension, .. } | MemberState::GivenUp { suspension } => {
                TaskEnd::Suspended(outcome(suspension).await.map(Box::new))
            }
            MemberState::Owning | MemberState::Yielded { .. } | MemberState::Ended(_) => {
                pending().await
            }
        }
    }

    /// The standby has announced the addresses: the hand-over goes on at this time.
    pub(super) fn note_announced(&mut self, at: Instant) {
        if let MemberState::Announcing { until, .. } = self {
            *until = at.min(*until);
        }
    }

    /// Takes the request that the owner has not answered in time, also while this member takes over.
    pub(super) fn take_late_request(&mut self, now: Instant) -> Option<HandOverRequest> {
        match self {
            MemberState::StandingBy(standby) => standby.request.take_if(|it| it.is_late(now)),
            MemberState::TakingOver(takeover) => takeover.take_late_request(now),
            _ => None,
        }
    }

    /// Reasons for which this standby could not continue all sessions.
    pub(super) fn unready(&self) -> &[Unready] {
        match self {
            MemberState::StandingBy(standby) => standby.rehearsal.losses(),
            _ => &[],
        }
    }
}

/// A member without sessions, which gets ready to take over.
pub(super) struct StandingBy {
    pub(super) preparation: TakeoverPreparation,
    pub(super) rehearsal: Rehearsal,
    /// `None` for the standby of an owner.
    spare_since: Option<Instant>,
    /// An operator had it ask the owner to hand over.
    pub(super) request: Option<HandOverRequest>,
}

impl StandingBy {
    pub(super) fn new(preparation: TakeoverPreparation, now: Instant) -> StandingBy {
        StandingBy { preparation, rehearsal: Rehearsal::new(now), spare_since: None, request: None }
    }

    /// Takes whether the owner has another standby. Returns for how long it has had one.
    pub(super) fn spare_for(&mut self, is_spare: bool, now: Instant) -> Option<Duration> {
        self.spare_since = is_spare.then(|| self.spare_since.unwrap_or(now));
        self.spare_since.map(|since| now - since)
    }
}

/// A pause for an upgrade, during which the standby must not take over by silence. It is independent of the member's state.
#[derive(Default)]
pub(super) enum Rest {
    #[default]
    Off,
    /// The standby does not confirm yet. The reply gets what the next process continues.
    Begins(oneshot::Sender<OwnershipState>),
    /// The next process continues this member, or this member is no owner.
    On,
}

impl Rest {
    pub(super) fn is_on(&self) -> bool {
        !matches!(self, Rest::Off)
    }

    /// The standby has confirmed.
    pub(super) fn confirm(&mut self, state: impl FnOnce() -> OwnershipState) {
        match std::mem::take(self) {
            Rest::Begins(reply) => {
                *self = Rest::On;
                // The upgrade may have been given up.
                let _ = reply.send(state());
            }
            rest => *self = rest,
        }
    }
}

#[cfg(test)]
mod tests;
