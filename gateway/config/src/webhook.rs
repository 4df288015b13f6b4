//! The receiver of POSTs.

use crate::SecretFile;
use crate::url::Url;

/// Where a node's webhooks are sent.
#[derive(Clone, PartialEq, Debug)]
pub struct WebhookTarget {
    /// `http` or `https`.
    pub url: Url,
    /// Bearer token for the `Authorization` header.
    pub token: Option<SecretFile>,
}
