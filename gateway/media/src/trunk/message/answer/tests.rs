use super::*;
use crate::trunk::message::{KeyId, NodeSecret, TrunkQuestion};

const NOW_US: u64 = 1_000_000_000;

fn probe() -> Vec<u8> {
    let mut bytes = Vec::new();
    let secret = NodeSecret::new(b"a secret of some length", "n").unwrap();
    TrunkQuestion::Probe.write(&secret, 77, NOW_US, &mut bytes);
    bytes
}

#[test]
fn refusal_echoes_the_nonce_and_is_shorter() {
    let refused = MessageError::Time { ahead_us: -6_000_000 };
    let refusal = ClockRefusal::of(&probe(), refused, NOW_US).unwrap();
    let mut bytes = Vec::new();
    refusal.write(&mut bytes);
    assert!(bytes.len() < probe().len());
    assert_eq!(ClockRefusal::read(&bytes), Some(ClockRefusal { nonce: 77, sent_us: NOW_US }));
    for length in 0..bytes.len() {
        assert_eq!(ClockRefusal::read(&bytes[..length]), None);
    }
    assert_eq!(ClockRefusal::of(&bytes, refused, NOW_US), None, "a refusal is never refused");
}

#[test]
fn other_datagrams_get_no_refusal() {
    let key = MessageError::Key(KeyId(1));
    for refused in [
        key,
        MessageError::Forged,
        MessageError::Replayed,
        MessageError::Length,
        MessageError::Version(9),
    ] {
        assert_eq!(ClockRefusal::of(&probe(), refused, NOW_US), None, "{refused:?}");
    }
    let refused = MessageError::Time { ahead_us: -6_000_000 };
    assert_eq!(ClockRefusal::of(&probe()[..71], refused, NOW_US), None, "shorter than a question");
    assert_eq!(ClockRefusal::read(&probe()), None);
}
