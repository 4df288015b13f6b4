//! Encryption of trunk datagrams by AES-128-GCM. `docs/trunk.md` specifies it.
//!
//! Each gateway socket, and each node, draws its salt when it starts, and a node takes the next salt for
//! each socket that it learns, so no pair of key and nonce is used twice. A key encrypts 2^24 datagrams,
//! far below the limit of AES-GCM (2^28 for datagrams of this size, RFC 9001, appendix B.1.1).
//!
//! A receiver learns a sender from a datagram that contains a signed message with a valid time, and
//! refuses the sender's earlier datagrams. After a restart of the receiver, datagrams older than the
//! accepted age of a message (5 s) cannot be replayed.

use super::message::{NodeSecret, TrunkAnswer};
use crate::demux;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::hkdf::Prk;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// Bytes that encryption adds to a datagram.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// Counters behind the highest one that may still arrive, once each.
pub(crate) const WINDOW: u64 = 1_024;

const HEADER_LEN: usize = 17;
const TAG_LEN: usize = 16;

/// Datagrams per key, as a power of two.
const KEY_BITS: u32 = 24;

/// Nodes that a gateway's socket hears: the current process and, during a restart, the one before.
const NODES_MAX: usize = 2;

/// Gateway sockets that a node knows: one per worker of each gateway, and one for canary sessions.
/// Above it the socket that was learned first is forgotten, until its next signed message.
const GATEWAYS_MAX: usize = 1_024;

/// Reason why a datagram was not decrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    /// It is not encrypted, with another key, or changed; or its sender is not known yet.
    #[error("not encrypted with the node's key")]
    Forged,
    /// It was accepted before, or is too old to tell.
    #[error("replayed")]
    Replayed,
}

/// The gateway's end of an encrypted trunk: one per socket.
#[derive(Debug)]
pub struct GatewaySeal {
    secret: NodeSecret,
    sealer: Sealer,
    nodes: Vec<Opener>,
}

impl GatewaySeal {
    /// The salt is random.
    pub fn new(secret: NodeSecret, salt: u64) -> Self {
        let sealer = Sealer::new(KeyOrigin::gateway(&secret, salt));
        Self { secret, sealer, nodes: Vec::new() }
    }

    /// Returns the position from which another process continues on the same socket. This end goes on
    /// with its next key, so that no pair of key and nonce is used twice, whichever process sends.
    pub fn hand_out(&mut self) -> Position {
        let GatewaySeal { sealer, nodes, .. } = self;
        let heard = |node: &Opener| {
            node.window.clone().map(|window| NodeReplay { salt: node.origin.salt, window })
        };
        let nodes = nodes.iter().filter_map(heard).collect();
        let position = Position { salt: sealer.origin.salt, next: sealer.next, nodes };
        sealer.next = ((sealer.next >> KEY_BITS) + 1) << KEY_BITS;
        position
    }

    /// Continues from the position of another process, which had the same secret.
    pub fn go_on(&mut self, position: Position) {
        let Position { salt, next, nodes } = position;
        let origin = KeyOrigin::gateway(&self.secret, salt);
        self.sealer = Sealer { key: origin.key(next), origin, next, sealed: Vec::new() };
        let opener = |NodeReplay { salt: node, window }| {
            let origin = KeyOrigin::node(&self.secret, node, salt);
            Opener { key: Some(origin.key(window.highest)), origin, window: Some(window) }
        };
        self.nodes = nodes.into_iter().take(NODES_MAX).map(opener).collect();
    }

    /// Encrypts a datagram. The result is valid until the next call.
    pub fn seal(&mut self, datagram: &[u8]) -> &[u8] {
        self.sealer.seal(datagram)
    }

    /// Returns whether this end encrypted the datagram that begins with these bytes, as in an ICMP
    /// error.
    pub fn has_sent(&self, start: &[u8]) -> bool {
        let counter = start.get(9..HEADER_LEN).and_then(|counter| counter.first_chunk());
        let sent = |counter: &[u8; 8]| u64::from_be_bytes(*counter) < self.sealer.next;
        salt(start) == Some(self.sealer.origin.salt) && counter.is_some_and(sent)
    }

    /// Decrypts a datagram in place. The clock, in microseconds since the Unix epoch, is read only
    /// if the node is new.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        now_us: impl FnOnce() -> u64,
    ) -> Result<&'a mut [u8], SealError> {
        let salt = salt(datagram).ok_or(SealError::Forged)?;
        if let Some(node) = self.nodes.iter_mut().find(|node| node.origin.salt == salt) {
            return node.open(datagram);
        }
        let mut node = Opener::new(KeyOrigin::node(&self.secret, salt, self.sealer.origin.salt));
        let content = node.open(datagram)?;
        if TrunkAnswer::read(content, &self.secret, now_us()).is_err() {
            return Err(SealError::Forged);
        }
        self.nodes.insert(0, node);
        self.nodes.truncate(NODES_MAX);
        Ok(content)
    }
}

