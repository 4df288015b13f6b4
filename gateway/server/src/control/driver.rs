//! Opens, refreshes and closes sessions at nodes. An opening is a lease: what is not refreshed ends by itself, so a
//! gateway's death leaks nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_core::{Hop, NodeId, RoomId, SessionId};
use evenkeel_media::trunk::message::{Answer, Question, Secret, Status};

use super::leases::{Lease, Leases};
use crate::worker::{Leg, NodePort, tag};

/// After how long without a refresh a node may forget a session: three refreshes may be lost.
const LEASE: Duration = Duration::from_secs(30);

/// How sessions are opened at a node.
pub(crate) enum Driver {
    /// Not at all: RTP goes to this address, or one that the offer names.
    Plain(SocketAddr),
    /// By signed messages on the trunk.
    Agent(Secret),
}

/// What the driver wants done.
#[derive(Debug)]
pub(crate) enum Act {
    /// Send a signed message on the node's trunk, from the session's home worker.
    Sign { session: SessionId, node: NodeId, message: Box<[u8]> },
    /// The session is open at the hop, by this leg.
    Opened { session: SessionId, hop: Hop, leg: Leg },
    /// It could not be opened there. `unwilling`: the node takes no new sessions at all.
    Refused { session: SessionId, hop: Hop, unwilling: bool },
}

/// Sessions at nodes.
pub(crate) struct Drivers {
    nodes: Vec<Driver>,
    leases: Leases,
    /// What rooms are called towards nodes comes from this. Drawn, since other gateways count their rooms from 1 too
    /// and may share a node.
    names: Option<u64>,
}

impl Drivers {
    pub(crate) fn new(nodes: Vec<Driver>) -> Drivers {
        Drivers { nodes, leases: Leases::new(), names: None }
    }

    fn secret(&self, node: NodeId) -> Option<&Secret> {
        match self.nodes.get(node.0 as usize)? {
            Driver::Agent(secret) => Some(secret),
            Driver::Plain(_) => None,
        }
    }

    /// Two plain nodes that a session would reach at the same address, if there are any: what comes from there could
    /// be of either. `named` are addresses that its offer names.
    pub(crate) fn shared_address(
        &self,
        named: &[(NodeId, SocketAddr)],
        rtcp_apart: bool,
    ) -> Option<(NodeId, NodeId, SocketAddr)> {
        let mut taken = BTreeMap::new();
        for (node, driver) in (0..).map(NodeId).zip(&self.nodes) {
            let Driver::Plain(standing) = driver else { continue };
            let own = named.iter().find(|(at, _)| *at == node).map(|(_, address)| *address);
            let (rtp, rtcp) = ports(own.unwrap_or(*standing), rtcp_apart);
            for address in [rtp, rtcp] {
                let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
                let other = *taken.entry(canonical).or_insert(node);
                if other != node {
                    return Some((other, node, address));
                }
            }
        }
        None
    }

    /// Opens a session at a hop. `address` is the one the offer named for it; `rtcp_apart` where RTCP has a port of
    /// its own, the next one up.
    pub(crate) fn open(
        &mut self,
        wish: &Wish,
        draw: &mut dyn FnMut() -> u64,
        clock: Clock,
    ) -> Option<Act> {
        let &Wish { session, slot, room, hop, address, rtcp_apart } = wish;
        match self.nodes.get(hop.node.0 as usize)? {
            Driver::Plain(standing) => {
                let (address, rtcp) = ports(address.unwrap_or(*standing), rtcp_apart);
                let leg = Leg::Port(Box::new(NodePort { address, rtcp_port: rtcp.port() }));
                Some(Act::Opened { session, hop, leg })
            }
            Driver::Agent(_) => {
                self.leases.end(session, hop);
                let names = *self.names.get_or_insert_with(&mut *draw);
                let name = name(names, room);
                let lease = self.leases.begin((session, hop), name, tag(slot, draw()), draw());
                self.ask(&lease, clock)
            }
        }
    }

    /// Asks the node to open the session, or to keep it open.
    fn ask(&mut self, lease: &Lease, clock: Clock) -> Option<Act> {
        if !lease.open {
            self.leases.asked(lease.nonce, clock.now);
        }
        let question = Question::Open {
            room: lease.room,
            session: lease.session.0,
            tag: lease.tag,
            lease_s: LEASE.as_secs() as u16,
        };
        self.sign(lease.session, lease.hop.node, &question, lease.nonce, clock)
    }

    fn sign(
        &self,
        session: SessionId,
        node: NodeId,
        question: &Question,
        nonce: u64,
        clock: Clock,
    ) -> Option<Act> {
        let mut message = Vec::new();
        question.write(self.secret(node)?, nonce, clock.unix_us, &mut message);
        Some(Act::Sign { session, node, message: message.into() })
    }

