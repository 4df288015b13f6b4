//! Sessions behind a webhook, as another process continues them.

use evenkeel_dataplane::worker::NodePort;
use evenkeel_model::{Hop, SessionId};
use serde::{Deserialize, Serialize};

/// A lease, as another process continues it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct WebhookLeaseRecord {
    pub(super) nonce: u64,
    pub(crate) session: SessionId,
    pub(crate) hop: Hop,
    /// `None` if the session has other ports since: the core opens it again.
    pub(crate) taken: Option<NodePort>,
}

impl WebhookLeaseRecord {
    /// The lease at the hop that its session has here.
    pub(crate) fn at(self, hop: Hop) -> WebhookLeaseRecord {
        WebhookLeaseRecord { hop, ..self }
    }
}
