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
pub(super) struct ApiError {
    pub(super) code: ApiErrorCode,
    /// The invalid value, and what is expected.
    pub(super) message: String,
    /// The part of the request: `media[0].payload_types`.
    pub(super) field: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ApiErrorCode {
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

impl ApiErrorCode {
    pub(super) fn name(self) -> &'static str {
        match self {
            ApiErrorCode::BadRequest => "bad-request",
            ApiErrorCode::Refused => "refused",
            ApiErrorCode::Full => "full",
            ApiErrorCode::Draining => "draining",
            ApiErrorCode::Starting => "starting",
            ApiErrorCode::Standby => "standby",
            ApiErrorCode::NotFound => "not-found",
            ApiErrorCode::Conflict => "conflict",
            ApiErrorCode::Unavailable => "unavailable",
            ApiErrorCode::Unauthorized => "unauthorized",
            ApiErrorCode::TooLarge => "too-large",
            ApiErrorCode::MethodNotAllowed => "method-not-allowed",
        }
    }
}

impl ApiError {
    pub(super) fn new(code: ApiErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), field: None, retry_after: None }
    }

    pub(super) fn field(field: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { field: Some(field.into()), ..ApiError::new(ApiErrorCode::BadRequest, message) }
    }

    pub(super) fn retry_after(self, wait: Duration) -> ApiError {
        ApiError { retry_after: Some(wait), ..self }
    }

    /// `{"error": {"code", "message", "field", "retry_after_ms"}}`.
    pub(super) fn body(&self) -> Vec<u8> {
        let error = ErrorDetails {
            code: self.code.name(),
            message: &self.message,
            field: self.field.as_deref(),
            retry_after_ms: self.retry_after.map(|wait| wait.as_millis() as u64),
        };
        serde_json::to_vec(&ErrorBody { error }).expect("a reason is words and numbers")
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            ApiErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ApiErrorCode::Refused if self.retry_after.is_some() => StatusCode::TOO_MANY_REQUESTS,
            ApiErrorCode::Refused => StatusCode::FORBIDDEN,
            ApiErrorCode::NotFound => StatusCode::NOT_FOUND,
            ApiErrorCode::Conflict => StatusCode::CONFLICT,
            ApiErrorCode::Full
            | ApiErrorCode::Draining
            | ApiErrorCode::Starting
            | ApiErrorCode::Standby
            | ApiErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ApiErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ApiErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ApiErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetails<'a>,
}

#[derive(Serialize)]
struct ErrorDetails<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let headers = [(header::CONTENT_TYPE, json)];
        let mut response = (self.status(), headers, self.body()).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds(wait));
        }
        if self.code == ApiErrorCode::Unauthorized {
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
pub(super) fn strict<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed: Object<T> = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let message = error.inner().to_string();
        match field.as_str() {
            "." | "?" => ApiError::new(ApiErrorCode::BadRequest, message),
            _ => ApiError::field(field, message),
        }
    })?;
    reader.end().map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.to_string()))?;
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
