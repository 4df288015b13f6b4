//! Records of sessions for a follower, as they change: first all of them in slices, then those that changed in each turn of
//! control. With them a standby or the next process continues the sessions.
//!
//! The state at the workers, which changes with each packet, is copied soon after a session's legs, hop or address
//! changed, and otherwise each second; the states of sessions at degradation policies, which change with each tick, each
//! second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use evenkeel_config::GatewayConfig;
use evenkeel_core::{ChangedRecords, Gateway, GatewayRecord};
use evenkeel_dataplane::worker::{Copies, WorkerCommand};
use evenkeel_kept::{Follower, Store};
use evenkeel_media::srtp::{CopyNumber, IndexGrant};
use evenkeel_model::PolicyName;
use evenkeel_policies::{PolicyRecord, PolicyRecords};
use evenkeel_slo::SloRecord;
use tokio::sync::mpsc;

use crate::history::{HistoryPosition, SessionHistory};
use crate::messages::LastChange;
use crate::nodes::Nodes;
use crate::policies::PolicyRunner;
use crate::sessions::Sessions;
use crate::snapshot::{MediaRecord, RecordBatch, Snapshot};

/// Sessions and rooms in a batch for the next process of this machine: less than a millisecond of control's time.
const HAND_OVER_SLICE: usize = 128;

/// Sessions and rooms in a batch for a standby, which reads one in about 0.1 ms and sends no beat meanwhile: the lease of this gateway
/// is renewed by beats, and ends after 24 ms.
const SLICE: usize = 32;

/// Records of ended sessions in a batch, and ratings: a standby that joins gets 16,384 of each within a minute, beside all else.
const HISTORY_SLICE: usize = 8;

/// Bytes of documents in a batch, so that none delays a beat. A longer row is sent alone.
const KEPT_BYTES: usize = 16 << 10;

/// Sessions and rooms of a standby's first copy in each [`COPIED_EVERY`], and slots of each worker: 3,200 sessions a second,
/// for an eighth of a processor. It may come when the gateway has just taken over, and packets need the rest.
const FIRST_SLICE: usize = 16;

/// Slots of a worker that a copy looks at: a tenth of a millisecond of its time.
pub(crate) const SLOTS: u32 = 128;

/// Batches that wait for the follower. Changes beyond them wait to be collected.
const BATCHES_MAX: usize = 64;

/// A follower whose queue is full for this time is dropped.
const LAGS_WITHIN: Duration = Duration::from_secs(1);

/// Interval of the parts of a first copy, and of copies of sessions that changed.
const COPIED_EVERY: Duration = Duration::from_millis(5);

/// Least interval of batches of changes. The loop of control turns for each report, and each batch has a fixed cost at both
/// gateways.
const BATCH_EVERY: Duration = Duration::from_millis(1);

/// Least number of parts in which all sessions are copied in each [`CHECKPOINT`]. Each part is a batch, and a batch costs
/// more than its states.
const PARTS_MIN: usize = 50;

/// Age of the oldest state of a session with media.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// Interval of the records of nodes and regions, which change with each load report.
const NODES_EVERY: Duration = Duration::from_millis(100);

/// Interval of copies of one scenario's windows of service level objectives each, up to 5 KiB: so no batch is large.
const SLO_EVERY: Duration = Duration::from_secs(1);

/// Sends the records to a follower.
pub(crate) struct Replication {
    /// The indices of SRTP that a standby allows.
    grant: Arc<IndexGrant>,
    kept: Store,
    follower: Option<RecordFollower>,
    /// The part of the history from which the next standby continues.
    history: HistoryPosition,
}

struct RecordFollower {
    to: mpsc::Sender<RecordBatch>,
    /// The next process of this machine follows, until the gateway is suspended.
    hands_over: bool,
    number: u64,
    /// The number of this standby in the grant of indices; 0 for the next process of this machine.
    standby: u64,
    /// The newest batch that the standby had acknowledged when the oldest copies in `states` were requested.
    echo: Option<u64>,
    /// The copies in `states`.
    copies: Vec<CopyNumber>,
    /// All records were sent.
    whole: bool,
    copying: Vec<Copying>,
    copied_last: Instant,
    sent_last: Instant,
    /// The last part of all sessions was copied then.
    part_last: Instant,
    nodes_last: Option<Instant>,
    slos: SloCopies,
    states: Vec<MediaRecord>,
    /// Policies whose records are to be sent.
    policies: BTreeSet<PolicyName>,
    /// The documents that it has.
    kept: Follower,
    /// The plugins that the last record of each policy names.
    sent_records: BTreeMap<PolicyName, Vec<Arc<str>>>,
    /// The plugins that the follower has.
    sent_files: BTreeSet<Arc<str>>,
    history: HistoryPosition,
    full_since: Option<Instant>,
}

