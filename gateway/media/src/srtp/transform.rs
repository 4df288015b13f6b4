//! Session keys, and the protection of a packet with them, in place.

use super::error::SrtpError;
use super::key::SrtpKey;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipherCore};
use aes::{Aes128Enc, Aes256Enc};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use hmac::{Hmac, Mac};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha1::Sha1;
use std::fmt;
use zeroize::Zeroizing;

/// The part of an RTCP packet that is not encrypted: the first header and the sender's SSRC (RFC 3711, section 3.4).
pub(super) const RTCP_HEADER_LEN: usize = 8;

/// Length of the word with the E bit and the index (RFC 3711, section 3.4).
pub(super) const RTCP_WORD_LEN: usize = 4;

/// The bit of that word that tells an encrypted packet.
const ENCRYPTED: u32 = 1 << 31;

/// The first of three consecutive labels: encryption, authentication, salt (RFC 3711, section 4.3.2).
const RTP_LABELS: u8 = 0;
const RTCP_LABELS: u8 = 3;

/// More than the stack frames through which keys are moved while they are derived.
const DERIVATION_STACK: usize = 16 * 1024;

const AUTHENTICATION_KEY_LEN: usize = 20;
const KEY_MAX: usize = 32;
const SALT_MAX: usize = 14;

/// The source and index of a packet, which select its part of the key stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacketIndex {
    pub(super) ssrc: u32,
    /// 48 bits for RTP, 31 bits for RTCP.
    pub(super) index: u64,
}

impl PacketIndex {
    /// The ten bytes that the initialisation vector contains, as a number.
    fn number(self) -> u128 {
        u128::from(self.ssrc) << 48 | u128::from(self.index)
    }

    fn rollovers(self) -> [u8; 4] {
        ((self.index >> 16) as u32).to_be_bytes()
    }
}

/// The keys of one direction of a session.
#[derive(Debug)]
pub(super) struct SessionKeys {
    pub(super) rtp: PacketKey,
    pub(super) rtcp: PacketKey,
}

impl SessionKeys {
    /// Derives session keys with key derivation rate 0 (RFC 3711, section 4.3; RFC 6188, section 3; RFC 7714, section 11).
    pub(super) fn derive(master: &SrtpKey) -> Self {
        let keys = Self::derive_on_stack(master);
        zeroize::zeroize_stack::<DERIVATION_STACK>();
        keys
    }

    #[inline(never)]
    fn derive_on_stack(master: &SrtpKey) -> Self {
        let cipher = CounterCipher::new(master.key());
        let (profile, salt) = (master.profile(), left_aligned(master.salt()));
        let packet_key = |labels: u8, tag_len: usize| {
            let mut key = Zeroizing::new([0; KEY_MAX]);
            let mut session_salt = Zeroizing::new([0; SALT_MAX]);
            let key = &mut key[..profile.key_len()];
            let session_salt = &mut session_salt[..profile.salt_len()];
            let derive = |label: u8, output: &mut [u8]| {
                cipher.apply(*salt ^ u128::from(label) << 64, output);
            };
            derive(labels, key);
            derive(labels + 2, session_salt);
            if profile.is_gcm() {
                return PacketKey::gcm(key, session_salt);
            }
            let mut authentication = Zeroizing::new([0; AUTHENTICATION_KEY_LEN]);
            derive(labels + 1, &mut *authentication);
            PacketKey::cm(key, session_salt, &*authentication, tag_len)
        };
        Self {
            rtp: packet_key(RTP_LABELS, profile.rtp_overhead()),
            rtcp: packet_key(RTCP_LABELS, profile.rtcp_overhead() - RTCP_WORD_LEN),
        }
    }
}

/// Protects the RTP packets, or the RTCP packets, of one direction.
pub(super) struct PacketKey {
    transform: Transform,
    tag_len: usize,
}

/// Boxed, so that a move leaves no copy of a key.
enum Transform {
    Gcm(Box<GcmKey>),
    Cm(Box<CmKey>),
}

impl PacketKey {
    /// Takes a session key of 16 or 32 bytes, and a session salt of 12.
    pub(super) fn gcm(key: &[u8], salt: &[u8]) -> Self {
        let key = gcm_key(key);
        let tag_len = key.algorithm().tag_len();
        let gcm = GcmKey { key, salt: left_aligned(salt) };
        Self { transform: Transform::Gcm(Box::new(gcm)), tag_len }
    }

    /// Takes a session key of 16 or 32 bytes, and a session salt of 14.
    pub(super) fn cm(key: &[u8], salt: &[u8], authentication: &[u8], tag_len: usize) -> Self {
        let mac = Hmac::new_from_slice(authentication).expect("HMAC takes keys of any length");
        let cm = CmKey { cipher: CounterCipher::new(key), salt: left_aligned(salt), mac };
        Self { transform: Transform::Cm(Box::new(cm)), tag_len }
    }