/// The position of a gateway's end among the datagrams of its socket. It contains no key.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Position {
    salt: u64,
    next: u64,
    nodes: Vec<NodeReplay>,
}

/// The datagrams accepted from a node.
#[derive(Clone, Serialize, Deserialize, Debug)]
struct NodeReplay {
    salt: u64,
    window: ReplayWindow,
}

/// A node's end of its encrypted trunks.
#[derive(Debug)]
pub struct NodeSeal {
    secret: NodeSecret,
    /// The salt for the last socket. A socket that is forgotten and learned again gets another one,
    /// since its counter starts anew.
    salt: u64,
    /// In the order in which they were learned.
    gateways: Vec<SealPeer>,
}

/// A gateway's socket.
#[derive(Debug)]
struct SealPeer {
    address: SocketAddr,
    opener: Opener,
    sealer: Sealer,
}

/// The sender of a decrypted datagram. Pass it to [`NodeSeal::learn`] if the datagram is a signed
/// message that was accepted.
#[derive(Debug)]
pub struct SealSender {
    salt: u64,
    address: SocketAddr,
    newcomer: Option<Box<SealPeer>>,
}

impl SealSender {
    /// Returns true unless the sender was learned: only a signed message may be accepted from it.
    pub fn is_new(&self) -> bool {
        self.newcomer.is_some()
    }
}

impl NodeSeal {
    /// The salt is random.
    pub fn new(secret: NodeSecret, salt: u64) -> Self {
        Self { secret, salt, gateways: Vec::new() }
    }

    /// Decrypts a datagram from this address in place.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        source: SocketAddr,
    ) -> Result<(&'a mut [u8], SealSender), SealError> {
        let salt = salt(datagram).ok_or(SealError::Forged)?;
        if let Some(known) = self.gateways.iter_mut().find(|peer| peer.opener.origin.salt == salt) {
            let content = known.opener.open(datagram)?;
            return Ok((content, SealSender { salt, address: source, newcomer: None }));
        }
        let mut opener = Opener::new(KeyOrigin::gateway(&self.secret, salt));
        let content = opener.open(datagram)?;
        self.salt = self.salt.wrapping_add(1);
        let sealer = Sealer::new(KeyOrigin::node(&self.secret, self.salt, salt));
        let newcomer = Some(Box::new(SealPeer { address: source, opener, sealer }));
        Ok((content, SealSender { salt, address: source, newcomer }))
    }

    /// Adds a gateway's socket, or changes the address of a known one.
    pub fn learn(&mut self, sender: SealSender) {
        let SealSender { salt, address, newcomer } = sender;
        // A socket that was closed may have left its port to this one.
        self.gateways.retain(|peer| peer.address != address || peer.opener.origin.salt == salt);
        match newcomer {
            Some(newcomer) => {
                if self.gateways.len() == GATEWAYS_MAX {
                    self.gateways.remove(0);
                }
                self.gateways.push(*newcomer);
            }
            None => {
                let mut known = self.gateways.iter_mut();
                if let Some(known) = known.find(|peer| peer.opener.origin.salt == salt) {
                    known.address = address;
                }
            }
        }
    }

    /// Removes sockets without sessions.
    pub fn keep(&mut self, known: impl Fn(SocketAddr) -> bool) {
        self.gateways.retain(|peer| known(peer.address));
    }

    /// Encrypts a datagram to the socket at this address, if the socket is known. The result is
    /// valid until the next call.
    pub fn seal(&mut self, to: SocketAddr, datagram: &[u8]) -> Option<&[u8]> {
        let peer = self.gateways.iter_mut().find(|peer| peer.address == to)?;
        Some(peer.sealer.seal(datagram))
    }
}

/// Returns the content of a datagram that was decrypted in place.
///
/// # Panics
/// If the datagram is shorter than [`OVERHEAD`].
pub fn content(datagram: &mut [u8]) -> &mut [u8] {
    let end = datagram.len() - TAG_LEN;
    &mut datagram[HEADER_LEN..end]
}

fn salt(datagram: &[u8]) -> Option<u64> {
    match datagram.split_first_chunk::<HEADER_LEN>()? {
        ([demux::SEALED, salt @ ..], _) => salt.first_chunk().copied().map(u64::from_be_bytes),
        _ => None,
    }
}

/// The values from which one sender's keys are derived.
#[derive(Clone, Debug)]
struct KeyOrigin {
    keys: Arc<Prk>,
    salt: u64,
    /// The salt of the gateway's socket to which a node sends.
    gateway: Option<u64>,
}

