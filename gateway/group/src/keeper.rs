//! Keeps the group's addresses while this member owns them. The kernel and hooks may be slow, and the beats do not wait.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_dataplane::SendLease;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::address::{AddressError, Addresses};

/// Interval of renewals; an address that is not renewed disappears after 2 s.
const RENEWED_EVERY: Duration = Duration::from_millis(500);

/// Interval of attempts after a failure.
const RETRIED_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct AddressKeeper {
    owns: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl AddressKeeper {
    /// Starts in the event loop of the caller.
    pub(super) fn start(addresses: Addresses, lease: Arc<SendLease>) -> AddressKeeper {
        let (owns, orders) = watch::channel(false);
        AddressKeeper { owns, task: tokio::spawn(keep(addresses, lease, orders)) }
    }

    pub(super) fn hold(&self) {
        self.owns.send_replace(true);
    }

    /// Drops what the kernel has not sent: the lease has ended.
    pub(super) fn drop_waiting(&self) {
        self.owns.send_modify(|_| {});
    }

    /// Removes the addresses, and returns once they are gone.
    pub(super) async fn release(self) {
        drop(self.owns);
        // The task removes them at its end. A panic is reported, and the kernel removes what is not renewed.
        let _ = self.task.await;
    }
}

async fn keep(mut addresses: Addresses, lease: Arc<SendLease>, mut orders: watch::Receiver<bool>) {
    if orders.wait_for(|owns| *owns).await.is_ok() {
        let mut held = note(&addresses.hold().await);
        loop {
            let due = Instant::now() + if held { RENEWED_EVERY } else { RETRIED_EVERY };
            // The end of the sender ends this: a member that lost its ownership ends.
            let lost = loop {
                match tokio::time::timeout_at(due, orders.changed()).await {
                    Ok(Ok(())) => _ = note(&addresses.drop_waiting().await),
                    Ok(Err(_)) => break true,
                    Err(_) => break false,
                }
            };
            if lost {
                break;
            }
            // A process that was stopped may have been replaced.
            if !lease.is_held_now() {
                held = false;
                continue;
            }
            held = match held {
                true => note(&addresses.renew().await),
                false => note(&addresses.hold().await),
            };
        }
        note(&addresses.release().await);
    }
}

/// Logs a failure, and returns whether the addresses are held.
fn note(outcome: &Result<(), AddressError>) -> bool {
    if let Err(failure) = outcome {
        tracing::error!("{failure}");
    }
    matches!(outcome, Ok(()) | Err(AddressError::Conflict(_)))
}
