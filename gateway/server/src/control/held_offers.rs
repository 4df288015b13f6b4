//! Offers that came while the first policies were still compiling: they are not decided without them.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use super::handle::REQUESTS_MAX;
use super::messages::{Failed, Opened, Wanted};
use super::thread::Control;

/// Questions about offers in flight below which another offer is let go. All of them may be one policy's, which has 2 ms
/// for the last: a plugin that takes 200 µs is in time.
const ASKED_AT_ONCE: usize = 8;

/// Offers let go in one turn of control, so that a turn stays short where nothing is asked about them.
const LET_GO_AT_ONCE: usize = 32;

/// An offer that waits.
pub(super) struct Held {
    wanted: Box<Wanted>,
    reply: oneshot::Sender<Result<Opened, Failed>>,
}

/// All that wait, in the order they came; as many as may wait for control itself.
#[derive(Default)]
pub(super) struct Waiting {
    held: VecDeque<Held>,
    /// They wait for the policies, not to be let go: one reload.
    told: Vec<oneshot::Sender<()>>,
    /// They are let go from now on; who comes before the last of them is has its turn behind them.
    policies_stand: bool,
}

impl Waiting {
    /// Where too many wait, the caller is told that control is busy.
    pub(super) fn hold(
        &mut self,
        wanted: Box<Wanted>,
        reply: oneshot::Sender<Result<Opened, Failed>>,
    ) {
        if self.held.len() == REQUESTS_MAX {
            // Who gave up waiting needs no place.
            self.held.retain(|held| !held.reply.is_closed());
        }
        if self.held.len() < REQUESTS_MAX {
            self.held.push_back(Held { wanted, reply });
        } else {
            let _ = reply.send(Err(Failed::Unavailable));
        }
    }

    /// The next whose caller still waits: a session that nobody will use would keep others from its address.
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
    /// Whether the first policies are not in force yet.
    pub(super) fn awaits_policies(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.policies_stand)
    }

    /// The first policies are in force.
    pub(super) fn policies_stand(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.policies_stand = true;
            // Who is gone needs no word.
            waiting.told.drain(..).for_each(|told| _ = told.send(()));
        }
    }

    pub(super) fn tell_when_policies_stand(&mut self, told: oneshot::Sender<()>) {
        match self.waiting.as_mut().filter(|waiting| !waiting.policies_stand) {
            Some(waiting) => waiting.told.push(told),
            None => _ = told.send(()),
        }
    }

    /// Lets the next of those go that waited for the first policies, few at a time: what is asked all at once is
    /// answered too late, and decided without the policies after all.
    pub(super) fn let_go(&mut self) {
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
