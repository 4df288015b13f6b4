//! Turns events into metrics, log lines and spans.

mod rows;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::{
    EventRecord, GatewayEvent, ListChange, NodeListUpdate, NodeNames, TraceCaller, TraceRegistry,
};
use evenkeel_dtls::HandshakeFailure;
use evenkeel_model::{
    BreakerState, CoreEvent, Decider, DecisionOutcome, Health, ListedEvent, ModeChange, MoveCause,
    NodeId, PortMove, StartPhase, StopPhase,
};
use evenkeel_revisions::{Actor, RolloutOutcome, RolloutReport, RolloutStage};
use rows::{CORE_ROWS, GATEWAY_ROWS};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tracing::{debug, info, warn};

use super::instruments::Instruments;
use super::registry::{Attribute, Count, Histogram, Level};
use super::spans::{
    DecisionSpan, Moment, RefusedOffer, SWEPT_EVERY, SpanPipeline, SpanWriter, refusal,
};

/// Minimum length of a logged stall, which is audible.
const LATE_TOLD: Duration = Duration::from_millis(100);

/// Records the events of one gateway.
#[derive(Debug)]
pub struct EventRecorder {
    events: Receiver<Arc<EventRecord>>,
    instruments: Arc<Instruments>,
    names: Arc<NodeNames>,
    /// `None` without a receiver of spans.
    spans: Option<SpanWriter>,
    /// Only configured scenarios become metric labels: clients choose the name in an offer.
    scenarios: BTreeSet<Arc<str>>,
    /// The time at which a failed opening at a node was last logged.
    not_opened: BTreeMap<NodeId, Instant>,
}

impl EventRecorder {
    pub(super) fn new(
        events: Receiver<Arc<EventRecord>>,
        instruments: Arc<Instruments>,
        names: Arc<NodeNames>,
        scenarios: BTreeSet<Arc<str>>,
        traces: Arc<TraceRegistry>,
        pipeline: Option<SpanPipeline>,
    ) -> EventRecorder {
        let spans = pipeline.map(|it| SpanWriter::new(it, Arc::clone(&names), traces));
        EventRecorder { events, instruments, names, spans, scenarios, not_opened: BTreeMap::new() }
    }

    /// Records events until control ends.
    pub async fn follow(&mut self) {
        let mut sweeps = tokio::time::interval(SWEPT_EVERY);
        loop {
            tokio::select! {
                told = self.events.recv() => match told {
                    Ok(told) => self.record(&told),
                    Err(RecvError::Lagged(missed)) => self.missed(missed),
                    Err(RecvError::Closed) => return,
                },
                _ = sweeps.tick() => {
                    self.spans.iter_mut().for_each(|spans| spans.sweep(Moment::now()));
                }
            }
        }
    }

