//! URLs of sessions, which clients cannot guess.

use data_encoding::HEXLOWER;
use evenkeel_control::SessionUrls;
use evenkeel_model::SessionId;
use evenkeel_process::sha256;

use super::endpoint::{Endpoint, protocol};
use crate::request::session_id;

/// Returns the last segment of the URL of a session, `s4k7mq2-17-CODE`. The code proves that the gateway, or another of its group, made the URL.
pub(super) fn segment(urls: &SessionUrls, id: SessionId, endpoint: &Endpoint) -> String {
    let Endpoint { direction, scenario, room } = endpoint;
    let id = id.to_string();
    let code = urls.code(&[&id, protocol(*direction), scenario, room]);
    format!("{id}-{}", HEXLOWER.encode(&code))
}

/// Returns the session if the gateway made the segment. The time to compare digests reveals nothing about the code.
pub(super) fn proved(urls: &SessionUrls, found: &str, endpoint: &Endpoint) -> Option<SessionId> {
    let (id, _code) = found.rsplit_once('-')?;
    let id = session_id(id).ok()?;
    let right = segment(urls, id, endpoint);
    (sha256(found.as_bytes()) == sha256(right.as_bytes())).then_some(id)
}

#[cfg(test)]
mod tests;
