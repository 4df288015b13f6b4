//! I1, I2, I7 and sequence numbers: what happens to packets.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_model::{Board, Epoch, Hop, HopGrant, RedundancyMode, RoomId, SessionId};

use super::Scene;

/// Longest duration of a make-before-break.
pub(super) const BREAK_WITHIN: Duration = Duration::from_millis(500);

/// Outgoing sequence numbers remembered per stream.
const NUMBERS: usize = 256;

/// Received packets remembered per session.
const HEARD_MAX: usize = 128;

type Found = Option<(&'static str, String)>;

/// A client's packet for a node.
pub(crate) struct Passed {
    pub(crate) session: SessionId,
    pub(crate) room: RoomId,
    pub(crate) hop: Hop,
    /// The second hop in hitless mode.
    pub(crate) copy: Option<Hop>,
    pub(crate) epoch: Option<Epoch>,
}

/// A node's packet for a client.
pub(crate) struct Delivered {
    pub(crate) session: SessionId,
    pub(crate) room: RoomId,
    pub(crate) hop: Hop,
    /// The rooms of the receiver and of the sender.
    pub(crate) heard_in: u32,
    pub(crate) said_in: u32,
    /// The sender, and its packet counter.
    pub(crate) origin: u32,
    pub(crate) index: u32,
    pub(crate) video: bool,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
}

#[derive(Default)]
pub(super) struct Hops {
    /// Sessions by id; ids are dense.
    sessions: Vec<Session>,
    /// The last packet's epoch, hop and session, by room.
    rooms: BTreeMap<RoomId, (Epoch, Hop, SessionId)>,
    /// The hops that carry hitless rooms, and since when.
    carriers: BTreeMap<RoomId, (Carriers, Instant)>,
}

type Carriers = Option<(Hop, Option<Hop>)>;

/// Sender, packet counter, and whether it is video.
type PacketKey = (u32, u32, bool);

#[derive(Default)]
struct Session {
    last: Option<(Epoch, Hop)>,
    numbers: Vec<Stream>,
    /// Recently received packets in any order of sequence numbers, with hop and time.
    heard: VecDeque<(PacketKey, Hop, Instant)>,
}

struct Stream {
    ssrc: u32,
    used: Box<[Option<Used>; NUMBERS]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Used {
    sequence: u16,
    origin: u32,
    index: u32,
    video: bool,
}

impl Hops {
    fn session(&mut self, id: SessionId) -> &mut Session {
        let place = id.0 as usize;
        if self.sessions.len() <= place {
            self.sessions.resize_with(place + 1, Session::default);
        }
        &mut self.sessions[place]
    }

    pub(super) fn forget(&mut self, id: SessionId) {
        *self.session(id) = Session::default();
    }

    /// Updates the carriers of hitless rooms after the core's outputs.
    pub(super) fn update(&mut self, scene: &Scene, now: Instant) {
        self.rooms.retain(|id, _| scene.rooms.contains_key(id));
        self.carriers.retain(|id, _| scene.rooms.contains_key(id));
        for (id, room) in &scene.rooms {
            if room.route.load().mode != RedundancyMode::Hitless {
                self.carriers.remove(id);
                continue;
            }
            let carriers = room.route.carriers(&scene.board);
            let seen = self.carriers.entry(*id).or_insert((carriers, now));
            if seen.0 != carriers {
                *seen = (carriers, now);
            }
        }
    }

    /// I1: a packet goes to one hop; in hitless mode to the two admitted ones.
    pub(super) fn check_copies(sent: &Passed, scene: &Scene) -> Found {
        let copy = sent.copy?;
        let route = scene.rooms.get(&sent.room)?.route.load_full();
        let admitted = |(hop, grant): &(Hop, HopGrant)| {
            *grant == HopGrant::Admitted && (*hop == sent.hop || *hop == copy)
        };
        let both = route.hops.iter().take(2).filter(|hop| admitted(hop)).count() == 2;
        (route.mode != RedundancyMode::Hitless || !both || copy == sent.hop).then(|| {
            let text =
                format!("{} is sent to {:?} and {copy:?} by {route:?}", sent.session, sent.hop);
            ("I1", text)
        })
    }

    /// I1: within an epoch, all packets of a session go to the same first hop.
    pub(super) fn check_one_hop(&mut self, sent: &Passed) -> Found {
        let (last, hop) = self.session(sent.session).last?;
        (Some(last) == sent.epoch && hop != sent.hop).then(|| {
            (
                "I1",
                format!(
                    "{} is sent to {:?} and {:?} in one epoch {last:?}",
                    sent.session, hop, sent.hop
                ),
            )
        })
    }

    /// I2: the epoch never decreases.
    pub(super) fn check_epoch(&mut self, sent: &Passed) -> Found {
        let Some(epoch) = sent.epoch else {
            return Some((
                "I2",
                format!("{} is sent to {:?}, which is not usable", sent.session, sent.hop),
            ));
        };
        let last = self.session(sent.session).last.replace((epoch, sent.hop));
        let (last, hop) = last.filter(|(last, _)| *last > epoch)?;
        Some((
            "I2",
            format!(
                "{} went from {last:?} at {hop:?} back to {epoch:?} at {:?}",
                sent.session, sent.hop
            ),
        ))
    }

    /// I7: all packets of a room go to the same hop at a time: no session uses an epoch that another session of the room has
    /// left.
    pub(super) fn check_split(&mut self, sent: &Passed) -> Found {
        let epoch = sent.epoch?;
        let last = self.rooms.insert(sent.room, (epoch, sent.hop, sent.session));
        let (last, hop, other) = last.filter(|(.., other)| *other != sent.session)?;
        (epoch < last || epoch == last && hop != sent.hop).then(|| {
            let Passed { session, room, hop: to, .. } = sent;
            let text = format!("room {room} is split: {other} goes to {hop:?} by {last:?}, and {session} to {to:?} by {epoch:?}");
            ("I7", text)
        })
    }

    /// I1: in hitless mode a client receives each packet once, although two hops deliver it. While hops of the room change,
    /// a new hop may repeat packets of a hop that was left.
    pub(super) fn check_once(
        &mut self,
        got: &Delivered,
        scene: &Scene,
        board: &Board,
        now: Instant,
    ) -> Found {
        let room = scene.rooms.get(&got.room)?;
        if room.route.load().mode != RedundancyMode::Hitless {
            return None;
        }
        let changed = self.carriers.get(&got.room).map(|(_, since)| *since);
        let heard = &mut self.session(got.session).heard;
        let said = (got.origin, got.index, got.video);
        let before = heard.iter().find(|(other, hop, _)| *other == said && *hop != got.hop);
        let before = before.map(|(_, hop, at)| (*hop, *at));
        if heard.len() == HEARD_MAX {
            heard.pop_front();
        }
        heard.push_back((said, got.hop, now));
        let (before, at) = before?;
        let (first, second) = room.route.carriers(board)?;
        let carries = |hop: Hop| hop == first || Some(hop) == second;
        let anew = changed.is_none_or(|since| now - since < BREAK_WITHIN && at <= since);
        let changes = changed.is_none_or(|since| now - since < BREAK_WITHIN);
        if anew || changes && !(carries(before) && carries(got.hop)) {
            return None;
        }
        let Delivered { session, index, origin, hop, .. } = got;
        let text =
            format!("{session} got packet {index} of client {origin} from {before:?} and {hop:?}");
        Some(("I1", text))
    }

    /// A sequence number of a stream is used for one packet only.
    pub(super) fn check_numbers(&mut self, got: &Delivered) -> Found {
        let session = self.session(got.session);
        let at = session.numbers.iter().position(|stream| stream.ssrc == got.ssrc).unwrap_or_else(
            || {
                session.numbers.push(Stream { ssrc: got.ssrc, used: Box::new([None; NUMBERS]) });
                session.numbers.len() - 1
            },
        );
        let used =
            Used { sequence: got.sequence, origin: got.origin, index: got.index, video: got.video };
        let place = usize::from(got.sequence) % NUMBERS;
        let before = session.numbers[at].used[place].replace(used)?;
        (before.sequence == used.sequence && before != used).then(|| {
            let Used { sequence, origin, index, .. } = before;
            let first = format!("packet {index} of client {origin}");
            let second = format!("packet {} of client {}", got.index, got.origin);
            (
                "numbers",
                format!(
                    "{} got {first} and {second} both as {sequence} of {:08x}",
                    got.session, got.ssrc
                ),
            )
        })
    }
}

/// I1: a make-before-break ends in time.
pub(super) fn check_break(scene: &Scene, now: Instant) -> Found {
    scene.rooms.iter().find_map(|(id, room)| {
        let (left, until) = room.route.load().leaving()?;
        (until > now + BREAK_WITHIN)
            .then(|| ("I1", format!("room {id} still accepts {left:?} for {:?}", until - now)))
    })
}

/// I7: no client receives packets of another room.
pub(super) fn check_room(got: &Delivered) -> Found {
    (got.heard_in != got.said_in).then(|| {
        let Delivered { session, heard_in, said_in, origin, index, .. } = got;
        ("I7", format!("{session} of room {heard_in} got packet {index} of client {origin}, sent in room {said_in}"))
    })
}
