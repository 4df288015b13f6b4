//! Continuity: the ownership of this gateway, the follower of its records, and its suspension: it hands out its state and rests, or
//! continues the sessions of another process, until it resumes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_core::{
    GatewayEffect, GatewayRecord, HopMap, RestoreError, SessionRecord, requested_room_name,
};
use evenkeel_dataplane::SendLease;
use evenkeel_dataplane::worker::{
    Duplicate, SessionPorts, SessionState, SocketDuplicates, TrunkState, WorkerCommand,
};
use evenkeel_drivers::{ContinuedSession, DriversRecord, Fencing};
use evenkeel_kept::Store;
use evenkeel_media::srtp::IndexGrant;
use evenkeel_model::{Labels, NodeId, SessionId};
use evenkeel_process::random::draw;
use tokio::sync::oneshot;

use crate::messages::{NotSuspended, Restored, SnapshotError};
use crate::records::{RecordOwners, Replication, SLOTS};
use crate::registry::RestoringSessions;
use crate::sessions::AtWorker;
use crate::snapshot::{MediaRecord, MediaStates, RecordBatch, Snapshot};

/// Time for offers to be answered. The core gives a driver 2 s.
pub(crate) const OFFERS_WITHIN: Duration = Duration::from_millis(2_500);

/// Sessions between two wakes of the workers that install them: these work while control restores the next.
const INSTALLED_TOGETHER: usize = 64;

/// The ownership of this gateway, the follower of its records, and its suspension.
pub(crate) struct Continuity {
    fencing: Arc<Fencing>,
    lease: Arc<SendLease>,
    replication: Replication,
    /// Set from the request for a suspension to its end.
    suspension: Option<Suspension>,
    /// Shared with [`Handle`](crate::Handle).
    is_replaced: Arc<AtomicBool>,
}

/// A suspended gateway.
#[derive(Debug)]
pub struct Suspended {
    /// The records of all sessions, or the last batch of a follower.
    pub batch: RecordBatch,
    /// Duplicates of sessions' own ports, to which the batch refers.
    pub descriptors: Vec<OwnedFd>,
    /// Ends the suspension when it is dropped.
    pub guard: SuspensionGuard,
}

/// Control resumes when it is dropped: its owner can end the suspension no more.
#[derive(Debug)]
pub struct SuspensionGuard(oneshot::Sender<Infallible>);

impl SuspensionGuard {
    fn new() -> (SuspensionGuard, oneshot::Receiver<Infallible>) {
        let (guard, gone) = oneshot::channel();
        (SuspensionGuard(guard), gone)
    }

    /// Lets control stay suspended until it is released: another process serves.
    pub fn stay(self) {
        std::mem::forget(self.0);
    }
}

/// Nothing is decided from the second state on; the workers are suspended later.
enum Suspension {
    /// Offers are being answered; new ones wait.
    Begins { reply: oneshot::Sender<Result<Suspended, NotSuspended>>, by: Instant },
    /// Another process gets the sessions. The suspension ends with the party that asked for it.
    HandedOut { guard: oneshot::Receiver<Infallible> },
    /// The sessions are those of another process.
    Restored(RestoredSessions),
}

/// Sessions of another process that nothing is decided about yet.
struct RestoredSessions {
    /// They are executed once this process decides.
    effects: Vec<GatewayEffect>,
    /// The error, once a part of them was refused.
    records: Result<Box<RestoredRecords>, SnapshotError>,
}

impl RestoredSessions {
    /// The process that they come from may go on with them.
    fn are_prepared(&self) -> bool {
        !self.records.as_ref().is_ok_and(|records| records.unshared.is_none())
    }
}

/// Restored records of another process. This one continues the sessions.
struct RestoredRecords {
    translation: Translation,
    /// The time at which restoring began.
    since: Instant,
    /// `None` once they are restored.
    unshared: Option<UnsharedRecords>,
}

