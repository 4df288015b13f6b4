//! If the plugin fails on a batch, the batch is bisected: failing rows are quarantined, and the others are decided.

use std::time::Duration;

use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine};
use evenkeel_model::{
    Hook, HookAnswer, IsolatedRows, Measures, Metric, NodeId, PluginFault, Poisoned,
    PolicyQuestion, RevisionAnswer, RoomId, RoomRow, Row,
};
use serde_json::json;

use crate::plugin::{dressed, labels, manifest, policy, row, session, state, tick};

const PATIENT: Duration = Duration::MAX;

/// Sessions with these losses, numbered from `first`, with the state 5 and the memo 30.
fn ticked(first: u64, losses: &[u64]) -> PolicyQuestion {
    let sessions =
        losses.iter().zip(first..).map(|(&loss, id)| session(id, loss, Some(state(2, &[5]))));
    PolicyQuestion::Tick { sessions: sessions.collect(), memo: Some(state(2, &[30])) }
}

fn isolated(answered: &RevisionAnswer) -> IsolatedRows {
    answered.isolated.as_deref().cloned().unwrap_or_default()
}

fn poisoned(answered: &RevisionAnswer) -> Vec<u32> {
    isolated(answered).poisoned.iter().map(|poisoned| poisoned.row).collect()
}

/// The decided rows, in order. Checks that each was capped at its loss and has a new state.
fn decided(answered: &RevisionAnswer, losses: &[u64]) -> Vec<u32> {
    let HookAnswer::Actions { actions, states, .. } = &answered.answer else { panic!() };
    let mut rows: Vec<u32> = actions.iter().map(|action| action.row).collect();
    rows.sort_unstable();
    assert!(actions.iter().all(|action| action.arg == losses[action.row as usize]));
    let mut written: Vec<u32> = states.iter().map(|(row, _)| *row).collect();
    written.sort_unstable();
    assert_eq!(written, rows, "a decision comes with its state");
    assert!(states.iter().all(|(_, kept)| *kept == state(2, &[6])));
    rows
}

fn memo(answered: &RevisionAnswer) -> u8 {
    let HookAnswer::Actions { memo, .. } = &answered.answer else { panic!() };
    memo.as_ref().unwrap().bytes[0]
}

fn counting() -> BoundPlugin {
    policy(Hook::Degradation, "count")
}

#[test]
fn one_failing_row_among_thousands_is_isolated() {
    let mut losses: Vec<u64> = (0..4_096).map(|row| row % 100).collect();
    losses[1_234] = 666;
    let mut policy = counting();
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    let IsolatedRows { fault, poisoned, unasked, .. } = isolated(&answered);
    assert!(matches!(fault, Some(PluginFault::Trap(_))));
    assert!(matches!(&poisoned[..], [Poisoned { row: 1_234, fault: PluginFault::Trap(said) }]
        if said.contains("no plan for 666")));
    assert!(unasked.is_empty());
    let others: Vec<u32> = (0..4_096).filter(|row| *row != 1_234).collect();
    assert_eq!(decided(&answered, &losses), others);
    assert_eq!(memo(&answered), 30 + 12, "the memo went through each of the twelve parts");
}

#[test]
fn quarantined_row_causes_no_more_faults() {
    let losses = [1, 2, 666, 4];
    let mut policy = counting();
    policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!(policy.quarantined(), 1);
    for _ in 0..3 {
        let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
        assert_eq!((isolated(&answered).fault, poisoned(&answered)), (None, vec![2]));
        assert_eq!(decided(&answered, &losses), [0, 1, 3]);
        assert_eq!(memo(&answered), 31, "the others are asked together");
    }
    // The session is quarantined, whatever its row.
    let moved = [7, 8, 9, 10];
    let answered = policy.ask_isolating(&ticked(2, &moved), 0, PATIENT).unwrap();
    assert_eq!(poisoned(&answered), [1], "session 3");
    assert_eq!(decided(&answered, &moved), [0, 2, 3]);
    let elsewhere = policy.ask_isolating(&ticked(90, &moved), 0, PATIENT).unwrap();
    assert_eq!(elsewhere.isolated, None);
}

