//! The revisions of a policy, and the choice of the one that answers for a room or session.
//!
//! The canary's cohort is drawn by a hash of the room or session number. A room or session therefore stays with its
//! revision, and the cohort at 5 % is part of the cohort at 25 %.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_instant as instant;
use evenkeel_model::{Arm, Hook, PluginState, RoomId, SessionId};
use serde::{Deserialize, Serialize};

use crate::progress::{RolloutProgress, RolloutStage};

/// A plugin with its settings. It reads the states that the plugin wrote under the same schema or an older one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
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
    /// Returns true if the revision reads states of this schema.
    pub fn reads(&self, state: &PluginState) -> bool {
        state.plugin == self.plugin && state.schema <= self.schema
    }
}

/// A revision in a rollout.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct CandidateRevision {
    /// The plugin with its settings.
    pub revision: Revision,
    /// The stage of its rollout.
    pub progress: RolloutProgress,
    /// The time of its push.
    #[serde(with = "instant")]
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
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Previous {
    /// The plugin with its settings.
    pub revision: Revision,
    /// The end of the window for a rollback.
    #[serde(with = "instant")]
    pub until: Instant,
}

/// The revisions of one policy.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct Revisions {
    /// The revision that answers; `None`: the native default.
    pub active: Option<Revision>,
    /// The revision in a rollout.
    pub candidate: Option<CandidateRevision>,
    /// The revision to which a rollback returns.
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

    /// Returns true if one of them has this name.
    pub fn has(&self, revision: &str) -> bool {
        self.all().any(|it| *it.name == *revision)
    }

    /// Returns all of them.
    pub fn all(&self) -> impl Iterator<Item = &Revision> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.revision);
        let previous = self.previous.as_ref().map(|previous| &previous.revision);
        self.active.iter().chain(candidate).chain(previous)
    }

    /// True if there is a candidate, or if a rollback is possible.
    pub fn are_changing(&self) -> bool {
        self.candidate.is_some() || self.previous.is_some()
    }

    /// Returns the name of the active revision.
    pub fn active_name(&self) -> Option<Arc<str>> {
        self.active.as_ref().map(|active| Arc::clone(&active.name))
    }

    /// Returns true if the candidate has this name.
    pub fn is_candidate(&self, revision: &str) -> bool {
        self.candidate.as_ref().is_some_and(|it| *it.revision.name == *revision)
    }

    /// Returns true if the active revision has this name.
    pub fn is_active(&self, revision: &str) -> bool {
        self.active.as_ref().is_some_and(|it| *it.name == *revision)
    }

    /// Returns true if the previous revision has this name.
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

/// A plugin's version. Ordered by Semantic Versioning 2.0.0, with missing numbers as 0 (`1.2` is
/// `1.2.0`) and without build metadata; a text that is not a version is older than any version.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(from = "Box<str>", into = "Box<str>")]
pub struct Version {
    text: Box<str>,
    read: Option<semver::Version>,
}

impl Version {
    /// Parses the manifest's text.
    pub fn read(text: &str) -> Version {
        let (number, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
        let missing = ".0".repeat(2_usize.saturating_sub(number.matches('.').count()));
        let read = semver::Version::parse(&format!("{number}{missing}{rest}")).ok();
        Version { text: text.into(), read }
    }
}

impl From<Box<str>> for Version {
    fn from(text: Box<str>) -> Version {
        Version::read(&text)
    }
}

impl From<Version> for Box<str> {
    fn from(version: Version) -> Box<str> {
        version.text
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Version) -> Ordering {
        match (&self.read, &other.read) {
            (Some(one), Some(two)) => one.cmp_precedence(two),
            (None, None) => Ordering::Equal,
            (one, two) => one.is_some().cmp(&two.is_some()),
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Version) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Version) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

/// The states of one session or room: the newest and, if another kept revision cannot read it, the newest that this
/// revision can read. No third state is kept.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct StateVersions {
    newest: Option<Arc<PluginState>>,
    other: Option<Arc<PluginState>>,
}

impl StateVersions {
    /// The state for this revision; the newest if the revision is unknown. The host checks its schema.
    pub fn read(&self, by: Option<&Revision>) -> Option<&Arc<PluginState>> {
        let Some(revision) = by else {
            return self.newest.as_ref();
        };
        self.newest.iter().chain(&self.other).find(|state| revision.reads(state))
    }

