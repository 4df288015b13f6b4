//! Revisions of one policy beside each other: which of them is asked about whom, and what each can read.
//!
//! Who is in the canary is decided by a hash of the room or of the session, as the hook goes by: the same one is asked of
//! the same revision all the time, and whoever was in the canary at 5 % is in it at 25 %.

use std::sync::Arc;

use crate::judge::Judging;
use crate::{Hook, RoomId, SessionId, State};

/// Which of two revisions of a policy a question is put to. One question is about one of them only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Arm {
    /// The one that is in force.
    #[default]
    Standing,
    /// The one that is tried on a share.
    Canary,
}

impl Arm {
    /// Both.
    pub const ALL: [Arm; 2] = [Arm::Standing, Arm::Canary];

    /// The word in the API and in records: `canary`.
    pub fn name(self) -> &'static str {
        match self {
            Arm::Standing => "active",
            Arm::Canary => "canary",
        }
    }
}

/// A revision, and which states it can read: those that its plugin wrote, under its own schema or an older one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    /// First 12 hexadecimal digits of its digest.
    pub name: Arc<str>,
    /// The plugin's name in its manifest.
    pub plugin: Arc<str>,
    /// The plugin's state schema number.
    pub schema: u32,
}

impl Revision {
    /// Whether it can read what was written there.
    pub fn reads(&self, state: &State) -> bool {
        state.plugin == self.plugin && state.schema <= self.schema
    }

    /// Whether it can read all that this one writes.
    pub(crate) fn reads_what(&self, other: &Revision) -> bool {
        other.plugin == self.plugin && other.schema <= self.schema
    }
}

/// A revision that is tried on a share.
#[derive(Clone, PartialEq, Debug)]
pub struct Canary {
    /// Which.
    pub revision: Revision,
    /// Its share of rooms or sessions, per cent.
    pub percent: u8,
    /// What it is judged by.
    pub judging: Judging,
}

