//! The share of frames that other codes would have left broken, of the packets and the parity that a path lost. Parity of a frame follows its last
//! packet.

use std::ops::Range;

use super::losses::{LossPlan, percent_of};

/// Frames before and after one whose losses may decide about it: those of two windows of three frames.
const NEAR: usize = 6;

/// A prime below 2^31, so that products fit into 64 bits.
const PRIME: u64 = (1 << 31) - 1;

/// Each parity packet is the sum of the packets of one group. Groups are disjoint, and interleaved over this many frames.
pub(super) fn left_by_disjoint_masks(
    plan: &LossPlan,
    judged: &Range<usize>,
    frames: usize,
    parities: usize,
) -> f64 {
    let size = plan.frame_size();
    let (packets, groups) = (size * frames, parities * frames);
    percent_of(judged, size, |number| {
        let first = number / packets * packets;
        let group = (number - first) % groups;
        let mut others = (first + group..first + packets).step_by(groups);
        let last_frame = (first + packets - 1) / size;
        plan.loses(number, 0)
            && (plan.loses_parity(last_frame, group)
                || others.any(|other| other != number && plan.loses(other, 0)))
    })
}

/// The best block code of each frame alone: any of its packets, as many as it has without parity, give all.
pub(super) fn left_by_blocks(plan: &LossPlan, judged: &Range<usize>, parities: usize) -> f64 {
    let size = plan.frame_size();
    percent_of(judged, size, |number| {
        let frame = number / size;
        let packets = frame * size..(frame + 1) * size;
        let lost = packets.filter(|other| plan.loses(*other, 0)).count();
        plan.loses(number, 0) && lost > received_parities(plan, frame, parities)
    })
}

/// The packets of parity per frame with which a code leaves this share of frames. `left`: the shares with 0 packets, with one, and so on. At most as
/// many as it has.
pub(super) fn parities_for(share: f64, left: &[f64]) -> f64 {
    let last = left.len().saturating_sub(1) as f64;
    left.iter().position(|left| *left <= share).map_or(last, |enough| match enough {
        0 => 0.0,
        _ => {
            let (before, after) = (left[enough - 1], left[enough]);
            enough as f64 - (share - after) / (before - after)
        }
    })
}

/// The best code whose parity covers its own frame and those before it, `window` frames in all: equations with independent coefficients.
pub(super) fn left_by_windows(
    plan: &LossPlan,
    judged: &Range<usize>,
    window: usize,
    parities: usize,
) -> f64 {
    let size = plan.frame_size();
    percent_of(judged, size, |number| {
        if !plan.loses(number, 0) {
            return false;
        }
        let frame = number / size;
        let last = frame + window - 1;
        let unknown = frame.saturating_sub(NEAR) * size..(last + 1) * size;
        let unknown: Vec<usize> = unknown.filter(|other| plan.loses(*other, 0)).collect();
        let mut equations = Vec::new();
        for newest in frame.saturating_sub(NEAR - window)..=last {
            let covered = (newest + 1).saturating_sub(window) * size..(newest + 1) * size;
            let places = unknown.iter().enumerate().filter(|(_, it)| covered.contains(*it));
            let equation: Vec<usize> = places.map(|(place, _)| place).collect();
            let received = received_parities(plan, newest, parities);
            equations.extend(std::iter::repeat_n(equation, received));
        }
        let place = unknown.iter().position(|other| *other == number);
        place.is_none_or(|place| !determined(&equations, unknown.len())[place])
    })
}

fn received_parities(plan: &LossPlan, frame: usize, parities: usize) -> usize {
    (0..parities).filter(|place| !plan.loses_parity(frame, *place)).count()
}