    /// Protects a packet that the tag's space follows.
    pub(super) fn seal_rtp(&self, buffer: &mut [u8], header_len: usize, at: PacketIndex) {
        let (packet, tag) = buffer.split_at_mut(buffer.len() - self.tag_len);
        match &self.transform {
            Transform::Gcm(gcm) => {
                let (header, payload) = packet.split_at_mut(header_len);
                gcm.seal(at, header, payload, tag);
            }
            Transform::Cm(cm) => {
                cm.apply(at, &mut packet[header_len..]);
                cm.write_tag(packet, &at.rollovers(), tag);
            }
        }
    }

    /// Verifies and decrypts a packet. Returns its length without the tag.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        at: PacketIndex,
    ) -> Result<usize, SrtpError> {
        let length = packet.len() - self.tag_len;
        match &self.transform {
            Transform::Gcm(gcm) => {
                let (header, payload_and_tag) = packet.split_at_mut(header_len);
                gcm.open(at, header, payload_and_tag)?;
            }
            Transform::Cm(cm) => {
                let (packet, tag) = packet.split_at_mut(length);
                cm.verify(packet, &at.rollovers(), tag)?;
                cm.apply(at, &mut packet[header_len..]);
            }
        }
        Ok(length)
    }

    /// Protects a compound packet that the space of tag and word follows. GCM writes the tag first, HMAC the word
    /// (RFC 7714, section 9.2; RFC 3711, section 3.4).
    pub(super) fn seal_rtcp(&self, buffer: &mut [u8], at: PacketIndex) {
        let length = buffer.len() - self.tag_len - RTCP_WORD_LEN;
        let word = (ENCRYPTED | at.index as u32).to_be_bytes();
        let (packet, trailer) = buffer.split_at_mut(length);
        match &self.transform {
            Transform::Gcm(gcm) => {
                let (header, content) = packet.split_at_mut(RTCP_HEADER_LEN);
                let (tag, word_space) = trailer.split_at_mut(self.tag_len);
                gcm.seal(at, &associated_rtcp(header, word), content, tag);
                word_space.copy_from_slice(&word);
            }
            Transform::Cm(cm) => {
                cm.apply(at, &mut packet[RTCP_HEADER_LEN..]);
                trailer[..RTCP_WORD_LEN].copy_from_slice(&word);
                let (authenticated, tag) = buffer.split_at_mut(length + RTCP_WORD_LEN);
                cm.write_tag(authenticated, &[], tag);
            }
        }
    }

    /// Reads the word of an SRTCP packet: the E bit and the index.
    pub(super) fn rtcp_word(&self, packet: &[u8]) -> Option<RtcpWord> {
        let after = match &self.transform {
            Transform::Gcm(_) => packet.len(),
            Transform::Cm(_) => packet.len().checked_sub(self.tag_len)?,
        };
        let word = packet.get(..after)?.last_chunk()?;
        let is_long = packet.len() >= RTCP_HEADER_LEN + self.tag_len + RTCP_WORD_LEN;
        is_long.then_some(RtcpWord(u32::from_be_bytes(*word)))
    }

    /// Verifies an SRTCP packet that ends with this word, and decrypts it if the E bit of the word is set. Returns its length without
    /// tag and word.
    pub(super) fn open_rtcp(
        &self,
        packet: &mut [u8],
        word: RtcpWord,
        at: PacketIndex,
    ) -> Result<usize, SrtpError> {
        let length = packet.len() - self.tag_len - RTCP_WORD_LEN;
        match &self.transform {
            Transform::Gcm(gcm) if word.is_encrypted() => {
                let (header, rest) = packet.split_at_mut(RTCP_HEADER_LEN);
                let content_len = length - RTCP_HEADER_LEN + self.tag_len;
                let associated = associated_rtcp(header, word.0.to_be_bytes());
                gcm.open(at, &associated, &mut rest[..content_len])?;
            }
            Transform::Gcm(gcm) => {
                // The word must follow the packet, which is all authenticated, at the place of the tag.
                let (_, trailer) = packet.split_at_mut(length);
                trailer.rotate_left(self.tag_len);
                let (associated, tag) = packet.split_at_mut(length + RTCP_WORD_LEN);
                gcm.open(at, associated, tag)?;
            }
            Transform::Cm(cm) => {
                let (authenticated, tag) = packet.split_at_mut(length + RTCP_WORD_LEN);
                cm.verify(authenticated, &[], tag)?;
                if word.is_encrypted() {
                    cm.apply(at, &mut packet[RTCP_HEADER_LEN..length]);
                }
            }
        }
        Ok(length)
    }
}

impl fmt::Debug for PacketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketKey").field("tag_len", &self.tag_len).finish_non_exhaustive()
    }
}

/// The E bit and the index of an SRTCP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RtcpWord(u32);

impl RtcpWord {
    pub(super) fn index(self) -> u64 {
        u64::from(self.0 & !ENCRYPTED)
    }

