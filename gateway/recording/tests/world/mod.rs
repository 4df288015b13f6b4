//! One record of every kind. `formats/1.ekr` contains exactly these, so they must not change.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{
    AdmitVerdict, AskId, CatalogEntry, DecisionNote, DecisionOutcome, DegradationAction, EntryKind,
    GuardRule, Hook, HookAnswer, Labels, Measures, Metric, NodeId, Op, PluginFault, PluginState,
    PolicyName, PolicyQuestion, RegionId, RevisionAnswer, RoomId, RoomRow, RoutingMove, Row,
    SessionId, SessionRow,
};
use evenkeel_recording::{
    RecordedCall, RecordedCatalog, RecordedDecision, RecordedGrant, RecordedRevision,
    RecordingEntry, RecordingHeader,
};

pub(crate) fn header() -> RecordingHeader {
    RecordingHeader {
        gateway: "0.1.0".into(),
        contract: "0.1.0".into(),
        started_us: 1_790_000_000_000_000,
        region: "east".into(),
        addresses: true,
    }
}

fn revision(hook: Hook, settings: &str) -> Arc<RecordedRevision> {
    Arc::new(RecordedRevision {
        policy: PolicyName { set: "call".into(), hook },
        revision: "5f0c5f0c5f0c".into(),
        plugin: "nearest".into(),
        version: "1.2.3".into(),
        digest: std::array::from_fn(|place| place as u8),
        settings: settings.into(),
        seed: 0xfedc_ba98_7654_3210,
        grant: RecordedGrant {
            subject_metrics: vec![Metric::Cap, Metric::LossUp],
            node_metrics: vec![Metric::Load, Metric::Delay],
            ops: vec![Op::Cap, Op::VoiceOnly],
        },
        documents: Vec::new(),
        redacted: false,
    })
}

fn catalog(node: &str) -> Arc<RecordedCatalog> {
    let entry = |kind, id, parent, name: &str| CatalogEntry {
        kind,
        id,
        parent,
        name: name.into(),
        labels: vec![("rack".into(), "7".into())],
    };
    let entries = vec![
        entry(EntryKind::Region, 0, 0, "east"),
        entry(EntryKind::Zone, 0, 0, "east-a"),
        entry(EntryKind::Node, 1, 0, node),
        entry(EntryKind::Home, 0, 0, "east"),
    ];
    Arc::new(RecordedCatalog { entries, redacted: false })
}

fn labels(address: &str) -> Labels {
    Arc::new([("device".into(), "phone".into()), ("from".into(), address.into())])
}

fn state(bytes: &[u8]) -> PluginState {
    PluginState { plugin: "nearest".into(), schema: 3, bytes: bytes.into() }
}

fn subject(id: u64, cap: Option<u64>) -> Row {
    let mut measures = Measures::default();
    measures.set(Metric::LossUp, id * 1_000);
    cap.map(|cap| measures.set(Metric::Cap, cap));
    Row { id, measures }
}

fn node(id: u64) -> Row {
    let mut measures = Measures::default();
    measures.set(Metric::Load, 0).set(Metric::Delay, u64::from(u32::MAX) - 1);
    Row { id, measures }
}

fn answered(answer: HookAnswer) -> Result<RevisionAnswer, PluginFault> {
    let note = |row, key: &str, value| DecisionNote { row, key: key.into(), value };
    Ok(RevisionAnswer {
        answer,
        revision: "5f0c5f0c5f0c".into(),
        notes: vec![note(0, "loss_ppm", -3), note(7, "why", i64::MIN)],
        took: Duration::from_nanos(4_321),
        isolated: None,
        reasons: [].into(),
        ungranted: 0,
    })
}

