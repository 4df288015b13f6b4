//! Time and allocations of a packet from a client to its node, without sockets.

use std::time::Instant;

use evenkeel_instructions::{PIECES, Piece};

use crate::allocations;

/// Windows of a timing, and repetitions of the step in each window.
const WINDOWS: usize = 15;
const TIMED: u32 = 100_000;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Forward {
    /// Nanoseconds, the median of windows.
    pub(crate) ns: f64,
    pub(crate) allocations: f64,
}

pub(crate) fn measure() -> Forward {
    let mut act = PIECES[0].prepare();
    (0..Piece::WARM).for_each(|_| act());
    let before = allocations::so_far();
    let mut windows: Vec<f64> = (0..WINDOWS)
        .map(|_| {
            let began = Instant::now();
            (0..TIMED).for_each(|_| act());
            began.elapsed().as_nanos() as f64 / f64::from(TIMED)
        })
        .collect();
    // The list of windows is one allocation.
    let allocated = (allocations::so_far() - before).saturating_sub(1);
    windows.sort_by(f64::total_cmp);
    let done = f64::from(TIMED) * WINDOWS as f64;
    Forward { ns: windows[WINDOWS / 2], allocations: allocated as f64 / done }
}
