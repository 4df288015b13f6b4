//! The shared index: entries of this gateway in a key-value store, by which any gateway finds the one that serves a session.
//!
//! The gateway is the truth, the store a copy. `feed.rs` follows the sessions of control, `writer.rs` writes them to a store
//! (`store.rs`), of which `nats.rs` is one, on a thread of their own, for which no other waits. `claim.rs` keeps two groups
//! from serving one room; offers wait for it for a limited time. `ballot.rs` asks the store for its vote on the owner of a group.

mod ballot;
mod claim;
mod desired;
mod entry;
mod feed;
#[cfg(feature = "nats")]
mod nats;
#[cfg(not(feature = "nats"))]
#[path = "no_store.rs"]
mod nats;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

pub use claim::{ClaimRevision, RoomOwner};
use desired::{DesiredEntries, GroupPart};
use entry::{IndexKeys, MemberEntry, VERSION};
use evenkeel_config::GatewayConfig;
use evenkeel_control::{GatewayEvent, Handle};
use evenkeel_group::{Group, GroupRole, StoreQuestions};
use evenkeel_ownership::StoreBallot;
use evenkeel_process::unix_us;
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Count, Level};
use feed::IndexFeed;
use nats::Nats;
pub use reader::{IndexReader, IndexState, IndexStatus};
use store::{Store, StoreError};
use tokio::sync::{Semaphore, oneshot, watch};
use writer::{IndexWriter, RoundOutcome};

/// Interval at which the store is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Changes of this time are written together.
const GATHER: Duration = Duration::from_millis(50);

/// A store that does not answer for this time after the start is down.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);

/// A vote without an answer of the store by then is lost.
const VOTES_WITHIN: Duration = Duration::from_secs(1);

/// Time to remove the entries of a gateway that ends.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// This build has a store for an index.
pub const HAS_STORE: bool = cfg!(feature = "nats");

/// The reason for which the index ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexEndCause {
    /// The gateway has closed its sessions.
    Closed,
    /// Another process serves its sessions.
    Left,
}

/// The channels of the index, before its thread starts.
pub struct IndexChannels {
    settings: evenkeel_config::IndexSettings,
    member: MemberEntry,
    reader: IndexReader,
    store: watch::Sender<Option<Nats>>,
    status: watch::Sender<IndexStatus>,
}

pub struct IndexThread {
    stop: Option<oneshot::Sender<IndexEndCause>>,
    thread: Option<JoinHandle<()>>,
}

impl IndexChannels {
    /// `None`: no index is configured.
    pub fn new(settings: &GatewayConfig) -> Option<IndexChannels> {
        let index = settings.index.clone()?;
        let store = watch::Sender::default();
        let status = watch::Sender::new(IndexStatus { state: IndexState::Starting, reason: None });
        let (to_store, status_out) = (store.subscribe(), status.subscribe());
        let turn = Arc::new(Semaphore::new(1));
        let keys = IndexKeys::new(&index.group);
        let desired = DesiredEntries::default();
        let reader = IndexReader { store: to_store, turn, keys, desired, status: status_out };
        let member = MemberEntry {
            v: VERSION,
            gateway: Arc::clone(&index.gateway),
            role: GroupRole::Joining,
            epoch: 0,
            started_us: unix_us(SystemTime::now()),
            api: settings
                .admin
                .tcp
                .as_ref()
                .map(|tcp| tcp.address)
                .filter(|address| !address.ip().is_unspecified()),
        };
        Some(IndexChannels { settings: index, member, reader, store, status })
    }

    /// Reads all gateways' entries.
    pub fn reader(&self) -> IndexReader {
        self.reader.clone()
    }

    /// Starts the thread that writes this gateway's sessions. `votes`: the questions of the member to the group's ballot.
    pub fn start(
        self,
        handle: &Handle,
        group: Option<Group>,
        votes: Option<StoreQuestions>,
        instruments: Arc<Instruments>,
    ) -> io::Result<IndexThread> {
        let IndexChannels { settings, member, reader, store: connected, status } = self;
        let IndexReader { keys, desired, .. } = reader;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (handle, events) = (handle.clone(), handle.events());
        let feed = IndexFeed { handle: handle.clone(), events, desired: desired.clone() };
        let work = async move {
            // Also while there is no store.
            instruments.level(Level::IndexCurrent, 0.0, &[]);
            let store = match Nats::connect(&settings).await {
                Ok(store) => store,
                Err(error) => {
                    tracing::error!(%error, "index: not written");
                    let reason = Some(error.to_string());
                    status.send_replace(IndexStatus { state: IndexState::Unreachable, reason });
                    return;
                }
            };
            if let Some(votes) = votes {
                tokio::spawn(vote(store.clone(), keys.ballot(), votes));
            }
            let writer = IndexWriter::new(store.clone(), keys, member, desired);
            let started = Instant::now();
            let report = IndexReport { status, handle, instruments, started, repaired: 0 };
            connected.send_replace(Some(store));
            keep(writer, feed, group, report, stopped).await;
            // The connection ends with this runtime.
            connected.send_replace(None);
        };
        let thread = std::thread::Builder::new().name("evenkeel-index".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(work);
            // Does not wait until the name of a server is resolved.
            runtime.shutdown_background();
        })?;
        Ok(IndexThread { stop: Some(stop), thread: Some(thread) })
    }
}

