//! Datagrams from clients.
//!
//! A datagram is demultiplexed once. Its source address identifies its session, and the datagram is delivered to the
//! session here or relayed to the session's home worker. Unauthenticated packets change no address.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_media::{demux, rtp, stun};
use evenkeel_model::DropReason;

use super::egress::{Egress, PacketContext};
use super::report::WorkerReport;
use super::session::{Admission, CheckReceipt, WorkerSession};
use super::slots::SessionSlots;
use super::sockets::{ArrivalKind, ClientArrival, RtpSide, SourceKey};
use crate::address;
use crate::client_probes::{ClientProbe, ClientProbes};
use crate::flows::{FlowEntry, FlowKey, Flows, Home, Ufrag};

/// Sources in the cache. When it is full it is cleared.
const CACHE_MAX: usize = 65_536;

/// Lifetime of a cached lookup, because the flow table may have changed since.
const CACHED_FOR: Duration = Duration::from_secs(1);

/// Finds the session of a client's datagram and delivers the datagram.
pub(crate) struct ClientIngress {
    worker: u16,
    flows: Arc<Flows>,
    /// True if RTP from an unknown source may open a session, by listener.
    open: Vec<bool>,
    /// Homes by source, each with the period of its lookup.
    cache: HashMap<SourceKey, (Home, u32), foldhash::fast::RandomState>,
    period: u32,
    period_ends: Instant,
    /// Limit of failed lookups, per prefix of the source.
    misses: FailureLimiter,
    /// Limit of connectivity checks that fail for a session, per address of the source.
    failed_checks: FailureLimiter,
    keys: RandomState,
    /// Probes of clients without a session.
    probes: Arc<ClientProbes>,
    answer: Vec<u8>,
    /// The last datagram was a packet of a probe, and its answer waits.
    answers_probe: bool,
    /// Buffer for a decrypted SRTP packet.
    unprotected: Vec<u8>,
}

impl ClientIngress {
    /// `misses` is the limit, per second, of failed lookups of one prefix and of failed checks of one address. `keys`
    /// are random keys of this process.
    pub(crate) fn new(
        worker: u16,
        flows: Arc<Flows>,
        open: Vec<bool>,
        misses: u32,
        keys: RandomState,
        now: Instant,
    ) -> ClientIngress {
        ClientIngress {
            worker,
            flows,
            open,
            cache: HashMap::default(),
            period: 0,
            period_ends: now + CACHED_FOR,
            misses: FailureLimiter::new(misses, keys.clone(), now),
            failed_checks: FailureLimiter::new(misses, keys.clone(), now),
            keys,
            probes: Arc::default(),
            answer: Vec::new(),
            answers_probe: false,
            unprotected: Vec::new(),
        }
    }

    /// With the probes of clients, which it answers.
    pub(crate) fn with_probes(self, probes: Arc<ClientProbes>) -> ClientIngress {
        ClientIngress { probes, ..self }
    }

    /// Returns the session of a datagram and the datagram's kind. `None` if the datagram was dropped and counted, or has a
    /// [`probe_answer`](ClientIngress::probe_answer).
    pub(crate) fn identify(
        &mut self,
        source: SourceKey,
        side: RtpSide,
        datagram: &[u8],
        egress: &Egress,
        now: Instant,
    ) -> Option<(Home, ArrivalKind)> {
        match demux::classify(datagram) {
            demux::DatagramKind::Rtp => self.find(source, ArrivalKind::Rtp, datagram, egress, now),
            demux::DatagramKind::Rtcp => {
                self.find(source, ArrivalKind::Rtcp, datagram, egress, now)
            }
            // ICE clients multiplex RTCP with RTP (RFC 8445, 5.1.1 with RFC 5761).
            demux::DatagramKind::Stun if side == RtpSide::Rtcp => {
                refuse(egress, DropReason::UnknownSource)
            }
            demux::DatagramKind::Stun if stun::is_response(datagram) => {
                self.find(source, ArrivalKind::CheckAnswer, datagram, egress, now)
            }
            demux::DatagramKind::Stun => self.verify_check(source, datagram, egress, now),
            // An address of a session, which passed a check. Clients of DTLS multiplex RTCP, too.
            demux::DatagramKind::Dtls if side == RtpSide::Rtp => {
                self.find(source, ArrivalKind::Dtls, datagram, egress, now)
            }
            demux::DatagramKind::Dtls => refuse(egress, DropReason::Dtls),
            demux::DatagramKind::Quic
            | demux::DatagramKind::Bundle
            | demux::DatagramKind::Signed
            | demux::DatagramKind::Echo
            | demux::DatagramKind::Sealed
            | demux::DatagramKind::TrunkRepair
            | demux::DatagramKind::Unknown => refuse(egress, DropReason::Malformed),
        }
    }

