//! UDP addresses of a session's client: the destination of packets to it, and its accepted sources.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use evenkeel_media::{instant, stun};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::address;
use crate::flows::{self, Home};
use crate::worker::sockets::SourceKey;

/// Time for which a check of its address keeps media flowing to a client (RFC 7675, 5.1).
const CONSENT: Duration = Duration::from_secs(30);

/// Limit of checked addresses that may send: after a NAT rebinding the old address remains valid for a moment.
pub(super) const CHECKED_MAX: usize = 4;

/// Checks that a session remembers: those of ten minutes at one every five seconds (RFC 7675, 5.1), and those of the
/// consent time at four a second. They take 1 KiB.
const CHECKS_MAX: usize = 128;

/// A check by its transaction, in the upper 24 bits, and its source, in the lower 40.
///
/// Both are keyed hashes: a transaction is mistaken for an earlier one once in 100,000 checks, and no sender can compute
/// which sources have the same hash.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct CheckHash(u64);

impl CheckHash {
    const SOURCE_BITS: u32 = 40;

    fn new(
        key: &hmac::Key,
        stun::Transaction(transaction): stun::Transaction,
        source: SourceKey,
    ) -> CheckHash {
        let hash = |bytes: &[u8]| {
            let hash = hmac::sign(key, bytes);
            hash.as_ref().first_chunk().map_or(0, |start| u64::from_be_bytes(*start))
        };
        let SourceKey { listener, address } = source;
        let ip = address::as_v6(address.ip());
        let (port, scope) = (address.port().to_be_bytes(), flows::scope(&address).to_be_bytes());
        let source = [&[listener][..], &ip.octets(), &port, &scope].concat();
        let source = hash(&source) >> (u64::BITS - CheckHash::SOURCE_BITS);
        CheckHash(hash(&transaction) << CheckHash::SOURCE_BITS | source)
    }

    fn has_transaction_of(self, other: CheckHash) -> bool {
        (self.0 ^ other.0) >> CheckHash::SOURCE_BITS == 0
    }
}

/// The last checks of a session, and the key of their hashes.
///
/// The key belongs to the session and is handed out with it. Otherwise the next process would forget the checks, and
/// an attacker that recorded one could repeat it from another address and receive the client's media there.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Checks {
    key: [u8; 16],
    /// Newest last.
    last: VecDeque<CheckHash>,
}

impl Checks {
    /// Remembers a check. `keys` are random; with `home` they give the key of the session's first check.
    pub(super) fn remember(
        &mut self,
        transaction: stun::Transaction,
        source: SourceKey,
        (keys, home): (&RandomState, Home),
    ) -> CheckReceipt {
        if self.last.is_empty() {
            let halves = [0_u8, 1].map(|half| keys.hash_one((home, half)).to_be_bytes());
            self.key.copy_from_slice(halves.as_flattened());
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        self.note(CheckHash::new(&key, transaction, source))
    }

    fn note(&mut self, check: CheckHash) -> CheckReceipt {
        match self.last.iter().find(|earlier| earlier.has_transaction_of(check)) {
            Some(&earlier) if earlier == check => CheckReceipt::Here,
            Some(_) => CheckReceipt::Elsewhere,
            None => {
                if self.last.len() == CHECKS_MAX {
                    self.last.pop_front();
                }
                self.last.push_back(check);
                CheckReceipt::Never
            }
        }
    }
}

/// Omits the key, to keep it out of logs.
impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").field("last", &self.last).finish_non_exhaustive()
    }
}

/// Earlier receptions of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CheckReceipt {
    Never,
    /// From the same address: a retransmission.
    Here,
    /// From another address: a replay.
    Elsewhere,
}

#[derive(Clone, Default, Serialize, Deserialize, Debug)]
#[serde(from = "AddressRecord", into = "AddressRecord")]
pub(super) struct ClientAddress {
    rtp: Option<SourceKey>,
    /// Destination of RTCP if it differs from that of RTP.
    rtcp: Option<SourceKey>,
    /// Nothing is sent to the addresses before a packet came from one of them.
    awaited: bool,
    /// Boxed, because many sessions need none of these fields.
    pub(super) more: Option<Box<CheckedAddresses>>,
}

#[derive(Clone, Default, Debug)]
pub(super) struct CheckedAddresses {
    /// True if a check carried USE-CANDIDATE. From then on only such checks change the destination.
    pub(super) nominated: bool,
    /// Time of the last verified check; after a nomination, of the last one from the destination.
    pub(super) consent: Option<Instant>,
    /// Addresses that passed a check, newest last.
    pub(super) checked: Vec<SourceKey>,
    pub(super) checks: Checks,
}

