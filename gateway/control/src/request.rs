//! Handles requests to control.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{ArmTally, Impossible, RoomStanding, SessionStanding};
use evenkeel_dataplane::worker::MediaDirection;
use evenkeel_model::{PolicyName, RedundancyMode, SessionId};
use evenkeel_policies::PolicyView;
use tokio::sync::oneshot;

use super::handle::ControlRequest;
use super::messages::{AdmissionState, ControlError, SessionView, StatusReport};
use super::registry::SessionEntry;
use super::slice::Slice;
use super::snapshot::NotSuspended;
use super::thread::Control;

/// Copying this many ids of a room's sessions takes as long as copying the view of one session.
const SESSIONS_PER_COST: usize = 100;

/// Readers that wait until the sessions of policies' cohorts are counted, some per turn of control.
pub(super) struct Counting {
    replies: Vec<oneshot::Sender<Vec<PolicyView>>>,
    tallies: BTreeMap<PolicyName, ArmTally>,
    after: SessionId,
}

impl Default for Counting {
    fn default() -> Self {
        Counting { replies: Vec::new(), tallies: BTreeMap::new(), after: SessionId(0) }
    }
}

impl Control {
    pub(super) fn handle_request(&mut self, request: ControlRequest) {
        let now = Instant::now();
        // Replies fail only for a caller that has gone.
        match request {
            ControlRequest::Offer(wanted, reply) => {
                if self.offers.waiting.is_some() || self.replication.suspension.is_some() {
                    self.offers.hold(wanted, reply);
                } else {
                    self.offer(*wanted, Some(reply), now);
                }
            }
            ControlRequest::PoliciesStand => self.offers.policies_stand(),
            ControlRequest::AwaitPolicies(reply) => self.offers.await_policies(reply),
            ControlRequest::Close(session, reply) => {
                let _ = reply.send(
                    self.gateway.handle_close(session, now).map_err(ControlError::Impossible),
                );
            }
            #[cfg(feature = "fault-injection")]
            ControlRequest::Panic(session, reply) => {
                let home = self.registry.get(session).map(|entry| entry.home);
                let told = home.map(|home| {
                    self.workers.command(
                        home.worker,
                        evenkeel_dataplane::worker::WorkerCommand::Panic { home },
                    );
                });
                let none = ControlError::Impossible(Impossible::NoSuchSession);
                let _ = reply.send(told.ok_or(none));
            }
            ControlRequest::Move { room, node, reply } => {
                let to = self.nodes.node_named(&node);
                let moved = match to {
                    Some(to) => self.gateway.handle_move(&room, to, now),
                    None => Err(Impossible::NoSuchNode),
                };
                let _ = reply.send(moved.map_err(|reason| self.why_impossible(reason, to)));
            }
            ControlRequest::Operate(operation, reply) => {
                let done = self.operate(operation, now);
                let _ = reply.send(done.map_err(|reason| self.why_impossible(reason, None)));
            }
            ControlRequest::Order { node, order, reply } => self.order(&node, order, reply, now),
            ControlRequest::Explain(session, reply) => {
                let _ = reply.send(self.gateway.views().explain(session, now));
            }
            ControlRequest::Regions(reply) => {
                let _ = reply.send(self.gateway.views().regions(now).collect());
            }
            ControlRequest::Sessions { after, reply } => {
                let view = |standing| self.session_view(standing);
                let rest = self.gateway.views().sessions_after(after, now);
                let rest = rest.map(|(id, standing)| (id, standing.map(view)));
                let _ = reply.send(Slice::of(rest, |_| 1));
            }
            ControlRequest::Session(session, reply) => {
                let standing = self.gateway.session(session, now);
                let _ = reply.send(standing.map(|standing| self.session_view(standing)));
            }
            ControlRequest::Rooms { after, reply } => {
                let cost = |room: &RoomStanding| 1 + room.sessions.len() / SESSIONS_PER_COST;
                let _ = reply.send(Slice::of(self.gateway.views().rooms_after(after), cost));
            }
            ControlRequest::Nodes(reply) => {
                let _ = reply.send(self.gateway.views().nodes().collect());
            }
            ControlRequest::Govern(rules, reply) => {
                self.policies.threads.govern(*rules, &mut self.gateway, now);
                let _ = reply.send(());
            }
            ControlRequest::NoteRefusal(refusal) => self.policies.threads.ledger().refuse(refusal),
            ControlRequest::Refusals(reply) => {
                let _ = reply.send(self.policies.threads.ledger().refusals());
            }
            ControlRequest::Policies(reply) => {
                self.policies.counting.get_or_insert_default().replies.push(reply);
            }
            ControlRequest::Recorder(reply) => {
                let _ = reply.send(self.policies.threads.recorder());
            }
            ControlRequest::History(reply) => {
                let _ = reply.send(self.reporting.history.history());
            }
            ControlRequest::Status(reply) => {
                let _ = reply.send(self.status(now));
            }
            ControlRequest::Modes(reply) => {
                let _ = reply.send(
                    RedundancyMode::ALL.into_iter().map(|mode| self.mode_view(mode)).collect(),
                );
            }
            ControlRequest::Scenarios(scenarios, reply) => {
                self.gateway.handle_scenarios(&scenarios, now);
                let _ = reply.send(());
            }
            ControlRequest::List(list, reply) => {
                let _ = reply.send(self.list(&list, now));
            }
            ControlRequest::Reload(reload) => self.nodes.pass_on(reload),
            ControlRequest::FollowReloads(reloader) => self.nodes.reloader = Some(reloader),
            ControlRequest::Push { policy, bytes, settings, wish, reply } => {
                self.push((policy, bytes, settings), &wish, reply, now);
            }
            ControlRequest::Walk { policy, verb, reply } => {
                self.act_on_rollout(&policy, verb, reply, now);
            }
            ControlRequest::Paces(paces) => self.take_rollout_settings(paces, now),
            ControlRequest::RollOut { policy, source, reply } => {
                self.roll_out(&policy, *source, reply);
            }
            ControlRequest::Rollback { policy, reply } => self.roll_back(&policy, reply, now),
            ControlRequest::Stop { policy, reply } => {
                let stopped = self.policies.threads.stop(&policy);
                let _ = reply.send(stopped.then_some(()).ok_or(ControlError::NoPolicy(policy)));
            }
            ControlRequest::Shutdown { within, done } => {
                self.lifetime.shutdown_replies.push(done);
                self.gateway.handle_shutdown(within, now);
            }
            ControlRequest::Trunks(reply) => {
                let _ = reply.send(self.nodes.duplicate_trunks());
            }
            ControlRequest::RecordsSent(reply) => {
                let _ = reply.send(self.records_sent());
            }
            ControlRequest::FollowRecords { hands_over, reply } => {
                let _ = reply.send(self.follow_records(hands_over, now));
            }
            ControlRequest::Suspend(reply) => self.begin_suspension(reply, now),
            // Packets of a gateway that is not suspended go on.
            ControlRequest::SuspendPackets(reply) => {
                let is_suspended = self.replication.is_suspended();
                let states = is_suspended.then(|| self.suspend_packets());
                let _ = reply.send(states.ok_or(NotSuspended::Unavailable));
            }
            ControlRequest::ContinueMedia { states, last } => self.continue_media(*states, last),
            ControlRequest::Resume(done) => self.resume(|| _ = done.send(())),
            ControlRequest::Restore { snapshot, descriptors, reply } => {
                let _ = reply.send(self.restore(*snapshot, descriptors));
            }
            ControlRequest::TakeOver { snapshot, descriptors, reply } => {
                match self.restore(*snapshot, descriptors) {
                    Ok(restored) => self.resume(|| _ = reply.send(Ok(restored))),
                    Err(refused) => _ = reply.send(Err(refused)),
                }
            }
            // The sessions of a gateway that is not suspended belong to no other process.
            ControlRequest::Release(done) if self.replication.is_suspended() => {
                self.release();
                let _ = done.send(());
            }
            ControlRequest::Release(_) => {}
            ControlRequest::Abandon(done) => {
                self.release();
                let _ = done.send(());
            }
        }
    }