impl KeyOrigin {
    fn gateway(secret: &NodeSecret, salt: u64) -> Self {
        Self { keys: Arc::clone(&secret.keys), salt, gateway: None }
    }

    fn node(secret: &NodeSecret, salt: u64, gateway: u64) -> Self {
        Self { keys: Arc::clone(&secret.keys), salt, gateway: Some(gateway) }
    }

    /// The key of the datagrams with this counter.
    fn key(&self, counter: u64) -> LessSafeKey {
        let direction = u8::from(self.gateway.is_some());
        let gateway = self.gateway.unwrap_or_default();
        let numbers = [self.salt, gateway, counter >> KEY_BITS].map(u64::to_be_bytes);
        let info: [&[u8]; 3] = [b"datagram", &[direction], numbers.as_flattened()];
        let key = self.keys.expand(&info, &AES_128_GCM);
        key.map(|key| LessSafeKey::new(key.into())).expect("a key is shorter than a hash")
    }
}

#[derive(Debug)]
struct Sealer {
    origin: KeyOrigin,
    key: LessSafeKey,
    next: u64,
    sealed: Vec<u8>,
}

impl Sealer {
    fn new(origin: KeyOrigin) -> Self {
        Self { key: origin.key(0), origin, next: 0, sealed: Vec::new() }
    }

    fn seal(&mut self, datagram: &[u8]) -> &[u8] {
        let (counter, sealed) = (self.next, &mut self.sealed);
        if counter.trailing_zeros() >= KEY_BITS && counter > 0 {
            self.key = self.origin.key(counter);
        }
        self.next += 1;
        sealed.clear();
        sealed.push(demux::SEALED);
        sealed.extend_from_slice(&self.origin.salt.to_be_bytes());
        sealed.extend_from_slice(&counter.to_be_bytes());
        sealed.extend_from_slice(datagram);
        let (header, content) = sealed.split_at_mut(HEADER_LEN);
        let tag = self.key.seal_in_place_separate_tag(nonce(counter), Aad::from(&*header), content);
        let tag = tag.expect("a datagram is shorter than 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }
}

/// Decrypts the datagrams of one sender.
#[derive(Debug)]
struct Opener {
    origin: KeyOrigin,
    /// The key of the highest counter.
    key: Option<LessSafeKey>,
    window: Option<ReplayWindow>,
}

impl Opener {
    fn new(origin: KeyOrigin) -> Self {
        Self { origin, key: None, window: None }
    }

    fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a mut [u8], SealError> {
        let Some((header, content)) = datagram.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(SealError::Forged);
        };
        let counter = header.last_chunk().map_or(0, |last| u64::from_be_bytes(*last));
        if self.window.as_ref().is_some_and(|window| !window.is_new(counter)) {
            return Err(SealError::Replayed);
        }
        let highest = self.window.as_ref().map(|window| window.highest);
        let is_current = highest.is_some_and(|at| at >> KEY_BITS == counter >> KEY_BITS);
        let derived = (!is_current).then(|| self.origin.key(counter));
        let Some(key) = derived.as_ref().or(self.key.as_ref()) else {
            return Err(SealError::Forged);
        };
        let content = key
            .open_in_place(nonce(counter), Aad::from(&*header), content)
            .map_err(|_| SealError::Forged)?;
        if highest.is_none_or(|highest| highest < counter) {
            self.key = derived.or(self.key.take());
        }
        self.window.get_or_insert_with(|| ReplayWindow::from(counter)).note(counter);
        Ok(content)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - size_of::<u64>()..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// The words of the window, and one that is filled while the window moves on.
const WORDS: usize = WINDOW as usize / 64 + 1;

/// The accepted counters (RFC 6479).
#[derive(Clone, Serialize, Deserialize, Debug)]
struct ReplayWindow {
    highest: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Counts all counters below `first` as seen.
    fn from(first: u64) -> Self {
        let mut window = Self { highest: first, seen: [u64::MAX; WORDS] };
        *window.word(first) = (1 << (first % 64)) - 1;
        window
    }

    fn word(&mut self, counter: u64) -> &mut u64 {
        &mut self.seen[(counter / 64) as usize % WORDS]
    }

    fn is_new(&self, counter: u64) -> bool {
        if counter > self.highest {
            return true;
        }
        let word = self.seen[(counter / 64) as usize % WORDS];
        self.highest - counter < WINDOW && word & (1 << (counter % 64)) == 0
    }

    fn note(&mut self, counter: u64) {
        let passed = (counter / 64).saturating_sub(self.highest / 64).min(WORDS as u64);
        for word in 0..passed {
            *self.word(counter - word * 64) = 0;
        }
        self.highest = self.highest.max(counter);
        *self.word(counter) |= 1 << (counter % 64);
    }
}

#[cfg(test)]
mod tests;
