//! The gateways of a group.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::Deserialize;

use super::error::{Code, Error, strict};
use super::operations::read;
use super::relay::no_owner;
use super::routes::{Api, Shared};
use crate::cluster::{
    GatewayStanding, Group, HandedOver, NotHandedOver, NotTakenOver, Owner, Role, Standing,
    TakenOver,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HandOver {
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TakeOver {
    /// The peer's name.
    confirm_down: String,
}

fn group(shared: &Arc<Shared>) -> Result<&Group, Error> {
    let none = "this gateway belongs to no group; [cluster] in its configuration forms one";
    shared.group().ok_or_else(|| Error::new(Code::NotFound, none))
}

pub(super) async fn list(State(shared): Api) -> Result<Json<Standing>, Error> {
    let mut standing = group(&shared)?.standing();
    let served = shared.ask("", shared.handle.status()).await?.sessions;
    let has_them = |it: &&mut GatewayStanding| it.here || it.role == Role::Standby && it.in_sync;
    standing.gateways.iter_mut().filter(has_them).for_each(|it| it.sessions += served);
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

/// Makes this gateway the owner although its peer is silent.
pub(super) async fn take_over(State(shared): Api, body: Body) -> Result<Json<TakenOver>, Error> {
    let body = read(&shared, body).await?;
    let TakeOver { confirm_down } = strict(&body)?;
    let taken_over = group(&shared)?.take_over(confirm_down).await;
    taken_over.map(Json).map_err(|failed| match failed {
        NotTakenOver::NotPeer { .. } => Error::field("confirm_down", failed.to_string()),
        _ => Error::new(Code::Conflict, failed.to_string()),
    })
}

/// Fails at a gateway of a group that sends nothing at present.
pub(super) fn require_owner(shared: &Shared) -> Result<(), Error> {
    match shared.group().map(Group::owner) {
        None | Some(Owner::Here) => Ok(()),
        Some(_) => Err(no_owner()),
    }
}

/// Waits until the standby has the records of all sessions that were opened so far, or is late.
pub(super) async fn confirm(shared: &Shared) {
    if let Some(group) = shared.group()
        && let Some(number) = shared.handle.records_sent().await
    {
        group.confirmed(number).await;
    }
}
