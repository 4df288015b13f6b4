//! Pulls a plugin.

use std::time::Duration;

use evenkeel_config::{PluginReference, RegistrySettings};
use evenkeel_http::HttpError;
use evenkeel_process::sha256;
use tokio::time::{Instant, timeout_at};

use crate::cache::{PluginCache, PulledPlugin};
use crate::client::{RegistryClient, retry};
use crate::error::RegistryError;
use crate::manifest;

/// Time for all requests about a plugin, and for all plugins of a configuration together: a reload is to end within a minute.
pub const WITHIN: Duration = Duration::from_secs(30);

/// Takes a plugin from the cache if it is named by digest, else from the registry.
///
/// # Errors
/// The registry does not answer until `by`, has no such plugin, or sends other bytes.
pub async fn pull(
    reference: &PluginReference,
    registry: &RegistrySettings,
    cache: Option<&PluginCache>,
    by: Instant,
) -> Result<PulledPlugin, RegistryError> {
    let kept = reference.digest().zip(cache).and_then(|(digest, cache)| cache.find(&digest));
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let client = RegistryClient::new(registry)?;
    let fetched = timeout_at(by, fetch(&client, reference)).await;
    let fetched = fetched.unwrap_or_else(|_| Err(client.no_answer(HttpError::Late)));
    let (manifest, bytes) = fetched.map_err(|error| error.without_cache(reference))?;
    let path = cache.map(|cache| cache.keep(&manifest, &bytes)).transpose()?;
    let (digest, content) = (sha256(&manifest), sha256(&bytes));
    Ok(PulledPlugin { digest, content, bytes, path, was_kept: false })
}

/// The manifest and the plugin.
async fn fetch(
    client: &RegistryClient,
    reference: &PluginReference,
) -> Result<(Vec<u8>, Vec<u8>), RegistryError> {
    let (name, tag, digest) = (reference.name(), reference.tag(), reference.digest());
    let manifest = retry(async || client.manifest(name, tag, digest.as_ref()).await).await?;
    let layer = manifest::read(&manifest);
    let layer = layer.map_err(|found| client.unfit(found, "the manifest of a plugin"))?;
    let plugin = retry(async || client.plugin(name, &layer).await).await?;
    Ok((manifest.to_vec(), plugin.to_vec()))
}
