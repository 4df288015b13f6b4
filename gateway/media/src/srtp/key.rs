//! Profiles and master keys, as SDES carries them (RFC 4568).

use data_encoding::{BASE64, BASE64_NOPAD};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Length of the longest master key with its salt.
const MASTER_MAX: usize = 46;

/// Encryption and authentication of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SrtpProfile {
    /// AES-128-GCM with a tag of 16 bytes (RFC 7714).
    AeadAes128Gcm,
    /// AES-256-GCM with a tag of 16 bytes (RFC 7714).
    AeadAes256Gcm,
    /// AES-128 in counter mode, HMAC-SHA1 with a tag of 10 bytes (RFC 3711, section 8.2).
    Aes128CmHmacSha1Tag80,
    /// As `Aes128CmHmacSha1Tag80`, with a tag of 4 bytes for SRTP; that of SRTCP has 10 bytes (RFC 4568, section 6.2.2).
    Aes128CmHmacSha1Tag32,
    /// AES-256 in counter mode, HMAC-SHA1 with a tag of 10 bytes (RFC 6188).
    Aes256CmHmacSha1Tag80,
}

impl SrtpProfile {
    /// All profiles, the preferred one first.
    pub const ALL: [Self; 5] = [
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
        Self::Aes128CmHmacSha1Tag80,
        Self::Aes256CmHmacSha1Tag80,
        Self::Aes128CmHmacSha1Tag32,
    ];

    /// The name of the crypto suite (IANA registry of RFC 4568).
    pub fn name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::Aes128CmHmacSha1Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Aes128CmHmacSha1Tag32 => "AES_CM_128_HMAC_SHA1_32",
            Self::Aes256CmHmacSha1Tag80 => "AES_256_CM_HMAC_SHA1_80",
        }
    }

    /// Bytes of the master key.
    pub fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::Aes256CmHmacSha1Tag80 => 32,
            Self::AeadAes128Gcm | Self::Aes128CmHmacSha1Tag80 | Self::Aes128CmHmacSha1Tag32 => 16,
        }
    }

    /// Bytes of the master salt.
    pub fn salt_len(self) -> usize {
        if self.is_gcm() { 12 } else { 14 }
    }

    /// Bytes that protection appends to an RTP packet.
    pub fn rtp_overhead(self) -> usize {
        match self {
            Self::Aes128CmHmacSha1Tag32 => 4,
            _ => self.rtcp_tag_len(),
        }
    }

    /// Bytes that protection appends to a compound RTCP packet: the tag, and the word with the index.
    pub fn rtcp_overhead(self) -> usize {
        self.rtcp_tag_len() + size_of::<u32>()
    }

    fn rtcp_tag_len(self) -> usize {
        if self.is_gcm() { 16 } else { 10 }
    }

    pub(super) fn is_gcm(self) -> bool {
        matches!(self, Self::AeadAes128Gcm | Self::AeadAes256Gcm)
    }
}

impl FromStr for SrtpProfile {
    type Err = SrtpKeyError;

    /// Reads the name of a crypto suite, in any case (RFC 4568, section 9.2).
    fn from_str(name: &str) -> Result<Self, SrtpKeyError> {
        let mut profiles = Self::ALL.into_iter();
        let named = profiles.find(|profile| profile.name().eq_ignore_ascii_case(name));
        named.ok_or(SrtpKeyError::Suite)
    }
}

/// Reason why key parameters were refused. It quotes none of them, since they may contain a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SrtpKeyError {
    /// Not the value of an `a=crypto` line.
    #[error("expected `TAG SUITE inline:KEY`, such as `1 AES_CM_128_HMAC_SHA1_80 inline:…`")]
    Attribute,
    /// A session parameter that must not be ignored (RFC 4568, section 6.3).
    #[error(
        "found a session parameter such as KDR; expected none, or only those that begin with `-`"
    )]
    SessionParameter,
    /// The crypto suite is unknown.
    #[error(
        "the crypto suite is none of AEAD_AES_128_GCM, AEAD_AES_256_GCM, AES_CM_128_HMAC_SHA1_80, \
         AES_256_CM_HMAC_SHA1_80 and AES_CM_128_HMAC_SHA1_32"
    )]
    Suite,
    /// The key method is not `inline`.
    #[error("the key parameters do not begin with \"inline:\"")]
    Method,
    /// There is more than one key.
    #[error("several keys were given; give one")]
    Several,
    /// There is a master key identifier.
    #[error("the key has a master key identifier (MKI); give one key without MKI")]
    Mki,
    /// The lifetime is not a number of packets.
    #[error("the lifetime of the key is not a number of packets from 1 to 2^48, such as 2^31")]
    Lifetime,
    /// The key is not Base64.
    #[error("the key is not Base64")]
    Base64,
    /// The key and salt have the wrong length.
    #[error(
        "{} takes a key of {} and a salt of {} bytes; {key_bytes} and {salt_bytes} were given",
        .profile.name(), .profile.key_len(), .profile.salt_len()
    )]
    Length {
        /// The profile of the key.
        profile: SrtpProfile,
        key_bytes: usize,
        salt_bytes: usize,
    },
}

