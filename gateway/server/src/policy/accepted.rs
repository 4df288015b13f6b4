//! What was good enough for a policy so far, so that nobody goes back without knowing it.

use std::collections::VecDeque;
use std::sync::Arc;

use evenkeel_host::{Manifest, Refused, Version};

use super::memory::Good;

/// Revisions remembered of a policy: with a release a day, those of two months.
const ACCEPTED_MAX: usize = 64;

/// Revisions that came into force and were not taken back, oldest first.
#[derive(Default, Debug)]
pub(super) struct Accepted(VecDeque<One>);

#[derive(Debug)]
struct One {
    revision: Arc<str>,
    plugin: Arc<str>,
    version: Version,
}

impl Accepted {
    /// As it was remembered, the oldest of too many left out.
    pub(super) fn of(good: Vec<Good>) -> Accepted {
        let beyond = good.len().saturating_sub(ACCEPTED_MAX);
        let one = |Good { revision, plugin, version }| {
            let version = Version::read(&version);
            One { revision, plugin, version }
        };
        Accepted(good.into_iter().skip(beyond).map(one).collect())
    }

    /// As it is to be remembered.
    pub(super) fn good(&self) -> Vec<Good> {
        let good = |one: &One| Good {
            revision: Arc::clone(&one.revision),
            plugin: Arc::clone(&one.plugin),
            version: one.version.to_string().into(),
        };
        self.0.iter().map(good).collect()
    }

    /// Whether a plugin is as new as any of its name that is known to be good.
    ///
    /// # Errors
    /// [`Refused::Downgrade`] where it is older.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), Refused> {
        let version = Version::read(&manifest.version);
        let newer = |one: &&One| one.plugin == manifest.name && version < one.version;
        match self.0.iter().find(newer) {
            Some(newer) => Err(Refused::Downgrade {
                plugin: (*manifest.name).into(),
                found: manifest.version.clone(),
                ran: newer.version.to_string().into(),
            }),
            None => Ok(()),
        }
    }

    /// A revision is in force.
    pub(super) fn accept(&mut self, revision: &str, manifest: &Manifest) {
        self.withdraw(revision);
        if self.0.len() == ACCEPTED_MAX {
            // One that another stands for, or else the oldest.
            let stands_for =
                |one: &One, other: &One| one.plugin == other.plugin && one.version <= other.version;
            let outdone = (0..self.0.len())
                .find(|at| self.0.range(at + 1..).any(|other| stands_for(&self.0[*at], other)));
            self.0.remove(outdone.unwrap_or(0));
        }
        let (plugin, version) = (Arc::clone(&manifest.name), Version::read(&manifest.version));
        self.0.push_back(One { revision: revision.into(), plugin, version });
    }

    /// It was taken back: what is older than it may be what mends it.
    pub(super) fn withdraw(&mut self, revision: &str) {
        self.0.retain(|one| *one.revision != *revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, version: &str) -> Manifest {
        let shipped = evenkeel_host::look(evenkeel_host::shipped()[0].bytes).unwrap();
        Manifest { name: name.into(), version: version.into(), ..shipped }
    }

    #[test]
    fn a_plugin_older_than_one_that_is_good_is_refused() {
        let mut accepted = Accepted::default();
        assert!(accepted.check(&manifest("near", "0.1.0")).is_ok(), "nothing ran yet");
        accepted.accept("a", &manifest("near", "1.10.0"));
        accepted.accept("b", &manifest("near", "1.2.0"));
        for (version, taken) in [
            ("1.10.0", true),
            ("1.10.1", true),
            ("1.9.9", false),
            ("1.10.0-rc.1", false),
            ("new", false),
        ] {
            assert_eq!(accepted.check(&manifest("near", version)).is_ok(), taken, "{version}");
        }
        assert!(accepted.check(&manifest("far", "0.0.1")).is_ok(), "that is another plugin");
    }

    #[test]
    fn what_was_taken_back_is_no_measure_and_what_it_followed_is() {
        let mut accepted = Accepted::default();
        accepted.accept("old", &manifest("near", "1.1.0"));
        accepted.accept("new", &manifest("near", "1.2.0"));
        assert!(accepted.check(&manifest("near", "1.1.1")).is_err());
        accepted.withdraw("new");
        assert!(accepted.check(&manifest("near", "1.1.1")).is_ok());
        assert!(accepted.check(&manifest("near", "1.0.9")).is_err());
    }

    #[test]
    fn what_is_remembered_is_as_good_as_what_was_and_no_more_of_it_is() {
        let mut before = Accepted::default();
        before.accept("old", &manifest("near", "1.10.0"));
        before.accept("new", &manifest("near", "1.2"));
        let good = before.good();
        let mut after = Accepted::of(good.clone());
        assert_eq!(after.good(), good);
        assert!(after.check(&manifest("near", "1.9.9")).is_err());
        after.withdraw("old");
        assert!(after.check(&manifest("near", "1.9.9")).is_ok());
        assert!(after.check(&manifest("near", "1.1.9")).is_err());

        let one = |number: usize| Good { revision: number.to_string().into(), ..good[0].clone() };
        let many = Accepted::of((0..=ACCEPTED_MAX).map(one).collect());
        assert_eq!((many.0.len(), &*many.0[0].revision), (ACCEPTED_MAX, "1"));
    }

    #[test]
    fn however_many_there_were_the_newest_is_remembered() {
        let mut accepted = Accepted::default();
        accepted.accept("first", &manifest("far", "2.0.0"));
        accepted.accept("newest", &manifest("near", "9.0.0"));
        for number in 0..3 * ACCEPTED_MAX {
            accepted.accept(&number.to_string(), &manifest("near", "1.0.0"));
        }
        assert_eq!(accepted.0.len(), ACCEPTED_MAX);
        assert!(accepted.check(&manifest("near", "8.0.0")).is_err());
        assert!(accepted.check(&manifest("far", "1.0.0")).is_err());
    }
}
