//! Revisions of real plugins: refused, superseded, revoked, and remembered across restarts.

mod ledger;

use evenkeel_config::{CacheFolder, GatewayConfig, KeptPlugin};
use evenkeel_core::{Gateway, GatewayEffect};
use evenkeel_guests::module::{Module, SCRATCH, answer, list, word_at};
use evenkeel_kept::{Store, StoreThread};
use evenkeel_model::{GatewayLimits, Hook, PluginFault};
use evenkeel_revisions::RolloutRules;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::{PluginFiles, PolicyRecords, PolicyThreads};

/// Policies and a core; the tests play control.
struct World {
    gateway: Gateway,
    policies: PolicyThreads,
    words: mpsc::Receiver<PolicyReport>,
    reports: Vec<RolloutReport>,
    /// The revisions of the process before.
    earlier: Option<RevisionLoad>,
    /// Writes the last records at the end.
    _kept: Option<StoreThread>,
}

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

/// A plugin of this binary.
fn shipped() -> Vec<u8> {
    let shipped = host::shipped().iter().find(|shipped| shipped.name == "route-nearest");
    shipped.unwrap().bytes.to_vec()
}

/// The shipped plugin with another version in its manifest.
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

fn source(bytes: Vec<u8>) -> PluginSource {
    let (settings, origin, seed, arrived) = (None, "pushed".into(), 7, Instant::now());
    PluginSource {
        bytes,
        settings,
        documents: SourceDocuments::Changed(DataDocuments::new()),
        origin,
        configured: None,
        seed,
        arrived,
        how: ActivationOptions::at_once(Actor::Operator),
    }
}

fn with_spares(spares: u32) -> PluginSource {
    PluginSource { settings: Some(serde_json::json!({"spares": spares})), ..source(shipped()) }
}

fn forced(bytes: Vec<u8>) -> PluginSource {
    let how = ActivationOptions { force: true, ..ActivationOptions::at_once(Actor::Operator) };
    PluginSource { how, ..source(bytes) }
}

/// A canary that stays at its share during a test.
fn strategy() -> Strategy {
    let each = Duration::from_secs(10);
    Strategy { steps: vec![5], each, shadow: each, stays_in_shadow: false, held: false }
}

fn rules() -> RolloutRules {
    evenkeel_config::RolloutSettings::default().rules()
}

/// A gateway's temporary folder.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempdir().unwrap())
    }

    /// Removes the plugins beside the database.
    fn lose_plugins(&self) {
        let folder = self.0.path().join("cache").join("kept");
        let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|path| path.is_dir()).for_each(|it| std::fs::remove_dir_all(it).unwrap());
    }

    fn settings(&self) -> GatewayConfig {
        let mut settings = GatewayConfig::load(None, None, &[]).unwrap();
        settings.gateway.cache = CacheFolder::Folder(self.0.path().join("cache"));
        settings.admin.socket = self.0.path().join("admin.sock");
        settings
    }
}

impl World {
    fn start() -> World {
        World::of(|policies| policies)
    }

    /// Starts a gateway with this folder, and this plugin where no earlier revision continues.
    fn begin(folder: &Folder, bytes: Vec<u8>) -> World {
        let mut world = World::in_folder(folder);
        if !world.continue_earlier() {
            let first = world.prepare(PluginSource { origin: "embedded".into(), ..source(bytes) });
            assert_eq!(first.outcome, RolloutOutcome::Activated, "{first:?}");
        }
        world
    }

    fn in_folder(folder: &Folder) -> World {
        let (store, settings, mut kept) = (Store::default(), folder.settings(), None);
        let world = World::of(|policies| {
            let policies = policies.with_settings(&settings);
            let (cache, socket) = (policies.foundry().folder(), &settings.admin.socket);
            kept = Some(store.open(cache, socket, &Default::default()).unwrap());
            policies.keeping(&store, &settings).unwrap()
        });
        store.begin(Duration::from_secs(60));
        World { _kept: kept, ..world }
    }

