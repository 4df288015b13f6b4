use evenkeel_model::{Measures, RoomId, Row, SessionRow};

use super::*;

#[test]
fn long_questions_are_kept_in_part() {
    let questions = RecentQuestions::default();
    let row = |id| SessionRow {
        row: Row { id, measures: Measures::default() },
        room: RoomId(1),
        scenario: "call".into(),
        labels: [].into(),
        state: None,
    };
    let sessions = (0..4_096).map(row).collect();
    questions.keep(PolicyQuestion::Tick { sessions, memo: None }, 0);
    let kept = questions.list();
    let PolicyQuestion::Tick { sessions, .. } = &*kept[0].0 else { panic!("{kept:?}") };
    assert_eq!((sessions.len(), sessions.capacity(), sessions[511].row.id), (512, 512, 511));
}

#[test]
fn rare_questions_are_kept_beside_frequent_ones() {
    let questions = RecentQuestions::default();
    let reroute = PolicyQuestion::Reroute { nodes: Vec::new(), rooms: Vec::new(), memo: None };
    questions.keep(reroute.clone(), 0);
    for room in 0..100 {
        let place = PolicyQuestion::Place {
            room: RoomId(room),
            scenario: "call".into(),
            labels: [].into(),
            nodes: Vec::new(),
        };
        questions.keep(place, room);
    }
    let kept = questions.list();
    assert_eq!(kept.len(), 1 + KEPT_OF_EACH);
    assert_eq!((&*kept[0].0, kept[1].1, kept[8].1), (&reroute, 92, 99));
}
