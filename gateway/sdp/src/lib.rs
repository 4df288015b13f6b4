//! SDP offers of browsers, WebRTC libraries and phones, and the gateway's answers (RFC 8866, RFC 3264, RFC 8829).
//!
//! Text in, text and tables out: no I/O, no clock. Random numbers come from the caller.
//!
//! 1. [`SdpOffer::parse`] reads an offer. A malformed line that decides about media or security is an error. A malformed
//!    optional line (`extmap`, `rid`, `ssrc`, `rtcp-fb`) counts as absent, and unknown lines are ignored (RFC 8866, section 5.13).
//! 2. [`SdpOffer::negotiate`] chooses what the gateway accepts, before the session exists. Its [`Negotiation`] holds the keys and ICE
//!    credentials of the client, the accepted streams, and the tables between the client's and the rooms' payload types and ids of header
//!    extensions.
//! 3. [`SdpOffer::answer`] writes the answer, with the addresses, ICE credentials and streams of the gateway.
//! 4. [`SdpFragment::credentials`] reads the body of a WHIP or WHEP `PATCH`; [`SdpFragment::restart`] writes the
//!    response to an ICE restart.
//!
//! A session has one transport: one BUNDLE group (RFC 9143) or a single m-line. An m-line that the gateway does not support is answered
//! with port 0, and the [`Rejection`] says why. An offer of which no m-line is acceptable is an [`SdpError`] of one sentence.
//!
//! Candidates of clients are counted and not read: an ICE-lite agent sends no checks (RFC 8445, section 6.2), and learns the client's
//! addresses from those of the client.
//!
//! Keys, passwords and texts that contain them are absent from `Debug` and from errors, and wiped when dropped. The offer's text belongs
//! to the caller, which wipes it.

mod answer;
mod codec;
mod description;
mod error;
mod extensions;
mod fragment;
mod ice;
mod negotiation;
mod offer;
mod section;
#[cfg(test)]
mod tests;

pub use answer::{LocalTransport, SecretText, SentStream};
pub use codec::{Codec, CodecKind, Format, H264Profile};
pub use error::{Rejection, SdpError};
pub use extensions::EXTENSION_URIS;
pub use fragment::SdpFragment;
pub use ice::IceCredentials;
pub use negotiation::{
    AcceptedMedia, AnswerPolicy, Keying, NegotiatedSection, Negotiation, PeerPath, PeerTransport,
};
pub use offer::SdpOffer;
pub use sdp_types::Direction;
pub use section::{FeedbackSet, HeaderExtension, MediaFormat, MediaSource, SimulcastLayer};

/// Length limit of an offer or fragment: an offer of a browser has up to 4 KiB per m-line.
pub const SDP_BYTES_MAX: usize = 64 * 1024;

/// Limit of lines. Offers of browsers have about 40 bytes per line, and this allows 16.
pub const LINES_MAX: usize = SDP_BYTES_MAX / 16;

/// Limit of m-lines, removed ones included.
pub const SECTIONS_MAX: usize = 64;

/// Limit of a client's candidates in an offer or fragment: browsers send one per address, protocol and m-line.
pub const CANDIDATES_MAX: usize = 256;

/// Limit of `a=fingerprint` lines at the session level, or of an m-line: a certificate has one per hash function.
pub const FINGERPRINTS_MAX: usize = 16;

/// Limit of `a=crypto` lines of an m-line; phones offer up to eight.
pub const CRYPTO_MAX: usize = 16;

/// Limit of the synchronisation sources that an m-line announces; later ones are dropped, and are learned from packets.
pub const SOURCES_MAX: usize = 32;

/// Limit of the simulcast layers of an m-line; later ones are not accepted. Browsers send up to three.
pub const LAYERS_MAX: usize = 4;
