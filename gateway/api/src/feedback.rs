//! Ratings of sessions by their users, and their comparison with the quality that the gateway measured.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::sessions::{FeedbackRequest, RatedGroup, RatingComparison, SessionRating};
use evenkeel_control::history::{AlreadyRated, RatableSession};

use super::context::ApiState;
use super::error::ApiError;
use super::request::session_id;

/// Maximum length of a user's words, bytes.
const WORDS_MAX: usize = 500;

/// Keeps the rating of a session that lives, or ended lately.
pub(super) async fn rate(
    State(shared): ApiState,
    Path(id): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let session = session_id(&id)?;
    let feedback: FeedbackRequest = shared.parse(body).await?;
    let rating = u8::try_from(feedback.rating).ok().filter(|rating| (1..=5).contains(rating));
    let rating = rating.ok_or_else(|| {
        ApiError::field("rating", format!("found {}, expected 1 to 5", feedback.rating))
    })?;
    if let Some(words) = feedback.words.as_ref().filter(|words| words.len() > WORDS_MAX) {
        let message = format!("found {} bytes, expected at most {WORDS_MAX}", words.len());
        return Err(ApiError::field("words", message));
    }
    let live = shared.ask(&id, shared.handle.explain(session)).await?;
    let history = shared.ask(&id, shared.handle.history()).await?;
    let live = live.map(|explained| RatableSession {
        session,
        node: explained.state.hop.map(|hop| shared.names.of_hop(hop).node),
        decided_by: [explained.admitted_by, explained.room.placed_by].map(|by| by.to_string()),
        mean_r_centi: explained.state.mean_r_centi,
        scenario: explained.state.scenario,
    });
    let rated = live.or_else(|| history.ended_lately(session));
    let rated = rated.ok_or_else(|| shared.no_session(session))?;
    history.rate(rated.rated(rating, feedback)).map_err(|AlreadyRated| {
        ApiError::new(ErrorCode::Conflict, "the session has another rating by its user")
    })?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn ratings(State(shared): ApiState) -> Result<Json<RatingComparison>, ApiError> {
    let history = shared.ask("", shared.handle.history()).await?;
    let [mut scenarios, mut nodes, mut revisions] = [(); 3].map(|()| RatingSums::default());
    for rating in history.ratings() {
        scenarios.add(&rating.scenario, &rating);
        rating.node.iter().for_each(|node| nodes.add(node, &rating));
        rating.decided_by.iter().for_each(|by| revisions.add(by, &rating));
    }
    Ok(Json(RatingComparison {
        scenarios: scenarios.means(),
        nodes: nodes.means(),
        revisions: revisions.means(),
    }))
}

/// Sums of ratings, by name.
#[derive(Default)]
struct RatingSums(BTreeMap<Box<str>, RatingSum>);

#[derive(Default)]
struct RatingSum {
    ratings: u32,
    rating: u64,
    measured: u32,
    r_centi: u64,
}

impl RatingSums {
    fn add(&mut self, name: &str, rating: &SessionRating) {
        let sum = self.0.entry(name.into()).or_default();
        sum.ratings += 1;
        sum.rating += u64::from(rating.rating);
        if let Some(r_centi) = rating.mean_r_centi {
            sum.measured += 1;
            sum.r_centi += u64::from(r_centi);
        }
    }

    fn means(self) -> Vec<RatedGroup> {
        let means = self.0.into_iter().map(|(name, sum)| RatedGroup {
            name,
            ratings: sum.ratings,
            mean_rating_centi: (sum.rating * 100 / u64::from(sum.ratings)) as u32,
            measured: sum.measured,
            mean_r_centi: sum.r_centi.checked_div(sum.measured.into()).map(|mean| mean as u32),
        });
        means.collect()
    }
}
