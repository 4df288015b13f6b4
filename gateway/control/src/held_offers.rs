//! Offers that came while the first policies were compiling or the gateway was suspended. They wait, so that policies
//! decide them.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::handle::REQUESTS_MAX;
use super::messages::{ControlError, OfferedSession, SessionAnswer};
use super::thread::{Control, OfferQueue};

/// Limit of pending policy calls about offers. All calls may be of one policy, which must answer the last of them
/// within 2 ms. A plugin that takes 200 µs per call meets that.
const ASKED_AT_ONCE: usize = 8;

/// Maximum offers released per turn of control, so that the turn stays short.
const LET_GO_AT_ONCE: usize = 32;

pub(super) struct DelayedOffer {
    request: Box<OfferedSession>,
    reply: oneshot::Sender<Result<SessionAnswer, ControlError>>,
}

/// Waiting offers in order, bounded like control's own queue.
#[derive(Default)]
pub(super) struct Waiting {
    offers: VecDeque<DelayedOffer>,
    /// Callers that wait for the policies without an offer: at most one reload.
    policy_waiters: Vec<oneshot::Sender<()>>,
    /// The policies are active. Offers that come before the queue is empty still go to its end.
    policies_stand: bool,
}

impl Waiting {
    /// For offers that wait for another reason than the policies.
    pub(super) fn with_policies() -> Waiting {
        Waiting { policies_stand: true, ..Waiting::default() }
    }

    /// Adds an offer. If too many wait the caller gets an error.
    pub(super) fn hold(
        &mut self,
        wanted: Box<OfferedSession>,
        reply: oneshot::Sender<Result<SessionAnswer, ControlError>>,
    ) {
        if self.offers.len() == REQUESTS_MAX {
            // Offers of callers that have gone free their place.
            self.offers.retain(|held| !held.reply.is_closed());
        }
        if self.offers.len() < REQUESTS_MAX {
            self.offers.push_back(DelayedOffer { request: wanted, reply });
        } else {
            let _ = reply.send(Err(ControlError::Unavailable));
        }
    }

    /// The next offer whose caller still waits. A session without a caller would block the client's address.
    fn next(&mut self) -> Option<DelayedOffer> {
        while let Some(held) = self.offers.pop_front() {
            if !held.reply.is_closed() {
                return Some(held);
            }
        }
        None
    }
}

impl Control {
    /// Releases a few waiting offers. All offers at once would exceed the policies' time budget, and the native
    /// defaults would decide them.
    pub(super) fn release_some(&mut self) {
        if self.replication.suspension.is_some() {
            return;
        }
        for _ in 0..LET_GO_AT_ONCE {
            let Some(waiting) =
                self.offers.waiting.as_mut().filter(|waiting| waiting.policies_stand)
            else {
                return;
            };
            if self.gateway.offers_asked() >= ASKED_AT_ONCE {
                return;
            }
            let Some(DelayedOffer { request: wanted, reply }) = waiting.next() else {
                self.offers.waiting = None;
                return;
            };
            self.offer(*wanted, Some(reply), Instant::now());
            self.drain();
        }
    }
}

impl OfferQueue {
    /// Returns true until the first policies are active.
    pub(super) fn awaits_policies(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.policies_stand)
    }

    pub(super) fn policies_stand(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.policies_stand = true;
            // Fails only for a caller that has gone.
            waiting.policy_waiters.drain(..).for_each(|told| _ = told.send(()));
        }
    }

    pub(super) fn await_policies(&mut self, told: oneshot::Sender<()>) {
        match self.waiting.as_mut().filter(|waiting| !waiting.policies_stand) {
            Some(waiting) => waiting.policy_waiters.push(told),
            None => _ = told.send(()),
        }
    }
}

#[cfg(test)]
mod tests;