impl Canary {
    /// Whether the room or session of this number belongs to it. Each candidate has a cohort of its own: nobody is the
    /// one on whom everything is tried.
    pub fn holds(&self, unit: u64) -> bool {
        let salt = self
            .revision
            .name
            .bytes()
            .fold(FNV_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        let place = (u128::from(mixed(unit ^ salt)) * 100) >> 64;
        place < u128::from(self.percent)
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv).
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the number decides about every bit that comes out.
fn mixed(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The revisions that a policy has at a time.
#[derive(Clone, PartialEq, Debug)]
pub struct Revisions {
    /// The one in force.
    pub standing: Revision,
    /// The one that is tried, if one is.
    pub canary: Option<Canary>,
    /// The one before, as long as it may come back: what it can read is kept.
    pub kept: Option<Revision>,
    /// What decisions of the one in force are judged by while the one before may come back.
    pub judging: Judging,
}

impl Revisions {
    /// Which arm is asked about the room or session of this number.
    pub fn arm(&self, unit: u64) -> Arm {
        match &self.canary {
            Some(canary) if canary.holds(unit) => Arm::Canary,
            _ => Arm::Standing,
        }
    }

    /// The revision that an arm is; without a canary both are the one in force.
    pub fn of(&self, arm: Arm) -> &Revision {
        match (arm, &self.canary) {
            (Arm::Canary, Some(canary)) => &canary.revision,
            (Arm::Canary, None) | (Arm::Standing, _) => &self.standing,
        }
    }

    /// Everyone whose states are kept.
    pub fn readers(&self) -> impl Iterator<Item = &Revision> {
        let canary = self.canary.as_ref().map(|canary| &canary.revision);
        std::iter::once(&self.standing).chain(canary).chain(&self.kept)
    }
}

/// What a hook goes by when it is decided who belongs to a canary: rooms for routing and scenarios, so that those who
/// are in one room have one policy; sessions for the others.
pub(crate) fn unit(hook: Hook, room: RoomId, session: SessionId) -> u64 {
    match hook {
        Hook::Routing | Hook::Scenario => room.0,
        Hook::Admission | Hook::Degradation => session.0,
    }
}

/// What plugins wrote about a session or a room: the newest, and beside it the newest that a revision can read that
/// cannot read this one. A third, of the revision before both, is not kept.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Memory {
    newest: Option<Arc<State>>,
    other: Option<Arc<State>>,
}

impl Memory {
    /// What goes to this revision: what it can read. To one of which nothing is known goes the newest; the host looks.
    pub(crate) fn read(&self, by: Option<&Revision>) -> Option<&Arc<State>> {
        let Some(revision) = by else {
            return self.newest.as_ref();
        };
        self.newest.iter().chain(&self.other).find(|state| revision.reads(state))
    }

    /// A plugin wrote this; what somebody else can still come back to stays beside it.
    pub(crate) fn write(&mut self, state: Arc<State>, revisions: Option<&Revisions>) {
        let needed = |old: &Arc<State>| {
            let readers = || revisions.into_iter().flat_map(Revisions::readers);
            readers().any(|reader| reader.reads(old) && !reader.reads(&state))
        };
        let before = self.newest.take();
        self.other = before.filter(&needed).or_else(|| self.other.take().filter(&needed));
        self.newest = Some(state);
    }

    /// Whether more than the newest is kept.
    pub(crate) fn keeps_other(&self) -> bool {
        self.other.is_some()
    }

    /// The window closed: only what the standing revision reads is kept, or the newest where it reads nothing.
    pub(crate) fn settle(&mut self, standing: &Revision) {
        if let Some(other) = self.other.take()
            && !self.newest.as_ref().is_some_and(|newest| standing.reads(newest))
            && standing.reads(&other)
        {
            self.newest = Some(other);
        }
    }
}

/// What plugins wrote about themselves: each arm its own, since both are asked at the same time.
#[derive(Default, Debug)]
pub(crate) struct Memos {
    standing: Option<State>,
    canary: Option<State>,
    kept: Option<State>,
}

impl Memos {
    pub(crate) fn read(&self, arm: Arm) -> Option<&State> {
        match arm {
            Arm::Standing => self.standing.as_ref(),
            Arm::Canary => self.canary.as_ref().or(self.standing.as_ref()),
        }
    }

    pub(crate) fn write(&mut self, arm: Arm, memo: State) {
        match arm {
            Arm::Standing => self.standing = Some(memo),
            Arm::Canary => self.canary = Some(memo),
        }
    }

    /// Other revisions stand there from now on.
    pub(crate) fn turn(&mut self, before: Option<&Revisions>, now: &Revisions) {
        let Some(before) = before else { return };
        let was =
            |revision: Option<&Revision>| revision.is_some_and(|it| it.name == now.standing.name);
        let canary = self.canary.take();
        if before.standing.name != now.standing.name {
            if was(before.canary.as_ref().map(|canary| &canary.revision)) {
                let comes = canary.clone().or_else(|| self.standing.clone());
                self.kept = std::mem::replace(&mut self.standing, comes);
            } else if was(before.kept.as_ref()) {
                // It goes on with the newest that it can read.
                let newest = self.standing.take().filter(|memo| now.standing.reads(memo));
                self.standing = newest.or_else(|| self.kept.take());
            } else {
                self.kept = self.standing.clone();
            }
        }
        let name =
            |revisions: &Revisions| revisions.canary.as_ref().map(|it| it.revision.name.clone());
        self.canary = match (name(before), name(now)) {
            (was, Some(is)) if was.as_ref() == Some(&is) => canary,
            (_, Some(_)) => self.standing.clone(),
            (_, None) => None,
        };
        if now.kept.is_none() {
            self.kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, plugin: &str, schema: u32) -> Revision {
        Revision { name: name.into(), plugin: plugin.into(), schema }
    }

    fn canary(percent: u8) -> Canary {
        let revision = revision("5f0c5f0c5f0c", "p", 1);
        Canary { revision, percent, judging: Judging::default() }
    }

    fn revisions(standing: Revision, tried: Option<Revision>, kept: Option<Revision>) -> Revisions {
        let judging = Judging::default();
        let canary = tried.map(|revision| Canary { revision, percent: 50, judging });
        Revisions { standing, canary, kept, judging }
    }

    fn state(plugin: &str, schema: u32, byte: u8) -> Arc<State> {
        Arc::new(State { plugin: plugin.into(), schema, bytes: Box::new([byte]) })
    }

    #[test]
    fn a_canary_has_its_share_and_grows_without_letting_anybody_go() {
        let shares = [0, 1, 5, 25, 50, 99, 100].map(canary);
        for pair in shares.windows(2) {
            assert!((0..10_000).all(|unit| !pair[0].holds(unit) || pair[1].holds(unit)));
        }
        for share in &shares {
            let held = (0..10_000).filter(|unit| share.holds(*unit)).count() as i64;
            let right = i64::from(share.percent) * 100;
            assert!((held - right).abs() <= 150, "{held} of 10000 at {} %", share.percent);
        }
        assert!((0..10_000).all(|unit| !shares[0].holds(unit) && shares[6].holds(unit)));
    }

    #[test]
    fn another_candidate_is_tried_on_others() {
        let one = canary(5);
        let other = Canary { revision: revision("0123456789ab", "p", 1), ..canary(5) };
        let both = (0..10_000).filter(|unit| one.holds(*unit) && other.holds(*unit)).count();
        assert!(both < 100, "{both} of 10000 are in both");
    }

    #[test]
    fn each_arm_reads_what_it_can_and_a_rollback_finds_what_was() {
        let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
        let both = revisions(old.clone(), Some(new.clone()), None);
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&both));
        assert_eq!(memory.read(Some(&new)), Some(&state("p", 1, 1)), "it migrates it");
        memory.write(state("p", 2, 2), Some(&both));
        memory.write(state("p", 2, 3), Some(&both));
        assert_eq!(memory.read(Some(&new)), Some(&state("p", 2, 3)));
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 1)));

        // In force, and back: the one before goes on with what it wrote last.
        let turned = revisions(new.clone(), None, Some(old.clone()));
        memory.write(state("p", 2, 4), Some(&turned));
        let back = revisions(old.clone(), None, None);
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 1)));
        memory.write(state("p", 1, 5), Some(&back));
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 5)));
        assert!(!memory.keeps_other(), "nobody else comes back");
    }

    #[test]
    fn states_of_another_plugin_wait_for_its_return() {
        let (old, new) = (revision("a", "p", 1), revision("b", "q", 1));
        let both = revisions(old.clone(), Some(new.clone()), None);
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&both));
        assert_eq!(memory.read(Some(&new)), None, "it is opened for this one");
        memory.write(state("q", 1, 2), Some(&both));
        memory.write(state("p", 1, 3), Some(&both));
        assert_eq!(memory.read(Some(&new)), Some(&state("q", 1, 2)), "both ways");
        assert_eq!(memory.read(Some(&old)), Some(&state("p", 1, 3)));
    }

    #[test]
    fn revisions_that_read_the_same_share_one_state() {
        let both = revisions(revision("a", "p", 1), Some(revision("b", "p", 1)), None);
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&both));
        memory.write(state("p", 1, 2), Some(&both));
        assert!(!memory.keeps_other());
    }

    #[test]
    fn when_the_window_closes_one_state_is_left_that_the_standing_one_reads() {
        let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
        let open = revisions(new.clone(), None, Some(old.clone()));
        let mut memory = Memory::default();
        memory.write(state("p", 1, 1), Some(&open));
        memory.write(state("p", 2, 2), Some(&open));
        let mut back = memory.clone();
        memory.settle(&new);
        back.settle(&old);
        assert!(!memory.keeps_other() && !back.keeps_other());
        assert_eq!(memory.read(None), Some(&state("p", 2, 2)));
        assert_eq!(back.read(None), Some(&state("p", 1, 1)));
    }

    #[test]
    fn each_arm_has_its_memo_and_a_rollback_finds_the_one_before() {
        let memo =
            |byte| State { plugin: "p".into(), schema: u32::from(byte), bytes: Box::new([byte]) };
        let (old, new) = (revision("a", "p", 1), revision("b", "p", 2));
        let alone = revisions(old.clone(), None, None);
        let both = revisions(old.clone(), Some(new.clone()), None);
        let turned = revisions(new, None, Some(old));
        let mut memos = Memos::default();
        memos.turn(None, &alone);
        memos.write(Arm::Standing, memo(1));
        memos.turn(Some(&alone), &both);
        assert_eq!(memos.read(Arm::Canary), Some(&memo(1)), "it begins with what there is");
        memos.write(Arm::Canary, memo(2));
        assert_eq!(
            (memos.read(Arm::Standing), memos.read(Arm::Canary)),
            (Some(&memo(1)), Some(&memo(2)))
        );
        memos.turn(Some(&both), &turned);
        assert_eq!(memos.read(Arm::Standing), Some(&memo(2)));
        memos.turn(Some(&turned), &alone);
        assert_eq!(memos.read(Arm::Standing), Some(&memo(1)));
        memos.turn(Some(&alone), &both);
        memos.write(Arm::Canary, memo(2));
        memos.turn(Some(&both), &alone);
        assert_eq!(memos.read(Arm::Standing), Some(&memo(1)), "the canary took its own with it");
    }
}
