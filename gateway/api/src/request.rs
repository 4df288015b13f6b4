//! Reads requests: bodies within a budget, strict JSON, queries and pages of lists, names and verbs in a path.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, header};
use evenkeel_config::read_duration;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::sessions::PageQuery;
use evenkeel_control::CallerSpan;
use evenkeel_host::BINARY_BYTES_MAX;
use evenkeel_model::{Hook, PolicyName, RoomId, SessionId};
use evenkeel_process::lock;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use tokio::sync::Notify;

use super::error::{ApiError, no_policy};

/// Maximum JSON body in bytes, twice the largest valid offer.
pub(super) const BODY_MAX: usize = 128 * 1_024;

/// Body of a push: a plugin, or JSON with a plugin in Base64, which adds a third, and with eight data documents of 1 MiB.
pub(super) const PUSH_BYTES_MAX: usize = 2 * BINARY_BYTES_MAX;

/// Timeout of the answer to a push. Commands and connections wait 10 s longer.
pub(super) const PUSHED_WITHIN: Duration = Duration::from_secs(50);

/// Retry time of a body for which there was no memory.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Default and maximum page size: about 1 MiB of sessions, which delay other answers by a few milliseconds.
const PAGE_MAX: usize = 2_000;

/// Bytes of bodies that are held at the same time. A body counts from its first byte until its request is answered.
/// If the budget is exhausted, the oldest body that is still arriving is refused.
pub(super) struct BodyBudget {
    bytes_max: usize,
    state: Mutex<BudgetState>,
}

#[derive(Default)]
struct BudgetState {
    bytes: usize,
    /// By age.
    shares: BTreeMap<u64, ArrivingBody>,
    ever: u64,
}

struct ArrivingBody {
    bytes: usize,
    /// Notified when the body gives way; `None` once it is complete.
    arriving: Option<Arc<Notify>>,
}

/// A body's part of the budget, returned when dropped.
pub(super) struct Share {
    budget: Arc<BodyBudget>,
    number: u64,
    displaced: Arc<Notify>,
}

impl BodyBudget {
    pub(super) fn new(bytes_max: usize) -> Arc<BodyBudget> {
        Arc::new(BodyBudget { bytes_max, state: Mutex::default() })
    }

    /// Reads a body of at most `most` bytes.
    pub(super) async fn read(
        self: &Arc<BodyBudget>,
        mut body: Body,
        most: usize,
    ) -> Result<(Vec<u8>, Share), ApiError> {
        let too_large =
            || ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {most} bytes"));
        let (share, mut bytes) = (self.share(), Vec::<u8>::new());
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = share.displaced.notified() => return Err(self.exhausted()),
            };
            let Some(frame) = frame else { break };
            let broken = |error| {
                ApiError::new(ErrorCode::BadRequest, format!("cannot read the body: {error}"))
            };
            // Trailers are ignored.
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > most {
                return Err(too_large());
            }
            let capacity = bytes.capacity();
            if length > capacity {
                let grown = length.max(2 * capacity).min(most);
                share.grow(grown - capacity)?;
                bytes.reserve_exact(grown - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        share.complete()?;
        Ok((bytes, share))
    }

    fn share(self: &Arc<BodyBudget>) -> Share {
        let displaced = Arc::new(Notify::new());
        let mut state = lock(&self.state);
        state.ever += 1;
        let number = state.ever;
        let entry = ArrivingBody { bytes: 0, arriving: Some(Arc::clone(&displaced)) };
        state.shares.insert(number, entry);
        Share { budget: Arc::clone(self), number, displaced }
    }

    fn exhausted(&self) -> ApiError {
        let mib = self.bytes_max >> 20;
        let message = format!("request bodies have reached their limit of {mib} MiB in all; retry");
        ApiError::new(ErrorCode::Unavailable, message).retry_after(RETRY_AFTER)
    }
}

impl BudgetState {
    fn end(&mut self, number: u64) -> Option<ArrivingBody> {
        let entry = self.shares.remove(&number)?;
        self.bytes -= entry.bytes;
        Some(entry)
    }
}

impl Share {
    /// Adds bytes to the share. Fails if this body gave way, or is the oldest that can.
    fn grow(&self, bytes: usize) -> Result<(), ApiError> {
        let mut state = lock(&self.budget.state);
        if !state.shares.contains_key(&self.number) {
            return Err(self.budget.exhausted());
        }
        while state.bytes + bytes > self.budget.bytes_max {
            let arriving = state.shares.iter().find(|(_, entry)| entry.arriving.is_some());
            let oldest = arriving.map(|(number, _)| *number).filter(|it| *it != self.number);
            let Some(entry) = oldest.and_then(|oldest| state.end(oldest)) else {
                return Err(self.budget.exhausted());
            };
            if let Some(displaced) = entry.arriving {
                displaced.notify_one();
            }
        }
        state.bytes += bytes;
        if let Some(entry) = state.shares.get_mut(&self.number) {
            entry.bytes += bytes;
        }
        Ok(())
    }

