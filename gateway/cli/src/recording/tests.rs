use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_author::case::CaseSubject;
use evenkeel_author::patient_engine;
use evenkeel_guests::module::Module;
use evenkeel_host::{BoundPlugin, Component, DataDocument, Engine, GrantLimits};
use evenkeel_model::{
    AskId, CatalogEntry, EntryKind, Hook, HookAnswer, Labels, Measures, Metric, NodeId,
    PluginFault, PluginState, PolicyName, PolicyQuestion, RoomId, RoomRow, Row, SessionId,
    SessionRow,
};
use evenkeel_recording::{
    Chunk, RecordedCall, RecordedCatalog, RecordedGrant, RecordedRevision, RecordingEntry,
    RecordingHeader, RecordingReader, head, tail,
};
use serde_json::{Value, json};

use super::diff::{ReplacementPlugin, diff, side_json, side_said};
use super::player::{DocumentFiles, Plugins, load_plugin};
use super::record::recorded_about;
use super::replay::{ReplayOutcome, replay};
use crate::command::CommandError;

/// Recorded calls of a shipped plugin in a scene drawn from a seed.
struct Scene {
    rng: Lcg,
    policy: BoundPlugin,
    revision: Arc<RecordedRevision>,
    catalog: Arc<RecordedCatalog>,
    states: BTreeMap<u64, PluginState>,
    memo: Option<PluginState>,
    records: Vec<RecordingEntry>,
}

/// A file that is removed with the test.
pub(super) struct Written(PathBuf);

impl Written {
    pub(super) fn new(name: &str, bytes: &[u8]) -> Written {
        let name = format!("evenkeel-cli-{}-{name}", std::process::id());
        let written = Written(std::env::temp_dir().join(name));
        std::fs::write(&written.0, bytes).unwrap();
        written
    }
}

impl Deref for Written {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A linear congruential generator, enough for variety.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn catalog(nodes: u64) -> Arc<RecordedCatalog> {
    let entry = |kind, id, parent, name: String| CatalogEntry {
        kind,
        id,
        parent,
        name: name.into(),
        labels: Vec::new(),
    };
    let regions = (0..2).map(|id| entry(EntryKind::Region, id, 0, format!("region-{id}")));
    let zones = (0..4).map(|id| entry(EntryKind::Zone, id, id / 2, format!("zone-{id}")));
    let nodes = (0..nodes).map(|id| entry(EntryKind::Node, id, id % 4, format!("node-{id}")));
    let home = entry(EntryKind::Home, 0, 0, "region-0".into());
    let entries = regions.chain(zones).chain(nodes).chain([home]).collect();
    Arc::new(RecordedCatalog { entries, redacted: false })
}

fn shipped(engine: &Engine, plugin: &str) -> Component {
    load_plugin(engine, plugin).unwrap_or_else(|_| panic!("{plugin} is shipped"))
}

impl Scene {
    fn of(engine: &Engine, plugin: &str, hook: Hook, settings: Value) -> Scene {
        Scene::within(engine, plugin, hook, settings, &GrantLimits::default())
    }

    /// Limits the grant of the plugin to these permissions.
    fn within(
        engine: &Engine,
        plugin: &str,
        hook: Hook,
        settings: Value,
        allowed: &GrantLimits,
    ) -> Scene {
        let (component, catalog) = (shipped(engine, plugin), catalog(8));
        let entries = catalog.entries.clone();
        let policy =
            BoundPlugin::install_within(engine, &component, hook, settings, entries, 99, allowed);
        let policy = policy.unwrap();
        let manifest = component.manifest();
        let evenkeel_host::PluginGrant { subject_metrics, node_metrics, ops } =
            policy.grant().clone();
        let revision = Arc::new(RecordedRevision {
            policy: PolicyName { set: "call".into(), hook },
            revision: policy.revision().into(),
            plugin: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: *component.digest(),
            settings: policy.settings().into(),
            seed: 99,
            grant: RecordedGrant { subject_metrics, node_metrics, ops },
            documents: Vec::new(),
            redacted: false,
        });
        let (rng, states) = (Lcg(11), BTreeMap::new());
        Scene { rng, policy, revision, catalog, states, memo: None, records: Vec::new() }
    }

