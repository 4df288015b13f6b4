//! Questions of each hook reach the plugin completely, and the answers come back.

use evenkeel_host::{BoundPlugin, LogLevel};
use evenkeel_model::{
    AdmitVerdict, CatalogEntry, DegradationAction, EntryKind, Hook, HookAnswer, Measures, Metric,
    NodeId, PluginFault, PolicyQuestion, RegionId, RoomId, RoomRow, RoutingMove, Row, SessionId,
    UNMEASURED,
};
use serde_json::json;

use crate::plugin::{labels, policy, row, session, state, tick};

fn load(id: u64, permille: u64) -> Row {
    let mut measures = Measures::default();
    measures.set(Metric::Load, permille);
    Row { id, measures }
}

fn admit(mode: &str, standing: Option<u32>) -> Result<HookAnswer, PluginFault> {
    let question = PolicyQuestion::Admit {
        session: SessionId(3),
        room: RoomId(4),
        standing: standing.map(RegionId),
        scenario: "call".into(),
        labels: labels(),
        regions: vec![load(9, 400)],
    };
    policy(Hook::Admission, mode).ask(&question, 1).map(|answered| answered.answer)
}

fn place() -> PolicyQuestion {
    let nodes = vec![load(1, 0), load(2, 0), load(3, 0)];
    PolicyQuestion::Place { room: RoomId(6), scenario: "call".into(), labels: labels(), nodes }
}

#[test]
fn every_admission_verdict_is_returned() {
    let reason = 400;
    for (mode, standing, verdict) in [
        ("abstain", None, AdmitVerdict::Abstain),
        ("accept", None, AdmitVerdict::Accept),
        ("cap", None, AdmitVerdict::AcceptCapped(64)),
        ("reject", None, AdmitVerdict::Reject(500)),
        ("", None, AdmitVerdict::Redirect(RegionId(9))),
        ("", Some(20), AdmitVerdict::Redirect(RegionId(21))),
    ] {
        assert_eq!(admit(mode, standing), Ok(HookAnswer::Admit { verdict, reason }));
    }
    assert!(matches!(admit("far", None), Err(PluginFault::Malformed(_))));
}

#[test]
fn admission_gets_time_names_and_labels() {
    let mut policy = policy(Hook::Admission, "accept");
    let question = PolicyQuestion::Admit {
        session: SessionId(3),
        room: RoomId(4),
        standing: None,
        scenario: "call".into(),
        labels: labels(),
        regions: vec![load(9, 400)],
    };
    let notes = policy.ask(&question, 12_345).unwrap().notes;
    let notes: Vec<(&str, i64)> = notes.iter().map(|note| (&*note.key, note.value)).collect();
    assert_eq!(notes, [("now", 12_345), ("session", 3), ("room", 4), ("call", 2)]);
}

#[test]
fn placement_returns_the_rooms_first_state() {
    let answered = policy(Hook::Routing, "").ask(&place(), 0).unwrap();
    let hops = vec![NodeId(3), NodeId(2), NodeId(1)];
    let state = state(2, &[6]);
    assert_eq!(answered.answer, HookAnswer::Placed { hops, ttl_ms: 5, reason: 0, state });
}

#[test]
fn reroute_gets_current_hops() {
    let room = |id, standing: &[u32], first| RoomRow {
        row: row(id, 0),
        scenario: "call".into(),
        labels: labels(),
        standing: standing.iter().copied().map(NodeId).collect(),
        state: Some(state(2, &[first])),
    };
    let rooms = vec![room(1, &[4, 5, 6], 8), room(2, &[7], 9), room(3, &[], 10)];
    let question = PolicyQuestion::Reroute { nodes: vec![load(4, 30)], rooms, memo: None };
    let answered = policy(Hook::Routing, "").ask(&question, 0).unwrap();
    let to = |row, hops: &[u32], ttl_ms| {
        let hops = hops.iter().copied().map(NodeId).collect();
        RoutingMove { row, hops, ttl_ms, reason: 30 }
    };
    let moves = vec![to(0, &[6], 8), to(1, &[7], 9), to(2, &[], 10)];
    assert_eq!(answered.answer, HookAnswer::Moves { moves, states: vec![], memo: None });
}