    /// Keeps the share until it is dropped. Fails if this body gave way before.
    fn complete(&self) -> Result<(), ApiError> {
        match lock(&self.budget.state).shares.get_mut(&self.number) {
            Some(entry) => {
                entry.arriving = None;
                Ok(())
            }
            None => Err(self.budget.exhausted()),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.budget.state).end(self.number);
    }
}

/// Parses a JSON object; an error names the field, what was found and what is expected. A list of field values is
/// refused, although serde would accept it.
pub(super) fn strict<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed: Object<T> = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let message = error.inner().to_string();
        match field.as_str() {
            "." | "?" => ApiError::new(ErrorCode::BadRequest, message),
            _ => ApiError::field(field, message),
        }
    })?;
    reader.end().map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
    Ok(parsed.0)
}

/// The token of a request (RFC 6750, section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
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

pub(super) struct Page<Id> {
    /// The last entry of the page before.
    pub(super) after: Id,
    limit: usize,
}

impl<Id> Page<Id> {
    pub(super) fn read(
        query: Result<Query<PageQuery>, QueryRejection>,
        first: Id,
        id: impl FnOnce(&str) -> Result<Id, ApiError>,
    ) -> Result<Page<Id>, ApiError> {
        let Query(PageQuery { after, limit }) =
            query.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
        let limit = limit.unwrap_or(PAGE_MAX);
        if limit == 0 || limit > PAGE_MAX {
            let message = format!("found {limit}, expected 1 to {PAGE_MAX}");
            return Err(ApiError::field("limit", message));
        }
        Ok(Page { after: after.as_deref().map(id).transpose()?.unwrap_or(first), limit })
    }

    /// The number of entries to ask for: one more than the page has, to know whether more follow.
    pub(super) fn wanted(&self) -> usize {
        self.limit + 1
    }

    /// Cuts the entries to the page. Returns the value of `after` for the next page, while more follow.
    pub(super) fn cut<T>(
        &self,
        entries: &mut Vec<T>,
        id: impl FnOnce(&T) -> String,
    ) -> Option<String> {
        let next = (entries.len() > self.limit).then(|| id(&entries[self.limit - 1]));
        entries.truncate(self.limit);
        next
    }
}

pub(super) fn read_deadline(text: &str) -> Result<Duration, ApiError> {
    read_duration(text).map_err(|wrong| ApiError::field("deadline", wrong))
}

pub(super) fn session_id(text: &str) -> Result<SessionId, ApiError> {
    SessionId::parse(text).ok_or_else(|| {
        let message = format!("there is no session `{text}`; an id looks like `s4k7mq2-17`");
        ApiError::new(ErrorCode::NotFound, message)
    })
}

pub(super) fn room_id(text: &str) -> Result<RoomId, ApiError> {
    let number = text.strip_prefix('r').and_then(|number| number.parse().ok());
    number.map(RoomId).ok_or_else(|| {
        ApiError::field("after", format!("found `{text}`, expected a room id such as `r4`"))
    })
}

pub(super) fn policy_name(set: &str, hook: &str) -> Result<PolicyName, ApiError> {
    let found = Hook::ALL.into_iter().find(|known| known.name() == hook);
    let hook = found.ok_or_else(|| no_policy(&format!("{set}/{hook}")))?;
    Ok(PolicyName { set: set.into(), hook })
}

/// Splits `east-a1:drain`; names may contain colons.
pub(super) fn verb(target: &str) -> Result<(&str, &str), ApiError> {
    target.rsplit_once(':').ok_or_else(|| {
        let message =
            format!("found `{target}`, expected a name and a verb such as `{target}:drain`");
        ApiError::new(ErrorCode::NotFound, message)
    })
}

pub(super) fn unknown_verb(found: &str, right: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("found the verb `{found}`, expected {right}"))
}

/// Reads the span of the caller. Ignores a malformed `traceparent`, and one that occurs more than once.
pub(super) fn caller(headers: &HeaderMap) -> Option<CallerSpan> {
    let mut all = headers.get_all("traceparent").iter();
    let one = all.next()?.to_str().ok()?;
    let caller = CallerSpan::parse(one).filter(|_| all.next().is_none())?;
    let states = headers.get_all("tracestate").iter();
    Some(caller.with_state(states.filter_map(|state| state.to_str().ok())))
}

#[cfg(test)]
mod tests;
