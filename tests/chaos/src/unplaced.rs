//! Rooms of a lost region for which there is no capacity elsewhere.

use std::collections::BTreeSet;

use evenkeel_lab::crowd::ObservationWindow;
use serde::Serialize;

use crate::newcomers::Answer;
use crate::word;

/// A receiver without packets for this long is unheard.
const RECENTLY_NS: u64 = 500_000_000;

/// Rooms without a node, over all turns of a fault.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub(crate) struct UnplacedRooms {
    /// Rooms that exceed the capacity of the remaining nodes.
    pub(crate) due: u64,
    /// Rooms without a node at the end of the fault.
    pub(crate) rooms: u64,
    /// The rooms without a node that the gateway reported.
    pub(crate) told: u64,
    /// Receivers in rooms without a node, which should receive nothing.
    pub(crate) receivers: u64,
    /// Receivers in rooms without a node that still got packets of live nodes.
    pub(crate) half_served: u64,
    /// Times from the end of the fault to each receiver's next packet, nanoseconds.
    #[serde(skip)]
    pub(crate) back_ns: Vec<u64>,
    /// Newcomers that were refused without a time to retry.
    pub(crate) newcomers_not_told: u64,
}

impl UnplacedRooms {
    /// Removes these sessions from the window of a fault that killed the nodes with these numbers. No other figure
    /// includes them.
    pub(crate) fn part(
        window: &mut ObservationWindow,
        sessions: &BTreeSet<u64>,
        dead: &BTreeSet<u32>,
    ) -> UnplacedRooms {
        let receivers: Vec<u64> =
            window.ledger.receivers().filter(|receiver| sessions.contains(receiver)).collect();
        let is_served = |receiver: &&u64| {
            window.ledger.arrivals_at(**receiver).iter().any(|(_, node)| !dead.contains(node))
        };
        let half_served = receivers.iter().filter(is_served).count() as u64;
        let rooms: BTreeSet<u64> = sessions.iter().map(|session| session.div_ceil(2)).collect();
        let nowhere = window.events.iter().filter(|event| {
            event.name == "moved"
                && event.data["to"].is_null()
                && event.data["cause"] == "node-down"
        });
        let told = nowhere.filter_map(|event| {
            let members = event.data["sessions"].as_array().into_iter().flatten();
            members.map(word).find_map(|id| window.by_id.get(&id).copied())
        });
        let told: BTreeSet<u64> = told.map(|session| session.div_ceil(2)).collect();
        let told = told.intersection(&rooms).count() as u64;
        window.forget(sessions);
        let (rooms, receivers) = (rooms.len() as u64, receivers.len() as u64);
        UnplacedRooms { rooms, told, receivers, half_served, ..UnplacedRooms::default() }
    }

    /// Also excludes these sessions from the window after the fault, in which each must receive again.
    pub(crate) fn come_back(
        &mut self,
        window: &mut ObservationWindow,
        sessions: &BTreeSet<u64>,
        healed_ns: u64,
    ) {
        let recently_ns = window.span.end.saturating_sub(RECENTLY_NS);
        for &session in sessions {
            let heard = window.ledger.arrivals_at(session);
            let first =
                heard.first().filter(|_| heard.last().is_some_and(|last| last.0 > recently_ns));
            self.back_ns.extend(first.map(|(at_ns, _)| at_ns.saturating_sub(healed_ns)));
        }
        window.forget(sessions);
    }

    /// Adds the answer to a newcomer.
    pub(crate) fn ask(&mut self, answer: &Answer) {
        self.newcomers_not_told += u64::from(!matches!(answer, Answer::Later(_)));
    }

    /// Adds the counts of another turn.
    pub(crate) fn add(&mut self, other: UnplacedRooms) {
        self.due += other.due;
        self.rooms += other.rooms;
        self.told += other.told;
        self.receivers += other.receivers;
        self.half_served += other.half_served;
        self.back_ns.extend(other.back_ns);
        self.newcomers_not_told += other.newcomers_not_told;
    }

    pub(crate) fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        let mut differ = |what: &str, found: u64, due: u64| {
            if found != due {
                misses.push(format!("{found} {what}, and not {due}"));
            }
        };
        differ("rooms were without a node", self.rooms, self.due);
        differ("of the rooms without a node were reported", self.told, self.rooms);
        differ("of their receivers got packets", self.half_served, 0);
        differ("of their receivers recovered", self.back_ns.len() as u64, self.receivers);
        differ("newcomers got no retry time", self.newcomers_not_told, 0);
        if self.due == 0 {
            misses.push("there was capacity for all rooms".to_owned());
        }
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_due() -> UnplacedRooms {
        let back_ns = vec![1, 2, 3];
        UnplacedRooms {
            due: 3,
            rooms: 3,
            told: 3,
            receivers: 3,
            back_ns,
            ..UnplacedRooms::default()
        }
    }

    #[test]
    fn only_excess_rooms_are_unplaced_and_recover() {
        assert_eq!(as_due().misses(), [""; 0]);
        let others = [
            UnplacedRooms { due: 2, ..as_due() },
            UnplacedRooms { due: 4, ..as_due() },
            UnplacedRooms { told: 2, ..as_due() },
            UnplacedRooms { half_served: 1, ..as_due() },
            UnplacedRooms { back_ns: vec![1, 2], ..as_due() },
            UnplacedRooms { newcomers_not_told: 1, ..as_due() },
        ];
        for other in others {
            assert_eq!(other.misses().len(), 1, "{other:?}");
        }
        assert_eq!(UnplacedRooms::default().misses(), ["there was capacity for all rooms"]);
    }
}
