//! Attributes missing packets to a node that died, to simulated loss, to a degradation, or to the gateway.

use std::collections::BTreeSet;

use super::{PacketLedger, ReceivedPacket, StreamPath};

/// Packets sent this long before a node's death may be lost with it, if the node had received but not forwarded them.
const BEFORE_DEATH_NS: u64 = 40_000_000;

/// The longest loss across which sequence numbers are interpolated.
const LOST_IN_A_ROW: u16 = 500;

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

impl PacketLedger {
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
}
