//! Whose fault a missing packet is: a node that died, the network we spoiled, a rung in force, or the gateway's own.

use std::collections::BTreeSet;

use super::{Arrival, Ledger, Path};

/// How long before a node's death its packets may already be lost with it: what it had taken in and not given back.
const BEFORE_DEATH_NS: u64 = 40_000_000;

/// More packets than this are not lost in a row where one is looked for by its sequence number.
const LOST_IN_A_ROW: u16 = 500;

/// One packet that was due on one path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Packet {
    /// From whom to whom.
    pub path: Path,
    /// Its number in the stream.
    pub number: u64,
    /// When it was sent: nanoseconds since the Unix epoch.
    pub sent_ns: u64,
}

/// A node that stopped forwarding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death {
    /// The node, by the number it stamps.
    pub node: u32,
    /// When it was killed: nanoseconds since the Unix epoch.
    pub died_ns: u64,
    /// When the gateway's board flipped.
    pub flipped_ns: u64,
}

/// What may be held against others than the gateway.
#[derive(Clone, Default, Debug)]
pub struct Excuses {
    pub deaths: Vec<Death>,
    /// What the relay kept on its way up, for every receiver: sender, stream, number.
    pub dropped_up: BTreeSet<(u64, u8, u64)>,
    /// What the relay kept on its way down, for one receiver.
    pub dropped_down: BTreeSet<(Path, u64)>,
    /// What a rung in force dropped, as the gateway reports it, for one receiver.
    pub shed: BTreeSet<(Path, u64)>,
}

/// The missing packets, each in exactly one place.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Account {
    /// Lost with a node before the board flipped, or kept by the relay.
    pub lost_to_faults: Vec<Packet>,
    /// Dropped by a rung on purpose.
    pub shed: Vec<Packet>,
    pub lost: Vec<Packet>,
}

impl Excuses {
    /// Takes in what a relay reports.
    pub fn add_relay(&mut self, dropped: &[crate::relay::Dropped]) {
        for drop in dropped {
            let Some(mark) = drop.mark else { continue };
            match drop.direction {
                crate::relay::Direction::Up => {
                    self.dropped_up.insert((mark.session, mark.stream, mark.number));
                }
                crate::relay::Direction::Down => {
                    let path =
                        Path { receiver: drop.lane, sender: mark.session, stream: mark.stream };
                    self.dropped_down.insert((path, mark.number));
                }
            }
        }
    }
}

impl Ledger {
    /// Sorts what is missing by whose fault it is.
    ///
    /// A death excuses packets of rooms that were on that node when it died (by the stamp of the last packet heard in
    /// the room before), sent from 40 ms before it until the board flipped.
    pub fn account(&self, excuses: &Excuses) -> Account {
        let hit: Vec<(Death, BTreeSet<u64>)> = excuses
            .deaths
            .iter()
            .map(|&death| (death, self.rooms_on(death.node, death.died_ns)))
            .collect();
        let mut account = Account::default();
        for packet in self.missing() {
            let Packet { path, number, sent_ns } = packet;
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

    /// Which packet a receiver got with this SSRC and sequence number, or would have got had nobody lost it: numbers go
    /// on from the last that came up to it. `None` where nothing did shortly before.
    pub fn number_at(
        &self,
        receiver: u64,
        ssrc: u32,
        sequence: u16,
        before_ns: u64,
    ) -> Option<(Path, u64)> {
        let behind = |arrival: &Arrival| sequence.wrapping_sub(arrival.sequence);
        let close = |arrival: &&Arrival| {
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

    /// Rooms whose last packet before this time was stamped by this node.
    pub fn rooms_on(&self, node: u32, at_ns: u64) -> BTreeSet<u64> {
        let on_it = |sessions: &BTreeSet<u64>| {
            let heard = sessions.iter().flat_map(|&session| self.heard_by(session));
            let last =
                heard.filter(|arrival| arrival.at_ns <= at_ns).max_by_key(|arrival| arrival.at_ns);
            last.is_some_and(|arrival| arrival.node == node)
        };
        self.rooms.iter().filter(|(_, sessions)| on_it(sessions)).map(|(&room, _)| room).collect()
    }
}
