//! The encryption of streams towards the client.

use serde::{Deserialize, Serialize};

/// The encryption of a stream, and the end of its SRTP.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Protection {
    /// Plain RTP and RTCP, which may be rewritten.
    Clear,
    /// SRTP and SRTCP with keys held elsewhere: a change would break their authentication, so all
    /// packets pass untouched.
    Srtp,
    /// Plain RTP and RTCP, which this gateway encrypts for the client afterwards. No number is used
    /// twice, and none far from the highest one: a source that restarts is a new sender of its
    /// stream.
    Terminated,
}