/// The unknowns that linear equations with independent random coefficients determine. An equation is the list of its unknowns.
pub(super) fn determined(equations: &[Vec<usize>], unknowns: usize) -> Vec<bool> {
    let mut rows: Vec<Vec<u64>> = Vec::new();
    for (index, equation) in equations.iter().enumerate() {
        let mut row = vec![0; unknowns];
        equation.iter().for_each(|unknown| row[*unknown] = coefficient(index, *unknown));
        rows.push(row);
    }
    let mut solved = 0;
    for column in 0..unknowns {
        let Some(pivot) = (solved..rows.len()).find(|row| rows[*row][column] != 0) else {
            continue;
        };
        rows.swap(solved, pivot);
        let inverse = power(rows[solved][column], PRIME - 2);
        rows[solved].iter_mut().for_each(|value| *value = *value * inverse % PRIME);
        let pivot = rows[solved].clone();
        for (index, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if index != solved && factor != 0 {
                for (value, subtracted) in row.iter_mut().zip(&pivot) {
                    *value = (*value + (PRIME - factor) * subtracted) % PRIME;
                }
            }
        }
        solved += 1;
    }
    let mut determined = vec![false; unknowns];
    for row in &rows[..solved] {
        let mut places = (0..unknowns).filter(|place| row[*place] != 0);
        if let (Some(alone), None) = (places.next(), places.next()) {
            determined[alone] = true;
        }
    }
    determined
}

/// A number from 1 to the prime less one, as good as random (SplitMix64).
fn coefficient(equation: usize, unknown: usize) -> u64 {
    let seed = ((equation as u64) << 32 | unknown as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) % (PRIME - 1) + 1
}

fn power(base: u64, exponent: u64) -> u64 {
    let (mut base, mut exponent, mut power) = (base, exponent, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power * base % PRIME;
        }
        base = base * base % PRIME;
        exponent >>= 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::super::losses::Losses;
    use super::*;

    /// Frames of 12 packets, each followed by up to 12 parity packets.
    const JUDGED: Range<usize> = 1_200..61_200;

    fn plan(losses: Losses) -> LossPlan {
        LossPlan::with_parity(losses, 600..62_400, 5, 12, 12)
    }

    #[test]
    fn equations_determine_as_many_unknowns_as_they_are() {
        let solved = |equations: &[&[usize]], unknowns| {
            let equations: Vec<Vec<usize>> =
                equations.iter().map(|equation| equation.to_vec()).collect();
            determined(&equations, unknowns)
        };
        assert_eq!(solved(&[&[0]], 2), [true, false]);
        assert_eq!(solved(&[&[0, 1]], 2), [false, false]);
        assert_eq!(solved(&[&[0, 1], &[0, 1]], 2), [true, true]);
        assert_eq!(solved(&[&[0, 1], &[1, 2], &[1, 2]], 3), [true, true, true]);
        assert_eq!(solved(&[&[0, 1], &[0, 1, 2]], 3), [false, false, false]);
        assert_eq!(solved(&[&[0, 1], &[2]], 3), [false, false, true]);
        assert_eq!(solved(&[], 1), [false]);
        assert!(solved(&[], 0).is_empty());
    }

    #[test]
    fn codes_leave_the_shares_of_their_theory() {
        let plan = plan(Losses::random(5));
        let none = left_by_blocks(&plan, &JUDGED, 0);
        assert!((43.0..49.0).contains(&none), "1 − 0.95^12 is 46 %: {none}");
        let disjoint = left_by_disjoint_masks(&plan, &JUDGED, 1, 4);
        assert!((4.0..7.0).contains(&disjoint), "5.4 %: {disjoint}");
        let block = left_by_blocks(&plan, &JUDGED, 4);
        let windows = left_by_windows(&plan, &JUDGED, 3, 4);
        assert!(windows <= block && block < disjoint, "{windows}, {block}, {disjoint}");
    }

    #[test]
    fn parity_for_a_share_lies_between_whole_packets() {
        let left = [40.0, 20.0, 10.0, 10.0, 2.0];
        let parities = [50.0, 40.0, 30.0, 15.0, 10.0, 4.0, 1.0].map(|it| parities_for(it, &left));
        assert_eq!(parities, [0.0, 0.0, 0.5, 1.5, 2.0, 3.75, 4.0]);
        assert_eq!(parities_for(1.0, &[]), 0.0);
    }

    #[test]
    fn more_parity_leaves_less() {
        let plan = plan(Losses::bursts_of(3, 5));
        let left: Vec<f64> =
            (0..=12).map(|parities| left_by_blocks(&plan, &JUDGED, parities)).collect();
        assert!(left.is_sorted_by(|less, more| less >= more) && left[12] < left[0], "{left:?}");
        assert_eq!(left_by_windows(&plan, &JUDGED, 3, 0), left[0]);
        assert_eq!(left_by_windows(&plan, &JUDGED, 1, 2), left[2]);
    }
}
