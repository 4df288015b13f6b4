use super::*;
use crate::tests::{at, handed_over};

const CLOCK_RATE: u32 = 90_000;

pub(super) fn header(ssrc: u32, sequence: u16, timestamp: u32) -> RtpHeader {
    RtpHeader {
        payload_type: 96,
        marker: false,
        sequence,
        timestamp,
        ssrc,
        payload_offset: 12,
        payload_end: 20,
    }
}

/// A video in two layers: the low one, 1, passes, and the high one, 2, is received as well.
pub(super) fn two_layers() -> LayeredVideo {
    let mut video = LayeredVideo::new(b"anna", b"l", 1);
    assert_eq!((video.learn(b"h", 2), video.place_of(2)), (Some(1), Some(1)));
    video
}

/// Has the receiver want the high layer.
fn want_high(video: &mut LayeredVideo, ms: u64) {
    for (place, bytes) in [(0, 1_000), (1, 4_000)] {
        video.note_received(place, bytes, at(ms));
        video.note_received(place, bytes, at(ms + 600));
    }
    video.choose(LayerLimits::default(), at(ms + 600));
    assert_eq!(video.due_request(at(ms + 600)), Some(2));
}

fn pass(
    video: &mut LayeredVideo,
    place: usize,
    packet: (u16, u32),
    begins_key_frame: bool,
    ms: u64,
) -> Option<(u32, u16, u32)> {
    let header = header([1, 2][place], packet.0, packet.1);
    let sent = video.pass(place, &header, CLOCK_RATE, || begins_key_frame, at(ms))?;
    Some((sent.ssrc, sent.sequence, sent.timestamp))
}

#[test]
fn first_layer_passes_as_it_is() {
    let mut video = two_layers();
    assert_eq!(pass(&mut video, 0, (65_535, 9), false, 0), Some((1, 65_535, 9)));
    assert_eq!(pass(&mut video, 0, (0, 9), true, 1), Some((1, 0, 9)));
    assert_eq!(pass(&mut video, 1, (500, 7), true, 1), None, "nobody wants it");
    assert_eq!(video.due_request(at(1)), None);
}

#[test]
fn layer_passes_from_its_key_frame_on() {
    let mut video = two_layers();
    want_high(&mut video, 0);
    assert_eq!(pass(&mut video, 0, (10, 9_000), false, 700), Some((1, 10, 9_000)));
    assert_eq!(pass(&mut video, 0, (11, 9_000), false, 710), Some((1, 11, 9_000)));
    assert_eq!(pass(&mut video, 1, (500, 70), false, 720), None);
    // 33 ms after the frame before, on a clock of 90 kHz.
    assert_eq!(pass(&mut video, 1, (501, 3_070), true, 733), Some((1, 12, 9_000 + 2_970)));
    assert_eq!(pass(&mut video, 1, (502, 3_070), true, 734), Some((1, 13, 9_000 + 2_970)));
    assert_eq!(pass(&mut video, 1, (503, 6_070), false, 766), Some((1, 14, 9_000 + 5_970)));
    assert_eq!(pass(&mut video, 0, (13, 12_000), true, 767), None, "the layer before");
    assert_eq!(video.due_request(at(5_000)), None, "it has come");
}

#[test]
fn key_frame_is_not_entered_amid() {
    let mut video = two_layers();
    pass(&mut video, 0, (10, 9_000), false, 0);
    assert_eq!(pass(&mut video, 1, (500, 70), true, 1), None);
    want_high(&mut video, 0);
    // Fragments of H.264 all tell that they are of a key frame.
    assert_eq!(pass(&mut video, 1, (501, 70), true, 700), None);
    assert!(pass(&mut video, 1, (502, 3_070), true, 733).is_some());
}

#[test]
fn late_packets_keep_the_numbers_of_their_layer() {
    let mut video = two_layers();
    want_high(&mut video, 0);
    for sequence in [10, 12, 13] {
        pass(&mut video, 0, (sequence, 9_000), false, 700);
    }
    assert_eq!(pass(&mut video, 1, (501, 70), true, 733), Some((1, 14, 11_970)));
    assert_eq!(pass(&mut video, 0, (11, 9_000), false, 734), Some((1, 11, 9_000)));
    assert_eq!(pass(&mut video, 0, (14, 9_000), false, 734), None, "its number is in use");
    assert_eq!(pass(&mut video, 1, (500, 60), false, 734), None, "that of a packet before");
    assert_eq!(pass(&mut video, 0, (11, 9_000), false, 1_733), None, "too late");
}

