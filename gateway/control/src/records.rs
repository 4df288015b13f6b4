//! Records of sessions for a follower, as they change: first all of them in slices, then those that changed in each turn of
//! control. With them a standby or the next process continues the sessions.
//!
//! The state at the workers, which changes with each packet, is copied soon after a session's legs, hop or address
//! changed, and otherwise each second; the states of sessions at degradation policies, which change with each tick, each
//! second.

mod replica;

use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use evenkeel_core::{ChangedRecords, GatewayRecord};
use evenkeel_dataplane::worker::{Copies, WorkerCommand};
use evenkeel_model::{RoomId, SessionId};
pub use replica::Replica;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::snapshot::{self, MediaRecord, Snapshot, SnapshotError};
use super::suspension::identity;
use super::thread::{Control, NodeResources};
use crate::KeyRecord;

/// Sessions and rooms in a batch: less than a millisecond of control's time.
const SLICE: usize = 128;

/// Sessions and rooms of a standby's first copy in each [`COPIED_EVERY`], and slots of each worker: 6,400 sessions a second,
/// for a quarter of a processor. It may come when the gateway has just taken over, and packets need the rest.
const FIRST_SLICE: usize = 32;

/// Slots of a worker that a copy looks at: a tenth of a millisecond of its time.
pub(super) const SLOTS: u32 = 128;

/// Batches that wait for the follower. Changes beyond them wait to be collected.
const BATCHES_MAX: usize = 64;

/// A follower whose queue is full for this time is dropped.
const LAGS_WITHIN: Duration = Duration::from_secs(1);

/// Interval of the parts of a first copy, and of copies of sessions that changed.
const COPIED_EVERY: Duration = Duration::from_millis(5);

/// Least number of parts in which all sessions are copied in each [`CHECKPOINT`]. Each part is a batch, and a batch costs
/// more than its states.
const PARTS_MIN: usize = 50;

/// Age of the oldest state of a session with media.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Interval of the records of nodes and regions, which change with each load report.
const NODES_EVERY: Duration = Duration::from_millis(100);

/// Records that changed since the last batch.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordBatch {
    /// 1 for the first batch of a follower.
    number: u64,
    /// The batches up to this one contain all records.
    whole: bool,
    /// The gateway decides nothing any more. States that change yet follow apart.
    last: bool,
    ended: Vec<SessionId>,
    dissolved: Vec<RoomId>,
    /// Contains changed rooms and sessions only. Without nodes, those of the last batch still hold.
    pub(crate) changed: Snapshot,
}

/// All records.
impl From<Snapshot> for RecordBatch {
    fn from(snapshot: Snapshot) -> RecordBatch {
        let (ended, dissolved) = (Vec::new(), Vec::new());
        RecordBatch { number: 1, whole: true, last: true, ended, dissolved, changed: snapshot }
    }
}

impl RecordBatch {
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Packets are forwarded after this batch.
    pub fn precedes_packets(&mut self) {
        self.last = false;
    }

    pub(super) fn add_keys(&mut self, keys: Vec<KeyRecord>) {
        self.changed.idempotency_keys.extend(keys);
    }

    pub fn encode(&self) -> Vec<u8> {
        snapshot::encode(self)
    }

    /// Reads a batch. Times in a batch of another machine count from its arrival.
    pub fn decode(encoded: &[u8], arrived: Option<Instant>) -> Result<RecordBatch, SnapshotError> {
        snapshot::decode(encoded, arrived)
    }
}

/// A follower of the records.
pub(super) struct RecordFollower {
    to: mpsc::Sender<RecordBatch>,
    /// The next process of this machine follows, until the gateway is suspended.
    hands_over: bool,
    /// The number of the last batch.
    number: u64,
    /// All records were sent.
    whole: bool,
    copying: Vec<Copying>,
    copied_last: Instant,
    /// The last part of all sessions was copied then.
    part_last: Instant,
    nodes_last: Option<Instant>,
    /// States for the next batch.
    states: Vec<MediaRecord>,
    full_since: Option<Instant>,
}

/// Copies of one worker's sessions.
#[derive(Default)]
struct Copying {
    next: u32,
    /// All slots were copied once.
    whole: bool,
    answer: Option<crossbeam_channel::Receiver<Copies>>,
}

impl RecordFollower {
    fn new(
        to: mpsc::Sender<RecordBatch>,
        hands_over: bool,
        workers: usize,
        now: Instant,
    ) -> RecordFollower {
        RecordFollower {
            to,
            hands_over,
            number: 0,
            whole: false,
            copying: (0..workers).map(|_| Copying::default()).collect(),
            copied_last: now,
            part_last: now,
            nodes_last: None,
            states: Vec::new(),
            full_since: None,
        }
    }