    /// Loads the revisions of the process before.
    fn continue_earlier(&mut self) -> bool {
        let Some(earlier) = self.earlier.take() else { return false };
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| load(earlier));
            while !loading.is_finished() {
                self.settle();
                std::thread::yield_now();
            }
            self.settle();
            loading.join().unwrap()
        })
    }

    fn of(configured: impl FnOnce(PolicyThreads) -> PolicyThreads) -> World {
        let (words_in, words) = mpsc::channel(64);
        let settings = GatewayConfig::load(None, None, &[]).unwrap();
        let mut gateway = Gateway::new(settings.core(), Instant::now());
        let mut policies =
            configured(PolicyThreads::new(Vec::new(), &GatewayLimits::default(), words_in));
        let earlier = policies.start(&routing(), rules(), &mut gateway).unwrap();
        World { gateway, policies, words, reports: Vec::new(), earlier, _kept: None }
    }

    fn preparation(&mut self) -> Preparation {
        self.policies.preparation(&routing(), &mut self.gateway).unwrap()
    }

    fn prepare(&mut self, source: PluginSource) -> RolloutReport {
        let preparation = self.preparation();
        self.finish(&preparation, source)
    }

    /// Prepares the revision on another thread, and handles its messages as control does.
    fn finish(&mut self, preparation: &Preparation, source: PluginSource) -> RolloutReport {
        std::thread::scope(|scope| {
            let preparing = scope.spawn(move || prepare(preparation, source));
            while !preparing.is_finished() {
                self.settle();
                std::thread::yield_now();
            }
            self.settle();
            preparing.join().unwrap()
        })
    }

    /// Continues records as a standby does: control restores, a thread loads.
    fn restore(&mut self, records: PolicyRecords) {
        let loads = self.policies.restore(records, &mut self.gateway, Instant::now());
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| loads.into_iter().for_each(|it| _ = load(it)));
            while !loading.is_finished() {
                self.settle();
                std::thread::yield_now();
            }
        });
        self.settle();
    }

    fn records(&self) -> PolicyRecords {
        self.policies.records(&self.gateway)
    }

    /// Begins a canary.
    fn try_out(&mut self, bytes: Vec<u8>) -> Option<Arc<str>> {
        let strategy = Some(Strategy { shadow: Duration::ZERO, ..strategy() });
        let how = ActivationOptions { strategy, ..ActivationOptions::at_once(Actor::Operator) };
        let begun = self.prepare(PluginSource { how, ..source(bytes) });
        assert_eq!(begun.outcome, RolloutOutcome::Started);
        begun.revision
    }

    /// The active revision, the candidate and the previous one.
    fn names(&self) -> [Option<Arc<str>>; 3] {
        let status = self.view().status;
        [status.active, status.candidate.map(|it| it.revision), status.previous]
    }

    fn settle(&mut self) {
        while let Ok(word) = self.words.try_recv() {
            self.policies.handle_report(word, &mut self.gateway, Instant::now());
        }
        while let Some(output) = self.gateway.poll_output() {
            match output {
                GatewayEffect::Rollout(rollout) => self.reports.push(rollout),
                GatewayEffect::Unload { policy, revision } => {
                    self.policies.unload(&policy, revision);
                }
                GatewayEffect::PolicyChanged(policy) => self.policies.keep(&policy, &self.gateway),
                _ => {}
            }
        }
    }

    /// Pushes a plugin; returns the code of the refusal.
    fn push(&mut self, bytes: Vec<u8>) -> Option<&'static str> {
        self.prepare(source(bytes)).code
    }

    /// Reports six faults of the revision.
    fn harm(&mut self, revision: &str) {
        let call = evenkeel_revisions::PolicyCallResult {
            answered: false,
            fault: Some(PluginFault::Deadline),
            beyond_repair: false,
        };
        for _ in 0..6 {
            let now = Instant::now();
            self.gateway.change_policy(&routing(), now, |life| {
                life.handle_call(revision, &call, now);
            });
        }
        self.settle();
    }

    fn push_harmful(&mut self, bytes: Vec<u8>) {
        let revision = self.prepare(source(bytes)).revision.unwrap();
        self.harm(&revision);
        assert_eq!(self.reports.last().unwrap().outcome, RolloutOutcome::RolledBack);
    }

    /// Quarantines the second plugin, and returns to the first.
    fn push_harmful_after(&mut self, first: PluginSource, harmful: Vec<u8>) {
        self.prepare(first);
        self.push_harmful(harmful);
    }

    /// Accepts plugins signed with these keys, except revoked keys.
    fn trust(&mut self, keys: &[(&str, &host::SecretKey)], revoked: &[&host::SecretKey]) {
        let mut settings = GatewayConfig::load(None, None, &[]).unwrap();
        keys.iter().for_each(|(name, key)| settings.trust.keys.add((*name).into(), key.public()));
        revoked.iter().for_each(|key| settings.trust.keys.revoke_key(key.public()));
        self.govern(&settings);
    }

    fn govern(&mut self, settings: &GatewayConfig) {
        self.policies.govern(TrustRules::of(settings), &mut self.gateway, Instant::now());
        self.settle();
    }

    fn view(&self) -> crate::PolicyView {
        self.policies.views(&self.gateway, &Default::default(), Instant::now()).remove(0)
    }

    fn refusals(&self) -> Vec<&'static str> {
        self.policies.ledger().refusals().iter().map(|refusal| refusal.code).collect()
    }
}