pub(crate) fn call(question: PolicyQuestion) -> RecordedCall {
    RecordedCall {
        revision: revision(question.hook(), r#"{"spares":2}"#),
        catalog: catalog("east-a1"),
        ask: AskId(77),
        now_us: 12_345_678,
        question: Arc::new(question),
        result: Err(PluginFault::Absent),
        redacted: false,
    }
}

fn session(id: u64, address: &str, state: Option<PluginState>) -> SessionRow {
    SessionRow {
        row: subject(id, id.is_multiple_of(2).then_some(300)),
        room: RoomId(id / 2),
        scenario: "call".into(),
        labels: labels(address),
        state,
    }
}

/// A question about this number of sessions, which share one label set.
pub(crate) fn tick_of(sessions: u64) -> RecordedCall {
    let shared = labels("phone");
    let session = |id| SessionRow { labels: shared.clone(), ..session(id, "", None) };
    call(PolicyQuestion::Tick { sessions: (0..sessions).map(session).collect(), memo: None })
}

fn questions() -> Vec<PolicyQuestion> {
    let (scenario, plain) = ("call", labels("lan"));
    let admit = |standing| PolicyQuestion::Admit {
        session: SessionId(u64::MAX),
        room: RoomId(9),
        standing,
        scenario: scenario.into(),
        labels: plain.clone(),
        regions: vec![node(0), node(1)],
    };
    let room = |id, standing: &[u32], state| RoomRow {
        row: subject(id, None),
        scenario: scenario.into(),
        labels: labels("192.0.2.17:4000"),
        standing: standing.iter().copied().map(NodeId).collect(),
        state,
    };
    vec![
        PolicyQuestion::Resolve { scenario: scenario.into(), labels: [].into() },
        PolicyQuestion::Resolve { scenario: scenario.into(), labels: labels("192.0.2.1") },
        admit(None),
        admit(Some(RegionId(0))),
        PolicyQuestion::Place {
            room: RoomId(3),
            scenario: scenario.into(),
            labels: plain.clone(),
            nodes: vec![node(5), node(2)],
        },
        PolicyQuestion::Reroute {
            nodes: vec![node(1)],
            rooms: vec![room(900, &[1, 2, 3], Some(state(b""))), room(4, &[], None)],
            memo: Some(state(&[0, 255, 7])),
        },
        PolicyQuestion::Reroute { nodes: vec![], rooms: vec![], memo: None },
        PolicyQuestion::Tick {
            sessions: vec![
                session(1, "lan", Some(state(b"a"))),
                session(2, "192.0.2.2", None),
                session(40, "lan", Some(state(b"\x01192.0.2.3\x02"))),
            ],
            memo: Some(state(b"memo")),
        },
        PolicyQuestion::Tick { sessions: vec![], memo: None },
    ]
}

fn results() -> Vec<Result<RevisionAnswer, PluginFault>> {
    let admit = |verdict| answered(HookAnswer::Admit { verdict, reason: 4 });
    let hops = |all: &[u32]| all.iter().copied().map(NodeId).collect::<Vec<_>>();
    let states = || vec![(0, state(b"b")), (2, state(b""))];
    vec![
        answered(HookAnswer::Params(vec![("spares".into(), 3), ("x".into(), i64::MIN)])),
        admit(AdmitVerdict::Abstain),
        admit(AdmitVerdict::Accept),
        admit(AdmitVerdict::AcceptCapped(u32::MAX)),
        admit(AdmitVerdict::Redirect(RegionId(2))),
        admit(AdmitVerdict::Reject(500)),
        answered(HookAnswer::Placed { hops: hops(&[]), ttl_ms: 0, reason: 0, state: state(b"c") }),
        answered(HookAnswer::Placed {
            hops: hops(&[4, 2]),
            ttl_ms: 9,
            reason: 1,
            state: state(b""),
        }),
        answered(HookAnswer::Moves {
            moves: vec![RoutingMove { row: 1, hops: hops(&[7]), ttl_ms: 5_000, reason: 2 }],
            states: states(),
            memo: Some(state(b"memo")),
        }),
        answered(HookAnswer::Moves { moves: vec![], states: vec![], memo: None }),
        answered(HookAnswer::Actions {
            actions: vec![DegradationAction { row: 2, op: 1, arg: u64::MAX, reason: 1 }],
            states: states(),
            memo: None,
        }),
        Err(PluginFault::Deadline),
        Err(PluginFault::Trap("unreachable".into())),
        Err(PluginFault::OutOfMemory),
        Err(PluginFault::Malformed("keep: row 4 of 4 rows".into())),
        Err(PluginFault::Late),
        Err(PluginFault::Absent),
    ]
}

/// Returns every question with every answer, two catalogs and two revisions, and some decisions.
pub(crate) fn world() -> Vec<RecordingEntry> {
    let (mut records, mut number) = (Vec::new(), 0);
    for (place, question) in questions().into_iter().enumerate() {
        for result in results() {
            let mut one =
                RecordedCall { ask: AskId(number), now_us: number * 7, ..call(question.clone()) };
            one.result = result;
            if place == 4 {
                one.catalog = catalog("node-192.0.2.4");
            }
            if place == 6 {
                one.revision = revision(question.hook(), r#"{"near":["192.0.2.5"],"spares":2}"#);
            }
            number += 1;
            records.push(RecordingEntry::Call(Box::new(one)));
        }
    }
    records.push(RecordingEntry::Missed(300));
    let outcomes = [
        DecisionOutcome::Applied { differs: false },
        DecisionOutcome::Applied { differs: true },
        DecisionOutcome::Abstained,
        DecisionOutcome::Kept,
        DecisionOutcome::Guarded(GuardRule::Churn),
        DecisionOutcome::Stale,
        DecisionOutcome::Faulted(PluginFault::Deadline),
    ];
    let decided =
        (0..).zip(outcomes).map(|(ask, outcome)| RecordedDecision::of(AskId(ask), &outcome));
    records.extend(decided.map(RecordingEntry::Decided));
    records
}
