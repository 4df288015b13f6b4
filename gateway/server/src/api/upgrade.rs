//! The replacement of the gateway's process.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;

use super::error::{Code, Error, strict};
use super::operations::{read, read_deadline};
use super::routes::Api;
use super::tcp::Connection;
use crate::handover::{NotUpgraded, READY_WITHIN, Upgraded};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Upgrade {
    binary: Option<PathBuf>,
    deadline: Option<String>,
}

/// Replaces the process; takes as long as the new one needs to compile its plugins.
pub(super) async fn upgrade(
    State(shared): Api,
    tcp: Option<Extension<Arc<Connection>>>,
    body: Body,
) -> Result<Json<Upgraded>, Error> {
    let body = read(&shared, body).await?;
    let Upgrade { binary, deadline } =
        if body.is_empty() { Upgrade::default() } else { strict(&body)? };
    let within = deadline.as_deref().map(read_deadline).transpose()?;
    if within.is_some_and(|within| within > READY_WITHIN) {
        let message = format!("found a longer time, expected at most {READY_WITHIN:?}");
        return Err(Error::field("deadline", message));
    }
    if let Some(binary) = &binary {
        if tcp.is_some() {
            let message = "programs are named on the Unix socket only; without `binary` the gateway's own is started again";
            return Err(Error {
                field: Some("binary".into()),
                ..Error::new(Code::Refused, message)
            });
        }
        if !binary.is_absolute() {
            let found = format!("found `{}`, expected an absolute path", binary.display());
            return Err(Error::field("binary", found));
        }
    }
    let upgraded = match &shared.upgrades {
        Some(upgrades) => upgrades.upgrade(binary, within).await,
        None => Err(NotUpgraded::Embedded),
    };
    upgraded.map(Json).map_err(|failed| match failed {
        NotUpgraded::UnderWay => Error::new(Code::Conflict, failed.to_string()),
        NotUpgraded::Embedded => Error::new(Code::NotFound, failed.to_string()),
        NotUpgraded::Failed(reason) => Error::new(
            Code::Conflict,
            format!("upgrade failed, the running process continues: {reason}"),
        ),
    })
}