#[test]
fn policy_is_preparing_until_its_outcome() {
    let mut world = World::start();
    let is_preparing = |world: &World| {
        let views = world.policies.views(&world.gateway, &BTreeMap::new(), Instant::now());
        views[0].preparing.is_some()
    };
    assert!(!is_preparing(&world));
    let preparation = world.preparation();
    assert!(is_preparing(&world));
    drop(preparation);
    assert!(!is_preparing(&world));
}

#[test]
fn push_without_settings_keeps_those_of_its_plugin() {
    let mut world = World::start();
    world.prepare(with_spares(1));
    let second = world.prepare(with_spares(2));
    assert_eq!(second.outcome, RolloutOutcome::Activated);
    let again = world.prepare(source(shipped()));
    assert_eq!((again.outcome, again.revision), (RolloutOutcome::Unchanged, second.revision));
    // Inherited settings do not fit this plugin; the refusal must be for its missing hook.
    let other = host::shipped().iter().find(|shipped| shipped.name == "admit-capacity").unwrap();
    let other = world.prepare(source(other.bytes.to_vec()));
    assert_eq!(other.code, Some("hook-unanswered"), "refused for the hook, not the settings");
}

/// A plugin that declares the document `tenants`.
fn with_tenants() -> Vec<u8> {
    let tenants = json!({"type": "object", "additionalProperties": {"type": "string"}});
    Module::honest(Hook::Routing).manifest_key("data", json!({"tenants": tenants})).build()
}

fn with_document(tenants: &Value) -> PluginSource {
    let document = DataDocument::of("tenants", tenants).unwrap();
    let documents = SourceDocuments::Changed([("tenants".into(), document)].into());
    PluginSource { documents, ..source(with_tenants()) }
}