/// The numbers that hops, listeners and nodes of another process have here.
struct Translation {
    hops: HopMap,
    listeners: Vec<Option<u8>>,
    nodes: BTreeMap<NodeId, NodeId>,
}

impl Translation {
    fn apply(&self, state: &mut SessionState) {
        let listener = |number| self.listeners.get(usize::from(number)).copied().flatten();
        state.map_hops(|hop| self.hops.map(hop));
        state.map_listeners(listener);
    }
}

/// Records that continue the numbers of another process on trunks and at nodes, which two processes must not use.
struct UnsharedRecords {
    drivers: DriversRecord,
    trunks: Vec<Vec<TrunkState>>,
}

impl Continuity {
    pub(crate) fn new(
        fencing: Arc<Fencing>,
        lease: Arc<SendLease>,
        grant: Arc<IndexGrant>,
        kept: Store,
        is_replaced: Arc<AtomicBool>,
    ) -> Continuity {
        let replication = Replication::new(grant, kept);
        Continuity { fencing, lease, replication, suspension: None, is_replaced }
    }

    pub(crate) fn replication(&mut self) -> &mut Replication {
        &mut self.replication
    }

    /// Returns true while nothing is decided.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.suspension, Some(Suspension::HandedOut { .. } | Suspension::Restored(_)))
    }

    /// Returns true from the request for a suspension to its end: new offers wait.
    pub(crate) fn holds_offers(&self) -> bool {
        self.suspension.is_some()
    }

    /// An owner without the lease may have been replaced, for example while it was stopped. One that hands over knows.
    pub(crate) fn lacks_lease(&self) -> bool {
        self.fencing.owner().is_some()
            && !self.lease.is_held(Instant::now)
            && self.suspension.is_none()
    }

    /// A node refused a message because its group has this newer epoch.
    pub(crate) fn handle_fenced(&self, node: NodeId, epoch: u64) {
        self.fencing.handle_refused(node, epoch);
    }

    /// Has the gateway suspended as soon as no offer is in flight.
    pub(crate) fn begin_suspension(
        &mut self,
        reply: oneshot::Sender<Result<Suspended, NotSuspended>>,
        is_admitting: bool,
        awaits_policies: bool,
        now: Instant,
    ) {
        let refused = match self.suspension {
            Some(_) => Some(NotSuspended::UnderWay),
            None if !is_admitting => Some(NotSuspended::Draining),
            None if awaits_policies => Some(NotSuspended::Starting),
            None => None,
        };
        match refused {
            // Fails only for a caller that has gone.
            Some(refused) => _ = reply.send(Err(refused)),
            None => self.suspension = Some(Suspension::Begins { reply, by: now + OFFERS_WITHIN }),
        }
    }

    /// Returns true if the records are to be handed out. `is_idle`: no offer is in flight.
    pub(crate) fn is_suspension_due(&self, is_idle: bool) -> bool {
        let due = |by: Instant| is_idle || by <= Instant::now();
        matches!(self.suspension, Some(Suspension::Begins { by, .. }) if due(by))
    }

    /// Returns the records of all sessions; with a follower, its last batch. Nothing may be decided from then on.
    pub(crate) fn hand_out(
        &mut self,
        owners: &mut RecordOwners<'_>,
    ) -> Result<(RecordBatch, Vec<OwnedFd>), NotSuspended> {
        let all = !self.replication.needs_changes_only();
        let for_standby = self.replication.begin_last_copies();
        let (mut media, mut descriptors) = (Vec::new(), Vec::new());
        let (mut slot, mut slots) = (0, 1);
        // The workers serve their sessions meanwhile, so each copies a few at a time.
        while slot < slots {
            let part = slot..slot + SLOTS;
            let duplicates = owners.sessions.workers_mut().ask_workers(|done| {
                let slots = part.clone();
                WorkerCommand::Duplicate { slots, all, for_standby, done }
            });
            for duplicates in duplicates.map_err(NotSuspended::Worker)? {
                let SocketDuplicates { sessions, slots: used } =
                    duplicates.map_err(|error| NotSuspended::Port(error.to_string().into()))?;
                slots = slots.max(used);
                for Duplicate { state, ports } in sessions {
                    let own = ports.into_iter().flat_map(|(rtp, rtcp)| [Some(rtp), rtcp]).flatten();
                    let before = descriptors.len();
                    descriptors.extend(own);
                    let sockets = (descriptors.len() - before) as u8;
                    media.push(MediaRecord { state: Box::new(state), sockets });
                }
            }
            slot += SLOTS;
        }
        Ok((self.replication.last_batch(owners, media, Instant::now()), descriptors))
    }

    /// Answers the request for a suspension. Returns whether the gateway is suspended.
    pub(crate) fn suspend(
        &mut self,
        handed_out: Result<(RecordBatch, Vec<OwnedFd>), NotSuspended>,
    ) -> bool {
        let Some(Suspension::Begins { reply, .. }) = self.suspension.take() else { return false };
        let (guard, gone) = SuspensionGuard::new();
        self.suspension = handed_out.is_ok().then_some(Suspension::HandedOut { guard: gone });
        let suspended =
            handed_out.map(|(batch, descriptors)| Suspended { batch, descriptors, guard });
        // A caller that has gone drops the guard.
        let _ = reply.send(suspended);
        self.is_suspended()
    }

    /// Returns once the party that asked for the suspension can end it no more.
    pub(crate) async fn guard_dropped(&mut self) {
        match &mut self.suspension {
            Some(Suspension::HandedOut { guard }) => _ = guard.await,
            _ => std::future::pending().await,
        }
    }

    /// Continues the sessions of another process. Nothing is read, sent or decided before the suspension ends.
    pub(crate) fn restore(
        &mut self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
        owners: &mut RecordOwners<'_>,
    ) -> Result<Restored, SnapshotError> {
        let restored = self.prepare(snapshot, descriptors, owners);
        self.restore_unshared(owners);
        // The standby of a process that ends may still take over.
        self.replication.inherit_grant(Instant::now());
        restored
    }

    /// Continues the sessions of another process, without the records that two processes must not use.
    /// [`Continuity::forget_restored`] removes them; the trust in nodes stays as it was there.
    pub(crate) fn prepare(
        &mut self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
        owners: &mut RecordOwners<'_>,
    ) -> Result<Restored, SnapshotError> {
        if owners.gateway.live() > 0 || !owners.sessions.offers().is_idle() {
            return Err(RestoreError::HasSessions.into());
        }
        let mut effects = Vec::new();
        let all = restore_all(snapshot, descriptors, owners, &mut effects);
        // After an error a part of the sessions may be here, and must neither be served nor closed.
        let (records, result) = match all {
            Ok((records, sessions)) => (Ok(Box::new(records)), Ok(Restored { sessions })),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        self.suspension = Some(Suspension::Restored(RestoredSessions { effects, records }));
        result
    }

    /// Forgets prepared sessions of a process that goes on, and ends the suspension. Returns effects that waited.
    pub(crate) fn forget_restored(&mut self, owners: &mut RecordOwners<'_>) -> Vec<GatewayEffect> {
        let are_prepared = |suspension: &mut Suspension| match suspension {
            Suspension::Restored(restored) => restored.are_prepared(),
            Suspension::Begins { .. } | Suspension::HandedOut { .. } => false,
        };
        let prepared = self.suspension.take_if(are_prepared);
        let Some(Suspension::Restored(prepared)) = prepared else { return Vec::new() };
        while owners.gateway.poll_output().is_some() {}
        owners.gateway.forget_restored();
        owners.sessions.forget_restored();
        prepared.effects
    }

    /// Restores the records that two processes must not use, unless it was done.
    pub(crate) fn restore_unshared(&mut self, owners: &mut RecordOwners<'_>) {
        let Some(Suspension::Restored(RestoredSessions { records: Ok(records), .. })) =
            &mut self.suspension
        else {
            return;
        };
        let Some(UnsharedRecords { drivers, trunks }) = records.unshared.take() else { return };
        let translation = &records.translation;
        let registry = owners.sessions.registry();
        let known = ContinuedSession {
            hop: &|session, hop| {
                translation.hops.map(hop).filter(|_| registry.get(session).is_some())
            },
            facts: &|session| registry.get(session)?.facts(),
        };
        owners.nodes.drivers_mut().restore(drivers, &known, &mut draw, Instant::now());
        owners.sessions.workers_mut().continue_trunks(trunks, &translation.nodes);
    }

    /// Continues restored sessions and trunks in these newer states. With `last`, no others follow.
    pub(crate) fn continue_media(
        &mut self,
        states: MediaStates,
        last: Option<oneshot::Sender<Result<(), SnapshotError>>>,
        owners: &mut RecordOwners<'_>,
    ) {
        let continued = self.continue_with(states, owners);
        match last {
            Some(reply) => {
                let confirmed = continued.and_then(|()| owners.sessions.confirm_restored());
                // Fails only for a caller that has gone.
                let _ = reply.send(confirmed);
            }
            None => {
                // The reply to the last part names it.
                if let Err(refused) = continued
                    && let Some(Suspension::Restored(restored)) = &mut self.suspension
                {
                    restored.records = Err(refused);
                }
            }
        }
    }

    fn continue_with(
        &self,
        states: MediaStates,
        owners: &mut RecordOwners<'_>,
    ) -> Result<(), SnapshotError> {
        let Some(Suspension::Restored(restored)) = &self.suspension else {
            return Err(SnapshotError::malformed("no sessions came before their states"));
        };
        let translation = &restored.records.as_ref().map_err(SnapshotError::clone)?.translation;
        let MediaStates { mut media, trunks } = states;
        media.iter_mut().for_each(|record| translation.apply(&mut record.state));
        let continued = owners.sessions.continue_media(media, trunks, &translation.nodes);
        continued.map_err(contradiction)
    }

    /// Returns true if the sessions are those of another process, or a part of them.
    pub(crate) fn is_restored(&self) -> bool {
        matches!(self.suspension, Some(Suspension::Restored(_)))
    }

    /// The time at which restoring began; `None` if a part of the sessions was refused.
    pub(crate) fn restored_since(&self) -> Option<Instant> {
        match &self.suspension {
            Some(Suspension::Restored(restored)) => Some(restored.records.as_ref().ok()?.since),
            _ => None,
        }
    }

    /// Ends the suspension. Returns effects that waited; `None` if control has decided all the time.
    pub(crate) fn end_suspension(&mut self) -> Option<Vec<GatewayEffect>> {
        match self.suspension.take()? {
            Suspension::Begins { .. } => None,
            Suspension::HandedOut { .. } => Some(Vec::new()),
            Suspension::Restored(restored) => Some(restored.effects),
        }
    }

    /// Another process has replaced this one.
    pub(crate) fn note_replaced(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }
}

