//! The questions that each guest is asked, with ordinary values.

use std::sync::Arc;

use evenkeel_model::{
    Hook, Labels, Measures, Metric, NodeId, PluginState, PolicyQuestion, RoomId, RoomRow, Row,
    SessionId, SessionRow,
};

use crate::module::{NAME, SCHEMA};

const ROWS: u64 = 64;

pub fn questions(hook: Hook) -> Vec<PolicyQuestion> {
    let scenario: Arc<str> = "call".into();
    let labels: Labels = Arc::new([("region".into(), "east".into())]);
    match hook {
        Hook::Scenario => vec![PolicyQuestion::Resolve { scenario, labels }],
        Hook::Admission => vec![PolicyQuestion::Admit {
            session: SessionId(1),
            room: RoomId(1),
            standing: None,
            scenario,
            labels,
            regions: rows(3).collect(),
        }],
        Hook::Routing => {
            let room = |row: Row| RoomRow {
                row,
                scenario: Arc::clone(&scenario),
                labels: Arc::clone(&labels),
                standing: vec![NodeId(0), NodeId(1)],
                state: None,
            };
            let rooms = rows(ROWS).map(room).collect();
            let reroute = PolicyQuestion::Reroute { nodes: rows(8).collect(), rooms, memo: None };
            let (scenario, labels) = (Arc::clone(&scenario), Arc::clone(&labels));
            let nodes = rows(8).collect();
            vec![PolicyQuestion::Place { room: RoomId(1), scenario, labels, nodes }, reroute]
        }
        Hook::Degradation => {
            let session = |row: Row| SessionRow {
                room: RoomId(row.id),
                row,
                scenario: Arc::clone(&scenario),
                labels: Arc::clone(&labels),
                state: None,
            };
            vec![PolicyQuestion::Tick { sessions: rows(ROWS).map(session).collect(), memo: None }]
        }
    }
}

/// The same question with states and a memo of the older schema.
pub(crate) fn of_older(mut question: PolicyQuestion) -> PolicyQuestion {
    let state = || Some(PluginState { plugin: NAME.into(), schema: SCHEMA, bytes: [1].into() });
    match &mut question {
        PolicyQuestion::Resolve { .. }
        | PolicyQuestion::Admit { .. }
        | PolicyQuestion::Place { .. } => {}
        PolicyQuestion::Reroute { rooms, memo, .. } => {
            rooms.iter_mut().for_each(|room| room.state = state());
            *memo = state();
        }
        PolicyQuestion::Tick { sessions, memo } => {
            sessions.iter_mut().for_each(|session| session.state = state());
            *memo = state();
        }
    }
    question
}

fn rows(count: u64) -> impl Iterator<Item = Row> {
    (0..count).map(|id| {
        let mut measures = Measures::default();
        measures.set(Metric::LossUp, 1_000 * id).set(Metric::Delay, 10_000 + id);
        Row { id, measures }
    })
}