    fn ask(&mut self, now_us: u64, question: PolicyQuestion) -> Result<HookAnswer, PluginFault> {
        let result = self.policy.ask(&question, now_us);
        let answer = result.clone().map(|answered| answered.answer);
        self.records.push(RecordingEntry::Call(Box::new(RecordedCall {
            revision: Arc::clone(&self.revision),
            catalog: Arc::clone(&self.catalog),
            ask: AskId(self.records.len() as u64),
            now_us,
            question: Arc::new(question),
            result,
            redacted: false,
        })));
        answer
    }

    /// Adds degradation ticks, with a loss that varies by session.
    fn ticks(mut self, ticks: u64, sessions: u64) -> Scene {
        for tick in 0..ticks {
            let rows = (0..sessions.min(3 + tick)).map(|id| {
                let mut measures = Measures::default();
                let bad = (tick / 20 + id).is_multiple_of(3);
                let loss =
                    if bad { 40_000 + self.rng.below(60_000) } else { self.rng.below(9_000) };
                measures
                    .set(Metric::LossUp, self.rng.below(2_000))
                    .set(Metric::LossDown, loss)
                    .set(Metric::BitrateUp, 300 + self.rng.below(900))
                    .set(Metric::Age, tick * 200)
                    .set(Metric::Video, 1)
                    .set(Metric::Floor, 24)
                    .set(Metric::Ceiling, 2_000);
                SessionRow {
                    row: Row { id, measures },
                    room: RoomId(id / 2),
                    scenario: "call".into(),
                    labels: labels(id),
                    state: self.states.get(&id).cloned(),
                }
            });
            let sessions: Vec<SessionRow> = rows.collect();
            let memo = self.memo.clone();
            let answer = self.ask(tick * 200_000, PolicyQuestion::Tick { sessions, memo }).unwrap();
            let HookAnswer::Actions { states, memo, .. } = answer else { panic!("{answer:?}") };
            self.states.extend(states.into_iter().map(|(row, state)| (u64::from(row), state)));
            self.memo = memo.or(self.memo.take());
        }
        self
    }

