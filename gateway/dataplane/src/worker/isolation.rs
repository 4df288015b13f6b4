//! Isolation of panics: a panic caused by one session's packet ends only that session.
//!
//! Input is removed from its queue after it was handled, so the next pass resumes at the packet that caused the panic
//! and finds its session removed. One piece of shared state may be incomplete: a packet queued to that session's client
//! may be sent before its header was rewritten.

use std::any::Any;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Worker;
use super::source::Source;
use crate::panics;

/// Limit of clients that caused a panic within [`WITHIN`]; beyond it the worker ends the process. A client that
/// reconnects and panics again counts once. A bug that every client triggers would end one call after another, and
/// later calls too.
const PANICS_MAX: usize = 8;

const WITHIN: Duration = Duration::from_secs(60);

/// Times of recent panics and the clients' addresses, where known.
#[derive(Default, Debug)]
pub(super) struct PanicBudget(VecDeque<(Instant, Option<IpAddr>)>);

impl PanicBudget {
    /// Records a panic. Returns whether the worker may continue.
    fn allows(&mut self, client: Option<IpAddr>, now: Instant) -> bool {
        let others = |of: Option<IpAddr>| client.is_none() || of != client;
        self.0.retain(|(at, of)| now.saturating_duration_since(*at) < WITHIN && others(*of));
        self.0.push_back((now, client));
        self.0.len() <= PANICS_MAX
    }
}

impl Worker {
    /// Removes the session that the panic occurred in and continues the pass for the other sessions. Resumes the panic,
    /// which ends the process, if no session was accessed or the limit of panics is reached.
    #[cold]
    pub(super) fn isolate_panic(
        &mut self,
        panic: Box<dyn Any + Send>,
        events: &[epoll::Event],
        now: Instant,
    ) {
        let (location, message) =
            (panics::take_location().unwrap_or_default(), panics::message(&*panic));
        let Some(culprit) = self.sessions.remove_current() else {
            tracing::error!(panic = message, %location, "panic outside of a session; gateway ends");
            resume_unwind(panic);
        };
        let session = culprit.id;
        tracing::error!(%session, panic = message, %location, "packet caused a panic; session ends");
        if !self.panics.allows(culprit.client(), now) {
            tracing::error!(
                "packets of more than {PANICS_MAX} clients caused panics within {WITHIN:?}; gateway ends"
            );
            resume_unwind(panic);
        }
        for source in culprit.learned() {
            self.flows.remove(&source.key(), culprit.home);
        }
        self.unreported.push(session);
        self.report_panics();
        // The source being read comes first, because the inbox may hold the rest of its batch. Epoll reports ports only
        // once.
        self.unread.retain(|source| *source != self.reading);
        self.unread.insert(0, self.reading);
        for event in events {
            self.mark_unread(Source::from_token(event.data.u64()));
        }
        self.mark_unread(Source::Commands);
    }
}

#[cfg(test)]
mod tests;