/// Copies of one worker's sessions.
#[derive(Default)]
struct Copying {
    next: u32,
    /// All slots were copied once.
    whole: bool,
    answer: Option<crossbeam_channel::Receiver<Copies>>,
    /// The newest batch that the standby had acknowledged when the copies were requested.
    echo: u64,
}

impl RecordFollower {
    fn new(
        to: mpsc::Sender<RecordBatch>,
        standby: Option<u64>,
        history: HistoryPosition,
        owners: &RecordOwners<'_>,
        now: Instant,
    ) -> RecordFollower {
        let workers = owners.sessions.workers().count();
        RecordFollower {
            to,
            hands_over: standby.is_none(),
            number: 0,
            standby: standby.unwrap_or_default(),
            echo: None,
            copies: Vec::new(),
            whole: false,
            copying: (0..workers).map(|_| Copying::default()).collect(),
            copied_last: now,
            sent_last: now,
            part_last: now,
            nodes_last: None,
            slos: SloCopies::new(now),
            states: Vec::new(),
            policies: owners.policies.threads().names().cloned().collect(),
            kept: Follower::default(),
            sent_records: BTreeMap::new(),
            sent_files: BTreeSet::new(),
            history,
            full_since: None,
        }
    }

    /// Returns whether the follower has gone, or does not keep up.
    fn is_lost(&mut self, now: Instant) -> bool {
        if self.to.capacity() > 0 {
            self.full_since = None;
        } else {
            self.full_since.get_or_insert(now);
        }
        let lags = |since: Instant| now.saturating_duration_since(since) >= LAGS_WITHIN;
        self.to.is_closed() || self.full_since.is_some_and(lags)
    }

    /// The number of changed sessions and rooms, and of keys, in a batch.
    fn slice(&self) -> usize {
        match (self.hands_over, self.whole) {
            (true, _) => HAND_OVER_SLICE,
            (false, true) => SLICE,
            (false, false) => FIRST_SLICE,
        }
    }

