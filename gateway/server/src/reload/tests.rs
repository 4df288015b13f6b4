//! Reloads of real files; the tests play control.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_config::WebrtcSettings;
use evenkeel_control::{ControlRequest, NotListed, Shrinks};
use evenkeel_revisions::RolloutReport;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::paths::tests::with_certificate;

mod restart;

/// A temporary folder of policies.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn with(name: &str, text: &str) -> Folder {
        let folder = Folder(tempdir().unwrap());
        std::fs::create_dir(folder.policies()).unwrap();
        folder.write(name, text);
        folder
    }

    pub(crate) fn policies(&self) -> PathBuf {
        self.0.path().join("policies")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.policies().join(name), text).unwrap();
    }

    fn place(&self) -> ServePaths {
        ServePaths { policies: Some(self.policies()), ..ServePaths::default() }
    }

    pub(crate) fn load(&self) -> Arc<GatewayConfig> {
        Arc::new(self.place().load().unwrap())
    }
}

const CALL: &str = "[scenario.call]\n\
    [admission]\nplugin = \"admit-capacity\"\nsettings = { cap = 300 }\n\
    [routing]\nplugin = \"route-nearest\"\nsettings = { spares = 2 }\n";

const BY_FILE: ReloadOptions = ReloadOptions { force: false, within: None, by: Actor::File };

/// Control's answer to a list of nodes. Only the guarded default options are expected.
fn listed(list: &NodeList) -> Result<ListChange, NotListed> {
    assert_eq!((list.force, list.within, list.by), (false, None, Actor::File));
    Ok(ListChange::default())
}

struct World {
    folder: Folder,
    applied: AppliedConfig,
    handle: Handle,
    requests: mpsc::Receiver<ControlRequest>,
    configured: Configured,
    webrtc: Option<WebrtcSettings>,
    /// Control's answer to changed sets.
    retired: BTreeMap<Arc<str>, usize>,
}

/// Bindings that were rolled out last.
type Configured = BTreeMap<PolicyName, Option<Arc<str>>>;

fn configured(settings: &GatewayConfig) -> Configured {
    let read = |(policy, binding)| (policy, PluginSource::read(binding).unwrap().configured);
    settings.bindings().map(read).collect()
}

impl World {
    fn start() -> World {
        let folder = Folder::with("call.toml", CALL);
        folder.write("live.toml", "[scenario.live]\n");
        let applied = AppliedConfig::of(&folder.load());
        let (handle, requests) = Handle::new(Arc::default(), Arc::default());
        let configured = configured(&folder.load());
        let (webrtc, retired) = (None, BTreeMap::new());
        World { folder, applied, handle, requests, configured, webrtc, retired }
    }

    /// Saves a file and reloads; returns control's requests. Each rollout has this outcome.
    async fn save(&mut self, text: &str, outcome: RolloutOutcome) -> Vec<String> {
        self.reload(text, |_| outcome).await.0
    }