    fn find(
        &mut self,
        source: SourceKey,
        kind: ArrivalKind,
        datagram: &[u8],
        egress: &Egress,
        now: Instant,
    ) -> Option<(Home, ArrivalKind)> {
        let SourceKey { listener, address } = source;
        let cached = self.cache.get(&source).copied();
        if let Some((home, period)) = cached
            && period == self.period
        {
            return Some((home, kind));
        }
        if let Some(home) = self.flows.home(&source.key()) {
            if self.cache.len() >= CACHE_MAX {
                self.cache.clear();
            }
            self.cache.insert(source, (home, self.period));
            return Some((home, kind));
        }
        if cached.is_some() {
            self.cache.remove(&source);
        }
        // Without clients that are declared by IP, an unknown source costs one lookup.
        if self.flows.counts().declared_ip > 0
            && let Some(home) = self.flows.home(&FlowKey::DeclaredIp { listener, ip: address.ip() })
        {
            return Some((home, kind));
        }
        if !self.charge_miss(address, now) {
            return refuse(egress, DropReason::Limited);
        }
        if self.open.get(usize::from(listener)) == Some(&true) {
            // RTCP carries no payload type, so it cannot open a session.
            if kind == ArrivalKind::Rtp
                && let Ok(header) = rtp::RtpHeader::parse(datagram)
            {
                let (source, payload_type) = (address, header.payload_type);
                egress.report(WorkerReport::FirstPacket { listener, source, payload_type });
            }
            return refuse(egress, DropReason::NotOpened);
        }
        refuse(egress, DropReason::UnknownSource)
    }

    /// Charges the prefix of a source that no session has. Returns `false` if the prefix is over its limit.
    fn charge_miss(&mut self, address: SocketAddr, now: Instant) -> bool {
        let prefix = FailureOrigin::prefix(address);
        let allowed = self.misses.allows(prefix, now);
        if allowed {
            self.misses.charge(prefix);
        }
        allowed
    }

    /// Verifies the integrity of a connectivity check; the session's home worker answers it.
    ///
    /// The ufrag is looked up first, because a check for no session needs neither checksum nor hash. Failed checks for
    /// a session are limited by address. An address that the session has learned is exempt: a forger of it would
    /// otherwise end the client's consent.
    ///
    /// A check that fails is not answered, although RFC 8489, 9.1.3 defines errors for it. A sender without a password
    /// therefore does not learn that a listener exists, and a forged source receives nothing.
    fn verify_check(
        &mut self,
        source: SourceKey,
        datagram: &[u8],
        egress: &Egress,
        now: Instant,
    ) -> Option<(Home, ArrivalKind)> {
        let username = stun::Username::read(datagram);
        let entry = username.ok().flatten().and_then(|username| entry(&self.flows, username));
        let Some(entry) = entry else {
            if let Ok(Some(username)) = username
                && let Some(probe) = self.probes.find(username.server_ufrag, now)
            {
                return self.verify_probe(&probe, source, datagram, egress, now);
            }
            let reason = match username {
                _ if !self.charge_miss(source.address, now) => DropReason::Limited,
                Ok(_) => DropReason::BadIntegrity,
                Err(_) => DropReason::Malformed,
            };
            return refuse(egress, reason);
        };
        let (home, origin) = (entry.home, FailureOrigin::address(source.address));
        let is_learned = || self.flows.home(&source.key()) == Some(home);
        if !self.failed_checks.allows(origin, now) && !is_learned() {
            return refuse(egress, DropReason::Limited);
        }
        let Ok(request) = stun::BindingRequest::parse(datagram) else {
            self.failed_checks.charge(origin);
            return refuse(egress, DropReason::Malformed);
        };
        if key(&entry).is_none_or(|key| request.message.verify(&key).is_err()) {
            self.failed_checks.charge(origin);
            return refuse(egress, DropReason::BadIntegrity);
        }
        if self.cache.get(&source).is_some_and(|(before, _)| *before != home) {
            self.cache.remove(&source);
        }
        let nominates = request.use_candidate();
        Some((home, if nominates { ArrivalKind::Nomination } else { ArrivalKind::Check }))
    }

