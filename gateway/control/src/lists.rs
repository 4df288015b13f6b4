//! Lists for callers that wait. Control copies them in slices and serves other inputs in between.

use evenkeel_core::RoomStanding;
use evenkeel_model::{RoomId, SessionId};
use tokio::sync::oneshot;

use crate::messages::{SessionView, Slice};

/// A list that is being copied.
pub(crate) enum ListCopy {
    Sessions(PartialList<SessionId, SessionView>),
    Rooms(PartialList<RoomId, RoomStanding>),
}

/// The entries so far.
pub(crate) struct PartialList<Id, T> {
    /// The id before the next entry.
    pub(crate) after: Id,
    limit: usize,
    items: Vec<T>,
    reply: oneshot::Sender<Vec<T>>,
}

impl<Id, T> PartialList<Id, T> {
    pub(crate) fn new(after: Id, limit: usize, reply: oneshot::Sender<Vec<T>>) -> Self {
        PartialList { after, limit, items: Vec::new(), reply }
    }

    /// Adds a slice. Replies if the list is complete then, and returns it otherwise, unless its caller has gone.
    pub(crate) fn add(mut self, slice: Slice<Id, T>) -> Option<Self> {
        self.items.extend(slice.items);
        match slice.last {
            Some(last) if self.items.len() < self.limit => {
                self.after = last;
                (!self.reply.is_closed()).then_some(self)
            }
            Some(_) | None => {
                self.items.truncate(self.limit);
                // Fails only if the caller has gone.
                let _ = self.reply.send(self.items);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
