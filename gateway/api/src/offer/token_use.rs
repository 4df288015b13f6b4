//! Tokens of clients that may open several sessions.

use data_encoding::HEXLOWER;
use evenkeel_config::token::TokenClaims;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_control::{TOKEN_KEY, TokenOffer};
use evenkeel_model::SessionId;
use evenkeel_process::sha256;

use crate::context::ApiContext;
use crate::error::ApiError;

/// The field that an error about a token's sessions names.
pub(crate) const TOKEN_FIELD: &str = "token";

/// Bytes of the digest that tells the offers of a token apart.
const DIGEST_BYTES: usize = 8;

/// The sessions that a token may open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenUse {
    /// One.
    Once,
    /// One at a time: a new one ends the one before.
    Reuse,
    /// This many at the same time.
    AtMost(u32),
}

impl TokenUse {
    fn of(claims: &TokenClaims) -> TokenUse {
        match claims.sessions {
            _ if claims.reuse => TokenUse::Reuse,
            Some(sessions) => TokenUse::AtMost(sessions),
            None => TokenUse::Once,
        }
    }

    /// The idempotency key of an offer: `token:ID`, or `token:ID USE DIGEST` for a token that may open several sessions.
    pub(crate) fn key(claims: &TokenClaims, offer: &[u8]) -> String {
        let id = &claims.id;
        let digest = || HEXLOWER.encode(&sha256(offer)[..DIGEST_BYTES]);
        match TokenUse::of(claims) {
            TokenUse::Once => format!("{TOKEN_KEY}{id}"),
            TokenUse::Reuse => format!("{TOKEN_KEY}{id} reuse {}", digest()),
            TokenUse::AtMost(sessions) => format!("{TOKEN_KEY}{id} {sessions} {}", digest()),
        }
    }

    /// As an idempotency key says it.
    pub(crate) fn of_key(key: &str) -> TokenUse {
        let mut words = key.strip_prefix(TOKEN_KEY).unwrap_or_default().split(' ').skip(1);
        match words.next() {
            None => TokenUse::Once,
            Some("reuse") => TokenUse::Reuse,
            Some(sessions) => sessions.parse().map_or(TokenUse::Once, TokenUse::AtMost),
        }
    }
}

impl ApiContext {
    /// Checks that the token of this key may open one more session. Offers that came before and are not answered yet count.
    pub(crate) async fn require_session(&self, key: &str, token: TokenUse) -> Result<(), ApiError> {
        let TokenUse::AtMost(most) = token else { return Ok(()) };
        let mut open = 0;
        for TokenOffer { key: other, session, is_newer, may_have_ended } in
            self.seen.others_of_token(key)
        {
            match session {
                Some(session) if may_have_ended && self.has_ended(session).await => {
                    self.seen.forget(&other, session);
                }
                None if is_newer => {}
                _ => open += 1,
            }
        }
        if open < most as usize {
            return Ok(());
        }
        let message = format!("the token has {open} sessions, and allows {most}");
        Err(ApiError { code: ErrorCode::Conflict, ..ApiError::field(TOKEN_FIELD, message) })
    }

    /// Ends the other sessions of this key's token once its own is open, or its own if a later offer has opened one.
    pub(crate) async fn end_replaced(&self, key: &str, own: SessionId) {
        let others = self.seen.others_of_token(key);
        let is_replaced = others.iter().any(|other| other.is_newer && other.session.is_some());
        let opened = others.into_iter().filter_map(|other| Some((other.key, other.session?)));
        let ended: Vec<(Box<str>, SessionId)> =
            if is_replaced { vec![(key.into(), own)] } else { opened.collect() };
        for (key, session) in ended {
            // It may have ended meanwhile.
            let _ = self.handle.close(session).await;
            self.seen.forget(&key, session);
        }
    }

    async fn has_ended(&self, session: SessionId) -> bool {
        self.handle.session(session).await.is_ok_and(|view| view.is_none())
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_config::token::ClientDirection;

    use super::*;

    #[test]
    fn key_says_how_the_token_may_be_used() {
        let mut claims = TokenClaims {
            scenario: "live".into(),
            room: "stage".into(),
            direction: ClientDirection::Publish,
            labels: [].into(),
            latency: None,
            id: "id-1".into(),
            reuse: false,
            sessions: None,
        };
        assert_eq!(TokenUse::key(&claims, b"offer"), "token:id-1");
        claims.sessions = Some(3);
        let key = TokenUse::key(&claims, b"offer");
        assert!(key.starts_with("token:id-1 3 "), "{key}");
        assert_eq!(TokenUse::of_key(&key), TokenUse::AtMost(3));
        (claims.sessions, claims.reuse) = (None, true);
        let keys = [b"offer", b"other"].map(|offer| TokenUse::key(&claims, offer));
        assert_eq!(keys.each_ref().map(|key| TokenUse::of_key(key)), [TokenUse::Reuse; 2]);
        assert_ne!(keys[0], keys[1]);
        for key in ["token:id-1", "id reuse x", ""] {
            assert_eq!(TokenUse::of_key(key), TokenUse::Once, "{key}");
        }
    }
}
