//! The gateways of a group.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::Deserialize;

use super::error::{Code, Error, strict};
use super::operations::read;
use super::routes::{Api, Shared};
use crate::cluster::{Group, HandedOver, NotHandedOver, Standing};

/// An owner that ends is replaced within this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HandOver {
    to: String,
}

fn group(shared: &Arc<Shared>) -> Result<&Group, Error> {
    let none = "this gateway belongs to no group; [cluster] in its configuration forms one";
    shared.group.as_ref().ok_or_else(|| Error::new(Code::NotFound, none))
}

pub(super) async fn list(State(shared): Api) -> Result<Json<Standing>, Error> {
    let mut standing = group(&shared)?.standing();
    let served = shared.ask("", shared.handle.status()).await?.sessions;
    standing.gateways.iter_mut().filter(|it| it.here).for_each(|here| here.sessions += served);
    Ok(Json(standing))
}

/// Makes the group's other gateway the owner of its addresses and sessions.
pub(super) async fn hand_over(State(shared): Api, body: Body) -> Result<Json<HandedOver>, Error> {
    let body = read(&shared, body).await?;
    let HandOver { to } = strict(&body)?;
    let handed_over = group(&shared)?.hand_over(to).await;
    handed_over.map(Json).map_err(|failed| match failed {
        NotHandedOver::Unknown { .. } => Error::field("to", failed.to_string()),
        _ => Error::new(Code::Conflict, failed.to_string()),
    })
}

/// Refuses an offer at a gateway that does not own the addresses.
pub(super) fn require_owner(shared: &Shared) -> Result<(), Error> {
    let Some(owner) = shared.group.as_ref().and_then(Group::other_owner) else {
        return Ok(());
    };
    let message = match &*owner {
        "" => "no gateway of the group owns its addresses at present".to_owned(),
        owner => format!("this gateway is a standby: offer the session to {owner}, the owner"),
    };
    Err(Error::new(Code::Standby, message).retry_after(RETRY_AFTER))
}

/// Waits until the standby has the records of all sessions that were opened so far, or is late.
pub(super) async fn confirm(shared: &Shared) {
    if let Some(group) = &shared.group
        && let Some(number) = shared.handle.records_sent().await
    {
        group.confirmed(number).await;
    }
}
