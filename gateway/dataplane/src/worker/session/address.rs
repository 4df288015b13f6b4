//! UDP addresses of a session's client: the destination of packets to it, and its accepted sources.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_media::stun;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::reachability::{ShiftedReport, UnprovedAddress};
use crate::address;
use crate::flows::{self, Home};
use crate::worker::sockets::{ClientPath, SourceKey};

/// Time for which a check of its address, or a verified packet of SRTP from there, keeps media flowing to a client (RFC 7675, 5.1).
pub(super) const CONSENT: Duration = Duration::from_secs(30);

/// Interval at which packets of SRTP renew the consent: the flow table, which threads share, is not to be written for each packet.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// Limit of checked addresses that may send: after a NAT rebinding the old address remains valid for a moment.
const CHECKED_MAX: usize = 4;

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
        let source = hash(&bytes_of(source)) >> (u64::BITS - CheckHash::SOURCE_BITS);
        CheckHash(hash(&transaction) << CheckHash::SOURCE_BITS | source)
    }

    fn has_transaction_of(self, other: CheckHash) -> bool {
        (self.0 ^ other.0) >> CheckHash::SOURCE_BITS == 0
    }
}

fn bytes_of(SourceKey { listener, address }: SourceKey) -> Vec<u8> {
    let ip = address::as_v6(address.ip());
    let (port, scope) = (address.port().to_be_bytes(), flows::scope(&address).to_be_bytes());
    [&[listener][..], &ip.octets(), &port, &scope].concat()
}

/// Numbers that only a receiver at an address of the session can know, since they are sent nowhere else.
pub(super) struct AddressSecret {
    /// The transaction of the gateway's check.
    pub(super) transaction: stun::Transaction,
    /// The shift of sender reports in units of 2^-16 s: nine hours or more, since receivers discard a jump of hours and
    /// synchronise anew, and would follow one of seconds.
    pub(super) shift: u32,
}

/// The last checks of a session, and the key of their hashes.
///
/// The key belongs to the session and is handed out with it. Otherwise the next process would forget the checks, and
/// an attacker that recorded one could repeat it from another address and receive the client's media there.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Checks {
    key: [u8; 16],
    /// Newest last.
    last: VecDeque<CheckHash>,
}

impl Checks {
    /// Remembers a check. `keys` are random; with `home` they give the key of the session's first check.
    fn remember(
        &mut self,
        transaction: stun::Transaction,
        source: SourceKey,
        keys: &RandomState,
        home: Home,
    ) -> CheckReceipt {
        if self.last.is_empty() {
            let halves = [0_u8, 1].map(|half| keys.hash_one((home, half)).to_be_bytes());
            self.key.copy_from_slice(halves.as_flattened());
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        self.note(CheckHash::new(&key, transaction, source))
    }

    fn secret(&self, source: SourceKey) -> AddressSecret {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.key);
        // The length differs from those of the inputs of `CheckHash`.
        let secret = hmac::sign(&key, &[b"receives at", &*bytes_of(source)].concat());
        let secret = secret.as_ref().first_chunk::<16>().expect("SHA-256 has 32 bytes");
        let [transaction @ .., s0, s1, s2, s3] = *secret;
        let shift = u32::from_be_bytes([s0, s1, s2, s3]) | 1 << 31;
        AddressSecret { transaction: stun::Transaction(transaction), shift }
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

/// The changes by a verified check.
pub(super) struct CheckedAddress {
    /// Media goes to the address of the check from now on, and went elsewhere before.
    pub(super) is_new_destination: bool,
    /// The address that lost its permission to send, if the list was full.
    pub(super) evicted: Option<SourceKey>,
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
    destination: Destination,
    /// Boxed, because many sessions need none of these fields.
    more: Option<Box<MoreAddresses>>,
}

/// The destination of RTP to the client. Each session has one, so it is packed into 24 bytes.
#[derive(Clone, Copy, Default)]
enum Destination {
    #[default]
    Unknown,
    /// The flow towards a QUIC client.
    Quic(u64),
    V4 {
        ip: Ipv4Addr,
        /// The local address that the client sends to; unspecified if it is unknown.
        local: Ipv4Addr,
        port: u16,
        listener: u8,
        awaited: bool,
    },
    /// The local address is in [`MoreAddresses`].
    V6 {
        ip: Ipv6Addr,
        scope: u32,
        port: u16,
        listener: u8,
        /// Nothing is sent to the declared addresses before a packet came from one of them.
        awaited: bool,
    },
}

/// Omits the flow of a QUIC client, to keep it out of logs.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Destination").field(&self.source()).finish()
    }
}

