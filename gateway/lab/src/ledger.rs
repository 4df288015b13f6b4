//! The ledger: all packets that sessions sent and received, and the evaluation of them.
//!
//! Nothing is evaluated while packets flow; all figures come from the same records afterwards.

mod account;
mod books;
mod continuity;
mod gap;
mod split;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use account::{Account, Death, DuePacket, Excuses};
pub use books::Books;
pub(crate) use continuity::Tolerance;
pub use gap::GapSpread;
pub(crate) use gap::NodeSwitch;

/// A packet that a client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SentPacket {
    pub(crate) session: u64,
    pub(crate) stream: u8,
    /// The index in the stream, from 0. Packets are added in order.
    pub(crate) number: u64,
    /// Send time: nanoseconds since the Unix epoch.
    pub(crate) at_ns: u64,
    /// RTP timestamp as sent.
    pub(crate) timestamp: u32,
    /// RTP timestamp units per second.
    pub(crate) clock_rate: u32,
}

/// A packet that a client received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceivedPacket {
    pub(crate) receiver: u64,
    /// The sending session, from the test header.
    pub(crate) sender: u64,
    pub(crate) stream: u8,
    pub(crate) number: u64,
    pub(crate) node: u32,
    /// Send time from the test header: nanoseconds since the Unix epoch.
    pub(crate) sent_ns: u64,
    /// Arrival time: nanoseconds since the Unix epoch.
    pub(crate) at_ns: u64,
    /// SSRC as it arrived.
    pub(crate) ssrc: u32,
    /// Sequence number as it arrived.
    pub(crate) sequence: u16,
    /// Timestamp as it arrived.
    pub(crate) timestamp: u32,
}

/// A participant of a room, with the time span in which packets of others are due to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoomParticipant {
    pub(crate) session: u64,
    pub(crate) room: u64,
    /// Packets sent at this time or later are due to the member.
    pub(crate) from_ns: u64,
    /// Packets sent at this time or later are not due any more; `u64::MAX` while the member stays.
    pub(crate) until_ns: u64,
}

/// One sender's stream as one receiver sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamPath {
    pub(crate) receiver: u64,
    pub(crate) sender: u64,
    pub(crate) stream: u8,
}

/// All sent and received packets.
///
/// In a room with one session, the session's packets are due to itself. In any other room each member's packets are due
/// to all others, and the echo of a member's own packets is ignored.
#[derive(Clone, Default, Debug)]
pub struct PacketLedger {
    sent: BTreeMap<(u64, u8), Vec<SentPacket>>,
    arrivals: BTreeMap<StreamPath, Vec<ReceivedPacket>>,
    members: BTreeMap<u64, RoomParticipant>,
    rooms: BTreeMap<u64, BTreeSet<u64>>,
}

impl PacketLedger {
    /// Adds a member to a room, or replaces its times.
    pub(crate) fn join(&mut self, member: RoomParticipant) {
        self.members.insert(member.session, member);
        self.rooms.entry(member.room).or_default().insert(member.session);
    }

    /// Ends the span in which packets are due to this session.
    pub(crate) fn leave(&mut self, session: u64, at_ns: u64) {
        if let Some(member) = self.members.get_mut(&session) {
            member.until_ns = member.until_ns.min(at_ns);
        }
    }

    pub(crate) fn forget(&mut self, session: u64) {
        if let Some(member) = self.members.remove(&session)
            && let Some(room) = self.rooms.get_mut(&member.room)
        {
            room.remove(&session);
        }
        self.sent.retain(|(sender, _), _| *sender != session);
        self.arrivals.retain(|path, _| path.receiver != session && path.sender != session);
    }

    /// Only packets sent between these times are due.
    pub(crate) fn due_between(&mut self, from_ns: u64, until_ns: u64) {
        for member in self.members.values_mut() {
            member.from_ns = member.from_ns.max(from_ns);
            member.until_ns = member.until_ns.min(until_ns);
        }
    }

    /// A ledger with the same members and no packets.
    fn next_page(&self) -> Self {
        let (members, rooms) = (self.members.clone(), self.rooms.clone());
        Self { members, rooms, ..Self::default() }
    }

    pub(crate) fn sent(&mut self, packet: SentPacket) {
        self.sent.entry((packet.session, packet.stream)).or_default().push(packet);
    }

    pub(crate) fn arrived(&mut self, arrival: ReceivedPacket) {
        let ReceivedPacket { receiver, sender, stream, .. } = arrival;
        self.arrivals.entry(StreamPath { receiver, sender, stream }).or_default().push(arrival);
    }

    pub(crate) fn sent_count(&self) -> u64 {
        self.sent.values().map(|stream| stream.len() as u64).sum()
    }

    /// Sessions to which packets are due.
    pub fn receivers(&self) -> impl Iterator<Item = u64> {
        let talks = |sender| self.streams_of(sender).next().is_some();
        let due = move |session: &u64| self.senders_to(*session).any(talks);
        self.members.keys().copied().filter(due)
    }

    /// Arrival and node of all packets of a receiver, in order of time.
    pub fn heard(&self, receiver: u64) -> Vec<(u64, u32)> {
        let heard = self.heard_in_order(receiver);
        heard.into_iter().map(|arrival| (arrival.at_ns, arrival.node)).collect()
    }

