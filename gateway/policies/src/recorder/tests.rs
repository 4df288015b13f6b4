use evenkeel_guests::module::Module;
use evenkeel_model::{DecisionOutcome, Hook, PluginState, PolicyName, RoomId, Row, SessionRow};
use evenkeel_recording::records;
use serde_json::json;

use super::*;

fn name() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn policy(engine: &host::Engine, spares: u32) -> host::BoundPlugin {
    let shipped = host::shipped().iter().find(|shipped| shipped.name == "route-nearest").unwrap();
    let component = host::Component::vet(engine, shipped.bytes).unwrap();
    let settings = json!({"spares": spares});
    host::BoundPlugin::install(engine, &component, Hook::Routing, settings, Vec::new(), 7).unwrap()
}

fn place(room: u64, client: &str) -> Arc<PolicyQuestion> {
    let labels = Arc::new([("client".into(), client.into())]);
    let (room, scenario) = (RoomId(room), "call".into());
    Arc::new(PolicyQuestion::Place { room, scenario, labels, nodes: Vec::new() })
}

/// A question about sessions with random states, which compress badly.
fn noise(sessions: u64, bytes: usize) -> Arc<PolicyQuestion> {
    let mut rng = fastrand::Rng::with_seed(sessions);
    let session = |id| SessionRow {
        row: Row { id, measures: evenkeel_model::Measures::default() },
        room: RoomId(id),
        scenario: "call".into(),
        labels: [].into(),
        state: Some(PluginState {
            plugin: "p".into(),
            schema: 1,
            bytes: std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect(),
        }),
    };
    Arc::new(PolicyQuestion::Tick { sessions: (0..sessions).map(session).collect(), memo: None })
}

struct World {
    engine: host::Engine,
    recorder: PolicyRecorder,
    words: Receiver<RecorderMessage>,
    thread: RecorderThread,
}

impl World {
    fn new() -> World {
        let (recorder, words) = PolicyRecorder::idle("east", SystemTime::now());
        let thread = RecorderThread::new(Arc::clone(&recorder.shared));
        World { engine: host::Engine::new(), recorder, words, thread }
    }

    /// Handles all waiting messages.
    fn work(&mut self) {
        while let Ok(word) = self.words.try_recv() {
            self.thread.handle(word);
            self.thread.close_when_due();
        }
    }

    fn kept(&self) -> Vec<RecordingEntry> {
        self.thread.chunks.iter().flat_map(|(_, chunk)| records(chunk).unwrap()).collect()
    }
}

fn absent() -> Result<RevisionAnswer, PluginFault> {
    Err(PluginFault::OutOfMemory)
}

fn calls(records: &[RecordingEntry]) -> Vec<&RecordedCall> {
    let calls = records.iter().filter_map(|record| match record {
        RecordingEntry::Call(call) => Some(&**call),
        RecordingEntry::Decided(_) | RecordingEntry::Missed(_) => None,
    });
    calls.collect()
}

fn missed(records: &[RecordingEntry]) -> u64 {
    let missed = records.iter().map(|record| match record {
        RecordingEntry::Missed(calls) => *calls,
        RecordingEntry::Call(_) | RecordingEntry::Decided(_) => 0,
    });
    missed.sum()
}

#[test]
fn call_is_recorded_with_catalog_and_outcome() {
    let mut world = World::new();
    let mut call_recorder = world.recorder.call_recorder();
    let mut policy = policy(&world.engine, 1);
    let question = place(3, "lan");
    let result = policy.ask(&question, 40);
    call_recorder.write(&policy, &name(), (AskId(5), 40), &question, &result);
    let entry = evenkeel_model::CatalogEntry {
        kind: evenkeel_model::EntryKind::Region,
        id: 0,
        parent: 0,
        name: "east".into(),
        labels: Vec::new(),
    };
    policy.catalog(vec![entry.clone()]).unwrap();
    call_recorder.write(&policy, &name(), (AskId(6), 41), &question, &result);
    let decided = RecordedDecision::of(AskId(5), &DecisionOutcome::Applied { differs: true });
    world.recorder.note_decided(decided.clone());
    world.work();
    world.thread.close();
    let kept = world.kept();
    let [first, second] = calls(&kept)[..] else { panic!("{kept:?}") };
    // A recording does not contain the texts of reasons; they are in the plugin.
    let result = result.map(|answered| RevisionAnswer { reasons: [].into(), ..answered });
    assert_eq!((&first.question, &first.result, first.now_us), (&question, &result, 40));
    assert_eq!(&*first.revision.revision, policy.revision());
    assert_eq!((first.revision.seed, &*first.revision.settings), (7, policy.settings()));
    assert_eq!((first.catalog.entries.len(), &second.catalog.entries), (0, &vec![entry]));
    assert!(kept.contains(&RecordingEntry::Decided(decided)));
}

