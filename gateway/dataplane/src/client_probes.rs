//! Probes of clients' paths: packets that belong to no session, by the user fragment of their probe.
//!
//! A packet that its probe's password does not verify changes nothing. An answer is as long as its question and goes where that came
//! from, so a forged source receives no more than the forger sends.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use evenkeel_media::probe::{self, PACKETS};
use evenkeel_media::stun::{self, StunKey};
use evenkeel_model::DropReason;

use crate::flows::Ufrag;

/// Probes that are kept at the same time. With [`KEPT_FOR`] at most 3,200 of their packets a second are answered on average, which
/// takes a few per cent of a worker.
pub const PROBES_MAX: usize = 256;

/// A probe lasts 3 s; its client may begin late.
const ANSWERED_FOR: Duration = Duration::from_secs(10);

/// Time in which the client tells what it has measured.
pub const KEPT_FOR: Duration = Duration::from_secs(30);

const WORDS: usize = PACKETS.div_ceil(u64::BITS as usize);

/// The probes of all clients, shared by all threads.
#[derive(Default)]
pub struct ClientProbes {
    probes: DashMap<Ufrag, Arc<ClientProbe>>,
}

/// A probe of a client, and the packets that arrived for it. Workers count without a lock.
pub struct ClientProbe {
    key: StunKey,
    opened: Instant,
    /// A bit for each packet.
    received: [AtomicU64; WORDS],
    refused: AtomicU32,
    is_v6: AtomicBool,
}

/// As many probes are kept as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyProbes;

impl ClientProbes {
    /// Opens a probe.
    ///
    /// # Errors
    /// There are [`PROBES_MAX`].
    pub fn open(&self, ufrag: Ufrag, password: &str, now: Instant) -> Result<(), TooManyProbes> {
        self.probes.retain(|_, probe| probe.is_kept(now));
        if self.probes.len() >= PROBES_MAX {
            return Err(TooManyProbes);
        }
        self.probes.insert(ufrag, Arc::new(ClientProbe::new(password, now)));
        Ok(())
    }

    /// Returns the probe with this user fragment, unless it is older than [`KEPT_FOR`].
    pub fn find(&self, ufrag: &str, now: Instant) -> Option<Arc<ClientProbe>> {
        let probe = self.probes.get(&Ufrag::new(ufrag.as_bytes())?)?;
        probe.is_kept(now).then(|| Arc::clone(&probe))
    }
}

impl ClientProbe {
    fn new(password: &str, now: Instant) -> ClientProbe {
        ClientProbe {
            key: StunKey::new(password),
            opened: now,
            received: Default::default(),
            refused: AtomicU32::new(0),
            is_v6: AtomicBool::new(false),
        }
    }

    fn is_kept(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.opened) < KEPT_FOR
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
        if now.saturating_duration_since(self.opened) >= ANSWERED_FOR {
            return Err(DropReason::BadIntegrity);
        }
        let request = stun::BindingRequest::parse(datagram).map_err(|_| DropReason::Malformed)?;
        request.message.verify(&self.key).map_err(|_| DropReason::BadIntegrity)?;
        let transaction = request.message.transaction();
        self.note(probe::number(transaction), datagram.len()).inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        self.is_v6.store(source.is_ipv6(), Ordering::Relaxed);
        answer.clear();
        stun::write_padded_success(transaction, source, &self.key, datagram.len(), answer);
        Ok(())
    }

    /// Notes a packet once, if it has the size that its number has.
    fn note(&self, number: u16, length: usize) -> Result<(), DropReason> {
        if probe::bytes_of(number).is_none_or(|bytes| usize::from(bytes) != length) {
            return Err(DropReason::Oversize);
        }
        let (word, bit) = place(number);
        let before = self.received[word].fetch_or(bit, Ordering::Relaxed);
        if before & bit == 0 { Ok(()) } else { Err(DropReason::Replayed) }
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