    /// Closes a session at a hop. The message may be lost; the lease ends it then.
    pub(crate) fn close(&mut self, session: SessionId, hop: Hop, clock: Clock) -> Option<Act> {
        let lease = self.leases.end(session, hop)?;
        self.sign(session, hop.node, &Question::Close { tag: lease.tag }, lease.nonce, clock)
    }

    /// A signed message came from a node.
    pub(crate) fn handle_signed(
        &mut self,
        node: NodeId,
        message: &[u8],
        clock: Clock,
    ) -> Option<Act> {
        let verified = Answer::read(message, self.secret(node)?, clock.unix_us).ok()?;
        let lease = self.leases.by_nonce(verified.nonce)?;
        let Answer::Open { tag, status } = verified.message else {
            return None;
        };
        let Lease { session, hop, .. } = *lease;
        if hop.node != node || tag != lease.tag {
            return None;
        }
        match status {
            Status::Ok if lease.open => None,
            Status::Ok => {
                lease.open = true;
                Some(Act::Opened { session, hop, leg: Leg::Trunk(tag) })
            }
            Status::Full | Status::Draining | Status::UnknownTag => {
                self.leases.end(session, hop)?;
                let unwilling = status != Status::UnknownTag;
                Some(Act::Refused { session, hop, unwilling })
            }
        }
    }

    /// What is due: openings to ask again, leases to refresh.
    pub(crate) fn handle_timeout(&mut self, clock: Clock) -> Option<Act> {
        let lease = self.leases.due(clock.now)?;
        self.ask(&lease, clock)
    }
}