fn restore_all(
    snapshot: Snapshot,
    descriptors: Vec<OwnedFd>,
    owners: &mut RecordOwners<'_>,
    effects: &mut Vec<GatewayEffect>,
) -> Result<(RestoredRecords, usize), SnapshotError> {
    let RecordOwners { settings, gateway, sessions, nodes, policies, .. } = owners;
    let now = Instant::now();
    let mut snapshot = snapshot;
    if descriptors.is_empty() {
        snapshot.media.iter_mut().for_each(|record| record.sockets = 0);
    }
    snapshot.lose_ports();
    let Snapshot { core, registry, drivers, media, trunks, next_offer, policies: records, .. } =
        snapshot;
    policies.restore(records, gateway, now);
    let at_workers = at_workers(media, descriptors)?;
    let RestoringSessions { entries, listeners } = sessions.begin_restore(registry)?;
    let mut facts_of_sessions = if sessions.registry().keeps_session_facts() {
        session_facts(&core)
    } else {
        BTreeMap::new()
    };
    let here = nodes.by_identity();
    let node = |identity: &str| here.get(identity).copied();
    let numbers = core.nodes.iter().filter_map(|old| Some((old.hop.node, node(&old.name)?)));
    let numbers: BTreeMap<NodeId, NodeId> = numbers.collect();
    let hops = gateway.handle_record(core, node, now)?;
    sessions.registry().traces().set_group(gateway.next_session());
    let translation = Translation { hops, listeners, nodes: numbers };
    // All parts have the order of the sessions.
    let mut entries = entries.into_iter();
    let mut at_workers = at_workers.into_iter().peekable();
    let mut count = 0;
    while let Some(output) = gateway.poll_output() {
        let GatewayEffect::Restore(restored) = output else {
            effects.push(output);
            continue;
        };
        let session = restored.session;
        let entry = entries.next().filter(|entry| entry.session == session);
        let entry = entry.ok_or_else(|| contradiction(session))?;
        let mut at_worker = at_workers.next_if(|it| it.state.session == session);
        at_worker.iter_mut().for_each(|it| translation.apply(&mut it.state));
        let scenario = settings.scenario(&restored.scenario).map(|(_, scenario)| scenario);
        let keeps_ssrc = nodes.listed().keep_ssrc(&gateway.views().nodes_of(restored.room));
        sessions.restore(
            restored,
            at_worker,
            facts_of_sessions.remove(&session),
            entry,
            scenario,
            keeps_ssrc,
        )?;
        count += 1;
        if count % INSTALLED_TOGETHER == 0 {
            sessions.workers_mut().wake_workers();
        }
    }
    let mut left = entries.map(|it| it.session).chain(at_workers.map(|it| it.state.session));
    if let Some(left) = left.next() {
        return Err(contradiction(left));
    }
    sessions.offers_mut().number_from(next_offer);
    sessions.confirm_restored()?;
    let unshared = Some(UnsharedRecords { drivers, trunks });
    Ok((RestoredRecords { translation, since: now, unshared }, count))
}

