//! The example policy of the SDK's documentation in any language: caps a session after three ticks
//! of high jitter, and removes the cap after calm ones.

use evenkeel_host::{BoundPlugin, Component};
use evenkeel_model::{
    DecisionNote, DegradationAction, Hook, HookAnswer, Measures, Metric, PolicyQuestion, RoomId,
    Row, SessionRow,
};
use serde_json::{Value, json};

use crate::plugin::roomy;

fn tick(
    policy: &mut BoundPlugin,
    rows: &mut [SessionRow],
) -> (Vec<DegradationAction>, Vec<DecisionNote>) {
    let question = PolicyQuestion::Tick { sessions: rows.to_vec(), memo: None };
    let answered = policy.ask(&question, 0).unwrap();
    let HookAnswer::Actions { actions, states, memo } = answered.answer else { panic!() };
    assert_eq!(memo, None);
    for (row, state) in states {
        rows[row as usize].state = Some(state);
    }
    (actions, answered.notes)
}

pub(crate) fn session(id: u64, jitter_us: Option<u64>, cap_kbps: u64) -> SessionRow {
    let mut measures = Measures::default();
    measures.set(Metric::Cap, cap_kbps);
    if let Some(jitter) = jitter_us {
        measures.set(Metric::JitterUp, jitter);
    }
    let (room, labels) = (RoomId(id), [].into());
    SessionRow { row: Row { id, measures }, room, scenario: "call".into(), labels, state: None }
}

fn install(component: &Component, settings: Value) -> Result<BoundPlugin, String> {
    let policy = BoundPlugin::install(roomy(), component, Hook::Degradation, settings, vec![], 1);
    policy.map_err(|refused| refused.to_string())
}

/// Asks on both sides of each threshold.
pub(crate) fn decides(component: &Component) {
    let refused = install(component, json!({"jitter": 0})).err();
    assert_eq!(refused.as_deref(), Some("setting `$.jitter` should be at least 1, found 0"));

    let mut policy = install(component, json!({"jitter": 25})).unwrap();
    let mut rows = [
        session(1, Some(25_000), 0),
        session(2, Some(24_999), 0),
        session(3, None, 0),
        session(4, Some(1), 300),
    ];
    let calm = DegradationAction { row: 3, op: 1, arg: 0, reason: 2 };
    assert_eq!(tick(&mut policy, &mut rows).0, [calm]);
    rows[3] = session(4, Some(1), 0);
    assert_eq!(tick(&mut policy, &mut rows).0, []);
    let (actions, notes) = tick(&mut policy, &mut rows);
    assert_eq!(actions, [DegradationAction { row: 0, op: 1, arg: 300, reason: 1 }]);
    assert_eq!(notes, [DecisionNote { row: 0, key: "jitter_us".into(), value: 25_000 }]);
    let state = rows[0].state.as_ref().unwrap();
    assert_eq!(&*state.bytes, [3], "counts to three ticks");

    for (floor, ceiling, cap) in [(400, 500, 400), (24, 200, 200), (24, 2_000, 300)] {
        let mut rows = [session(1, Some(25_000), 0)];
        rows[0].row.measures.set(Metric::Floor, floor).set(Metric::Ceiling, ceiling);
        tick(&mut policy, &mut rows);
        tick(&mut policy, &mut rows);
        let capped = DegradationAction { row: 0, op: 1, arg: cap, reason: 1 };
        assert_eq!(tick(&mut policy, &mut rows).0, [capped], "within {floor} to {ceiling}");
    }
}

/// Asks often about many sessions, so that a memory leak would exhaust memory.
pub(crate) fn answers_for_thousands(component: &Component) {
    let mut policy = install(component, json!({})).unwrap();
    let mut rows: Vec<_> = (0..4096).map(|id| session(id, Some(40_000), 0)).collect();
    for _ in 0..2 {
        assert!(tick(&mut policy, &mut rows).0.is_empty());
    }
    let (actions, notes) = tick(&mut policy, &mut rows);
    assert!((0..4096).eq(actions.iter().map(|action| action.row)));
    assert_eq!(notes.len(), 256, "notes are bounded");
    for _ in 0..100 {
        tick(&mut policy, &mut rows);
    }
}