#[test]
fn changed_document_is_rolled_out_as_a_revision() {
    let mut world = World::start();
    let first = world.prepare(source(with_tenants()));
    let gold = world.prepare(with_document(&json!({"acme": "gold"})));
    assert_eq!((gold.outcome, &gold.previous), (RolloutOutcome::Activated, &first.revision));
    let again = world.prepare(source(with_tenants()));
    let unchanged = (RolloutOutcome::Unchanged, gold.revision.clone());
    assert_eq!((again.outcome, again.revision), unchanged, "the plugin keeps its document");
    let refused = world.prepare(with_document(&json!({"acme": 7})));
    assert_eq!(refused.code, Some("document"));
    assert!(refused.reason.unwrap().contains("`tenants` at `/acme`"));
    let strategy = Some(Strategy { shadow: Duration::ZERO, ..strategy() });
    let how = ActivationOptions { strategy, ..ActivationOptions::at_once(Actor::Operator) };
    let canary = PluginSource { how, ..with_document(&json!({"acme": "silver"})) };
    assert_eq!(world.prepare(canary).outcome, RolloutOutcome::Started);
    let view = world.view();
    let text = |plugin: &crate::PluginView| plugin.documents["tenants"].text().to_vec();
    assert_eq!(text(&view.active), br#"{"acme":"gold"}"#);
    assert_eq!(text(&view.candidate), br#"{"acme":"silver"}"#);
    // Another plugin has no use for the document.
    assert_eq!(world.prepare(forced(shipped())).outcome, RolloutOutcome::Activated);
    assert!(world.view().active.documents.is_empty());
}

#[test]
fn document_continues_at_a_standby_and_after_a_restart() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, with_tenants());
    let gold = world.prepare(with_document(&json!({"acme": "gold"}))).revision;
    let records = world.records();
    let mut standby = World::start();
    let mut lost = records.clone();
    lost.files.retain(|_, file| !file.starts_with(b"{"));
    standby.restore(lost);
    assert_eq!(standby.policies.not_loaded().count(), 1, "its document is missing");
    standby.policies.govern(TrustRules::default(), &mut standby.gateway, Instant::now());
    standby.restore(records);
    assert_eq!(standby.names()[0], gold);
    drop(world);
    let next = World::begin(&folder, with_tenants());
    for world in [&next, &standby] {
        let documents = &world.view().active.documents;
        assert_eq!(documents["tenants"].text().as_ref(), br#"{"acme":"gold"}"#);
    }
    assert_eq!(next.names()[0], gold);
}

#[test]
fn refusals_are_kept() {
    let mut world = World::start();
    assert_eq!(world.push(of_version("0.2.0")), None);
    assert_eq!(world.push(of_version("0.1.9")), Some("downgrade"));
    let refused = world.prepare(source(of_version("0.1.8")));
    let active = world.view().status.active;
    assert_eq!((refused.outcome, refused.previous), (RolloutOutcome::Refused, active));
    let reason = refused.reason.unwrap();
    assert!(reason.contains("0.1.8") && reason.contains("0.2.0"), "{reason}");
    assert_eq!(world.refusals(), ["downgrade", "downgrade"]);
}

#[test]
fn later_push_supersedes_one_that_is_compiled() {
    let mut world = World::start();
    world.prepare(with_spares(1));
    let slow = world.preparation();
    let third = world.prepare(with_spares(3)).revision;
    let late = world.finish(&slow, with_spares(2));
    assert_eq!((late.outcome, late.code), (RolloutOutcome::Refused, Some("superseded")));
    assert_eq!(world.view().status.active, third);
}

#[test]
fn revision_that_breaks_rules_in_a_trial_is_refused() {
    let mut world = World::start();
    let first = world.prepare(with_spares(1)).revision;
    let unknown = [word_at(SCRATCH, 4_000_000), list(0, SCRATCH, 1)];
    let plugin = Module::honest(Hook::Routing).body("place", answer(&unknown)).build();
    let refused = world.prepare(source(plugin));
    assert_eq!((refused.outcome, refused.code), (RolloutOutcome::Refused, Some("proof-failed")));
    let reason = refused.reason.unwrap();
    assert!(reason.contains("3 of 3 broke a rule"), "{reason}");
    assert_eq!(world.view().status.active, first);
    let proved = Arc::clone(&world.policies.running[&routing()].shared);
    assert!(lock(&proved.proved).is_empty(), "the first one is not tried");
    let second = world.prepare(with_spares(2)).revision.unwrap();
    world.prepare(with_spares(2));
    assert_eq!(*lock(&proved.proved), [(second, 0)], "tried once");
}

#[test]
fn push_during_a_rollout_names_it_and_asks_for_replace() {
    let mut world = World::start();
    world.prepare(source(shipped()));
    let candidate = world.try_out(of_version("0.2.0")).unwrap();
    let how = ActivationOptions { replace: false, ..ActivationOptions::at_once(Actor::Operator) };
    let refused = world.prepare(PluginSource { how, ..source(of_version("0.3.0")) });
    assert_eq!((refused.outcome, refused.code), (RolloutOutcome::Refused, Some("rollout-running")));
    let right =
        format!("revision {candidate} is being rolled out, canary at 5 %: `--replace` ends");
    let reason = refused.reason.unwrap();
    assert!(reason.starts_with(&right), "{reason}");
    assert_eq!(world.push(of_version("0.3.0")), None);
    assert_eq!(&*world.view().active.title, "route-nearest 0.3.0");
}

#[test]
fn quarantine_and_floor_survive_a_restart() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, shipped());
    assert_eq!(world.push(of_version("0.3.0")), None);
    world.push_harmful(of_version("0.4.0"));
    drop(world);

    let mut world = World::begin(&folder, shipped());
    let refused = world.prepare(source(of_version("0.4.0")));
    assert_eq!((refused.outcome, refused.code), (RolloutOutcome::Refused, Some("quarantined")));
    let reason = refused.reason.unwrap();
    assert!(reason.contains("too many faults") && reason.contains("--force"), "{reason}");
    assert_eq!(world.push(of_version("0.2.0")), Some("downgrade"));
    assert_eq!(world.view().status.quarantined.len(), 1);
    assert_eq!(world.prepare(forced(of_version("0.4.0"))).outcome, RolloutOutcome::Activated);
    drop(world);

    let mut world = World::begin(&folder, shipped());
    assert_eq!(world.push(of_version("0.4.0")), None, "force lifted its quarantine");
    assert_eq!(world.push(of_version("0.3.9")), Some("downgrade"), "it set the floor");
}