impl IndexThread {
    /// Ends the thread; `end` decides what becomes of the entries.
    pub fn end(mut self, end: IndexEndCause) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended.
            let _ = stop.send(end);
        }
        if let Some(thread) = self.thread.take() {
            // The panic was reported already.
            let _ = thread.join();
        }
    }
}

/// Answers the member's questions. One that the store does not answer is lost; the member asks again.
async fn vote<S: Store>(store: S, key: String, mut votes: StoreQuestions) {
    let mut ballot = StoreBallot::default();
    let mut logged: Option<String> = None;
    let mut changes = ballot::changes(store.clone(), key.clone());
    loop {
        let question = tokio::select! {
            biased;
            Some(change) = changes.recv() => {
                ballot::note(&mut ballot, &change);
                continue;
            }
            question = votes.next() => question,
        };
        let Some(question) = question else { return };
        let late = || StoreError(format!("no answer within {VOTES_WITHIN:?}"));
        let voting = ballot::ask(&store, &key, &mut ballot, question.vote);
        let voted = tokio::time::timeout(VOTES_WITHIN, voting).await;
        let reason = match voted.unwrap_or_else(|_| Err(late())) {
            Ok(voted) => {
                votes.answer(question, voted);
                None
            }
            Err(StoreError(reason)) => Some(reason),
        };
        if reason != logged {
            match &reason {
                Some(reason) => tracing::warn!(reason, "index: the store does not vote"),
                None => tracing::info!("index: the store votes again"),
            }
            logged = reason;
        }
    }
}

/// Keeps the store equal to the gateway's sessions until `stopped`.
async fn keep<S: Store>(
    mut writer: IndexWriter<S>,
    mut feed: IndexFeed,
    group: Option<Group>,
    mut report: IndexReport,
    stopped: oneshot::Receiver<IndexEndCause>,
) {
    let part = || GroupPart::of(group.as_ref());
    let desired = feed.desired.clone();
    let following = async {
        feed.follow(part).await;
        pending::<()>().await;
    };
    let writing = async {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut answers = true;
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = desired.changed(), if answers => tokio::time::sleep(GATHER).await,
            }
            let written = writer.write(part()).await;
            answers = written.is_ok();
            report.note(&written, writer.repaired());
            report.note_duplicates(writer.take_duplicates());
        }
    };
    let end = tokio::select! {
        end = stopped => end.unwrap_or(IndexEndCause::Left),
        () = following => IndexEndCause::Left,
        () = writing => IndexEndCause::Left,
    };
    if end == IndexEndCause::Closed {
        feed.finish();
        let leaving = async {
            writer.write(part()).await?;
            writer.leave().await
        };
        match tokio::time::timeout(LEAVE_WITHIN, leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "index: entries of this gateway are left"),
            Err(_) => tracing::warn!("index: entries of this gateway are left: no answer"),
        }
    }
}

/// Tells operators of the state of the index.
struct IndexReport {
    status: watch::Sender<IndexStatus>,
    handle: Handle,
    instruments: Arc<Instruments>,
    started: Instant,
    repaired: u64,
}

impl IndexReport {
    fn failed(&self) -> IndexState {
        let is_starting = self.status.borrow().state == IndexState::Starting;
        let is_early = is_starting && self.started.elapsed() < CONNECTED_WITHIN;
        if is_early { IndexState::Starting } else { IndexState::Unreachable }
    }

    fn note_duplicates(&self, duplicates: Vec<(Arc<str>, RoomOwner)>) {
        for (room, RoomOwner { group, gateway, .. }) in duplicates {
            self.instruments.count(Count::IndexDuplicates, 1, &[]);
            tracing::error!(%room, group, %gateway, "index: another group has this room as well");
            self.handle.publish(GatewayEvent::RoomDuplicate { room, group: group.into(), gateway });
        }
    }

    fn note(&mut self, written: &Result<RoundOutcome, StoreError>, repaired: u64) {
        let (state, reason) = match written {
            Ok(RoundOutcome::Current) => (IndexState::Current, None),
            Ok(RoundOutcome::Unlisted) => (IndexState::Starting, None),
            Ok(RoundOutcome::Standby) => (IndexState::Standby, None),
            Ok(RoundOutcome::Fenced { owner, epoch }) => {
                let reason =
                    format!("`{owner}` owns the entries of this gateway since epoch {epoch}");
                (IndexState::Fenced, Some(reason))
            }
            Err(StoreError(reason)) => (self.failed(), Some(reason.clone())),
        };
        let current = matches!(state, IndexState::Current | IndexState::Standby);
        self.instruments.level(Level::IndexCurrent, f64::from(current), &[]);
        self.instruments.count(Count::IndexRepairs, repaired - self.repaired, &[]);
        self.instruments.count(Count::IndexFailures, u64::from(written.is_err()), &[]);
        self.repaired = repaired;
        let before = self.status.send_replace(IndexStatus { state, reason: reason.clone() });
        if before.state == state {
            return;
        }
        let reason = reason.unwrap_or_default();
        match state {
            IndexState::Starting => {}
            IndexState::Current => tracing::info!("index: has all sessions of this gateway"),
            IndexState::Standby => tracing::info!("index: the group's owner writes its sessions"),
            IndexState::Fenced => tracing::error!(
                reason,
                "index: nothing is written; give each gateway a name of its own, or delete the owner's key"
            ),
            IndexState::Unreachable => tracing::warn!(
                reason,
                "index: store not reachable; sessions continue, entries are written later"
            ),
        }
    }
}
