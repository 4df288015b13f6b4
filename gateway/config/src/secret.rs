//! Secrets, which are never logged.

use std::fmt;
use std::sync::Arc;

/// The content of a secret file without the line end: 16 to 4,096 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile(Arc<[u8]>);

impl SecretFile {
    /// The length is checked where the file is read.
    pub fn new(bytes: Vec<u8>) -> SecretFile {
        SecretFile(bytes.into())
    }

    /// The secret's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