#[test]
fn active_version_below_floor_takes_new_settings() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, shipped());
    assert_eq!(world.push(of_version("0.3.0")), None);
    drop(world);
    folder.lose_plugins();
    let mut world = World::begin(&folder, shipped());
    let changed = world.prepare(with_spares(1));
    assert_eq!((changed.outcome, changed.code), (RolloutOutcome::Activated, None));
}

#[test]
fn quarantined_revision_starts_if_configured() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, shipped());
    world.push_harmful(of_version("0.3.0"));
    drop(world);
    folder.lose_plugins();

    let mut world = World::begin(&folder, of_version("0.3.0"));
    let told = world.reports.remove(0);
    assert_eq!(told.code, Some("quarantined"));
    let reason = told.reason.unwrap();
    assert!(reason.ends_with("active because no other revision is loaded"), "{reason}");
    assert_eq!(world.view().status.active, told.revision);
    assert_eq!(
        world.push(of_version("0.3.0")),
        Some("quarantined"),
        "a start does not end the quarantine"
    );
    assert_eq!(world.push(of_version("0.2.0")), None, "it sets no floor");
}

#[test]
fn first_revision_is_begun_whatever_ran_before() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, of_version("0.2.0"));
    world.settle();
    drop(world);
    folder.lose_plugins();
    let mut world = World::in_folder(&folder);
    assert!(!world.continue_earlier());
    let preparation = world.preparation();
    std::thread::scope(|scope| {
        let beginning = scope.spawn(|| begin(&preparation, source(shipped())));
        while !beginning.is_finished() {
            world.settle();
            std::thread::yield_now();
        }
        beginning.join().unwrap().unwrap();
    });
    assert_eq!(&*world.view().active.title, "route-nearest 0.1.0");
}