#[test]
fn quarantine_is_per_revision() {
    let mut first = counting();
    first.ask_isolating(&ticked(1, &[1, 666]), 0, PATIENT).unwrap();
    let mut second = policy(Hook::Degradation, "also-counts");
    assert_eq!(second.quarantined(), 0);
    let answered = second.ask_isolating(&ticked(1, &[1, 2]), 0, PATIENT).unwrap();
    assert_eq!(decided(&answered, &[1, 2]), [0, 1]);
}

#[test]
fn two_failing_rows_are_isolated_anywhere() {
    for (one, other) in [(0, 1), (0, 63), (31, 32), (62, 63), (5, 40)] {
        let mut losses = vec![3; 64];
        (losses[one], losses[other]) = (666, 666);
        let mut policy = counting();
        let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
        assert_eq!(poisoned(&answered), [one as u32, other as u32]);
        assert_eq!(decided(&answered, &losses).len(), 62);
    }
}

#[test]
fn plugin_that_answers_no_row_quarantines_none() {
    let mut policy = counting();
    let all = vec![666; 4_096];
    for _ in 0..2 {
        let fault = policy.ask_isolating(&ticked(1, &all), 0, PATIENT).unwrap_err();
        assert!(matches!(fault, PluginFault::Trap(_)));
        assert_eq!(policy.quarantined(), 0);
    }
    let said = std::iter::from_fn(|| policy.poll_line()).count() as u64 + policy.suppressed_lines();
    assert!(said <= 2 * 65, "{said} calls, limit 64 after the first");
}

#[test]
fn calls_per_question_are_bounded() {
    let losses: Vec<u64> = (0..1_024).map(|row| if row % 2 == 0 { 1 } else { 666 }).collect();
    let mut policy = counting();
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    let found = policy.quarantined();
    assert!(found > 4, "{found}");
    let IsolatedRows { unasked, .. } = isolated(&answered);
    assert_eq!(decided(&answered, &losses).len() + found + unasked.len(), 1_024);
    assert!(unasked.len() > 512, "the search continues later");
    // Each question finds more rows, until the quarantine is full.
    policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert!(policy.quarantined() > found);
}

/// An engine that stops longer ticks.
fn ending_after(tick_ms: u64) -> BoundPlugin {
    let tick = Duration::from_millis(tick_ms);
    let engine = Engine::with_budgets(CallBudgets { tick, ..CallBudgets::default() });
    let component = Component::vet(&engine, &dressed(&manifest())).unwrap();
    let settings = json!({"mode": "count"});
    BoundPlugin::install(&engine, &component, Hook::Degradation, settings, vec![], 0).unwrap()
}

#[test]
fn row_that_causes_a_deadline_is_isolated() {
    let losses = [1, 2, 3, 777];
    // A generous time, for slow machines.
    let mut policy = ending_after(400);
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!(isolated(&answered).poisoned, [Poisoned { row: 3, fault: PluginFault::Deadline }]);
    assert_eq!(decided(&answered, &losses), [0, 1, 2]);
}

#[test]
fn short_questions_isolate_over_several() {
    let mut losses = vec![1; 16];
    losses[9] = 777;
    // A generous time, for slow machines.
    let mut policy = ending_after(200);
    let within = Duration::from_millis(300);
    let mut questions = 0;
    while policy.quarantined() == 0 {
        questions += 1;
        assert!(questions < 40, "not found");
        if let Ok(answered) = policy.ask_isolating(&ticked(1, &losses), 0, within) {
            assert!(!decided(&answered, &losses).contains(&9));
        }
    }
    assert!(questions > 1, "the first call used most of the time");
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, within).unwrap();
    assert_eq!(isolated(&answered).poisoned, [Poisoned { row: 9, fault: PluginFault::Deadline }]);
    assert_eq!(decided(&answered, &losses).len(), 15);
}

#[test]
fn row_that_exhausts_memory_is_isolated() {
    let losses = [1, 778, 3];
    let answered = counting().ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!(
        isolated(&answered).poisoned,
        [Poisoned { row: 1, fault: PluginFault::OutOfMemory }]
    );
    assert_eq!(decided(&answered, &losses), [0, 2]);
}

