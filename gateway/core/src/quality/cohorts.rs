//! Handles nodes that lose more than their siblings by the votes of rooms: they become Suspect, and rooms leave them.
//!
//! Loss is not death: the packets that still arrive are better than none. These witnesses therefore mark no node
//! down, neither alone nor together, because lost probes and lost media have one cause. If the accusation lasts, the
//! node's rooms move make-before-break to sound nodes with capacity, some at a time, within each room's limit of moves.
//! Rooms that fit nowhere stay. A node without rooms gets no votes and stays Suspect for its ejection, which grows with
//! each relapse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{EvidenceSource, FlowCounts, Hop, Metric, NodeId, RegionId, RoomId};
use evenkeel_nodes::NodeTable;

use super::Quality;
use crate::cohort::{CohortVerdict, RoomTally, VoteCount, weigh};
use crate::rooms::{Failover, Placement, Reroutes};
use crate::timer::Timer;

const WEIGH_EVERY: Duration = Duration::from_millis(100);

/// The time that an accusation must last before rooms leave, so that a brief one moves no room.
const LEAVE_AFTER: Duration = Duration::from_secs(1);

impl Quality {
    /// Counts one session's flow towards the room's vote about its hop.
    pub(crate) fn tally(
        &mut self,
        id: RoomId,
        hop: Hop,
        flow: &FlowCounts,
        failover: &mut Failover,
        now: Instant,
    ) {
        if flow.expected == 0 && flow.reported_ppm.is_none() {
            return;
        }
        let Some(room) = failover.rooms.unrecorded_mut(&id) else {
            return;
        };
        let tally = room.tally.get_or_insert_with(|| Box::new(RoomTally::new(hop, now)));
        tally.stands_at(hop, now);
        if !tally.add(flow, now) {
            return;
        }
        let next = tally.anew(now);
        let seen = std::mem::replace(&mut **tally, next);
        let scenario = Arc::clone(&room.scenario);
        let worst = |metric| worst(failover.placement(), id, metric);
        let bad = seen.vote(worst(Metric::LossUp), worst(Metric::LossDown));
        self.ballots.entry((hop.node, scenario)).or_default().vote(id, bad, now);
        failover.effects.set_if_idle(Timer::Cohorts, now + WEIGH_EVERY);
    }

    /// Weighs the votes about each node against those about its siblings, and lets rooms leave worse nodes.
    pub(crate) fn weigh_cohorts(&mut self, reroutes: &mut Reroutes, now: Instant) {
        let (words, at) = self.words(reroutes.nodes, now);
        let mut left = Vec::new();
        for node in reroutes.nodes.iter_mut() {
            node.fares_badly = at.get(&node.id).is_some_and(|count| count.is_bad());
            match words.get(&node.id) {
                Some(CohortVerdict::WorseThanSiblings) => {
                    node.found_worse(EvidenceSource::Cohort, now);
                }
                Some(CohortVerdict::Bad) => node.found_worse(EvidenceSource::Feedback, now),
                word => node.found_no_worse(word == Some(&CohortVerdict::Well), now),
            }
            if node.worse_for(now).is_some_and(|lasted| lasted >= LEAVE_AFTER) {
                left.push(node.id);
            }
        }
        for node in left {
            reroutes.leave_worse(node, now);
        }
        let watched = reroutes.nodes.iter().any(|node| node.worse_for(now).is_some());
        if watched || !self.ballots.is_empty() {
            reroutes.effects.set(Timer::Cohorts, now + WEIGH_EVERY);
        }
    }

    /// The verdict on each node, and the votes about the node by rooms of all scenarios.
    fn words(
        &mut self,
        nodes: &NodeTable,
        now: Instant,
    ) -> (BTreeMap<NodeId, CohortVerdict>, BTreeMap<NodeId, VoteCount>) {
        let mut counts: BTreeMap<(NodeId, Arc<str>), VoteCount> = BTreeMap::new();
        self.ballots.retain(|place, ballot| {
            counts.insert(place.clone(), ballot.count(now));
            !ballot.is_empty()
        });
        let mut cohorts: BTreeMap<(RegionId, Arc<str>), VoteCount> = BTreeMap::new();
        for ((node, kind), count) in &counts {
            cohorts.entry((nodes.region_of(*node), kind.clone())).or_default().add(*count);
        }
        let (mut words, mut at) = (BTreeMap::new(), BTreeMap::<_, VoteCount>::new());
        for ((node, kind), own) in counts {
            at.entry(node).or_default().add(own);
            let word = weigh(own, cohorts[&(nodes.region_of(node), kind)].less(own));
            let said = words.entry(node).or_insert(word);
            *said = word.max(*said);
        }
        (words, at)
    }
}

/// The worst value of this metric over the room's sessions.
fn worst(state: Placement, id: RoomId, metric: Metric) -> u64 {
    let sessions = state.rooms.get(&id).into_iter().flat_map(|room| room.sessions.iter());
    let measured = |id| state.sessions.get(id).and_then(|s| s.measured(metric));
    sessions.filter_map(measured).max().unwrap_or(0).into()
}
