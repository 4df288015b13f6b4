//! URLs of sessions, which clients cannot guess.

use data_encoding::HEXLOWER;
use evenkeel_model::SessionId;
use evenkeel_process::sha256;
use ring::hmac;

use super::endpoint::{Endpoint, protocol};
use crate::request::session_id;

/// Bytes of a code, of those of the hash.
const CODE_BYTES: usize = 16;

/// Returns the last segment of the URL of a session, `s17-CODE`. The code proves that the gateway made the URL: it follows from the id
/// of the session's trace, which all processes have that continue the session, and no client.
pub(super) fn segment(id: SessionId, trace_id: &str, endpoint: &Endpoint) -> String {
    let Endpoint { direction, scenario, room } = endpoint;
    let id = id.to_string();
    let mut context =
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, trace_id.as_bytes()));
    for part in [&id, protocol(*direction), scenario, room] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let code = HEXLOWER.encode(&context.sign().as_ref()[..CODE_BYTES]);
    format!("{id}-{code}")
}

/// Reads the session in a segment. Its code is [checked](proves) later.
pub(super) fn session_in(segment: &str) -> Option<SessionId> {
    let (id, _code) = segment.split_once('-')?;
    session_id(id).ok()
}

/// Returns true if this is the segment of the session. The time to compare digests reveals nothing about the code.
pub(super) fn proves(found: &str, id: SessionId, trace_id: &str, endpoint: &Endpoint) -> bool {
    sha256(found.as_bytes()) == sha256(segment(id, trace_id, endpoint).as_bytes())
}

#[cfg(test)]
mod tests;
