use evenkeel_media::stun::{BindingRequest, write_success};

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

fn ice() -> (Ice, StunKey) {
    let credentials = Credentials { ufrag: "gate".into(), password: "a password".into() };
    let key = StunKey::new(&credentials.password);
    (Ice::new(&credentials, Some("phone".into()), 1, SECOND_NS), key)
}

/// Sends the check that is due, and answers it if the gateway is there.
fn check(ice: &mut Ice, key: &StunKey, now_ns: u64, is_answered: bool) {
    let mut sent = Vec::new();
    assert!(ice.poll_transmit(now_ns, &mut sent));
    let request = BindingRequest::parse(&sent).unwrap();
    let username = request.username().unwrap();
    assert_eq!((username.server_ufrag, username.client_ufrag), ("gate", "phone"));
    if is_answered {
        let mut answer = Vec::new();
        let mapped = "127.0.0.1:9".parse().unwrap();
        write_success(request.message.transaction(), mapped, Some(key), &mut answer);
        ice.handle(&answer, now_ns);
    }
}

#[test]
fn five_seconds_without_an_answer_restart_ice_once() {
    let (mut ice, key) = ice();
    check(&mut ice, &key, SECOND_NS, true);
    (2..=6).for_each(|second| check(&mut ice, &key, second * SECOND_NS, false));
    assert_eq!(ice.restarts, 0);
    (7..=20).for_each(|second| check(&mut ice, &key, second * SECOND_NS, false));
    assert_eq!(ice.restarts, 1);
    check(&mut ice, &key, 21 * SECOND_NS, true);
    (22..=27).for_each(|second| check(&mut ice, &key, second * SECOND_NS, false));
    assert_eq!(ice.restarts, 2);
}
