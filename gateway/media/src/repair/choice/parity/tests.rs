use super::*;
use crate::repair::tests::at;

/// A path with this loss, measured at this time, without retransmission.
fn path(ppm: u32, ms: u64) -> VideoPath {
    VideoPath {
        loss: Some(LossSample { ppm, at: at(ms) }),
        left_ppm: Some(ppm),
        burst_x100: 100,
        round_trip: Some(Duration::from_millis(200)),
        latency: Duration::from_millis(120),
        takes_retransmission: false,
    }
}

fn first(path: &VideoPath) -> Option<Overhead> {
    ParityChoice::default().update(path, at(0))
}

#[test]
fn share_follows_the_loss() {
    for (ppm, burst_x100, expected) in [
        (9_999, 100, None),
        (10_000, 100, Some(Overhead::Tenth)),
        (14_999, 150, Some(Overhead::Tenth)),
        (15_000, 150, Some(Overhead::Fifth)),
        (39_999, 150, Some(Overhead::Fifth)),
        (40_000, 150, Some(Overhead::Third)),
        (99_999, 150, Some(Overhead::Third)),
        (100_000, 150, Some(Overhead::Half)),
        (10_000, 151, Some(Overhead::Fifth)),
        (20_000, 151, Some(Overhead::Third)),
        (50_000, 151, Some(Overhead::Half)),
    ] {
        assert_eq!(first(&VideoPath { burst_x100, ..path(ppm, 0) }), expected, "{ppm}");
    }
    assert_eq!(first(&VideoPath { loss: None, ..path(50_000, 0) }), None);
}

#[test]
fn parity_is_for_loss_that_retransmission_leaves() {
    let nack = |trip: Option<u64>, left_ppm| VideoPath {
        round_trip: trip.map(Duration::from_millis),
        takes_retransmission: true,
        left_ppm,
        ..path(60_000, 0)
    };
    assert_eq!(first(&nack(Some(100), Some(0))), None);
    assert_eq!(first(&nack(Some(100), None)), None);
    assert_eq!(first(&nack(Some(101), Some(0))), Some(Overhead::Third), "it would come too late");
    assert_eq!(first(&nack(None, Some(0))), Some(Overhead::Third), "it may come too late");
    assert_eq!(first(&nack(Some(40), Some(50_000))), None);
    assert_eq!(first(&nack(Some(40), Some(50_001))), Some(Overhead::Third), "it is lost too often");
}

#[test]
fn parity_ends_after_five_seconds_without_loss() {
    let mut choice = ParityChoice::default();
    let mut look = |ppm, ms| choice.update(&path(ppm, ms), at(ms));
    assert_eq!(look(40_000, 0), Some(Overhead::Third));
    assert_eq!(look(2_999, 4_999), Some(Overhead::Third));
    assert_eq!(look(3_000, 4_999), Some(Overhead::Third), "a little loss goes on");
    assert_eq!(look(0, 5_000), Some(Overhead::Tenth), "at the share that it needs");
    assert_eq!(look(0, 9_998), Some(Overhead::Tenth));
    assert_eq!(look(0, 9_999), None);
    assert_eq!(look(9_999, 10_000), None, "and begins at as much as before");
    assert_eq!(look(10_000, 10_001), Some(Overhead::Tenth));
    assert_eq!(choice.update(&VideoPath { loss: None, ..path(0, 0) }, at(10_002)), None);
    assert_eq!(choice.update(&path(9_999, 10_003), at(10_003)), None);
}
