//! Several sources in one session.

use super::*;

const VP8: u8 = 96;
const RTX: u8 = 97;
const EVENT: u8 = 101;

fn audio(epoch: u64, ssrc: u32) -> Node {
    node(epoch, ssrc, (ssrc as u16).wrapping_mul(777), ssrc.wrapping_mul(0x0101_0101))
}

fn video(epoch: u64, ssrc: u32) -> Node {
    Node { payload_type: VP8, clock_rate: VIDEO_HZ, ..audio(epoch, ssrc) }
}

/// Returns the client's SSRC of the packet's stream.
fn heard_as(session: &mut Session, node: Node, number: u64) -> u32 {
    session.got(node, voice(number), 20.0 * number as f64).0
}

#[test]
fn payload_type_decides_which_stream_continues() {
    let mut session = Session::new();
    for number in 0..30 {
        assert_eq!(heard_as(&mut session, audio(1, 1), number), 1);
        assert_eq!(heard_as(&mut session, video(1, 2), number), 2);
    }
    for number in 31..60 {
        assert_eq!(heard_as(&mut session, video(2, 20), number), 2);
        assert_eq!(heard_as(&mut session, audio(2, 10), number), 1);
    }
}

#[test]
fn every_source_keeps_its_own_numbers() {
    let mut session = Session::new();
    let voices = [audio(1, 1), audio(1, 2), audio(1, 3)];
    let followers = [audio(2, 11), audio(2, 12), audio(2, 13)];
    for number in 0..90 {
        for (voice_of, follower) in voices.iter().zip(followers) {
            let sender = if number < 30 { *voice_of } else { follower };
            let got = session.got(sender, voice(number), 20.0 * number as f64);
            assert_eq!(got, numbers(*voice_of, voice(number)));
        }
    }
}

#[test]
fn clock_rate_decides_for_a_new_payload_type() {
    let mut session = Session::new();
    for number in 0..30 {
        heard_as(&mut session, video(1, 2), number);
        heard_as(&mut session, audio(1, 1), number);
    }
    let event = Node { payload_type: EVENT, ..audio(2, 10) };
    assert_eq!(heard_as(&mut session, event, 31), 1);
    assert_eq!(heard_as(&mut session, audio(2, 10), 32), 1);
}

#[test]
fn voice_continues_after_a_switch_amid_dtmf() {
    let mut session = Session::new();
    for number in 0..30 {
        heard_as(&mut session, audio(1, 1), number);
        heard_as(&mut session, video(1, 2), number);
    }
    heard_as(&mut session, Node { payload_type: EVENT, ..audio(1, 1) }, 30);
    let types: Vec<_> = session.0.sources().map(|source| source.payload_type).collect();
    assert_eq!(types, [EVENT, VP8], "the last seen");
    assert_eq!(heard_as(&mut session, audio(2, 10), 31), 1);
}

#[test]
fn stream_of_another_known_type_is_not_confused() {
    let mut session = Session::new();
    let repeats = |epoch, ssrc| Node { payload_type: RTX, ..video(epoch, ssrc) };
    for number in 0..30 {
        heard_as(&mut session, video(1, 2), number);
        heard_as(&mut session, repeats(1, 3), number);
    }
    assert_eq!(heard_as(&mut session, repeats(2, 30), 31), 3);
    assert_eq!(
        heard_as(&mut session, repeats(2, 31), 31),
        31,
        "not the video, whose type is known"
    );
    assert_eq!(heard_as(&mut session, video(2, 20), 31), 2);
}

#[test]
fn active_stream_continues_before_a_silent_one() {
    let mut session = Session::new();
    for number in 0..30 {
        heard_as(&mut session, audio(1, 1), number);
    }
    for number in 30..120 {
        heard_as(&mut session, audio(1, 2), number);
    }
    assert_eq!(heard_as(&mut session, audio(2, 10), 121), 2);
    assert_eq!(
        heard_as(&mut session, audio(2, 11), 121),
        1,
        "silent, but still known to the client"
    );
}

#[test]
fn same_ssrc_wins_over_other_matches() {
    let mut session = Session::new();
    for number in 0..30 {
        heard_as(&mut session, audio(1, 1), number);
        heard_as(&mut session, audio(1, 2), number);
    }
    let anew = |ssrc| Node { sequence: 40_000, timestamp: 1 << 31, ..audio(2, ssrc) };
    assert_eq!(heard_as(&mut session, anew(2), 31), 2);
    assert_eq!(heard_as(&mut session, anew(1), 31), 1);
}

#[test]
fn no_two_streams_share_an_ssrc_at_the_client() {
    let mut session = Session::new();
    for number in 0..30 {
        assert_eq!(heard_as(&mut session, audio(1, 1), number), 1);
        assert_eq!(heard_as(&mut session, video(1, 2), number), 2);
    }
    // The next node assigns the SSRCs in reverse order, and has one more source.
    assert_eq!(heard_as(&mut session, audio(2, 2), 31), 1);
    assert_eq!(heard_as(&mut session, video(2, 3), 31), 2);
    let fresh = heard_as(&mut session, audio(2, 1), 31);
    assert!(![1, 2, 3].contains(&fresh), "{fresh}");
    assert_eq!(heard_as(&mut session, audio(2, 1), 32), fresh);
    assert_eq!(heard_as(&mut session, audio(2, 2), 32), 1);
}

#[test]
fn new_source_without_a_switch_is_a_new_stream() {
    let mut session = Session::new();
    heard_as(&mut session, audio(1, 1), 0);
    assert_eq!(heard_as(&mut session, audio(1, 5), 500), 5);
    assert_eq!(session.0.sources().count(), 2);
}

#[test]
fn sixteen_streams_followed_longest_silent_dropped() {
    let mut session = Session::new();
    for ssrc in 1..=16 {
        heard_as(&mut session, audio(1, ssrc), u64::from(ssrc));
    }
    heard_as(&mut session, audio(1, 1), 17);
    heard_as(&mut session, audio(1, 99), 18);
    let mut followed: Vec<_> = session.0.sources().map(|source| source.ssrc).collect();
    followed.sort_unstable();
    let expected: Vec<u32> = (1..=16).filter(|ssrc| *ssrc != 2).chain([99]).collect();
    assert_eq!(followed, expected);
}

#[test]
fn client_stream_has_a_clock_across_senders() {
    let mut session = Session::new();
    heard_as(&mut session, audio(1, 1), 0);
    heard_as(&mut session, video(1, 2), 0);
    session.0.switched(StreamEpoch(2), SwitchCause::Failover);
    assert_eq!(session.0.sources().count(), 0, "no packet of the new hop yet");
    heard_as(&mut session, video(2, 20), 10);
    let rates = [1, 2, 20].map(|ssrc| session.0.clock_rate(ssrc));
    assert_eq!(rates, [Some(VOICE_HZ), Some(VIDEO_HZ), None]);
}
