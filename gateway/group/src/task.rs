//! Work of control or of another thread that inputs of the member do not wait for.

use tokio::task::JoinHandle;

/// The work goes on if this is dropped, and its result is dropped.
pub(super) type Task<T> = JoinHandle<Result<T, String>>;

/// Returns the result once it is there. May be cancelled without a loss, and not called again after it returned.
pub(super) async fn outcome<T>(task: &mut Task<T>) -> Result<T, String> {
    task.await.unwrap_or_else(|_| Err("a task panicked".to_owned()))
}
