//! Names and verbs in a path.

use evenkeel_model::{Hook, PolicyName, RoomId, SessionId};

use super::error::{ApiError, ApiErrorCode};

pub(super) fn session_id(text: &str) -> Result<SessionId, ApiError> {
    let number = text.strip_prefix('s').and_then(|number| number.parse().ok());
    number.map(SessionId).ok_or_else(|| {
        let message = format!("there is no session `{text}`; an id looks like `s17`");
        ApiError::new(ApiErrorCode::NotFound, message)
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

pub(super) fn no_policy(name: &str) -> ApiError {
    ApiError::new(
        ApiErrorCode::NotFound,
        format!("there is no policy `{name}`; one looks like `call/routing`"),
    )
}

/// Splits `east-a1:drain`; names may contain colons.
pub(super) fn verb(target: &str) -> Result<(&str, &str), ApiError> {
    target.rsplit_once(':').ok_or_else(|| {
        let message =
            format!("found `{target}`, expected a name and a verb such as `{target}:drain`");
        ApiError::new(ApiErrorCode::NotFound, message)
    })
}

pub(super) fn unknown_verb(found: &str, right: &str) -> ApiError {
    ApiError::new(ApiErrorCode::NotFound, format!("found the verb `{found}`, expected {right}"))
}