    /// Counts some sessions for policies' cohorts, and replies once all are counted.
    pub(super) fn count_some(&mut self) {
        let Some(counting) = &mut self.policies.counting else { return };
        if let Some(last) = self.gateway.tally(&mut counting.tallies, counting.after) {
            counting.after = last;
            return;
        }
        let Some(Counting { replies, tallies, .. }) = self.policies.counting.take() else { return };
        let views = self.policies.threads.views(&self.gateway, &tallies, Instant::now());
        for reply in replies {
            let _ = reply.send(views.clone());
        }
    }

    fn session_view(&self, standing: SessionStanding) -> SessionView {
        let entry = self.registry.get(standing.session);
        SessionView { totals: entry.map(SessionEntry::totals).unwrap_or_default(), standing }
    }

    fn status(&self, now: Instant) -> StatusReport {
        let packets = |way: MediaDirection| {
            self.workers.lines.iter().map(|worker| worker.stats.packets(way)).sum()
        };
        let bytes = |way: MediaDirection| {
            self.workers.lines.iter().map(|worker| worker.stats.bytes(way)).sum()
        };
        let key_frames = |way: MediaDirection| {
            self.workers.lines.iter().map(|worker| worker.stats.key_frames(way)).sum()
        };
        let drops = evenkeel_model::forward::DropReason::ALL.into_iter().filter_map(|reason| {
            let sum: u64 = self.workers.lines.iter().map(|worker| worker.stats.drops(reason)).sum();
            (sum > 0).then_some((reason.name(), sum))
        });
        StatusReport {
            state: match (self.gateway.is_admitting(), self.offers.awaits_policies()) {
                (true, true) => AdmissionState::Starting,
                (true, false) => AdmissionState::Serving,
                (false, _) => AdmissionState::Draining,
            },
            version: env!("CARGO_PKG_VERSION"),
            region: Arc::clone(&self.settings.gateway.region),
            uptime_ms: now.saturating_duration_since(self.lifetime.started).as_millis() as u64,
            sessions: self.gateway.live(),
            rooms: self.gateway.standing_rooms(),
            uplink_suspect: self.gateway.node_table().doubts_uplink(),
            policies_failing: self.policies_failing(now),
            packets_to_node: packets(MediaDirection::ToNode),
            packets_to_client: packets(MediaDirection::ToClient),
            bytes_to_node: bytes(MediaDirection::ToNode),
            bytes_to_client: bytes(MediaDirection::ToClient),
            key_frames_to_node: key_frames(MediaDirection::ToNode),
            key_frames_to_client: key_frames(MediaDirection::ToClient),
            drops: drops.collect(),
            messages_refused: self.probes.messages_refused(),
            udp: self.registry.udp.iter().map(|listener| listener.address).collect(),
            quic: self.registry.quic.map(|quic| quic.address),
            quic_counts: self
                .workers
                .quic_counters
                .iter()
                .flat_map(|counters| counters.read())
                .collect(),
        }
    }
}
