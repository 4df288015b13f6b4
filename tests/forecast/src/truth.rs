//! Events of generated days, which forecasts should have announced, and the score of their warnings.

/// An event that a forecast should announce, in minutes from the start of the days.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TruthEvent {
    /// From here on a warning is right.
    pub(crate) from: usize,
    /// The event.
    pub(crate) at: usize,
    /// Until here a warning is late, but not false.
    pub(crate) until: usize,
}