    /// Verifies a packet of a client's probe and writes its answer. Failures are limited as those of checks.
    fn verify_probe(
        &mut self,
        probe: &ClientProbe,
        source: SourceKey,
        datagram: &[u8],
        egress: &Egress,
        now: Instant,
    ) -> Option<(Home, ArrivalKind)> {
        let origin = FailureOrigin::address(source.address);
        if !self.failed_checks.allows(origin, now) {
            return refuse(egress, DropReason::Limited);
        }
        match probe.answer(source.address, datagram, now, &mut self.answer) {
            Ok(()) => self.answers_probe = true,
            Err(reason) => {
                self.failed_checks.charge(origin);
                egress.count_drop(reason);
            }
        }
        None
    }

    /// Takes the answer to the last datagram, if that was a packet of a probe.
    pub(crate) fn probe_answer(&mut self) -> Option<&[u8]> {
        std::mem::take(&mut self.answers_probe).then_some(&*self.answer)
    }

    /// Delivers a datagram to a session of this worker.
    pub(crate) fn deliver(
        &mut self,
        sessions: &mut SessionSlots,
        home: Home,
        arrival: ClientArrival,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let ClientArrival { source, kind, .. } = arrival;
        let delivered = sessions.with(home, |session| match kind {
            ArrivalKind::Rtp | ArrivalKind::Rtcp if session.has_srtp() => {
                self.deliver_srtp(session, arrival, datagram, cx);
                None
            }
            ArrivalKind::Rtp | ArrivalKind::Rtcp => {
                self.deliver_media(session, arrival, datagram, cx);
                None
            }
            ArrivalKind::Dtls => {
                session.handle_dtls(arrival.path(), datagram, cx);
                None
            }
            ArrivalKind::CheckAnswer => {
                if session.handle_check_answer(source, datagram, cx) {
                    self.hold(session, source, cx.now);
                }
                None
            }
            ArrivalKind::Check | ArrivalKind::Nomination => {
                self.answer_check(session, arrival, datagram, cx)
            }
            ArrivalKind::AddressTaken => {
                session.lose_address(source);
                None
            }
        });
        match delivered {
            Some(None) => {}
            Some(Some(previous)) if previous.worker == self.worker => {
                sessions.with(previous, |session| session.lose_address(source));
            }
            Some(Some(previous)) => {
                let taken = ClientArrival { kind: ArrivalKind::AddressTaken, ..arrival };
                cx.egress.relay(previous, taken, &[]);
            }
            None => {
                self.cache.remove(&source);
                cx.egress.count_drop(DropReason::UnknownSource);
            }
        }
    }

    /// Handles a packet of SRTP. It changes nothing before it is verified, not even the client's address.
    fn deliver_srtp(
        &mut self,
        session: &mut WorkerSession,
        arrival: ClientArrival,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let side = match arrival.kind {
            ArrivalKind::Rtp => RtpSide::Rtp,
            _ => RtpSide::Rtcp,
        };
        let mut unprotected = std::mem::take(&mut self.unprotected);
        unprotected.clear();
        unprotected.extend_from_slice(datagram);
        match session.unprotect_srtp(side, &mut unprotected, cx.egress) {
            Ok(packet) => {
                if session.client.renew_consent(arrival.source, cx.now) {
                    self.hold(session, arrival.source, cx.now);
                }
                self.deliver_media(session, arrival, packet, cx);
            }
            Err(reason) => cx.egress.count_drop(reason),
        }
        self.unprotected = unprotected;
    }

