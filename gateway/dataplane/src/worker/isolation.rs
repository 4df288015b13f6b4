//! Isolation of panics: a panic caused by one session's packet ends only that session.
//!
//! Input is removed from its queue after it was handled, so the next pass resumes at the packet that caused the panic
//! and finds its session removed. One piece of shared state may be incomplete: a packet queued to that session's client
//! may be sent before its header was rewritten.

use std::any::Any;
use std::panic::resume_unwind;

use rustix::event::epoll;

use super::PacketWorker;
use super::source::PacketSource;
use crate::panics;

impl PacketWorker {
    /// Removes the session that the panic occurred in and continues the pass for the other sessions. Each panic removes
    /// a session, so their number needs no limit. If no session was accessed, the panic is resumed, which ends the
    /// process: the same input would cause it again.
    #[cold]
    pub(super) fn isolate_panic(&mut self, panic: Box<dyn Any + Send>, events: &[epoll::Event]) {
        let (location, message) =
            (panics::take_location().unwrap_or_default(), panics::message(&*panic));
        let Some(culprit) = self.sessions.remove_current() else {
            tracing::error!(panic = message, %location, "panic outside of a session; gateway ends");
            resume_unwind(panic);
        };
        let session = culprit.id;
        tracing::error!(%session, panic = message, %location, "packet caused a panic; session ends");
        for source in culprit.learned() {
            self.flows.remove(&source.key(), culprit.home);
        }
        self.unreported.push(session);
        self.report_panics();
        // The source being read comes first, because the inbox may hold the rest of its batch.
        self.unread.retain(|source| *source != self.reading);
        self.unread.insert(0, self.reading);
        self.mark_ready_unread(events);
        self.mark_unread(PacketSource::Commands);
    }
}
