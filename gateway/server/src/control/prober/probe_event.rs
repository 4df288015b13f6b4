//! What is heard at a node waits until control reads it, and counts only as long as who heard it is still the one that
//! listens there: the next one may be at another agent, or at another node in the same slot.

use std::rc::{Rc, Weak};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use super::Probed;

/// Kept by who listens, for as long as he does.
#[derive(Default, Debug)]
pub(crate) struct Listens(Rc<()>);

/// A word, and who heard it.
#[derive(Debug)]
pub(crate) struct Hearsay {
    by: Weak<()>,
    probed: Probed,
}

/// Where the words of one listener go.
#[derive(Debug)]
pub(crate) struct Tells {
    by: Weak<()>,
    to: Sender<Hearsay>,
}

impl Listens {
    pub(crate) fn tells(&self, to: Sender<Hearsay>) -> Tells {
        Tells { by: Rc::downgrade(&self.0), to }
    }
}

impl Tells {
    /// # Errors
    /// Where nobody reads any more.
    pub(crate) async fn send(&self, probed: Probed) -> Result<(), SendError<Hearsay>> {
        self.to.send(Hearsay { by: self.by.clone(), probed }).await
    }
}

impl Hearsay {
    /// The word, unless who heard it listens no longer.
    pub(crate) fn heed(self) -> Option<Probed> {
        (self.by.strong_count() > 0).then_some(self.probed)
    }
}