    /// Saves a file and reloads with an outcome per policy; also returns the result of the reload.
    async fn reload(
        &mut self,
        text: &str,
        outcome: impl Fn(&PolicyName) -> RolloutOutcome,
    ) -> (Vec<String>, Result<Reloaded, NotReloaded>) {
        self.folder.write("call.toml", text);
        let settings = Arc::unwrap_or_clone(self.folder.load());
        let settings = Arc::new(GatewayConfig { webrtc: self.webrtc.clone(), ..settings });
        let mut asked = Vec::new();
        let (applied, requests) = (&mut self.applied, &mut self.requests);
        let (configured, retired) = (&mut self.configured, &self.retired);
        let control = async {
            while let Some(request) = requests.recv().await {
                let (policy, source, reply) = match request {
                    ControlRequest::RollOut(policy, source, reply) => (policy, source, reply),
                    ControlRequest::ConfiguredPolicies(reply) => {
                        reply.send(configured.clone()).unwrap();
                        continue;
                    }
                    ControlRequest::Sets(sets, reply) => {
                        let mut scenarios = sets.iter().flat_map(|set| &set.scenarios);
                        let call = scenarios.find(|scenario| &*scenario.name == "call").unwrap();
                        asked.push(format!("call is {}", call.mode.name()));
                        reply.send(Ok(retired.clone())).unwrap();
                        continue;
                    }
                    ControlRequest::List(list, reply) => {
                        reply.send(listed(&list)).unwrap();
                        continue;
                    }
                    ControlRequest::NoteRefusal(refusal) => {
                        asked.push(format!("{} is refused for {}", refusal.policy, refusal.code));
                        continue;
                    }
                    ControlRequest::Govern(_, reply) => {
                        asked.push("other rules".to_owned());
                        reply.send(()).unwrap();
                        continue;
                    }
                    other => panic!("{other:?}"),
                };
                asked.push(policy.to_string());
                let outcome = outcome(&policy);
                if outcome == RolloutOutcome::Activated {
                    configured.insert(policy.clone(), source.configured);
                }
                let rollout = RolloutReport {
                    outcome,
                    stage: None,
                    by: Actor::File,
                    policy,
                    revision: None,
                    previous: None,
                    code: None,
                    reason: Some("a trap".into()),
                    arrived: Instant::now(),
                    activate: Duration::ZERO,
                };
                reply.send(Ok(rollout)).unwrap();
            }
            panic!("control ended");
        };
        let taken = tokio::select! {
            taken = applied.apply(&settings, &BY_FILE, &self.handle) => taken,
            () = control => unreachable!("it waits for requests"),
        };
        // The last requests may still be in the channel.
        while let Ok(ControlRequest::NoteRefusal(refusal)) = self.requests.try_recv() {
            asked.push(format!("{} is refused for {}", refusal.policy, refusal.code));
        }
        (asked, taken)
    }
}

#[tokio::test]
async fn changed_binding_is_rolled_out_once() {
    let mut world = World::start();
    let changed = CALL.replace("300", "200");
    assert_eq!(world.save(CALL, RolloutOutcome::Activated).await, [""; 0]);
    assert_eq!(world.save(&changed, RolloutOutcome::Activated).await, ["call/admission"]);
    assert_eq!(world.save(&changed, RolloutOutcome::Activated).await, [""; 0]);
    assert_eq!(world.save(CALL, RolloutOutcome::Activated).await, ["call/admission"]);
}

#[tokio::test]
async fn mode_is_sent_only_when_changed() {
    let mut world = World::start();
    let cold = CALL.replace("[scenario.call]\n", "[scenario.call]\nmode = \"cold\"\n");
    assert_eq!(world.save(&cold, RolloutOutcome::Activated).await, ["call is cold"]);
    assert_eq!(world.save(&cold, RolloutOutcome::Activated).await, [""; 0]);
    let broken = cold.replace("spares = 2", "spares = 9").replace("cold", "hot");
    let refused = ["call/routing is refused for setting"];
    assert_eq!(world.save(&broken, RolloutOutcome::Activated).await, refused, "all or nothing");
    assert_eq!(world.save(CALL, RolloutOutcome::Activated).await, ["call is hot"]);
}

async fn answer_configured(requests: &mut mpsc::Receiver<ControlRequest>, configured: Configured) {
    let Some(ControlRequest::ConfiguredPolicies(reply)) = requests.recv().await else {
        panic!("no question about bindings")
    };
    reply.send(configured).unwrap();
}

async fn listen(handle: &Handle, requests: &mut mpsc::Receiver<ControlRequest>) -> ReloadTriggers {
    let triggers = ReloadTriggers::listen(handle).await.unwrap();
    assert!(matches!(requests.recv().await, Some(ControlRequest::FollowReloads(_))));
    triggers
}

