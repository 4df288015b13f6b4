//! What comes in is judged first, and what does not come in is remembered.

use std::time::Instant;

use evenkeel_core::{Hook, Limits};
use tempfile::{TempDir, tempdir};
use tokio::sync::mpsc;

use super::*;
use crate::policy::{Back, Policies, Word};
use crate::settings::{CacheFolder, Settings};

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

/// By a canary that stays where it is for as long as a test takes.
fn pace() -> Pace {
    let each = Duration::from_secs(10);
    Pace { steps: vec![5], each, shadow: each, stays_in_shadow: false, held: false }
}

/// A folder that a gateway has, gone with the test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::load(None, None).unwrap();
        settings.gateway.cache = CacheFolder::Folder(self.0.path().join("cache"));
        settings.admin.socket = self.0.path().join("admin.sock");
        settings
    }
}

impl World {
    fn start() -> World {
        World::of(|policies| policies)
    }

    /// A gateway that has this folder begins, and its file names this plugin. The one before it has ended.
    fn begin(folder: &Folder, bytes: Vec<u8>) -> World {
        let world = World::of(|policies| policies.configured(&folder.settings()));
        let workshop = world.policies.workshop(&routing()).unwrap();
        begin(&workshop, Source { origin: "embedded".into(), ..source(bytes) }).unwrap();
        world
    }

    fn of(configured: impl FnOnce(Policies) -> Policies) -> World {
        let (words_in, words) = mpsc::channel(64);
        let policies = Policies::new(Vec::new(), &Limits::default(), words_in);
        let mut policies = configured(policies);
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

    /// What the policy says of itself next that has this outcome.
    fn await_told(&mut self, outcome: RolloutOutcome) -> Rollout {
        loop {
            let word = self.words.blocking_recv().expect("the policy runs");
            if let Word::Rolled(rolled) = word
                && rolled.rollout.outcome == outcome
            {
                return rolled.rollout;
            }
        }
    }

    /// The next revision that is told to be revoked.
    fn await_revoked(&mut self) -> Rollout {
        loop {
            let word = self.words.blocking_recv().expect("the policy runs");
            if let Word::Revoked(revoked) = word {
                return *revoked;
            }
        }
    }

    /// Takes what is signed with these keys, but for those that are revoked.
    fn trust(&mut self, keys: &[(&str, &host::SecretKey)], revoked: &[&host::SecretKey]) {
        let mut settings = Settings::load(None, None).unwrap();
        keys.iter().for_each(|(name, key)| settings.trust.keys.know((*name).into(), key.public()));
        revoked.iter().for_each(|key| settings.trust.keys.revoke_key(key.public()));
        self.policies.govern(Rules::of(&settings));
    }

    fn roll_back(&self) -> Result<Rollout, &'static str> {
        let (reply, rolled) = oneshot::channel();
        self.policies.roll_back(&routing(), Back::Last, reply).unwrap();
        rolled.blocking_recv().unwrap()
    }

    fn await_rollback(&mut self) {
        self.await_told(RolloutOutcome::RolledBack);
    }

    /// It comes in and does harm.
    fn push_what_does_harm(&mut self, bytes: Vec<u8>) {
        let revision = self.prepare(source(bytes)).revision.unwrap();
        let reason = "loss: 8 of 10 got worse".into();
        self.policies.order(&routing(), Order::Condemn { revision, reason }).unwrap();
        self.await_rollback();
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
        let how = How { returns: true, pace: Some(pace()), ..How::at_once(Actor::File) };
        world.prepare(Source { how, ..source(bytes) })
    };
    assert_eq!(world.push(of_version("0.1.0")), None);
    assert_eq!(world.push(of_version("0.2.0")), None);
    assert_eq!(by_file(of_version("0.1.1")).code, Some("downgrade"), "it never was in force");
    let back = by_file(of_version("0.1.0"));
    assert_eq!((back.outcome, back.code), (RolloutOutcome::Activated, None));
    assert_eq!(
        by_file(of_version("0.1.1")).outcome,
        RolloutOutcome::Started,
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
fn what_did_harm_and_what_was_good_is_known_after_a_restart() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, shipped());
    assert_eq!(world.push(of_version("0.3.0")), None);
    world.push_what_does_harm(of_version("0.4.0"));
    drop(world);