    /// Returns whether the follower has all records, so that only changes are left.
    pub(super) fn needs_changes_only(&self) -> bool {
        self.whole
    }

    /// Whether the follower has gone, or does not keep up.
    fn is_lost(&mut self, now: Instant) -> bool {
        if self.to.capacity() > 0 {
            self.full_since = None;
        } else {
            self.full_since.get_or_insert(now);
        }
        let lags = |since: Instant| now.saturating_duration_since(since) >= LAGS_WITHIN;
        self.to.is_closed() || self.full_since.is_some_and(lags)
    }

    fn take_copies(&mut self) {
        for copying in &mut self.copying {
            let Some(answer) = &copying.answer else { continue };
            match answer.try_recv() {
                Ok(Copies { sessions, slots }) => {
                    let record = |(state, sockets)| MediaRecord { state: Box::new(state), sockets };
                    self.states.extend(sessions.into_iter().map(record));
                    copying.answer = None;
                    if copying.next >= slots {
                        copying.next = 0;
                        copying.whole = true;
                    }
                }
                Err(TryRecvError::Empty) => {}
                // The worker has ended.
                Err(TryRecvError::Disconnected) => copying.answer = None,
            }
        }
    }

    /// The slots that the worker copies next: without a new part only those that changed.
    fn next_slots(
        &mut self,
        worker: usize,
        used: usize,
        part: bool,
    ) -> Option<(std::ops::Range<u32>, bool)> {
        let copying = &mut self.copying[worker];
        if copying.answer.is_some() {
            return None;
        }
        let slots = match copying.whole {
            true if part => used.div_ceil(parts(used)).min(SLOTS as usize) as u32,
            true => 0,
            false if self.hands_over => SLOTS,
            false => FIRST_SLICE as u32,
        };
        let from = copying.next;
        copying.next += slots;
        Some((from..copying.next, !copying.whole))
    }
}

/// The number of parts in which this many slots of a worker are copied in each [`CHECKPOINT`].
fn parts(used: usize) -> usize {
    used.div_ceil(SLOTS as usize).max(PARTS_MIN)
}

impl Control {
    /// Follows the records from now on, in place of an earlier follower. During a hand-over the channel of another
    /// follower ends at once.
    pub(super) fn follow_records(
        &mut self,
        hands_over: bool,
        now: Instant,
    ) -> mpsc::Receiver<RecordBatch> {
        let (to, batches) = mpsc::channel(BATCHES_MAX);
        let is_kept = |it: &RecordFollower| it.hands_over && !hands_over && !it.to.is_closed();
        if !self.replication.following.as_ref().is_some_and(is_kept) {
            self.gateway.records().follow();
            self.offers.idempotency_keys.follow();
            let workers = self.workers.lines.len();
            self.replication.following = Some(RecordFollower::new(to, hands_over, workers, now));
        }
        batches
    }

    /// The number of the batch with the last change: the next one, if something waits to be sent.
    pub(super) fn records_sent(&mut self) -> Option<u64> {
        let number = self.replication.following.as_ref()?.number;
        Some(number + u64::from(self.records_have_changed()))
    }

    fn records_have_changed(&mut self) -> bool {
        self.gateway.records().have_changed() || self.offers.idempotency_keys.have_changed()
    }

    pub(super) fn unfollow_records(&mut self) {
        self.replication.following = None;
        self.gateway.records().unfollow();
        self.offers.idempotency_keys.unfollow();
    }

    /// Sends the follower a batch of the records that changed.
    pub(super) fn send_changes(&mut self, now: Instant) {
        let Some(following) = &mut self.replication.following else { return };
        if following.is_lost(now) {
            return self.unfollow_records();
        }
        following.take_copies();
        let is_due = now.saturating_duration_since(following.copied_last) >= COPIED_EVERY;
        // The next process waits for the first copy for a limited time.
        let is_urgent = following.hands_over && !following.whole;
        if is_due || is_urgent {
            following.copied_last = now;
            self.ask_for_copies(now);
        }
        let changed = self.records_have_changed();
        let Some(following) = &mut self.replication.following else { return };
        let since = |last: Instant| now.saturating_duration_since(last);
        let nodes = following.nodes_last.is_none_or(|last| since(last) >= NODES_EVERY);
        let slice = match following.whole || is_urgent {
            true => SLICE,
            false if is_due => FIRST_SLICE,
            false => return,
        };
        let changed = changed || nodes || !following.states.is_empty();
        if changed && following.to.capacity() > 0 {
            let batch = self.next_batch(Some(slice), nodes, now);
            if let Some(following) = &self.replication.following {
                // Fails only for a follower that has gone.
                let _ = following.to.try_send(batch);
            }
        }
    }

