//! The R-factor of voice (ITU-T G.107) while the losses of a path change.

use std::ops::Range;

use evenkeel_media::loss::Bursts;
use evenkeel_media::quality::{self, Codec, HeardLoss};
use evenkeel_report::AcceptanceRow;

use super::losses::{LossPlan, distances};
use super::path::ONE_WAY;
use super::row::{FRAMES_APART, LATENCY, set_figure};

/// Packets of a rating: those of 5 s.
const WINDOW: usize = 250;

/// Ratings of the judged voice packets, one for each 5 s.
pub(super) fn ratings(judged: &Range<usize>, is_lost: impl Fn(usize) -> bool) -> Vec<f64> {
    let windows = judged.clone().step_by(WINDOW);
    windows.map(|first| rating(first..judged.end.min(first + WINDOW), &is_lost)).collect()
}

fn rating(packets: Range<usize>, is_lost: impl Fn(usize) -> bool) -> f64 {
    let count = packets.len() as u64;
    let (mut lost, mut runs, mut was_lost) = (0, 0, false);
    for number in packets {
        let is_missing = is_lost(number);
        lost += u64::from(is_missing);
        runs += u64::from(is_missing && !was_lost);
        was_lost = is_missing;
    }
    let ppm = (lost * 1_000_000 / count.max(1)) as u32;
    let mut bursts = Bursts::default();
    bursts.add(lost, runs);
    let heard = HeardLoss { ppm, burst_ratio: bursts.ratio(ppm) };
    f64::from(quality::r_factor(ONE_WAY + LATENCY, heard, Codec::Opus)) / 100.0
}

/// The least of the ratings over time, each the mean of the sessions: one session loses too few packets in 5 s for a share of its own.
pub(super) fn least(sessions: &[Vec<f64>]) -> f64 {
    let windows = sessions.iter().map(Vec::len).min().unwrap_or(0);
    let mean = |window: usize| {
        sessions.iter().map(|ratings| ratings[window]).sum::<f64>() / sessions.len() as f64
    };
    (0..windows).map(mean).fold(f64::NAN, f64::min)
}

/// The ratings of voice whose frames are repeated twice at the best distances.
pub(super) fn best_ratings(plan: &LossPlan, judged: &Range<usize>) -> Vec<f64> {
    let all = distances(FRAMES_APART)
        .map(|later| ratings(judged, |number| plan.loses_repeated(number, later)));
    let least = |ratings: &Vec<f64>| ratings.iter().copied().fold(f64::INFINITY, f64::min);
    all.max_by(|one, other| least(one).total_cmp(&least(other))).unwrap_or_default()
}

/// Sets the least rating of sessions, and its spread.
pub(super) fn set_rating(row: &mut AcceptanceRow, name: &str, sessions: &[Vec<f64>]) {
    let each: Vec<f64> =
        sessions.iter().map(|ratings| least(std::slice::from_ref(ratings))).collect();
    set_figure(row, name, least(sessions), &each);
}

#[cfg(test)]
mod tests {
    use super::super::row::Medium;
    use super::*;

    #[test]
    fn rating_falls_with_loss_and_its_bursts() {
        let judged = 500..500 + 2 * WINDOW;
        let of = |is_lost: &dyn Fn(usize) -> bool| ratings(&judged, is_lost);
        let clean = of(&|_| false);
        assert_eq!(clean.len(), 2);
        assert!((clean[0] - 89.84).abs() < 0.01, "{clean:?}");
        // 95 × 10 ÷ (10 + 25.1), with a burst ratio of 1.
        let single = of(&|number| number.is_multiple_of(10));
        assert!((single[0] - (89.84 - 27.07)).abs() < 0.05, "{single:?}");
        let bursts = of(&|number| number % 30 < 3);
        assert!(bursts[0] < single[0], "{bursts:?}");
        let later = of(&|number| number >= 500 + WINDOW && number.is_multiple_of(10));
        assert_eq!(later, [clean[0], single[1]]);
    }

    #[test]
    fn least_rating_is_that_of_all_sessions_at_one_time() {
        assert_eq!(least(&[vec![90.0, 70.0, 80.0], vec![60.0, 90.0, 72.0]]), 75.0);
        assert!(least(&[]).is_nan());
    }

    #[test]
    fn windows_are_those_of_voice() {
        assert_eq!(WINDOW, 5 * Medium::Voice.frames_per_second());
    }
}