#[test]
fn another_source_of_the_layer_begins_anew() {
    let mut video = two_layers();
    want_high(&mut video, 0);
    pass(&mut video, 0, (10, 9_000), false, 700);
    pass(&mut video, 1, (501, 70), true, 733);
    assert_eq!(video.learn(b"l", 3), Some(0));
    assert_eq!(pass(&mut video, 1, (502, 70), false, 734), Some((1, 12, 11_970)), "unchanged");
    assert_eq!((video.learn(b"h", 4), video.place_of(2)), (Some(1), None));
    let sent = video.pass(1, &header(4, 77, 88), CLOCK_RATE, || false, at(800));
    assert_eq!(sent, Some(header(4, 77, 88)));
}

#[test]
fn layers_are_bounded() {
    let mut video = two_layers();
    assert_eq!([3, 4, 5].map(|ssrc| video.learn(&[ssrc as u8], ssrc)), [Some(2), Some(3), None]);
    assert_eq!(video.learn(b"l", 6), Some(0), "a known one");
}

#[test]
fn layer_goes_on_after_half_a_cycle() {
    let mut video = two_layers();
    want_high(&mut video, 0);
    pass(&mut video, 0, (10, 0), false, 700);
    pass(&mut video, 1, (0, 0), true, 733);
    for sequence in 1..=40_000 {
        let sent = pass(&mut video, 1, (sequence, 0), false, 734);
        assert_eq!(sent.map(|(_, sequence, _)| sequence), Some(sequence.wrapping_add(11)));
    }
}

#[test]
fn record_continues_the_numbers() {
    let mut video = two_layers();
    want_high(&mut video, 0);
    pass(&mut video, 0, (10, 9_000), false, 700);
    pass(&mut video, 1, (501, 70), true, 733);
    video.forget_unrecorded();
    let mut video = handed_over(&video);
    assert_eq!(pass(&mut video, 1, (502, 70), false, 734), Some((1, 12, 11_970)));
    assert_eq!(pass(&mut video, 0, (11, 9_000), false, 735), None);
    // Nothing has passed in the next process when the layer is gone.
    let mut video = handed_over(&two_layers());
    want_high(&mut video, 0);
    assert_eq!(pass(&mut video, 1, (501, 70), true, 733), Some((2, 501, 70)));
}

/// The receiver's numbers have no gap and no repetition, and its timestamps do not go back, however layers change.
#[test]
fn random_switches_leave_one_numbering() {
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut video = two_layers();
        let mut numbers = [rng.u16(..), rng.u16(..)];
        let offsets = [rng.u32(..), rng.u32(..)];
        let mut last: Option<(u16, u32)> = None;
        let mut switches = 0;
        for frame in 0..600_u64 {
            let ms = frame * 33;
            let highest = rng.u8(1..=2);
            if frame.is_multiple_of(20) {
                video.choose(LayerLimits { highest, ..LayerLimits::default() }, at(ms));
            }
            let is_key = rng.u8(..8) == 0;
            for place in [0, 1] {
                let timestamp = offsets[place].wrapping_add(ms as u32 * 90);
                for part in 0..1 + 3 * place {
                    let sequence = numbers[place];
                    numbers[place] = sequence.wrapping_add(1);
                    video.note_received(place, 1_000, at(ms));
                    let begins = is_key && part == 0;
                    let Some(sent) = pass(&mut video, place, (sequence, timestamp), begins, ms)
                    else {
                        continue;
                    };
                    assert_eq!(sent.0, 1, "{seed}");
                    if let Some((sequence, timestamp)) = last {
                        assert_eq!(sent.1, sequence.wrapping_add(1), "{seed} {frame}");
                        let ahead = sent.2.wrapping_sub(timestamp);
                        assert!(ahead < 9_000, "{seed} {frame} {ahead}");
                    }
                    switches += u32::from(begins && video.place_of(1) != Some(place));
                    last = Some((sent.1, sent.2));
                }
            }
        }
        assert!(switches > 0, "{seed}");
    }
}
