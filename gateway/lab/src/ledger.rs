//! The ledger: all packets that sessions sent and received, and the evaluation of them.
//!
//! Nothing is evaluated while packets flow; all figures come from the same records afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evenkeel_process::lock;
use serde::Serialize;

use crate::clock::nanoseconds;

/// Packets of the old node within this time after the first packet of the new one are stragglers; a later packet is a
/// change back. The time is twice the length of a make-before-break.
const STRAGGLING_NS: u64 = 1_000_000_000;

/// Packets sent this long before a node's death may be lost with it, if the node had received but not forwarded them.
const BEFORE_DEATH_NS: u64 = 40_000_000;

/// The longest loss across which sequence numbers are interpolated.
const LOST_IN_A_ROW: u16 = 500;

/// Sequence numbers that a change of node may add or take beside the number of lost packets: two video frames, since an
/// estimate from elapsed time does not know where a frame ended.
const SEQUENCE_OFF: u16 = 12;

/// Milliseconds by which a timestamp may differ from elapsed time at a change of node: the delay that a loaded machine
/// adds between a packet's due time and its passing the gateway.
const TIMESTAMP_OFF_MS: u32 = 80;

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

/// A receiver's change from one node to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NodeSwitch {
    pub(crate) receiver: u64,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Arrival of the last packet of the old node: nanoseconds since the Unix epoch.
    pub(crate) last_ns: u64,
    /// Arrival of the first packet of the new node.
    pub(crate) first_ns: u64,
    /// Packets of the old node after the first packet of the new one.
    pub(crate) stragglers: u64,
    /// Arrival of the last straggler.
    pub(crate) straggled_ns: Option<u64>,
}

impl NodeSwitch {
    /// Time from the last packet of the old node to the first packet of the new one.
    pub(crate) fn gap_ns(&self) -> u64 {
        self.first_ns.saturating_sub(self.last_ns)
    }
}

/// A pause between two packets of a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReceiverGap {
    pub(crate) receiver: u64,
    pub(crate) gap_ns: u64,
}

/// A distribution in milliseconds: median, 99th percentile (nearest rank), maximum. All 0 without samples.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct GapSpread {
    /// Median in milliseconds; 0 without a value.
    pub p50: f64,
    /// 99th percentile in milliseconds.
    pub p99: f64,
    /// Maximum in milliseconds.
    pub max: f64,
}

impl GapSpread {
    /// The spread of values in nanoseconds.
    pub fn of_ns(values: Vec<u64>) -> Self {
        let values = values.into_iter().map(|ns| ns as f64 / 1e6).collect();
        let [p50, p99, max] = ranks(values, [50, 99, 100]).map(Option::unwrap_or_default);
        Self { p50, p99, max }
    }
}

/// Percentiles by nearest rank; `None` without values.
pub(crate) fn ranks<const N: usize>(mut values: Vec<f64>, percent: [usize; N]) -> [Option<f64>; N] {
    values.sort_unstable_by(f64::total_cmp);
    percent.map(|percent| {
        let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
        values.get(index).copied()
    })
}

/// Two receivers of one room that received from different nodes at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Split {
    pub(crate) room: u64,
    pub(crate) receivers: (u64, u64),
    pub(crate) nodes: (u32, u32),
    /// Start: nanoseconds since the Unix epoch.
    pub(crate) from_ns: u64,
    /// Duration in nanoseconds.
    pub(crate) lasted_ns: u64,
}

/// A period in which a receiver received from one node.
struct NodePeriod {
    node: u32,
    from_ns: u64,
    until_ns: u64,
}

/// All sent and received packets.
///
/// In a room with one session, and with nodes that echo, a session's packets are due to itself. Otherwise each member's packets are due
/// to all others of the room, and the echo of a member's own packets is ignored.
#[derive(Clone, Default, Debug)]
pub struct PacketLedger {
    sent: BTreeMap<(u64, u8), Vec<SentPacket>>,
    arrivals: BTreeMap<StreamPath, Vec<ReceivedPacket>>,
    members: BTreeMap<u64, RoomParticipant>,
    rooms: BTreeMap<u64, BTreeSet<u64>>,
    echoes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct DuePacket {
    pub(crate) path: StreamPath,
    pub(crate) number: u64,
    /// Send time: nanoseconds since the Unix epoch.
    pub(crate) sent_ns: u64,
}

/// A node that stopped forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Death {
    /// The number of the node in test headers.
    pub(crate) node: u32,
    /// Time of the death: nanoseconds since the Unix epoch.
    pub(crate) died_ns: u64,
    /// Time of the gateway's failover.
    pub(crate) flipped_ns: u64,
}