#[test]
fn search_without_time_continues_with_next_question() {
    let losses = [1, 666, 3, 4];
    let mut policy = counting();
    let fault = policy.ask_isolating(&ticked(1, &losses), 0, Duration::ZERO).unwrap_err();
    assert!(matches!(fault, PluginFault::Trap(_)));
    assert_eq!(policy.quarantined(), 0);

    // Unsuspected rows are asked first.
    let more = [1, 666, 3, 4, 5, 6];
    let answered = policy.ask_isolating(&ticked(1, &more), 0, Duration::ZERO).unwrap();
    let IsolatedRows { fault, poisoned: found, unasked, .. } = isolated(&answered);
    assert_eq!((fault, found, &unasked[..]), (None, vec![], &[0, 1, 2, 3][..]));
    assert_eq!(decided(&answered, &more), [4, 5]);

    let answered = policy.ask_isolating(&ticked(1, &more), 0, PATIENT).unwrap();
    assert_eq!((isolated(&answered).fault, poisoned(&answered)), (None, vec![1]));
    assert_eq!(decided(&answered, &more), [0, 2, 3, 4, 5]);
}

#[test]
fn lone_row_is_quarantined_on_its_second_failure() {
    let mut policy = counting();
    let alone = ticked(9, &[666]);
    for _ in 0..3 {
        assert!(matches!(policy.ask_isolating(&alone, 0, PATIENT), Err(PluginFault::Trap(_))));
    }
    assert_eq!(policy.quarantined(), 0, "a plugin without answers is broken itself");
    policy.ask_isolating(&tick(&[1]), 0, PATIENT).unwrap();
    let answered = policy.ask_isolating(&alone, 0, PATIENT).unwrap();
    assert!(matches!(isolated(&answered).fault, Some(PluginFault::Trap(_))));
    assert_eq!((poisoned(&answered), decided(&answered, &[666])), (vec![0], vec![]));
    let answered = policy.ask_isolating(&alone, 0, PATIENT).unwrap();
    assert_eq!((isolated(&answered).fault, poisoned(&answered)), (None, vec![0]));
}

#[test]
fn full_quarantine_fails_the_whole_batch() {
    let mut policy = counting();
    for pair in 0..256 {
        policy.ask_isolating(&ticked(1 + 2 * pair, &[1, 666]), 0, PATIENT).unwrap();
    }
    assert_eq!(policy.quarantined(), 256);
    std::iter::from_fn(|| policy.poll_line()).count();
    let fault = policy.ask_isolating(&ticked(1_000, &[1, 666]), 60_000_000, PATIENT).unwrap_err();
    assert!(matches!(fault, PluginFault::Trap(_)));
    let mut told = std::iter::from_fn(|| policy.poll_line());
    assert!(told.any(|line| line.words.contains("quarantine full: held=256")));
    // Rows in no question for a minute have left.
    policy.ask_isolating(&ticked(1_000, &[1, 666]), 60_000_001, PATIENT).unwrap();
    assert_eq!(policy.quarantined(), 1);
}

#[test]
fn failing_room_stays_and_others_move() {
    let room = |id, cell| RoomRow {
        row: row(id, cell),
        scenario: "call".into(),
        labels: labels(),
        standing: vec![NodeId(4), NodeId(5)],
        state: Some(state(2, &[8])),
    };
    let mut load = Measures::default();
    load.set(Metric::Load, 30);
    let nodes = vec![Row { id: 4, measures: load }];
    let rooms = vec![room(1, 0), room(2, 779), room(3, 0)];
    let question = PolicyQuestion::Reroute { nodes, rooms, memo: None };
    let answered = policy(Hook::Routing, "").ask_isolating(&question, 0, PATIENT).unwrap();
    let HookAnswer::Moves { moves, .. } = &answered.answer else { panic!() };
    let rows: Vec<u32> = moves.iter().map(|step| step.row).collect();
    assert_eq!((rows, poisoned(&answered)), (vec![0, 2], vec![1]));
}

#[test]
fn single_row_question_fails_as_a_whole() {
    let mut policy = policy(Hook::Routing, "large-state");
    let place = PolicyQuestion::Place {
        room: RoomId(1),
        scenario: "call".into(),
        labels: labels(),
        nodes: Vec::new(),
    };
    for _ in 0..3 {
        let fault = policy.ask_isolating(&place, 0, PATIENT);
        assert!(matches!(fault, Err(PluginFault::Malformed(_))));
    }
    assert_eq!(policy.quarantined(), 0);
}

