//! Finds times at which the receivers of a room received from different nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::PacketLedger;
use crate::clock;

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
struct Stint {
    node: u32,
    from_ns: u64,
    until_ns: u64,
}

impl PacketLedger {
    /// Periods in which two receivers of a room received from different nodes for longer than a switch takes.
    ///
    /// `switch_max` allows for packets in flight at a failover or a make-before-break.
    pub(crate) fn splits(&self, switch_max: Duration) -> Vec<Split> {
        let longest = clock::nanoseconds(switch_max);
        let stints: BTreeMap<u64, Vec<Stint>> =
            self.members.keys().map(|&receiver| (receiver, self.stints_of(receiver))).collect();
        let mut splits = Vec::new();
        for (&room, sessions) in &self.rooms {
            for &one in sessions {
                for &other in sessions.range(one + 1..) {
                    for mine in &stints[&one] {
                        for theirs in
                            stints[&other].iter().filter(|theirs| theirs.node != mine.node)
                        {
                            let from_ns = mine.from_ns.max(theirs.from_ns);
                            let lasted_ns =
                                mine.until_ns.min(theirs.until_ns).saturating_sub(from_ns);
                            if lasted_ns > longest {
                                let nodes = (mine.node, theirs.node);
                                splits.push(Split {
                                    room,
                                    receivers: (one, other),
                                    nodes,
                                    from_ns,
                                    lasted_ns,
                                });
                            }
                        }
                    }
                }
            }
        }
        splits
    }

    fn stints_of(&self, receiver: u64) -> Vec<Stint> {
        let mut heard = self.heard_in_order(receiver).into_iter();
        let Some(first) = heard.next() else { return Vec::new() };
        let last_ns = heard.next_back().map_or(first.at_ns, |arrival| arrival.at_ns);
        let mut stints = vec![Stint { node: first.node, from_ns: first.at_ns, until_ns: last_ns }];
        for switch in self.switches_of(receiver) {
            if let Some(stint) = stints.last_mut() {
                stint.until_ns = switch.last_ns;
            }
            stints.push(Stint { node: switch.to, from_ns: switch.first_ns, until_ns: last_ns });
        }
        stints
    }
}
