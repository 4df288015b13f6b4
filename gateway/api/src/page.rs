//! Pages of long lists: `?limit=100&after=s17`.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;

use super::error::{ApiError, ApiErrorCode};

/// Default and maximum page size.
const PAGE_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    pub(super) after: Option<String>,
    pub(super) limit: Option<usize>,
}

pub(super) struct Page<Id> {
    /// The last entry of the page before.
    pub(super) after: Id,
    limit: usize,
}

impl<Id> Page<Id> {
    pub(super) fn read(
        asked: Result<Query<PageQuery>, QueryRejection>,
        first: Id,
        id: impl FnOnce(&str) -> Result<Id, ApiError>,
    ) -> Result<Page<Id>, ApiError> {
        let Query(PageQuery { after, limit }) =
            asked.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.body_text()))?;
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
