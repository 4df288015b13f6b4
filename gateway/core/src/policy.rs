//! Questions to policies and what is kept of their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::alike::Alike;
use crate::gateway::asking::Asked;
use crate::gateway::noting::Noted;
use crate::{Arm, AskId, Decider, PolicyName, RoomId, State};

#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) asks: BTreeMap<AskId, Asked>,
    pub(crate) next_ask: u64,
    /// Rooms to ask about, by the routing policy that decides and which of its revisions; native ones under their set's
    /// name all the same.
    pub(crate) reroutes: BTreeMap<(PolicyName, Arm), BTreeSet<RoomId>>,
    /// Policies that failed us last time, and since when they do.
    pub(crate) failing: BTreeMap<PolicyName, Instant>,
    /// What they said of whom, and whom they are not asked about.
    pub(crate) noted: Noted,
    pub(crate) states: Alike<State>,
    pub(crate) deciders: Alike<Decider>,
}

impl Policy {
    pub(crate) fn new() -> Policy {
        Policy {
            asks: BTreeMap::new(),
            next_ask: 1,
            reroutes: BTreeMap::new(),
            failing: BTreeMap::new(),
            noted: Noted::default(),
            states: Alike::default(),
            deciders: Alike::default(),
        }
    }
}
