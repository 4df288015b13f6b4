//! Advice to the user of a session.

use crate::diagnosis::PathSegment;

crate::named! {
    /// Advice to the user of a session, the mildest first.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum AdviceKind {
        /// The advice before holds no more.
        Restored = "restored",
        /// Send and watch with a lower resolution or bit rate.
        LowerQuality = "lower-quality",
        /// Go on with voice.
        AudioOnly = "audio-only",
        /// Use another network, such as Wi-Fi instead of a mobile one.
        SwitchNetwork = "switch-network",
        /// Wait: a policy suspended the session (`park`).
        Suspended = "suspended",
    }
}

/// Advice, with the segment of the session's path that is the reason for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advice {
    pub kind: AdviceKind,
    /// The client's uplink or downlink, the leg, or the node; unknown at most for a suspended session.
    pub cause: PathSegment,
}
