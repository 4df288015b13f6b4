//! What comes in is judged first, and what does not come in is remembered.

use std::time::Instant;

use evenkeel_core::{Hook, Limits};
use tokio::sync::mpsc;

use super::*;
use crate::policy::{Back, Policies, Word};
use crate::settings::Settings;

struct World {
    policies: Policies,
    words: mpsc::Receiver<Word>,
}

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

/// A plugin that is in this binary.
fn shipped() -> Vec<u8> {
    let shipped = host::shipped().iter().find(|shipped| shipped.name == "route-nearest");
    shipped.unwrap().bytes.to_vec()
}

/// The same with another version in its manifest.
fn of_version(version: &str) -> Vec<u8> {
    let mut bytes = shipped();
    let (ours, other) = (b"\"version\":\"0.1.0\"", format!("\"version\":\"{version}\""));
    assert_eq!(other.len(), ours.len());
    let places = bytes.windows(ours.len()).enumerate();
    let places: Vec<_> =
        places.filter(|(_, window)| **window == ours[..]).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + ours.len()].copy_from_slice(other.as_bytes());
    }
    bytes
}

fn source(bytes: Vec<u8>) -> Source {
    let (settings, origin, seed, arrived) = (None, "pushed".into(), 7, Instant::now());
    Source { bytes, settings, origin, seed, arrived, how: How::at_once(Actor::Operator) }
}

/// The same, and somebody insists.
fn forced(bytes: Vec<u8>) -> Source {
    let how = How { force: true, ..How::at_once(Actor::Operator) };
    Source { how, ..source(bytes) }
}

impl World {
    fn start() -> World {
        let (words_in, words) = mpsc::channel(64);
        let mut policies = Policies::new(Vec::new(), &Limits::default(), words_in);
        policies.start(routing()).unwrap();
        World { policies, words }
    }

    fn prepare(&self, source: Source) -> Rollout {
        prepare(&self.policies.workshop(&routing()).unwrap(), source)
    }

    /// What became of it, in the word for why.
    fn push(&self, bytes: Vec<u8>) -> Option<&'static str> {
        self.prepare(source(bytes)).code
    }

    fn await_rollback(&mut self) {
        let back = |word: &Word| matches!(word, Word::Rolled(rolled) if rolled.rollout.outcome == RolloutOutcome::RolledBack);
        while !back(&self.words.blocking_recv().expect("the policy runs")) {}
    }

    fn refusals(&self) -> Vec<&'static str> {
        self.policies.ledger().refusals().iter().map(|refusal| refusal.code).collect()
    }
}

#[test]
fn an_older_plugin_is_refused_unless_somebody_knows_that_it_is_older() {
    let world = World::start();
    assert_eq!(world.push(of_version("0.1.0")), None);
    assert_eq!(world.push(of_version("0.2.0")), None);
    assert_eq!(world.push(of_version("0.1.9")), Some("downgrade"));
    assert_eq!(world.prepare(forced(of_version("0.1.9"))).outcome, RolloutOutcome::Activated);
    // What ran, ran.
    assert_eq!(world.push(of_version("0.1.8")), Some("downgrade"));
    assert_eq!(world.push(of_version("0.2.0")), None);
    assert_eq!(world.refusals(), ["downgrade", "downgrade"]);
}

/// Who puts back the file that was there takes the newer one back, and need not wait for a canary.
#[test]
fn what_was_in_force_before_comes_back_by_its_file_at_once_and_nothing_older_does() {
    let world = World::start();
    let by_file = |bytes: Vec<u8>| {
        let each = Duration::from_secs(10);
        let pace = Pace { steps: vec![5], each, shadow: each, stays_in_shadow: false, held: false };
        let how = How { returns: true, pace: Some(pace), ..How::at_once(Actor::File) };
        world.prepare(Source { how, ..source(bytes) })
    };
    assert_eq!(world.push(of_version("0.1.0")), None);
    assert_eq!(world.push(of_version("0.2.0")), None);
    assert_eq!(by_file(of_version("0.1.1")).code, Some("downgrade"), "it never was in force");
    let back = by_file(of_version("0.1.0"));
    assert_eq!((back.outcome, back.code), (RolloutOutcome::Activated, None));
    assert_eq!(
        by_file(of_version("0.1.1")).outcome,
        RolloutOutcome::Begun,
        "what went is no measure"
    );
}

/// At three in the morning somebody mends the line that is back in force.
#[test]
fn a_fix_of_what_came_back_is_taken_though_what_went_was_newer() {
    let mut world = World::start();
    assert_eq!(world.push(of_version("0.1.0")), None);
    let bad = world.prepare(source(of_version("0.2.0")));
    assert_eq!(world.push(of_version("0.1.1")), Some("downgrade"), "nobody has complained yet");

    let reason = "loss: 8 of 10 got worse".into();
    let revision = bad.revision.unwrap();
    world.policies.order(&routing(), Order::Condemn { revision, reason }).unwrap();
    world.await_rollback();
    assert_eq!(world.push(of_version("0.2.0")), Some("quarantined"), "it did harm");
    assert_eq!(world.push(of_version("0.0.9")), Some("downgrade"), "what is in force is newer");
    assert_eq!(world.push(of_version("0.1.1")), None);
    assert_eq!(world.push(of_version("0.1.0")), Some("downgrade"), "the fix is good");
}

#[test]
fn what_was_taken_back_by_hand_is_no_measure_either() {
    let mut world = World::start();
    assert_eq!(world.push(of_version("0.1.0")), None);
    assert_eq!(world.push(of_version("0.2.0")), None);
    let (reply, _rolled) = oneshot::channel();
    world.policies.roll_back(&routing(), Back::Last, reply).unwrap();
    world.await_rollback();
    assert_eq!(world.push(of_version("0.1.1")), None);
}

#[test]
fn what_the_first_revision_is_was_configured_whatever_ran_before() {
    let world = World::start();
    assert_eq!(world.push(of_version("0.2.0")), None);
    let workshop = world.policies.workshop(&routing()).unwrap();
    begin(&workshop, source(shipped())).unwrap();
}

#[test]
fn rules_hold_for_what_comes_after_them() {
    let mut world = World::start();
    assert_eq!(world.push(of_version("0.2.0")), None, "nobody asked for a signature yet");
    let mut settings = Settings::load(None, None).unwrap();
    settings.trust.unsigned = host::Unsigned::Refuse;
    world.policies.govern(Rules::of(&settings));
    assert_eq!(world.push(of_version("0.3.0")), Some("unsigned"));
    assert_eq!(
        world.prepare(forced(shipped())).outcome,
        RolloutOutcome::Activated,
        "it is in the binary"
    );
    let key = host::SecretKey::generate();
    settings.trust.keys.know("ops".into(), key.public());
    world.policies.govern(Rules::of(&settings));
    let signed = host::sign(&of_version("0.3.0"), &key).unwrap();
    assert_eq!(world.push(signed.clone()), None);
    settings.trust.keys.revoke_key(key.public());
    world.policies.govern(Rules::of(&settings));
    assert_eq!(world.push(signed), Some("revoked"));
    assert_eq!(world.refusals(), ["unsigned", "revoked"]);
}
