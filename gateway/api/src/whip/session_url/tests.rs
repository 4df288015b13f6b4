use evenkeel_token::ClientDirection;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn endpoint() -> Endpoint {
    let direction = ClientDirection::Publish;
    Endpoint { direction, scenario: "live".into(), room: "stage".into() }
}

fn ice(ufrag: &str) -> IceCredentials {
    IceCredentials::new(ufrag, "a22characterpassword22").unwrap()
}

#[test]
fn url_is_proved_for_its_session_and_endpoint_only() {
    let url = SessionUrl::new(SessionId(17), TRACE, &ice("EsAw"));
    let segment = url.segment(TRACE, &endpoint());
    assert!(segment.starts_with("s17-") && segment.len() == 4 + 32 + 1 + 32, "{segment}");
    let proves = |segment: &str, trace: &str, endpoint: &Endpoint| {
        SessionUrl::parse(segment).unwrap().proves(segment, trace, endpoint)
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
    let (start, code) = segment.rsplit_once('-').unwrap();
    let tag = start.replace("s17-", "");
    assert!(!proves(&format!("s17-{code}-{code}"), TRACE, &endpoint()));
    assert!(!proves(&format!("s17-{tag}-{tag}"), TRACE, &endpoint()));
}

#[test]
fn tag_is_that_of_the_credentials() {
    let url = SessionUrl::new(SessionId(17), TRACE, &ice("EsAw"));
    assert!(url.is_of(TRACE, &ice("EsAw")));
    assert!(!url.is_of(TRACE, &ice("ysXw")));
    let password = IceCredentials::new("EsAw", "another22characterpassword").unwrap();
    assert!(!url.is_of(TRACE, &password));
    let other = SessionUrl::new(SessionId(18), TRACE, &ice("EsAw"));
    assert_ne!(url.etag(), other.etag());
}

#[test]
fn other_segment_is_none() {
    for segment in ["", "s17", "s17-a", "s17-a-b-c", "17-a-b", "s-a-b", "sx-a-b", "-s17-a"] {
        assert!(SessionUrl::parse(segment).is_none(), "{segment}");
    }
}
