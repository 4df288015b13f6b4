//! Sessions and gateways of all groups, from the shared index.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::error::{Code, Error};
use super::routes::{Api, Shared, session_id};
use crate::index::{Found, Listed, Reader};

#[derive(Serialize)]
pub(super) struct Sessions {
    sessions: Vec<Found>,
}

#[derive(Serialize)]
pub(super) struct Gateways {
    gateways: Vec<Listed>,
}

fn index(shared: &Arc<Shared>) -> Result<&Reader, Error> {
    let none = "this gateway has no index; [index] in its configuration names its store";
    shared.index.as_ref().ok_or_else(|| Error::new(Code::NotFound, none))
}

fn unreachable(reason: &str) -> Error {
    Error::new(Code::Unavailable, format!("the store of the index is not reachable: {reason}"))
}

pub(super) async fn session(
    State(shared): Api,
    Path(id): Path<String>,
) -> Result<Json<Sessions>, Error> {
    let session = session_id(&id)?;
    let sessions = index(&shared)?.find(session).await.map_err(|reason| unreachable(&reason))?;
    if sessions.is_empty() {
        return Err(Error::new(Code::NotFound, format!("the index lists no session `{id}`")));
    }
    Ok(Json(Sessions { sessions }))
}

pub(super) async fn gateways(State(shared): Api) -> Result<Json<Gateways>, Error> {
    let gateways = index(&shared)?.members().await.map_err(|reason| unreachable(&reason))?;
    Ok(Json(Gateways { gateways }))
}
