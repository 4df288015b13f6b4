//! The claims of a token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::token::refusal::TokenRefusal;

/// Length limit of `jti` in bytes; a UUID has 36.
const ID_BYTES_MAX: usize = 120;

/// Limit of `sessions`.
const SESSIONS_MAX: u32 = 1_000;

/// The direction of a client's media.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientDirection {
    /// The client sends only, as by WHIP.
    Publish,
    /// The client receives only, as by WHEP.
    View,
}

/// The claims of a token. Claims that are not listed here are ignored, except `nbf`, which is checked, and `aud`, which is refused.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct TokenClaims {
    /// The scenario of the session.
    pub scenario: String,
    /// The room of the session.
    pub room: String,
    /// The direction of the session's media.
    pub direction: ClientDirection,
    /// The labels of the session. Default: none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The time for which the client's jitter buffer holds a packet: `120ms`. Default: that of offers.
    #[serde(default)]
    pub latency: Option<String>,
    /// `jti` (RFC 7519, section 4.1.7). 1 to 120 visible ASCII characters.
    #[serde(rename = "jti")]
    pub id: String,
    /// The token opens a session with each offer, which ends the one before: for an encoder with a fixed token. Default: false.
    #[serde(default)]
    pub reuse: bool,
    /// Number of sessions that the token may have at the same time, 1 to 1,000. Default: the token opens one session, once.
    #[serde(default)]
    pub sessions: Option<u32>,
}

impl TokenClaims {
    /// Checks that the token is for this direction, scenario and room.
    ///
    /// # Errors
    /// It is for another one.
    pub fn check(
        &self,
        direction: ClientDirection,
        scenario: &str,
        room: &str,
    ) -> Result<(), TokenRefusal> {
        if self.direction != direction {
            Err(TokenRefusal::Direction)
        } else if self.scenario != scenario {
            Err(TokenRefusal::Scenario)
        } else if self.room != room {
            Err(TokenRefusal::Room)
        } else {
            Ok(())
        }
    }

    pub(super) fn check_id(&self) -> Result<(), TokenRefusal> {
        let is_visible = self.id.bytes().all(|byte| byte.is_ascii_graphic());
        if is_visible && (1..=ID_BYTES_MAX).contains(&self.id.len()) {
            return Ok(());
        }
        let found = self.id.len();
        Err(TokenRefusal::Malformed(format!(
            "found `jti` with {found} bytes, expected 1 to {ID_BYTES_MAX} visible ASCII characters"
        )))
    }

    pub(super) fn check_sessions(&self) -> Result<(), TokenRefusal> {
        let wrong = match self.sessions {
            Some(_) if self.reuse => {
                "found `reuse` and `sessions`, expected one of them".to_owned()
            }
            Some(found) if !(1..=SESSIONS_MAX).contains(&found) => {
                format!("found `sessions` {found}, expected 1 to {SESSIONS_MAX}")
            }
            _ => return Ok(()),
        };
        Err(TokenRefusal::Malformed(wrong))
    }
}
