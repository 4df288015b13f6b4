//! Error answers of the API: JSON with what was found and what is expected.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Error {
    pub(super) code: Code,
    /// The invalid value, and what is expected.
    pub(super) message: String,
    /// The part of the request: `media[0].payload_types`.
    pub(super) field: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Code {
    /// 400: the request is malformed, or contains a name that cannot exist.
    BadRequest,
    /// 403: denied by a policy or rule; 429 with a retry time.
    Refused,
    /// 503: no capacity.
    Full,
    /// 503: the gateway is shutting down.
    Draining,
    /// 503: the first policies are still being compiled.
    Starting,
    /// 503: another gateway of the group owns the addresses.
    Standby,
    NotFound,
    /// 409: conflicts with the current state.
    Conflict,
    /// 503: temporarily impossible.
    Unavailable,
    /// 401: missing or wrong token.
    Unauthorized,
    TooLarge,
    MethodNotAllowed,
}

impl Code {
    pub(super) fn name(self) -> &'static str {
        match self {
            Code::BadRequest => "bad-request",
            Code::Refused => "refused",
            Code::Full => "full",
            Code::Draining => "draining",
            Code::Starting => "starting",
            Code::Standby => "standby",
            Code::NotFound => "not-found",
            Code::Conflict => "conflict",
            Code::Unavailable => "unavailable",
            Code::Unauthorized => "unauthorized",
            Code::TooLarge => "too-large",
            Code::MethodNotAllowed => "method-not-allowed",
        }
    }
}

impl Error {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), field: None, retry_after: None }
    }

    pub(super) fn field(field: impl Into<String>, message: impl Into<String>) -> Error {
        Error { field: Some(field.into()), ..Error::new(Code::BadRequest, message) }
    }

    pub(super) fn retry_after(self, wait: Duration) -> Error {
        Error { retry_after: Some(wait), ..self }
    }

    /// `{"error": {"code", "message", "field", "retry_after_ms"}}`.
    pub(super) fn body(&self) -> Vec<u8> {
        let error = Inner {
            code: self.code.name(),
            message: &self.message,
            field: self.field.as_deref(),
            retry_after_ms: self.retry_after.map(|wait| wait.as_millis() as u64),
        };
        serde_json::to_vec(&Body { error }).expect("a reason is words and numbers")
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::Refused if self.retry_after.is_some() => StatusCode::TOO_MANY_REQUESTS,
            Code::Refused => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Conflict => StatusCode::CONFLICT,
            Code::Full | Code::Draining | Code::Starting | Code::Standby | Code::Unavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let headers = [(header::CONTENT_TYPE, json)];
        let mut response = (self.status(), headers, self.body()).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
        }
        if self.code == Code::Unauthorized {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// Whole seconds, rounded up (RFC 9110, section 10.2.3).
pub(super) fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs_f64().ceil() as u64)
}

/// Parses a JSON object; an error names the field, what was found and what is expected. A list of field values is
/// refused, although serde would accept it.
pub(super) fn strict<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed: Object<T> = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let message = error.inner().to_string();
        match field.as_str() {
            "." | "?" => Error::new(Code::BadRequest, message),
            _ => Error::field(field, message),
        }
    })?;
    reader.end().map_err(|error| Error::new(Code::BadRequest, error.to_string()))?;
    Ok(parsed.0)
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData)).map(Object)
    }
}
