//! Who may send on a UDP listener: STUN, RTP and the rest by first byte; unauthenticated packets learn nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::forward::Reason;
use evenkeel_media::{demux, rtp, stun};
use foldhash::fast::RandomState;

use super::From;
use super::arrival::{Arrival, Kind};
use super::command::Report;
use super::egress::{Side, Ways};
use super::limiter::{Limiter, Origin};
use super::session::{Loan, Session};
use crate::flows::{Entry, Flows, Home, Key, Ufrag};

/// Sources kept at hand; past it the cache is emptied and filled anew.
const CACHE_MAX: usize = 65_536;

/// What is at hand is looked up again after so long: what was learned may have moved.
const KEPT: Duration = Duration::from_secs(1);

pub(crate) struct Ingress {
    flows: Arc<Flows>,
    /// By listener: whether packets of unknown sources may open sessions.
    open: Vec<bool>,
    /// Whose a source's packets are, and in which period that was looked up.
    cache: HashMap<From, (Home, u32), RandomState>,
    period: u32,
    /// When it grows old.
    old_at: Instant,
    /// Of strangers, by prefix.
    strangers: Limiter,
    /// Of checks from sources at hand, by address.
    known: Limiter,
    answer: Vec<u8>,
}

impl Ingress {
    /// `misses` is how often a second strangers of one prefix may be looked up, and a known source's checks may fail.
    pub(crate) fn new(flows: Arc<Flows>, open: Vec<bool>, misses: u32, now: Instant) -> Ingress {
        Ingress {
            flows,
            open,
            cache: HashMap::default(),
            period: 0,
            old_at: now + KEPT,
            strangers: Limiter::new(misses, now),
            known: Limiter::new(misses, now),
            answer: Vec::new(),
        }
    }

    /// Whose datagram it is and what it is, or `None` once it was dropped and counted.
    pub(crate) fn judge(
        &mut self,
        from: From,
        side: Side,
        datagram: &[u8],
        ways: &Ways,
        now: Instant,
    ) -> Option<(Home, Kind)> {
        match demux::classify(datagram) {
            demux::Kind::Rtp | demux::Kind::Rtcp => {
                let home = self.find(from, datagram, ways, now)?;
                Some((home, Kind::Media))
            }
            // Who proves itself by checks has RTCP at the port of its RTP.
            demux::Kind::Stun if side == Side::Rtcp => refuse(ways, Reason::UnknownSource),
            demux::Kind::Stun => self.check(from, datagram, ways, now),
            demux::Kind::Dtls => refuse(ways, Reason::Dtls),
            demux::Kind::Quic
            | demux::Kind::Bundle
            | demux::Kind::Signed
            | demux::Kind::Echo
            | demux::Kind::Unknown => refuse(ways, Reason::Malformed),
        }
    }

    fn find(&mut self, from: From, datagram: &[u8], ways: &Ways, now: Instant) -> Option<Home> {
        let (listener, address) = from;
        let known = self.cache.get(&from).copied();
        if let Some((home, period)) = known
            && period == self.period
        {
            return Some(home);
        }
        // Who was known a moment ago is looked up again whatever strangers of its prefix do.
        if known.is_none() && !self.strangers.allows(Origin::prefix(address), now) {
            return refuse(ways, Reason::Limited);
        }
        if let Some(home) = self.flows.home(&Key::Udp { listener, address }) {
            if self.cache.len() >= CACHE_MAX {
                self.cache.clear();
            }
            self.cache.insert(from, (home, self.period));
            return Some(home);
        }
        self.cache.remove(&from);
        let by_ip = self.flows.home(&Key::DeclaredIp { listener, ip: address.ip() });
        if by_ip.is_some() {
            return by_ip;
        }
        self.strangers.charge(Origin::prefix(address));
        if self.open.get(usize::from(listener)) == Some(&true) {
            self.knock(from, datagram, ways);
            return refuse(ways, Reason::NotOpened);
        }
        refuse(ways, Reason::UnknownSource)
    }

    /// RTP of nobody's opens a session on a listener for trusted networks; RTCP does not say what is sent.
    fn knock(&self, (listener, source): From, datagram: &[u8], ways: &Ways) {
        if let Ok(header) = rtp::Header::parse(datagram)
            && demux::classify(datagram) == demux::Kind::Rtp
        {
            let payload_type = header.payload_type;
            ways.report(Report::Knock { listener, source, payload_type });
        }
    }

