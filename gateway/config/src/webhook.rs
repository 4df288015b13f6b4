//! The receiver of POSTs.

use crate::SecretFile;
use crate::url::Url;

#[derive(Clone, PartialEq, Debug)]
pub struct WebhookTarget {
    pub url: Url,
    /// Bearer token for the `Authorization` header.
    pub token: Option<SecretFile>,
}
