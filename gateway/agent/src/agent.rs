//! What an agent does with a datagram, and with what it learns of the server. No socket, no clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::demux::{self, Kind};
use evenkeel_media::trunk::message::{
    Answer, Break, Outcome, Question, Replays, Secret, State, Status,
};
use evenkeel_media::trunk::{self, Bundles, Tag};

use crate::Counters;
use crate::check::Port;
use crate::notices::Notices;
use crate::sessions::{Place, Session, Sessions};
use faults::Drilled;
use refusals::Refusing;

/// How often leases are looked at.
const LEASES_EVERY: Duration = Duration::from_millis(50);

/// For how long an order is known again: a gateway says it again for a second, and nothing counts that is signed earlier.
const ORDERS_KNOWN_FOR: Duration = Duration::from_secs(5);
/// Orders that are known at most; they come from people and drills.
const ORDERS_KNOWN_MAX: usize = 16;

/// Two clocks, read once for a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    /// Microseconds since the Unix epoch; never less than before.
    pub(crate) unix_us: u64,
}

/// What the agent has others do.
pub(crate) trait Hands {
    /// Sends a datagram to a gateway.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);
    /// Hands a packet of a session to the server. Whether its socket took it.
    fn hand(&mut self, place: Place, kind: Packet, packet: &[u8]) -> bool;
    /// Opens a session towards the server.
    fn open(&mut self, place: Place, room: u64, session: u64) -> Opening;
    /// Closes it.
    fn close(&mut self, place: Place);
    /// Starts the server's process. Whether there is a way to.
    fn start(&mut self, now: Instant) -> bool;
    /// Sends the server's process a signal that kills, stops or wakes it. Whether there is one.
    fn signal(&mut self, how: Break) -> bool;
    /// Tells people.
    fn tell(&mut self, words: &str);
}

/// How a session was opened towards the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opening {
    Open,
    /// A command is under way; [`Agent::handle_opened`] tells of its end.
    Waits,
    Failed,
}

/// What is handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packet {
    Rtp,
    Rtcp,
}

/// What the configuration says that matters here.
pub(crate) struct Rules {
    pub(crate) secret: Secret,
    /// Whether it may be broken.
    pub(crate) drills: bool,
    /// After this, a cut or a stop ends by itself.
    pub(crate) drills_last: Duration,
    /// Sessions at a time; 0 where it ends no trunk legs.
    pub(crate) sessions_max: u32,
    /// Whether a process is watched.
    pub(crate) watches: bool,
    /// Whether the media port is checked.
    pub(crate) checks: bool,
}

pub(crate) struct Agent {
    rules: Rules,
    /// Whether the process runs, where one is watched.
    runs: bool,
    /// How the media port was found, where it is checked.
    port: Port,
    draining: bool,
    drilled: Drilled,
    refusing: Refusing,
    /// Processor time and figure, thousandths.
    measured: u16,
    sessions: Sessions,
    notices: Notices,
    replays: Replays,
    bundles: Bundles,
    /// The last orders, by nonce: said again, they are not done again, whatever other gateways said in between.
    ordered: VecDeque<(u64, Answer, Instant)>,
    leases_seen: Instant,
    pub(crate) counters: Counters,
    answer: Vec<u8>,
}

impl Agent {
    pub(crate) fn new(rules: Rules, now: Instant) -> Agent {
        Agent {
            runs: !rules.watches,
            port: if rules.checks { Port::Mute } else { Port::Answers },
            rules,
            draining: false,
            drilled: Drilled::default(),
            refusing: Refusing::default(),
            measured: 0,
            sessions: Sessions::default(),
            notices: Notices::default(),
            replays: Replays::default(),
            bundles: Bundles::default(),
            ordered: VecDeque::new(),
            leases_seen: now,
            counters: Counters::default(),
            answer: Vec::new(),
        }
    }

    /// From a gateway, or whoever says so.
    pub(crate) fn handle_datagram(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        now: Now,
        hands: &mut impl Hands,
    ) {
        match demux::classify(bytes) {
            Kind::Bundle => self.handle_bundle(bytes, source, hands),
            Kind::Signed => self.handle_signed(bytes, source, now, hands),
            Kind::Rtp
            | Kind::Rtcp
            | Kind::Echo
            | Kind::Stun
            | Kind::Dtls
            | Kind::Quic
            | Kind::Unknown => self.counters.malformed += 1,
        }
    }

