//! The revisions of a policy, and the choice of the one that answers for a room or session.
//!
//! The canary's cohort is drawn by a hash of the room or session number. A room or session therefore stays with its
//! revision, and the cohort at 5 % is part of the cohort at 25 %.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{Arm, Hook, PluginState, RoomId, SessionId};

use super::{RolloutProgress, RolloutStage, Version};

/// A plugin with its settings. It reads the states that the plugin wrote under the same schema or an older one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    /// First 12 hexadecimal digits of its digest.
    pub name: Arc<str>,
    /// The plugin's name in its manifest.
    pub plugin: Arc<str>,
    /// The plugin's version in its manifest.
    pub version: Version,
    /// The plugin's state schema number.
    pub schema: u32,
}

impl Revision {
    pub fn reads(&self, state: &PluginState) -> bool {
        state.plugin == self.plugin && state.schema <= self.schema
    }
}

/// A revision in a rollout.
#[derive(Clone, PartialEq, Debug)]
pub struct CandidateRevision {
    pub revision: Revision,
    pub progress: RolloutProgress,
    pub arrived: Instant,
}

impl CandidateRevision {
    /// Per cent of rooms or sessions that the candidate decides for; `None` in the shadow stage.
    pub fn share(&self) -> Option<u8> {
        match self.progress.stage() {
            RolloutStage::Shadow => None,
            RolloutStage::Canary(percent) => Some(percent),
        }
    }

    fn holds(&self, unit: u64) -> bool {
        self.share().is_some_and(|percent| is_in_cohort(&self.revision.name, percent, unit))
    }
}

/// True if the room or session of this number belongs to a canary with this share. Each revision draws its own cohort,
/// so that no room is in the canary of every revision.
pub fn is_in_cohort(revision: &str, percent: u8, unit: u64) -> bool {
    let salt = revision
        .bytes()
        .fold(FNV_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
    let place = (u128::from(mixed(unit ^ salt)) * 100) >> 64;
    place < u128::from(percent)
}

/// FNV-1a, 64 bits (draft-eastlake-fnv).
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): each input bit affects each output bit.
fn mixed(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The revision that was active before, while a rollback to it is possible.
#[derive(Clone, PartialEq, Debug)]
pub struct Previous {
    pub revision: Revision,
    pub until: Instant,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Revisions {
    pub active: Option<Revision>,
    pub candidate: Option<CandidateRevision>,
    pub previous: Option<Previous>,
}

impl Revisions {
    /// The candidate, if it decides for a share.
    pub fn canary(&self) -> Option<&CandidateRevision> {
        self.candidate.as_ref().filter(|candidate| candidate.share().is_some())
    }

    /// The arm that is asked about the room or session of this number.
    pub fn arm(&self, unit: u64) -> Arm {
        match &self.candidate {
            Some(candidate) if candidate.holds(unit) => Arm::Canary,
            Some(_) | None => Arm::Standing,
        }
    }

    /// The revision of an arm. Without a canary, both arms are the active revision.
    pub fn of(&self, arm: Arm) -> Option<&Revision> {
        match (arm, self.canary()) {
            (Arm::Canary, Some(canary)) => Some(&canary.revision),
            (Arm::Canary, None) | (Arm::Standing, _) => self.active.as_ref(),
        }
    }

    /// The name of the revision that decides for the room or session of this number.
    pub fn name_for(&self, unit: u64) -> Option<&Arc<str>> {
        self.of(self.arm(unit)).map(|revision| &revision.name)
    }

    /// Revisions whose states are kept.
    pub fn readers(&self) -> impl Iterator<Item = &Revision> {
        let canary = self.canary().map(|canary| &canary.revision);
        let previous = self.previous.as_ref().map(|previous| &previous.revision);
        self.active.iter().chain(canary).chain(previous)
    }

    pub fn has(&self, revision: &str) -> bool {
        self.all().any(|it| *it.name == *revision)
    }

    pub fn all(&self) -> impl Iterator<Item = &Revision> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.revision);
        let previous = self.previous.as_ref().map(|previous| &previous.revision);
        self.active.iter().chain(candidate).chain(previous)
    }

    /// True if there is a candidate, or if a rollback is possible.
    pub fn are_changing(&self) -> bool {
        self.candidate.is_some() || self.previous.is_some()
    }

    pub fn active_name(&self) -> Option<Arc<str>> {
        self.active.as_ref().map(|active| Arc::clone(&active.name))
    }

    pub fn is_candidate(&self, revision: &str) -> bool {
        self.candidate.as_ref().is_some_and(|it| *it.revision.name == *revision)
    }

    pub fn is_active(&self, revision: &str) -> bool {
        self.active.as_ref().is_some_and(|it| *it.name == *revision)
    }

    pub fn is_previous(&self, revision: &str) -> bool {
        self.previous.as_ref().is_some_and(|it| *it.revision.name == *revision)
    }
}

/// The room or session number from which the hook's cohorts are drawn.
pub fn unit(hook: Hook, room: RoomId, session: SessionId) -> u64 {
    if is_by_room(hook) { room.0 } else { session.0 }
}

/// True if all sessions of a room have the same revision.
pub fn is_by_room(hook: Hook) -> bool {
    match hook {
        Hook::Routing | Hook::Scenario => true,
        Hook::Admission | Hook::Degradation => false,
    }
}

#[cfg(test)]
mod tests;
