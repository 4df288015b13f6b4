//! Suspension: the gateway hands out its state and rests, until it resumes or another process has its sessions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{GatewayEffect, InstalledSession, requested_room_name};
use evenkeel_dataplane::worker::{
    Duplicate, HandedOut, SessionPorts, SessionState, SocketDuplicates, WorkerCommand, WorkerReport,
};
use evenkeel_drivers::{Clock, ContinuedSession};
use evenkeel_model::{Labels, NodeId, SessionId};
use evenkeel_process::random::draw;
use tokio::sync::{mpsc, oneshot};

use crate::control::Control;
use crate::handle::ControlRequest;
use crate::last_states::LastStates;
use crate::messages::{NotSuspended, REQUESTS_MAX, Restored, SnapshotError};
use crate::records::{
    OFFERS_WITHIN, RecordSource, Replication, SLOTS, Suspended, Suspension, SuspensionGuard,
};
use crate::registry::record::{EntryRecord, RestoredParts, RestoringSessions};
use crate::reporting::Continuation;
use crate::restored::{RestoredRecords, Translation, UnsharedRecords};
use crate::snapshot::{MediaRecord, MediaStates, RecordBatch, Snapshot};
use crate::workers::WORKERS_WITHIN;

/// Rounds in which the last reports of the workers may change their sessions: one is usual.
const ROUNDS_MAX: usize = 8;

/// Sessions between two wakes of the workers that take them: a worker's queue of commands is bounded.
const WOKEN_EVERY: usize = 1_024;

/// Sessions between two wakes of the workers that install them: these work while control restores the next.
const INSTALLED_TOGETHER: usize = 64;

/// A session's part of a snapshot that its worker takes.
struct AtWorker {
    state: Box<SessionState>,
    ports: Option<Box<SessionPorts>>,
}

impl Control {
    /// The owner of the follower of records, and the owners of the records.
    pub(crate) fn record_source(&mut self) -> (&mut Replication, RecordSource<'_>) {
        let source = RecordSource {
            gateway: &mut self.gateway,
            workers: &mut self.workers,
            registry: &self.registry,
            drivers: &self.signalling.drivers,
            nodes: &self.nodes,
            offers: &self.offers,
            policies: &self.policies,
            history: self.reporting.history.kept(),
        };
        (&mut self.replication, source)
    }

    /// Has the gateway suspended as soon as no offer is in flight.
    pub(crate) fn begin_suspension(
        &mut self,
        reply: oneshot::Sender<Result<Suspended, NotSuspended>>,
        now: Instant,
    ) {
        let refused = match self.replication.suspension {
            Some(_) => Some(NotSuspended::UnderWay),
            None if !self.gateway.is_admitting() => Some(NotSuspended::Draining),
            None if self.offers.awaits_policies() => Some(NotSuspended::Starting),
            None => None,
        };
        match refused {
            // Fails only for a caller that has gone.
            Some(refused) => _ = reply.send(Err(refused)),
            None => {
                self.replication.suspension =
                    Some(Suspension::Begins { reply, by: now + OFFERS_WITHIN });
            }
        }
    }

    pub(crate) fn suspend_when_idle(&mut self, reports: &mut mpsc::Receiver<WorkerReport>) {
        let idle = self.offers.in_progress.is_empty();
        let due = |by: Instant| idle || by <= Instant::now();
        if !matches!(self.replication.suspension, Some(Suspension::Begins { by, .. }) if due(by)) {
            return;
        }
        let state = if idle { self.hand_out(reports) } else { Err(NotSuspended::Busy) };
        let (guard, gone) = SuspensionGuard::new();
        let stands = state.is_ok().then(|| Suspension::of_own_sessions(gone));
        let begun = std::mem::replace(&mut self.replication.suspension, stands);
        let Some(Suspension::Begins { reply, .. }) = begun else {
            return;
        };
        let failed = state.is_err();
        let state = state.map(|(batch, descriptors)| Suspended { batch, descriptors, guard });
        // A caller that has gone drops the guard.
        let _ = reply.send(state);
        if failed {
            self.resume(Continuation::Upgrade, || {});
        }
    }

