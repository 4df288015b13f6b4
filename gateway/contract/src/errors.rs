//! Errors.

use std::net::SocketAddr;
use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;

/// The body of an answer with an error status.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ErrorAnswer {
    /// The error.
    pub error: ErrorFacts,
}

/// An error.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct ErrorFacts {
    /// The name of an [`ErrorCode`].
    pub code: Word,
    /// The invalid value, and what is expected.
    pub message: String,
    /// The part of the request: `media[0].payload_types`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The time after which the request may be repeated. The header `retry-after` has it in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The names of the members of the group that has the offered room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The gateway of that group to which the offer belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Arc<str>>,
    /// The address of its API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<SocketAddr>,
    /// The log has the reason by this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The kind of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorCode {
    /// The request is malformed, or contains a name that cannot exist.
    BadRequest,
    /// Denied by a policy or rule; 429 with a retry time.
    Refused,
    /// No capacity.
    Full,
    /// The gateway is shutting down.
    Draining,
    /// The first policies are still being compiled.
    Starting,
    /// Another gateway of the group owns the addresses.
    Standby,
    /// The path, or the name in it, is unknown.
    NotFound,
    /// Conflicts with the current state.
    Conflict,
    /// Temporarily impossible.
    Unavailable,
    /// Executed, but a takeover or a restart may forget it; or accepted, and not done yet.
    Unconfirmed,
    /// Missing or wrong token.
    Unauthorized,
    /// The body is too large.
    TooLarge,
    /// The path has other methods.
    MethodNotAllowed,
    /// The client takes no answer in SDP.
    NotAcceptable,
    /// The request is about an earlier state.
    PreconditionFailed,
    /// The body has another type.
    UnsupportedMediaType,
    /// The request lacks `If-Match`.
    PreconditionRequired,
}

impl ErrorCode {
    /// All codes.
    pub const ALL: [ErrorCode; 17] = [
        ErrorCode::BadRequest,
        ErrorCode::Refused,
        ErrorCode::Full,
        ErrorCode::Draining,
        ErrorCode::Starting,
        ErrorCode::Standby,
        ErrorCode::NotFound,
        ErrorCode::Conflict,
        ErrorCode::Unavailable,
        ErrorCode::Unconfirmed,
        ErrorCode::Unauthorized,
        ErrorCode::TooLarge,
        ErrorCode::MethodNotAllowed,
        ErrorCode::NotAcceptable,
        ErrorCode::PreconditionFailed,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::PreconditionRequired,
    ];

    /// The code of this name; `None` for one of a later version.
    pub fn of(name: &str) -> Option<ErrorCode> {
        ErrorCode::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The `code` of an answer.
    pub fn name(self) -> &'static str {
        self.name_and_status().0
    }

    /// The status of an answer. An answer with [`ErrorCode::Refused`] and a retry time has 429.
    pub fn status(self) -> u16 {
        self.name_and_status().1
    }

    fn name_and_status(self) -> (&'static str, u16) {
        match self {
            ErrorCode::BadRequest => ("bad-request", 400),
            ErrorCode::Refused => ("refused", 403),
            ErrorCode::Full => ("full", 503),
            ErrorCode::Draining => ("draining", 503),
            ErrorCode::Starting => ("starting", 503),
            ErrorCode::Standby => ("standby", 503),
            ErrorCode::NotFound => ("not-found", 404),
            ErrorCode::Conflict => ("conflict", 409),
            ErrorCode::Unavailable => ("unavailable", 503),
            ErrorCode::Unconfirmed => ("unconfirmed", 503),
            ErrorCode::Unauthorized => ("unauthorized", 401),
            ErrorCode::TooLarge => ("too-large", 413),
            ErrorCode::MethodNotAllowed => ("method-not-allowed", 405),
            ErrorCode::NotAcceptable => ("not-acceptable", 406),
            ErrorCode::PreconditionFailed => ("precondition-failed", 412),
            ErrorCode::UnsupportedMediaType => ("unsupported-media-type", 415),
            ErrorCode::PreconditionRequired => ("precondition-required", 428),
        }
    }
}
