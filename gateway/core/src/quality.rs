//! What sessions hear, and what rooms say of nodes.

use std::collections::{BTreeMap, BTreeSet};

use crate::gateway::cohorts::Ballots;
use crate::ladder::Climb;
use crate::{Arm, PolicyName, RoomId, SessionId};

#[derive(Default, Debug)]
pub(crate) struct Quality {
    /// Sessions that hear nothing any more, though they did steadily.
    pub(crate) silent: BTreeSet<(RoomId, SessionId)>,
    /// What rooms say of nodes.
    pub(crate) ballots: Ballots,
    /// Where the next batch of a degradation policy starts.
    pub(crate) tick_cursors: BTreeMap<(PolicyName, Arm), SessionId>,
    /// Sessions on the native ladder.
    pub(crate) climbs: BTreeMap<SessionId, Climb>,
}
