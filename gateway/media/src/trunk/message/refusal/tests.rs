use super::*;
use crate::trunk::message::{KeyId, Question, Secret};

const NOW_US: u64 = 1_000_000_000;

fn probe() -> Vec<u8> {
    let mut bytes = Vec::new();
    let secret = Secret::new(b"a secret of some length", "n").unwrap();
    Question::Probe.write(&secret, 77, NOW_US, &mut bytes);
    bytes
}

#[test]
fn refusal_echoes_the_nonce_and_is_shorter() {
    let refused = Refused::Time { ahead_us: -6_000_000 };
    let refusal = Refusal::of(&probe(), refused, NOW_US).unwrap();
    let mut bytes = Vec::new();
    refusal.write(&mut bytes);
    assert!(bytes.len() < probe().len());
    assert_eq!(Refusal::read(&bytes), Some(Refusal { nonce: 77, sent_us: NOW_US }));
    for length in 0..bytes.len() {
        assert_eq!(Refusal::read(&bytes[..length]), None);
    }
    assert_eq!(Refusal::of(&bytes, refused, NOW_US), None, "a refusal is never refused");
}

#[test]
fn other_datagrams_get_no_refusal() {
    let key = Refused::Key(KeyId(1));
    for refused in [key, Refused::Forged, Refused::Replayed, Refused::Length, Refused::Version(9)] {
        assert_eq!(Refusal::of(&probe(), refused, NOW_US), None, "{refused:?}");
    }
    let refused = Refused::Time { ahead_us: -6_000_000 };
    assert_eq!(Refusal::of(&probe()[..71], refused, NOW_US), None, "shorter than a question");
    assert_eq!(Refusal::read(&probe()), None);
}
