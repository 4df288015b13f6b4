//! Connections that others open.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::{DIAL_FIRST, HANDSHAKE_WITHIN, LinkConnection, LocalMember, note, shake_hands};

/// Handshakes of others at a time: each takes processor time before its sender is known.
pub(super) const HANDSHAKES_MAX: usize = 8;

/// A handshake with a gateway of the group takes milliseconds.
const HALF_OPEN_FOR: Duration = Duration::from_millis(100);

pub(super) async fn accept(
    listener: TcpListener,
    local: LocalMember,
    opened: mpsc::Sender<LinkConnection>,
) {
    // Strangers must not use up the handshakes of the members' hosts: no connection of this member replaces that of its API.
    let [mut of_members, mut of_others] = [(); 2].map(|()| Handshakes::default());
    loop {
        let (stream, other) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptor is left, or the connection ended early.
                tracing::debug!(%error, "cannot accept a connection of the peer");
                tokio::time::sleep(DIAL_FIRST).await;
                continue;
            }
        };
        // Beyond the limit the connection is closed; the peer dials again, and this member dials too.
        let turns = if local.is_member(other.ip()) { &mut of_members } else { &mut of_others };
        if !turns.make_room() {
            continue;
        }
        let (local, opened) = (local.clone(), opened.clone());
        turns.push(async move {
            let shaken = timeout(HANDSHAKE_WITHIN, shake_hands(stream, &local)).await;
            match shaken.unwrap_or_else(|late| Err(late.into())) {
                // Fails if the link was dropped.
                Ok(Some(connection)) => _ = opened.send(connection).await,
                Ok(None) => {}
                Err(failed) => note(&local, &failed, other).await,
            }
        });
    }
}

/// Handshakes that others began, the oldest first.
#[derive(Default)]
struct Handshakes(VecDeque<(Instant, JoinHandle<()>)>);

impl Handshakes {
    /// One that is half-open for long gives its place to the next: a process of the peer's host that holds them all would keep
    /// its gateway out.
    fn make_room(&mut self) -> bool {
        self.0.retain(|(_, task)| !task.is_finished());
        let is_full = self.0.len() == HANDSHAKES_MAX;
        if let Some((_, slow)) =
            self.0.pop_front_if(|(since, _)| is_full && since.elapsed() >= HALF_OPEN_FOR)
        {
            slow.abort();
        }
        self.0.len() < HANDSHAKES_MAX
    }

    fn push(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        self.0.push_back((Instant::now(), tokio::spawn(handshake)));
    }
}