#[test]
fn notes_use_rows_of_the_whole_question() {
    let losses = [10, 666, 30];
    let answered = counting().ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    let of_loss = answered.notes.iter().filter(|note| &*note.key == "column-0");
    let notes: Vec<(u32, i64)> = of_loss.map(|note| (note.row, note.value)).collect();
    assert_eq!(notes, [(0, 10), (2, 30)]);
}

#[test]
fn out_of_memory_reduces_the_batch_size() {
    let losses: Vec<u64> = (0..4_096).map(|row| row % 100).collect();
    let all: Vec<u32> = (0..4_096).collect();
    let mut policy = policy(Hook::Degradation, "hungry");
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!(isolated(&answered).fault, Some(PluginFault::OutOfMemory));
    assert_eq!(decided(&answered, &losses), all);
    for (rows, parts) in [(4_096, 8), (1_025, 3), (512, 1), (1, 1)] {
        let answered = policy.ask_isolating(&ticked(1, &losses[..rows]), 0, PATIENT).unwrap();
        assert_eq!(
            isolated(&answered),
            IsolatedRows { in_parts: parts > 1, ..IsolatedRows::default() }
        );
        assert_eq!(decided(&answered, &losses), all[..rows]);
        assert_eq!(memo(&answered), 30 + parts, "{rows} rows, 512 at a time");
    }
    assert_eq!(policy.quarantined(), 0);
    let said = std::iter::from_fn(|| policy.poll_line()).last().expect("a log line");
    assert!(said.words.contains("reduced to 512 rows"), "{said:?}");
}

#[test]
fn row_that_exhausts_memory_keeps_the_batch_size() {
    let mut losses = vec![3; 64];
    losses[40] = 778;
    let mut policy = counting();
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!(poisoned(&answered), [40]);
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!(memo(&answered), 31, "the others are asked about together");
}

#[test]
fn batch_size_halves_even_without_time() {
    let losses: Vec<u64> = (0..4_096).map(|row| row % 100).collect();
    let mut policy = policy(Hook::Degradation, "hungry");
    for faults in 1..=3 {
        // One call at a time: the first call is made even if it is late.
        let asked = policy.ask_isolating(&ticked(1, &losses), 0, Duration::ZERO);
        assert_eq!(asked.unwrap_err(), PluginFault::OutOfMemory, "{faults}");
    }
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!((isolated(&answered).fault, memo(&answered)), (None, 30 + 8));
}

#[test]
fn isolated_row_restores_the_batch_size() {
    let mut losses: Vec<u64> = (0..4_096).map(|row| row % 100).collect();
    let mut policy = policy(Hook::Degradation, "hungry");
    policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    losses[40] = 778;
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!(poisoned(&answered), [40]);
    let answered = policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    assert_eq!((isolated(&answered).fault, memo(&answered)), (None, 30 + 8), "still 512 rows");
}

#[test]
fn ask_of_all_answers_all_rows_or_fails() {
    let mut losses: Vec<u64> = (0..4_096).map(|row| row % 100).collect();
    let mut hungry = policy(Hook::Degradation, "hungry");
    let answered = hungry.ask_of_all(&ticked(1, &losses), 0, PATIENT).unwrap().unwrap();
    assert_eq!(decided(&answered, &losses).len(), 4_096, "in smaller batches");
    let answered = hungry.ask_of_all(&ticked(1, &losses), 0, Duration::ZERO);
    assert!(matches!(answered, Ok(None)), "out of time without a fault: {answered:?}");
    losses[40] = 666;
    let mut counting = counting();
    for _ in 0..2 {
        let fault = counting.ask_of_all(&ticked(1, &losses), 0, PATIENT).unwrap_err();
        assert!(matches!(fault, PluginFault::Trap(_)), "{fault}");
    }
}

#[test]
fn next_call_resumes_at_the_row_that_timed_out() {
    let losses: Vec<u64> = (0..4_096).map(|row| row % 100).collect();
    let mut policy = policy(Hook::Degradation, "hungry");
    policy.ask_isolating(&ticked(1, &losses), 0, PATIENT).unwrap();
    let mut asked = Vec::new();
    for _ in 0..8 {
        // The first part is asked even if it is late, and no other.
        let answered = policy.ask_isolating(&ticked(1, &losses), 0, Duration::ZERO).unwrap();
        asked.extend(decided(&answered, &losses));
    }
    assert_eq!(asked, (0..4_096).collect::<Vec<_>>(), "all rows were asked");
}
