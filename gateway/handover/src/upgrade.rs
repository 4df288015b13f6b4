//! The old process: starts the new one, hands over, and continues if that fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_contract::gateway::Upgraded;
use evenkeel_control::{
    Continuation, LastStatesPart, NamedSockets, RecordBatch, SocketName, Suspended,
    SuspensionGuard, encode_policies,
};
use evenkeel_dataplane::quic;
use evenkeel_group::{Group, OwnershipState};
use evenkeel_process::scheduling::RealTimeThread;
use evenkeel_process::signals::PendingSignals;
use evenkeel_runtime::{RunningGateway, UpgradeBuffer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::channel::{Channel, ChannelFrame, ReceiveLimits};
use super::child::{Child, SuccessorProgram};
use super::init::{self, Init};
use super::message::{HandoverMessage, ProtocolVersion, UpgradeOffer};
use super::notify;

/// The name of the new process in errors.
const NEW: &str = "new process";

/// Maximum time for the new process to load its configuration and to compile its plugins. The API closes a connection
/// after 60 s without an answer.
pub const READY_WITHIN: Duration = Duration::from_secs(50);

/// Time for the new process to start and to take all sockets. Packets are forwarded meanwhile.
const GREETED_WITHIN: Duration = Duration::from_secs(10);

/// Time for a step of the new process while nothing is decided or packets wait.
const RESTORED_WITHIN: Duration = Duration::from_secs(1);

/// Time for the records of all sessions, which are served meanwhile.
const RECORDS_WITHIN: Duration = Duration::from_secs(5);

/// Time between the end of the channel and the end of the process, which the error names. While packets wait the
/// process is killed instead.
const EXIT_WITHIN: Duration = Duration::from_secs(1);

/// The gateway goes on in its process.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotUpgraded {
    /// An upgrade has begun.
    #[error("another upgrade is under way")]
    UnderWay,
    /// There is no program to start.
    #[error("the gateway runs within another program, which cannot be replaced")]
    Embedded,
    /// The new process or a step failed, for this reason.
    #[error("{0}")]
    Failed(String),
}

/// A request to replace the process.
#[derive(Debug)]
pub struct UpgradeCommand {
    binary: Option<PathBuf>,
    within: Option<Duration>,
    reply: oneshot::Sender<Result<Upgraded, NotUpgraded>>,
}

/// Requests upgrades. Clones share the one that is under way.
#[derive(Clone, Debug)]
pub struct Upgrades {
    requests: mpsc::Sender<UpgradeCommand>,
    is_under_way: Arc<AtomicBool>,
}

impl Upgrades {
    /// The handle, and the commands to execute.
    pub fn new() -> (Upgrades, mpsc::Receiver<UpgradeCommand>) {
        let (requests, received) = mpsc::channel(1);
        (Upgrades { requests, is_under_way: Arc::default() }, received)
    }

    /// Replaces this process by one of this program. Default: the program of this process.
    pub async fn upgrade(
        &self,
        binary: Option<PathBuf>,
        within: Option<Duration>,
    ) -> Result<Upgraded, NotUpgraded> {
        if self.is_under_way.swap(true, Ordering::AcqRel) {
            return Err(NotUpgraded::UnderWay);
        }
        let (reply, answer) = oneshot::channel();
        let ended = || Err(NotUpgraded::Failed("the gateway ends".to_owned()));
        // The only request that is under way finds room. Waiting for it could be cancelled, and no upgrade would follow.
        if self.requests.try_send(UpgradeCommand { binary, within, reply }).is_err() {
            self.is_under_way.store(false, Ordering::Release);
            return ended();
        }
        answer.await.unwrap_or_else(|_| ended())
    }
}

/// A gateway that another process serves.
pub struct ReplacedGateway {
    successor: u32,
    /// To process 1 of the container, if that is another one.
    init: Option<OwnedFd>,
    /// Set if this is process 1.
    stays: Option<Init>,
}