    fn handle_bundle(&mut self, bytes: &[u8], source: SocketAddr, hands: &mut impl Hands) {
        if self.drilled.is_cut() {
            return;
        }
        for entry in trunk::entries(bytes) {
            let Ok((tag, packet)) = entry else {
                self.counters.malformed += 1;
                return;
            };
            let Some(place) = self.sessions.place(tag) else {
                self.counters.unknown_tag += 1;
                continue;
            };
            let Some(session) = self.sessions.at(place).filter(|s| s.awaited.is_none()) else {
                self.counters.dropped += 1;
                continue;
            };
            session.reply_to = source;
            self.bundles.came(source, bytes.len(), &mut |to, bundle| hands.send(to, bundle));
            let Some(kind) = kind(packet) else {
                self.counters.malformed += 1;
                continue;
            };
            let count = &mut self.counters;
            *if hands.hand(place, kind, packet) {
                &mut count.packets_to_server
            } else {
                &mut count.dropped
            } += 1;
        }
    }

    /// From the server, on a session's socket.
    pub(crate) fn handle_from_server(
        &mut self,
        place: Place,
        packet: &[u8],
        hands: &mut impl Hands,
    ) {
        if self.drilled.is_cut() {
            return;
        }
        let Some(session) = self.sessions.at(place).filter(|s| s.awaited.is_none()) else { return };
        let (to, tag) = (session.reply_to, session.tag);
        if kind(packet).is_none() {
            self.counters.malformed += 1;
        } else if self.bundles.push(to, tag, packet, &mut |to, bundle| hands.send(to, bundle)) {
            self.counters.packets_to_gateway += 1;
        } else {
            self.counters.dropped += 1;
        }
    }

    /// Sends what has gathered.
    pub(crate) fn flush(&mut self, hands: &mut impl Hands) {
        self.bundles.flush(&mut |to, bundle| hands.send(to, bundle));
    }

    fn handle_signed(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        now: Now,
        hands: &mut impl Hands,
    ) {
        let secret = &self.rules.secret;
        let read = Question::read_once(bytes, secret, now.unix_us, &mut self.replays);
        let asked = match read {
            Ok(asked) => asked,
            Err(refused) => return self.refuse(refused, (bytes, source), now, hands),
        };
        let nonce = asked.nonce;
        let is_order = matches!(asked.message, Question::Start | Question::Break(_));
        if self.drilled.is_cut() && !is_order {
            return;
        }
        let expires = |lease_s: u16| now.instant + Duration::from_secs(lease_s.into());
        let answer = match asked.message {
            Question::Probe => {
                self.notices.handle_probe(source, nonce, now.instant);
                // Who does not know whether the port works does not answer for it.
                if self.is_mute() {
                    return;
                }
                self.counters.probes += 1;
                Answer::Probe(self.load())
            }
            Question::Open { room, session, tag, lease_s } => {
                let lease = Session {
                    tag,
                    room,
                    reply_to: source,
                    expires: expires(lease_s),
                    awaited: Some(nonce),
                };
                match self.open(lease, session, hands) {
                    Some(status) => Answer::Open { tag, status },
                    None => return,
                }
            }
            Question::Close { tag } => Answer::Close { tag, status: self.close(tag, hands) },
            Question::Keep { lease_s, tags } => {
                let expires = expires(lease_s);
                let unknown = tags.iter().filter(|&&tag| !self.keep(tag, source, expires));
                Answer::Keep { unknown: unknown.copied().collect() }
            }
            Question::Drain => {
                self.handle_drain(true, now, hands);
                Answer::Drain(self.load())
            }
            Question::Noted { number } => {
                self.counters.noted += u64::from(self.notices.handle_noted(source, number));
                return;
            }
            Question::Start => {
                self.order((nonce, now.instant), |agent| Answer::Start(agent.start(now, hands)))
            }
            Question::Break(how) => self.order((nonce, now.instant), |agent| {
                Answer::Break(agent.break_it(how, now.instant, hands))
            }),
            Question::Path { bundle_max, padding } => {
                self.bundles.limit(source, bundle_max.into());
                Answer::Path { padding }
            }
        };
        self.say(&answer, (source, nonce), now, hands);
    }

    fn say(
        &mut self,
        answer: &Answer,
        (to, nonce): (SocketAddr, u64),
        now: Now,
        hands: &mut impl Hands,
    ) {
        self.answer.clear();
        answer.write(&self.rules.secret, nonce, now.unix_us, &mut self.answer);
        hands.send(to, &self.answer);
    }

