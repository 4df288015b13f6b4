use super::*;
use crate::Measures;

fn tick(ids: &[u64]) -> PolicyQuestion {
    let row = |&id: &u64| SessionRow {
        row: Row { id, measures: Measures::default() },
        room: RoomId(id),
        scenario: "call".into(),
        labels: [].into(),
        state: None,
    };
    PolicyQuestion::Tick { sessions: ids.iter().map(row).collect(), memo: None }
}

fn answered(rows: &[u32], isolated: IsolatedRows) -> RevisionAnswer {
    let state = PluginState { plugin: "test".into(), schema: 1, bytes: [7].into() };
    let action = |&row: &u32| DegradationAction { row, op: 1, arg: 9, reason: 0 };
    RevisionAnswer {
        answer: HookAnswer::Actions {
            actions: rows.iter().map(action).collect(),
            states: rows.iter().map(|row| (*row, state.clone())).collect(),
            memo: None,
        },
        revision: "5f0c".into(),
        notes: rows.iter().map(|&row| DecisionNote { row, key: "why".into(), value: 1 }).collect(),
        took: std::time::Duration::ZERO,
        isolated: Some(Box::new(isolated)),
        reasons: [].into(),
        ungranted: 0,
    }
}

#[test]
fn rows_are_renumbered_without_left_out() {
    let poisoned = [1, 3].map(|row| Poisoned { row, fault: PluginFault::OutOfMemory });
    let known = IsolatedRows { poisoned: poisoned.into(), ..IsolatedRows::default() };
    let (question, rest) = answered(&[0, 2, 4], known.clone())
        .without_the_left_out(&tick(&[10, 11, 12, 13, 14]))
        .expect("the others were asked about together");
    assert_eq!(question, tick(&[10, 12, 14]));
    let whole = answered(&[0, 1, 2], IsolatedRows::default());
    assert_eq!(rest, RevisionAnswer { isolated: None, ..whole });
    let fault = Some(PluginFault::Deadline);
    for parts in [
        IsolatedRows { in_parts: true, ..known.clone() },
        IsolatedRows { unasked: vec![4], ..known.clone() },
        IsolatedRows { fault, ..known },
    ] {
        let question = tick(&[10, 11, 12, 13, 14]);
        assert_eq!(answered(&[0], parts).without_the_left_out(&question), None);
    }
}