    /// Records the remaining events after the gateway has ended, such as the ends of its last sessions.
    pub fn finish(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(told) => self.record(&told),
                Err(TryRecvError::Lagged(missed)) => self.missed(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if let Some(spans) = &mut self.spans {
            spans.finish(Moment::now());
        }
        self.instruments.level(Level::SessionsActive, 0.0, &[]);
    }

    fn missed(&self, missed: u64) {
        warn!(missed, "telemetry fell behind and missed events");
        let labels = [(Attribute::Signal, "events"), (Attribute::Reason, "behind")];
        self.instruments.count(Count::TelemetryDropped, missed, &labels);
    }

    /// Records one event.
    pub fn record(&mut self, told: &EventRecord) {
        let (at, caller) = (Moment::now(), told.caller.as_ref());
        if let Some(spans) = &mut self.spans
            && !matches!(told.event, GatewayEvent::Core(_))
        {
            spans.end_batch(None, at);
        }
        let event = &told.event;
        GATEWAY_ROWS[event.number()].record(event, &self.instruments, &self.names, at);
        match event {
            GatewayEvent::Core(event) => self.handle_event(event, caller, at),
            GatewayEvent::TurnedAway { scenario, reason: word, session } => {
                let session = *session;
                self.refused(&RefusedOffer { scenario, word, reason: None, session }, caller, at);
            }
            GatewayEvent::Rollout(rollout) => self.handle_rollout(rollout, at),
            GatewayEvent::NotOpened { session, node, reason } => {
                self.handle_not_opened(*session, *node, reason, at);
            }
            GatewayEvent::Handshake { session, result } => {
                let outcome = result.as_ref().map_or_else(HandshakeFailure::name, |_| "done");
                self.instruments.count(Count::Handshakes, 1, &[(Attribute::Outcome, outcome)]);
                if let Err(failure) = result {
                    info!(%session, reason = %failure, "DTLS handshake failed; session ends");
                }
            }
            GatewayEvent::Renegotiated { streams_changed, ice_restarted, .. } => {
                let outcome = match (streams_changed, ice_restarted) {
                    (true, true) => "both",
                    (true, false) => "streams",
                    (false, true) => "ice",
                    (false, false) => return,
                };
                self.instruments.count(Count::Renegotiations, 1, &[(Attribute::Outcome, outcome)]);
            }
            GatewayEvent::NodeList(told) => log_node_list(told),
            GatewayEvent::Reload(report) => {
                if let Some(spans) = &self.spans {
                    spans.reloaded(report, at);
                }
            }
            GatewayEvent::NodeRemoved { node, name } => {
                self.not_opened.remove(node);
                self.instruments.nodes().remove_node(*node);
                if let Some(spans) = &mut self.spans {
                    spans.node_removed(*node, at);
                }
                info!(node = &**name, "node removed after it was empty");
            }
            GatewayEvent::Continued { cause, sessions, oldest, callers, took } => {
                if let Some(spans) = &mut self.spans {
                    spans.continued(*cause, *sessions, oldest, callers, *took, at);
                }
            }
            GatewayEvent::MediaPaused(pauses) => self.paused(pauses),
            GatewayEvent::NodeOrdered { node, order, step } => {
                if let Some(spans) = &mut self.spans {
                    spans.ordered(*node, *order, *step, at);
                }
            }
            // The row has everything, or the sender has logged it: the member its changes, the index its duplicates, the check of losses what
            // it finds, and the forecast its warnings.
            _ => {}
        }
    }

    /// `caller` is the request of an `Opened` or `Refused`.
    pub fn handle_event(&mut self, event: &CoreEvent, caller: Option<&TraceCaller>, at: Moment) {
        if let Some(spans) = &mut self.spans {
            spans.end_batch(Some(event), at);
        }
        CORE_ROWS[event.number()].record(event, &self.instruments, &self.names, at);
        match event {
            CoreEvent::Decided {
                ask: _,
                policy,
                arm,
                revision,
                outcome,
                reason,
                session,
                room,
                rows,
                asked,
                took,
                notes,
                native,
            } => {
                let decision = DecisionSpan {
                    policy: policy.clone(),
                    arm: *arm,
                    session: *session,
                    room: *room,
                    revision: revision.clone(),
                    outcome: outcome.clone(),
                    reason: reason.clone(),
                    rows: *rows,
                    started: *asked,
                    concluded: at.now,
                    took: *took,
                    notes: notes.clone(),
                    native: native.iter().map(|node| self.names.of_node(*node).node).collect(),
                };
                self.decided(&decision);
                if let Some(spans) = &mut self.spans {
                    spans.decided(decision, at);
                }
            }
            CoreEvent::Opened { .. } => self.opened(event, caller, at),
            CoreEvent::Refused { offer: _, session, scenario, reason } => {
                let (word, reason, session) = (refusal(reason), Some(reason), *session);
                self.refused(&RefusedOffer { scenario, word, reason, session }, caller, at);
            }
            CoreEvent::Closed { .. } => self.closed(event, at),
            CoreEvent::Moved { .. } => self.moved(event, at),
            CoreEvent::MoveCauseFound { hop, cause, moves } => {
                let place = self.names.of_hop(*hop);
                for PortMove { scenario, sessions, took, .. } in moves {
                    self.count_move(*cause, &Decider::Native, scenario, sessions, &place, *took);
                    if *cause == MoveCause::NodeDown
                        && let Some(spans) = &mut self.spans
                    {
                        spans.note_failover(*hop, sessions, at);
                    }
                }
            }
            CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms } => {
                let earliest = witnesses.iter().map(|(_, since)| *since).min();
                let started = last_heard.or(earliest).unwrap_or(at.now).min(at.now);
                let place = self.names.of_hop(*hop);
                let name = Arc::clone(&place.node);
                let names: Vec<_> = witnesses.iter().map(|(witness, _)| witness.name()).collect();
                let (was, is, incarnation) = (from.name(), to.name(), hop.incarnation);
                self.instruments.nodes().health(hop.node, place, *to);
                // The process before this one marked the node down, and counted that.
                let is_continued = *to == Health::Down && witnesses.is_empty();
                if is_continued {
                    info!(node = %name, %incarnation, "node is down, as the process before found");
                } else if *to == Health::Down {
                    let took = at.now.saturating_duration_since(started);
                    warn!(node = %name, %incarnation, was, witnesses = ?names, ?took, rooms, "node marked down");
                    let node = (Attribute::Node, &*name);
                    self.instruments.count(Count::NodeFailures, 1, &[node]);
                    self.instruments.time(Histogram::Detection, took, &[node]);
                    for witness in names {
                        let labels = [node, (Attribute::Witness, witness)];
                        self.instruments.count(Count::NodeWitnesses, 1, &labels);
                    }
                } else {
                    info!(node = %name, %incarnation, was, is, witnesses = ?names, "node health changed");
                }
                if let Some(spans) = self.spans.as_mut().filter(|_| !is_continued) {
                    spans.node(*hop, *to, witnesses, started, *rooms, at);
                }
            }
            CoreEvent::Start { node, step } => self.start(*node, *step, at),
            CoreEvent::Mode { room, room_name: _, from, to, why } => {
                let (from, to) = (from.name(), to.name());
                match why {
                    ModeChange::Scenario => debug!(%room, from, to, "mode changed"),
                    ModeChange::Capacity => {
                        debug!(%room, from, to, "effective mode changed");
                    }
                    ModeChange::CopiesDiffer { hops } => {
                        let nodes = hops.map(|hop| self.names.of_hop(hop).node);
                        warn!(%room, from, to, ?nodes, "mode changed: the nodes alter SSRC, sequence number or payload");
                    }
                }
            }
            CoreEvent::Draining { node, draining } => {
                let name = self.names.of_node(*node);
                info!(node = %name.node, "{}", if *draining { "drain started" } else { "drain ended" });
                self.instruments.nodes().draining(*node, name, *draining);
                if let Some(spans) = &mut self.spans {
                    spans.draining(*node, *draining);
                }
            }
            CoreEvent::Drained { node, left, started } => {
                let name = self.names.of_node(*node).node;
                let took = at.now.saturating_duration_since(*started);
                match left {
                    0 => info!(node = %name, ?took, "drained"),
                    left => {
                        warn!(node = %name, left, ?took, "drain deadline passed; the remaining rooms fit on no other node");
                    }
                }
                if let Some(spans) = &mut self.spans {
                    spans.drained(*node, *left, *started, at);
                }
            }
            CoreEvent::Breaker { region, zone, from, to, mode, sessions, bad, opened, failed } => {
                let name = self.names.of_region(*region);
                let (was, is, mode) = (from.name(), to.name(), mode.name());
                match to {
                    BreakerState::Open => {
                        warn!(region = %name, ?zone, was, mode, sessions, bad, opened, failed, "breaker opened");
                    }
                    _ => {
                        info!(region = %name, ?zone, was, is, mode, sessions, bad, opened, failed, "breaker changed");
                    }
                }
                let (state, region_label) = (f64::from(*to as u32), (Attribute::Region, &*name));
                match zone {
                    None => self.instruments.level(Level::RegionBreaker, state, &[region_label]),
                    Some(zone) => {
                        let labels = [region_label, (Attribute::Zone, &**zone)];
                        self.instruments.level(Level::ZoneBreaker, state, &labels);
                    }
                }
                if let Some(spans) = &mut self.spans {
                    spans.region_breaker(*region, zone.as_ref(), *to, at);
                }
            }
            CoreEvent::ClientBreaker {
                group,
                is_configured,
                others_open,
                action: _,
                from,
                to,
                mode,
                sessions,
                bad,
            } => {
                let (was, is, mode) = (from.name(), to.name(), mode.name());
                let (label, value) = (group.label.name(), &group.value);
                warn!(label, ?value, was, is, mode, sessions, bad, "breaker of clients changed");
                // Clients choose the other names.
                let (value, state) = match (is_configured, others_open) {
                    (true, _) => (&*group.value, *to as u32),
                    (false, open) => ("other", (*open).min(1)),
                };
                let labels = [(Attribute::Label, label), (Attribute::LabelValue, value)];
                self.instruments.level(Level::ClientBreaker, f64::from(state), &labels);
                if let Some(spans) = &mut self.spans {
                    spans.client_breaker(group, *to, at);
                }
            }
            CoreEvent::ProviderBreaker { provider, from: _, to, failures: _ } => {
                let labels = [(Attribute::Provider, &**provider)];
                self.instruments.level(Level::ProviderBreaker, f64::from(*to as u32), &labels);
            }
            CoreEvent::Stop { node, step } => self.stop(*node, *step, at),
            CoreEvent::Degraded { .. } => {
                if let Some(spans) = &mut self.spans {
                    spans.degraded(event, at);
                }
            }
            CoreEvent::Impaired { scenario, impairment, .. } => {
                if let Some(impairment) = impairment {
                    let segment = impairment.segment.name();
                    let labels =
                        [(Attribute::Scenario, &**scenario), (Attribute::Segment, segment)];
                    self.instruments.count(Count::Impairments, 1, &labels);
                }
                if let Some(spans) = &mut self.spans {
                    spans.impaired(event, at);
                }
            }
            CoreEvent::OwnStall { late } => {
                // Shorter stalls are counted only; a busy machine has many a second.
                if *late >= LATE_TOLD {
                    warn!(?late, "event loop stalled; failure detection skipped");
                } else {
                    debug!(?late, "event loop stalled; failure detection skipped");
                }
                self.instruments.time(Histogram::OwnStall, *late, &[]);
            }
            CoreEvent::Uplink { doubted, silent, of } => {
                if *doubted {
                    warn!(
                        silent,
                        of,
                        "most nodes fell silent at once; uplink suspected, no node marked down for it"
                    );
                    self.instruments.count(Count::UplinkSuspicions, 1, &[]);
                } else {
                    info!("uplink no longer suspected");
                }
            }
            CoreEvent::Standing { hook: _, policy, fault } => {
                match fault {
                    Some(fault) => warn!(%policy, fault = fault.name(), "policy failing"),
                    None => info!(%policy, "policy no longer failing"),
                }
                let failing = f64::from(fault.is_some());
                let labels = [(Attribute::Policy, &*policy.to_string())];
                self.instruments.level(Level::PolicyFailing, failing, &labels);
            }
            // The row has everything.
            _ => {}
        }
    }

