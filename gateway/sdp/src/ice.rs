//! ICE in descriptions (RFC 8839).

use std::fmt;
use std::net::SocketAddr;

use zeroize::Zeroizing;

use crate::description::Attributes;
use crate::error::SdpError;

/// The component of RTP, on which RTCP is multiplexed.
const RTP_COMPONENT: u32 = 1;

/// Length limit of both parts of the credentials.
const CREDENTIAL_BYTES_MAX: usize = 256;

/// The credentials of an ICE agent (RFC 8839, section 5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// The username fragment: 4 to 256 characters.
    pub ufrag: String,
    password: Zeroizing<String>,
}

impl IceCredentials {
    /// Checks credentials.
    ///
    /// # Errors
    /// If one of them has a wrong length, or a character that is not a letter, a digit, `+` or `/`.
    pub fn new(ufrag: &str, password: &str) -> Result<IceCredentials, SdpError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        let is_valid = |text: &str, bytes_min: usize| {
            (bytes_min..=CREDENTIAL_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
        };
        if !is_valid(ufrag, 4) || !is_valid(password, 22) {
            return Err(SdpError::IceCredentials);
        }
        let password = Zeroizing::new(password.to_owned());
        Ok(IceCredentials { ufrag: ufrag.to_owned(), password })
    }

    /// Returns the password: 22 to 256 characters.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Reads credentials from the first of these levels that has a part of them.
    pub(crate) fn read<'a>(
        levels: impl IntoIterator<Item = Attributes<'a>>,
    ) -> Result<Option<IceCredentials>, SdpError> {
        for level in levels {
            match (level.values("ice-ufrag").next(), level.secrets("ice-pwd").next()) {
                (None, None) => {}
                (Some(ufrag), Some(password)) => {
                    return IceCredentials::new(ufrag, password).map(Some);
                }
                _ => return Err(SdpError::IceCredentials),
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Writes the value of `a=candidate` for a host address (RFC 8445, section 5.1.2); the first address has the highest priority.
pub(crate) fn candidate_value(index: usize, address: SocketAddr) -> String {
    let local_preference =
        u32::from(u16::MAX).saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
    let priority = (126 << 24) | (local_preference << 8) | (256 - RTP_COMPONENT);
    let (foundation, ip, port) = (index + 1, address.ip(), address.port());
    format!("{foundation} {RTP_COMPONENT} udp {priority} {ip} {port} typ host")
}