/// A [`ClientAddress`] for another process.
#[derive(Default, Serialize, Deserialize)]
struct AddressRecord {
    rtp: Option<SourceKey>,
    more: Option<MoreAddressesRecord>,
}

#[derive(Default, Serialize, Deserialize)]
struct MoreAddressesRecord {
    rtcp: Option<SourceKey>,
    /// The addresses for RTP and RTCP if they are awaited. The others are not set then.
    awaited: Option<(SourceKey, SourceKey)>,
    nominated: bool,
    #[serde(with = "instant::option")]
    consent: Option<Instant>,
    checked: Vec<SourceKey>,
    checks: Checks,
}

impl From<AddressRecord> for ClientAddress {
    fn from(AddressRecord { rtp, more }: AddressRecord) -> ClientAddress {
        let Some(more) = more else { return ClientAddress { rtp, ..ClientAddress::default() } };
        let MoreAddressesRecord { rtcp, awaited, nominated, consent, checked, checks } = more;
        if let Some((rtp, rtcp)) = awaited {
            return ClientAddress::awaited(rtp, rtcp);
        }
        let is_used =
            nominated || consent.is_some() || !checked.is_empty() || !checks.last.is_empty();
        let more = CheckedAddresses { nominated, consent, checked, checks };
        ClientAddress { rtp, rtcp, awaited: false, more: is_used.then(|| Box::new(more)) }
    }
}

impl From<ClientAddress> for AddressRecord {
    fn from(ClientAddress { rtp, rtcp, awaited, more }: ClientAddress) -> AddressRecord {
        if let (true, Some(rtp)) = (awaited, rtp) {
            let awaited = Some((rtp, rtcp.unwrap_or(rtp)));
            let more = MoreAddressesRecord { awaited, ..MoreAddressesRecord::default() };
            return AddressRecord { rtp: None, more: Some(more) };
        }
        if rtcp.is_none() && more.is_none() {
            return AddressRecord { rtp, more: None };
        }
        let CheckedAddresses { nominated, consent, checked, checks } =
            more.map_or_else(CheckedAddresses::default, |more| *more);
        let more = MoreAddressesRecord { rtcp, awaited: None, nominated, consent, checked, checks };
        AddressRecord { rtp, more: Some(more) }
    }
}

impl ClientAddress {
    pub(super) fn declared(rtp: SourceKey, rtcp: SourceKey) -> ClientAddress {
        let rtcp = (rtcp != rtp).then_some(rtcp);
        ClientAddress { rtp: Some(rtp), rtcp, ..ClientAddress::default() }
    }

    /// Declared addresses to which nothing is sent before a packet came from one of them.
    pub(super) fn awaited(rtp: SourceKey, rtcp: SourceKey) -> ClientAddress {
        ClientAddress { awaited: true, ..ClientAddress::declared(rtp, rtcp) }
    }

    /// Destination of RTP; `None` while it is unknown or awaited.
    pub(super) fn rtp(&self) -> Option<SourceKey> {
        self.rtp.filter(|_| !self.awaited)
    }

    pub(super) fn set_rtp(&mut self, to: SourceKey) {
        self.rtp = Some(to);
    }

    pub(super) fn rtcp(&self) -> Option<SourceKey> {
        self.rtcp.filter(|_| !self.awaited).or(self.rtp())
    }

    pub(super) fn set_rtcp(&mut self, to: SourceKey) {
        self.rtcp = Some(to);
    }

    /// A packet came from one of the declared addresses.
    pub(super) fn heard(&mut self) {
        self.awaited = false;
    }

    pub(super) fn has_consent(&self, now: Instant) -> bool {
        let consent = self.more.as_ref().and_then(|more| more.consent);
        consent.is_some_and(|at| now.saturating_duration_since(at) < CONSENT)
    }

    pub(super) fn lose(&mut self, from: SourceKey) {
        if let Some(more) = &mut self.more {
            more.checked.retain(|known| *known != from);
        }
        if self.rtp == Some(from) {
            self.rtp = self.checked().last().copied();
        }
    }

    pub(super) fn checked(&self) -> &[SourceKey] {
        self.more.as_ref().map_or(&[], |more| &more.checked)
    }

    /// Renames the addresses for another process; those without a name there are removed.
    pub(super) fn map_sources(&mut self, map: impl Fn(SourceKey) -> Option<SourceKey>) {
        self.rtp = self.rtp.and_then(&map);
        self.rtcp = self.rtcp.and_then(&map);
        self.awaited &= self.rtp.is_some();
        if let Some(more) = &mut self.more {
            more.checked = more.checked.drain(..).filter_map(&map).collect();
        }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited
    }
}

#[cfg(test)]
mod tests;