#[test]
fn call_is_recorded_with_its_grant() {
    let mut world = World::new();
    let mut call_recorder = world.recorder.call_recorder();
    let shipped = host::shipped().iter().find(|shipped| shipped.name == "route-nearest").unwrap();
    let component = host::Component::vet(&world.engine, shipped.bytes).unwrap();
    let wish = &component.manifest().node_metrics;
    let allowed = host::GrantLimits { ops: Some(Vec::new()), metrics: Some(vec![wish[0]]) };
    let (engine, hook, settings) = (&world.engine, Hook::Routing, json!({}));
    let cut = host::BoundPlugin::install_within(
        engine,
        &component,
        hook,
        settings,
        Vec::new(),
        7,
        &allowed,
    );
    let mut policy = cut.unwrap();
    let question = place(3, "lan");
    let result = policy.ask(&question, 40);
    call_recorder.write(&policy, &name(), (AskId(5), 40), &question, &result);
    world.work();
    world.thread.close();
    let kept = world.kept();
    let [call] = calls(&kept)[..] else { panic!("{kept:?}") };
    assert!(wish.len() > 1);
    assert_eq!(call.revision.grant.node_metrics, wish[..1]);
    assert!(call.revision.grant.ops.is_empty());
}

#[test]
fn question_without_call_is_not_recorded() {
    let mut world = World::new();
    let mut call_recorder = world.recorder.call_recorder();
    let policy = policy(&world.engine, 1);
    for fault in [PluginFault::Late, PluginFault::Absent, PluginFault::Deadline] {
        call_recorder.write(&policy, &name(), (AskId(1), 0), &place(1, ""), &Err(fault));
    }
    world.work();
    world.thread.close();
    assert_eq!(calls(&world.kept()).len(), 1);
}

#[test]
fn calls_over_limit_are_counted_as_missed() {
    let mut world = World::new();
    let mut call_recorder = world.recorder.call_recorder();
    let policy = policy(&world.engine, 1);
    for ask in 0..MESSAGES_WAITING_MAX as u64 + 3 {
        call_recorder.write(&policy, &name(), (AskId(ask), 0), &place(ask, ""), &absent());
    }
    world.work();
    world.thread.close();
    assert_eq!((calls(&world.kept()).len(), missed(&world.kept())), (MESSAGES_WAITING_MAX, 3));

    // Large questions reach the limit in bytes before the limit in calls.
    let fit = BYTES_WAITING_MAX / weight(&noise(1_000, 1));
    let large = noise(1_000, 1);
    for ask in 0..fit as u64 + 2 {
        call_recorder.write(&policy, &name(), (AskId(ask), 0), &large, &absent());
    }
    assert_eq!(world.words.len(), fit);
    world.work();
    call_recorder.write(&policy, &name(), (AskId(0), 0), &large, &absent());
    assert_eq!(world.words.len(), 1, "the queue has space again");
}

#[test]
fn oldest_chunks_are_dropped_at_limit() {
    let mut world = World::new();
    let mut call_recorder = world.recorder.call_recorder();
    let policy = policy(&world.engine, 1);
    for ask in 0..12 {
        let question = noise(500 + ask, 4_096);
        call_recorder.write(&policy, &name(), (AskId(ask), 0), &question, &absent());
        world.work();
    }
    world.thread.close();
    let bytes: usize = world.thread.chunks.iter().map(|(_, chunk)| chunk.len()).sum();
    assert!(bytes <= KEPT_BYTES_MAX && bytes > KEPT_BYTES_MAX / 2, "{bytes}");
    assert_eq!(bytes, world.thread.kept_bytes);
    let kept = world.kept();
    let asks: Vec<u64> = calls(&kept).iter().map(|call| call.ask.0).collect();
    assert_eq!(asks.last(), Some(&11));
    assert!(asks[0] > 0 && asks.windows(2).all(|pair| pair[1] == pair[0] + 1), "{asks:?}");

    let old = Instant::now().checked_sub(KEPT_FOR + Duration::from_secs(1)).unwrap();
    world.thread.chunks.iter_mut().for_each(|(at, _)| *at = old);
    call_recorder.write(&policy, &name(), (AskId(12), 0), &place(1, ""), &absent());
    world.work();
    world.thread.close();
    let kept = world.kept();
    assert_eq!(calls(&kept).iter().map(|call| call.ask.0).collect::<Vec<_>>(), [12]);
}

