//! Fragments of descriptions for trickle ICE (RFC 8840), which WHIP and WHEP send by `PATCH` (RFC 9725, section 4.3).

use zeroize::Zeroizing;

use crate::SDP_BYTES_MAX;
use crate::answer::{LocalTransport, SecretText, write_candidates, write_ice};
use crate::description::Description;
use crate::error::SdpError;
use crate::ice::IceCredentials;
use crate::negotiation::Negotiation;

/// The line that a description has and a fragment lacks.
const VERSION_LINE: &[u8] = b"v=0\n";

/// Reads the credentials in a body of type `application/trickle-ice-sdpfrag`: those of the session, or new ones for an ICE restart.
///
/// # Errors
/// If the body is longer than [`SDP_BYTES_MAX`], violates the grammar of RFC 8840, section 9, has too many m-lines or candidates, or has
/// malformed credentials.
pub fn fragment_credentials(text: &[u8]) -> Result<Option<IceCredentials>, SdpError> {
    if text.len() > SDP_BYTES_MAX - VERSION_LINE.len() {
        return Err(SdpError::TooLong { bytes: text.len() });
    }
    let mut whole = Zeroizing::new(Vec::with_capacity(VERSION_LINE.len() + text.len()));
    whole.extend_from_slice(VERSION_LINE);
    whole.extend_from_slice(text);
    let description = Description::parse(&whole).map_err(|error| match error {
        SdpError::Grammar(text) => {
            SdpError::Grammar(format!("{text}, where line 1 is the v= that a fragment lacks"))
        }
        error => error,
    })?;
    IceCredentials::read(description.levels())
}

impl Negotiation {
    /// Writes the response to an ICE restart (RFC 9725, section 4.3.3): the credentials and candidates of `local`.
    pub fn restart_fragment(&self, local: &LocalTransport<'_>) -> SecretText {
        let mut text = SecretText::default();
        write_ice(&mut text, local.ice);
        let mids: Vec<&str> = self.accepted().filter_map(|media| media.mid.as_deref()).collect();
        if !mids.is_empty() {
            text.line(format_args!("a=group:BUNDLE {}", mids.join(" ")));
        }
        if let Some(media) = self.accepted().next() {
            let (kind, number) = (media.kind.as_str(), media.formats[0].number);
            text.line(format_args!("m={kind} 9 UDP/TLS/RTP/SAVPF {number}"));
        }
        if let Some(mid) = mids.first() {
            text.line(format_args!("a=mid:{mid}"));
        }
        write_candidates(&mut text, local.addresses);
        text
    }
}

#[cfg(test)]
mod tests;
