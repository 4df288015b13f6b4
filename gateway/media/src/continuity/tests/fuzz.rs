//! Packets and RTCP with any numbers.

use super::*;
use evenkeel_fuzz::Corpus;

/// Acts beside packets, and their numbers in the input.
const LEFT: u8 = 1;
const COPIES: u8 = 2;
const CLOSED: u8 = 3;
const WITHHELD: u8 = 4;
const PLANNED: u8 = 5;
const WITHHELD_BETWEEN: u8 = 6;

/// Encodes a packet: act and hop, pause, payload type, SSRC, sequence number and timestamp.
fn step(act: u8, next_hop: bool, number: u32) -> [u8; 10] {
    let ([_, _, s0, s1], [t0, t1, t2, t3]) = (number.to_be_bytes(), (number * FRAME).to_be_bytes());
    [act | u8::from(next_hop) << 7, 20, OPUS, 0xa, s0, s1, t0, t1, t2, t3]
}

#[test]
fn fuzz_continuity() {
    let voice = (0..60).map(|number| step(0, number % 20 == 19, number));
    let acts = (0..40).map(|number| step(number as u8 % 7, number % 10 == 9, number));
    let corpus = Corpus::of("continuity").with(voice.flatten().collect::<Vec<_>>());
    corpus.with(acts.flatten().collect::<Vec<_>>()).check(|bytes| {
        for protection in [Protection::Clear, Protection::Srtp, Protection::Terminated] {
            play(bytes, protection);
        }
    });
}

/// Plays the acts to a session, and to a copy that is handed over before one of them.
fn play(bytes: &[u8], protection: Protection) {
    let mut both = vec![Continuity::new(7, protection)];
    let (mut newest, mut now_ms) = (1, 0.0);
    let steps = bytes.as_chunks::<10>().0;
    let split = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % steps.len().max(1);
    for (place, &[act, pause, kind, ssrc, s0, s1, t0, t1, t2, t3]) in steps.iter().enumerate() {
        if place == split {
            both.push(handed_over(&both[0]));
        }
        now_ms += f64::from(pause);
        newest += u64::from(act >> 7);
        let now = at(now_ms);
        let epoch = StreamEpoch(newest - u64::from(act >> 6 & 1));
        let clock_rate = [VOICE_HZ, VIDEO_HZ, 0, 1_000_000][usize::from(act >> 4 & 3)];
        let header = RtpHeader {
            payload_type: kind & 0x7f,
            marker: kind & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: ssrc.into(),
            payload_offset: 12,
            payload_end: 112,
        };
        let outcomes: Vec<_> = both
            .iter_mut()
            .map(|continuity| {
                let mut withheld = None;
                match act & 0xf {
                    LEFT => continuity.left(now, kind & 0x80 != 0),
                    COPIES => continuity.switch_to_copies(),
                    CLOSED => continuity.close_previous(),
                    WITHHELD => withheld = continuity.withhold(epoch, &header, clock_rate, now),
                    WITHHELD_BETWEEN => _ = continuity.withhold_between(epoch, &header, now),
                    PLANNED => {
                        let lead = Duration::from_millis(pause.into());
                        continuity.switched(epoch, SwitchCause::Planned { lead });
                    }
                    _ => {}
                }
                let pass = continuity.pass(epoch, &header, clock_rate, now);
                if protection == Protection::Srtp {
                    assert!(!matches!(pass, Pass::Rewrite { .. }), "SRTP authenticates the header");
                }
                assert!(continuity.streams.len() <= STREAMS_MAX);
                let (expected, lost) = continuity.arrivals();
                assert!(lost <= expected);
                let times = (continuity.missed_at_switches(now), continuity.fell_silent(now));
                (withheld, pass, expected, lost, times)
            })
            .collect();
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    }
}