impl Destination {
    /// Runs when the destination changes; `#[cold]` keeps it out of the packet path.
    #[cold]
    fn udp(to: SourceKey, awaited: bool, local: Ipv4Addr) -> Destination {
        let SourceKey { listener, address } = to;
        let (port, scope) = (address.port(), flows::scope(&address));
        match address.ip() {
            IpAddr::V4(ip) => Destination::V4 { ip, local, port, listener, awaited },
            IpAddr::V6(ip) => Destination::V6 { ip, scope, port, listener, awaited },
        }
    }

    #[inline]
    fn source(self) -> Option<SourceKey> {
        let (listener, address) = match self {
            Destination::Unknown | Destination::Quic(_) => return None,
            Destination::V4 { ip, port, listener, .. } => (listener, (ip, port).into()),
            Destination::V6 { ip, scope, port, listener, .. } => {
                (listener, SocketAddrV6::new(ip, port, 0, scope).into())
            }
        };
        Some(SourceKey { listener, address })
    }

    /// The local address that an IPv4 client sends to; unspecified if it is unknown.
    fn local_v4(self) -> Ipv4Addr {
        match self {
            Destination::V4 { local, .. } => local,
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }

    fn is_awaited(self) -> bool {
        matches!(
            self,
            Destination::V4 { awaited: true, .. } | Destination::V6 { awaited: true, .. }
        )
    }
}

#[derive(Clone, Default, Debug)]
struct MoreAddresses {
    /// Destination of RTCP if it differs from that of RTP.
    rtcp: Option<SourceKey>,
    /// The local address that an IPv6 client sends to.
    local: Option<Ipv6Addr>,
    /// True if a check carried USE-CANDIDATE. From then on only such checks change the destination.
    nominated: bool,
    /// Time of the last verified check, or packet of SRTP; after a nomination, of the last one from the destination.
    consent: Option<Instant>,
    /// Addresses that passed a check, newest last.
    checked: Vec<SourceKey>,
    /// The addresses in `checked` at which the client has not proved to receive.
    unproved: Vec<UnprovedAddress>,
    /// Sender reports to an address that was proved since, for the reports that answer them.
    shifted: Vec<ShiftedReport>,
    checks: Checks,
}

/// A [`ClientAddress`] for another process.
#[derive(Default, Serialize, Deserialize)]
struct AddressRecord {
    rtp: Option<SourceKey>,
    more: Option<MoreAddressesRecord>,
    /// The local address that the client sends to.
    #[serde(default)]
    local: Option<IpAddr>,
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
    #[serde(default)]
    unproved: Vec<UnprovedAddress>,
    #[serde(default)]
    shifted: Vec<ShiftedReport>,
}

impl From<AddressRecord> for ClientAddress {
    fn from(AddressRecord { rtp, more, local }: AddressRecord) -> ClientAddress {
        let mut address = ClientAddress::default();
        rtp.into_iter().for_each(|rtp| address.set_rtp(rtp));
        local.into_iter().for_each(|local| address.set_local(local));
        let Some(more) = more else { return address };
        let MoreAddressesRecord { rtcp, awaited, nominated, consent, checked, .. } = more;
        let MoreAddressesRecord { unproved, shifted, checks, .. } = more;
        if let Some((rtp, rtcp)) = awaited {
            return ClientAddress::awaited(rtp, rtcp);
        }
        let is_checked =
            nominated || consent.is_some() || !checked.is_empty() || !checks.last.is_empty();
        let local = address.more.take().and_then(|more| more.local);
        let is_needed = is_checked || rtcp.is_some() || local.is_some();
        let more =
            MoreAddresses { rtcp, local, nominated, consent, checked, unproved, shifted, checks };
        ClientAddress { more: is_needed.then(|| Box::new(more)), ..address }
    }
}

impl From<ClientAddress> for AddressRecord {
    fn from(address: ClientAddress) -> AddressRecord {
        let local = address.local();
        let ClientAddress { destination, more } = address;
        let rtp = destination.source();
        if let (true, Some(rtp)) = (destination.is_awaited(), rtp) {
            let rtcp = more.and_then(|more| more.rtcp).unwrap_or(rtp);
            let more = MoreAddressesRecord { awaited: Some((rtp, rtcp)), ..Default::default() };
            return AddressRecord { rtp: None, more: Some(more), local };
        }
        let more = more.map(|more| {
            let MoreAddresses { rtcp, nominated, consent, checked, checks, .. } = *more;
            let MoreAddresses { unproved, shifted, .. } = *more;
            let awaited = None;
            MoreAddressesRecord {
                rtcp,
                awaited,
                nominated,
                consent,
                checked,
                checks,
                unproved,
                shifted,
            }
        });
        AddressRecord { rtp, more, local }
    }
}

impl ClientAddress {
    /// The client is reached over the QUIC connection with this flow.
    pub(super) fn quic(flow: u64) -> ClientAddress {
        ClientAddress { destination: Destination::Quic(flow), more: None }
    }

