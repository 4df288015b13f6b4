//! Messages of drivers, which may contain keys.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A message to a node, which may contain keys or secrets. A copy shares the bytes.
#[derive(Clone)]
pub struct DriverMessage(Arc<Zeroizing<Vec<u8>>>);

impl From<Vec<u8>> for DriverMessage {
    fn from(bytes: Vec<u8>) -> DriverMessage {
        DriverMessage(Arc::new(Zeroizing::new(bytes)))
    }
}

impl Deref for DriverMessage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for DriverMessage {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for DriverMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DriverMessage({} bytes)", self.len())
    }
}
