//! A panic over one session's packet costs that session, and nobody else anything.
//!
//! Whatever waits is taken off where it waits once it was handled, and not before: so the pass after one that broke off
//! goes on where that was, and the packet that did it finds nobody any more. What sessions share is not touched half
//! by those that borrow it: a packet is queued whole, or not at all.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Worker;
use super::command::Report;
use super::source::Source;
use crate::flows::Key;
use crate::panics;

/// Panics that a worker outlives within [`WITHIN`]. A client that comes again and again with what we cannot bear is
/// borne; a bug that everybody hits would end one call after the other, and none that comes later would fare better.
const PANICS_MAX: usize = 8;

/// As long as a panic counts.
const WITHIN: Duration = Duration::from_secs(60);

/// When panics were outlived.
#[derive(Default, Debug)]
pub(super) struct Panics(VecDeque<Instant>);

impl Panics {
    /// One more. Whether it may be outlived.
    fn bears(&mut self, now: Instant) -> bool {
        self.0.retain(|at| now.saturating_duration_since(*at) < WITHIN);
        self.0.push_back(now);
        self.0.len() <= PANICS_MAX
    }
}

impl Worker {
    /// A pass over these broke off. Where it is known over whose packet, that session is dropped, and the next pass goes
    /// on for the others; else, or where there were too many, the panic goes on, and ends the process.
    #[cold]
    pub(super) fn outlive(
        &mut self,
        panic: Box<dyn Any + Send>,
        events: &[epoll::Event],
        now: Instant,
    ) {
        let Some(culprit) = self.sessions.remove_lent() else {
            resume_unwind(panic);
        };
        let (session, place) = (culprit.id, panics::take_place().unwrap_or_default());
        let words = panics::words(&*panic);
        tracing::error!(%session, panic = words, %place, "a panic over a session's packet ends it");
        if !self.panics.bears(now) {
            tracing::error!("that were more than {PANICS_MAX} within {WITHIN:?}");
            resume_unwind(panic);
        }
        for &(listener, address) in culprit.learned() {
            self.flows.remove(&Key::Udp { listener, address }, culprit.home);
        }
        self.ways.report(Report::Panicked { session });
        // First what was being read: the rest of it may be in the inbox. Of a port we are told once.
        self.again.retain(|source| *source != self.reading);
        self.again.insert(0, self.reading);
        for event in events {
            self.go_on_with(Source::from_token(event.data.u64()));
        }
        self.go_on_with(Source::Commands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_panics_are_borne_in_a_minute_and_one_more_is_not() {
        let (start, mut panics) = (Instant::now(), Panics::default());
        let at = |second| start + Duration::from_secs(second);
        assert!((0..8).all(|second| panics.bears(at(second))));
        assert!(!panics.bears(at(59)));
        let mut panics = Panics::default();
        assert!((0..8).all(|second| panics.bears(at(second))));
        assert!(panics.bears(at(60)), "the first counts no more");
        assert!(!panics.bears(at(60)));
    }
}
