//! Ends everything that packets do not need, in a drill.

use std::convert::Infallible;
use std::future::pending;

use evenkeel_api::ApiThread;
use evenkeel_control::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// Ends all policies and the API on SIGUSR2, if `drills` of `[admin]` is true. Otherwise the signal ends the process, as it ends any.
pub(super) async fn follow(is_allowed: bool, handle: &Handle, api: &ApiThread) -> Infallible {
    if !is_allowed {
        return pending().await;
    }
    match signal(SignalKind::user_defined2()) {
        Ok(mut signals) => _ = signals.recv().await,
        Err(error) => {
            tracing::warn!(%error, "SIGUSR2 ends the process: no drill can end policies and API");
            return pending().await;
        }
    }
    tracing::warn!("a drill ends all policies and the API");
    // Both fail only if control has ended, and the gateway with it.
    for policy in handle.policies().await.unwrap_or_default() {
        let _ = handle.stop_policy(policy.policy).await;
    }
    api.close();
    pending().await
}
