//! Events of probers, queued for control. Control drops the events of a prober that is no longer in use, because the
//! next prober may probe another agent, or another node in the same slot.

use std::rc::{Rc, Weak};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use super::ProbeResult;

/// Held by a prober while it is in use.
#[derive(Default, Debug)]
pub(crate) struct Subscription(Rc<()>);

#[derive(Debug)]
pub(crate) struct ProbeEvent {
    by: Weak<()>,
    probed: ProbeResult,
}

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
    pub(crate) async fn send(&self, probed: ProbeResult) -> Result<(), SendError<ProbeEvent>> {
        self.to.send(ProbeEvent { by: self.by.clone(), probed }).await
    }
}

impl ProbeEvent {
    pub(crate) fn if_current(self) -> Option<ProbeResult> {
        (self.by.strong_count() > 0).then_some(self.probed)
    }
}