#[test]
fn export_filters_policy_and_addresses() {
    let mut world = World::new();
    let mut call_recorder = world.recorder.call_recorder();
    let policy = policy(&world.engine, 1);
    let other = PolicyName { set: "live".into(), hook: Hook::Routing };
    call_recorder.write(&policy, &name(), (AskId(1), 0), &place(1, "192.0.2.1:4000"), &absent());
    let mut others = world.recorder.call_recorder();
    others.write(&policy, &other, (AskId(2), 0), &place(2, "lan"), &absent());
    world.work();
    world.thread.close();
    let chunk = Arc::clone(&world.thread.chunks[0].1);
    let export = |addresses, policy| {
        let wish = ExportOptions { addresses, policy };
        let mut export = Export::new(world.recorder.header(addresses), wish);
        records(&export.pass(4, &chunk)).unwrap()
    };
    let plain = export(true, None);
    assert_eq!((calls(&plain).len(), missed(&plain)), (2, 4));
    assert_eq!(
        (&calls(&plain)[0].question, calls(&plain)[0].redacted),
        (&place(1, "192.0.2.1:4000"), false)
    );
    let redacted = export(false, None);
    assert_eq!(
        (&calls(&redacted)[0].question, calls(&redacted)[0].redacted),
        (&place(1, "address-1"), true)
    );
    assert_eq!(
        (&calls(&redacted)[1].question, calls(&redacted)[1].redacted),
        (&place(2, "lan"), false)
    );
    let live = export(false, Some(other));
    assert_eq!(calls(&live).iter().map(|call| call.ask.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn listener_gets_chunks_and_missed_calls() {
    let mut world = World::new();
    let mut call_recorder = world.recorder.call_recorder();
    let policy = policy(&world.engine, 1);
    let mut ask = |world: &mut World, ask| {
        call_recorder.write(&policy, &name(), (AskId(ask), 0), &place(ask, ""), &absent());
        world.work();
        world.thread.close();
    };
    ask(&mut world, 0);
    let (chunks, mut heard) = mpsc::channel(2);
    let missed = Arc::new(AtomicU64::new(0));
    let queue = ListenerQueue { chunks, missed: Arc::clone(&missed) };
    let (number, ours) = oneshot::channel();
    world.thread.handle(RecorderMessage::Listen { queue, number });
    for number in 1..=4 {
        ask(&mut world, number);
    }
    world.thread.handle(RecorderMessage::Leave(ours.blocking_recv().unwrap()));
    ask(&mut world, 5);
    let mut all = Vec::new();
    while let Some(chunk) = heard.blocking_recv() {
        all.extend(records(&chunk).unwrap());
    }
    assert_eq!(calls(&all).iter().map(|call| call.ask.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(missed.load(Relaxed), 2);
}

#[test]
fn documents_are_recorded_by_digest() {
    let engine = host::Engine::new();
    let data = json!({"tenants": {"type": "object"}});
    let plugin = Module::honest(Hook::Routing).manifest_key("data", data).build();
    let component = host::Component::vet(&engine, &plugin).unwrap();
    let document = host::DataDocument::of("tenants", &json!({"acme": {}})).unwrap();
    let (settings, digest) = (json!({}), *document.digest());
    let documents = [("tenants".into(), document)].into();
    let inputs = host::PluginInputs { settings, documents };
    let policy =
        host::BoundPlugin::install(&engine, &component, Hook::Routing, inputs, Vec::new(), 7);
    let recorded = revision(&policy.unwrap(), &name());
    assert_eq!(recorded.documents, vec![(Arc::from("tenants"), digest)]);
}