/// The name of a room: another one for each, by a mixing that loses nothing (SplitMix64).
fn name(names: u64, room: RoomId) -> u64 {
    let mut mixed = names.wrapping_add(room.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Where a plain node takes RTP and RTCP: on one port, or RTCP on the next one up.
fn ports(address: SocketAddr, rtcp_apart: bool) -> (SocketAddr, SocketAddr) {
    let next = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
    (address, if rtcp_apart { next } else { address })
}

/// Where a session is to be opened.
pub(crate) struct Wish {
    pub(crate) session: SessionId,
    /// Its place at its worker.
    pub(crate) slot: u32,
    pub(crate) room: RoomId,
    pub(crate) hop: Hop,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) rtcp_apart: bool,
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    /// Microseconds since the Unix epoch.
    pub(crate) unix_us: u64,
}

impl Clock {
    pub(crate) fn read() -> Clock {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Clock { now: Instant::now(), unix_us: unix.map_or(0, |since| since.as_micros() as u64) }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Incarnation;
    use evenkeel_media::trunk::Tag;

    use super::*;

    const HOP: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
    const SESSION: SessionId = SessionId(7);

    fn secret() -> Secret {
        Secret::new(b"a secret of some length").unwrap()
    }

    fn at(start: Instant, ms: u64) -> Clock {
        Clock { now: start + Duration::from_millis(ms), unix_us: 1_000_000_000 + ms * 1_000 }
    }

    fn wish() -> Wish {
        Wish {
            session: SESSION,
            slot: 3,
            room: RoomId(1),
            hop: HOP,
            address: None,
            rtcp_apart: true,
        }
    }

    fn question(act: Option<Act>, clock: Clock) -> (Question, u64) {
        let Some(Act::Sign { message, .. }) = act else { panic!("{act:?}") };
        let verified = Question::read(&message, &secret(), clock.unix_us).unwrap();
        (verified.message, verified.nonce)
    }

    fn answer(status: Status, tag: Tag, nonce: u64, clock: Clock) -> Vec<u8> {
        let mut message = Vec::new();
        Answer::Open { tag, status }.write(&secret(), nonce, clock.unix_us, &mut message);
        message
    }

    fn opening(start: Instant) -> (Drivers, Tag, u64) {
        let mut drivers = Drivers::new(vec![Driver::Agent(secret())]);
        let mut next = 40;
        let mut draw = || {
            next += 1;
            next
        };
        let (asked, nonce) = question(drivers.open(&wish(), &mut draw, at(start, 0)), at(start, 0));
        let Question::Open { session: 7, tag, .. } = asked else { panic!("{asked:?}") };
        (drivers, tag, nonce)
    }

    #[test]
    fn a_session_is_open_once_the_node_says_so_and_is_kept_open() {
        let start = Instant::now();
        let (mut drivers, tag, nonce) = opening(start);
        let opened = drivers.handle_signed(
            HOP.node,
            &answer(Status::Ok, tag, nonce, at(start, 1)),
            at(start, 1),
        );
        assert!(
            matches!(opened, Some(Act::Opened { session: SESSION, hop: HOP, leg: Leg::Trunk(t) }) if t == tag)
        );
        assert!(drivers.handle_timeout(at(start, 2)).is_none());
        assert!(drivers.handle_timeout(at(start, 8_001)).is_none());
        let (refresh, _) = question(drivers.handle_timeout(at(start, 8_002)), at(start, 8_002));
        assert!(matches!(refresh, Question::Open { tag: same, .. } if same == tag));
        let again = drivers.handle_signed(
            HOP.node,
            &answer(Status::Ok, tag, nonce, at(start, 8_003)),
            at(start, 8_003),
        );
        assert!(again.is_none(), "a refresh opens nothing anew");
    }

    #[test]
    fn an_opening_without_an_answer_is_asked_again() {
        let start = Instant::now();
        let (mut drivers, tag, _) = opening(start);
        assert!(drivers.handle_timeout(at(start, 49)).is_none());
        let (again, _) = question(drivers.handle_timeout(at(start, 50)), at(start, 50));
        assert!(matches!(again, Question::Open { tag: same, .. } if same == tag));
    }

    #[test]
    fn a_refusal_is_told_and_asks_no_more() {
        let start = Instant::now();
        let (mut drivers, tag, nonce) = opening(start);
        let refused = drivers.handle_signed(
            HOP.node,
            &answer(Status::Full, tag, nonce, at(start, 1)),
            at(start, 1),
        );
        let told = Some(Act::Refused { session: SESSION, hop: HOP, unwilling: true });
        assert_eq!(format!("{refused:?}"), format!("{told:?}"));
        assert!(drivers.handle_timeout(at(start, 60_000)).is_none());
    }

    #[test]
    fn a_room_has_one_drawn_name() {
        let start = Instant::now();
        let named = |drawn: u64, rooms: &[u64]| -> Vec<u64> {
            let mut drivers = Drivers::new(vec![Driver::Agent(secret())]);
            let name = |(session, room): (u64, &u64)| {
                let wish = Wish { session: SessionId(session), room: RoomId(*room), ..wish() };
                let act = drivers.open(&wish, &mut || drawn, at(start, 0));
                let (asked, _) = question(act, at(start, 0));
                let Question::Open { room, .. } = asked else { panic!("{asked:?}") };
                room
            };
            (1..).zip(rooms).map(name).collect()
        };
        let names = named(1_000, &[1, 1, 2]);
        assert_eq!(names[0], names[1], "by all of its sessions");
        assert_ne!(names[0], names[2]);
        assert_ne!(names[0], named(1_001, &[1])[0], "another gateway's first room");
    }

    #[test]
    fn an_answer_with_another_tag_or_from_another_node_opens_nothing() {
        let start = Instant::now();
        let (mut drivers, tag, nonce) = opening(start);
        let foreign = answer(Status::Ok, Tag(tag.0 + 1), nonce, at(start, 1));
        assert!(drivers.handle_signed(HOP.node, &foreign, at(start, 1)).is_none());
        let mut forged = answer(Status::Ok, tag, nonce, at(start, 1));
        *forged.last_mut().unwrap() ^= 1;
        assert!(drivers.handle_signed(HOP.node, &forged, at(start, 1)).is_none());
    }

    #[test]
    fn a_closed_session_is_not_kept_open() {
        let start = Instant::now();
        let (mut drivers, tag, _) = opening(start);
        let (closed, _) = question(drivers.close(SESSION, HOP, at(start, 1)), at(start, 1));
        assert_eq!(closed, Question::Close { tag });
        assert!(drivers.handle_timeout(at(start, 60_000)).is_none());
    }

    #[test]
    fn a_plain_node_is_reached_where_the_offer_says() {
        let standing: SocketAddr = "10.0.0.1:4000".parse().unwrap();
        let named: SocketAddr = "10.0.0.1:5000".parse().unwrap();
        let mut drivers = Drivers::new(vec![Driver::Plain(standing)]);
        let mut open = |address| match drivers.open(
            &Wish { address, ..wish() },
            &mut || 0,
            at(Instant::now(), 0),
        ) {
            Some(Act::Opened { leg: Leg::Port(port), .. }) => (port.address, port.rtcp_port),
            act => panic!("{act:?}"),
        };
        assert_eq!(open(None), (standing, 4_001));
        assert_eq!(open(Some(named)), (named, 5_001));
    }

    #[test]
    fn two_nodes_of_a_session_share_no_address() {
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let node = |port| Driver::Plain(at(port));
        let drivers = Drivers::new(vec![node(4_000), node(4_001), Driver::Agent(secret())]);
        let (a, b) = (NodeId(0), NodeId(1));
        assert_eq!(drivers.shared_address(&[], false), None);
        assert_eq!(drivers.shared_address(&[], true), Some((a, b, at(4_001))));
        assert_eq!(drivers.shared_address(&[(b, at(4_002))], true), None);
        assert_eq!(drivers.shared_address(&[(b, at(4_000))], false), Some((a, b, at(4_000))));
        let mapped = "[::ffff:10.0.0.1]:4000".parse().unwrap();
        assert!(drivers.shared_address(&[(b, mapped)], false).is_some());
        let tunnelled = [(NodeId(2), at(4_000))];
        assert_eq!(drivers.shared_address(&tunnelled, false), None, "a trunk has tags");
    }
}
