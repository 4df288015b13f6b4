//! Dispatches requests to control, and answers those about the gateway as a whole.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use evenkeel_config::{GatewayConfig, PolicySet};
use evenkeel_core::{Impossible, RoomStanding, SessionStanding};
use evenkeel_dataplane::worker::{MediaDirection, WorkerStats};
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Health, NodeId, RedundancyMode};
use evenkeel_revisions::Lifecycle;
use tokio::sync::oneshot;

use crate::control::Control;
use crate::handle::ControlRequest;
use crate::lists::{ListCopy, PartialList};
use crate::messages::{
    AdmissionState, ControlError, ForecastReport, NotSuspended, OrderStep, SessionView, Slice,
    SnapshotError, StatusReport, TakeoverReadiness,
};
use crate::nodes::{ReloadReport, Reloaded, region_named};
use crate::offers::OfferedSession;
use crate::registry::SessionEntry;
use crate::renegotiation::Renegotiated;
use crate::reporting::GatewayEvent;

/// Copying this many ids of a room's sessions takes as long as copying the view of one session.
const SESSIONS_PER_COST: usize = 100;

impl Control {
    /// Replaces the policy sets. Sessions keep the bit rates, silence and marks with which they were opened.
    fn change_sets(&mut self, sets: Vec<PolicySet>, now: Instant) -> io::Result<()> {
        self.policies.change_sets(&self.settings.sets, &sets, &mut self.gateway, now)?;
        self.gateway.handle_scenarios(&self.settings.scenarios_of(&sets), now);
        self.settings = Arc::new(GatewayConfig { sets, ..(*self.settings).clone() });
        Ok(())
    }

