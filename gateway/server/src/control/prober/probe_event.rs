//! Events of probers, queued for control. An event counts only while its prober is still in use: the next one may probe
//! another agent, or another node in the same slot.

use std::rc::{Rc, Weak};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use super::Probed;

/// Held by a prober for its lifetime.
#[derive(Default, Debug)]
pub(crate) struct Listens(Rc<()>);

/// An event and its prober's subscription.
#[derive(Debug)]
pub(crate) struct Hearsay {
    by: Weak<()>,
    probed: Probed,
}

/// Sends the events of one prober.
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
    /// The receiver is gone.
    pub(crate) async fn send(&self, probed: Probed) -> Result<(), SendError<Hearsay>> {
        self.to.send(Hearsay { by: self.by.clone(), probed }).await
    }
}

impl Hearsay {
    /// The event, if its prober is still in use.
    pub(crate) fn heed(self) -> Option<Probed> {
        (self.by.strong_count() > 0).then_some(self.probed)
    }
}