#[test]
fn trust_applies_to_later_pushes() {
    let mut world = World::start();
    assert_eq!(world.push(of_version("0.2.0")), None, "no signature is required yet");
    let mut settings = GatewayConfig::load(None, None, &[]).unwrap();
    settings.trust.unsigned = host::UnsignedPlugins::Refuse;
    world.govern(&settings);
    assert_eq!(world.push(of_version("0.3.0")), Some("unsigned"));
    assert_eq!(
        world.prepare(forced(shipped())).outcome,
        RolloutOutcome::Activated,
        "it is in the binary"
    );
    let key = host::SecretKey::generate();
    settings.trust.keys.add("ops".into(), key.public());
    world.govern(&settings);
    let signed = host::sign(&of_version("0.3.0"), &key).unwrap();
    assert_eq!(world.push(signed.clone()), None);
    settings.trust.keys.revoke_key(key.public());
    world.govern(&settings);
    assert_eq!(world.push(signed), Some("revoked"));
    assert_eq!(world.refusals(), ["unsigned", "revoked"]);
}

#[test]
fn revoked_revisions_are_reported_once() {
    let mut world = World::start();
    let (before, now) = (host::SecretKey::generate(), host::SecretKey::generate());
    let keys = [("before", &before), ("now", &now)];
    world.trust(&keys, &[]);
    let first = world.prepare(source(host::sign(&of_version("0.1.0"), &before).unwrap())).revision;
    let second = world.prepare(source(host::sign(&of_version("0.2.0"), &now).unwrap())).revision;
    world.reports.clear();
    world.trust(&keys, &[&before]);
    let [told] = &world.reports[..] else { panic!("{:?}", world.reports) };
    assert_eq!((told.outcome, told.code), (RolloutOutcome::Revoked, Some("revoked")));
    assert_eq!((&told.revision, told.by), (&first, Actor::Gateway));
    let reason = told.reason.as_ref().unwrap();
    assert!(
        reason.contains("key `before`") && reason.contains("not a rollback target"),
        "{reason}"
    );

    world.trust(&keys, &[&before, &now]);
    let [_, told] = &world.reports[..] else { panic!("{:?}", world.reports) };
    assert_eq!(told.revision, second);
    let reason = told.reason.as_ref().unwrap();
    assert!(reason.contains("key `now`") && reason.contains("push another"), "{reason}");
    let status = world.view().status;
    assert_eq!((status.active, status.previous, status.revoked.len()), (second, first, 2));
}

#[test]
fn revoked_candidate_is_unloaded() {
    let mut world = World::start();
    let key = host::SecretKey::generate();
    let keys = [("ops", &key)];
    let first = world.prepare(source(shipped())).revision;
    world.trust(&keys, &[]);
    let how = ActivationOptions {
        strategy: Some(strategy()),
        ..ActivationOptions::at_once(Actor::Operator)
    };
    let signed = host::sign(&of_version("0.2.0"), &key).unwrap();
    let begun = world.prepare(PluginSource { how, ..source(signed) });
    assert_eq!(begun.outcome, RolloutOutcome::Started);
    assert_eq!(&*world.view().candidate.title, "route-nearest 0.2.0");
    world.trust(&keys, &[&key]);
    let told = world.reports.last().unwrap();
    assert_eq!((&told.revision, &told.previous), (&first, &begun.revision));
    let status = world.view().status;
    assert_eq!((status.active, status.candidate, status.revoked.len()), (first, None, 0));
    assert_eq!(world.policies.running[&routing()].plugins.len(), 1);
}

/// The key is revoked while the plugin is compiled.
#[test]
fn revision_revoked_while_compiled_is_refused() {
    let mut world = World::start();
    let first = world.prepare(source(shipped())).revision;
    let key = host::SecretKey::generate();
    let keys = [("ops", &key)];
    world.trust(&keys, &[]);
    let slow = world.preparation();
    world.trust(&keys, &[&key]);
    let signed = host::sign(&of_version("0.2.0"), &key).unwrap();
    assert_eq!(world.finish(&slow, source(signed)).code, Some("revoked"));
    assert_eq!(world.view().status.active, first);
}

