//! Publishes a plugin.

use bytes::Bytes;
use evenkeel_config::{PluginReference, RegistrySettings};
use evenkeel_http::HttpError;
use evenkeel_process::sha256;
use tokio::time::{Instant, timeout_at};

use crate::client::{RegistryClient, retry};
use crate::error::RegistryError;
use crate::manifest::{self, EMPTY_CONFIG, PluginTitle};

/// Publishes a plugin under the tag of a reference, or by digest alone if it has none. Returns the digest of its manifest, which is the
/// same for the same plugin.
///
/// # Errors
/// The registry does not answer until `by`, or refuses the plugin.
pub async fn publish(
    plugin: Vec<u8>,
    title: &PluginTitle,
    reference: &PluginReference,
    registry: &RegistrySettings,
    by: Instant,
) -> Result<[u8; 32], RegistryError> {
    let client = RegistryClient::new(registry)?;
    let manifest = Bytes::from(manifest::write(&plugin, title));
    let digest = sha256(&manifest);
    let (name, tag) = (reference.name(), reference.tag());
    let pushing = async {
        // A manifest is taken only if all that it names is there.
        for content in [Bytes::from(plugin), Bytes::from_static(EMPTY_CONFIG)] {
            retry(async || client.upload(name, content.clone()).await).await?;
        }
        retry(async || client.push_manifest(name, tag, manifest.clone()).await).await
    };
    let pushed = timeout_at(by, pushing).await;
    pushed.unwrap_or_else(|_| Err(client.no_answer(HttpError::Late)))?;
    Ok(digest)
}
