//! The policing of clients that send more than they may.

crate::named! {
    /// The treatment of a client that sends more than it may, or the reason why nothing more is done.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub enum PolicingStep {
        /// It is told of the limit by REMB or TMMBR.
        Told = "told",
        /// Frames of its video are dropped before the node.
        Frames = "frames",
        /// Packets of its voice as well: voice alone is more than twice the ceiling.
        Voice = "voice",
        /// Its SRTP does not end at the gateway, which can neither read frames nor write RTCP.
        Encrypted = "encrypted",
        /// The frames of its codec are unknown to the gateway.
        UnknownCodec = "unknown-codec",
    }
}

/// The policing of a client at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policing {
    pub step: PolicingStep,
    /// The highest rate of its media, by the scenario's ceiling or a cap, in kbit/s.
    pub limit_kbps: u32,
    /// The rate of the last second, in kbit/s.
    pub sent_kbps: u32,
}