#[test]
fn stopped_policy_takes_no_revision() {
    let mut world = World::start();
    let slow = world.preparation();
    assert!(world.policies.stop(&routing()));
    assert_eq!(world.finish(&slow, source(shipped())).code, Some("unavailable"));
}

/// A reload that compares its files with those rolled out last would put them in place of a record that is being loaded.
#[test]
fn record_that_is_being_loaded_names_the_configured_plugin() {
    let (mut owner, mut standby) = (World::start(), World::start());
    let configured = Some(Arc::from("of the file"));
    owner.prepare(PluginSource { configured: configured.clone(), ..source(shipped()) });
    let loads = standby.policies.restore(owner.records(), &mut standby.gateway, Instant::now());
    assert!(standby.policies.is_restoring(&routing()));
    assert_eq!(standby.policies.configured()[&routing()], configured);
    standby.policies.reject(&routing(), &mut standby.gateway, Instant::now());
    assert_eq!(standby.policies.configured()[&routing()], None, "it does not run here");
    drop(loads);
}

#[test]
fn standby_has_the_revisions_of_the_owner_loaded() {
    let (mut owner, mut standby) = (World::start(), World::start());
    standby.gateway.hold_rollouts();
    standby.prepare(with_spares(1));
    owner.prepare(with_spares(2));
    owner.prepare(with_spares(3));
    owner.try_out(of_version("0.2.0"));
    standby.reports.clear();
    standby.restore(owner.records());
    assert_eq!((standby.names(), standby.names()[1].is_some()), (owner.names(), true));
    assert_eq!(standby.reports, [], "the owner reported them");
    let loaded: Vec<_> = standby.policies.running[&routing()].plugins.keys().cloned().collect();
    let mut named: Vec<_> = standby.names().into_iter().flatten().collect();
    named.sort();
    assert_eq!(loaded, named, "its own revision is unloaded");
    // The next record names a subset, and needs no plugin.
    owner.gateway.change_policy(&routing(), Instant::now(), |life| {
        life.handle_rollback(false, Instant::now())
    });
    owner.settle();
    standby.restore(PolicyRecords { files: PluginFiles::new(), ..owner.records() });
    assert_eq!((standby.names(), standby.names()[1].is_none()), (owner.names(), true));
    assert!(!standby.policies.is_restoring(&routing()));
}

#[test]
fn revisions_in_force_stay_while_others_are_loaded() {
    let (mut owner, mut standby) = (World::start(), World::start());
    let first = owner.prepare(with_spares(1)).revision;
    standby.restore(owner.records());
    let second = owner.prepare(with_spares(2)).revision;
    let records = owner.records();
    let loads = standby.policies.restore(records.clone(), &mut standby.gateway, Instant::now());
    assert_eq!(standby.names()[0], first);
    assert!(standby.policies.is_restoring(&routing()));
    assert_eq!(
        standby.records().records,
        records.records,
        "the record that follows is the owner's"
    );
    drop(loads);
    standby.policies.reject(&routing(), &mut standby.gateway, Instant::now());
    assert_eq!(standby.names()[0], first, "not the native default");
    let not_loaded: Vec<_> = standby.policies.not_loaded().collect();
    assert_eq!(not_loaded, [(&routing(), second.as_ref().unwrap())]);
    standby.policies.govern(TrustRules::default(), &mut standby.gateway, Instant::now());
    standby.restore(records);
    assert_eq!(standby.names()[0], second, "the next record tries again");
}

