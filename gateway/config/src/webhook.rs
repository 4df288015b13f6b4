//! The receiver of POSTs.

use crate::SecretFile;
use crate::url::Url;

/// The target of a node's webhooks.
#[derive(Clone, PartialEq, Debug)]
pub struct WebhookTarget {
    /// `http` or `https`.
    pub url: Url,
    /// Bearer token for the `Authorization` header.
    pub token: Option<SecretFile>,
}
