//! The certificates that clients see, as the gateways of a group share them. Control does not read them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// The certificates of a gateway with their keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificatesRecord {
    /// Certificate of DTLS.
    pub dtls: SecretPem,
    /// Certificates of WebTransport; `None` with a configured certificate, and without a QUIC listener.
    #[serde(default)]
    pub webtransport: Option<SecretPem>,
}

/// Certificates and private keys in PEM (RFC 7468). The text is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretPem(pub Zeroizing<String>);

/// Omits the text, to keep keys out of logs.
impl fmt::Debug for SecretPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretPem").finish_non_exhaustive()
    }
}

impl Serialize for SecretPem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretPem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretPem, D::Error> {
        String::deserialize(deserializer).map(|pem| SecretPem(pem.into()))
    }
}

/// Ends of the channels between the certificates of a gateway and its member of a group.
#[derive(Clone, Debug)]
pub struct CertificateChannels {
    /// Certificates that clients of this gateway see.
    pub own: watch::Receiver<CertificatesRecord>,
    /// Certificates of the owner, for a standby; `None` until some came.
    pub copied: watch::Sender<Option<CertificatesRecord>>,
}

#[cfg(test)]
mod tests;