    pub(super) fn declared(rtp: SourceKey, rtcp: SourceKey) -> ClientAddress {
        let mut address = ClientAddress::default();
        address.set_rtp(rtp);
        if rtcp != rtp {
            address.set_rtcp(rtcp);
        }
        address
    }

    /// Declared addresses to which nothing is sent before a packet came from one of them.
    pub(super) fn awaited(rtp: SourceKey, rtcp: SourceKey) -> ClientAddress {
        let destination = Destination::udp(rtp, true, Ipv4Addr::UNSPECIFIED);
        ClientAddress { destination, ..ClientAddress::declared(rtp, rtcp) }
    }

    /// The flow towards a QUIC client; `None` for other clients.
    pub(super) fn flow(&self) -> Option<u64> {
        match self.destination {
            Destination::Quic(flow) => Some(flow),
            _ => None,
        }
    }

    /// Destination of RTP; `None` while it is unknown or awaited.
    pub(super) fn rtp(&self) -> Option<SourceKey> {
        self.destination.source().filter(|_| !self.is_awaited())
    }

    pub(super) fn set_rtp(&mut self, to: SourceKey) {
        self.destination = Destination::udp(to, self.is_awaited(), self.destination.local_v4());
    }

    /// The local address that the client sends to, of the family of the destination.
    #[inline]
    pub(super) fn local(&self) -> Option<IpAddr> {
        match self.destination {
            Destination::V4 { local, .. } => (!local.is_unspecified()).then_some(local.into()),
            Destination::V6 { .. } => self.more.as_ref()?.local.map(IpAddr::V6),
            Destination::Unknown | Destination::Quic(_) => None,
        }
    }

    fn set_local(&mut self, to: IpAddr) {
        match (&mut self.destination, to) {
            (Destination::V4 { local, .. }, IpAddr::V4(to)) => *local = to,
            (Destination::V6 { .. }, IpAddr::V6(to)) => {
                self.more.get_or_insert_default().local = Some(to);
            }
            _ => {}
        }
    }

    /// Answers the client from the local address that it sends to. A packet from another address of the client changes nothing: a
    /// client with ICE may send checks to each address of the gateway.
    #[inline]
    pub(super) fn follow(&mut self, path: ClientPath) {
        if let Some(local) = path.local
            && self.local() != path.local
        {
            self.follow_to(path.source, local);
        }
    }

