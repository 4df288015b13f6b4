//! A panic over one session's packet costs that session, and nobody else anything.
//!
//! Whatever waits is taken off where it waits once it was handled, and not before: so the pass after one that broke off
//! goes on where that was, and the packet that did it finds nobody any more. Of what sessions share a panic leaves one
//! thing half done: a packet on its way to that session's client may leave with the numbers that its node gave it.

use std::any::Any;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Worker;
use super::source::Source;
use crate::flows::Key;
use crate::panics;

/// Clients over whose packets a worker outlives a panic within [`WITHIN`]. One that comes again and again with what we
/// cannot bear is borne; a bug that everybody hits would end one call after the other, and none that comes later would fare
/// better.
const PANICS_MAX: usize = 8;

/// As long as a panic counts.
const WITHIN: Duration = Duration::from_secs(60);

/// When panics were outlived, and of which client the last was, where its address is known.
#[derive(Default, Debug)]
pub(super) struct Panics(VecDeque<(Instant, Option<IpAddr>)>);

impl Panics {
    /// One more, over a packet of this client. Whether it may be outlived.
    fn bears(&mut self, client: Option<IpAddr>, now: Instant) -> bool {
        let others = |of: Option<IpAddr>| client.is_none() || of != client;
        self.0.retain(|(at, of)| now.saturating_duration_since(*at) < WITHIN && others(*of));
        self.0.push_back((now, client));
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
        let (place, words) = (panics::take_place().unwrap_or_default(), panics::words(&*panic));
        let Some(culprit) = self.sessions.remove_lent() else {
            tracing::error!(panic = words, %place, "a panic over nobody's packet ends the gateway");
            resume_unwind(panic);
        };
        let session = culprit.id;
        tracing::error!(%session, panic = words, %place, "a panic over a session's packet ends it");
        if !self.panics.bears(culprit.client(), now) {
            tracing::error!("that were more than {PANICS_MAX} clients within {WITHIN:?}");
            resume_unwind(panic);
        }
        for &(listener, address) in culprit.learned() {
            self.flows.remove(&Key::Udp { listener, address }, culprit.home);
        }
        self.untold.push(session);
        self.tell_untold();
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
        assert!((0..8).all(|second| panics.bears(None, at(second))));
        assert!(!panics.bears(None, at(59)));
        let mut panics = Panics::default();
        assert!((0..8).all(|second| panics.bears(None, at(second))));
        assert!(panics.bears(None, at(60)), "the first counts no more");
        assert!(!panics.bears(None, at(60)));
    }

    #[test]
    fn a_client_that_comes_again_and_again_counts_once() {
        let (now, mut panics) = (Instant::now(), Panics::default());
        let client = |number| Some(IpAddr::from([192, 0, 2, number]));
        assert!((0..100).all(|_| panics.bears(client(1), now)));
        assert!((2..=8).all(|number| panics.bears(client(number), now)));
        assert!(!panics.bears(client(9), now));
    }
}
