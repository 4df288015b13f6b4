//! The file from which settings were read, as it is written.

use std::fmt;
use std::path::Path;

use evenkeel_process::sha256;
use toml::Table;

/// The file from which settings were read.
#[derive(Clone, Default)]
pub struct WrittenConfig {
    /// Default: the built-in configuration.
    pub(super) file: Option<String>,
    pub(super) sha256: [u8; 32],
    pub(super) tables: Table,
}

impl WrittenConfig {
    /// A file that cannot be parsed has no tables; its errors are reported elsewhere.
    pub(super) fn of(file: Option<&Path>, text: &str) -> WrittenConfig {
        WrittenConfig {
            file: file.map(|file| file.display().to_string()),
            sha256: sha256(text.as_bytes()),
            tables: text.parse().unwrap_or_default(),
        }
    }
}

impl fmt::Debug for WrittenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Settings that were written in two ways are the same.
        f.debug_struct("WrittenConfig").field("file", &self.file).finish_non_exhaustive()
    }
}
