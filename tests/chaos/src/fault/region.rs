//! A lost region returns, and its rooms fail back.

use std::time::{Duration, Instant};

use evenkeel_lab::crowd::Crowd;
use serde_json::{Value, json};

use crate::stage::Stage;

/// The way in which a region's rooms fail back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    Alone,
    /// Fail-back is forbidden, then forced by an operator.
    Forced,
}

/// All rooms have moved within this time.
const WITHIN: Duration = Duration::from_secs(40);
/// No room fails back in this time while that is forbidden.
const FORBIDDEN_FOR: Duration = Duration::from_secs(2);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Forbids fail-back if the row says so.
pub(super) async fn forbid(stage: &Stage, names: &[String], home: Home) -> Result<(), String> {
    match home {
        Home::Alone => Ok(()),
        Home::Forced => failback(stage, names, "forbid").await,
    }
}

/// Waits until the lost region's rooms have moved elsewhere, then begins a window.
pub(super) async fn leave(
    stage: &Stage,
    crowd: &mut Crowd,
    names: &[String],
) -> Result<(), String> {
    let until = Instant::now() + WITHIN;
    while !stage.sessions_on(names).await?.is_empty() {
        wait(until, "rooms are on nodes that died").await?;
    }
    tokio::time::sleep(FORBIDDEN_FOR).await;
    crowd.begin_window();
    Ok(())
}

/// Waits until the region's nodes run again and its rooms are home.
pub(super) async fn come_back(stage: &Stage, names: &[String], home: Home) -> Result<(), String> {
    let until = Instant::now() + WITHIN;
    while !stage.are_up(names).await? {
        wait(until, "nodes are not up again").await?;
    }
    if home == Home::Forced {
        tokio::time::sleep(FORBIDDEN_FOR).await;
        if !stage.sessions_on(names).await?.is_empty() {
            return Err("rooms went home though that is forbidden".to_owned());
        }
        failback(stage, names, "force").await?;
    }
    while stage.away().await? > 0 {
        wait(until, "rooms are not home").await?;
    }
    Ok(())
}

/// Allows automatic fail-back again.
pub(super) async fn forget(stage: &Stage, names: &[String]) -> Result<(), String> {
    failback(stage, names, "auto").await
}

async fn failback(stage: &Stage, names: &[String], mode: &str) -> Result<(), String> {
    let region = stage.node(names.first().ok_or("a region without nodes")?)?.region;
    operate(stage, region, "failback", &json!({"mode": mode})).await
}

/// Posts an operator's command for a region.
pub(super) async fn operate(
    stage: &Stage,
    region: &str,
    verb: &str,
    body: &Value,
) -> Result<(), String> {
    let asked = stage.admin().post(&format!("/v1/regions/{region}:{verb}"), body).await;
    asked.map(|_| ()).map_err(|error| format!("{verb} of {region} with {body}: {error}"))
}

async fn wait(until: Instant, what: &str) -> Result<(), String> {
    if Instant::now() > until {
        return Err(format!("{what} after {} s", WITHIN.as_secs()));
    }
    tokio::time::sleep(POLL_EVERY).await;
    Ok(())
}
