//! Who did not fit where a lost region's rooms went.

use std::collections::BTreeSet;

use evenkeel_lab::crowd::Page;
use evenkeel_lab::watch::word;
use serde::Serialize;

use crate::newcomers::Answer;

/// Who heard nothing for so long is not heard.
const RECENTLY_NS: u64 = 500_000_000;

/// Those that had nowhere to go, over all times of a fault.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub(crate) struct LeftOut {
    /// Rooms that there is no room for, by what the nodes that were left can carry.
    pub(crate) due: u64,
    /// Rooms that had no place when the fault was over.
    pub(crate) rooms: u64,
    /// Those of them of which the gateway said so.
    pub(crate) told: u64,
    /// Their receivers, who are to hear nothing,
    pub(crate) receivers: u64,
    /// and those of them who heard somebody else than the dead.
    pub(crate) half_served: u64,
    /// From when the fault was undone until each heard something again, nanoseconds.
    #[serde(skip)]
    pub(crate) back_ns: Vec<u64>,
    /// Newcomers that came meanwhile and were not told when to come again.
    pub(crate) newcomers_not_told: u64,
}

impl LeftOut {
    /// Takes these sessions out of the page of a fault that killed nodes of these numbers: they are in no other figure.
    pub(crate) fn part(page: &mut Page, sessions: &BTreeSet<u64>, dead: &BTreeSet<u32>) -> LeftOut {
        let receivers: Vec<u64> =
            page.ledger().receivers().filter(|receiver| sessions.contains(receiver)).collect();
        let is_served = |receiver: &&u64| {
            page.ledger().heard(**receiver).iter().any(|(_, node)| !dead.contains(node))
        };
        let half_served = receivers.iter().filter(is_served).count() as u64;
        let rooms: BTreeSet<u64> = sessions.iter().map(|session| session.div_ceil(2)).collect();
        let nowhere = page.events().iter().filter(|event| {
            event.name == "moved"
                && event.data["to"].is_null()
                && event.data["cause"] == "node-down"
        });
        let told = nowhere.filter_map(|event| {
            let members = event.data["sessions"].as_array().into_iter().flatten();
            members.map(word).find_map(|id| page.session(&id))
        });
        let told: BTreeSet<u64> = told.map(|session| session.div_ceil(2)).collect();
        let told = told.intersection(&rooms).count() as u64;
        page.forget(sessions);
        let (rooms, receivers) = (rooms.len() as u64, receivers.len() as u64);
        LeftOut { rooms, told, receivers, half_served, ..LeftOut::default() }
    }

    /// Takes them out of the page of the un-fault as well, where each is heard again at its end.
    pub(crate) fn come_back(&mut self, page: &mut Page, sessions: &BTreeSet<u64>, healed_ns: u64) {
        let recently_ns = page.span().end.saturating_sub(RECENTLY_NS);
        for &session in sessions {
            let heard = page.ledger().heard(session);
            let first =
                heard.first().filter(|_| heard.last().is_some_and(|last| last.0 > recently_ns));
            self.back_ns.extend(first.map(|(at_ns, _)| at_ns.saturating_sub(healed_ns)));
        }
        page.forget(sessions);
    }

    /// What a newcomer was told meanwhile.
    pub(crate) fn ask(&mut self, answer: &Answer) {
        self.newcomers_not_told += u64::from(!matches!(answer, Answer::Later(_)));
    }

    /// Adds another time's.
    pub(crate) fn add(&mut self, other: LeftOut) {
        self.due += other.due;
        self.rooms += other.rooms;
        self.told += other.told;
        self.receivers += other.receivers;
        self.half_served += other.half_served;
        self.back_ns.extend(other.back_ns);
        self.newcomers_not_told += other.newcomers_not_told;
    }

    /// What did not hold.
    pub(crate) fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        let mut differ = |what: &str, found: u64, due: u64| {
            if found != due {
                misses.push(format!("{found} {what}, and not {due}"));
            }
        };
        differ("rooms were left out", self.rooms, self.due);
        differ("rooms that were left out were told of", self.told, self.rooms);
        differ("of those left out heard something", self.half_served, 0);
        differ("of those left out were heard again", self.back_ns.len() as u64, self.receivers);
        differ("newcomers were not told when to come again", self.newcomers_not_told, 0);
        if self.due == 0 {
            misses.push("there was room for everybody".to_owned());
        }
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_due() -> LeftOut {
        let back_ns = vec![1, 2, 3];
        LeftOut { due: 3, rooms: 3, told: 3, receivers: 3, back_ns, ..LeftOut::default() }
    }

    #[test]
    fn exactly_those_that_do_not_fit_are_left_out_and_told_and_wholly_and_come_back() {
        assert_eq!(as_due().misses(), [""; 0]);
        let others = [
            LeftOut { due: 2, ..as_due() },
            LeftOut { due: 4, ..as_due() },
            LeftOut { told: 2, ..as_due() },
            LeftOut { half_served: 1, ..as_due() },
            LeftOut { back_ns: vec![1, 2], ..as_due() },
            LeftOut { newcomers_not_told: 1, ..as_due() },
        ];
        for other in others {
            assert_eq!(other.misses().len(), 1, "{other:?}");
        }
        assert_eq!(LeftOut::default().misses(), ["there was room for everybody"]);
    }
}
