use super::*;

fn r(delay_ms: u64, loss_ppm: u32, codec: Codec) -> u32 {
    r_factor(Duration::from_millis(delay_ms), HeardLoss::random(loss_ppm), codec)
}

#[test]
fn no_impairment_gives_the_best_r() {
    assert_eq!(r(0, 0, Codec::Opus), 9_320);
    assert_eq!(r(0, 0, Codec::G729), 8_220);
}

#[test]
fn delay_costs_little_below_the_knee() {
    assert_eq!(r(100, 0, Codec::G711), 9_080);
    assert_eq!(r(177, 0, Codec::G711), 8_895);
    assert_eq!(r(400, 0, Codec::G711), 5_910);
}

#[test]
fn loss_costs_less_with_better_concealment() {
    assert_eq!(r(0, 10_000, Codec::G711), 8_956);
    assert_eq!(r(0, 10_000, Codec::G729), 7_800);
    assert_eq!(r(0, 10_000, Codec::Other), 7_528);
    assert_eq!(r(0, 50_000, Codec::Opus), 7_742);
}

#[test]
fn bursts_cost_more_than_random_loss() {
    let r =
        |ppm, burst_ratio| r_factor(Duration::ZERO, HeardLoss { ppm, burst_ratio }, Codec::G711);
    // 93.2 − 95 · 2 / (2 / 2 + 25.1), and without bursts 93.2 − 95 · 2 / (2 + 25.1).
    assert_eq!((r(20_000, 2.0), r(20_000, 1.0)), (8_592, 8_619));
    assert_eq!(r(100_000, 4.0), 5_878);
    assert_eq!(r(20_000, 9.0), r(20_000, 8.0), "beyond the standard's range");
    assert_eq!(r(20_000, 0.5), r(20_000, 1.0));
    assert_eq!(r(0, 8.0), 9_320);
}

#[test]
fn r_is_never_negative() {
    assert_eq!(r(2_000, 1_000_000, Codec::Other), 0);
    assert_eq!(r(0, u32::MAX, Codec::G711), r(0, 1_000_000, Codec::G711));
    assert_eq!(r(u64::MAX / 1_000, 0, Codec::Opus), 0);
}

#[test]
fn codecs_are_found_by_sdp_name() {
    for (name, codec) in [
        ("opus", Codec::Opus),
        ("OPUS", Codec::Opus),
        ("PCMU", Codec::G711),
        ("pcma", Codec::G711),
        ("G729", Codec::G729),
        ("L16", Codec::Other),
    ] {
        assert_eq!(Codec::named(name), codec);
    }
}

#[test]
fn packets_without_sound_are_known() {
    let mut click = [0xff_u8; 160];
    click[159] = 0x7e;
    let cases: [(&str, &[u8], Option<bool>); 12] = [
        // A frame of silence, and one that is not sent.
        ("opus", &[0xf8, 0xff, 0xfe], Some(true)),
        ("opus", &[0x78], Some(true)),
        ("opus", &[0x78, 1, 2, 3], Some(false)),
        ("PCMU", &[0xff, 0x7f, 0xff], Some(true)),
        ("PCMU", &click, Some(false)),
        ("PCMA", &[0xd5; 160], Some(true)),
        ("PCMA", &[0x55; 160], Some(true)),
        ("PCMA", &[0xff; 160], Some(false)),
        // Media of tests.
        ("PCMU", &[0; 160], Some(false)),
        ("opus", &[0xff; 80], Some(false)),
        // Comfort noise (RFC 3389), and a codec with unknown silence.
        ("CN", &[0x40], None),
        ("G722", &[0; 160], None),
    ];
    for (codec, payload, silent) in cases {
        assert_eq!(is_silent(codec, payload), silent, "{codec} {payload:x?}");
    }
}
