//! Offers that came while the first policies were compiling; they wait, so that policies decide them.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::handle::REQUESTS_MAX;
use super::messages::{ControlError, SessionAnswer, SessionRequest};
use super::thread::Control;

/// Limit of pending policy calls about offers. All may be of one policy, which has 2 ms for the last: a plugin that
/// takes 200 µs keeps the limit.
const ASKED_AT_ONCE: usize = 8;

/// Offers released per turn of control, so that a turn stays short if no policy is asked.
const LET_GO_AT_ONCE: usize = 32;

/// An offer that waits.
pub(super) struct Held {
    wanted: Box<SessionRequest>,
    reply: oneshot::Sender<Result<SessionAnswer, ControlError>>,
}

/// Waiting offers in order, bounded like control's own queue.
#[derive(Default)]
pub(super) struct Waiting {
    held: VecDeque<Held>,
    /// Callers that wait for the policies only: one reload.
    told: Vec<oneshot::Sender<()>>,
    /// The policies are active. Offers that come before the queue is empty still go to its end.
    policies_stand: bool,
}

impl Waiting {
    /// Adds an offer. If too many wait the caller gets an error.
    pub(super) fn hold(
        &mut self,
        wanted: Box<SessionRequest>,
        reply: oneshot::Sender<Result<SessionAnswer, ControlError>>,
    ) {
        if self.held.len() == REQUESTS_MAX {
            // Offers without a caller free their place.
            self.held.retain(|held| !held.reply.is_closed());
        }
        if self.held.len() < REQUESTS_MAX {
            self.held.push_back(Held { wanted, reply });
        } else {
            let _ = reply.send(Err(ControlError::Unavailable));
        }
    }

    /// The next offer with a caller that still waits: an abandoned session would block its client's address.
    fn next(&mut self) -> Option<Held> {
        while let Some(held) = self.held.pop_front() {
            if !held.reply.is_closed() {
                return Some(held);
            }
        }
        None
    }
}

impl Control {
    /// Returns true until the first policies are active.
    pub(super) fn awaits_policies(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.policies_stand)
    }

    /// The first policies are active.
    pub(super) fn policies_stand(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.policies_stand = true;
            // Callers may be gone.
            waiting.told.drain(..).for_each(|told| _ = told.send(()));
        }
    }

    pub(super) fn await_policies(&mut self, told: oneshot::Sender<()>) {
        match self.waiting.as_mut().filter(|waiting| !waiting.policies_stand) {
            Some(waiting) => waiting.told.push(told),
            None => _ = told.send(()),
        }
    }

    /// Releases a few waiting offers: all at once would exceed the policies' time budget and be decided natively.
    pub(super) fn release_some(&mut self) {
        for _ in 0..LET_GO_AT_ONCE {
            let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.policies_stand)
            else {
                return;
            };
            if self.gateway.offers_asked() >= ASKED_AT_ONCE {
                return;
            }
            let Some(Held { wanted, reply }) = waiting.next() else {
                self.waiting = None;
                return;
            };
            self.offer(*wanted, Some(reply), Instant::now());
            self.drain();
        }
    }
}

#[cfg(test)]
mod tests;
