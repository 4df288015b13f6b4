//! What became of plugins so far: the highest version that ran for each policy, and what was refused last. For the life
//! of the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use evenkeel_core::PolicyName;
use evenkeel_host::{Manifest, Refused, Version};

/// Refusals kept: what one looks through after a bad night.
const REFUSALS_MAX: usize = 128;

/// Plugins remembered of each policy; a policy has a few in its life.
const PLUGINS_MAX: usize = 64;

/// A revision, or a plugin, that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// When.
    pub at: SystemTime,
    /// For which policy it came.
    pub policy: PolicyName,
    /// Where it came from: `pushed`, or a file.
    pub origin: Box<str>,
    /// Why, in a word that never changes.
    pub code: &'static str,
    /// Why, as a sentence.
    pub reason: Box<str>,
}

/// Written by rollouts, read by whoever asks.
#[derive(Default, Debug)]
pub(crate) struct Ledger(Mutex<Book>);

#[derive(Default, Debug)]
struct Book {
    ran: BTreeMap<PolicyName, BTreeMap<Arc<str>, Version>>,
    refusals: VecDeque<Refusal>,
}

impl Ledger {
    /// Nobody panics while holding it.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a plugin is as new as any of its name that answered for this policy.
    ///
    /// # Errors
    /// [`Refused::Downgrade`] where it is older.
    pub(super) fn check(&self, policy: &PolicyName, manifest: &Manifest) -> Result<(), Refused> {
        let book = self.book();
        let ran = book.ran.get(policy).and_then(|plugins| plugins.get(&manifest.name));
        match ran {
            Some(ran) if Version::read(&manifest.version) < *ran => Err(Refused::Downgrade {
                plugin: (*manifest.name).into(),
                found: manifest.version.clone(),
                ran: ran.to_string().into(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// A plugin answers for this policy.
    pub(super) fn ran(&self, policy: &PolicyName, manifest: &Manifest) {
        let version = Version::read(&manifest.version);
        let mut book = self.book();
        let plugins = book.ran.entry(policy.clone()).or_default();
        let known = plugins.contains_key(&manifest.name);
        if known || plugins.len() < PLUGINS_MAX {
            let highest = plugins.entry(Arc::clone(&manifest.name)).or_insert(version.clone());
            if *highest < version {
                *highest = version;
            }
        }
    }

    /// Something was refused; the oldest of too many is forgotten.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        let mut book = self.book();
        if book.refusals.len() == REFUSALS_MAX {
            book.refusals.pop_front();
        }
        book.refusals.push_back(refusal);
    }

    /// What was refused, oldest first.
    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.book().refusals.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_core::Hook;

    use super::*;

    fn routing() -> PolicyName {
        PolicyName { set: "call".into(), hook: Hook::Routing }
    }

    fn manifest(name: &str, version: &str) -> Manifest {
        let shipped = evenkeel_host::look(evenkeel_host::shipped()[0].bytes).unwrap();
        Manifest { name: name.into(), version: version.into(), ..shipped }
    }

    #[test]
    fn a_plugin_older_than_one_that_ran_for_the_policy_is_refused() {
        let ledger = Ledger::default();
        let judge = |name, version| ledger.check(&routing(), &manifest(name, version)).is_ok();
        assert!(judge("near", "0.1.0"), "nothing ran yet");
        ledger.ran(&routing(), &manifest("near", "1.10.0"));
        ledger.ran(&routing(), &manifest("near", "1.2.0"));
        for (version, taken) in [
            ("1.10.0", true),
            ("1.10.1", true),
            ("1.9.9", false),
            ("1.10.0-rc.1", false),
            ("new", false),
        ] {
            assert_eq!(judge("near", version), taken, "{version}");
        }
        assert!(judge("far", "0.0.1"), "that is another plugin");
        let another = PolicyName { set: "live".into(), hook: Hook::Routing };
        assert!(ledger.check(&another, &manifest("near", "0.1.0")).is_ok());
    }

    #[test]
    fn the_last_refusals_are_kept_and_no_more() {
        let ledger = Ledger::default();
        for number in 0..=REFUSALS_MAX {
            let reason = number.to_string().into();
            let (at, origin) = (SystemTime::UNIX_EPOCH, "pushed".into());
            ledger.refuse(Refusal { at, policy: routing(), origin, code: "import", reason });
        }
        let kept = ledger.refusals();
        assert_eq!((kept.len(), &*kept[0].reason), (REFUSALS_MAX, "1"));
    }
}
