use super::*;

fn r(delay_ms: u64, loss_ppm: u32, codec: Codec) -> u32 {
    r_factor(Duration::from_millis(delay_ms), loss_ppm, codec)
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
    // A code byte of Opus, and a frame that is not sent.
    for silent in [&[][..], &[0x78], &[0x7b, 0x41, 0x00], &[0xff; 160], &[0xd5; 8]] {
        assert!(is_silent(silent), "{silent:x?}");
    }
    let mut click = [0xff; 160];
    click[159] = 0x7f;
    for sound in [&[0x78, 1, 2, 3][..], &[0x55; 7], &click, &[0, 1, 0, 1, 0, 1, 0, 1]] {
        assert!(!is_silent(sound), "{sound:x?}");
    }
}
