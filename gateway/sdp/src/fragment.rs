//! Fragments of descriptions for trickle ICE (RFC 8840), which WHIP and WHEP send by `PATCH` (RFC 9725, section 4.3).

use std::net::SocketAddr;

use zeroize::Zeroizing;

use crate::SDP_BYTES_MAX;
use crate::answer::{SecretText, write_candidates, write_ice};
use crate::description::Description;
use crate::error::SdpError;
use crate::ice::IceCredentials;

/// The line that a description has and a fragment lacks.
const VERSION_LINE: &[u8] = b"v=0\n";

/// A body of type `application/trickle-ice-sdpfrag`, with the line that a description has and it lacks.
pub struct SdpFragment(Zeroizing<Vec<u8>>);

impl SdpFragment {
    /// Copies the body.
    ///
    /// # Errors
    /// If it is longer than [`SDP_BYTES_MAX`].
    pub fn new(text: &[u8]) -> Result<SdpFragment, SdpError> {
        if text.len() > SDP_BYTES_MAX - VERSION_LINE.len() {
            return Err(SdpError::TooLong { bytes: text.len() });
        }
        let mut whole = Zeroizing::new(Vec::with_capacity(VERSION_LINE.len() + text.len()));
        whole.extend_from_slice(VERSION_LINE);
        whole.extend_from_slice(text);
        Ok(SdpFragment(whole))
    }

    /// Reads the credentials: those of the session, or new ones for an ICE restart.
    ///
    /// # Errors
    /// If the body violates the grammar of RFC 8840, section 9, has too many m-lines or candidates, or has malformed credentials.
    pub fn credentials(&self) -> Result<Option<IceCredentials>, SdpError> {
        IceCredentials::read(self.parse()?.levels())
    }

    /// Writes the response to a restart of ICE (RFC 9725, section 4.3.3): the gateway's credentials and candidates, for the m-line with
    /// the transport.
    ///
    /// # Errors
    /// As [`SdpFragment::credentials`].
    pub fn restart(
        &self,
        ice: &IceCredentials,
        addresses: &[SocketAddr],
    ) -> Result<SecretText, SdpError> {
        let description = self.parse()?;
        let mut answer = SecretText::default();
        write_ice(&mut answer, ice);
        if let Some(group) = description.session().1.values("group").next() {
            answer.line(format_args!("a=group:{group}"));
        }
        if let Some((media, own)) = description.sections().next() {
            answer.line(format_args!("m={} 9 {} {}", media.media, media.proto, media.fmt));
            if let Some(mid) = own.values("mid").next() {
                answer.line(format_args!("a=mid:{mid}"));
            }
        }
        write_candidates(&mut answer, addresses);
        Ok(answer)
    }

    fn parse(&self) -> Result<Description<'_>, SdpError> {
        Description::parse(&self.0).map_err(|error| match error {
            SdpError::Grammar(text) => {
                SdpError::Grammar(format!("{text}, where line 1 is the v= that a fragment lacks"))
            }
            error => error,
        })
    }
}

#[cfg(test)]
mod tests;