    /// Runs when the local address changes; `#[cold]` keeps it out of the packet path.
    #[cold]
    fn follow_to(&mut self, from: SourceKey, local: IpAddr) {
        if [self.destination.source(), self.rtcp()].contains(&Some(from)) {
            self.set_local(local);
        }
    }

    pub(super) fn rtcp(&self) -> Option<SourceKey> {
        let rtcp = self.more.as_ref().and_then(|more| more.rtcp);
        rtcp.filter(|_| !self.is_awaited()).or_else(|| self.rtp())
    }

    fn set_rtcp(&mut self, to: SourceKey) {
        self.more.get_or_insert_default().rtcp = Some(to);
    }

    /// A packet came from one of the declared addresses.
    pub(super) fn heard(&mut self) {
        if let Destination::V4 { awaited, .. } | Destination::V6 { awaited, .. } =
            &mut self.destination
        {
            *awaited = false;
        }
    }

    pub(super) fn has_consent(&self, now: Instant) -> bool {
        let consent = self.more.as_ref().and_then(|more| more.consent);
        consent.is_some_and(|at| now.saturating_duration_since(at) < CONSENT)
    }

    /// A packet of SRTP from this address was verified. From the destination it proves the same as a check: not every client
    /// repeats checks, webrtcbin of GStreamer 1.22 for one. A client can forge its source, so the address must be proved.
    /// Returns whether the consent was renewed, at most once a second.
    #[inline]
    pub(super) fn renew_consent(&mut self, from: SourceKey, now: Instant) -> bool {
        let is_destination = self.destination.source() == Some(from);
        let Some(more) = self.more.as_deref_mut().filter(|_| is_destination) else { return false };
        let is_due = |at: Instant| now.saturating_duration_since(at) >= RENEWED_EVERY;
        let is_unproved = more.unproved.iter().any(|address| address.source == from);
        let renews = more.consent.is_some_and(is_due) && !is_unproved;
        if renews {
            more.consent = Some(now);
        }
        renews
    }

    /// Remembers a verified check and returns whether it was received before. `keys` are random keys of this process.
    pub(super) fn remember_check(
        &mut self,
        transaction: stun::Transaction,
        source: SourceKey,
        keys: &RandomState,
        home: Home,
    ) -> CheckReceipt {
        let checks = &mut self.more.get_or_insert_default().checks;
        checks.remember(transaction, source, keys, home)
    }

    /// Handles a verified check from this address. Media is sent to the last nominated address or, before any
    /// nomination, to the last checked address that sent media. When the destination's consent has expired, media goes
    /// to the next address that passes a check: the client's address may have changed unnoticed, or a check that was
    /// held back may have nominated another.
    pub(super) fn check(
        &mut self,
        path: ClientPath,
        nominated: bool,
        now: Instant,
    ) -> CheckedAddress {
        let from = path.source;
        let before = self.rtp();
        if nominated || before.is_none() || !self.has_consent(now) {
            self.set_rtp(from);
            self.follow(path);
        }
        let is_destination = self.rtp() == Some(from);
        if is_destination && self.local().is_none() {
            // A process that did not know the local address continued the session.
            self.follow(path);
        }
        let more = self.more.get_or_insert_default();
        more.nominated |= nominated;
        if is_destination || !more.nominated {
            more.consent = Some(now);
        }
        CheckedAddress {
            is_new_destination: is_destination && before != Some(from),
            evicted: self.add_checked(from),
        }
    }

    /// Returns whether a check carried USE-CANDIDATE.
    pub(super) fn is_nominated(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.nominated)
    }

