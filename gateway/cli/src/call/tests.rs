use std::collections::BTreeMap;

use clap::Parser;
use evenkeel_contract::sessions::PolicyAnswer;

use super::*;

#[derive(Parser)]
struct CallLine {
    #[command(flatten)]
    call: CallArgs,
}

fn plan(words: &[&str]) -> Result<CallPlan, String> {
    let words = std::iter::once(&"call").chain(words);
    let line = CallLine::try_parse_from(words).map_err(|error| error.to_string())?;
    match line.call.plan() {
        Ok(plan) => Ok(plan),
        Err(
            CommandError::Wrong(words)
            | CommandError::Failed(words)
            | CommandError::NoGateway(words)
            | CommandError::Refused { words, .. },
        ) => Err(words),
    }
}

#[test]
fn labels_and_rooms_are_those_of_the_command_line() {
    let words = "--to evenkeel.sock --label tenant=gold --label device=a=b --scenario webinar --sessions 5 --rooms 3 \
                 --room trial --seconds 9";
    let words: Vec<&str> = words.split_whitespace().collect();
    let plan = plan(&words).unwrap();
    let crowd = &plan.crowd;
    let labels = [("device", "a=b"), ("tenant", "gold")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(crowd.labels, BTreeMap::from(labels));
    assert_eq!((&*crowd.scenario, &*crowd.rooms), ("webinar", "trial"));
    assert_eq!((crowd.sessions, crowd.room_size), (15, 5));
    assert_eq!(plan.duration, Some(Duration::from_secs(9)));
}

#[test]
fn loss_takes_the_simulated_network() {
    let plain = plan(&[]).unwrap();
    assert!(!plain.crowd.natted && plain.crowd.feedback);
    let lossy = plan(&["--loss", "10", "--stun", "--after", "5"]).unwrap();
    assert_eq!((lossy.crowd.natted, lossy.conditions.loss_ppm), (true, 100_000));
    assert_eq!(lossy.impaired_after, Duration::from_secs(5));
    assert_eq!(lossy.crowd.clients_at, Ipv4Addr::LOCALHOST, "the network is on loopback");
    for far in ["--stun", "--webrtc"] {
        let crowd = plan(&[far]).unwrap().crowd;
        assert_eq!(crowd.clients_at, Ipv4Addr::UNSPECIFIED);
        assert_eq!((crowd.stun, crowd.webrtc), (far == "--stun", far == "--webrtc"));
    }
}

#[test]
fn impossible_call_is_refused() {
    let many = plan(&["--sessions", "400", "--rooms", "2"]).unwrap_err();
    assert!(many.contains("found 800 sessions in all rooms, expected ≤ 500"), "{many}");
    let label = plan(&["--label", "tenant"]).unwrap_err();
    assert!(label.contains("found `tenant`, expected a key and a value"), "{label}");
    assert!(plan(&["--sessions", "1"]).is_err(), "no session would receive");
}

#[test]
fn changes_are_lines() {
    let line = |after_ms, fact| change_line(&CallChange { session: "s7".into(), after_ms, fact });
    let node = Some("east-a1".into());
    let actions = [("cap".into(), 300)].into();
    let state = CallState::Live { node, rung: 1, cap_kbps: Some(300), actions };
    assert_eq!(
        line(1_250, CallFact::State(state)),
        "     1.2 s  s7     at east-a1, rung 1, capped at 300 kbit/s"
    );
    let actions = [("cap".into(), 300), ("layer".into(), 2), ("voice-only".into(), 1)].into();
    let node = Some("east-a1".into());
    let state = CallState::Live { node, rung: 3, cap_kbps: Some(300), actions };
    assert_eq!(
        line(0, CallFact::State(state)),
        "     0.0 s  s7     at east-a1, rung 3, capped at 300 kbit/s, layer 2, voice-only"
    );
    let ended = CallFact::State(CallState::Ended { ended: "closed".into() });
    assert_eq!(line(0, ended), "     0.0 s  s7     ended: closed");
    let answer = PolicyAnswer {
        hook: "degradation".into(),
        reason: Some("lossy".into()),
        outcome: "applied".into(),
        ago_ms: 40,
        by: "call/degradation@5f0c".to_owned(),
        ..PolicyAnswer::default()
    };
    assert_eq!(
        line(0, CallFact::Answer(answer)),
        "     0.0 s  s7     degradation: lossy (applied 0 s ago, call/degradation@5f0c)"
    );
}
