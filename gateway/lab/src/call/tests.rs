use serde_json::{Value, json};

use super::*;
use crate::tests::small_gateway::{SmallGateway, State};

fn plan() -> CallPlan {
    let labels = [("tenant".to_owned(), "gold".to_owned())].into();
    let (scenario, rooms) = ("webinar".to_owned(), "trial".to_owned());
    let crowd = CrowdPlan { scenario, rooms, labels, room_size: 3, ..CrowdPlan::new(3) };
    CallPlan { ask_interval: Duration::from_millis(5), ..CallPlan::new(crowd) }
}

fn answer(outcome: &str, ago_ms: u64) -> Value {
    let notes = [json!({"key": "loss_ppm", "value": ago_ms})];
    json!({"hook": "degradation", "outcome": outcome, "ago_ms": ago_ms, "notes": notes})
}

/// Plays the call until `ends` holds, and returns its changes too.
async fn played(
    gateway: &SmallGateway,
    ends: impl Fn(&State) -> bool,
) -> (CallTotals, Vec<CallChange>) {
    let mut changes = Vec::new();
    let mut tell = |change: CallChange| {
        let is_first = changes.is_empty();
        changes.push(change);
        // The answers of later questions.
        let mut state = gateway.state();
        if is_first {
            state.explained = json!({"policy_answers": [answer("unchanged", 5)]});
        } else if changes.len() == 5 {
            state.explained = json!({"policy_answers": [answer("unchanged", 6)]});
        }
    };
    let ended = pin!(gateway.wait(ends));
    let outcome = run_until(ended, &plan(), || gateway.admin(), &mut tell).await;
    (outcome.unwrap(), changes)
}

#[tokio::test]
async fn call_opens_labelled_sessions_and_closes_them() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let (CallTotals { sessions, unclosed }, _) =
        played(&gateway, |state| state.explanations > 60).await;
    let state = gateway.state();
    assert_eq!((state.opened_ever, state.open.len()), (3, 0));
    let of = |key: &str| state.offers.iter().map(|offer| offer[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("scenario"), ["webinar"; 3]);
    assert_eq!(of("room"), ["trial-1"; 3]);
    assert_eq!(of("labels")[0], json!({"tenant": "gold"}));
    // The first one sends, and the test gateway forwards no packets.
    assert!(unclosed.is_none(), "{unclosed:?}");
    let sends: Vec<bool> = sessions.iter().map(|session| session.packets_sent > 0).collect();
    let unheard: Vec<bool> = sessions.iter().map(CallSession::is_unheard).collect();
    assert_eq!((sends, unheard), (vec![true, false, false], vec![false, true, true]));
}

#[tokio::test]
async fn each_change_of_a_decision_is_told_once() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let (_, changes) = played(&gateway, |state| state.explanations > 60).await;
    let states = changes.iter().filter(|change| matches!(change.fact, CallFact::State(_)));
    assert_eq!(states.count(), 3);
    let answers: Vec<&CallChange> =
        changes.iter().filter(|change| matches!(change.fact, CallFact::Answer(_))).collect();
    assert_eq!(answers.len(), 3, "the time and the notes are no change: {answers:?}");
    let shown = serde_json::to_value(answers[0]).unwrap();
    assert_eq!(shown["answer"]["outcome"], "unchanged");
}

#[tokio::test]
async fn failed_answer_hides_no_other_session() {
    let gateway = SmallGateway::start(usize::MAX).await;
    gateway.state().unable = vec![("/s1/explain", 500)];
    let (_, changes) = played(&gateway, |state| state.explanations > 60).await;
    let states = changes.iter().filter(|change| matches!(change.fact, CallFact::State(_)));
    let sessions: Vec<&str> = states.map(|change| &*change.session).collect();
    assert_eq!(sessions, ["s2", "s3"]);
}

#[tokio::test]
async fn call_ends_while_it_waits_for_an_answer() {
    let gateway = SmallGateway::start(usize::MAX).await;
    gateway.state().explains_nothing = true;
    let plan = CallPlan { duration: Some(Duration::from_millis(100)), ..plan() };
    let ends = pin!(pending());
    let began = Instant::now();
    let mut tell = |_: CallChange| {};
    let played = run_until(ends, &plan, || gateway.admin(), &mut tell);
    let CallTotals { sessions, unclosed } = played.await.unwrap();
    assert!(began.elapsed() < ANSWERED_WITHIN, "{:?}", began.elapsed());
    assert_eq!(sessions.len(), 3);
    assert!(unclosed.is_none(), "{unclosed:?}");
}

#[test]
fn ended_session_is_told_with_its_reason() {
    let mut known = KnownFacts::default();
    let read = |answer: Value| serde_json::from_value::<Explanation>(answer).unwrap();
    let running = read(json!({
        "hop": {"node": "east-a1"}, "rung": 0, "cap_kbps": 300, "actions": {"cap": 300},
    }));
    let state = CallState::Live {
        node: Some("east-a1".into()),
        rung: 0,
        cap_kbps: Some(300),
        actions: [("cap".into(), 300)].into(),
    };
    assert_eq!(known.changes("s1", &running), [CallFact::State(state)]);
    assert_eq!(known.changes("s1", &running), []);
    let ended = read(json!({"id": "s1", "ended": {"reason": "closed"}}));
    let state = CallFact::State(CallState::Ended { ended: "closed".into() });
    assert_eq!(known.changes("s1", &ended), [state]);
}

#[tokio::test]
async fn call_keeps_its_totals_when_the_api_dies() {
    let gateway = SmallGateway::start(usize::MAX).await;
    let dying = gateway.clone();
    tokio::spawn(async move {
        dying.wait(|state| state.explanations > 9).await;
        dying.die();
    });
    let plan = CallPlan { duration: Some(Duration::from_millis(500)), ..plan() };
    let ends = pin!(pending());
    let mut tell = |_: CallChange| {};
    let played = run_until(ends, &plan, || gateway.admin(), &mut tell);
    let CallTotals { sessions, unclosed } = played.await.unwrap();
    assert!(gateway.state().explanations > 9);
    assert_eq!(sessions.len(), 3);
    // Half a second of voice, with a packet each 20 ms.
    assert!(sessions[0].packets_sent >= 20, "{sessions:?}");
    assert!(matches!(unclosed, Some(LabError::Gateway(..))), "{unclosed:?}");
}
