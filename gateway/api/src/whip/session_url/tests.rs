use evenkeel_token::ClientDirection;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn endpoint() -> Endpoint {
    let direction = ClientDirection::Publish;
    Endpoint { direction, scenario: "live".into(), room: "stage".into() }
}

#[test]
fn url_is_proved_for_its_session_and_endpoint_only() {
    let segment = segment(SessionId(17), TRACE, &endpoint());
    assert!(segment.starts_with("s17-") && segment.len() == 4 + 32, "{segment}");
    let proves = |segment: &str, trace: &str, endpoint: &Endpoint| {
        proves(segment, session_in(segment).unwrap(), trace, endpoint)
    };
    assert!(proves(&segment, TRACE, &endpoint()));
    assert!(!proves(&segment.replace("s17", "s18"), TRACE, &endpoint()));
    assert!(!proves(&segment.replace("s17", "s017"), TRACE, &endpoint()));
    assert!(!proves(&segment, &TRACE.replace('4', "5"), &endpoint()));
    let others = [
        Endpoint { direction: ClientDirection::View, ..endpoint() },
        Endpoint { scenario: "call".into(), ..endpoint() },
        Endpoint { room: "stage2".into(), ..endpoint() },
        // The same characters, at another place.
        Endpoint { scenario: "livestage".into(), room: String::new(), ..endpoint() },
    ];
    for other in others {
        assert!(!proves(&segment, TRACE, &other));
    }
    assert!(!proves(&format!("{segment}-{segment}"), TRACE, &endpoint()));
}

#[test]
fn other_segment_is_none() {
    for segment in ["", "s17", "17-a", "s-a", "sx-a", "-s17"] {
        assert_eq!(session_in(segment), None, "{segment}");
    }
}