    fn is_encrypted(self) -> bool {
        self.0 & ENCRYPTED != 0
    }
}

/// The associated data of an encrypted RTCP packet (RFC 7714, section 9.2).
fn associated_rtcp(
    header: &[u8],
    word: [u8; RTCP_WORD_LEN],
) -> [u8; RTCP_HEADER_LEN + RTCP_WORD_LEN] {
    let mut associated = [0; RTCP_HEADER_LEN + RTCP_WORD_LEN];
    associated[..RTCP_HEADER_LEN].copy_from_slice(header);
    associated[RTCP_HEADER_LEN..].copy_from_slice(&word);
    associated
}

/// A salt as the first bytes of an initialisation vector.
fn left_aligned(salt: &[u8]) -> Zeroizing<u128> {
    let mut bytes = Zeroizing::new([0; size_of::<u128>()]);
    bytes[..salt.len()].copy_from_slice(salt);
    Zeroizing::new(u128::from_be_bytes(*bytes))
}

struct GcmKey {
    key: LessSafeKey,
    salt: Zeroizing<u128>,
}

fn gcm_key(key: &[u8]) -> LessSafeKey {
    let algorithm = if key.len() == AES_128_GCM.key_len() { &AES_128_GCM } else { &AES_256_GCM };
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("the profile has its key's length"))
}

impl GcmKey {
    fn seal(&self, at: PacketIndex, associated: &[u8], content: &mut [u8], tag: &mut [u8]) {
        let sealed =
            self.key.seal_in_place_separate_tag(self.nonce(at), Aad::from(associated), content);
        tag.copy_from_slice(sealed.expect("a packet is shorter than 64 GiB").as_ref());
    }

    fn open(
        &self,
        at: PacketIndex,
        associated: &[u8],
        content: &mut [u8],
    ) -> Result<(), SrtpError> {
        let opened = self.key.open_in_place(self.nonce(at), Aad::from(associated), content);
        opened.map(|_| ()).map_err(|_| SrtpError::Forged)
    }

    /// The initialisation vector (RFC 7714, sections 8.1 and 9.1).
    fn nonce(&self, at: PacketIndex) -> Nonce {
        let bytes = (*self.salt ^ at.number() << 32).to_be_bytes();
        let nonce: &[u8; NONCE_LEN] = bytes.first_chunk().expect("it has 16 bytes");
        Nonce::assume_unique_for_key(*nonce)
    }
}

impl Drop for GcmKey {
    /// Overwrites the key by that of zeros, since ring does not wipe it.
    fn drop(&mut self) {
        self.key = gcm_key(&[0; KEY_MAX][..self.key.algorithm().key_len()]);
        zeroize::optimization_barrier(&self.key);
    }
}

struct CmKey {
    cipher: CounterCipher,
    salt: Zeroizing<u128>,
    mac: Hmac<Sha1>,
}

impl CmKey {
    /// Encrypts or decrypts (RFC 3711, section 4.1.1).
    fn apply(&self, at: PacketIndex, content: &mut [u8]) {
        self.cipher.apply(*self.salt ^ at.number() << 16, content);
    }

    fn mac(&self, packet: &[u8], rollovers: &[u8]) -> Hmac<Sha1> {
        self.mac.clone().chain_update(packet).chain_update(rollovers)
    }

    fn write_tag(&self, packet: &[u8], rollovers: &[u8], tag: &mut [u8]) {
        let mac = self.mac(packet, rollovers).finalize();
        tag.copy_from_slice(&mac.as_bytes()[..tag.len()]);
    }

    fn verify(&self, packet: &[u8], rollovers: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
        self.mac(packet, rollovers).verify_truncated_left(tag).map_err(|_| SrtpError::Forged)
    }
}

/// AES in counter mode. Packets have at most 65,535 bytes, so the low 16 bits of the counter never overflow into the
/// index.
enum CounterCipher {
    Aes128(Box<Aes128Enc>),
    Aes256(Box<Aes256Enc>),
}

impl CounterCipher {
    /// Takes a key of 16 or 32 bytes.
    fn new(key: &[u8]) -> Self {
        const VALID: &str = "the profile has its key's length";
        match key.len() {
            16 => Self::Aes128(Box::new(Aes128Enc::new_from_slice(key).expect(VALID))),
            _ => Self::Aes256(Box::new(Aes256Enc::new_from_slice(key).expect(VALID))),
        }
    }

    /// Adds the key stream that begins at this counter.
    fn apply(&self, counter: u128, content: &mut [u8]) {
        let counter: aes::Block = counter.to_be_bytes().into();
        match self {
            Self::Aes128(cipher) => CtrCore::<_, Ctr128BE>::inner_iv_init(&**cipher, &counter)
                .apply_keystream_partial(content.into()),
            Self::Aes256(cipher) => CtrCore::<_, Ctr128BE>::inner_iv_init(&**cipher, &counter)
                .apply_keystream_partial(content.into()),
        }
    }
}

#[cfg(test)]
mod tests;
