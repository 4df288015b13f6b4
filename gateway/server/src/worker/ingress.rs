//! Who may send on a UDP listener: STUN, RTP and the rest by first byte; unauthenticated packets learn nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::forward::Reason;
use evenkeel_media::{demux, rtp, stun};

use super::From;
use super::arrival::{Arrival, Kind};
use super::command::Report;
use super::limiter::Limiter;
use super::session::{Loan, Session};
use super::ways::{Side, Ways};
use crate::flows::{Entry, Flows, Home, Key, Ufrag};

/// Sources kept at hand; past it the cache is emptied and filled anew.
const CACHE_MAX: usize = 65_536;

/// Summaries until what is at hand is looked up again: what was learned may have moved.
const CACHE_SUMMARIES: u32 = 10;

pub(crate) struct Ingress {
    flows: Arc<Flows>,
    /// By listener: whether packets of unknown sources may open sessions.
    open: Vec<bool>,
    /// Whose a source's packets are, and in which period that was looked up.
    cache: HashMap<From, (Home, u32)>,
    period: u32,
    summaries: u32,
    limiter: Limiter,
    answer: Vec<u8>,
}

impl Ingress {
    /// `misses` is how often a second strangers of one prefix may be looked up.
    pub(crate) fn new(flows: Arc<Flows>, open: Vec<bool>, misses: u32, now: Instant) -> Ingress {
        Ingress {
            flows,
            open,
            cache: HashMap::new(),
            period: 0,
            summaries: 0,
            limiter: Limiter::new(misses, now),
            answer: Vec::new(),
        }
    }

    /// Whose datagram it is and what it is, or `None` once it was dropped and counted.
    pub(crate) fn judge(
        &mut self,
        from: From,
        datagram: &[u8],
        ways: &mut Ways,
        now: Instant,
    ) -> Option<(Home, Kind)> {
        match demux::classify(datagram) {
            demux::Kind::Rtp | demux::Kind::Rtcp => {
                let home = self.find(from, datagram, ways, now)?;
                Some((home, Kind::Media))
            }
            demux::Kind::Stun => self.check(from, datagram, ways, now),
            demux::Kind::Dtls => refuse(ways, Reason::Dtls),
            demux::Kind::Quic
            | demux::Kind::Bundle
            | demux::Kind::Signed
            | demux::Kind::Echo
            | demux::Kind::Unknown => refuse(ways, Reason::Malformed),
        }
    }

    fn find(&mut self, from: From, datagram: &[u8], ways: &mut Ways, now: Instant) -> Option<Home> {
        let (listener, address) = from;
        let known = self.cache.get(&from).copied();
        if let Some((home, period)) = known
            && period == self.period
        {
            return Some(home);
        }
        // Who was known a moment ago is looked up again whatever strangers of its prefix do.
        if known.is_none() && !self.limiter.allows(address, now) {
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
        self.limiter.charge(address);
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

    /// A connectivity check: only one whose integrity holds is answered, and teaches us its source.
    fn check(
        &mut self,
        from: From,
        datagram: &[u8],
        ways: &mut Ways,
        now: Instant,
    ) -> Option<(Home, Kind)> {
        if !self.cache.contains_key(&from) && !self.limiter.allows(from.1, now) {
            return refuse(ways, Reason::Limited);
        }
        let Ok(request) = stun::Request::parse(datagram) else {
            return self.refuse_check(from, Reason::Malformed, ways);
        };
        let entry = request
            .username()
            .and_then(|username| Ufrag::new(username.server_ufrag.as_bytes()))
            .and_then(|ufrag| self.flows.entry(&Key::Ufrag(ufrag)));
        let Some((entry, password)) =
            entry.and_then(|entry| Some((entry.clone(), entry.password?)))
        else {
            return self.refuse_check(from, Reason::BadIntegrity, ways);
        };
        let key = std::str::from_utf8(&password).ok().map(stun::Key::new)?;
        if request.verify(&key).is_err() {
            return self.refuse_check(from, Reason::BadIntegrity, ways);
        }
        self.answer.clear();
        stun::write_success(request.transaction(), from.1, Some(&key), &mut self.answer);
        ways.queue_to_client((from.0, Side::Rtp), from.1, 0, &self.answer);
        let (listener, address) = from;
        if self.flows.insert(Key::Udp { listener, address }, Entry::of(entry.home)).is_err() {
            return refuse(ways, Reason::UnknownSource);
        }
        let kind = if request.use_candidate() { Kind::Nomination } else { Kind::Check };
        Some((entry.home, kind))
    }

    fn refuse_check<T>(&mut self, from: From, reason: Reason, ways: &Ways) -> Option<T> {
        self.limiter.charge(from.1);
        refuse(ways, reason)
    }

    /// Hands it to the session at home here.
    pub(crate) fn deliver(
        &mut self,
        session: &mut Session,
        arrival: Arrival,
        datagram: &[u8],
        loan: &mut Loan<'_>,
    ) {
        let from = (arrival.listener, arrival.source);
        match arrival.kind {
            Kind::Check | Kind::Nomination => {
                let nominated = arrival.kind == Kind::Nomination;
                if let Some((listener, address)) = session.checked(from, nominated, loan.now) {
                    self.cache.remove(&(listener, address));
                    self.flows.remove(&Key::Udp { listener, address }, session.home);
                }
            }
            Kind::Media if session.learns() => self.learn(session, from, datagram, loan),
            Kind::Media if !session.takes_from(from) => loan.ways.drop(Reason::UnknownSource),
            Kind::Media => {
                session.heard_from(from);
                session.handle_client_packet(datagram, loan);
            }
        }
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

    /// Every 100 ms: now and then what is at hand grows old, and who was not heard since the last time is let go.
    pub(crate) fn forget(&mut self) {
        self.summaries += 1;
        if self.summaries >= CACHE_SUMMARIES {
            self.summaries = 0;
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

fn refuse<T>(ways: &Ways, reason: Reason) -> Option<T> {
    ways.drop(reason);
    None
}