/// A master key with its salt, wiped when dropped. Each direction of a session has its own.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpKey {
    profile: SrtpProfile,
    /// Key and salt. Boxed, so that a move leaves no copy.
    bytes: Box<Zeroizing<[u8; MASTER_MAX]>>,
}

impl SrtpKey {
    /// Copies a key and its salt.
    ///
    /// # Errors
    /// Fails if the profile takes another length.
    pub fn new(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpKeyError> {
        let (key_bytes, salt_bytes) = (key.len(), salt.len());
        if (key_bytes, salt_bytes) != (profile.key_len(), profile.salt_len()) {
            return Err(SrtpKeyError::Length { profile, key_bytes, salt_bytes });
        }
        let mut bytes = Box::new(Zeroizing::new([0; MASTER_MAX]));
        bytes[..key_bytes].copy_from_slice(key);
        bytes[key_bytes..key_bytes + salt_bytes].copy_from_slice(salt);
        Ok(Self { profile, bytes })
    }

    /// Makes a key of the bytes that `random` fills, key and salt.
    pub fn generate(profile: SrtpProfile, random: impl FnOnce(&mut [u8])) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; MASTER_MAX]));
        random(&mut bytes[..profile.key_len() + profile.salt_len()]);
        Self { profile, bytes }
    }

    /// Reads the key parameters of SDES (RFC 4568, section 6.1), such as
    /// `inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20`.
    ///
    /// The Base64 may lack its padding. A lifetime is checked and not enforced.
    ///
    /// # Errors
    /// Fails if they are not one key of the profile's length, or have an MKI.
    pub fn from_inline(profile: SrtpProfile, parameters: &str) -> Result<Self, SrtpKeyError> {
        let (method, info) = parameters.split_once(':').ok_or(SrtpKeyError::Method)?;
        if !method.eq_ignore_ascii_case("inline") {
            return Err(SrtpKeyError::Method);
        }
        if info.contains(';') {
            return Err(SrtpKeyError::Several);
        }
        let (encoded, fields) = info.split_once('|').unzip();
        if fields.is_some_and(|fields| fields.contains(':')) {
            return Err(SrtpKeyError::Mki);
        }
        if fields.is_some_and(|lifetime| !is_lifetime(lifetime)) {
            return Err(SrtpKeyError::Lifetime);
        }
        let encoded = encoded.unwrap_or(info).trim_end_matches('=');
        let length = BASE64_NOPAD.decode_len(encoded.len()).map_err(|_| SrtpKeyError::Base64)?;
        let key_bytes = profile.key_len();
        if length != key_bytes + profile.salt_len() {
            let key_bytes = key_bytes.min(length);
            let salt_bytes = length - key_bytes;
            return Err(SrtpKeyError::Length { profile, key_bytes, salt_bytes });
        }
        let mut bytes = Box::new(Zeroizing::new([0; MASTER_MAX]));
        match BASE64_NOPAD.decode_mut(encoded.as_bytes(), &mut bytes[..length]) {
            Ok(_) => Ok(Self { profile, bytes }),
            Err(_) => Err(SrtpKeyError::Base64),
        }
    }

    /// Writes the key parameters of SDES, without lifetime. The text is wiped when dropped.
    pub fn to_inline(&self) -> Zeroizing<String> {
        let capacity = "inline:".len() + BASE64.encode_len(MASTER_MAX);
        // A string that grows would leave a part of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(capacity));
        text.push_str("inline:");
        let length = self.profile.key_len() + self.profile.salt_len();
        BASE64.encode_append(&self.bytes[..length], &mut text);
        text
    }

    /// The profile for which the key was made.
    pub fn profile(&self) -> SrtpProfile {
        self.profile
    }

    /// The master key.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.profile.key_len()]
    }

    /// The master salt.
    pub fn salt(&self) -> &[u8] {
        &self.bytes[self.profile.key_len()..][..self.profile.salt_len()]
    }
}

impl fmt::Debug for SrtpKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpKey").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// Returns whether this is a number of packets, possibly as a power of two (RFC 4568, section 9.2).
fn is_lifetime(field: &str) -> bool {
    let power = field.strip_prefix("2^");
    let number = power.unwrap_or(field);
    // Parsing accepts a sign.
    if !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return false;
    }
    let packets = match power {
        Some(power) => power.parse().ok().and_then(|power| 1_u64.checked_shl(power)),
        None => number.parse().ok(),
    };
    packets.is_some_and(|packets| (1..=1 << 48).contains(&packets))
}

#[cfg(test)]
mod tests;
