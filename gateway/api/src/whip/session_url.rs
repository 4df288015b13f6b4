//! URLs of sessions, which clients cannot guess.

use data_encoding::HEXLOWER;
use evenkeel_model::SessionId;
use evenkeel_process::sha256;
use evenkeel_sdp::IceCredentials;
use ring::hmac;

use super::endpoint::{Endpoint, protocol};
use crate::request::session_id;

/// Bytes of a code, of those of the hash.
const CODE_BYTES: usize = 16;

/// The last segment of the URL of a session, `s17-TAG-CODE`. The tag stands for the ICE credentials of the client; the code proves that
/// the gateway made the URL.
///
/// Both follow from the id of the session's trace, which all processes have that continue the session, and no client.
pub(super) struct SessionUrl {
    pub(super) id: SessionId,
    tag: String,
}

impl SessionUrl {
    /// The URL of a session of a client with these credentials.
    pub(super) fn new(id: SessionId, trace_id: &str, ice: &IceCredentials) -> SessionUrl {
        SessionUrl { id, tag: tag(trace_id, id, ice) }
    }

    /// Reads a segment. Its code is [checked](SessionUrl::proves) later.
    pub(super) fn parse(segment: &str) -> Option<SessionUrl> {
        let mut parts = segment.split('-');
        let (id, tag, _code) = (parts.next()?, parts.next()?, parts.next()?);
        let id = session_id(id).ok().filter(|_| parts.next().is_none())?;
        Some(SessionUrl { id, tag: tag.to_owned() })
    }

    pub(super) fn segment(&self, trace_id: &str, endpoint: &Endpoint) -> String {
        let SessionUrl { id, tag } = self;
        let id = id.to_string();
        let Endpoint { direction, scenario, room } = endpoint;
        let code = code(trace_id, &["url", &id, tag, protocol(*direction), scenario, room]);
        format!("{id}-{tag}-{code}")
    }

    /// Returns true if this is the segment of the session. The time to compare digests reveals nothing about the code.
    pub(super) fn proves(&self, segment: &str, trace_id: &str, endpoint: &Endpoint) -> bool {
        sha256(segment.as_bytes()) == sha256(self.segment(trace_id, endpoint).as_bytes())
    }

    /// The strong entity tag of the ICE session (RFC 9725, section 4.3.1).
    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.tag)
    }

    /// Returns true if the client has these credentials since its offer.
    pub(super) fn is_of(&self, trace_id: &str, ice: &IceCredentials) -> bool {
        self.tag == tag(trace_id, self.id, ice)
    }
}

fn tag(trace_id: &str, id: SessionId, ice: &IceCredentials) -> String {
    code(trace_id, &["ice", &id.to_string(), &ice.ufrag, ice.password()])
}

fn code(trace_id: &str, parts: &[&str]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, trace_id.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    HEXLOWER.encode(&context.sign().as_ref()[..CODE_BYTES])
}

#[cfg(test)]
mod tests;
