//! Spans of sessions outside of the share. They are written once their session is affected, and dropped when it ends.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_model::SessionId;

/// Maximum held spans: of the openings of about 6,500 sessions, about 20 MiB; notes of
/// decisions come on top. Of more, those of the oldest session are dropped.
const HELD_MAX: usize = 32_768;

/// Writers of spans, by session.
pub(super) struct HeldSpans<T> {
    /// In the order of events, each with its number of spans.
    sessions: BTreeMap<SessionId, Vec<(usize, T)>>,
    spans: usize,
}

impl<T> Default for HeldSpans<T> {
    fn default() -> HeldSpans<T> {
        HeldSpans { sessions: BTreeMap::new(), spans: 0 }
    }
}

impl<T> fmt::Debug for HeldSpans<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldSpans").field("spans", &self.spans).finish_non_exhaustive()
    }
}

impl<T> HeldSpans<T> {
    /// Holds the writer of this many spans.
    pub(super) fn hold(&mut self, session: SessionId, spans: usize, writer: T) {
        while self.spans + spans > HELD_MAX
            && let Some(oldest) = self.sessions.keys().next().copied()
        {
            drop(self.take(oldest));
        }
        self.sessions.entry(session).or_default().push((spans, writer));
        self.spans += spans;
    }

    /// Takes the writers of the session's spans.
    pub(super) fn take(&mut self, session: SessionId) -> impl Iterator<Item = T> + use<T> {
        let taken = self.sessions.remove(&session).unwrap_or_default();
        self.spans -= taken.iter().map(|(spans, _)| spans).sum::<usize>();
        taken.into_iter().map(|(_, writer)| writer)
    }
}

#[cfg(test)]
mod tests;
