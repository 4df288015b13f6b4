//! Events of probers, queued for control. An event counts only while its prober is still in use: the next one may probe
//! another agent, or another node in the same slot.

use std::rc::{Rc, Weak};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use super::Probed;

/// Held by a prober for its lifetime.
#[derive(Default, Debug)]
pub(crate) struct Subscription(Rc<()>);

/// An event and its prober's subscription.
#[derive(Debug)]
pub(crate) struct ProbeEvent {
    by: Weak<()>,
    probed: Probed,
}

/// Sends the events of one prober.
#[derive(Debug)]
pub(crate) struct ProbeSender {
    by: Weak<()>,
    to: Sender<ProbeEvent>,
}

impl Subscription {
    pub(crate) fn sender(&self, to: Sender<ProbeEvent>) -> ProbeSender {
        ProbeSender { by: Rc::downgrade(&self.0), to }
    }
}

impl ProbeSender {
    pub(crate) async fn send(&self, probed: Probed) -> Result<(), SendError<ProbeEvent>> {
        self.to.send(ProbeEvent { by: self.by.clone(), probed }).await
    }
}

impl ProbeEvent {
    /// The event, if its prober is still in use.
    pub(crate) fn if_current(self) -> Option<Probed> {
        (self.by.strong_count() > 0).then_some(self.probed)
    }
}