    /// Keeps the new state, and an old one that only another kept revision can read.
    pub fn write(&mut self, state: Arc<PluginState>, revisions: Option<&Revisions>) {
        let needed = |old: &Arc<PluginState>| {
            let readers = || revisions.into_iter().flat_map(Revisions::readers);
            readers().any(|reader| reader.reads(old) && !reader.reads(&state))
        };
        let before = self.newest.take();
        self.other = before.filter(&needed).or_else(|| self.other.take().filter(&needed));
        self.newest = Some(state);
    }

    /// Returns true if a state is kept for more than one revision.
    pub fn keeps_other(&self) -> bool {
        self.other.is_some()
    }

    /// The active revision is the only reader now: keeps the state that it reads, or the newest if it reads none.
    pub fn settle(&mut self, active: &Revision) {
        if let Some(other) = self.other.take()
            && !self.newest.as_ref().is_some_and(|newest| active.reads(newest))
            && active.reads(&other)
        {
            self.newest = Some(other);
        }
    }
}

/// Memos of plugins, one for each revision, since active revision and candidate are asked at the same time.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct Memos {
    /// Of the active revision.
    #[serde(rename = "memo")]
    active: Option<PluginState>,
    #[serde(default)]
    canary: Option<PluginState>,
    #[serde(default)]
    previous: Option<PluginState>,
}

impl Memos {
    /// Keeps the memos that these revisions read.
    pub fn readable_by(self, revisions: &Revisions) -> Memos {
        let Memos { active, canary, previous } = self;
        let readable = |memo: Option<PluginState>, revision: Option<&Revision>| {
            memo.filter(|memo| revision.is_none_or(|revision| revision.reads(memo)))
        };
        Memos {
            active: readable(active, revisions.active.as_ref()),
            canary: readable(canary, revisions.canary().map(|it| &it.revision)),
            previous: readable(previous, revisions.previous.as_ref().map(|it| &it.revision)),
        }
    }

    /// Returns the memo that the revision of the arm reads.
    pub fn read(&self, arm: Arm) -> Option<&PluginState> {
        match arm {
            Arm::Standing => self.active.as_ref(),
            Arm::Canary => self.canary.as_ref().or(self.active.as_ref()),
        }
    }

    /// Replaces the memo of the arm.
    pub fn write(&mut self, arm: Arm, memo: PluginState) {
        match arm {
            Arm::Standing => self.active = Some(memo),
            Arm::Canary => self.canary = Some(memo),
        }
    }

    /// Gives each revision its memo after a change of revisions.
    pub fn turn(&mut self, before: &Revisions, now: &Revisions) {
        let (Some(was), Some(active)) = (&before.active, &now.active) else { return };
        let name = |it: &Revisions| it.canary().map(|it| Arc::clone(&it.revision.name));
        let (had, has) = (name(before), name(now));
        let canary = self.canary.take();
        if was.name != active.name {
            if had.as_ref() == Some(&active.name) {
                let promoted = canary.clone().or_else(|| self.active.clone());
                self.previous = std::mem::replace(&mut self.active, promoted);
            } else if before.is_previous(&active.name) {
                // The revision resumes with the newest memo that it can read.
                let newest = self.active.take().filter(|memo| active.reads(memo));
                self.active = newest.or_else(|| self.previous.take());
            } else {
                self.previous = self.active.clone();
            }
        }
        self.canary = match (had, has) {
            (was, Some(is)) if was.as_ref() == Some(&is) => canary,
            (_, Some(_)) => self.active.clone(),
            (_, None) => None,
        };
        if now.previous.is_none() {
            self.previous = None;
        }
    }
}

#[cfg(test)]
mod tests;
