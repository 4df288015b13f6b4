/// A task on the current `LocalSet`, aborted when dropped.
pub struct LocalTask(tokio::task::AbortHandle);

impl LocalTask {
    /// Starts a task. Must be called on a `LocalSet`.
    pub fn spawn(work: impl Future<Output = ()> + 'static) -> LocalTask {
        LocalTask(tokio::task::spawn_local(work).abort_handle())
    }
}

impl Drop for LocalTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