    let world = World::begin(&folder, shipped());
    let refused = world.prepare(source(of_version("0.4.0")));
    assert_eq!((refused.outcome, refused.code), (RolloutOutcome::Refused, Some("quarantined")));
    let reason = refused.reason.unwrap();
    assert!(reason.contains("loss: 8 of 10 got worse"), "{reason}");
    assert_eq!(world.push(of_version("0.2.0")), Some("downgrade"));
    let view = world.policies.views().remove(0);
    assert_eq!(view.life.quarantined.len(), 1);
    assert_eq!(world.prepare(forced(of_version("0.4.0"))).outcome, RolloutOutcome::Activated);
    drop(world);

    let world = World::begin(&folder, shipped());
    assert_eq!(world.push(of_version("0.4.0")), None, "who insisted had it forgiven");
    assert_eq!(world.push(of_version("0.3.9")), Some("downgrade"), "it was good");
}

/// Files may name an older one than what was pushed before a restart, and what they say of it goes on to count.
#[test]
fn what_is_in_force_takes_other_settings_however_new_others_were() {
    let folder = Folder::new();
    let world = World::begin(&folder, shipped());
    assert_eq!(world.push(of_version("0.3.0")), None);
    drop(world);
    let world = World::begin(&folder, shipped());
    let settings = Some(serde_json::json!({"spares": 1}));
    let changed = world.prepare(Source { settings, ..source(shipped()) });
    assert_eq!((changed.outcome, changed.code), (RolloutOutcome::Activated, None));
}

#[test]
fn what_did_harm_answers_where_files_name_it_all_the_same_and_that_is_told() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, shipped());
    world.push_what_does_harm(of_version("0.3.0"));
    drop(world);

    let mut world = World::begin(&folder, of_version("0.3.0"));
    let told = world.await_told(RolloutOutcome::Activated);
    assert_eq!(told.code, Some("quarantined"));
    let reason = told.reason.unwrap();
    assert!(
        reason.ends_with(": loss: 8 of 10 got worse; in force since nothing else is there"),
        "{reason}"
    );
    assert_eq!(world.policies.views()[0].revision, told.revision, "calls go on");
    assert_eq!(world.push(of_version("0.3.0")), Some("quarantined"), "that is no second chance");
    assert_eq!(world.push(of_version("0.2.0")), None, "it is no measure for what mends it");
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

#[test]
fn what_is_revoked_answers_on_is_told_of_once_and_is_nothing_to_go_back_to() {
    let mut world = World::start();
    let (before, now) = (host::SecretKey::generate(), host::SecretKey::generate());
    let keys = [("before", &before), ("now", &now)];
    world.trust(&keys, &[]);
    let first = world.prepare(source(host::sign(&of_version("0.1.0"), &before).unwrap())).revision;
    let second = world.prepare(source(host::sign(&of_version("0.2.0"), &now).unwrap())).revision;
    world.trust(&keys, &[&before]);
    let told = world.await_revoked();
    assert_eq!((told.outcome, told.code), (RolloutOutcome::Revoked, Some("revoked")));
    assert_eq!((&told.revision, told.by), (&first, Actor::Gateway));
    let reason = told.reason.unwrap();
    assert!(reason.contains("key `before`") && reason.contains("kept to go back to"), "{reason}");
    assert!(world.roll_back().unwrap_err().contains("the revision before this one is revoked"));

    // It does harm, and what was revoked does not come back for that either.
    let (revision, reason) = (second.clone().unwrap(), "loss: 8 of 10 got worse".into());
    world.policies.order(&routing(), Order::Condemn { revision, reason }).unwrap();
    let told = world.await_revoked();
    assert_eq!(told.revision, second);
    let reason = told.reason.unwrap();
    assert!(reason.starts_with("loss: 8 of 10 got worse; it stays in force"), "{reason}");
    world.trust(&keys, &[&before, &now]);
    let told = world.await_revoked();
    assert_eq!(told.revision, second, "the first was told of before");
    let reason = told.reason.unwrap();
    assert!(reason.contains("key `now`") && reason.contains("push another"), "{reason}");
    let view = world.policies.views().remove(0);
    assert_eq!((&view.revision, &view.previous), (&second, &first));
    assert_eq!((view.life.revoked.len(), view.life.quarantined.len()), (2, 1));

    world.trust(&keys, &[&now]);
    let back = world.await_told(RolloutOutcome::RolledBack);
    assert_eq!(
        (back.revision, back.previous),
        (first, second.clone()),
        "nobody revokes it any more"
    );
    let life = world.policies.views().remove(0).life;
    assert!(life.revoked.is_empty(), "the other one is gone");
    assert_eq!(life.quarantined.len(), 1, "and does not come in again");
}