    /// Adds routing calls that place rooms and place them again, while nodes improve, degrade and are added.
    fn routes(mut self, rounds: u64) -> Scene {
        let mut standing: BTreeMap<u64, Vec<NodeId>> = BTreeMap::new();
        for round in 0..rounds {
            if round == rounds / 2 {
                self.catalog = catalog(12);
                self.policy.catalog(self.catalog.entries.clone()).unwrap();
            }
            let count = if round < rounds / 2 { 8 } else { 12 };
            let nodes: Vec<Row> = (0..count)
                .map(|id| {
                    let mut measures = Measures::default();
                    measures
                        .set(Metric::Delay, 1_000 + self.rng.below(80_000))
                        .set(Metric::LossNode, self.rng.below(50_000))
                        .set(Metric::Load, self.rng.below(1_000))
                        .set(Metric::Health, self.rng.below(2))
                        .set(Metric::Draining, u64::from(self.rng.below(9) == 0));
                    Row { id, measures }
                })
                .collect();
            let now_us = round * 1_000_000;
            let (room, scenario) = (RoomId(round), "call".into());
            let place = PolicyQuestion::Place {
                room,
                scenario,
                labels: labels(round),
                nodes: nodes.clone(),
            };
            let answer = self.ask(now_us, place).unwrap();
            let HookAnswer::Placed { hops, state, .. } = answer else { panic!("{answer:?}") };
            standing.insert(round, hops);
            self.states.insert(round, state);
            let rooms: Vec<RoomRow> = standing
                .iter()
                .map(|(&id, hops)| {
                    let mut measures = Measures::default();
                    measures.set(Metric::Age, (round - id) * 1_000);
                    let state = self.states.get(&id).cloned();
                    let (row, standing) = (Row { id, measures }, hops.clone());
                    RoomRow { row, scenario: "call".into(), labels: labels(id), standing, state }
                })
                .collect();
            let reroute = PolicyQuestion::Reroute { nodes, rooms, memo: self.memo.clone() };
            let answer = self.ask(now_us + 1, reroute).unwrap();
            let HookAnswer::Moves { moves, states, memo } = answer else { panic!("{answer:?}") };
            for one in moves {
                standing.insert(u64::from(one.row), one.hops);
            }
            self.states.extend(states.into_iter().map(|(row, state)| (u64::from(row), state)));
            self.memo = memo.or(self.memo.take());
        }
        self
    }
}

fn labels(id: u64) -> Labels {
    let region = format!("region-{}", id % 2);
    Arc::new([("device".into(), "phone".into()), ("region".into(), region.into())])
}

fn file_head() -> Vec<u8> {
    head(&RecordingHeader {
        gateway: "0.1.0".into(),
        contract: "0.1.0".into(),
        started_us: 0,
        region: "region-0".into(),
        addresses: false,
    })
}

/// Writes the records to a file and reads them again.
fn through_a_file(records: &[RecordingEntry]) -> Vec<RecordingEntry> {
    let mut bytes = file_head();
    for some in records.chunks(50) {
        let mut chunk = Chunk::default();
        some.iter().for_each(|record| chunk.push(record).unwrap());
        bytes.extend(chunk.close());
    }
    bytes.extend(tail());
    let mut reader = RecordingReader::open(&bytes).unwrap();
    let read = reader.by_ref().collect();
    assert_eq!(reader.lost(), None);
    read
}

#[test]
fn calls_about_a_session_are_found() {
    let engine = patient_engine();
    let mut records = ladder(&engine).records;
    records.truncate(40);
    records.extend(Scene::of(&engine, "route-nearest", Hook::Routing, json!({})).routes(4).records);
    let mut bytes = file_head();
    for some in records.chunks(20) {
        let mut chunk = Chunk::default();
        some.iter().for_each(|record| chunk.push(record).unwrap());
        bytes.extend(chunk.close());
    }
    bytes.extend(tail());
    let file = Written::new("about.ekr", &bytes);
    let about = |subject, policy| recorded_about(&file, subject, policy).map(|calls| calls.len());
    let session = |id| CaseSubject::Session(SessionId(id));
    assert!(matches!(about(session(0), None), Ok(40)));
    assert!(matches!(about(session(9), None), Ok(33)), "it joins at the eighth tick");
    assert!(matches!(about(session(0), Some("call/routing")), Ok(0)));
    let room = about(CaseSubject::Room(RoomId(0)), None);
    assert!(matches!(room, Ok(5)), "placed once, then asked about four times");
}

fn replayed(records: Vec<RecordingEntry>, plugins: &[&str]) -> ReplayOutcome {
    try_replay(records, plugins).unwrap_or_else(|_| panic!("every plugin is there"))
}

fn try_replay(
    records: Vec<RecordingEntry>,
    plugins: &[&str],
) -> Result<ReplayOutcome, CommandError> {
    let named: Vec<String> = plugins.iter().map(|&plugin| plugin.to_owned()).collect();
    replay(records.into_iter(), &Plugins::new(&named)?, None)
}

fn ladder(engine: &Engine) -> Scene {
    let settings = json!({"down_after": "400ms", "up_after": "1s"});
    Scene::of(engine, "degrade-ladder", Hook::Degradation, settings).ticks(300, 12)
}

fn call(records: &mut [RecordingEntry], place: usize) -> &mut RecordedCall {
    match &mut records[place] {
        RecordingEntry::Call(call) => call,
        other => panic!("{other:?}"),
    }
}

#[test]
fn shipped_plugins_replay_exactly() {
    let engine = patient_engine();
    let nearest = json!({"min_stay": "2s", "review_interval": "1s"});
    let routes = Scene::of(&engine, "route-nearest", Hook::Routing, nearest).routes(60);
    let moved = routes.records.iter().any(|record| {
        matches!(record, RecordingEntry::Call(call) if matches!(&call.result,
            Ok(answered) if matches!(&answered.answer, HookAnswer::Moves { moves, .. } if !moves.is_empty())))
    });
    assert!(moved, "a scene without moves shows nothing");
    let ticks = ladder(&engine).records;
    let (routed, ticked) = (routes.records.len(), ticks.len());
    // Interleaved, as a gateway writes them.
    let mut records: Vec<RecordingEntry> = routes.records.into_iter().chain(ticks).collect();
    records.sort_by_key(|record| match record {
        RecordingEntry::Call(call) => call.now_us,
        RecordingEntry::Decided(_) | RecordingEntry::Missed(_) => 0,
    });
    let outcome = replayed(through_a_file(&records), &[]);
    assert_eq!(outcome.calls, (routed + ticked) as u64);
    assert_eq!((outcome.same, outcome.different_total), (outcome.calls, 0), "{outcome:?}");
    assert_eq!((outcome.not_comparable, outcome.faulted), (0, 0));
}

/// A grant is part of a recorded revision.
#[test]
fn replay_uses_the_recorded_grant() {
    let engine = patient_engine();
    let settings = || json!({"down_after": "400ms", "up_after": "1s"});
    let whole = ladder(&engine);
    let ops = &whole.revision.grant.ops;
    assert!(ops.len() > 1, "the grant can be reduced: {ops:?}");
    let fewer = GrantLimits { ops: Some(vec![ops[0]]), metrics: None };
    let blind = GrantLimits { ops: None, metrics: Some(vec![Metric::LossUp, Metric::Video]) };
    for allowed in [fewer, blind] {
        let hook = Hook::Degradation;
        let cut = Scene::within(&engine, "degrade-ladder", hook, settings(), &allowed);
        let records = cut.ticks(300, 12).records;
        let mut as_if_whole = records.clone();
        for place in 0..records.len() {
            let call = call(&mut as_if_whole, place);
            let grant = whole.revision.grant.clone();
            call.revision =
                Arc::new(RecordedRevision { grant, ..RecordedRevision::clone(&call.revision) });
        }
        let outcome = replayed(as_if_whole, &[]);
        assert!(outcome.different_total > 0, "it makes a difference: {outcome:?}");

        let outcome = replayed(through_a_file(&records), &[]);
        assert_eq!((outcome.same, outcome.calls), (300, 300), "{allowed:?}: {outcome:?}");
    }
}

#[test]
fn replay_finds_different_settings() {
    let mut records = ladder(&patient_engine()).records;
    let settings = call(&mut records, 0).revision.settings.replace("400ms", "800ms");
    for place in 0..records.len() {
        let call = call(&mut records, place);
        let revision = RecordedRevision::clone(&call.revision);
        call.revision =
            Arc::new(RecordedRevision { settings: settings.clone().into(), ..revision });
    }
    let outcome = replayed(through_a_file(&records), &[]);
    assert!(outcome.different_total > 10 && outcome.same > 10, "{outcome:?}");
    assert_eq!(outcome.different.len(), 10, "the first are shown, all are counted");
    let first = &outcome.different[0];
    assert!(first.parts.contains(&"decision"), "{first:?}");
    assert_eq!(first.decisions[0].recorded["actions"][0]["reason"], "loss", "{first:?}");
    assert_eq!(first.decisions[0].replayed, Value::Null, "{first:?}");
}

#[test]
fn changed_state_byte_is_found() {
    let mut records = ladder(&patient_engine()).records;
    let changed = records.iter().position(|record| match record {
        RecordingEntry::Call(call) => matches!(&call.result.as_ref().unwrap().answer,
            HookAnswer::Actions { states, .. } if !states.is_empty()),
        RecordingEntry::Decided(_) | RecordingEntry::Missed(_) => false,
    });
    let call = call(&mut records, changed.unwrap());
    let HookAnswer::Actions { states, .. } = &mut call.result.as_mut().unwrap().answer else {
        panic!()
    };
    states[0].1.bytes[0] ^= 1;
    let outcome = replayed(records, &[]);
    assert_eq!((outcome.different_total, outcome.same), (1, outcome.calls - 1));
    assert_eq!(outcome.different[0].parts, ["states"]);
}

#[test]
fn timeouts_and_addresses_are_not_comparable() {
    let mut records = ladder(&patient_engine()).records;
    for (place, fault) in
        [(1, PluginFault::Deadline), (2, PluginFault::Late), (3, PluginFault::Absent)]
    {
        call(&mut records, place).result = Err(fault);
    }
    call(&mut records, 4).result = Err(PluginFault::Trap("unreachable".into()));
    let redacted = call(&mut records, 5);
    redacted.redacted = true;
    redacted.result.as_mut().unwrap().notes.clear();
    let HookAnswer::Actions { actions, .. } = &mut redacted.result.as_mut().unwrap().answer else {
        panic!()
    };
    actions.push(evenkeel_model::DegradationAction { row: 0, op: 1, arg: 1, reason: 1 });
    call(&mut records, 6).redacted = true;
    let outcome = replayed(records, &[]);
    assert_eq!(outcome.not_comparable, 4, "three timeouts, and the one with another answer");
    assert_eq!(outcome.different_total, 1, "it does not trap here");
    assert_eq!(outcome.different[0].parts, ["fault"]);
    assert_eq!(outcome.same, outcome.calls - 5);
}

/// A policy that fails in every call, in the way of its name.
fn failing(name: &str) -> Vec<u8> {
    let mut guests = evenkeel_guests::hostile().into_iter();
    guests.find(|guest| guest.name == name).unwrap().bytes
}

#[test]
fn first_overrun_ends_the_replay() {
    let file = Written::new("endless.wasm", &failing("endless-loop in degradation"));
    let named = format!("call/degradation={}", file.display());
    let Err(CommandError::Failed(words)) = try_replay(ladder(&patient_engine()).records, &[&named])
    else {
        panic!("it never answers")
    };
    let said = "of call/degradation: `tick` did not return within 5 ms";
    assert!(words.contains(said), "{words}");
}

#[test]
fn equal_failures_are_counted_apart() {
    let engine = patient_engine();
    let trapping = failing("access-out-of-bounds in degradation");
    let file = Written::new("replay.wasm", &trapping);
    let mut records = ladder(&engine).records;
    for place in 0..records.len() {
        call(&mut records, place).result = Err(PluginFault::Trap("unreachable".into()));
    }
    let named = format!("call/degradation={}", file.display());
    let outcome = replayed(records.clone(), &[&named]);
    let (calls, failed) = (outcome.calls, outcome.failed_alike);
    assert_eq!((outcome.same, outcome.different_total, failed), (0, 0, calls), "{outcome:?}");
    assert_eq!((outcome.faulted, outcome.not_comparable), (calls, 0));
    assert_eq!((outcome.is_exact(), outcome.words()), (false, "no decision was compared"));

    // One compared answer is enough if the other calls failed both times.
    let whole = ladder(&engine).records;
    call(&mut records, 0).result = call(&mut whole.clone(), 0).result.clone();
    let outcome = replayed(records, &[&named]);
    assert_eq!((outcome.different_total, outcome.failed_alike), (1, calls - 1));
    assert_eq!((outcome.is_exact(), outcome.words()), (false, "not exact"));
    let outcome = replayed(whole[..1].to_vec(), &[]);
    assert_eq!((outcome.same, outcome.is_exact(), outcome.words()), (1, true, "exact"));
    let outcome = replayed(Vec::new(), &[]);
    assert_eq!((outcome.is_exact(), outcome.words()), (false, "no decision was compared"));
}

#[test]
fn common_reason_is_shown_by_key() {
    let mut records = ladder(&patient_engine()).records;
    let acts = records.iter().position(|record| match record {
        RecordingEntry::Call(call) => matches!(&call.result.as_ref().unwrap().answer,
            HookAnswer::Actions { actions, .. } if !actions.is_empty()),
        RecordingEntry::Decided(_) | RecordingEntry::Missed(_) => false,
    });
    let recorded = call(&mut records, acts.unwrap());
    let HookAnswer::Actions { actions, .. } = &mut recorded.result.as_mut().unwrap().answer else {
        panic!()
    };
    actions[0].reason = evenkeel_model::CommonReason::Jitter as u32;
    let outcome = replayed(records, &[]);
    let decision = &outcome.different[0].decisions[0];
    assert_eq!(decision.recorded["actions"][0]["reason"], "jitter", "{decision:?}");
    assert_eq!(decision.replayed["actions"][0]["reason"], "loss", "{decision:?}");
}

#[test]
fn unknown_plugin_is_taken_by_name() {
    let mut records = ladder(&patient_engine()).records;
    for place in 0..records.len() {
        let call = call(&mut records, place);
        let revision = RecordedRevision::clone(&call.revision);
        call.revision = Arc::new(RecordedRevision { digest: [7; 32], ..revision });
    }
    let Err(CommandError::Wrong(words)) = try_replay(records.clone(), &[]) else {
        panic!("it is unknown")
    };
    for part in ["call/degradation ran degrade-ladder", "0707", "--plugin call/degradation=FILE"] {
        assert!(words.contains(part), "{words}");
    }
    for named in ["degrade-ladder", "call/degradation=degrade-ladder"] {
        let outcome = replayed(records.clone(), &[named]);
        assert_eq!(outcome.same, outcome.calls, "{named}");
    }
    assert!(try_replay(records, &["route-nearest"]).is_err());
}

#[test]
fn diff_names_sessions_with_other_settings() {
    let engine = patient_engine();
    let records = through_a_file(&ladder(&engine).records);
    let replacement =
        |settings| ReplacementPlugin::new(&engine, shipped(&engine, "degrade-ladder"), settings);
    let compare = |settings| {
        let (mut a, mut b) = (replacement(None), replacement(settings));
        let outcome = diff(records.clone().into_iter(), &mut a, &mut b, None, 5);
        outcome.unwrap_or_else(|_| panic!("both take their settings"))
    };
    let itself = compare(None);
    assert_eq!((itself.calls, itself.alike), (300, 300), "{itself:?}");

    let slower = compare(Some(json!({"down_after": "800ms", "up_after": "1s"})));
    assert!(slower.different > 10 && slower.alike > 0, "{slower:?}");
    assert_eq!(slower.differences.len(), 5);
    let first = &slower.differences[0];
    let about = &first.about;
    assert!(slower.subjects.contains(about) && about.starts_with('s'), "{first:?}");
    assert_eq!(first.a["actions"][0]["reason"], "loss", "{first:?}");
    assert_eq!(first.a["notes"][0]["key"], "loss_up_ppm", "{first:?}");
    assert_eq!((&first.b, first.kind), (&Value::Null, "actions"), "{first:?}");
    let listed: u64 = slower.by_kind.values().sum();
    assert!(listed >= slower.different);
}

#[test]
fn diff_names_both_sides() {
    let engine = patient_engine();
    let side = ReplacementPlugin::new(&engine, shipped(&engine, "degrade-ladder"), None);
    let settings = Path::new("slow.toml");
    let shown = side_json("degrade-ladder", &side, Some(settings));
    assert_eq!(
        (&shown["plugin"], &shown["settings"]),
        (&json!("degrade-ladder"), &json!("slow.toml"))
    );
    let said = side_said("b", "ladder.wasm", &side, Some(settings));
    assert!(
        said.starts_with("b: ladder.wasm, degrade-ladder ")
            && said.ends_with("…, settings of slow.toml"),
        "{said}"
    );
    assert!(said.contains(&shown["digest"].as_str().unwrap()[..12]), "{said}");
}

/// The slower plugin must get the states that it wrote: with the recorded ones it would never reach its threshold.
#[test]
fn diff_sides_carry_their_own_states() {
    let engine = patient_engine();
    let records = ladder(&engine).records;
    let settings = || Some(json!({"down_after": "800ms", "up_after": "1s"}));
    let replacement =
        |settings| ReplacementPlugin::new(&engine, shipped(&engine, "degrade-ladder"), settings);
    // Calls of this scene do not depend on decisions, so a direct run of the slower plugin must decide the same.
    let own = Scene::of(&engine, "degrade-ladder", Hook::Degradation, settings().unwrap());
    let own = own.ticks(300, 12);
    let (mut slower, mut other) = (replacement(settings()), replacement(settings()));
    let outcome = diff(records.into_iter(), &mut slower, &mut other, None, 5);
    assert_eq!(outcome.unwrap_or_else(|_| panic!("both take their settings")).alike, 300);
    assert_eq!(own.states.len(), 12);
    for (id, state) in &own.states {
        assert_eq!(slower.state_of(&own.revision.policy, *id), Some(state), "session {id}");
    }
}

#[test]
fn documents_of_a_recording_are_found_by_digest() {
    let engine = patient_engine();
    let data = json!({"tenants": {"type": "object"}});
    let plugin = Module::honest(Hook::Routing).manifest_key("data", data).build();
    let component = Component::vet(&engine, &plugin).unwrap();
    let document = DataDocument::of("tenants", &json!({"acme": {}})).unwrap();
    let scene = Scene::of(&engine, "route-nearest", Hook::Routing, json!({}));
    let mut revision = RecordedRevision::clone(&scene.revision);
    revision.documents = vec![("tenants".into(), *document.digest())];
    let other = Written::new("other.json", b"{}");
    let right = Written::new("tenants.toml", b"[acme]\n");
    let read = |files: &[&Written]| {
        let files: Vec<PathBuf> = files.iter().map(|file| file.to_path_buf()).collect();
        DocumentFiles::read(&files).unwrap_or_else(|_| panic!("they are readable"))
    };
    let found = read(&[&other, &right]).of(&component, &revision);
    assert_eq!(found.ok(), Some([("tenants".into(), document)].into()));
    let Err(CommandError::Wrong(words)) = read(&[&other]).of(&component, &revision) else {
        panic!("it is missing")
    };
    assert!(words.contains("call/routing looked up in the data document `tenants`"), "{words}");
    let none = read(&[]).of(&shipped(&engine, "route-nearest"), &revision);
    assert!(none.is_ok_and(|none| none.is_empty()), "the plugin declares no document");
}