    /// Sets the client's port. `has_own_rtcp`: RTCP has the next higher port (RFC 3550, 11).
    pub(super) fn learn(&mut self, path: ClientPath, has_own_rtcp: bool) {
        let from = path.source;
        self.set_rtp(from);
        self.follow(path);
        let more = self.more.get_or_insert_default();
        more.checked.push(from);
        if has_own_rtcp {
            let SourceKey { listener, address } = from;
            let address = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
            let rtcp = SourceKey { listener, address };
            more.checked.push(rtcp);
            more.rtcp = Some(rtcp);
        }
    }

    /// Adds an address that passed a check. If the list was full, returns the oldest one without the destination, whose limit
    /// must not be forgotten while media goes there.
    fn add_checked(&mut self, from: SourceKey) -> Option<SourceKey> {
        let destination = self.destination.source();
        let more = self.more.get_or_insert_default();
        if !more.checked.contains(&from) {
            more.unproved.push(UnprovedAddress::new(from));
        }
        more.checked.retain(|known| *known != from);
        more.checked.push(from);
        let oldest = (more.checked.len() > CHECKED_MAX).then(|| {
            let oldest = more.checked.iter().position(|known| Some(*known) != destination);
            more.checked.remove(oldest.unwrap_or(0))
        });
        more.unproved.retain(|address| Some(address.source) != oldest);
        oldest
    }

    /// The address, if it passed a check and the client has not proved to receive there.
    #[inline]
    pub(super) fn unproved(&mut self, source: SourceKey) -> Option<&mut UnprovedAddress> {
        let unproved = &mut self.more.as_deref_mut()?.unproved;
        unproved.iter_mut().find(|address| address.source == source)
    }

    pub(super) fn is_unproved(&self, source: SourceKey) -> bool {
        let unproved = self.more.as_ref().map_or(&[][..], |more| &more.unproved);
        unproved.iter().any(|address| address.source == source)
    }

    /// The client receives at the address.
    pub(super) fn prove(&mut self, source: SourceKey) {
        let Some(more) = &mut self.more else { return };
        if let Some(at) = more.unproved.iter().position(|address| address.source == source) {
            more.shifted = more.unproved.remove(at).reports;
        }
    }

    pub(super) fn secret(&self, source: SourceKey) -> AddressSecret {
        match &self.more {
            Some(more) => more.checks.secret(source),
            None => Checks::default().secret(source),
        }
    }

    /// Sender reports whose times were shifted.
    pub(super) fn shifted(&self) -> impl Iterator<Item = &ShiftedReport> {
        let more = self.more.as_deref();
        more.into_iter().flat_map(|more| {
            more.unproved.iter().flat_map(|address| &address.reports).chain(&more.shifted)
        })
    }

    pub(super) fn lose(&mut self, from: SourceKey) {
        if let Some(more) = &mut self.more {
            more.checked.retain(|known| *known != from);
            more.unproved.retain(|address| address.source != from);
        }
        if self.destination.source() == Some(from) {
            self.redirect(self.checked().last().copied());
        }
    }

    fn redirect(&mut self, to: Option<SourceKey>) {
        let (awaited, local) = (self.is_awaited(), self.destination.local_v4());
        self.destination =
            to.map_or(Destination::Unknown, |to| Destination::udp(to, awaited, local));
    }

    pub(super) fn checked(&self) -> &[SourceKey] {
        self.more.as_ref().map_or(&[], |more| &more.checked)
    }

    /// Renames the addresses for another process; those without a name there are removed.
    pub(super) fn map_sources(&mut self, map: impl Fn(SourceKey) -> Option<SourceKey>) {
        if let Some(source) = self.destination.source() {
            self.redirect(map(source));
        }
        if let Some(more) = &mut self.more {
            more.rtcp = more.rtcp.and_then(&map);
            more.checked = more.checked.drain(..).filter_map(&map).collect();
            let renamed = |mut address: UnprovedAddress| {
                address.source = map(address.source)?;
                Some(address)
            };
            more.unproved = more.unproved.drain(..).filter_map(renamed).collect();
        }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.destination.is_awaited()
    }
}

#[cfg(test)]
mod tests;
