//! Errors: each is one sentence for the client, without keys.

use evenkeel_media::srtp::SrtpKeyError;

use crate::SDP_BYTES_MAX;

/// Length limit of an offer's text that an error repeats, in characters.
const EXCERPT_CHARS_MAX: usize = 80;

/// The reason for which an offer or fragment gets no answer. Each is the client's fault: a status of 4xx.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SdpError {
    /// More than [`SDP_BYTES_MAX`] bytes.
    #[error("the SDP has {bytes} bytes, at most {max} are allowed", max = SDP_BYTES_MAX)]
    TooLong {
        /// The length of the text.
        bytes: usize,
    },
    /// A line violates the grammar of RFC 8866, section 9.
    #[error("the SDP violates the grammar of RFC 8866: {0}")]
    Grammar(String),
    /// More lines, or names in a line, than a limit of this crate.
    #[error("the SDP has {found} {of}, at most {max} are allowed")]
    TooMany {
        /// The number of them.
        found: usize,
        /// The limited lines or names.
        of: &'static str,
        /// The limit.
        max: usize,
    },
    /// An offer without m-lines.
    #[error("the offer has no m-line, expected one for each stream")]
    NoSections,
    /// The value of an attribute does not have the form that its RFC defines.
    #[error("a={attribute} has value `{value}`, expected {expected}")]
    Attribute {
        /// The name of the attribute.
        attribute: &'static str,
        /// The first characters of the value.
        value: String,
        /// The form that the value should have.
        expected: &'static str,
    },
    /// The attributes of ICE do not have the form of RFC 8839, section 5.4. Their values are not repeated.
    #[error(
        "a=ice-ufrag needs 4 to 256 and a=ice-pwd 22 to 256 letters, digits, + or /, and each needs the other"
    )]
    IceCredentials,
    /// Two m-lines have the same identification (RFC 5888, section 4).
    #[error("a=mid:{0} is on more than one m-line, expected another value on each")]
    DuplicateMid(String),
    /// Both sides would be ICE-lite, and no side would check the other (RFC 8445, section 6.1.1).
    #[error("the offer has a=ice-lite, as the gateway: a full ICE agent is needed")]
    IceLite,
    /// No m-line can be accepted.
    #[error("no m-line of the offer is acceptable; one is rejected because {0}")]
    NothingAccepted(Rejection),
}

impl SdpError {
    /// Checks a limit.
    pub(crate) fn require_at_most(
        max: usize,
        of: &'static str,
        found: usize,
    ) -> Result<(), SdpError> {
        if found > max { Err(SdpError::TooMany { found, of, max }) } else { Ok(()) }
    }

    /// The value of an attribute does not have the expected form.
    pub(crate) fn attribute(attribute: &'static str, value: &str, expected: &'static str) -> Self {
        SdpError::Attribute { attribute, value: excerpt(value), expected }
    }
}

/// The reason for which an m-line is answered with port 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// The client removed the m-line (RFC 3264, section 8.2).
    #[error("it has port 0, which removes it")]
    Removed,
    /// Neither audio nor video, such as `m=application` of a data channel.
    #[error("m={0} is neither audio nor video")]
    Kind(String),
    /// The profile has no SRTP.
    #[error(
        "its profile is {0}, expected UDP/TLS/RTP/SAVPF with a=fingerprint or RTP/SAVP with a=crypto"
    )]
    Profile(String),
    /// Outside the first BUNDLE group, or beside an accepted m-line without such a group: it would need a second transport.
    #[error("it is outside the first BUNDLE group")]
    NotBundled,
    /// RTCP would need a second address, which the client or the gateway lacks.
    #[error("it lacks a=rtcp-mux, and {0}")]
    RtcpNotMuxed(&'static str),
    /// No fingerprint of a certificate by a hash function that is not broken.
    #[error("it lacks a=fingerprint by sha-256, sha-384 or sha-512")]
    NoFingerprint,
    /// No credentials of ICE, without which DTLS packets of strangers would be answered.
    #[error("it lacks a=ice-ufrag and a=ice-pwd")]
    NoIce,
    /// The client would be the DTLS server as well.
    #[error("it has a=setup:{0}, expected actpass or active, as the gateway is passive")]
    Setup(&'static str),
    /// Neither a certificate nor `a=crypto`, in a profile that permits both.
    #[error("it has neither a=crypto nor a=fingerprint by sha-256, sha-384 or sha-512")]
    NoKeys,
    /// None of the `a=crypto` lines is acceptable; the reason for the first one of a known suite.
    #[error("none of its a=crypto lines is acceptable: {0}")]
    Crypto(SrtpKeyError),
    /// No ICE, and no address either.
    #[error("it has neither ICE nor an IP address in c= with a port")]
    NoAddress,
    /// No codec that the gateway supports, or none with a payload type that has no other meaning in the session.
    #[error(
        "none of its codecs ({0}) is accepted: Opus, PCMU, PCMA, VP8, VP9, H264 and AV1 are, with unambiguous payload types"
    )]
    NoCodec(String),
}

/// Returns the first characters of a client's text, control characters replaced.
pub(crate) fn excerpt(text: &str) -> String {
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut chars = text.chars().map(plain);
    let mut start: String = chars.by_ref().take(EXCERPT_CHARS_MAX).collect();
    if chars.next().is_some() {
        start.push('…');
    }
    start
}
