//! Reasons for which tokens are refused.

/// The reason for which a request is refused for its token. The text is for the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// No token.
    #[error("expected the header `authorization: Bearer` with a token")]
    Missing,
    /// No JSON Web Token, or one without the claims that the gateway needs.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// Another `alg` than that of the key, which is this.
    #[error(
        "the token is signed by another algorithm; expected `alg` {0}, by the key in `token_key_file`"
    )]
    Algorithm(&'static str),
    /// The signature is not that of the key.
    #[error("the token's signature is wrong; expected one by the key in `token_key_file`")]
    Signature,
    /// `exp` is past.
    #[error("the token has expired; expected a new token")]
    Expired,
    /// `nbf` is in the future.
    #[error("the token is not valid yet")]
    Early,
    /// For the other direction.
    #[error("the token is for the other direction: `publish` is for WHIP, `view` for WHEP")]
    Direction,
    /// For another scenario.
    #[error("the token is for another scenario")]
    Scenario,
    /// For another room.
    #[error("the token is for another room")]
    Room,
    /// The token opened a session with another offer.
    #[error("the token was used with another offer; expected a new token for each session")]
    Replayed,
    /// The token has as many sessions as its claim `sessions` allows.
    #[error("the token has as many sessions open as it allows; expected one of them to end")]
    Sessions,
    /// More offers than the rate that a token or a source may have.
    #[error("too many offers with this token or from this address; retry later")]
    Rate,
}

impl TokenRefusal {
    /// The names of all reasons, as in metrics.
    pub const NAMES: [&str; 12] = [
        "missing",
        "malformed",
        "algorithm",
        "signature",
        "expired",
        "early",
        "direction",
        "scenario",
        "room",
        "replayed",
        "rate",
        "sessions",
    ];

    /// The name, as in metrics.
    pub fn name(&self) -> &'static str {
        let place = match self {
            TokenRefusal::Missing => 0,
            TokenRefusal::Malformed(_) => 1,
            TokenRefusal::Algorithm(_) => 2,
            TokenRefusal::Signature => 3,
            TokenRefusal::Expired => 4,
            TokenRefusal::Early => 5,
            TokenRefusal::Direction => 6,
            TokenRefusal::Scenario => 7,
            TokenRefusal::Room => 8,
            TokenRefusal::Replayed => 9,
            TokenRefusal::Rate => 10,
            TokenRefusal::Sessions => 11,
        };
        TokenRefusal::NAMES[place]
    }
}
