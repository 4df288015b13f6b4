//! The manifest of a plugin: an image manifest with one layer of Wasm (OCI image-spec 1.1, sections "Image Manifest" and "Guidelines for
//! Artifact Usage").

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use evenkeel_host::{BINARY_BYTES_MAX, read_digest};
use evenkeel_process::sha256;
use serde::{Deserialize, Serialize};

/// The media type of an image manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Maximum size. A manifest of a plugin has less than 1 KiB; that of another tool may have long annotations.
pub(crate) const MANIFEST_BYTES_MAX: usize = 256 << 10;

/// The artifact's type, by which tools tell plugins from other artifacts.
const PLUGIN: &str = "application/vnd.evenkeel.plugin.v1";

/// A WebAssembly binary (WebAssembly Web API, section "MIME type").
const WASM: &str = "application/wasm";

/// The empty descriptor (image-spec, section "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Its content.
pub(crate) const EMPTY_CONFIG: &[u8] = b"{}";

/// The name and version that a registry shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PluginTitle {
    /// The plugin's name.
    pub name: String,
    pub version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// The layer that is the plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PluginLayer {
    /// SHA-256 of the plugin.
    pub(crate) digest: [u8; 32],
    /// Its length.
    pub(crate) bytes: usize,
}

/// A digest as text: `sha256:` and 64 hexadecimal digits.
pub(crate) fn text(digest: &[u8; 32]) -> String {
    format!("sha256:{}", HEXLOWER.encode(digest))
}

fn descriptor(media_type: &str, content: &[u8]) -> Descriptor {
    let (media_type, digest) = (media_type.to_owned(), text(&sha256(content)));
    Descriptor { media_type, digest, size: content.len() as u64 }
}

/// Writes the manifest of a plugin. It has no time, so that the same plugin has the same digest.
pub(crate) fn write(plugin: &[u8], title: &PluginTitle) -> Vec<u8> {
    let annotations = [
        ("org.opencontainers.image.title", format!("{}.wasm", title.name)),
        ("org.opencontainers.image.version", title.version.clone()),
    ];
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(MANIFEST.to_owned()),
        artifact_type: Some(PLUGIN.to_owned()),
        config: descriptor(EMPTY, EMPTY_CONFIG),
        layers: vec![descriptor(WASM, plugin)],
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    serde_json::to_vec(&manifest).expect("texts and numbers are JSON")
}

/// Reads the layer of a plugin, whichever tool has written the manifest. The error is what was found.
pub(crate) fn read(manifest: &[u8]) -> Result<PluginLayer, String> {
    let manifest: ImageManifest =
        serde_json::from_slice(manifest).map_err(|error| format!("no image manifest: {error}"))?;
    let [layer] = &manifest.layers[..] else {
        return Err(format!("a manifest with {} layers", manifest.layers.len()));
    };
    if layer.media_type != WASM {
        return Err(format!("a layer of `{}`", layer.media_type));
    }
    let digest = read_digest(&layer.digest)
        .map_err(|_| format!("a layer with the digest `{}`", layer.digest))?;
    let bytes = usize::try_from(layer.size).ok().filter(|bytes| *bytes <= BINARY_BYTES_MAX);
    let bytes = bytes.ok_or_else(|| format!("a layer of {} bytes", layer.size))?;
    Ok(PluginLayer { digest, bytes })
}

#[cfg(test)]
mod tests;
