use super::*;
use crate::repair::tests::at;

const RTT: Duration = Duration::from_millis(40);

fn origin() -> Instant {
    at(0)
}

/// A path with this loss, just measured. Its client takes redundancy, and no retransmissions.
fn path(ppm: u32, at: Instant) -> PathState {
    PathState {
        loss: Some(LossSample { ppm, at }),
        burst_x100: 100,
        round_trip: Some(RTT),
        latency: Duration::from_millis(120),
        frame: Duration::from_millis(20),
        takes_retransmission: false,
        takes_redundancy: true,
        has_lbrr: false,
    }
}

fn first(path: &PathState) -> Repair {
    RepairChoice::default().update(path, path.loss.map_or_else(origin, |loss| loss.at))
}

fn redundancy(frames: u8, span: u8) -> Repair {
    Repair::Redundancy(Spacing { frames, span })
}

#[test]
fn repair_begins_at_one_percent() {
    let at = origin();
    assert_eq!(first(&path(9_999, at)), Repair::Nothing);
    assert_eq!(first(&path(10_000, at)), redundancy(1, 5));
    assert_eq!(first(&PathState { loss: None, ..path(0, at) }), Repair::Nothing);
}

#[test]
fn repair_ends_after_five_seconds_without_loss() {
    let start = origin();
    let at = |ms| start + Duration::from_millis(ms);
    let mut choice = RepairChoice::default();
    assert_eq!(choice.update(&path(10_000, at(0)), at(0)), redundancy(1, 5));
    let mut look = |ppm, of, now| choice.update(&path(ppm, at(of)), at(now)) != Repair::Nothing;
    assert!(look(2_999, 100, 4_999));
    assert!(look(3_000, 4_900, 5_100), "a little loss goes on");
    assert!(look(0, 5_200, 9_899));
    assert!(!look(0, 9_800, 9_900));
    assert!(!look(9_999, 10_000, 10_000), "and begins at as much as before");
    assert!(look(10_000, 10_100, 10_100));
    // No report since: the loss may last.
    assert!(look(10_000, 10_100, 20_000));
}

#[test]
fn repair_ends_with_the_measurements() {
    let start = origin();
    let mut choice = RepairChoice::default();
    assert_eq!(choice.update(&path(10_000, start), start), redundancy(1, 5));
    let unknown = PathState { loss: None, ..path(0, start) };
    assert_eq!(choice.update(&unknown, start), Repair::Nothing);
    assert_eq!(choice.update(&path(9_999, start), start), Repair::Nothing);
}

#[test]
fn retransmission_is_chosen_while_it_fits() {
    let nack = |ppm, trip: Option<u64>| PathState {
        round_trip: trip.map(Duration::from_millis),
        takes_retransmission: true,
        ..path(ppm, origin())
    };
    assert_eq!(first(&nack(20_000, Some(100))), Repair::Retransmission);
    assert_eq!(first(&nack(20_000, Some(101))), redundancy(1, 5), "it would come too late");
    assert_eq!(first(&nack(20_000, None)), redundancy(1, 5), "it may come too late");
    assert_eq!(first(&nack(49_999, Some(40))), Repair::Retransmission);
    assert_eq!(first(&nack(50_000, Some(40))), redundancy(2, 5), "it would be lost too often");
    let without = |ppm, trip| PathState { takes_redundancy: false, ..nack(ppm, trip) };
    assert_eq!(first(&without(50_000, Some(40))), Repair::Retransmission);
    assert_eq!(first(&without(50_000, Some(101))), Repair::Nothing);
}

#[test]
fn second_frame_is_for_heavy_loss() {
    for (ppm, burst_x100, expected) in [
        (49_999, 150, redundancy(1, 5)),
        (50_000, 150, redundancy(2, 5)),
        (50_000, 151, redundancy(1, 5)),
        (149_999, 300, redundancy(1, 5)),
        (150_000, 300, redundancy(2, 5)),
    ] {
        let path = PathState { burst_x100, ..path(ppm, origin()) };
        assert_eq!(first(&path), expected, "{ppm} {burst_x100}");
    }
}

