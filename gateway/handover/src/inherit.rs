//! The new process: takes sockets and sessions of the old one, and tells it why if it cannot.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::{
    Handle, Inherited, MediaStates, RecordBatch, Replica, STATES, decode_policies,
};
use evenkeel_dataplane::quic::HandedConnections;
use evenkeel_group::OwnershipState;
use evenkeel_policies::PolicyRecords;

use super::channel::{Channel, ChannelFrame, ReceiveLimits};
use super::message::{HandoverMessage, ProtocolVersion, UpgradeOffer};

/// The name of the old process in errors.
const OLD: &str = "running gateway";

/// The old process greets at once.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The old process takes up to 2 s to answer its last offers, and a second for each message.
const NEXT_WITHIN: Duration = Duration::from_secs(10);

/// An old process that cannot keep its QUIC connections closes them after `go`.
const LEFT_WITHIN: Duration = Duration::from_millis(500);

/// The old process may have given up already.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// A process that is to replace the one at its standard input.
pub struct Successor {
    channel: Channel,
    withdrawal: Arc<Withdrawal>,
    offer: UpgradeOffer,
    /// QUIC connections that other processes keep, from `go` on.
    connections: Option<HandedConnections>,
}

/// Withdraws the new process from an upgrade.
pub struct Withdrawal(UnixStream);

impl Withdrawal {
    /// From here on the old process cannot send `go`, and continues. If it has sent it before, it is gone: then
    /// [`Successor::take_over`] succeeds.
    pub fn withdraw(&self) {
        // Fails only if the old process has closed the channel.
        let _ = self.0.shutdown(Shutdown::Read);
    }
}

impl Successor {
    /// Takes the channel from standard input, which is empty from then on, and the sockets from the channel.
    pub async fn of_stdin() -> Result<(Successor, Inherited), String> {
        let no_channel = |error: io::Error| {
            format!("standard input is not that of an upgrade, which uses `--inherit`: {error}")
        };
        let stream = take_stdin().map_err(no_channel)?;
        let channel = Channel::of(stream).map_err(no_channel)?;
        Successor::greeted(channel).await
    }

    async fn greeted(mut channel: Channel) -> Result<(Successor, Inherited), String> {
        let withdrawal = channel.0.as_fd().try_clone_to_owned().map_err(|error| unheard(&error))?;
        let withdrawal = Arc::new(Withdrawal(withdrawal.into()));
        match hear_hello(&mut channel, &withdrawal).await {
            Ok((mut offer, descriptors, policies)) => {
                let names = std::mem::take(&mut offer.sockets);
                let sockets = names.into_iter().zip(descriptors);
                let inherited = Inherited::of(sockets, offer.quic.take(), policies);
                let connections = None;
                Ok((Successor { channel, withdrawal, offer, connections }, inherited))
            }
            Err(reason) => {
                tell(&mut channel, &reason).await;
                Err(reason)
            }
        }
    }

    /// The old process is confined, and this one with it.
    pub fn is_confined(&self) -> bool {
        self.offer.confined
    }

    /// A session belongs to one worker, and its clients' packets reach the socket of that worker.
    pub fn require_workers(&self, workers: usize) -> Result<(), String> {
        let old = self.offer.workers;
        if old == workers {
            return Ok(());
        }
        Err(format!(
            "found {workers} workers, the running gateway has {old}: a restart changes their number; set `workers = {old}` in [limits] for an upgrade"
        ))
    }

    /// The ownership of the group's addresses, which this process continues.
    ///
    /// # Errors
    /// The gateway joins a group, or leaves one.
    pub fn ownership(&self, is_member: bool) -> Result<Option<OwnershipState>, String> {
        match &self.offer.ownership {
            Some(ownership) if is_member => Ok(Some(ownership.clone())),
            None if !is_member => Ok(None),
            Some(_) | None => {
                Err("a restart adds or removes [cluster], an upgrade does not".to_owned())
            }
        }
    }

    /// Tells the old process why this one ends.
    pub async fn fail(mut self, reason: String) {
        tell(&mut self.channel, &reason).await;
    }

    /// Withdraws this process from outside.
    pub fn withdrawal(&self) -> Arc<Withdrawal> {
        Arc::clone(&self.withdrawal)
    }

    /// Returns once the old process has closed the channel, or this one withdraws.
    pub async fn abandoned(&self) {
        // An error ends the channel as well.
        let _ = self.channel.readable().await;
    }

    /// Returns the QUIC connections that other processes keep, once the old process has closed those that it cannot keep.
    pub async fn left(&mut self) -> Option<HandedConnections> {
        // A process that hangs is not waited for: its clients get stateless resets.
        let _ = tokio::time::timeout(LEFT_WITHIN, self.abandoned()).await;
        self.connections.take()
    }