fn contradiction(session: SessionId) -> SnapshotError {
    SnapshotError::malformed(format!("{session} is in one part and not in another"))
}

/// The states of sessions at workers, with their sockets, in the order of the sessions.
fn at_workers(
    records: Vec<MediaRecord>,
    descriptors: Vec<OwnedFd>,
) -> Result<Vec<AtWorker>, SnapshotError> {
    let named: usize = records.iter().map(|record| usize::from(record.sockets)).sum();
    let came = descriptors.len();
    if named != came {
        let reason = format!("it names {named} sockets, and {came} came with it");
        return Err(SnapshotError::malformed(reason));
    }
    let mut descriptors = descriptors.into_iter().map(UdpSocket::from);
    let mut at_workers = Vec::with_capacity(records.len());
    for MediaRecord { state, sockets } in records {
        let rtp = (sockets > 0).then(|| descriptors.next()).flatten();
        let rtcp = (sockets > 1).then(|| descriptors.next()).flatten();
        let ports = rtp.map(|rtp| SessionPorts::new(rtp, rtcp).map(Box::new)).transpose();
        let ports = ports.map_err(|error| {
            SnapshotError::malformed(format!("a socket of {}: {error}", state.session))
        })?;
        at_workers.push(AtWorker { state, ports });
    }
    at_workers.sort_by_key(|it| it.state.session);
    Ok(at_workers)
}

/// Room names and labels, for drivers that describe sessions to nodes.
fn session_facts(core: &GatewayRecord) -> BTreeMap<SessionId, (Arc<str>, Labels)> {
    let names = core.rooms.iter().map(|room| (room.id, requested_room_name(&room.name).into()));
    let names: BTreeMap<_, Arc<str>> = names.collect();
    let facts = |session: &SessionRecord| {
        let name = names.get(&session.room)?;
        Some((session.id, (Arc::clone(name), session.labels.clone())))
    };
    core.sessions.iter().filter_map(facts).collect()
}

#[cfg(test)]
mod tests;
