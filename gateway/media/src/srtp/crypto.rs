//! Keys in signalling: SDES (RFC 4568).

use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::key::{SrtpKey, SrtpKeyError, SrtpProfile};

/// Maximum digits of a tag (RFC 4568, section 9.1).
const TAG_DIGITS_MAX: usize = 9;

/// The value of an `a=crypto` line of SDP: `1 AES_CM_128_HMAC_SHA1_80 inline:KEY`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CryptoAttribute {
    /// The number of the line, which an answer repeats.
    pub tag: u32,
    /// The key by which the sender of the line protects its packets.
    pub key: SrtpKey,
}

impl FromStr for CryptoAttribute {
    type Err = SrtpKeyError;

    /// Reads a value. Session parameters that may be ignored, which begin with `-`, are ignored.
    fn from_str(value: &str) -> Result<CryptoAttribute, SrtpKeyError> {
        let mut fields = value.split_ascii_whitespace();
        let (Some(tag), Some(suite), Some(parameters)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Err(SrtpKeyError::Attribute);
        };
        let tag = tag.parse().ok().filter(|_| {
            tag.len() <= TAG_DIGITS_MAX && tag.bytes().all(|byte| byte.is_ascii_digit())
        });
        let tag = tag.ok_or(SrtpKeyError::Attribute)?;
        let key = SrtpKey::from_inline(suite.parse()?, parameters)?;
        match fields.all(|parameter| parameter.starts_with('-')) {
            true => Ok(CryptoAttribute { tag, key }),
            false => Err(SrtpKeyError::SessionParameter),
        }
    }
}

impl CryptoAttribute {
    /// Writes the value. The text is wiped when dropped.
    pub fn to_value(&self) -> Zeroizing<String> {
        joined(&[&self.tag.to_string(), self.key.profile().name(), &self.key.to_inline()])
    }
}

/// Crypto suite and key parameters, for records that are encrypted or stay in the memory of a host.
impl Serialize for SrtpKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&joined(&[self.profile().name(), &self.to_inline()]))
    }
}

impl<'de> Deserialize<'de> for SrtpKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SrtpKey, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let (suite, parameters) = text.split_once(' ').unwrap_or((text, ""));
        let profile = suite.parse().map_err(D::Error::custom)?;
        SrtpKey::from_inline(profile, parameters).map_err(D::Error::custom)
    }
}

/// Joins fields by spaces. The text is wiped when dropped.
fn joined(fields: &[&str]) -> Zeroizing<String> {
    let length = fields.iter().map(|field| field.len() + 1).sum();
    // A string that grows would leave a part of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(length));
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            text.push(' ');
        }
        text.push_str(field);
    }
    text
}

/// The master keys of a session, one for each direction, of one profile. Towards a media server, that server is the client.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct SrtpKeys {
    /// The key by which the client protects its packets.
    pub client: SrtpKey,
    /// The key by which the gateway protects its own.
    pub gateway: SrtpKey,
    /// The tag of the client's attribute, which the answer repeats. `None` if DTLS agreed on the keys.
    pub tag: Option<u32>,
}

impl SrtpKeys {
    /// Accepts the first of a client's attributes that the gateway supports (RFC 4568, section 5.1.2). `random` fills the
    /// gateway's own key with bytes of a cryptographic generator.
    ///
    /// # Errors
    /// If none is supported, the reason for the first one of a known suite.
    pub fn accept(
        offered: impl IntoIterator<Item = Result<CryptoAttribute, SrtpKeyError>>,
        random: impl FnOnce(&mut [u8]),
    ) -> Result<SrtpKeys, SrtpKeyError> {
        let mut refused = None;
        for attribute in offered {
            match attribute {
                Ok(CryptoAttribute { tag, key: client }) => {
                    let gateway = SrtpKey::generate(client.profile(), random);
                    return Ok(SrtpKeys { client, gateway, tag: Some(tag) });
                }
                Err(reason) if refused.is_none_or(|before| before == SrtpKeyError::Suite) => {
                    refused = Some(reason);
                }
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or(SrtpKeyError::Attribute))
    }

    /// The gateway's attribute of the answer. `None` if DTLS agreed on the keys.
    pub fn answer(&self) -> Option<CryptoAttribute> {
        Some(CryptoAttribute { tag: self.tag?, key: self.gateway.clone() })
    }

    /// The profile of both keys.
    pub fn profile(&self) -> SrtpProfile {
        self.client.profile()
    }
}

#[cfg(test)]
mod tests;
