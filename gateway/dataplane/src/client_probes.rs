//! Probes of clients' paths: packets that belong to no session, by the user fragment of their probe.
//!
//! A packet that its probe's password does not verify changes nothing. An answer is as long as its question and goes where that came
//! from, so a forged source receives no more than the forger sends. By WebTransport the password is a token for one session.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use evenkeel_media::probe::{self, PACKETS_MAX, ProbeTransport};
use evenkeel_media::stun::{self, StunKey};
use evenkeel_model::DropReason;
use ring::digest::{Digest, SHA256, digest};

use crate::flows::Ufrag;

/// Probes that are kept at the same time. With [`KEPT_FOR`] at most 3,200 of their packets a second are answered on average, which
/// takes a few per cent of a worker.
pub const PROBES_MAX: usize = 256;

/// A probe lasts 3 s; its client may begin late.
const ANSWERED_FOR: Duration = Duration::from_secs(10);

/// Time in which the client tells what it has measured.
pub const KEPT_FOR: Duration = Duration::from_secs(30);

const WORDS: usize = PACKETS_MAX.div_ceil(u64::BITS as usize);

/// The probes of all clients, shared by all threads.
#[derive(Default)]
pub struct ClientProbes {
    probes: DashMap<Ufrag, Arc<ClientProbe>>,
}

/// A probe of a client, and the packets that arrived for it. Workers count without a lock.
pub struct ClientProbe {
    proof: ProbeProof,
    opened: Instant,
    /// A bit for each packet.
    received: [AtomicU64; WORDS],
    refused: AtomicU32,
    is_v6: AtomicBool,
}

/// How packets show that they belong to a probe.
enum ProbeProof {
    /// By MESSAGE-INTEGRITY.
    Stun(StunKey),
    /// They come in the session of WebTransport that was opened with the password.
    Token { digest: Digest, is_used: AtomicBool },
}

/// As many probes are kept as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyProbes;

impl ClientProbes {
    /// Opens a probe.
    ///
    /// # Errors
    /// There are [`PROBES_MAX`].
    pub fn open(
        &self,
        ufrag: Ufrag,
        password: &str,
        transport: ProbeTransport,
        now: Instant,
    ) -> Result<(), TooManyProbes> {
        self.probes.retain(|_, probe| probe.is_kept(now));
        if self.probes.len() >= PROBES_MAX {
            return Err(TooManyProbes);
        }
        self.probes.insert(ufrag, Arc::new(ClientProbe::new(password, transport, now)));
        Ok(())
    }

    /// Returns the probe with this user fragment, unless it is older than [`KEPT_FOR`].
    pub fn find(&self, ufrag: &str, now: Instant) -> Option<Arc<ClientProbe>> {
        let probe = self.probes.get(&Ufrag::new(ufrag.as_bytes())?)?;
        probe.is_kept(now).then(|| Arc::clone(&probe))
    }
}

impl ClientProbe {
    fn new(password: &str, transport: ProbeTransport, now: Instant) -> ClientProbe {
        let proof = match transport {
            ProbeTransport::Udp => ProbeProof::Stun(StunKey::new(password)),
            ProbeTransport::WebTransport => {
                let digest = digest(&SHA256, password.as_bytes());
                ProbeProof::Token { digest, is_used: AtomicBool::new(false) }
            }
        };
        ClientProbe {
            proof,
            opened: now,
            received: Default::default(),
            refused: AtomicU32::new(0),
            is_v6: AtomicBool::new(false),
        }
    }

    fn is_kept(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) < KEPT_FOR
    }

    fn is_answered(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) < ANSWERED_FOR
    }

    /// The transport of its packets.
    pub fn transport(&self) -> ProbeTransport {
        match self.proof {
            ProbeProof::Stun(_) => ProbeTransport::Udp,
            ProbeProof::Token { .. } => ProbeTransport::WebTransport,
        }
    }

    /// Returns whether this token opens a session of WebTransport for the probe. It opens one.
    pub(crate) fn admits_session(&self, token: &str, now: Instant) -> bool {
        let ProbeProof::Token { digest: right, is_used } = &self.proof else { return false };
        // The time to compare digests reveals nothing about the token.
        let is_right = digest(&SHA256, token.as_bytes()).as_ref() == right.as_ref();
        is_right && self.is_answered(now) && !is_used.swap(true, Ordering::Relaxed)
    }

    /// Returns whether a DATAGRAM of the probe's session, from this address, is answered by its own bytes.
    pub(crate) fn echoes(&self, source: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let Some(number) = datagram.first_chunk() else { return false };
        self.is_answered(now)
            && self.note(u16::from_be_bytes(*number), datagram.len(), source).is_ok()
    }

    /// Replaces `answer` by that to a packet from this address.
    ///
    /// # Errors
    /// The packet is not answered.
    pub(crate) fn answer(
        &self,
        source: SocketAddr,
        datagram: &[u8],
        now: Instant,
        answer: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let ProbeProof::Stun(key) = &self.proof else { return Err(DropReason::BadIntegrity) };
        if !self.is_answered(now) {
            return Err(DropReason::BadIntegrity);
        }
        let request = stun::BindingRequest::parse(datagram).map_err(|_| DropReason::Malformed)?;
        request.message.verify(key).map_err(|_| DropReason::BadIntegrity)?;
        let transaction = request.message.transaction();
        self.note(probe::number(transaction), datagram.len(), source)?;
        answer.clear();
        stun::write_padded_success(transaction, source, key, datagram.len(), answer);
        Ok(())
    }

    /// Notes a packet once, if it has the size that its number has.
    fn note(&self, number: u16, length: usize, source: SocketAddr) -> Result<(), DropReason> {
        let refused = |reason| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            Err(reason)
        };
        let bytes = self.transport().bytes_of(number);
        if bytes.is_none_or(|bytes| usize::from(bytes) != length) {
            return refused(DropReason::Oversize);
        }
        let (word, bit) = place(number);
        if self.received[word].fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return refused(DropReason::Replayed);
        }
        self.is_v6.store(source.ip().to_canonical().is_ipv6(), Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether this packet has arrived.
    pub fn has_received(&self, number: u16) -> bool {
        let (word, bit) = place(number);
        self.received.get(word).is_some_and(|bits| bits.load(Ordering::Relaxed) & bit != 0)
    }

    /// Verified packets that were not answered, because they were repeated or had another size.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// True if the packets arrive by IPv6.
    pub fn is_v6(&self) -> bool {
        self.is_v6.load(Ordering::Relaxed)
    }
}

/// Omits the passwords.
impl fmt::Debug for ClientProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientProbes").field("open", &self.probes.len()).finish_non_exhaustive()
    }
}

fn place(number: u16) -> (usize, u64) {
    (usize::from(number / 64), 1 << (number % 64))
}

#[cfg(test)]
mod tests;
