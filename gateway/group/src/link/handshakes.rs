//! Handshakes that others began.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Handshakes of others at a time: each takes processor time before its sender is known.
pub(super) const HANDSHAKES_MAX: usize = 8;

/// A handshake with a gateway of the group takes milliseconds.
const HALF_OPEN_FOR: Duration = Duration::from_millis(100);

/// The oldest first.
#[derive(Default)]
pub(super) struct Handshakes(VecDeque<(Instant, JoinHandle<()>)>);

impl Handshakes {
    /// One that is half-open for long gives its place to the next: a process of the peer's host that holds them all would keep
    /// its gateway out.
    pub(super) fn make_room(&mut self) -> bool {
        self.0.retain(|(_, task)| !task.is_finished());
        let is_full = self.0.len() == HANDSHAKES_MAX;
        if let Some((_, slow)) =
            self.0.pop_front_if(|(since, _)| is_full && since.elapsed() >= HALF_OPEN_FOR)
        {
            slow.abort();
        }
        self.0.len() < HANDSHAKES_MAX
    }

    pub(super) fn push(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        self.0.push_back((Instant::now(), tokio::spawn(handshake)));
    }
}