#[test]
fn heavy_loss_is_remembered_as_long_as_loss() {
    let start = origin();
    let mut choice = RepairChoice::default();
    let mut look = |ppm, ms| {
        let now = start + Duration::from_millis(ms);
        choice.update(&path(ppm, now), now)
    };
    assert_eq!(look(50_000, 0), redundancy(2, 5));
    assert_eq!(look(20_000, 4_999), redundancy(2, 5));
    assert_eq!(look(20_000, 5_000), redundancy(1, 5));
}

#[test]
fn frames_are_as_far_apart_as_the_latency_allows() {
    for (latency, frame, one, two) in [
        (120, 20, redundancy(1, 5), redundancy(2, 5)),
        (99, 20, redundancy(1, 3), redundancy(2, 3)),
        (60, 20, redundancy(1, 2), redundancy(2, 2)),
        (40, 20, redundancy(1, 1), redundancy(1, 1)),
        (39, 20, Repair::Nothing, Repair::Nothing),
        (120, 60, redundancy(1, 1), redundancy(1, 1)),
        (120, 0, Repair::Nothing, Repair::Nothing),
    ] {
        let with = |ppm| {
            let [latency, frame] = [latency, frame].map(Duration::from_millis);
            first(&PathState { latency, frame, ..path(ppm, origin()) })
        };
        assert_eq!(with(10_000), one, "{latency} {frame}");
        assert_eq!(with(50_000), two, "{latency} {frame}");
    }
}

#[test]
fn lbrr_suffices_for_single_losses() {
    for (burst_x100, expected) in [(150, Repair::Nothing), (151, redundancy(1, 5))] {
        let path = PathState { burst_x100, has_lbrr: true, ..path(10_000, origin()) };
        assert_eq!(first(&path), expected);
    }
    let path = PathState { takes_retransmission: true, has_lbrr: true, ..path(50_000, origin()) };
    assert_eq!(first(&path), Repair::Retransmission);
}

/// The first byte of a packet of this configuration (RFC 6716, table 2).
const fn toc(config: u8, is_stereo: bool, code: u8) -> u8 {
    config << 3 | (is_stereo as u8) << 2 | code
}

#[test]
fn lbrr_flag_is_found_in_the_first_silk_frame() {
    for (packet, expected) in [
        // 20 ms of SILK: one flag of voice activity.
        (&[toc(1, false, 0), 0x40][..], true),
        (&[toc(1, false, 0), 0xbf], false),
        (&[toc(1, true, 0), 0x10], true),
        (&[toc(1, true, 0), 0xaf], false),
        (&[toc(1, false, 0), 0x10], false),
        // 10, 40 and 60 ms.
        (&[toc(8, false, 0), 0x40], true),
        (&[toc(2, false, 0), 0x20], true),
        (&[toc(2, false, 0), 0xdf], false),
        (&[toc(2, true, 0), 0x04], true),
        (&[toc(3, false, 0), 0x10], true),
        (&[toc(3, true, 0), 0x01], true),
        (&[toc(3, true, 0), 0xee], false),
        // Hybrid, and CELT.
        (&[toc(15, false, 0), 0x40], true),
        (&[toc(16, false, 0), 0x40], false),
        (&[toc(31, true, 0), 0xff], false),
        // Several frames.
        (&[toc(1, false, 1), 0x40, 0], true),
        (&[toc(1, false, 2), 1, 0x40, 0], true),
        (&[toc(1, false, 2), 252, 1, 0x40], true),
        (&[toc(1, false, 2), 0, 0x40], false),
        (&[toc(1, false, 3), 2, 0x40, 0], true),
        (&[toc(1, false, 3), 0x82, 1, 0x40, 0], true),
        (&[toc(1, false, 3), 0x83, 253, 0, 1, 0x40], true),
        (&[toc(1, false, 3), 0x82, 0, 0x40], false),
        (&[toc(1, false, 3), 0x42, 255, 1, 0x40], true),
        (&[toc(1, false, 3), 0xc2, 0, 1, 0x40], true),
        // Silence, and packets that end too early.
        (&[], false),
        (&[toc(1, false, 0)], false),
        (&[toc(1, false, 2), 252], false),
        (&[toc(1, false, 3)], false),
        (&[toc(1, false, 3), 0x42, 255], false),
        (&[toc(1, false, 3), 0x9f, 1], false),
    ] {
        assert_eq!(has_lbrr(packet), expected, "{packet:x?}");
    }
}