    /// An order is done once, however often it is said.
    fn order(
        &mut self,
        (nonce, now): (u64, Instant),
        obey: impl FnOnce(&mut Agent) -> Answer,
    ) -> Answer {
        self.ordered.retain(|(.., at)| now.duration_since(*at) < ORDERS_KNOWN_FOR);
        if let Some((_, answer, _)) = self.ordered.iter().find(|(done, ..)| *done == nonce) {
            return answer.clone();
        }
        let answer = obey(self);
        if self.ordered.len() == ORDERS_KNOWN_MAX {
            self.ordered.pop_front();
        }
        self.ordered.push_back((nonce, answer.clone(), now));
        answer
    }

    fn start(&mut self, now: Now, hands: &mut impl Hands) -> Outcome {
        let runs = self.rules.watches && self.runs;
        if runs || hands.start(now.instant) { Outcome::Done } else { Outcome::Unable }
    }

    /// Opens a session, or renews it. Nothing is said while the server is still asked.
    fn open(&mut self, lease: Session, session: u64, hands: &mut impl Hands) -> Option<Status> {
        let standing = self.sessions.place(lease.tag);
        if let Some(standing) = standing.and_then(|place| self.sessions.at(place))
            && standing.room == lease.room
        {
            (standing.expires, standing.reply_to) = (lease.expires, lease.reply_to);
            return match standing.awaited {
                Some(_) => {
                    standing.awaited = lease.awaited;
                    None
                }
                None => Some(Status::Ok),
            };
        }
        // The same tag in another room: the gateway's word replaces what it said before.
        if let Some(place) = standing {
            self.end(place, hands);
        }
        let refused = match self.state() {
            State::Draining => Some(Status::Draining),
            State::Gone => Some(Status::Failed),
            State::Serving if self.rules.sessions_max == 0 => Some(Status::Failed),
            State::Serving if self.sessions.len() >= self.rules.sessions_max as usize => {
                Some(Status::Full)
            }
            State::Serving => None,
        };
        if let Some(status) = refused {
            self.counters.turned_away += 1;
            return Some(status);
        }
        let room = lease.room;
        let place = self.sessions.begin(lease);
        match hands.open(place, room, session) {
            Opening::Open => {
                self.counters.opened += 1;
                self.sessions.at(place)?.awaited = None;
                Some(Status::Ok)
            }
            Opening::Waits => None,
            Opening::Failed => {
                self.end(place, hands);
                self.counters.turned_away += 1;
                Some(Status::Failed)
            }
        }
    }

    /// The server took a session, or did not.
    pub(crate) fn handle_opened(
        &mut self,
        place: Place,
        is_open: bool,
        now: Now,
        hands: &mut impl Hands,
    ) {
        let Some(session) = self.sessions.at(place) else { return };
        let Some(nonce) = session.awaited.take() else { return };
        let (tag, to) = (session.tag, session.reply_to);
        let status = if is_open {
            self.counters.opened += 1;
            Status::Ok
        } else {
            self.end(place, hands);
            self.counters.turned_away += 1;
            Status::Failed
        };
        if !self.drilled.is_cut() {
            self.say(&Answer::Open { tag, status }, (to, nonce), now, hands);
        }
    }

    fn close(&mut self, tag: Tag, hands: &mut impl Hands) -> Status {
        match self.sessions.place(tag) {
            Some(place) => {
                self.end(place, hands);
                Status::Ok
            }
            None => Status::UnknownTag,
        }
    }

    /// Renews a lease. Whether there is one.
    fn keep(&mut self, tag: Tag, source: SocketAddr, expires: Instant) -> bool {
        let place = self.sessions.place(tag);
        let Some(session) = place.and_then(|place| self.sessions.at(place)) else { return false };
        (session.expires, session.reply_to) = (expires, source);
        true
    }

    fn end(&mut self, place: Place, hands: &mut impl Hands) {
        if self.sessions.end(place).is_some() {
            hands.close(place);
        }
    }
}

mod faults;
mod refusals;
mod server;

/// RTP and RTCP are handed on; nothing else is media.
fn kind(packet: &[u8]) -> Option<Packet> {
    match demux::classify(packet) {
        Kind::Rtp => Some(Packet::Rtp),
        Kind::Rtcp => Some(Packet::Rtcp),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