    /// Counts a step of a rollout and records its span.
    pub fn handle_rollout(&mut self, rollout: &RolloutReport, at: Moment) {
        let RolloutReport { policy, revision, outcome, code, reason, activate, by, stage, .. } =
            rollout;
        let (revision, by) = (revision.as_deref(), by.name());
        let (name, percent) = match stage.map(|staged| staged.stage) {
            Some(stage) => (stage.name(), stage.percent()),
            None => ("none", 0),
        };
        match outcome {
            RolloutOutcome::Activated if code.is_some() => {
                warn!(%policy, revision, by, code, reason, ?activate, "revision activated");
            }
            RolloutOutcome::Activated => {
                info!(%policy, revision, by, reason, ?activate, "revision activated");
            }
            RolloutOutcome::Unchanged => info!(%policy, revision, by, "revision already active"),
            RolloutOutcome::Revoked => {
                warn!(%policy, revision, code, reason, "loaded revision was revoked");
            }
            RolloutOutcome::Refused => {
                warn!(%policy, revision, by, code, reason, "revision refused");
            }
            RolloutOutcome::RolledBack => {
                warn!(%policy, active = revision, by, reason, "revision rolled back");
            }
            RolloutOutcome::Started
            | RolloutOutcome::Advanced
            | RolloutOutcome::Paused
            | RolloutOutcome::Resumed => {
                let step = outcome.name();
                info!(%policy, revision, by, step, stage = name, percent, reason, "rollout step");
            }
        }
        let policy = policy.to_string();
        // The alert about harm does not fire for a decision of an operator.
        let counted = match outcome {
            RolloutOutcome::RolledBack if rollout.by != Actor::Gateway => "reverted",
            _ => outcome.name(),
        };
        let labels = [(Attribute::Policy, &*policy), (Attribute::Outcome, counted)];
        self.instruments.count(Count::PolicyRollouts, 1, &labels);
        if let Some(code) = code.filter(|_| *outcome == RolloutOutcome::Refused) {
            self.instruments.count(
                Count::PolicyRefusals,
                1,
                &[labels[0], (Attribute::Reason, code)],
            );
        }
        if matches!(outcome, RolloutOutcome::Activated | RolloutOutcome::RolledBack) {
            self.instruments.time(Histogram::PolicyActivate, *activate, &labels[..1]);
        }
        let is_step = !matches!(
            outcome,
            RolloutOutcome::Refused | RolloutOutcome::Unchanged | RolloutOutcome::Revoked
        );
        if is_step {
            let at = match stage.map(|staged| staged.stage) {
                None => 0.0,
                Some(RolloutStage::Shadow) => 1.0,
                Some(RolloutStage::Canary(_)) => 2.0,
            };
            self.instruments.level(Level::PolicyStage, at, &labels[..1]);
            self.instruments.level(Level::PolicyCanary, f64::from(percent), &labels[..1]);
        }
        if let Some(spans) = &mut self.spans {
            spans.rollout(rollout, at);
        }
    }