    /// The longest transit time of packets that arrived since `from_ns`, nanoseconds; 0 without packets.
    pub fn slowest_ns(&self, from_ns: u64) -> u64 {
        let since = self.arrivals.values().flatten().filter(|arrival| arrival.at_ns >= from_ns);
        since.map(|arrival| arrival.at_ns.saturating_sub(arrival.sent_ns)).max().unwrap_or(0)
    }

    /// Received packets, duplicates included.
    pub(crate) fn arrived_count(&self) -> u64 {
        self.arrivals.values().map(|path| path.len() as u64).sum()
    }

    pub(crate) fn member(&self, session: u64) -> Option<&RoomParticipant> {
        self.members.get(&session)
    }

    /// Packets that were due and never arrived, in the order of receiver, sender, stream and number.
    ///
    /// Call this method after the last packets have arrived, or end the due spans with [`leave`](Self::leave).
    pub(crate) fn missing(&self) -> Vec<DuePacket> {
        let mut missing = Vec::new();
        for (&(session, stream), sent) in &self.sent {
            for receiver in self.receivers_of(session) {
                let path = StreamPath { receiver: receiver.session, sender: session, stream };
                let numbers: BTreeSet<u64> =
                    self.path(path).iter().map(|arrival| arrival.number).collect();
                let due = |packet: &&SentPacket| {
                    (receiver.from_ns..receiver.until_ns).contains(&packet.at_ns)
                };
                missing.extend(
                    sent.iter().filter(due).filter(|packet| !numbers.contains(&packet.number)).map(
                        |packet| DuePacket { path, number: packet.number, sent_ns: packet.at_ns },
                    ),
                );
            }
        }
        missing.sort_unstable();
        missing
    }

    /// Packets that arrived at a session of another room, or from an unknown sender.
    pub(crate) fn misdelivered(&self) -> Vec<ReceivedPacket> {
        let together = |path: &StreamPath| {
            let room = |session| self.members.get(&session).map(|member| member.room);
            room(path.receiver).is_some() && room(path.receiver) == room(path.sender)
        };
        self.arrivals
            .iter()
            .filter(|(path, _)| !together(path))
            .flat_map(|(_, all)| all)
            .copied()
            .collect()
    }

    /// Duplicates: each further arrival of a packet at the same receiver.
    pub(crate) fn twice(&self) -> Vec<ReceivedPacket> {
        let again = |all: &Vec<ReceivedPacket>| {
            let mut seen = BTreeSet::new();
            all.iter().filter(|arrival| !seen.insert(arrival.number)).copied().collect::<Vec<_>>()
        };
        self.arrivals.values().flat_map(again).collect()
    }

    /// Members to which packets were due between these times, and at which no packet arrived.
    pub(crate) fn silent(&self, from_ns: u64, until_ns: u64) -> Vec<u64> {
        let due = |member: &RoomParticipant| {
            let window = member.from_ns.max(from_ns)..member.until_ns.min(until_ns);
            self.senders_to(member.session).any(|sender| {
                self.streams_of(sender).flatten().any(|packet| window.contains(&packet.at_ns))
            })
        };
        let heard = |member: &RoomParticipant| {
            self.heard_by(member.session)
                .any(|arrival| (from_ns..until_ns).contains(&arrival.sent_ns))
        };
        self.members
            .values()
            .filter(|&m| due(m) && !heard(m))
            .map(|member| member.session)
            .collect()
    }

    fn path(&self, path: StreamPath) -> &[ReceivedPacket] {
        self.arrivals.get(&path).map_or(&[], Vec::as_slice)
    }

    fn paths_to(&self, receiver: u64) -> impl Iterator<Item = (&StreamPath, &Vec<ReceivedPacket>)> {
        let first = StreamPath { receiver, sender: 0, stream: 0 };
        let last = StreamPath { receiver, sender: u64::MAX, stream: u8::MAX };
        self.arrivals.range(first..=last)
    }

    fn heard_by(&self, receiver: u64) -> impl Iterator<Item = &ReceivedPacket> {
        self.paths_to(receiver).flat_map(|(_, all)| all)
    }

    fn heard_in_order(&self, receiver: u64) -> Vec<&ReceivedPacket> {
        let mut heard: Vec<&ReceivedPacket> = self.heard_by(receiver).collect();
        heard.sort_by_key(|arrival| arrival.at_ns);
        heard
    }

    fn streams_of(&self, session: u64) -> impl Iterator<Item = &Vec<SentPacket>> {
        self.sent.range((session, 0)..=(session, u8::MAX)).map(|(_, sent)| sent)
    }

    fn others_in_room(&self, session: u64) -> impl Iterator<Item = u64> {
        let room = self.members.get(&session).and_then(|member| self.rooms.get(&member.room));
        let alone = room.is_some_and(|room| room.len() == 1);
        room.into_iter().flatten().copied().filter(move |&other| alone || other != session)
    }

    fn senders_to(&self, session: u64) -> impl Iterator<Item = u64> {
        self.others_in_room(session)
    }

    fn receivers_of(&self, session: u64) -> impl Iterator<Item = &RoomParticipant> {
        self.others_in_room(session).filter_map(|other| self.members.get(&other))
    }
}

#[cfg(test)]
mod tests;