    /// A connectivity check: one whose integrity holds is its session's affair.
    ///
    /// Others are not answered, though RFC 8489, 9.1.3 has errors for them: who does not know a password learns nothing
    /// here, not even that somebody listens, and nobody is sent what a forged source asked for.
    fn check(
        &mut self,
        from: From,
        datagram: &[u8],
        ways: &Ways,
        now: Instant,
    ) -> Option<(Home, Kind)> {
        let Ingress { flows, cache, strangers, known, .. } = self;
        let at_hand = cache.get(&from).map(|(home, _)| *home);
        let (limiter, origin) = match at_hand {
            Some(_) => (known, Origin::address(from.1)),
            None => (strangers, Origin::prefix(from.1)),
        };
        if !limiter.allows(origin, now) {
            return refuse(ways, Reason::Limited);
        }
        let Ok(request) = stun::Request::parse(datagram) else {
            limiter.charge(origin);
            return refuse(ways, Reason::Malformed);
        };
        let holds = |(_, key): &(Home, stun::Key)| request.verify(key).is_ok();
        let Some((home, _)) = credentials(flows, &request).filter(holds) else {
            limiter.charge(origin);
            return refuse(ways, Reason::BadIntegrity);
        };
        if at_hand.is_some_and(|before| before != home) {
            cache.remove(&from);
        }
        Some((home, if request.use_candidate() { Kind::Nomination } else { Kind::Check }))
    }

    /// Hands it to the session at home here. Says which session's address this took, if it took one's.
    pub(crate) fn deliver(
        &mut self,
        session: &mut Session,
        arrival: Arrival,
        datagram: &[u8],
        loan: &mut Loan<'_>,
    ) -> Option<Home> {
        let from = (arrival.listener, arrival.source);
        match arrival.kind {
            Kind::Check | Kind::Nomination => {
                return self.checked(session, arrival, datagram, loan);
            }
            Kind::Taken => session.lost(from),
            Kind::Media if session.learns() => self.learn(session, from, datagram, loan),
            Kind::Media if !session.takes_from(from) => {
                self.cache.remove(&from);
                loan.ways.drop(Reason::UnknownSource);
            }
            Kind::Media => {
                session.heard_from(from);
                session.handle_client_packet(datagram, loan);
            }
        }
        None
    }

    /// A check of the session's client: only here, at its home, is its address learned, and then it is answered. One that
    /// asks for what we do not know is told so (RFC 8489, 6.3.1).
    fn checked(
        &mut self,
        session: &mut Session,
        arrival: Arrival,
        datagram: &[u8],
        loan: &mut Loan<'_>,
    ) -> Option<Home> {
        let from @ (listener, address) = (arrival.listener, arrival.source);
        let request = stun::Request::parse(datagram).ok()?;
        let (_, key) = credentials(&self.flows, &request)?;
        self.answer.clear();
        if request.unknown().next().is_some() {
            let (transaction, unknown) = (request.transaction(), request.unknown());
            stun::write_unknown(transaction, unknown, Some(&key), &mut self.answer);
            loan.ways.queue_to_client((listener, Side::Rtp), address, 0, &self.answer);
            return None;
        }
        let learned = self.flows.check(Key::Udp { listener, address }, session.home, loan.now);
        let Ok(before) = learned else {
            return refuse(loan.ways, Reason::UnknownSource);
        };
        let nominated = arrival.kind == Kind::Nomination;
        if let Some(oldest) = session.checked(from, nominated, loan) {
            self.cache.remove(&oldest);
            let (listener, address) = oldest;
            self.flows.remove(&Key::Udp { listener, address }, session.home);
        }
        stun::write_success(request.transaction(), address, Some(&key), &mut self.answer);
        loan.ways.queue_to_client((listener, Side::Rtp), address, 0, &self.answer);
        before
    }

    /// The first valid packet of an address that was declared without a port fixes the port.
    fn learn(&mut self, session: &mut Session, from: From, datagram: &[u8], loan: &mut Loan<'_>) {
        if !session.learn(from, datagram) {
            return loan.ways.drop(Reason::UnknownSource);
        }
        let (listener, address) = from;
        self.flows.remove(&Key::DeclaredIp { listener, ip: address.ip() }, session.home);
        for &(listener, address) in session.learned() {
            // Where another session has it by its own word, that one keeps it.
            let _ = self.flows.insert(Key::Udp { listener, address }, Entry::of(session.home));
        }
        session.handle_client_packet(datagram, loan);
    }

    /// Now and then what is at hand grows old, and who was not heard since the last time is let go.
    pub(crate) fn forget(&mut self, now: Instant) {
        if now >= self.old_at {
            self.old_at = now + KEPT;
            let last = self.period;
            self.period = last.wrapping_add(1);
            self.cache.retain(|_, (_, period)| *period == last);
        }
    }

    /// The session that this source's packets were for is gone.
    pub(crate) fn forget_source(&mut self, from: From) {
        self.cache.remove(&from);
    }
}

/// Whom a check says that it is for, and what it must be made with.
fn credentials(flows: &Flows, request: &stun::Request<'_>) -> Option<(Home, stun::Key)> {
    let ufrag = Ufrag::new(request.username()?.server_ufrag.as_bytes())?;
    let Entry { home, password, .. } = flows.entry(&Key::Ufrag(ufrag))?;
    Some((home, stun::Key::new(std::str::from_utf8(&password?).ok()?)))
}

fn refuse<T>(ways: &Ways, reason: Reason) -> Option<T> {
    ways.drop(reason);
    None
}

#[cfg(test)]
mod tests;