    #[inline]
    fn deliver_media(
        &mut self,
        session: &mut WorkerSession,
        arrival: ClientArrival,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let ClientArrival { source, kind, .. } = arrival;
        match session.client.admit(arrival.path(), packet) {
            Admission::Accepted => {}
            Admission::Learns => return self.learn(session, arrival, packet, cx),
            Admission::Refused => {
                self.cache.remove(&source);
                return cx.egress.count_drop(DropReason::UnknownSource);
            }
        }
        if kind == ArrivalKind::Rtp {
            return session.handle_client_rtp(packet, cx);
        }
        if session.read_reports(source, packet, cx) {
            self.hold(session, source, cx.now);
        }
        session.handle_client_rtcp(packet, cx);
    }

    /// Keeps an address of the session's client, which was heard there, from other sessions.
    fn hold(&self, session: &WorkerSession, source: SourceKey, now: Instant) {
        self.flows.hold(&source.key(), session.home, session.client.holds_until(source, now));
    }

    /// Answers a verified check and learns its source address. A retransmission is answered and changes nothing; a
    /// check that was received from another address is a replay. A check with an unknown comprehension-required
    /// attribute is refused (RFC 8489, 6.3.1). Returns the session that lost the address, if any.
    fn answer_check(
        &mut self,
        session: &mut WorkerSession,
        arrival: ClientArrival,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) -> Option<Home> {
        let source = arrival.source;
        let request = stun::BindingRequest::parse(datagram).ok()?;
        let (transaction, username) = (request.message.transaction(), request.username()?);
        let key = key(&entry(&self.flows, username)?)?;
        self.answer.clear();
        if request.unknown().next().is_some() {
            stun::write_unknown(transaction, request.unknown(), Some(&key), &mut self.answer);
            cx.egress.queue_to_client(arrival.path(), RtpSide::Rtp, 0, &self.answer);
            return None;
        }
        let is_done =
            match session.client.remember_check(transaction, source, &self.keys, session.home) {
                CheckReceipt::Never => false,
                // The address may have belonged to another session at the first time.
                CheckReceipt::Here => session.client.takes_from(source),
                CheckReceipt::Elsewhere => return refuse(cx.egress, DropReason::Replayed),
            };
        let mut previous = None;
        if !is_done {
            let until = session.client.holds_until(source, cx.now);
            let Ok(loser) = self.flows.check(source.key(), session.home, until, cx.now) else {
                return refuse(cx.egress, DropReason::UnknownSource);
            };
            previous = loser;
            let nominated = arrival.kind == ArrivalKind::Nomination;
            if let Some(oldest) = session.checked(arrival.path(), nominated, cx) {
                self.cache.remove(&oldest);
                self.flows.remove(&oldest.key(), session.home);
            }
        }
        session.client.count_received(source, datagram);
        stun::write_success(transaction, source.address, Some(&key), &mut self.answer);
        session.client.count_answer(source, &self.answer);
        cx.egress.queue_to_client(arrival.path(), RtpSide::Rtp, 0, &self.answer);
        if session.write_check(source, username, key, &mut self.answer) {
            cx.egress.queue_to_client(arrival.path(), RtpSide::Rtp, 0, &self.answer);
        }
        previous
    }

    /// Sets the client's port from the first valid packet if its address was declared without a port.
    fn learn(
        &mut self,
        session: &mut WorkerSession,
        arrival: ClientArrival,
        datagram: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        let SourceKey { listener, address } = arrival.source;
        if arrival.kind != ArrivalKind::Rtp || !session.learn(arrival.path(), datagram) {
            return cx.egress.count_drop(DropReason::UnknownSource);
        }
        cx.egress.note_changed(session.home);
        self.flows.remove(&FlowKey::DeclaredIp { listener, ip: address.ip() }, session.home);
        for source in session.client.learned() {
            // An address that another session declared remains with that session.
            let _ = self.flows.insert(source.key(), FlowEntry::of(session.home));
        }
        session.handle_client_rtp(datagram, cx);
    }