#[tokio::test]
async fn change_during_start_is_rolled_out_after_it() {
    let World { folder, applied, handle, mut requests, configured, .. } = World::start();
    let place = folder.place();
    let triggers = listen(&handle, &mut requests).await;
    let control = async {
        let Some(ControlRequest::AwaitPolicies(reply)) = requests.recv().await else {
            panic!("no AwaitPolicies")
        };
        folder.write("call.toml", &CALL.replace("300", "200"));
        // Long enough to see a reload that does not wait.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(requests.try_recv().is_err());
        reply.send(()).unwrap();
        answer_configured(&mut requests, configured).await;
        let Some(ControlRequest::List(list, reply)) = requests.recv().await else {
            panic!("no list")
        };
        reply.send(listed(&list)).unwrap();
        let Some(ControlRequest::RollOut(policy, ..)) = requests.recv().await else {
            panic!("no rollout")
        };
        policy.to_string()
    };
    tokio::select! {
        () = follow(&place, applied, &handle, triggers) => panic!("control ended"),
        policy = control => assert_eq!(policy, "call/admission"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("no rollout requested"),
    }
}

#[tokio::test]
async fn change_before_watching_is_rolled_out() {
    let World { folder, applied, handle, mut requests, configured, .. } = World::start();
    folder.write("call.toml", &CALL.replace("300", "200"));
    let place = folder.place();
    let triggers = listen(&handle, &mut requests).await;
    let control = async {
        let Some(ControlRequest::AwaitPolicies(reply)) = requests.recv().await else {
            panic!("no AwaitPolicies")
        };
        reply.send(()).unwrap();
        answer_configured(&mut requests, configured).await;
        let Some(ControlRequest::List(list, reply)) = requests.recv().await else {
            panic!("no list")
        };
        reply.send(listed(&list)).unwrap();
        let Some(ControlRequest::RollOut(policy, ..)) = requests.recv().await else {
            panic!("no rollout")
        };
        policy.to_string()
    };
    tokio::select! {
        () = follow(&place, applied, &handle, triggers) => panic!("control ended"),
        policy = control => assert_eq!(policy, "call/admission"),
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("no rollout requested"),
    }
}

#[tokio::test]
async fn one_invalid_binding_blocks_all_others() {
    let mut world = World::start();
    let mixed = CALL.replace("300", "200").replace("spares = 2", "spares = 9");
    let refused = ["call/routing is refused for setting"];
    assert_eq!(world.save(&mixed, RolloutOutcome::Activated).await, refused);
    let (settings, control) =
        (world.folder.load(), answer_configured(&mut world.requests, world.configured.clone()));
    let (candidates, ()) =
        tokio::join!(world.applied.candidates(&settings, &world.handle), control);
    let candidates = candidates.unwrap().unwrap();
    let foundry = Foundry::bare(evenkeel_host::Engine::new());
    let tried = try_out(foundry, world.folder.load(), candidates, &world.handle).await;
    let found = tried.err().unwrap().to_string();
    assert!(found.contains("call.toml:7:23") && found.contains("spares = 9"), "{found}");
    assert!(matches!(world.requests.try_recv(), Ok(ControlRequest::NoteRefusal(_))));
    let mended = mixed.replace("spares = 9", "spares = 1");
    let both = ["call/admission", "call/routing"];
    assert_eq!(world.save(&mended, RolloutOutcome::Activated).await, both);
}

#[tokio::test]
async fn reload_reports_refused_policy_and_takes_rest() {
    let mut world = World::start();
    let changed = CALL.replace("300", "200").replace("spares = 2", "spares = 1");
    let outcome = |policy: &PolicyName| match policy.to_string().as_str() {
        "call/routing" => RolloutOutcome::Refused,
        _ => RolloutOutcome::Activated,
    };
    let (asked, taken) = world.reload(&changed, outcome).await;
    assert_eq!(asked, ["call/admission", "call/routing"]);
    let refused = taken.unwrap().refused;
    let named = refused.iter().map(|one| (one.policy.to_string(), one.reason.as_str()));
    assert_eq!(named.collect::<Vec<_>>(), [("call/routing".to_owned(), "a trap")]);
    let (asked, taken) = world.reload(&changed, |_| RolloutOutcome::Activated).await;
    assert_eq!((asked, taken), (vec!["call/routing".to_owned()], Ok(Reloaded::default())));
}

#[tokio::test]
async fn reload_warns_of_a_certificate_that_clients_refuse() {
    let mut world = World::start();
    for (years, right) in [
        ([2025, 2026], vec!["[webrtc]: the certificate expired on 2026-01-01 00:00 UTC"]),
        ([2025, 3026], Vec::new()),
    ] {
        let folder = with_certificate(years, "live.example.org");
        let config = Some(folder.path().join("evenkeel.toml"));
        let place = ServePaths { config, ..ServePaths::default() };
        world.webrtc = place.load().unwrap().webrtc;
        let (_, taken) = world.reload(CALL, |_| RolloutOutcome::Activated).await;
        assert_eq!(taken.unwrap().warnings, right);
    }
}

#[tokio::test]
async fn new_set_is_applied_before_its_plugin() {
    let mut world = World::start();
    world.folder.write("opera.toml", &CALL.replace(".call", ".opera"));
    let (asked, taken) = world.reload(CALL, |_| RolloutOutcome::Activated).await;
    assert_eq!(asked, ["call is hot", "other rules", "opera/admission", "opera/routing"]);
    assert_eq!(taken, Ok(Reloaded::default()));
    assert_eq!(world.save(CALL, RolloutOutcome::Activated).await, [""; 0]);
}

#[tokio::test]
async fn removed_set_and_hook_are_applied_at_once() {
    let mut world = World::start();
    let bare = "[scenario.call]\n";
    world.folder.write("opera.toml", &CALL.replace(".call", ".opera"));
    world.reload(CALL, |_| RolloutOutcome::Activated).await.1.unwrap();
    std::fs::remove_file(world.folder.policies().join("opera.toml")).unwrap();
    world.retired = BTreeMap::from([("opera".into(), 3)]);
    let (asked, taken) = world.reload(bare, |_| RolloutOutcome::Activated).await;
    assert_eq!(asked, ["call is hot", "other rules"]);
    let sets = &world.applied.sets;
    assert!(sets.iter().all(|set| &*set.name != "opera"), "{sets:?}");
    let call = sets.iter().find(|set| &*set.name == "call").unwrap();
    assert!(call.bindings.is_empty(), "{call:?}");
    let Reloaded { waiting, warnings, .. } = taken.unwrap();
    assert_eq!(waiting, [""; 0]);
    let warning = "scenario `opera` is gone: open rooms (3) keep its settings until they end";
    assert!(warnings.iter().any(|it| it.starts_with(warning)), "{warnings:?}");
}

#[tokio::test]
async fn policy_that_a_drill_stopped_stays_stopped() {
    let mut world = World::start();
    world.configured.retain(|policy, _| policy.to_string() != "call/admission");
    let changed = CALL.replace("300", "200");
    assert_eq!(world.save(&changed, RolloutOutcome::Activated).await, [""; 0]);
}

#[tokio::test]
async fn panic_while_compiling_fails_reload() {
    let tried = on_thread(|| -> () { panic!("on purpose") }).await;
    assert!(matches!(&tried, Err(NotReloaded::Untried(_))), "{tried:?}");
    assert_eq!(on_thread(|| 7).await, Ok(7));
}

#[tokio::test]
async fn refused_binding_is_retried_until_restored() {
    let mut world = World::start();
    let changed = CALL.replace("300", "200");
    for _ in 0..2 {
        assert_eq!(world.save(&changed, RolloutOutcome::Refused).await, ["call/admission"]);
    }
    assert_eq!(
        world.save(CALL, RolloutOutcome::Refused).await,
        [""; 0],
        "the applied revision is still active"
    );
}

#[tokio::test]
async fn rebuilt_plugin_is_rolled_out() {
    let mut world = World::start();
    let bytes = |name: &str| {
        evenkeel_host::shipped().iter().find(|shipped| shipped.name == name).unwrap().bytes
    };
    let file = world.folder.policies().join("mine.wasm");
    std::fs::write(&file, bytes("route-nearest")).unwrap();
    let mine = CALL.replace("\"route-nearest\"", "\"mine.wasm\"");
    assert_eq!(world.save(&mine, RolloutOutcome::Activated).await, [""; 0], "the same plugin");
    // The file now contains a plugin without this hook.
    std::fs::write(&file, bytes("admit-capacity")).unwrap();
    let refused = ["call/routing is refused for hook-unanswered"];
    assert_eq!(world.save(&mine, RolloutOutcome::Activated).await, refused);
    let custom = [bytes("route-nearest"), b"\0\x05\x04note"].concat();
    std::fs::write(&file, custom).unwrap();
    assert_eq!(world.save(&mine, RolloutOutcome::Activated).await, ["call/routing"]);
    let watched = watched(&world.folder.place(), &world.folder.load());
    let here = WatchedFolders { folders: [world.folder.policies()].into(), files: [file].into() };
    assert_eq!(watched, here);
}

#[tokio::test]
async fn data_document_is_read_with_its_binding() {
    let mut world = World::start();
    let file = world.folder.policies().join("tenants.json");
    std::fs::write(&file, "{\"acme\": \"gold\"}").unwrap();
    let data = "data = { tenants = \"tenants.json\" }\nsettings = { spares";
    let bound = CALL.replace("settings = { spares", data);
    let refused = ["call/routing is refused for document"];
    let asked = world.save(&bound, RolloutOutcome::Activated).await;
    assert_eq!(asked, refused, "route-nearest declares no document");
    let settings = world.folder.load();
    assert!(watched(&world.folder.place(), &settings).files.contains(&file));
    let before = configured(&settings);
    std::fs::write(&file, "{ \"acme\":\"gold\" }").unwrap();
    assert_eq!(configured(&settings), before, "the same content");
    std::fs::write(&file, "{\"acme\": \"silver\"}").unwrap();
    assert_ne!(configured(&settings), before);
}

#[tokio::test]
async fn trust_reload_reports_kept_violations() {
    let mut world = World::start();
    let theirs = evenkeel_host::shipped().iter().find(|shipped| shipped.name == "route-nearest");
    // A plugin that differs from the embedded one by a section.
    let theirs = [theirs.unwrap().bytes, b"\0\x05\x04note"].concat();
    std::fs::write(world.folder.policies().join("mine.wasm"), theirs).unwrap();
    let mine = CALL.replace("\"route-nearest\"", "\"mine.wasm\"");
    assert_eq!(world.save(&mine, RolloutOutcome::Activated).await, ["call/routing"]);
    let strict = mine.replace("settings = { spares", "unsigned = false\nsettings = { spares");
    let (asked, taken) = world.reload(&strict, |_| RolloutOutcome::Activated).await;
    assert_eq!(asked, ["other rules"]);
    let refused = taken.unwrap().refused;
    assert_eq!((refused.len(), refused[0].policy.to_string()), (1, "call/routing".to_owned()));
    assert!(refused[0].reason.contains("not signed"), "{refused:?}");
    let shipped = CALL.replace("settings = { spares", "unsigned = false\nsettings = { spares");
    let (asked, taken) = world.reload(&shipped, |_| RolloutOutcome::Activated).await;
    assert_eq!(asked, ["call/routing"], "rules did not change");
    assert_eq!(taken.unwrap().refused, []);
}

#[tokio::test]
async fn changed_grant_is_rolled_out() {
    let mut world = World::start();
    let less = format!("{CALL}metrics = [\"delay\"]\n");
    assert_eq!(world.save(&less, RolloutOutcome::Activated).await, ["other rules", "call/routing"]);
    assert_eq!(world.save(&less, RolloutOutcome::Activated).await, [""; 0]);
}

#[tokio::test]
async fn refused_node_list_blocks_whole_reload() {
    let mut world = World::start();
    let changed = CALL.replace("[scenario.call]\n", "[scenario.call]\nmode = \"cold\"\n");
    world.folder.write("call.toml", &changed.replace("300", "200"));
    let settings = world.folder.load();
    let shrinks = Shrinks { removing: 2, before: 0, of: 4 };
    let (applied, requests) = (&mut world.applied, &mut world.requests);
    let configured = world.configured.clone();
    let control = async {
        answer_configured(requests, configured).await;
        let Some(ControlRequest::List(_, reply)) = requests.recv().await else { panic!("no list") };
        reply.send(Err(shrinks.into())).unwrap();
        let further = requests.recv().await;
        panic!("{further:?}");
    };
    tokio::select! {
        taken = applied.apply(&settings, &BY_FILE, &world.handle) => {
            assert_eq!(taken, Err(NotReloaded::NodeList(NotListed::Shrinks(shrinks))));
        }
        () = control => {}
    }
    let later = world.save(&changed.replace("300", "200"), RolloutOutcome::Activated).await;
    assert_eq!(later, ["call is cold", "call/admission"], "nothing was applied before");
}

#[test]
fn node_list_file_is_watched() {
    let folder = Folder::with("call.toml", CALL);
    let config = folder.0.path().join("evenkeel.toml");
    let (config_file, policies) = (Some(config.clone()), Some(folder.policies()));
    let place = ServePaths { config: config_file, policies, ..ServePaths::default() };
    let watched = watched(&place, &folder.load());
    assert_eq!(watched.folders, [config, folder.policies()].into());
}
