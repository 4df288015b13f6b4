//! Quality: lost media flows, nodes that lose more than their siblings, and plans of sessions.

mod cohorts;
mod flows;
mod ladder;
mod plans;
mod ticks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use evenkeel_model::{Arm, NodeId, Op, PolicyName, RoomId, SessionId};
use ladder::LadderInput;
use ladder::NativeLadder;
use plans::Replans;
pub(crate) use ticks::Ticks;

use crate::cohort::NodeBallot;

/// Maximum sessions in one question; the others follow with the next tick.
const SESSIONS_PER_ASK: usize = 4_096;

/// Maximum sessions scanned for one question to a canary, most of which are outside its cohort.
const SESSIONS_PASSED: usize = 16_384;

#[derive(Default, Debug)]
pub(crate) struct Quality {
    /// Sessions that receive nothing any more after receiving media steadily.
    silent: BTreeSet<(RoomId, SessionId)>,
    /// Votes of rooms about nodes, by scenario. Only rooms of the same scenario are compared.
    ballots: BTreeMap<(NodeId, std::sync::Arc<str>), NodeBallot>,
    tick_cursors: BTreeMap<(PolicyName, Arm), SessionId>,
    /// Sessions on the native quality ladder.
    climbs: BTreeMap<SessionId, NativeLadder>,
}

impl Quality {
    pub(crate) fn forget_session(&mut self, room: RoomId, session: SessionId) {
        self.silent.remove(&(room, session));
        self.climbs.remove(&session);
    }

    pub(crate) fn forget_node(&mut self, id: NodeId) {
        self.ballots.retain(|(node, _), _| *node != id);
    }

    pub(crate) fn silent(&self) -> usize {
        self.silent.len()
    }

    pub(crate) fn ballots(&self) -> usize {
        self.ballots.len()
    }

    #[cfg(test)]
    pub(crate) fn ballot_of(&mut self, node: NodeId, scenario: &str) -> &mut NodeBallot {
        self.ballots.entry((node, scenario.into())).or_default()
    }

    /// The next sessions of `ours` for a question to one arm of a degradation policy.
    pub(crate) fn next_ticked(
        &mut self,
        cursor: (PolicyName, Arm),
        ours: &BTreeSet<SessionId>,
        asks: impl Fn(SessionId) -> bool,
    ) -> Vec<SessionId> {
        let from = self.tick_cursors.get(&cursor).copied().unwrap_or(SessionId(0));
        let (mut ids, mut next) = (Vec::new(), SessionId(0));
        for (passed, id) in ours.range(from..).enumerate() {
            if ids.len() == SESSIONS_PER_ASK || passed == SESSIONS_PASSED {
                next = *id;
                break;
            }
            if asks(*id) {
                ids.push(*id);
            }
        }
        self.tick_cursors.insert(cursor, next);
        ids
    }

    pub(crate) fn restart_ticks(&mut self, policy: &PolicyName, arm: Arm) {
        self.tick_cursors.remove(&(policy.clone(), arm));
    }

    pub(crate) fn climbs_any(&self) -> bool {
        !self.climbs.is_empty()
    }

    /// The policy answers for the session again, so it leaves the native ladder.
    pub(crate) fn leave_ladder(&mut self, session: SessionId) {
        self.climbs.remove(&session);
    }

    /// The next action of the native ladder.
    pub(crate) fn climb(
        &mut self,
        session: SessionId,
        look: LadderInput,
        now: Instant,
    ) -> Option<(Op, u64)> {
        self.climbs.entry(session).or_insert_with(|| NativeLadder::begin(now)).step(look, now)
    }
}
