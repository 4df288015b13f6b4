use clap::Parser;
use serde_json::json;

use super::*;

fn moved() -> Value {
    json!({
        "at_us": 34_867_031_250_u64, "room": "team 7", "sessions": ["s1", "s2"], "cause": "node-down",
        "from": {"node": "east-a1", "region": "east", "zone": "a", "incarnation": 1},
        "to": {"node": "east-b1", "region": "east", "zone": "b", "incarnation": 2}, "took_us": 12,
        "reason": null,
    })
}

#[test]
fn event_is_a_line() {
    let expected = "09:41:07.031 moved cause=node-down from=east-a1 room=\"team 7\" sessions=s1,s2 \
                    to=east-b1 took_us=12";
    let Value::Object(fields) = moved() else { unreachable!("an object") };
    let said = line("moved", 34_867_031_250, &fields);
    let mut words: Vec<_> = said.split(' ').collect();
    let mut expected: Vec<_> = expected.split(' ').filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    expected.sort_unstable();
    assert_eq!(words, expected);
}

#[test]
fn filter_finds_fields_in_lists_and_objects() {
    let matches = |filter: &str| filter.parse::<FieldFilter>().unwrap().matches(&moved());
    for filter in ["cause=node-down", "sessions=s2", "node=east-b1", "zone=a", "took_us=12"] {
        assert!(matches(filter), "{filter}");
    }
    for filter in ["cause=link", "sessions=s3", "node=east-a2", "took_us=1", "room=team"] {
        assert!(!matches(filter), "{filter}");
    }
    assert!("cause".parse::<FieldFilter>().is_err() && "=x".parse::<FieldFilter>().is_err());
}

#[test]
fn events_are_chosen_by_name_and_field() {
    let filter = ["cause=node-down".parse().unwrap()];
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert!(is_chosen("moved", &moved(), &names(&[]), &filter));
    assert!(is_chosen("moved", &moved(), &names(&["closed", "moved"]), &filter));
    assert!(!is_chosen("moved", &moved(), &names(&["closed"]), &filter));
    assert!(!is_chosen("moved", &json!({"cause": "link"}), &names(&["moved"]), &filter));
    assert!(is_chosen("missed", &json!({"notices": 7}), &names(&["moved"]), &filter));
}

#[test]
fn unknown_event_or_field_is_refused_with_the_names() {
    let events = event_fields();
    let refused = |names: &[&str], filter: &str| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        match require_known(&names, &[filter.parse().unwrap()], &events) {
            Err(CommandError::Wrong(words)) => words,
            _ => String::new(),
        }
    };
    let event = refused(&["nosuch"], "node=x");
    assert!(event.starts_with("there is no such event: nosuch; there are advice, "), "{event}");
    assert!(event.contains(", moved, "), "{event}");
    assert!(refused(&["movd"], "node=x").ends_with("; did you mean `moved`?"));
    let field = refused(&[], "nod=x");
    assert!(field.starts_with("there is no such field: nod; there are action, "), "{field}");
    assert!(field.ends_with("; did you mean `node`?"), "{field}");
    assert_eq!(
        refused(&["missed"], "session=x"),
        "there is no such field: session; there are notices"
    );
    for known in ["node=x", "zone=a", "routing=x", "for_us=1"] {
        assert_eq!(refused(&["opened", "moved"], known), "", "{known}");
    }
}

#[test]
fn events_may_be_asked_for_with_follow() {
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        events: EventsArgs,
    }
    let words = ["events", "moved", "--follow", "--filter", "cause=link"];
    let EventsArgs { names, filter, .. } = Command::try_parse_from(words).unwrap().events;
    assert_eq!(names, ["moved"]);
    assert_eq!(filter, ["cause=link".parse::<FieldFilter>().unwrap()]);
}

#[test]
fn failure_line_has_cause_reach_and_outcome() {
    let failure = Failure {
        at_us: 34_867_031_250,
        cause: "node-down".into(),
        witnesses: vec!["agent".into(), "probe".into()],
        nodes: vec!["east-a1".into(), "east-a2".into()],
        gateway: None,
        rooms: Some(5),
        sessions: 12,
        outcome: "unplaced".into(),
        unplaced_sessions: 2,
        reduced_sessions: 3,
    };
    let after = |seconds: u64| {
        SystemTime::UNIX_EPOCH
            + Duration::from_micros(34_867_031_250)
            + Duration::from_secs(seconds)
    };
    let line = failure_line(&failure, after(7_800));
    let (ago, line) = line.split_once(" ago ").unwrap();
    assert_eq!(ago.trim(), "2 h 10 min");
    assert_eq!(
        line,
        "09:41:07.031 node-down (agent, probe) of east-a1, east-a2: 12 sessions in 5 rooms, unplaced, 2 \
         without a node, 3 with a lower bit rate"
    );
    let takeover = Failure {
        at_us: 34_867_031_250,
        cause: "takeover".into(),
        gateway: Some("edge-2".into()),
        sessions: 4,
        outcome: "continued".into(),
        ..Failure::default()
    };
    let line = failure_line(&takeover, after(86_399));
    assert!(line.ends_with(" 09:41:07.031 takeover at edge-2: 4 sessions, continued"), "{line}");
    let single = Failure { sessions: 1, rooms: Some(1), ..takeover };
    let line = failure_line(&single, after(86_400));
    let right = " 1 d 0 h ago 1970-01-01 09:41:07.031 UTC takeover at edge-2: 1 session in 1 room, continued";
    assert!(line.ends_with(right), "{line}");
}