#[test]
fn untrusted_revision_of_the_owner_is_left_out() {
    let (mut owner, mut standby) = (World::start(), World::start());
    owner.push_harmful_after(with_spares(1), of_version("0.2.0"));
    owner.try_out(of_version("0.3.0"));
    let own = standby.prepare(with_spares(5)).revision;
    let mut settings = GatewayConfig::load(None, None, &[]).unwrap();
    settings.trust.unsigned = host::UnsignedPlugins::Refuse;
    standby.govern(&settings);
    standby.restore(owner.records());
    assert_eq!(standby.names(), [owner.names()[0].clone(), None, None], "the embedded one runs");
    owner.prepare(source(of_version("0.4.0")));
    standby.restore(owner.records());
    assert_ne!(standby.names()[0], owner.names()[0]);
    assert!(standby.names()[0].is_some() && standby.names()[0] != own);
    assert_eq!(standby.view().status.quarantined.len(), 1, "facts continue");
}

#[test]
fn changed_plugin_is_no_revision_of_the_record() {
    let (mut owner, mut standby) = (World::start(), World::start());
    owner.prepare(with_spares(1));
    let mut records = owner.records();
    for bytes in records.files.values_mut() {
        *bytes = of_version("0.9.0").into();
    }
    standby.restore(records);
    assert_eq!(standby.names(), [const { None }; 3]);
}

#[test]
fn next_process_continues_the_revisions_of_the_disk() {
    let folder = Folder::new();
    let mut world = World::begin(&folder, shipped());
    world.prepare(with_spares(3));
    world.try_out(of_version("0.2.0"));
    let before = world.names();
    assert!(before.iter().all(Option::is_some));
    drop(world);
    let mut world = World::begin(&folder, shipped());
    assert_eq!((world.names(), &world.reports[..]), (before, &[][..]));
    assert_eq!(&*world.view().candidate.title, "route-nearest 0.2.0");
    let again = world.prepare(source(shipped()));
    assert_eq!(again.outcome, RolloutOutcome::Unchanged, "its settings continue");
}

#[test]
fn record_is_kept_before_its_plugins_are_loaded() {
    let (mut owner, folder) = (World::start(), Folder::new());
    owner.prepare(with_spares(3));
    let mut standby = World::in_folder(&folder);
    let loads = standby.policies.restore(owner.records(), &mut standby.gateway, Instant::now());
    assert!(standby.policies.is_restoring(&routing()));
    drop((loads, standby));
    let mut next = World::in_folder(&folder);
    assert!(next.continue_earlier(), "its files are there, too");
    assert_eq!(next.names(), owner.names());
}

#[test]
fn plugin_of_a_registry_is_read_from_its_file() {
    let folder = tempdir().unwrap();
    let reference = format!("oci://registry.example/my-route@sha256:{}", "0".repeat(64));
    let set = format!("[scenario.by-digest]\n[routing]\nplugin = \"{reference}\"\n");
    std::fs::write(folder.path().join("by-digest.toml"), set).unwrap();
    let mut settings = GatewayConfig::load(None, Some(folder.path()), &[]).unwrap();
    let set = settings.sets.iter_mut().find(|set| &*set.name == "by-digest").unwrap();
    let binding = &mut set.bindings[0];
    let found = |binding: &PolicyBinding| PluginSource::read(binding).unwrap_err().found;
    assert_eq!(found(binding), format!("`{reference}`, not pulled"));
    let path = folder.path().join("kept.wasm");
    let kept = Some(KeptPlugin { path: path.clone(), content: sha256(b"plugin") });
    let reference = reference.parse().unwrap();
    binding.plugin = PluginLocation::Registry(RegistryPlugin { reference, kept });
    assert!(found(binding).contains("kept.wasm"));
    std::fs::write(&path, "plugin").unwrap();
    let source = PluginSource::read(binding).unwrap();
    assert_eq!(source.bytes, b"plugin");
    assert!(source.origin.starts_with("oci://registry.example/my-route@sha256:"));
    std::fs::write(&path, "other").unwrap();
    assert!(found(binding).contains("with other bytes than `oci://"));
}