    /// Checks that a listener takes the client, and that the node of its room joins a further session. The spares of the route
    /// would refuse it too, and so leave the route of the sessions that are there.
    pub(crate) fn admits_client(&self, request: &OfferedSession) -> Result<(), ControlError> {
        self.registry.admits(&request.ingress)?;
        let Some((sessions, hop)) = self.gateway.views().occupancy(&request.room) else {
            return Ok(());
        };
        let node = self.nodes.config(hop.node);
        match node.and_then(|node| Some((&node.name, node.driver.sessions_per_room()?))) {
            Some((node, most)) if sessions >= most => {
                Err(ControlError::RoomFull { node: (**node).into(), most })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn handle_request(&mut self, request: ControlRequest) {
        let now = Instant::now();
        // Replies fail only for a caller that has gone.
        match request {
            ControlRequest::Offer(request, reply) => {
                if self.offers.waiting.is_some() || self.replication.suspension.is_some() {
                    self.offers.hold(request, reply);
                } else {
                    self.offer(*request, Some(reply), now);
                }
            }
            ControlRequest::RestorePolicies(records) => {
                self.policies.restore(records, &mut self.gateway, now);
            }
            ControlRequest::CopyHistory(records) => self.reporting.history.copy(records),
            ControlRequest::CopyOperations(operations) => self.nodes.operations.replace(operations),
            ControlRequest::CopyAlerts(alerts) => self.nodes.operations.replace_alerts(alerts),
            ControlRequest::KeepAlerts(alerts, reply) => {
                let (done, written) = oneshot::channel();
                self.nodes.operations.keep_alerts(alerts, move |result| _ = done.send(result));
                self.replication.note_alerts();
                let _ = reply.send(written);
            }
            ControlRequest::KeptAlerts(reply) => {
                let _ = reply.send(self.nodes.operations.alerts().clone());
            }
            ControlRequest::PolicyRecords(reply) => {
                _ = reply.send(self.policies.threads.records(&self.gateway));
            }
            ControlRequest::PoliciesKept(reply) => self.policies.threads.await_kept(reply),
            ControlRequest::ConfiguredPolicies(reply) => {
                _ = reply.send(self.policies.threads.configured());
            }
            ControlRequest::PoliciesStand => self.offers.handle_policies_active(),
            ControlRequest::AwaitPolicies(reply) => self.offers.await_policies(reply),
            ControlRequest::Close(session, reply) => {
                let closed = self.gateway.handle_close(session, now);
                let _ = reply.send(closed.map_err(ControlError::Impossible));
            }
            ControlRequest::Renegotiate(offer, reply) => {
                let followed = match self.replication.suspension {
                    Some(_) => Err(ControlError::Unavailable),
                    None => self.registry.renegotiate(*offer, &mut self.gateway, now),
                };
                let followed = followed.map(|Renegotiated { ingress, command, event }| {
                    self.workers.command(command.0, command.1);
                    event.into_iter().for_each(|event| self.reporting.send_event(event));
                    ingress
                });
                let _ = reply.send(followed);
            }
            #[cfg(feature = "fault-injection")]
            ControlRequest::Panic(session, reply) => {
                let home = self.registry.get(session).map(|entry| entry.home);
                let panicking = home.map(|home| {
                    let panic = evenkeel_dataplane::worker::WorkerCommand::Panic(home);
                    self.workers.command(home.worker, panic);
                });
                let none = ControlError::Impossible(Impossible::NoSuchSession);
                let _ = reply.send(panicking.ok_or(none));
            }
            ControlRequest::Move(room, node, reply) => {
                let to = self.nodes.node_named(&node);
                let moved = match to {
                    Some(to) => self.gateway.handle_move(&room, to, now),
                    None => Err(Impossible::NoSuchNode),
                };
                let _ = reply.send(moved.map_err(|reason| self.why_impossible(reason, to)));
            }
            ControlRequest::Operate(operation, reply) => {
                let kept = self.nodes.lasting(operation.clone(), &self.settings, &self.gateway);
                match self.nodes.operate(operation, &self.settings, &mut self.gateway, now) {
                    Ok(()) => {
                        let done = move |written: Result<(), Arc<str>>| {
                            _ = reply.send(written.map_err(ControlError::NotWritten));
                        };
                        self.nodes.operations.keep(kept, done);
                        self.replication.note_operation();
                    }
                    Err(reason) => _ = reply.send(Err(self.why_impossible(reason, None))),
                }
            }
            ControlRequest::Order(node, order, reply) => match self.nodes.node_named(&node) {
                Some(node) => {
                    if self.probes.order(node, order, reply, &self.nodes, now) {
                        let step = OrderStep::Sent;
                        self.reporting.send_event(GatewayEvent::NodeOrdered { node, order, step });
                    }
                }
                None => {
                    let _ = reply.send(Err(self.why_impossible(Impossible::NoSuchNode, None)));
                }
            },
            ControlRequest::Explain(session, reply) => {
                _ = reply.send(self.gateway.views().explain(session, now));
            }
            ControlRequest::CreatesRoom(scenario, room, reply) => {
                let _ = reply.send(self.gateway.views().creates_room(&scenario, &room));
            }
            ControlRequest::Regions(reply) => {
                _ = reply.send(self.gateway.views().regions(now).collect());
            }
            ControlRequest::Sessions(after, limit, reply) => {
                let list = PartialList::new(after, limit, reply);
                self.reporting.begin_list(ListCopy::Sessions(list));
            }
            ControlRequest::Session(session, reply) => {
                let standing = self.gateway.views().session(session, now);
                let _ = reply.send(standing.map(|standing| self.session_view(standing)));
            }
            ControlRequest::Rooms(after, limit, reply) => {
                let list = PartialList::new(after, limit, reply);
                self.reporting.begin_list(ListCopy::Rooms(list));
            }
            ControlRequest::CopyNodes(reply) => {
                let _ = reply.send(Box::new(self.gateway.records().copy_nodes()));
            }
            ControlRequest::CopyRooms { after, reply } => {
                let _ = reply.send(Slice::of(self.gateway.records().copy_rooms(after, now), |_| 1));
            }
            ControlRequest::CopySessions { after, reply } => {
                let _ = reply.send(Slice::of(self.gateway.records().copy_sessions(after), |_| 1));
            }
            ControlRequest::Nodes(reply) => _ = reply.send(self.gateway.views().nodes().collect()),
            ControlRequest::Govern(rules, reply) => {
                self.policies.threads.govern(*rules, &mut self.gateway, now);
                let _ = reply.send(());
            }
            ControlRequest::NoteReload(report, reply) => {
                self.note_reload(*report);
                let _ = reply.send(());
            }
            ControlRequest::NoteForecasts(report, reply) => {
                self.note_forecasts(*report, now);
                let _ = reply.send(());
            }
            ControlRequest::NoteRefusal(refusal) => self.policies.threads.ledger().refuse(refusal),
            ControlRequest::Refusals(reply) => {
                _ = reply.send(self.policies.threads.ledger().refusals());
            }
            ControlRequest::Policies(reply) => self.policies.view(reply),
            ControlRequest::Recorder(reply) => _ = reply.send(self.policies.threads.recorder()),
            ControlRequest::History(reply) => _ = reply.send(self.reporting.history.history()),
            ControlRequest::Status(reply) => _ = reply.send(self.status(now)),
            ControlRequest::Readiness(reply) => _ = reply.send(self.readiness()),
            ControlRequest::Modes(reply) => {
                let view = |mode| self.reporting.mode_view(mode, &self.gateway, &self.workers);
                let _ = reply.send(RedundancyMode::ALL.into_iter().map(view).collect());
            }
            ControlRequest::Sets(sets, reply) => _ = reply.send(self.change_sets(sets, now)),
            ControlRequest::List(list, reply) => _ = reply.send(self.list(&list, now)),
            ControlRequest::Reload(reload) => self.nodes.pass_on(reload),
            ControlRequest::FollowReloads(reloader) => self.nodes.reloader = Some(reloader),
            ControlRequest::Push { reply, .. }
            | ControlRequest::RollOut(.., reply)
            | ControlRequest::ActOnRollout(.., reply)
            | ControlRequest::Rollback(.., reply)
                if self.gateway.holds_rollouts() =>
            {
                let _ = reply.send(Err(ControlError::NotOwner));
            }
            // A further revision would supersede the policy's first one, and then the gateway might refuse it.
            ControlRequest::Push { reply, .. } | ControlRequest::RollOut(.., reply)
                if self.offers.awaits_policies() =>
            {
                let _ = reply.send(Err(ControlError::Starting));
            }
            // The record of another process would replace the decision.
            ControlRequest::Push { policy, reply, .. }
            | ControlRequest::RollOut(policy, _, reply)
            | ControlRequest::ActOnRollout(policy, _, reply)
            | ControlRequest::Rollback(policy, _, reply)
                if self.policies.threads.is_restoring(&policy) =>
            {
                let _ = reply.send(Err(ControlError::Starting));
            }
            ControlRequest::Push { policy, bytes, settings, push, reply } => {
                match self.policies.pushed(&policy, bytes, settings, push, &self.gateway) {
                    Ok(source) => {
                        self.policies.roll_out(&policy, source, reply, &mut self.gateway);
                    }
                    Err(refused) => _ = reply.send(Err(refused)),
                }
            }
            ControlRequest::RollOut(policy, source, reply) => {
                self.policies.roll_out(&policy, *source, reply, &mut self.gateway);
            }
            ControlRequest::ActOnRollout(policy, action, reply) => {
                let act = |life: &mut Lifecycle| life.handle_action(action, now);
                let _ = reply.send(self.policies.change(&policy, &mut self.gateway, now, act));
            }
            ControlRequest::Rollback(policy, force, reply) => {
                let starting = self.offers.awaits_policies() && self.policies.is_known(&policy);
                let _ = reply.send(if starting {
                    Err(ControlError::Starting)
                } else {
                    let act = |life: &mut Lifecycle| life.handle_rollback(force, now);
                    self.policies.change(&policy, &mut self.gateway, now, act)
                });
            }
            ControlRequest::Stop(policy, reply) => {
                let stopped = self.policies.threads.stop(&policy);
                let _ = reply.send(stopped.then_some(()).ok_or(ControlError::NoPolicy(policy)));
            }
            ControlRequest::Shutdown(within, done) => {
                self.lifetime.shutdown_replies.push(done);
                self.gateway.handle_shutdown(within, now);
            }
            ControlRequest::Trunks(reply) => _ = reply.send(self.nodes.duplicate_trunks()),
            ControlRequest::RecordsSent(reply) => {
                let (replication, mut source) = self.record_source();
                let _ = reply.send(replication.last_change(&mut source));
            }
            ControlRequest::FollowRecords(hands_over, reply) => {
                let (replication, mut source) = self.record_source();
                let _ = reply.send(replication.follow(hands_over, &mut source, now));
            }
            ControlRequest::Suspend(reply) => self.begin_suspension(reply, now),
            // Packets of a gateway that is not suspended go on.
            ControlRequest::SuspendPackets(reply) => {
                let is_suspended = self.replication.is_suspended();
                let states = is_suspended.then(|| self.suspend_packets());
                let _ = reply.send(states.ok_or(NotSuspended::Unavailable));
            }
            ControlRequest::ContinueMedia { states, last } => self.continue_media(*states, last),
            ControlRequest::Resume(cause, done) => self.resume(cause, || _ = done.send(())),
            ControlRequest::Restore { snapshot, descriptors, resume, reply } => {
                match (self.restore(*snapshot, descriptors), resume) {
                    (Ok(restored), Some(cause)) => {
                        self.resume(cause, || _ = reply.send(Ok(restored)));
                    }
                    (restored, _) => _ = reply.send(restored),
                }
            }
            ControlRequest::Prepare(replica, reply) => {
                let snapshot = Arc::unwrap_or_clone(replica).snapshot();
                let empty = || SnapshotError::malformed("no record of a node came");
                let prepared = snapshot.ok_or_else(empty);
                let prepared = prepared.and_then(|snapshot| self.prepare(snapshot, Vec::new()));
                if prepared.is_err() {
                    self.forget_restored();
                }
                let _ = reply.send(prepared);
            }
            ControlRequest::ForgetRestored(done) => {
                self.forget_restored();
                let _ = done.send(());
            }
            // The sessions of a gateway that is not suspended belong to no other process.
            ControlRequest::Release(_) if !self.replication.is_suspended() => {}
            ControlRequest::Release(done) => {
                // Agents may have executed them.
                self.probes.give_up_orders(&self.nodes);
                self.lifetime.is_replaced.store(true, Ordering::Release);
                self.release();
                let _ = done.send(());
            }
            ControlRequest::Abandon(done) => {
                self.release();
                let _ = done.send(());
            }
        }
    }

    /// Copies the next slice of a list, if any.
    pub(crate) fn continue_list(&mut self) {
        let Some(list) = self.reporting.lists.pop_front() else { return };
        let list = match list {
            ListCopy::Sessions(list) => {
                let view = |standing| self.session_view(standing);
                let rest = self.gateway.views().sessions_after(list.after, Instant::now());
                let rest = rest.map(|(id, standing)| (id, standing.map(view)));
                list.add(Slice::of(rest, |_| 1)).map(ListCopy::Sessions)
            }
            ListCopy::Rooms(list) => {
                let cost = |room: &RoomStanding| 1 + room.sessions.len() / SESSIONS_PER_COST;
                let rest = self.gateway.views().rooms_after(list.after);
                list.add(Slice::of(rest, cost)).map(ListCopy::Rooms)
            }
        };
        if let Some(list) = list {
            self.reporting.lists.push_back(list);
        }
    }

    fn session_view(&self, standing: SessionStanding) -> SessionView {
        let totals = self.registry.get(standing.session).map(SessionEntry::totals);
        let trace = self.registry.trace(standing.session);
        let ice = self.registry.ice_fragments(standing.session);
        SessionView { totals: totals.unwrap_or_default(), state: standing, trace, ice }
    }

    /// The error of an operation, with the facts that its caller needs.
    fn why_impossible(&self, reason: Impossible, node: Option<NodeId>) -> ControlError {
        match reason {
            Impossible::NoSuchNode => {
                let nodes = self.nodes.nodes.iter().flatten();
                let known = nodes.map(|listed| (*listed.node.name).into()).collect();
                ControlError::Unfound { reason, known }
            }
            Impossible::NoSuchRegion => {
                let regions = self.settings.regions.iter();
                ControlError::Unfound {
                    reason,
                    known: regions.map(|name| (**name).into()).collect(),
                }
            }
            Impossible::NoSuchZone => {
                let nodes = self.nodes.nodes.iter().flatten().map(|listed| &listed.node);
                let zones = nodes.map(|node| format!("{}/{}", node.region, node.zone).into());
                let known: BTreeSet<Box<str>> = zones.collect();
                ControlError::Unfound { reason, known: known.into_iter().collect() }
            }
            Impossible::NodeUnfit => {
                let standing =
                    self.gateway.views().nodes().find(|standing| Some(standing.hop.node) == node);
                standing.map_or(ControlError::Impossible(reason), |standing| ControlError::Unfit {
                    health: standing.health,
                    draining: standing.draining,
                    load_permille: standing.load_permille,
                    capacity_kbps: standing.capacity_kbps,
                })
            }
            reason => ControlError::Impossible(reason),
        }
    }

    /// Tells the core of a refusal for lack of capacity that it does not see.
    pub(crate) fn note_turned_away(
        &mut self,
        scenario: &str,
        refusal: &ControlError,
        now: Instant,
    ) {
        if matches!(refusal, ControlError::Full | ControlError::SessionDataFull) {
            self.gateway.handle_turned_away(scenario, now);
        }
    }

    fn readiness(&self) -> TakeoverReadiness {
        let mut nodes = self.gateway.views().nodes().peekable();
        let is_empty = nodes.peek().is_none();
        let living: Vec<u64> = (nodes
            .filter(|node| node.health != Health::Down && !node.draining && !node.ejected))
        .map(|node| node.capacity_kbps)
        .collect();
        let not_loaded = self.policies.threads.not_loaded();
        TakeoverReadiness {
            has_node: is_empty || !living.is_empty(),
            capacity_kbps: living.iter().fold(0, |sum: u64, kbps| sum.saturating_add(*kbps)),
            sessions_max: self.settings.limits.sessions as usize,
            not_loaded: not_loaded
                .map(|(policy, revision)| (policy.clone(), Arc::clone(revision)))
                .collect(),
        }
    }

    /// Files are touched often, and a reload without effect would hide a refusal in the status.
    fn note_reload(&mut self, report: ReloadReport) {
        let has_effect = !report.outcome.as_ref().is_ok_and(Reloaded::is_empty);
        if has_effect {
            self.reporting.send_event(GatewayEvent::Reload(report.clone()));
            self.lifetime.last_reload = Some((report, SystemTime::now()));
        }
    }

    fn note_forecasts(&mut self, report: ForecastReport, now: Instant) {
        let ForecastReport { forecasts, changes, exhausted, expected, decays } = report;
        self.reporting.forecasts = forecasts;
        for change in changes {
            self.reporting.send_event(GatewayEvent::Forecast(change));
        }
        self.gateway.change_nodes(now, |nodes| {
            decays.iter().for_each(|(node, permille)| nodes.handle_decay(*node, *permille));
        });
        for (region, kbps) in expected {
            if let Ok(region) = region_named(&self.settings, &region) {
                self.gateway.change_nodes(now, |nodes| {
                    nodes.handle_expected_load(region, kbps, now);
                });
            }
        }
        for region in exhausted {
            if let Ok(region) = region_named(&self.settings, &region) {
                self.gateway.change_nodes(now, |nodes| nodes.handle_exhaustion(region, now));
            }
        }
    }

    fn status(&self, now: Instant) -> StatusReport {
        use MediaDirection::{ToClient, ToNode};
        let workers = &self.workers;
        let drops = DropReason::ALL.into_iter().filter_map(|reason| {
            let sum = workers.sum(|stats| stats.drops(reason));
            (sum > 0).then_some((reason.name(), sum))
        });
        let mut scenario_traffic = self.reporting.costs.scenarios.clone();
        for (scenario, _) in self.gateway.scenarios() {
            scenario_traffic.entry(Arc::clone(scenario)).or_default();
        }
        StatusReport {
            state: match (self.gateway.is_admitting(), self.offers.awaits_policies()) {
                (true, true) => AdmissionState::Starting,
                (true, false) => AdmissionState::Serving,
                (false, _) => AdmissionState::Draining,
            },
            version: env!("CARGO_PKG_VERSION"),
            region: Arc::clone(&self.settings.gateway.region),
            uptime_ms: now.saturating_duration_since(self.lifetime.started).as_millis() as u64,
            last_reload: self.lifetime.last_reload.clone(),
            sessions: self.gateway.live(),
            rooms: self.gateway.standing_rooms(),
            uplink_suspect: self.gateway.node_table().doubts_uplink(),
            policies_failing: self.policies.failing(&self.gateway, now),
            slos: self.gateway.views().slos(now).collect(),
            client_breakers: self.gateway.views().client_breakers(now).collect(),
            provider_breakers: self.gateway.views().provider_breakers(now).collect(),
            forecasts: self.reporting.forecasts.clone(),
            packets_to_node: workers.sum(|stats| stats.packets(ToNode)),
            packets_to_client: workers.sum(|stats| stats.packets(ToClient)),
            bytes_to_node: workers.sum(|stats| stats.bytes(ToNode)),
            bytes_to_client: workers.sum(|stats| stats.bytes(ToClient)),
            key_frames_to_node: workers.sum(|stats| stats.key_frames(ToNode)),
            key_frames_to_client: workers.sum(|stats| stats.key_frames(ToClient)),
            from_route: workers.sum(WorkerStats::from_route),
            scenario_traffic,
            drops: drops.collect(),
            messages_refused: self.probes.messages_refused(),
            udp: self.registry.udp.iter().map(|it| it.addresses.default.rtp).collect(),
            quic: self.registry.quic.as_ref().map(|quic| quic.addresses.default.rtp),
            carriers: self.registry.carriers(),
            quic_counts: self
                .workers
                .quic_counters
                .iter()
                .flat_map(|counters| counters.read())
                .collect(),
        }
    }
}