    /// Returns the records of all sessions; with a follower, its last batch. Nothing is decided from then on.
    fn hand_out(
        &mut self,
        reports: &mut mpsc::Receiver<WorkerReport>,
    ) -> Result<(RecordBatch, Vec<OwnedFd>), NotSuspended> {
        for _ in 0..ROUNDS_MAX {
            while let Ok(report) = reports.try_recv() {
                self.handle_report(report);
            }
            if !self.drain() {
                break;
            }
        }
        let all = !self.replication.needs_changes_only();
        let for_standby = self.replication.begin_last_copies();
        let (mut media, mut descriptors) = (Vec::new(), Vec::new());
        let (mut slot, mut slots) = (0, 1);
        // The workers serve their sessions meanwhile, so each copies a few at a time.
        while slot < slots {
            let part = slot..slot + SLOTS;
            let duplicates = self.workers.ask_workers(|done| {
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
        let (replication, mut source) = self.record_source();
        Ok((replication.last_batch(&mut source, media, Instant::now()), descriptors))
    }

    /// Suspends the workers. They hand out the states that have changed since the records, while control waits for
    /// nothing.
    pub(crate) fn suspend_packets(&mut self) -> LastStates {
        let workers = self.workers.lines.len();
        let room = (0..workers).map(|worker| HandedOut::parts(self.registry.slots_of(worker)));
        let (to, parts) = mpsc::channel(room.sum());
        self.workers.command_all(|| WorkerCommand::Suspend(to.clone()));
        self.workers.wake_workers();
        let trunks = (0..workers).map(|_| None).collect();
        LastStates { parts, trunks, until: Instant::now() + WORKERS_WITHIN }
    }

    /// Handles only requests that end the suspension, among them a shutdown, and the restore. Other requests wait.
    pub(crate) async fn serve_suspended(&mut self, requests: &mut mpsc::Receiver<ControlRequest>) {
        let mut held = Vec::new();
        while !self.lifetime.finished
            && let Some(Suspension::Stands { guard, .. }) = &mut self.replication.suspension
        {
            let request = tokio::select! {
                biased;
                request = requests.recv() => request,
                () = dropped(guard) => {
                    tracing::warn!("the upgrade ended without a result; packets are read again");
                    self.resume(Continuation::Upgrade, || {});
                    continue;
                }
            };
            match request {
                Some(ControlRequest::Offer(offer, reply)) => self.offers.hold(offer, reply),
                Some(
                    request @ (ControlRequest::Suspend(_)
                    | ControlRequest::SuspendPackets(_)
                    | ControlRequest::ContinueMedia { .. }
                    | ControlRequest::Resume(..)
                    | ControlRequest::Restore { .. }
                    | ControlRequest::Prepare(..)
                    | ControlRequest::ForgetRestored(_)
                    | ControlRequest::Release(_)
                    | ControlRequest::Abandon(_)),
                ) => self.handle_request(request),
                // Control forgets prepared sessions, since the owner may live, and closes those of an upgrade under way.
                Some(request @ ControlRequest::Shutdown(..)) => {
                    self.forget_restored();
                    if self.replication.is_suspended() {
                        self.resume(Continuation::Upgrade, || {});
                    }
                    self.handle_request(request);
                }
                Some(other) if held.len() < REQUESTS_MAX => held.push(other),
                // Too many wait: the caller gets an error, as with a full queue.
                Some(_) => {}
                // No caller is left that could end the suspension.
                None => self.lifetime.finished = true,
            }
        }
        if !self.lifetime.finished {
            held.into_iter().for_each(|request| self.handle_request(request));
        }
    }

    /// Continues after a suspension, or starts workers that were suspended from the start. `served` is called once
    /// packets are served, before anything is decided. `cause` is that of restored sessions.
    pub(crate) fn resume(&mut self, cause: Continuation, served: impl FnOnce()) {
        self.restore_unshared();
        self.resume_packets();
        served();
        self.resume_decisions(cause);
    }

    fn resume_packets(&mut self) {
        let clock = Clock::read();
        // Packets wait. Agents drop those that come before a signed message from the same address. Other drivers have
        // their turn in `drain`, after the core's outputs: a call with sessions that are opened again would be deleted
        // before.
        while let Some(act) = self.signalling.drivers.handle_agents_timeout(clock) {
            self.act(Some(act));
            self.workers.wake_workers();
        }
        self.workers.command_all(|| WorkerCommand::Resume);
        self.workers.wake_workers();
    }

    fn resume_decisions(&mut self, cause: Continuation) {
        self.policies.threads.keep_records();
        let restored = match &self.replication.suspension {
            Some(Suspension::Stands { restored, .. }) => restored.as_ref(),
            _ => None,
        };
        let (is_restored, since) = match restored {
            Some(restored) => (true, restored.as_ref().ok().map(|records| records.since)),
            None => (false, None),
        };
        let is_read = self.nodes.operations.resume();
        if is_restored {
            // Restored nodes are as the operations left them.
            self.nodes.keep_started(&self.gateway);
        } else if is_read {
            self.nodes.repeat_operations(&self.settings, &mut self.gateway, Instant::now());
        }
        self.gateway.release_rollouts(Instant::now());
        if let Some(since) = since {
            self.reporting.send_continued(&self.registry, cause, since.elapsed());
        }
        // Some records were sent for the last time.
        self.replication.unfollow(&mut self.gateway, &self.offers);
        if let Some(Suspension::Stands { outputs, .. }) = self.replication.suspension.take() {
            let clock = Clock::read();
            outputs.into_iter().for_each(|output| self.execute(output, clock));
            self.gateway.settle_restored(clock.now);
        }
    }

    /// Ends control; another process has the sessions. Callers that wait get an error.
    pub(crate) fn release(&mut self) {
        self.reporting.send_all_closings();
        self.signalling.node_hooks.leave_running();
        self.offers.waiting = None;
        self.lifetime.finished = true;
    }

    /// Continues the sessions of another process. Nothing is read, sent or decided before [`Control::resume`].
    pub(crate) fn restore(
        &mut self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Restored, SnapshotError> {
        let restored = self.prepare(snapshot, descriptors);
        self.restore_unshared();
        // The standby of a process that ends may still take over.
        self.replication.grant.inherit(Instant::now());
        restored
    }

    /// Continues the sessions of another process, without the records that two processes must not use.
    /// [`Control::forget_restored`] removes them; the trust in nodes stays as it was there.
    pub(crate) fn prepare(
        &mut self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Restored, SnapshotError> {
        if self.gateway.live() > 0 || !self.offers.in_progress.is_empty() {
            return Err(evenkeel_core::RestoreError::HasSessions.into());
        }
        let mut outputs = Vec::new();
        let all = self.restore_all(snapshot, descriptors, &mut outputs);
        // After an error a part of the sessions may be here, and must neither be served nor closed.
        let (restored, result) = match all {
            Ok((restored, sessions)) => (Ok(Box::new(restored)), Ok(Restored { sessions })),
            Err(error) => (Err(error.clone()), Err(error)),
        };
        let restored = Some(restored);
        self.replication.suspension = Some(Suspension::Stands { outputs, guard: None, restored });
        result
    }

    /// Forgets prepared sessions of a process that goes on, and ends the suspension.
    pub(crate) fn forget_restored(&mut self) {
        let is_prepared = |suspension: &mut Suspension| match suspension {
            Suspension::Stands { restored: Some(restored), .. } => {
                !restored.as_ref().is_ok_and(|records| records.unshared.is_none())
            }
            _ => false,
        };
        let prepared = self.replication.suspension.take_if(is_prepared);
        let Some(Suspension::Stands { outputs, .. }) = prepared else { return };
        while self.gateway.poll_output().is_some() {}
        self.gateway.forget_restored();
        self.registry.forget_restored();
        self.workers.command_all(|| WorkerCommand::ForgetRestored);
        // The keys of the flow table are free again. A worker that has ended is reported elsewhere.
        let _ = self.workers.ask_workers(WorkerCommand::Confirm);
        let clock = Clock::read();
        outputs.into_iter().for_each(|output| self.execute(output, clock));
    }

    fn restore_unshared(&mut self) {
        let Some(Suspension::Stands { restored: Some(Ok(restored)), .. }) =
            &mut self.replication.suspension
        else {
            return;
        };
        let Some(UnsharedRecords { drivers, trunks }) = restored.unshared.take() else { return };
        let translation = &restored.translation;
        let registry = &self.registry;
        let known = ContinuedSession {
            hop: &|session, hop| {
                translation.hops.map(hop).filter(|_| registry.get(session).is_some())
            },
            brief: &|session| registry.get(session)?.brief(),
        };
        self.signalling.drivers.restore(drivers, &known, &mut draw, Instant::now());
        self.workers.continue_trunks(trunks, &translation.nodes);
    }

    fn restore_all(
        &mut self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
        outputs: &mut Vec<GatewayEffect>,
    ) -> Result<(RestoredRecords, usize), SnapshotError> {
        let now = Instant::now();
        let mut snapshot = snapshot;
        if descriptors.is_empty() {
            snapshot.media.iter_mut().for_each(|record| record.sockets = 0);
        }
        snapshot.lose_ports();
        let Snapshot { core, registry, drivers, media, trunks, next_offer, policies, .. } =
            snapshot;
        self.policies.restore(policies, &mut self.gateway, now);
        let at_workers = at_workers(media, descriptors)?;
        let RestoringSessions { entries, listeners } = self.registry.begin_restore(registry)?;
        let mut briefs = if self.registry.briefs { briefs(&core) } else { BTreeMap::new() };
        let here = self.nodes.by_identity();
        let node = |identity: &str| here.get(identity).copied();
        let nodes = core.nodes.iter().filter_map(|old| Some((old.hop.node, node(&old.name)?)));
        let nodes: BTreeMap<NodeId, NodeId> = nodes.collect();
        let hops = self.gateway.handle_record(core, node, now)?;
        self.registry.traces.set_group(self.gateway.next_session());
        let translation = Translation { hops, listeners, nodes };
        // All parts have the order of the sessions.
        let mut entries = entries.into_iter();
        let mut at_workers = at_workers.into_iter().peekable();
        let mut sessions = 0;
        while let Some(output) = self.gateway.poll_output() {
            let GatewayEffect::Restore(restored) = output else {
                outputs.push(output);
                continue;
            };
            let session = restored.session;
            let entry = entries.next().filter(|entry| entry.session == session);
            let entry = entry.ok_or_else(|| contradiction(session))?;
            let mut at_worker = at_workers.next_if(|it| it.state.session == session);
            at_worker.iter_mut().for_each(|it| translation.apply(&mut it.state));
            self.continue_session(restored, at_worker, briefs.remove(&session), entry)?;
            sessions += 1;
            if sessions % INSTALLED_TOGETHER == 0 {
                self.workers.wake_workers();
            }
        }
        let mut left = entries.map(|it| it.session).chain(at_workers.map(|it| it.state.session));
        if let Some(left) = left.next() {
            return Err(contradiction(left));
        }
        self.offers.next = self.offers.next.max(next_offer);
        // The flow table has the learned addresses of all sessions when every worker has answered.
        self.workers.ask_workers(WorkerCommand::Confirm).map_err(SnapshotError::Worker)?;
        let unshared = Some(UnsharedRecords { drivers, trunks });
        Ok((RestoredRecords { translation, since: now, unshared }, sessions))
    }

    /// Continues restored sessions and trunks in these newer states. With `last`, no others follow.
    pub(crate) fn continue_media(
        &mut self,
        states: MediaStates,
        last: Option<oneshot::Sender<Result<(), SnapshotError>>>,
    ) {
        let mut continued = self.continue_with(states);
        if last.is_some() && continued.is_ok() {
            let confirmed = self.workers.ask_workers(WorkerCommand::Confirm);
            continued = confirmed.map(drop).map_err(SnapshotError::Worker);
        }
        match (last, continued) {
            // Fails only for a caller that has gone.
            (Some(reply), continued) => _ = reply.send(continued),
            // The reply to the last part names it.
            (None, Err(refused)) => {
                if let Some(Suspension::Stands { restored, .. }) = &mut self.replication.suspension
                {
                    *restored = Some(Err(refused));
                }
            }
            (None, Ok(())) => {}
        }
    }

    fn continue_with(&mut self, states: MediaStates) -> Result<(), SnapshotError> {
        let Some(Suspension::Stands { restored: Some(restored), .. }) =
            &self.replication.suspension
        else {
            return Err(SnapshotError::malformed("no sessions came before their states"));
        };
        let translation = &restored.as_ref().map_err(SnapshotError::clone)?.translation;
        let MediaStates { media, trunks } = states;
        let mut commands = Vec::new();
        for MediaRecord { mut state, .. } in media {
            let entry = self.registry.get(state.session);
            let home = entry.ok_or_else(|| contradiction(state.session))?.home;
            translation.apply(&mut state);
            commands.push((home.worker, WorkerCommand::Continue { home, state }));
        }
        let nodes = translation.nodes.clone();
        for (number, (worker, command)) in (1..).zip(commands) {
            self.workers.command(worker, command);
            if number % WOKEN_EVERY == 0 {
                self.workers.wake_workers();
            }
        }
        self.workers.continue_trunks(trunks, &nodes);
        self.workers.wake_workers();
        Ok(())
    }

    fn continue_session(
        &mut self,
        restored: InstalledSession,
        at_worker: Option<AtWorker>,
        brief: Option<(Arc<str>, Labels)>,
        entry: EntryRecord,
    ) -> Result<(), SnapshotError> {
        let (state, ports) = at_worker.map(|it| (it.state, it.ports)).unzip();
        let data = self.offers.idempotency_keys.reserve(entry.data);
        let beside = RestoredParts {
            media: Arc::clone(&restored.media),
            ports: ports.flatten(),
            brief,
            data,
            has_address: state.as_ref().is_some_and(|state| state.has_address()),
        };
        let (home, client, ports) = self.registry.restore(entry, beside)?;
        self.install_at(home, restored, client, ports, state);
        Ok(())
    }
}

async fn dropped(guard: &mut Option<oneshot::Receiver<Infallible>>) {
    match guard {
        Some(guard) => _ = guard.await,
        None => std::future::pending().await,
    }
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
fn briefs(core: &evenkeel_core::GatewayRecord) -> BTreeMap<SessionId, (Arc<str>, Labels)> {
    let names = core.rooms.iter().map(|room| (room.id, requested_room_name(&room.name).into()));
    let names: BTreeMap<_, Arc<str>> = names.collect();
    let brief = |session: &evenkeel_core::SessionRecord| {
        let name = names.get(&session.room)?;
        Some((session.id, (Arc::clone(name), session.labels.clone())))
    };
    core.sessions.iter().filter_map(brief).collect()
}