    fn decided(&self, decision: &DecisionSpan) {
        let name = decision.policy.to_string();
        let policy = (Attribute::Policy, &*name);
        match &decision.outcome {
            DecisionOutcome::Faulted(fault) => {
                let labels = [policy, (Attribute::Fault, fault.name())];
                return self.instruments.count(Count::PolicyFaults, 1, &labels);
            }
            // For a decision about many rows, each rejected row has an event of its own.
            DecisionOutcome::Guarded(guard)
                if decision.session.is_some() || decision.room.is_some() =>
            {
                let labels = [policy, (Attribute::Guard, guard.name())];
                self.instruments.count(Count::PolicyGuarded, 1, &labels);
            }
            DecisionOutcome::Applied { differs: true } => {
                self.instruments.count(Count::PolicyDiffers, 1, &[policy]);
            }
            _ => {}
        }
        self.instruments.time(Histogram::PolicyCall, decision.took, &[policy]);
    }

    fn start(&mut self, node: NodeId, step: StartPhase, at: Moment) {
        let name = self.names.of_node(node).node;
        match step {
            StartPhase::Begun { attempt } => info!(node = %name, attempt, "starting node"),
            StartPhase::Failed { why, again } => {
                warn!(node = %name, why = why.name(), ?again, "start of node failed");
            }
            StartPhase::Done { took } => {
                info!(node = %name, ?took, "node started");
                self.instruments.time(Histogram::NodeStart, took, &[(Attribute::Node, &*name)]);
            }
            StartPhase::Refused { why } => {
                warn!(node = %name, limit = why.name(), "node not started");
            }
        }
        if let Some(spans) = &mut self.spans {
            spans.start(node, step, at);
        }
    }

    fn stop(&mut self, node: NodeId, step: StopPhase, at: Moment) {
        let name = self.names.of_node(node).node;
        match step {
            StopPhase::Begun => info!(node = %name, "stopping node that is no longer needed"),
            StopPhase::Done { took } => info!(node = %name, ?took, "node stopped"),
            StopPhase::Failed => warn!(node = %name, "node still answers; stop given up"),
        }
        if let Some(spans) = &mut self.spans {
            spans.stop(node, step, at);
        }
    }
}

fn log_node_list(told: &NodeListUpdate) {
    let (by, forced) = (told.by.name(), told.forced);
    match &told.outcome {
        Ok(ListChange { added, removed, changed }) => {
            info!(by, forced, ?added, ?removed, ?changed, "node list changed");
        }
        Err(reason) => warn!(by, forced, %reason, "node list refused; nothing changed"),
    }
}