impl ReplacedGateway {
    /// The last act of this process. Process 1 returns only after its successors, with their exit status. `signals` are
    /// those that came since the hand-over, and later ones.
    pub async fn leave(mut self, signals: &mut PendingSignals) -> std::io::Result<i32> {
        notify::replaced_by(self.successor);
        if let Some(init) = self.init.take() {
            init::announce(init, self.successor)?;
        }
        if let Some(init) = self.stays.take() {
            return init.attend(self.successor, signals).await;
        }
        if signals.pending().await.is_some() {
            self.pass_on_end();
        }
        Ok(0)
    }

    /// Has the new process end too.
    pub fn pass_on_end(&self) {
        // Fails only if it has ended.
        let _ = kill(Pid::from_raw(self.successor.cast_signed()), Signal::SIGTERM);
    }
}

/// The admin API as the old process needs it: requests wait while both processes have the sockets.
pub trait RequestGate: Sync {
    /// Accepts no connection and begins no request until [`RequestGate::open`].
    fn pause(&self);

    /// Serves requests.
    fn open(&self);
}

/// Upgrades the gateway on request.
pub struct Upgrader<'a> {
    /// The program to start.
    pub program: &'a SuccessorProgram,
    /// Starts it, so that beats of a member remain real-time.
    pub starter: Option<&'a RealTimeThread>,
    /// Refuses a configuration that only a restart can apply, before a process is started.
    pub check: &'a dyn Fn() -> Result<(), String>,
    /// The gateway whose sessions move.
    pub gateway: &'a RunningGateway,
    /// Refuses requests meanwhile.
    pub api: &'a dyn RequestGate,
    /// All sockets but those of nodes and sessions.
    pub sockets: &'a NamedSockets,
    /// Its certificate and keys, which the new process keeps.
    pub quic: Option<quic::EndpointIdentity>,
    /// The group, if there is one.
    pub group: Option<Group>,
    /// Number of packet workers.
    pub workers: usize,
    /// This process is confined.
    pub confined: bool,
    /// True once the gateway shuts down, which ends an upgrade that is under way.
    pub ending: watch::Receiver<bool>,
    /// Held while an upgrade is under way.
    pub turn: &'a Mutex<()>,
    /// Receive buffers are wide since an upgrade.
    pub is_wide: bool,
}

/// A new process that does not serve yet. Dropped, it is killed and packets are read again.
struct Attempt {
    channel: Channel,
    child: Child,
    /// Decisions may have been stopped.
    is_suspended: bool,
    /// Set while packets are stopped.
    guard: Option<SuspensionGuard>,
    /// Set while the QUIC endpoint is stopped, if its connections can continue.
    connections: Option<quic::HandedConnections>,
}

impl Attempt {
    /// Adds the end of the process to the reason why a message did not pass. Before packets stop, it is the reason.
    async fn explain(&mut self, reason: String) -> String {
        let status = match self.guard {
            Some(_) => self.child.end().await,
            None => self.child.ended(EXIT_WITHIN).await,
        };
        match status {
            Some(status) if self.guard.is_some() => {
                format!("{reason}; it ended ({status}), see the log")
            }
            Some(status) => {
                let code = status.code().map(|code| format!("status {code}"));
                let end = code.unwrap_or_else(|| status.to_string());
                format!("the new process ended with {end} before it answered; see the log")
            }
            None => reason,
        }
    }

    async fn passed(&mut self, sent: Result<(), String>) -> Result<(), String> {
        match sent {
            Ok(()) => Ok(()),
            Err(reason) => Err(self.explain(reason).await),
        }
    }
}

