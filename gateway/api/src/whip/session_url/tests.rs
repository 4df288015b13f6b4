use evenkeel_config::token::ClientDirection;

use super::*;

fn endpoint() -> Endpoint {
    let direction = ClientDirection::Publish;
    Endpoint { direction, scenario: "live".into(), room: "stage".into() }
}

#[test]
fn url_is_proved_for_its_session_and_endpoint_only() {
    let urls = SessionUrls::default();
    let segment = segment(&urls, SessionId(17), &endpoint());
    assert!(segment.starts_with("s17-") && segment.len() == 4 + 32, "{segment}");
    assert_eq!(proved(&urls, &segment, &endpoint()), Some(SessionId(17)));
    assert_eq!(proved(&SessionUrls::default(), &segment, &endpoint()), None, "another group");
    for other in [segment.replace("s17", "s18"), segment.replace("s17", "s017")] {
        assert_eq!(proved(&urls, &other, &endpoint()), None, "{other}");
    }
    let id = SessionId::first_of_group(u64::MAX);
    assert_eq!(proved(&urls, &super::segment(&urls, id, &endpoint()), &endpoint()), Some(id));
    let others = [
        Endpoint { direction: ClientDirection::View, ..endpoint() },
        Endpoint { scenario: "call".into(), ..endpoint() },
        Endpoint { room: "stage2".into(), ..endpoint() },
        // The same characters, at another place.
        Endpoint { scenario: "livestage".into(), room: String::new(), ..endpoint() },
    ];
    for other in others {
        assert_eq!(proved(&urls, &segment, &other), None);
    }
    assert_eq!(proved(&urls, &format!("{segment}-{segment}"), &endpoint()), None);
}

#[test]
fn other_segment_is_none() {
    let urls = SessionUrls::default();
    for segment in ["", "s17", "s4k7mq2-17", "17-a", "s-a", "sx-a", "-s17"] {
        assert_eq!(proved(&urls, segment, &endpoint()), None, "{segment}");
    }
}
