//! Messages to rtpengine, which may contain keys.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use zeroize::Zeroizing;

/// An NG message of this gateway: a cookie and a dictionary, which may have keys of SRTP.
#[derive(Clone)]
pub struct NgDatagram(Arc<Zeroizing<Vec<u8>>>);

impl From<Vec<u8>> for NgDatagram {
    fn from(bytes: Vec<u8>) -> NgDatagram {
        NgDatagram(Arc::new(Zeroizing::new(bytes)))
    }
}

impl Deref for NgDatagram {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NgDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NgDatagram({} bytes)", self.len())
    }
}