impl Upgrader<'_> {
    /// Returns once the gateway was handed over.
    pub async fn follow(
        &mut self,
        upgrades: &Upgrades,
        mut requests: mpsc::Receiver<UpgradeCommand>,
    ) -> ReplacedGateway {
        loop {
            // The sender lives as long as the gateway.
            let request = tokio::select! {
                request = requests.recv() => request,
                () = self.narrow_buffers(), if self.is_wide => {
                    self.is_wide = false;
                    continue;
                }
            };
            let Some(request) = request else { return std::future::pending().await };
            let turn = self.turn;
            // A gateway that shuts down keeps the turn.
            let turn = tokio::select! {
                biased;
                _ = self.ending.wait_for(|ending| *ending) => None,
                turn = turn.lock() => Some(turn),
            };
            let outcome = match turn {
                Some(_turn) => self.upgrade(&request).await,
                None => Err("the gateway is shutting down".to_owned()),
            };
            let (answer, handed_over) = match outcome {
                Ok((upgraded, handed_over)) => (Ok(upgraded), Some(handed_over)),
                Err(reason) => (Err(NotUpgraded::Failed(reason)), None),
            };
            upgrades.is_under_way.store(false, Ordering::Release);
            // The client may have disconnected.
            let _ = request.reply.send(answer);
            if let Some(handed_over) = handed_over {
                return handed_over;
            }
        }
    }

    async fn upgrade(
        &mut self,
        request: &UpgradeCommand,
    ) -> Result<(Upgraded, ReplacedGateway), String> {
        let binary = request.binary.as_deref().unwrap_or(&self.program.path);
        tracing::info!(program = %binary.display(), "upgrade begins");
        notify::reloading();
        let outcome = self.try_upgrade(request).await;
        match &outcome {
            Ok((Upgraded { pid, sessions, paused_us }, _)) => {
                tracing::info!(pid, sessions, paused_us, "upgraded; the new process serves");
            }
            Err(reason) => {
                tracing::error!(%reason, "upgrade failed; this process continues");
                if let Some(group) = &self.group {
                    group.end_rest().await;
                }
                notify::ready();
            }
        }
        outcome
    }

    async fn try_upgrade(
        &mut self,
        request: &UpgradeCommand,
    ) -> Result<(Upgraded, ReplacedGateway), String> {
        (self.check)()?;
        let ownership = match &self.group {
            // Keeps the standby from a takeover while no process may answer it.
            Some(group) => Some(group.suspend().await?),
            None => None,
        };
        let no_channel = |error| format!("cannot create a channel to a new process: {error}");
        let (channel, theirs) = Channel::pair().map_err(no_channel)?;
        let binary = request.binary.as_deref().unwrap_or(&self.program.path);
        let stays = Init::of_this().map_err(no_channel)?;
        let child = Child::start(binary, &self.program.arguments, theirs, self.starter)?;
        let mut attempt =
            Attempt { channel, child, is_suspended: false, guard: None, connections: None };
        // The new process takes processor time from the workers long before packets stop.
        self.widen_buffers().await;
        self.is_wide = true;
        let pipe = stays.as_ref().map(Init::pipe);
        let ready_within = request.within.unwrap_or(READY_WITHIN);
        match self.converse(&mut attempt, pipe, ownership, ready_within).await {
            Ok(upgraded) => {
                // No await from here on: the gateway is not whole any more.
                let Attempt { channel, child, guard, connections, .. } = attempt;
                child.serve();
                guard.into_iter().for_each(SuspensionGuard::stay);
                // The new process reads the QUIC socket once the channel is closed. Before, it would send stateless resets to clients of
                // closed connections.
                match connections {
                    Some(_) => self.gateway.keep_quic(),
                    None => self.gateway.close_quic(),
                }
                drop(channel);
                let init = self.sockets.iter().find(|(name, _)| *name == SocketName::Init);
                let init = init.map(|(_, init)| init.try_clone()).transpose();
                let init = init.unwrap_or_else(|error| {
                    tracing::error!(%error, "process 1 does not learn the new process");
                    None
                });
                Ok((upgraded, ReplacedGateway { successor: upgraded.pid, init, stays }))
            }
            Err(reason) => {
                attempt.child.end().await;
                if attempt.is_suspended {
                    // Fails only if control has ended, and the gateway with it.
                    let _ = self.gateway.handle.resume(Continuation::Upgrade).await;
                    self.gateway.resume_quic(None);
                    self.api.open();
                }
                Err(reason)
            }
        }
    }

    async fn converse(
        &mut self,
        attempt: &mut Attempt,
        init: Option<BorrowedFd<'_>>,
        ownership: Option<OwnershipState>,
        ready_within: Duration,
    ) -> Result<Upgraded, String> {
        let sent = self.say_hello(&mut attempt.channel, init, ownership).await;
        attempt.passed(sent).await?;
        let layout = match self.hear(attempt, ready_within).await? {
            HandoverMessage::Ready { version, states } => {
                ProtocolVersion::own().require_same(&version)?;
                states
            }
            other => return Err(other.unexpected(NEW)),
        };
        attempt.is_suspended = true;
        let suspended = self.suspend(&mut attempt.channel).await?;
        attempt.guard = Some(suspended.guard);
        let state = suspended.batch.encode();
        let ports: Vec<_> = suspended.descriptors.iter().map(AsFd::as_fd).collect();
        let (channel, message) = (&mut attempt.channel, HandoverMessage::State);
        let sent = self.send(channel, "sessions", RESTORED_WITHIN, &message, &state, &ports).await;
        drop(suspended.descriptors);
        attempt.passed(sent).await?;
        let sessions = match self.hear(attempt, RESTORED_WITHIN).await? {
            HandoverMessage::Restored { sessions } => sessions,
            other => return Err(other.unexpected(NEW)),
        };
        let paused = Instant::now();
        // First: the workers have all that it read when they hand over.
        attempt.connections = self.gateway.pause_quic();
        let sent = self.send_media(&mut attempt.channel, layout).await;
        attempt.passed(sent).await?;
        match self.hear(attempt, RESTORED_WITHIN).await? {
            HandoverMessage::Continued => {}
            other => return Err(other.unexpected(NEW)),
        }
        if self.send_go(attempt).await {
            let paused_us = paused.elapsed().as_micros() as u64;
            return Ok(Upgraded { pid: attempt.child.process.id(), sessions, paused_us });
        }
        Err(self.hear(attempt, RESTORED_WITHIN).await?.unexpected(NEW))
    }

    /// Lets packets wait longer. The next process ends it, or this one if it continues.
    async fn widen_buffers(&self) {
        match self.gateway.packet_sockets().await {
            Ok(sockets) => UpgradeBuffer::granted().widen(&sockets),
            Err(error) => tracing::warn!(%error, "receive buffers not widened"),
        }
    }

    async fn narrow_buffers(&self) {
        match self.gateway.packet_sockets().await {
            Ok(sockets) => UpgradeBuffer::granted().narrow(&sockets).await,
            Err(error) => tracing::warn!(%error, "receive buffers stay wide"),
        }
    }

    async fn say_hello(
        &mut self,
        channel: &mut Channel,
        init: Option<BorrowedFd<'_>>,
        ownership: Option<OwnershipState>,
    ) -> Result<(), String> {
        let trunks = self.gateway.handle.trunks().await;
        let trunks = trunks.map_err(|error| format!("sockets of nodes not duplicated: {error}"))?;
        let policies = self.gateway.handle.policy_records().await;
        let policies = policies.map_err(|error| format!("policies not handed over: {error:?}"))?;
        let (mut names, mut sockets) = (Vec::new(), Vec::new());
        let own: &NamedSockets = self.sockets;
        for (name, socket) in own.iter().chain(&trunks) {
            names.push(name.clone());
            sockets.push(socket.as_fd());
        }
        if let Some(init) = init {
            names.push(SocketName::Init);
            sockets.push(init);
        }
        let offer = UpgradeOffer {
            confined: self.confined,
            workers: self.workers,
            sockets: names,
            quic: self.quic.clone(),
            ownership,
        };
        let offer = serde_json::to_value(offer).expect("an offer is words and numbers");
        let hello = HandoverMessage::Hello { version: ProtocolVersion::own(), offer };
        let policies = encode_policies(&policies);
        self.send(channel, "sockets", GREETED_WITHIN, &hello, &policies, &sockets).await
    }

    /// Sends a message. An error names `what` was to be sent.
    async fn send(
        &mut self,
        channel: &mut Channel,
        what: &str,
        within: Duration,
        message: &HandoverMessage,
        attachment: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), String> {
        let message = message.encode();
        let sent = self.within(within, channel.send(&message, attachment, descriptors)).await?;
        sent.map_err(|error| format!("{what} not sent to the new process: {error}"))
    }

    /// Sends the records of all sessions, and stops the API and then decisions.
    async fn suspend(&mut self, channel: &mut Channel) -> Result<Suspended, String> {
        let mut batches = self.send_records(channel).await?;
        self.api.pause();
        let suspended = self.gateway.handle.suspend().await.map_err(|error| error.to_string())?;
        while let Ok(batch) = batches.try_recv() {
            self.send_batch(channel, &batch).await?;
        }
        Ok(suspended)
    }

    /// Sends all records, so that few are left for the time in which nothing is decided.
    async fn send_records(
        &mut self,
        channel: &mut Channel,
    ) -> Result<mpsc::Receiver<RecordBatch>, String> {
        let batches = self.gateway.handle.follow_records(true).await;
        let mut batches = batches.map_err(|_| "the gateway did not answer".to_owned())?;
        let until = Instant::now() + RECORDS_WITHIN;
        // Without a whole copy by then, all records are sent while nothing is decided.
        while Instant::now() < until
            && let Some(batch) = batches.recv().await
        {
            self.send_batch(channel, &batch).await?;
            if batch.is_whole() && batches.is_empty() {
                break;
            }
        }
        Ok(batches)
    }

    async fn send_batch(
        &mut self,
        channel: &mut Channel,
        batch: &RecordBatch,
    ) -> Result<(), String> {
        tracing::debug!(number = batch.number(), "records are sent");
        let (message, batch) = (HandoverMessage::Records, batch.encode());
        self.send(channel, "records", RESTORED_WITHIN, &message, &batch, &[]).await
    }

    /// Stops packets, and sends the last states.
    async fn send_media(
        &mut self,
        channel: &mut Channel,
        layout: Option<u32>,
    ) -> Result<(), String> {
        let states = self.gateway.handle.suspend_packets().await;
        let mut states = states.map_err(|error| error.to_string())?;
        let sending = async {
            // The new process continues sessions while the workers hand out others.
            loop {
                let part = states.next().await;
                let LastStatesPart { states, is_last } = part.map_err(|error| error.to_string())?;
                let message =
                    if is_last { HandoverMessage::Media } else { HandoverMessage::MediaPart };
                let sent = channel.send(&message.encode(), &states.encode(layout), &[]).await;
                sent.map_err(|error| format!("states not sent to the new process: {error}"))?;
                if is_last {
                    return Ok(());
                }
            }
        };
        self.within(RESTORED_WITHIN, sending).await?
    }

    /// Sends `go`, as a whole, and returns true. The new process serves then. If it has withdrawn it receives nothing,
    /// and its reason follows.
    async fn send_go(&mut self, attempt: &mut Attempt) -> bool {
        let Attempt { channel, connections, .. } = attempt;
        if channel.has_arrived() {
            return false;
        }
        let go = HandoverMessage::Go.encode();
        let encoded = connections.as_ref().map(quic::HandedConnections::encode);
        let links: Vec<_> = connections.iter().flat_map(quic::HandedConnections::links).collect();
        let sending = channel.send(&go, encoded.as_deref().unwrap_or_default(), &links);
        matches!(self.within(RESTORED_WITHIN, sending).await, Ok(Ok(())))
    }

    /// The next message of the new process, unless that is its failure.
    async fn hear(
        &mut self,
        attempt: &mut Attempt,
        within: Duration,
    ) -> Result<HandoverMessage, String> {
        let reason =
            match self.within(within, attempt.channel.receive(ReceiveLimits::FROM_NEW)).await? {
                Ok(Some(ChannelFrame { message, .. })) => {
                    return match HandoverMessage::decode(&message)? {
                        HandoverMessage::Failed { reason } => Err(reason),
                        other => Ok(other),
                    };
                }
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(format!("the new process cannot be understood: {error}"));
                }
                Ok(None) => "the new process closed its standard input".to_owned(),
                Err(error) => format!("the new process cannot be heard: {error}"),
            };
        Err(attempt.explain(reason).await)
    }

    /// Awaits a step of the new process, unless the gateway shuts down.
    async fn within<T>(
        &mut self,
        limit: Duration,
        step: impl Future<Output = T>,
    ) -> Result<T, String> {
        tokio::select! {
            biased;
            _ = self.ending.wait_for(|ending| *ending) => {
                Err("the gateway is shutting down".to_owned())
            }
            done = tokio::time::timeout(limit, step) => {
                done.map_err(|_| format!("the new process did not answer within {limit:?}"))
            }
        }
    }
}