/// Losses that the gateway did not cause.
#[derive(Clone, Default, Debug)]
pub(crate) struct ExcusedLosses {
    pub(crate) deaths: Vec<Death>,
    /// Packets that the relay dropped towards the gateway, for all receivers: sender, stream, number.
    pub(crate) dropped_up: BTreeSet<(u64, u8, u64)>,
    /// Packets that the relay dropped towards one receiver.
    pub(crate) dropped_down: BTreeSet<(StreamPath, u64)>,
    /// Packets that a degradation dropped for one receiver, as reported by the gateway.
    pub(crate) shed: BTreeSet<(StreamPath, u64)>,
}

/// The missing packets, each in exactly one list.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Account {
    /// Packets lost with a node before the failover, or dropped by the relay.
    pub(crate) lost_to_faults: Vec<DuePacket>,
    /// Packets that a rung dropped.
    pub(crate) shed: Vec<DuePacket>,
    pub(crate) lost: Vec<DuePacket>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ContinuityBreak {
    pub(crate) path: StreamPath,
    /// The number of the packet before.
    pub(crate) after: u64,
    /// The number of the first packet after the discontinuity.
    pub(crate) number: u64,
    pub(crate) nodes: (u32, u32),
    pub(crate) kind: BreakKind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BreakKind {
    Ssrc {
        was: u32,
        is: u32,
    },
    /// The sequence number advanced by another amount than the packets in between.
    Sequence {
        /// Advance of the sender's packet numbers.
        sent: u64,
        /// Advance of the received sequence numbers; negative for a step back.
        received: i16,
    },
    /// The timestamp advanced by another amount than the sender's timestamp.
    Timestamp {
        /// Advance of the sender's timestamp.
        sent: i32,
        /// Advance of the received timestamp.
        received: i32,
    },
}

impl PacketLedger {
    /// Adds a member to a room, or replaces its times.
    pub(crate) fn join(&mut self, member: RoomParticipant) {
        self.members.insert(member.session, member);
        self.rooms.entry(member.room).or_default().insert(member.session);
    }

    /// Nodes return each session's packets to that session only, so that they are due to itself.
    pub(crate) fn expect_echoes(&mut self) {
        self.echoes = true;
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
        Self { members, rooms, echoes: self.echoes, ..Self::default() }
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
        let due = move |session: &u64| self.partners_of(*session).any(talks);
        self.members.keys().copied().filter(due)
    }

    /// Arrival and node of all packets of voice of a receiver, in order of time. Packets of video between them would hide pauses.
    pub fn arrivals_at(&self, receiver: u64) -> Vec<(u64, u32)> {
        let heard = self.heard_in_order(receiver).into_iter();
        let voice = heard.filter(|arrival| arrival.stream == 0);
        voice.map(|arrival| (arrival.at_ns, arrival.node)).collect()
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

    pub(crate) fn sent_by(&self, session: u64) -> u64 {
        self.streams_of(session).map(|stream| stream.len() as u64).sum()
    }

    /// Packets that a session received, duplicates included.
    pub(crate) fn arrived_at(&self, receiver: u64) -> u64 {
        self.heard_by(receiver).count() as u64
    }

    pub(crate) fn member(&self, session: u64) -> Option<&RoomParticipant> {
        self.members.get(&session)
    }

    /// Packets that were due and never arrived, in the order of receiver, sender, stream and number.
    ///
    /// Call this method after the last packets have arrived, or end the due spans with
    /// [`due_between`](Self::due_between).
    pub(crate) fn missing(&self) -> Vec<DuePacket> {
        let mut missing = Vec::new();
        for (&(session, stream), sent) in &self.sent {
            let partners = self.partners_of(session);
            for receiver in partners.filter_map(|partner| self.members.get(&partner)) {
                let path = StreamPath { receiver: receiver.session, sender: session, stream };
                let arrivals = self.arrivals.get(&path).into_iter().flatten();
                let numbers: BTreeSet<u64> = arrivals.map(|arrival| arrival.number).collect();
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
            self.partners_of(member.session).any(|sender| {
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

    /// The sessions of its room that exchange packets with it.
    fn partners_of(&self, session: u64) -> impl Iterator<Item = u64> {
        let room = self.members.get(&session).and_then(|member| self.rooms.get(&member.room));
        let to_itself = self.echoes || room.is_some_and(|room| room.len() == 1);
        room.into_iter().flatten().copied().filter(move |&other| (other == session) == to_itself)
    }

    /// Every change of node of every receiver, in the order of receiver and time.
    pub(crate) fn switches(&self) -> Vec<NodeSwitch> {
        self.members.keys().flat_map(|&receiver| self.switches_of(receiver)).collect()
    }

    fn switches_of(&self, receiver: u64) -> Vec<NodeSwitch> {
        let mut switches: Vec<NodeSwitch> = Vec::new();
        let mut present: Option<(u32, u64)> = None;
        for arrival in self.heard_in_order(receiver) {
            let Some((node, last_ns)) = present else {
                present = Some((arrival.node, arrival.at_ns));
                continue;
            };
            if arrival.node == node {
                present = Some((node, arrival.at_ns));
                continue;
            }
            if let Some(switch) = switches.last_mut()
                && arrival.node == switch.from
                && arrival.at_ns.saturating_sub(switch.first_ns) < STRAGGLING_NS
            {
                switch.stragglers += 1;
                switch.straggled_ns = Some(arrival.at_ns);
                continue;
            }
            switches.push(NodeSwitch {
                receiver,
                from: node,
                to: arrival.node,
                last_ns,
                first_ns: arrival.at_ns,
                stragglers: 0,
                straggled_ns: None,
            });
            present = Some((arrival.node, arrival.at_ns));
        }
        switches
    }

    /// The pause of each receiver across this moment, for comparison with a change of node.
    ///
    /// A receiver without packets before or after the moment is omitted.
    pub(crate) fn gaps_at(&self, at_ns: u64) -> Vec<ReceiverGap> {
        let gap_of = |&receiver: &u64| {
            let heard = || self.heard_by(receiver).map(|arrival| arrival.at_ns);
            let before = heard().filter(|&ns| ns <= at_ns).max()?;
            let after = heard().filter(|&ns| ns > at_ns).min()?;
            Some(ReceiverGap { receiver, gap_ns: after - before })
        };
        self.members.keys().filter_map(gap_of).collect()
    }

    /// Periods in which two receivers of a room received from different nodes for longer than a switch takes.
    ///
    /// `switch_max` allows for packets in flight at a failover or a make-before-break.
    pub(crate) fn splits(&self, switch_max: Duration) -> Vec<Split> {
        let longest = nanoseconds(switch_max);
        let stints: BTreeMap<u64, Vec<NodePeriod>> =
            self.members.keys().map(|&receiver| (receiver, self.stints_of(receiver))).collect();
        let mut splits = Vec::new();
        for (&room, sessions) in &self.rooms {
            for &one in sessions {
                for &other in sessions.range(one + 1..) {
                    for mine in &stints[&one] {
                        let elsewhere = |theirs: &&NodePeriod| theirs.node != mine.node;
                        for theirs in stints[&other].iter().filter(elsewhere) {
                            let from_ns = mine.from_ns.max(theirs.from_ns);
                            let lasted_ns =
                                mine.until_ns.min(theirs.until_ns).saturating_sub(from_ns);
                            let (receivers, nodes) = ((one, other), (mine.node, theirs.node));
                            let split = Split { room, receivers, nodes, from_ns, lasted_ns };
                            splits.extend((lasted_ns > longest).then_some(split));
                        }
                    }
                }
            }
        }
        splits
    }

    fn stints_of(&self, receiver: u64) -> Vec<NodePeriod> {
        let mut heard = self.heard_in_order(receiver).into_iter();
        let Some(first) = heard.next() else { return Vec::new() };
        let last_ns = heard.next_back().map_or(first.at_ns, |arrival| arrival.at_ns);
        let mut stints =
            vec![NodePeriod { node: first.node, from_ns: first.at_ns, until_ns: last_ns }];
        for switch in self.switches_of(receiver) {
            if let Some(stint) = stints.last_mut() {
                stint.until_ns = switch.last_ns;
            }
            stints.push(NodePeriod {
                node: switch.to,
                from_ns: switch.first_ns,
                until_ns: last_ns,
            });
        }
        stints
    }

    /// Attributes each missing packet.
    ///
    /// A death excuses packets of rooms on that node (by the stamp of the room's last packet before it) that were sent
    /// from 40 ms before the death until the failover.
    pub(crate) fn account(&self, excuses: &ExcusedLosses) -> Account {
        let hit: Vec<(Death, BTreeSet<u64>)> = excuses
            .deaths
            .iter()
            .map(|&death| (death, self.rooms_on(death.node, death.died_ns)))
            .collect();
        let mut account = Account::default();
        for packet in self.missing() {
            let DuePacket { path, number, sent_ns } = packet;
            let room = self.member(path.sender).map(|member| member.room);
            let died_with_its_node = hit.iter().any(|(death, rooms)| {
                let window = death.died_ns.saturating_sub(BEFORE_DEATH_NS)..death.flipped_ns;
                room.is_some_and(|room| rooms.contains(&room)) && window.contains(&sent_ns)
            });
            let kept_by_relay = excuses.dropped_up.contains(&(path.sender, path.stream, number))
                || excuses.dropped_down.contains(&(path, number));
            if died_with_its_node || kept_by_relay {
                account.lost_to_faults.push(packet);
            } else if excuses.shed.contains(&(path, number)) {
                account.shed.push(packet);
            } else {
                account.lost.push(packet);
            }
        }
        account
    }

    /// The packet with this SSRC and sequence number at a receiver, extrapolated from the last arrival if it was lost.
    /// `None` without an arrival shortly before.
    pub(crate) fn find_packet(
        &self,
        receiver: u64,
        ssrc: u32,
        sequence: u16,
        before_ns: u64,
    ) -> Option<(StreamPath, u64)> {
        let behind = |arrival: &ReceivedPacket| sequence.wrapping_sub(arrival.sequence);
        let close = |arrival: &&ReceivedPacket| {
            arrival.ssrc == ssrc && arrival.at_ns <= before_ns && behind(arrival) < LOST_IN_A_ROW
        };
        let paths = self.paths_to(receiver);
        let last = paths.filter_map(|(&path, arrivals)| {
            let last = arrivals.iter().filter(close).max_by_key(|arrival| arrival.number)?;
            Some((path, *last))
        });
        let (path, last) = last.max_by_key(|(_, arrival)| arrival.at_ns)?;
        Some((path, last.number + u64::from(behind(&last))))
    }

    /// Rooms with this node's stamp in their last packet before this time.
    pub(crate) fn rooms_on(&self, node: u32, at_ns: u64) -> BTreeSet<u64> {
        let on_it = |sessions: &BTreeSet<u64>| {
            let heard = sessions.iter().flat_map(|&session| self.heard_by(session));
            let last =
                heard.filter(|arrival| arrival.at_ns <= at_ns).max_by_key(|arrival| arrival.at_ns);
            last.is_some_and(|arrival| arrival.node == node)
        };
        self.rooms.iter().filter(|(_, sessions)| on_it(sessions)).map(|(&room, _)| room).collect()
    }

    /// Every discontinuity of every stream.
    ///
    /// On one node the offset between sent and received numbers must not change, except that sequence numbers may close
    /// over missing packets. A tolerance applies at a change of node. Sequence numbers must always increase.
    pub(crate) fn continuity_breaks(&self) -> Vec<ContinuityBreak> {
        let mut breaks = Vec::new();
        for (&path, arrivals) in &self.arrivals {
            let sent = self.sent.get(&(path.sender, path.stream)).map_or(&[][..], Vec::as_slice);
            let mut in_order: Vec<&ReceivedPacket> = arrivals.iter().collect();
            in_order.sort_by_key(|arrival| arrival.number);
            in_order.dedup_by_key(|arrival| arrival.number);
            for pair in in_order.windows(2) {
                let [before, after] = [pair[0], pair[1]];
                let place = |kind| ContinuityBreak {
                    path,
                    after: before.number,
                    number: after.number,
                    nodes: (before.node, after.node),
                    kind,
                };
                breaks.extend(breaks_between(before, after, sent).map(place));
            }
        }
        breaks
    }
}

/// A ledger behind a buffer. Writers wait only for the buffer, never for a reader of the ledger, because waiting would
/// delay packets.
#[derive(Clone, Default)]
pub struct Books {
    ledger: Arc<Mutex<PacketLedger>>,
    tray: Arc<Mutex<RecordBuffer>>,
}

#[derive(Default)]
struct RecordBuffer {
    sent: Vec<SentPacket>,
    arrived: Vec<ReceivedPacket>,
}

impl Books {
    /// Moves these records into the buffer, and leaves both lists empty.
    pub(crate) fn note(&self, sent: &mut Vec<SentPacket>, arrived: &mut Vec<ReceivedPacket>) {
        if sent.is_empty() && arrived.is_empty() {
            return;
        }
        let mut tray = lock(&self.tray);
        tray.sent.append(sent);
        tray.arrived.append(arrived);
    }

    /// The ledger with everything recorded so far.
    pub(crate) fn open(&self) -> MutexGuard<'_, PacketLedger> {
        let mut ledger = lock(&self.ledger);
        let RecordBuffer { sent, arrived } = std::mem::take(&mut *lock(&self.tray));
        sent.into_iter().for_each(|packet| ledger.sent(packet));
        arrived.into_iter().for_each(|arrival| ledger.arrived(arrival));
        ledger
    }

    /// Returns everything recorded so far, and continues with the same members and no packets.
    pub(crate) fn turn(&self) -> PacketLedger {
        let mut ledger = self.open();
        let next = ledger.next_page();
        std::mem::replace(&mut *ledger, next)
    }
}

impl ExcusedLosses {
    pub(crate) fn add_relay(&mut self, dropped: &[crate::relay::RelayDrop]) {
        for drop in dropped {
            let Some(mark) = drop.mark else { continue };
            match drop.direction {
                crate::relay::Direction::Up => {
                    self.dropped_up.insert((mark.session, mark.stream, mark.number));
                }
                crate::relay::Direction::Down => {
                    let path = StreamPath {
                        receiver: drop.lane,
                        sender: mark.session,
                        stream: mark.stream,
                    };
                    self.dropped_down.insert((path, mark.number));
                }
            }
        }
    }
}

fn breaks_between(
    before: &ReceivedPacket,
    after: &ReceivedPacket,
    sent: &[SentPacket],
) -> impl Iterator<Item = BreakKind> {
    let moved = before.node != after.node;
    let ssrc =
        (before.ssrc != after.ssrc).then_some(BreakKind::Ssrc { was: before.ssrc, is: after.ssrc });
    let sequence = sequence_break(before, after, if moved { SEQUENCE_OFF } else { 0 });
    let timestamp = timestamp_break(before, after, sent, if moved { TIMESTAMP_OFF_MS } else { 0 });
    [ssrc, sequence, timestamp].into_iter().flatten()
}

fn sequence_break(
    before: &ReceivedPacket,
    after: &ReceivedPacket,
    tolerance: u16,
) -> Option<BreakKind> {
    let sent = after.number - before.number;
    let received = after.sequence.wrapping_sub(before.sequence).cast_signed();
    let most = i64::try_from(sent).unwrap_or(i64::MAX).saturating_add(i64::from(tolerance));
    // Across a change of node the numbers are an estimate; on one node they may close over missing packets.
    let least =
        if before.node == after.node { 1 } else { (most - 2 * i64::from(tolerance)).max(1) };
    let fits = (least..=most).contains(&i64::from(received));
    // A gap of more than half the number space looks like a step back. Other checks report such a silence.
    (!fits && sent < 32_768).then_some(BreakKind::Sequence { sent, received })
}

fn timestamp_break(
    before: &ReceivedPacket,
    after: &ReceivedPacket,
    sent: &[SentPacket],
    tolerance_ms: u32,
) -> Option<BreakKind> {
    let find =
        |number| sent.binary_search_by_key(&number, |packet| packet.number).ok().map(|i| &sent[i]);
    let (was, is) = (find(before.number)?, find(after.number)?);
    let sent = is.timestamp.wrapping_sub(was.timestamp).cast_signed();
    let received = after.timestamp.wrapping_sub(before.timestamp).cast_signed();
    let off = i64::from(received) - i64::from(sent);
    let tolerance = i64::from(tolerance_ms) * i64::from(is.clock_rate) / 1_000;
    (off.abs() > tolerance).then_some(BreakKind::Timestamp { sent, received })
}

#[cfg(test)]
mod tests;
