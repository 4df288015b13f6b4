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
        let (tag, suite) = (self.tag.to_string(), self.key.profile().name());
        let parameters = self.key.to_inline();
        let length = tag.len() + suite.len() + parameters.len() + 2;
        // A string that grows would leave a part of the key behind.
        let mut value = Zeroizing::new(String::with_capacity(length));
        for part in [&*tag, " ", suite, " ", &**parameters] {
            value.push_str(part);
        }
        value
    }
}

/// As [`CryptoAttribute::to_value`], for the answer to the offer, and for records that are encrypted or stay in the memory of a host.
impl Serialize for CryptoAttribute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_value())
    }
}

impl<'de> Deserialize<'de> for CryptoAttribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CryptoAttribute, D::Error> {
        <&str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The master keys of a session, one for each direction, of one profile.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct SrtpKeys {
    /// The key by which the client protects its packets.
    pub client: CryptoAttribute,
    /// The key by which the gateway protects its own, with the tag of the client's.
    pub gateway: CryptoAttribute,
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
                Ok(client) => {
                    let key = SrtpKey::generate(client.key.profile(), random);
                    let gateway = CryptoAttribute { tag: client.tag, key };
                    return Ok(SrtpKeys { client, gateway });
                }
                Err(reason) if refused.is_none_or(|before| before == SrtpKeyError::Suite) => {
                    refused = Some(reason);
                }
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or(SrtpKeyError::Attribute))
    }

    /// The profile of both keys.
    pub fn profile(&self) -> SrtpProfile {
        self.client.key.profile()
    }
}

#[cfg(test)]
mod tests;