    /// Restores the sessions, and returns their number once this process is to serve.
    pub async fn take_over(&mut self, handle: &Handle) -> Result<usize, String> {
        let version = ProtocolVersion::own();
        self.send(HandoverMessage::Ready { version, states: Some(STATES) }).await?;
        let mut records = Replica::new();
        let ports = loop {
            let (message, frame) = self.hear().await?;
            match message {
                HandoverMessage::Records => {
                    keep(&mut records, frame)?;
                    if !handle.restore_policies(records.take_policies()) {
                        return Err("control is busy".to_owned());
                    }
                }
                HandoverMessage::State => break keep(&mut records, frame)?,
                other => return Err(other.unexpected(OLD)),
            }
        };
        let kept = records.take_kept();
        let snapshot = records.snapshot().ok_or("no records were sent")?;
        let restored = handle.restore(snapshot, ports).await;
        let sessions = restored.map_err(|error| error.to_string())?.sessions;
        self.send(HandoverMessage::Restored { sessions }).await?;
        loop {
            let (message, frame) = self.hear().await?;
            let is_last = match message {
                HandoverMessage::MediaPart => false,
                HandoverMessage::Media => true,
                other => return Err(other.unexpected(OLD)),
            };
            let states =
                MediaStates::decode(&frame.attachment).map_err(|error| error.to_string())?;
            let continued = handle.continue_media(states, is_last).await;
            continued.map_err(|error| error.to_string())?;
            if is_last {
                break;
            }
        }
        self.send(HandoverMessage::Continued).await?;
        let (message, ChannelFrame { attachment, descriptors, .. }) = self.hear().await?;
        match message {
            HandoverMessage::Go => {
                self.connections = HandedConnections::decode(&attachment, descriptors);
                // Control reads them as it resumes.
                handle.copy_kept(kept);
                Ok(sessions)
            }
            other => Err(other.unexpected(OLD)),
        }
    }

    async fn send(&mut self, message: HandoverMessage) -> Result<(), String> {
        let sent = self.channel.send(&message.encode(), &[], &[]).await;
        sent.map_err(|error| unheard(&error))
    }

    async fn hear(&mut self) -> Result<(HandoverMessage, ChannelFrame), String> {
        hear(&mut self.channel, &self.withdrawal, NEXT_WITHIN).await
    }
}

/// The offer of the old process, with the sockets that it names and the records of its policies.
async fn hear_hello(
    channel: &mut Channel,
    withdrawal: &Withdrawal,
) -> Result<(UpgradeOffer, Vec<OwnedFd>, PolicyRecords), String> {
    let (message, frame) = hear(channel, withdrawal, HELLO_WITHIN).await?;
    let HandoverMessage::Hello { version, offer } = message else {
        return Err(message.unexpected(OLD));
    };
    version.require_same(&ProtocolVersion::own())?;
    let offer = serde_json::from_value::<UpgradeOffer>(offer)
        .map_err(|error| format!("the offered sockets are not understood: {error}"))?;
    let (named, sent) = (offer.sockets.len(), frame.descriptors.len());
    if named != sent {
        return Err(format!("{named} sockets are named, {sent} were sent"));
    }
    // A process of an older version sends none.
    let policies = match &frame.attachment[..] {
        [] => PolicyRecords::default(),
        encoded => decode_policies(encoded).map_err(|error| error.to_string())?,
    };
    Ok((offer, frame.descriptors, policies))
}

/// Takes a batch of records, and returns the descriptors that came with it.
fn keep(records: &mut Replica, frame: ChannelFrame) -> Result<Vec<OwnedFd>, String> {
    let batch = RecordBatch::decode(&frame.attachment, None).map_err(|error| error.to_string())?;
    records.apply(batch).map_err(|error| error.to_string())?;
    let (number, sessions, whole) = (records.number(), records.sessions(), records.is_whole());
    tracing::debug!(number, sessions, whole, "records arrived");
    Ok(frame.descriptors)
}

/// Replaces standard input by /dev/null.
fn take_stdin() -> io::Result<UnixStream> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    let stream = UnixStream::from(channel);
    // Fails for other files.
    stream.peer_addr()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(stream)
}

/// The next message of the old process, or the reason to withdraw.
async fn hear(
    channel: &mut Channel,
    withdrawal: &Withdrawal,
    within: Duration,
) -> Result<(HandoverMessage, ChannelFrame), String> {
    let mut receiving = pin!(channel.receive(ReceiveLimits::FROM_OLD));
    let frame = match tokio::time::timeout(within, &mut receiving).await {
        Ok(received) => received
            .map_err(|error| unheard(&error))?
            .ok_or("the running gateway gave the upgrade up")?,
        Err(_) => {
            withdrawal.withdraw();
            // The message may have come at the last moment.
            let late = receiving.await.ok().flatten();
            late.ok_or_else(|| format!("the running gateway sent nothing for {within:?}"))?
        }
    };
    Ok((HandoverMessage::decode(&frame.message)?, frame))
}

fn unheard(error: &io::Error) -> String {
    format!("the running gateway cannot be reached: {error}")
}

async fn tell(channel: &mut Channel, reason: &str) {
    let failed = HandoverMessage::Failed { reason: reason.to_owned() }.encode();
    // A process that is gone needs no reason.
    let _ = tokio::time::timeout(TOLD_WITHIN, channel.send(&failed, &[], &[])).await;
}

#[cfg(test)]
mod tests;