    /// Expires cached lookups. A source that sent nothing in the last period leaves the cache.
    pub(crate) fn expire_cache(&mut self, now: Instant) {
        if now >= self.period_ends {
            self.period_ends = now + CACHED_FOR;
            let last = self.period;
            self.period = last.wrapping_add(1);
            self.cache.retain(|_, (_, period)| *period == last);
        }
    }
}

/// Returns the session that a check names, with its password.
fn entry(flows: &Flows, username: stun::Username<'_>) -> Option<FlowEntry> {
    flows.entry(&FlowKey::Ufrag(Ufrag::new(username.server_ufrag.as_bytes())?))
}

/// Returns the key that verifies the checks of a session.
fn key(entry: &FlowEntry) -> Option<stun::StunKey> {
    Some(stun::StunKey::new(std::str::from_utf8(entry.password.as_deref()?).ok()?))
}

fn refuse<T>(egress: &Egress, reason: DropReason) -> Option<T> {
    egress.count_drop(reason);
    None
}

/// Hash buckets. Origins in the same bucket share an allowance. The hash is keyed, so that no sender can compute which
/// origins share the bucket of another.
const PLACES: u64 = 1_024;

/// Burst, in seconds of the rate.
const BURST: f32 = 2.0;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FailureOrigin {
    network: Ipv6Addr,
    port: u16,
}

impl FailureOrigin {
    /// The source's /24 (IPv4) or /56 (IPv6). Used for unknown sources, which may have any number of addresses.
    pub(crate) fn prefix(source: SocketAddr) -> FailureOrigin {
        let length = if source.is_ipv4() { 96 + 24 } else { 56 };
        let bits = address::as_v6(source.ip()).to_bits() & u128::MAX << (128 - length);
        FailureOrigin { network: Ipv6Addr::from_bits(bits), port: 0 }
    }

    /// The source's address and port. Used for failed checks of a session, so that its client is not limited with the
    /// senders of the same prefix.
    pub(crate) fn address(source: SocketAddr) -> FailureOrigin {
        FailureOrigin { network: address::as_v6(source.ip()), port: source.port() }
    }
}

/// A token bucket per origin. Only failures are charged, so many clients behind one address do not reach the limit.
#[derive(Debug)]
pub(crate) struct FailureLimiter {
    allowances: Box<[(f32, Instant)]>,
    per_second: f32,
    keys: RandomState,
}

impl FailureLimiter {
    pub(crate) fn new(per_second: u32, keys: RandomState, now: Instant) -> FailureLimiter {
        // Precise up to 16 million per second; the configured maximum is 1 million.
        let per_second = per_second as f32;
        let allowances = vec![(BURST * per_second, now); PLACES as usize].into();
        FailureLimiter { allowances, per_second, keys }
    }

    /// Returns whether the origin may make another attempt.
    pub(crate) fn allows(&mut self, origin: FailureOrigin, now: Instant) -> bool {
        let (left, at) = &mut self.allowances[self.place(origin)];
        let elapsed = now.saturating_duration_since(*at).as_secs_f32();
        *left = (*left + elapsed * self.per_second).min(BURST * self.per_second);
        *at = now;
        *left >= 1.0
    }

    /// Charges a failed attempt. The balance stays at or above zero, so that the limit ends with the flood.
    pub(crate) fn charge(&mut self, origin: FailureOrigin) {
        let (left, _) = &mut self.allowances[self.place(origin)];
        *left = (*left - 1.0).max(0.0);
    }

    fn place(&self, origin: FailureOrigin) -> usize {
        (self.keys.hash_one(origin) % PLACES) as usize
    }
}

#[cfg(test)]
mod tests;
