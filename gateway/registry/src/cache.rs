//! Plugins that were pulled by digest, on the disk. Files are named by digest and compared with it when they are read, so that a damaged
//! or replaced one counts as absent.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use evenkeel_host::{BINARY_BYTES_MAX, private_folder};
use evenkeel_process::{file, sha256};

use crate::error::RegistryError;
use crate::manifest::{self, MANIFEST_BYTES_MAX};

/// Maximum files, two for each plugin: at most 1 GiB. The least recently used ones are removed.
const FILES_MAX: usize = 128;

/// The folder inside that of compiled plugins, which leaves folders alone.
const FOLDER: &str = "registry";

/// A plugin of a registry. Its bytes have the digests; whether they are a plugin was not checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PulledPlugin {
    /// SHA-256 of the manifest, by which configurations name it.
    pub digest: [u8; 32],
    /// SHA-256 of the bytes.
    pub content: [u8; 32],
    /// The plugin.
    pub bytes: Vec<u8>,
    /// Its file in the cache, if there is a cache.
    pub path: Option<PathBuf>,
    /// It was in the cache; the registry was not asked.
    pub was_kept: bool,
}

/// A folder of plugins. Gateways and commands of one user may share it.
#[derive(Clone, Debug)]
pub struct PluginCache {
    folder: PathBuf,
}

impl PluginCache {
    /// Opens or creates the cache in the first of these folders that only this user may enter.
    ///
    /// # Errors
    /// There is none; the error is about the first folder.
    pub fn open(candidates: &[PathBuf]) -> Result<PluginCache, RegistryError> {
        let mut first = None;
        for candidate in candidates {
            let folder = candidate.join(FOLDER);
            match private_folder(candidate).and_then(|()| private_folder(&folder)) {
                Ok(()) => return Ok(PluginCache { folder }),
                Err(error) => _ = first.get_or_insert((candidate.clone(), error)),
            }
        }
        let failed = |(path, error)| RegistryError::NotKept { path, error };
        Err(first.map_or(RegistryError::NoCache, failed))
    }

    /// The plugin of this manifest, if it is kept whole.
    pub(crate) fn find(&self, digest: &[u8; 32]) -> Option<PulledPlugin> {
        let path = self.path(digest, "json");
        let layer = manifest::read(&read(&path, digest, MANIFEST_BYTES_MAX)?).ok()?;
        let plugin = self.path(&layer.digest, "wasm");
        let bytes = read(&plugin, &layer.digest, BINARY_BYTES_MAX)?;
        let (digest, content) = (*digest, layer.digest);
        Some(PulledPlugin { digest, content, bytes, path: Some(plugin), was_kept: true })
    }

    /// Keeps a plugin, and returns the path of its file.
    pub(crate) fn keep(&self, manifest: &[u8], plugin: &[u8]) -> Result<PathBuf, RegistryError> {
        let path = self.path(&sha256(plugin), "wasm");
        let failed = |path: &Path, error| RegistryError::NotKept { path: path.to_owned(), error };
        file::replace(&path, plugin).map_err(|error| failed(&path, error))?;
        // The manifest comes last: with it the plugin is found.
        let manifest_path = self.path(&sha256(manifest), "json");
        file::replace(&manifest_path, manifest).map_err(|error| failed(&manifest_path, error))?;
        file::trim(&self.folder, &path, FILES_MAX).map_err(|error| failed(&self.folder, error))?;
        Ok(path)
    }

    fn path(&self, digest: &[u8; 32], extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", HEXLOWER.encode(digest)))
    }
}

/// Reads a file of these bytes, and marks it as recently used.
fn read(path: &Path, digest: &[u8; 32], max: usize) -> Option<Vec<u8>> {
    let bytes = file::read(path, max as u64).ok().filter(|bytes| sha256(bytes) == *digest)?;
    let mark = || -> io::Result<()> { File::open(path)?.set_modified(SystemTime::now()) };
    // If that fails, the file is removed earlier.
    let _ = mark();
    Some(bytes)
}

#[cfg(test)]
mod tests;