#[test]
fn tick_gets_granted_columns_only() {
    let mut with_cap = session(2, 20, Some(state(2, &[5])));
    with_cap.row.measures.set(Metric::Cap, 300);
    let sessions = vec![session(1, 10, Some(state(2, &[5]))), with_cap];
    let question = PolicyQuestion::Tick { sessions, memo: None };
    let answered = policy(Hook::Degradation, "still").ask(&question, 0).unwrap();
    let HookAnswer::Actions { actions, states, memo } = answered.answer else { panic!() };
    let cap = |row, arg| DegradationAction { row, op: 1, arg, reason: 0 };
    assert_eq!(actions, [cap(0, 10), cap(1, 20)]);
    assert!(states.is_empty() && memo.is_none(), "unchanged states are not returned");
    let notes = answered.notes.iter().map(|note| (note.row, &*note.key, note.value));
    assert_eq!(
        notes.collect::<Vec<_>>(),
        [
            (0, "column-0", 10),
            (0, "column-1", i64::from(UNMEASURED)),
            (1, "column-0", 20),
            (1, "column-1", 300),
        ]
    );
}

#[test]
fn empty_batch_is_answered() {
    let answered = policy(Hook::Degradation, "quiet").ask(&tick(&[]), 0).unwrap();
    let nothing = HookAnswer::Actions { actions: vec![], states: vec![], memo: None };
    assert_eq!(answered.answer, nothing);
    assert!(answered.notes.is_empty());
}

#[test]
fn scenario_plugin_gets_labels_catalog_and_seed() {
    let entry = CatalogEntry {
        kind: EntryKind::Region,
        id: 1,
        parent: 0,
        name: "east".into(),
        labels: vec![("power".into(), "grid".into())],
    };
    let mut policy = policy(Hook::Scenario, "");
    let question = PolicyQuestion::Resolve { scenario: "call".into(), labels: labels() };
    let params = |policy: &mut BoundPlugin| policy.ask(&question, 0).unwrap().answer;
    let expected = |entries| {
        HookAnswer::Params(vec![
            ("spares".into(), 2),
            ("call".into(), entries),
            ("seed".into(), 77),
        ])
    };
    assert_eq!(params(&mut policy), expected(0));
    policy.catalog(vec![entry.clone(), entry]).unwrap();
    assert_eq!(params(&mut policy), expected(2));
}

#[test]
fn action_outside_the_manifest_is_dropped_and_logged() {
    let mut policy = policy(Hook::Degradation, "voice-only");
    let answered = policy.ask(&tick(&[1, 2]), 0).unwrap();
    let HookAnswer::Actions { actions, states, .. } = answered.answer else { panic!() };
    assert!(actions.is_empty());
    assert_eq!(states.len(), 2, "the rest of the answer stands");
    assert_eq!((policy.ungranted(), answered.ungranted), (2, 2));
    assert_eq!(policy.ask(&tick(&[1]), 0).unwrap().ungranted, 1, "counted per answer");
    let line = policy.poll_line().unwrap();
    assert_eq!(line.level, LogLevel::Warn);
    assert!(line.words.contains("voice-only"));
}

#[test]
fn question_of_another_hook_is_absent() {
    assert_eq!(policy(Hook::Routing, "").ask(&tick(&[1]), 0), Err(PluginFault::Absent));
}

#[test]
fn answer_names_its_revision() {
    let mut policy = policy(Hook::Degradation, "");
    let answered = policy.ask(&tick(&[1]), 0).unwrap();
    assert_eq!(&*answered.revision, policy.revision());
    assert_eq!(answered.reasons[0], (3, "calm".into()), "with names of its reasons");
    assert!(answered.reasons.contains(&(65_539, "jitter".into())), "shared ones included");
    assert_eq!(policy.settings(), json!({"mode": ""}).to_string());
}