    fn take_copies(&mut self) {
        for copying in &mut self.copying {
            let Some(answer) = &copying.answer else { continue };
            match answer.try_recv() {
                Ok(Copies { sessions, slots, number }) => {
                    self.echo = Some(self.echo.map_or(copying.echo, |echo| echo.min(copying.echo)));
                    self.copies.push(number);
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

    fn ask_for_copies(&mut self, grant: &IndexGrant, owners: &mut RecordOwners<'_>, now: Instant) {
        let RecordOwners { gateway, sessions, .. } = owners;
        let count = sessions.workers().count();
        let most = (0..count).map(|worker| sessions.registry().slots_of(worker)).max();
        let every = CHECKPOINT / parts(most.unwrap_or(0)) as u32;
        let part = now.saturating_duration_since(self.part_last) >= every;
        if part {
            self.part_last = now;
            gateway.records().release_deferred();
        }
        for worker in 0..count {
            let used = sessions.registry().slots_of(worker);
            if let Some((slots, all)) = self.next_slots(worker, used, part) {
                let (done, answer) = crossbeam_channel::bounded(1);
                let for_standby = !self.hands_over;
                let command = WorkerCommand::Copy { slots, all, for_standby, done };
                self.copying[worker].echo = grant.batch();
                self.copying[worker].answer = Some(answer);
                sessions.workers_mut().command(worker as u16, command);
            }
        }
        sessions.workers_mut().wake_workers();
    }

    /// The records of up to this many sessions and rooms that changed, or of all.
    fn next_batch(
        &mut self,
        grant: &IndexGrant,
        kept: &Store,
        owners: &mut RecordOwners<'_>,
        at_most: Option<usize>,
        with_nodes: bool,
        now: Instant,
    ) -> RecordBatch {
        let policies = self.take_policies(owners, at_most.is_none());
        let RecordOwners { gateway, sessions, nodes, .. } = owners;
        let mut records = gateway.records();
        let ChangedRecords { mut core, ended, dissolved, whole } =
            records.take_changed(at_most, now);
        if with_nodes {
            let GatewayRecord { rooms, sessions, media, .. } = core;
            core = GatewayRecord { rooms, sessions, media, ..gateway.records().of_nodes() };
            nodes.name_nodes(&mut core);
            self.nodes_last = Some(now);
        }
        core.slo = self.slos.next(gateway, at_most.is_none(), now);
        let changed: Vec<_> = core.sessions.iter().collect();
        let entries = sessions.registry().record_of(changed.iter().map(|session| session.id));
        let drivers = nodes.drivers().record_of(&changed, self.hands_over);
        let keys = sessions.idempotency_keys();
        let idempotency_keys = keys.take_changed(at_most.unwrap_or(usize::MAX));
        let kept = match at_most {
            Some(_) => kept.next_part_now(&mut self.kept, KEPT_BYTES),
            None => kept.next_part(&mut self.kept, usize::MAX),
        };
        self.number += 1;
        self.whole |= whole
            && self.kept.is_whole()
            && keys.changed() == 0
            && self.policies.is_empty()
            && self.copying.iter().all(|copying| copying.whole);
        // A session may have ended since it was copied.
        let registry = sessions.registry();
        let stands = |state: &MediaRecord| registry.get(state.state.session).is_some();
        let media = std::mem::take(&mut self.states).into_iter().filter(stands).collect();
        let slice = at_most.map_or(HAND_OVER_SLICE, |_| HISTORY_SLICE);
        let (record, history) = owners.history.records_from(self.history.record, slice);
        let (rating, ratings) = owners.history.ratings_from(self.history.rating, slice);
        self.history = HistoryPosition { record, rating };
        RecordBatch {
            number: self.number,
            whole: self.whole,
            last: false,
            ended,
            dissolved,
            changed: Snapshot {
                registry: entries,
                drivers,
                media,
                trunks: Vec::new(),
                next_offer: owners.sessions.offers().next_number(),
                idempotency_keys,
                policies,
                core,
            },
            history,
            ratings,
            // A standby of an earlier version reads these.
            operations: kept.as_ref().and_then(|part| part.document("")),
            alerts: kept.as_ref().and_then(|part| part.document("")),
            kept,
            forecasts: None,
            changes: Vec::new(),
            certificates: None,
            echo: self.echo.take().unwrap_or_else(|| grant.batch()),
            standby: self.standby,
            copies: std::mem::take(&mut self.copies),
        }
    }

    /// The next part of the changed records, or all parts: a plugin that the follower lacks, or the record of a policy whose
    /// plugins it has.
    fn take_policies(&mut self, owners: &RecordOwners<'_>, all: bool) -> PolicyRecords {
        let (threads, mut taken) = (&owners.policies.threads(), PolicyRecords::default());
        while (all || taken.is_empty())
            && let Some(policy) = self.policies.first()
        {
            let record = threads.record(policy, owners.gateway);
            let lacks = |digest: &&Arc<str>| !self.sent_files.contains(*digest);
            let missing = record.as_ref().and_then(|record| record.digests().find(lacks).cloned());
            if let Some(digest) = missing {
                taken.files.extend(threads.file(&digest).map(|file| (Arc::clone(&digest), file)));
                // Without the file, the follower rejects its revision.
                self.sent_files.insert(digest);
            } else if let Some(policy) = self.policies.pop_first()
                && let Some(record) = record
            {
                self.sent_records.insert(policy, record.digests().cloned().collect());
                // The follower keeps what its records name.
                let named =
                    |digest: &Arc<str>| self.sent_records.values().flatten().any(|it| it == digest);
                self.sent_files.retain(named);
                taken.records.push(record);
            }
        }
        taken
    }

    /// The number of batches that bring the changed records of policies.
    fn policy_batches(&self, owners: &RecordOwners<'_>) -> usize {
        let record = |policy| owners.policies.threads().record(policy, owners.gateway);
        let records: Vec<_> = self.policies.iter().filter_map(record).collect();
        let digests: BTreeSet<_> = records.iter().flat_map(PolicyRecord::digests).collect();
        records.len() + digests.into_iter().filter(|it| !self.sent_files.contains(*it)).count()
    }
}

/// The number of parts in which this many slots of a worker are copied in each [`CHECKPOINT`].
fn parts(used: usize) -> usize {
    used.div_ceil(SLOTS as usize).max(PARTS_MIN)
}

/// The scenario whose windows of service level objectives were copied last.
pub(crate) struct SloCopies {
    scenario: Option<Arc<str>>,
    last: Instant,
}

impl SloCopies {
    pub(crate) fn new(now: Instant) -> SloCopies {
        SloCopies { scenario: None, last: now }
    }

    /// The windows of the next scenario once they are due, or those of all.
    pub(crate) fn next(
        &mut self,
        gateway: &mut Gateway,
        all: bool,
        now: Instant,
    ) -> Option<SloRecord> {
        let records = gateway.records();
        if all {
            return records.slo_record();
        }
        if now.saturating_duration_since(self.last) < SLO_EVERY {
            return None;
        }
        self.last = now;
        records.next_slo_record(&mut self.scenario)
    }
}

/// The owners of the records.
pub(crate) struct RecordOwners<'a> {
    pub(crate) settings: &'a GatewayConfig,
    pub(crate) gateway: &'a mut Gateway,
    pub(crate) sessions: &'a mut Sessions,
    pub(crate) nodes: &'a mut Nodes,
    pub(crate) policies: &'a mut PolicyRunner,
    pub(crate) history: &'a SessionHistory,
}

impl RecordOwners<'_> {
    /// The greatest number of changed records of one kind; a batch takes some of each.
    fn changed(&mut self) -> usize {
        self.gateway.records().changed().max(self.sessions.idempotency_keys().changed())
    }
}

impl Replication {
    pub(crate) fn new(grant: Arc<IndexGrant>, kept: Store) -> Replication {
        Replication { grant, kept, follower: None, history: HistoryPosition::default() }
    }

    /// Continues the limits of the process before this one: its standby may still take over the same sessions.
    pub(crate) fn inherit_grant(&self, now: Instant) {
        self.grant.inherit(now);
    }

    /// Follows the records from now on, in place of an earlier follower. During a hand-over the channel of another
    /// follower ends at once.
    pub(crate) fn follow(
        &mut self,
        hands_over: bool,
        owners: &mut RecordOwners<'_>,
        now: Instant,
    ) -> mpsc::Receiver<RecordBatch> {
        let (to, batches) = mpsc::channel(BATCHES_MAX);
        let is_kept = |it: &RecordFollower| it.hands_over && !hands_over && !it.to.is_closed();
        if !self.follower.as_ref().is_some_and(is_kept) {
            owners.gateway.records().follow();
            owners.sessions.idempotency_keys().follow();
            self.end_follower();
            // The next process of this machine reads the tables.
            let history = if hands_over { HistoryPosition::END } else { self.history };
            let standby = (!hands_over).then(|| self.grant.begin(now));
            let follower = RecordFollower::new(to, standby, history, owners, now);
            self.follower = Some(follower);
        }
        batches
    }

    /// The last batches of a standby may not have arrived.
    fn end_follower(&mut self) {
        if let Some(follower) = self.follower.take().filter(|it| !it.hands_over) {
            let under_way = (BATCHES_MAX * HISTORY_SLICE) as u64;
            self.history = follower.history.back(under_way);
        }
    }

    pub(crate) fn unfollow(&mut self, owners: &mut RecordOwners<'_>) {
        self.end_follower();
        owners.gateway.records().unfollow();
        owners.sessions.idempotency_keys().unfollow();
    }

    /// The last change. `None` without a follower.
    pub(crate) fn last_change(&self, owners: &mut RecordOwners<'_>) -> Option<LastChange> {
        let follower = self.follower.as_ref()?;
        let changed = owners.changed();
        // A turn through the changes may end with a batch that is not full.
        let batches = if changed == 0 { 0 } else { changed / follower.slice() + 1 };
        let parts = self.kept.parts_left(&follower.kept, KEPT_BYTES);
        let batches = follower.policy_batches(owners).max(parts).max(batches);
        let number = follower.number + batches as u64;
        Some(LastChange { number, is_for_standby: follower.whole && !follower.hands_over })
    }

    /// Has the follower get the changed record of a policy.
    pub(crate) fn note_policy(&mut self, policy: PolicyName) {
        if let Some(follower) = &mut self.follower {
            follower.policies.insert(policy);
        }
    }

    /// Has the follower get the nodes that an operation changed with the next batch.
    pub(crate) fn note_operation(&mut self) {
        if let Some(follower) = &mut self.follower {
            follower.nodes_last = None;
        }
    }

    /// Notes that copies for the last batch are being made. Returns whether they are for a standby.
    pub(crate) fn begin_last_copies(&mut self) -> bool {
        let echo = self.grant.batch();
        let standby = self.follower.as_mut().filter(|follower| !follower.hands_over);
        standby.is_some_and(|follower| {
            follower.echo.get_or_insert(echo);
            true
        })
    }

    /// Returns whether the follower has all records, so that only changes are left.
    pub(crate) fn needs_changes_only(&self) -> bool {
        self.follower.as_ref().is_some_and(|follower| follower.whole)
    }

    /// Sends the follower a batch of the records that changed.
    pub(crate) fn send_changes(&mut self, owners: &mut RecordOwners<'_>, now: Instant) {
        let Some(follower) = &mut self.follower else { return };
        if follower.is_lost(now) {
            return self.unfollow(owners);
        }
        follower.take_copies();
        let is_due = now.saturating_duration_since(follower.copied_last) >= COPIED_EVERY;
        // The next process waits for the first copy for a limited time.
        let is_urgent = follower.hands_over && !follower.whole;
        if is_due || is_urgent {
            follower.copied_last = now;
            follower.ask_for_copies(&self.grant, owners, now);
        }
        let since = |last: Instant| now.saturating_duration_since(last);
        let nodes = follower.nodes_last.is_none_or(|last| since(last) >= NODES_EVERY);
        let is_turn = match follower.whole {
            true => since(follower.sent_last) >= BATCH_EVERY,
            false => is_due || is_urgent,
        };
        if !is_turn {
            return;
        }
        let changed = owners.changed() > 0
            || nodes
            || !follower.states.is_empty()
            || !follower.policies.is_empty()
            || self.kept.has_part(&follower.kept)
            || owners.history.has_more_than(follower.history);
        if changed && follower.to.capacity() > 0 {
            follower.sent_last = now;
            let at_most = Some(follower.slice());
            let batch = follower.next_batch(&self.grant, &self.kept, owners, at_most, nodes, now);
            // Fails only for a follower that has gone.
            let _ = follower.to.try_send(batch);
        }
    }

    /// The last batch, with these copies of sessions; without a follower that needs changes only, all records. Keys
    /// that are answered yet are added to it.
    pub(crate) fn last_batch(
        &mut self,
        owners: &mut RecordOwners<'_>,
        media: Vec<MediaRecord>,
        now: Instant,
    ) -> RecordBatch {
        let Some(follower) = self.follower.as_mut().filter(|follower| follower.whole) else {
            self.unfollow(owners);
            owners.sessions.idempotency_keys().follow();
            let mut core = owners.gateway.record(now);
            owners.nodes.name_nodes(&mut core);
            let kept = self.kept.next_part(&mut Follower::default(), usize::MAX);
            let snapshot = Snapshot {
                core,
                registry: owners.sessions.registry().record(),
                drivers: owners.nodes.drivers().record(),
                media,
                trunks: Vec::new(),
                next_offer: owners.sessions.offers().next_number(),
                idempotency_keys: Vec::new(),
                policies: owners.policies.threads().records(owners.gateway),
            };
            return RecordBatch { kept, ..RecordBatch::whole(snapshot) };
        };
        follower.take_copies();
        let mut batch = follower.next_batch(&self.grant, &self.kept, owners, None, true, now);
        // These copies replace earlier ones; descriptors follow in their order.
        batch.changed.media.iter_mut().for_each(|record| record.sockets = 0);
        batch.changed.media.extend(media);
        batch.last = true;
        batch
    }
}
