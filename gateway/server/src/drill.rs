//! Ends everything that packets do not need, in a drill.

use std::convert::Infallible;
use std::future::pending;

use evenkeel_api::ApiThread;
use evenkeel_control::Handle;
use tokio::signal::unix::Signal;

/// Ends all policies and the API, with the listener of WHIP, at the first of these signals. `None` waits for none: SIGUSR2 ends the
/// process.
pub(super) async fn follow(drills: Option<Signal>, handle: &Handle, api: &ApiThread) -> Infallible {
    let Some(mut drills) = drills else { return pending().await };
    drills.recv().await;
    tracing::warn!("a drill ends all policies and the API");
    // Both fail only if control has ended, and the gateway with it.
    for policy in handle.policies().await.unwrap_or_default() {
        let _ = handle.stop_policy(policy.policy).await;
    }
    api.close();
    pending().await
}