#[test]
fn a_candidate_that_is_revoked_goes() {
    let mut world = World::start();
    let key = host::SecretKey::generate();
    let keys = [("ops", &key)];
    let first = world.prepare(source(shipped())).revision;
    world.trust(&keys, &[]);
    let how = How { pace: Some(pace()), ..How::at_once(Actor::Operator) };
    let signed = host::sign(&of_version("0.2.0"), &key).unwrap();
    let begun = world.prepare(Source { how, ..source(signed) });
    assert_eq!(begun.outcome, RolloutOutcome::Started);
    world.trust(&keys, &[&key]);
    let told = world.await_told(RolloutOutcome::RolledBack);
    assert_eq!((told.revision, told.previous), (first.clone(), begun.revision.clone()));
    let reason = told.reason.unwrap();
    assert!(reason.contains("revoked") && reason.contains("on its way no more"), "{reason}");

    let (reply, promoted) = oneshot::channel();
    let (revision, reply) = (begun.revision.unwrap(), Some(reply));
    let order = Order::Promote { revision, by: Actor::Operator, reply };
    world.policies.order(&routing(), order).unwrap();
    assert!(promoted.blocking_recv().unwrap().unwrap_err().contains("no revision of it"));
    let view = world.policies.views().remove(0);
    assert_eq!((view.revision, view.life.revoked.len()), (first, 0));
}

/// It was judged, and compiled for as long as it took somebody to revoke its key.
#[test]
fn what_is_revoked_while_it_is_compiled_does_not_come_in() {
    let mut world = World::start();
    let first = world.prepare(source(shipped())).revision;
    let key = host::SecretKey::generate();
    let keys = [("ops", &key)];
    world.trust(&keys, &[]);
    let slow = world.policies.workshop(&routing()).unwrap();
    world.trust(&keys, &[&key]);
    let signed = host::sign(&of_version("0.2.0"), &key).unwrap();
    assert_eq!(prepare(&slow, source(signed)).code, Some("revoked"));
    assert_eq!(world.policies.views()[0].revision, first);
}

#[test]
fn what_did_harm_and_stayed_for_want_of_another_goes_with_the_next_one() {
    let mut world = World::start();
    let key = host::SecretKey::generate();
    let keys = [("ops", &key)];
    world.trust(&keys, &[]);
    world.prepare(source(host::sign(&of_version("0.1.0"), &key).unwrap()));
    let harmful = world.prepare(source(of_version("0.2.0"))).revision.unwrap();
    world.trust(&keys, &[&key]);
    world.await_revoked();
    let order = Order::Condemn { revision: harmful.clone(), reason: "loss".into() };
    world.policies.order(&routing(), order).unwrap();
    world.await_revoked();
    assert_eq!(world.push(of_version("0.1.1")), None, "it is no measure for what mends it");
    let view = world.policies.views().remove(0);
    assert_eq!(view.life.quarantined[0].revision, harmful);
    assert_ne!(view.previous, Some(harmful), "nobody goes back to it");
    assert_eq!(world.push(of_version("0.2.0")), Some("quarantined"));
}
