//! Offers that came while the first policies are still compiled: they are not decided without them.

use tokio::sync::oneshot;

use super::handle::REQUESTS_MAX;
use super::words::{Failed, Opened, Wanted};

/// An offer that waits.
pub(super) struct Held {
    pub(super) wanted: Box<Wanted>,
    pub(super) reply: oneshot::Sender<Result<Opened, Failed>>,
}

/// All that wait, in the order they came; as many as may wait for control itself.
#[derive(Default)]
pub(super) struct Waiting(Vec<Held>);

impl Waiting {
    /// Where too many wait, the caller is told that control is busy.
    pub(super) fn hold(
        &mut self,
        wanted: Box<Wanted>,
        reply: oneshot::Sender<Result<Opened, Failed>>,
    ) {
        // Who gave up waiting needs no place.
        self.0.retain(|held| !held.reply.is_closed());
        if self.0.len() < REQUESTS_MAX {
            self.0.push(Held { wanted, reply });
        } else {
            let _ = reply.send(Err(Failed::Unavailable));
        }
    }
}

impl IntoIterator for Waiting {
    type Item = Held;
    type IntoIter = std::vec::IntoIter<Held>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
