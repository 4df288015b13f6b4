//! Gaps that receivers see when their node changes, and pauses at any other moment.

use serde::Serialize;

use super::PacketLedger;

/// Packets of the old node within this time after the first packet of the new one are stragglers; a later packet is a
/// change back. The time is twice the length of a make-before-break.
const STRAGGLING_NS: u64 = 1_000_000_000;

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
    pub fn of_ns(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let rank = |percent: usize| {
            let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
            values.get(index).map_or(0.0, |&ns| ns as f64 / 1e6)
        };
        Self { p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

impl PacketLedger {
    /// Every change of node of every receiver, in the order of receiver and time.
    pub(crate) fn switches(&self) -> Vec<NodeSwitch> {
        self.members.keys().flat_map(|&receiver| self.switches_of(receiver)).collect()
    }

    pub(super) fn switches_of(&self, receiver: u64) -> Vec<NodeSwitch> {
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
            let first_ns = arrival.at_ns;
            switches.push(NodeSwitch {
                receiver,
                from: node,
                to: arrival.node,
                last_ns,
                first_ns,
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
            let before = self
                .heard_by(receiver)
                .map(|arrival| arrival.at_ns)
                .filter(|&ns| ns <= at_ns)
                .max()?;
            let after = self
                .heard_by(receiver)
                .map(|arrival| arrival.at_ns)
                .filter(|&ns| ns > at_ns)
                .min()?;
            Some(ReceiverGap { receiver, gap_ns: after - before })
        };
        self.members.keys().filter_map(gap_of).collect()
    }
}
