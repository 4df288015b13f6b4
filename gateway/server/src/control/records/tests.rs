use super::*;

impl Batch {
    /// The sessions to which descriptors belong, in their order.
    pub(crate) fn with_sockets(&self) -> Vec<SessionId> {
        self.changed.with_sockets()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.changed.core.sessions.len().max(self.changed.media.len())
    }
}