    fn ask_for_copies(&mut self, now: Instant) {
        let Some(following) = &mut self.replication.following else { return };
        let most = (0..self.workers.lines.len()).map(|worker| self.registry.slots_of(worker)).max();
        let every = CHECKPOINT / parts(most.unwrap_or(0)) as u32;
        let part = now.saturating_duration_since(following.part_last) >= every;
        if part {
            following.part_last = now;
            self.gateway.records().release_deferred();
        }
        for worker in 0..self.workers.lines.len() {
            let used = self.registry.slots_of(worker);
            let slots = self
                .replication
                .following
                .as_mut()
                .and_then(|it| it.next_slots(worker, used, part));
            if let Some((slots, all)) = slots {
                let (done, answer) = crossbeam_channel::bounded(1);
                self.workers.command(worker as u16, WorkerCommand::Copy { slots, all, done });
                if let Some(following) = &mut self.replication.following {
                    following.copying[worker].answer = Some(answer);
                }
            }
        }
        self.workers.wake_workers();
    }

    /// The records of up to this many sessions and rooms that changed, or of all.
    fn next_batch(&mut self, at_most: Option<usize>, nodes: bool, now: Instant) -> RecordBatch {
        let mut records = self.gateway.records();
        let ChangedRecords { mut core, ended, dissolved, whole } = match at_most {
            Some(at_most) => records.take_changed(at_most, now),
            None => records.take_all_changed(now),
        };
        if nodes {
            let GatewayRecord { nodes, regions, memos, .. } = self.gateway.records().of_nodes();
            (core.nodes, core.regions, core.memos) = (nodes, regions, memos);
            self.nodes.name_nodes(&mut core);
        }
        let sessions: Vec<_> = core.sessions.iter().collect();
        let registry = self.registry.record_of(sessions.iter().map(|session| session.id));
        let drivers = self.signalling.drivers.record_of(&sessions);
        let mut batch = RecordBatch {
            number: 0,
            whole: false,
            last: false,
            ended,
            dissolved,
            changed: Snapshot {
                registry,
                drivers,
                media: Vec::new(),
                trunks: Vec::new(),
                next_offer: self.offers.next,
                idempotency_keys: self
                    .offers
                    .idempotency_keys
                    .take_changed(at_most.unwrap_or(usize::MAX)),
                core,
            },
        };
        let whole = whole && !self.offers.idempotency_keys.have_changed();
        if let Some(following) = &mut self.replication.following {
            if nodes {
                following.nodes_last = Some(now);
            }
            following.number += 1;
            following.whole |= whole && following.copying.iter().all(|copying| copying.whole);
            (batch.number, batch.whole) = (following.number, following.whole);
            let states = std::mem::take(&mut following.states).into_iter();
            let registry = &self.registry;
            // A session may have ended since it was copied.
            let stands = |state: &MediaRecord| registry.get(state.state.session).is_some();
            batch.changed.media = states.filter(stands).collect();
        }
        batch
    }

    /// The last batch, with these copies of sessions; without a follower, all records. Keys that are answered yet are
    /// added to it.
    pub(super) fn last_batch(&mut self, media: Vec<MediaRecord>, now: Instant) -> RecordBatch {
        if !self.replication.following.as_ref().is_some_and(RecordFollower::needs_changes_only) {
            self.unfollow_records();
            self.offers.idempotency_keys.follow();
            let mut core = self.gateway.record(now);
            self.nodes.name_nodes(&mut core);
            return RecordBatch::from(Snapshot {
                core,
                registry: self.registry.record(),
                drivers: self.signalling.drivers.record(),
                media,
                trunks: Vec::new(),
                next_offer: self.offers.next,
                idempotency_keys: Vec::new(),
            });
        }
        self.replication.following.iter_mut().for_each(RecordFollower::take_copies);
        let mut batch = self.next_batch(None, true, now);
        // These copies replace earlier ones; descriptors follow in their order.
        batch.changed.media.iter_mut().for_each(|record| record.sockets = 0);
        batch.changed.media.extend(media);
        batch.last = true;
        batch
    }
}

impl NodeResources {
    /// Names the nodes as another process identifies them.
    fn name_nodes(&self, core: &mut GatewayRecord) {
        for node in &mut core.nodes {
            if let Some(listed) = self.listed(node.hop.node) {
                node.name = identity(listed).into();
            }
        }
    }
}
