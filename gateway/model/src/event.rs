//! Events of the core. Telemetry turns them into metrics, spans and log lines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::ask::{
    Arm, DecisionNote, DecisionOutcome, GuardRule, Hook, Labels, PluginFault, PolicyName,
};
use crate::clients::ClientGroup;
use crate::diagnosis::Impairment;
use crate::event_rows::EventValue;
use crate::forwarding::Hop;
use crate::health::{BreakerMode, BreakerState, EvidenceSource, Health, StartPhase, StopPhase};
use crate::id::{AskId, NodeId, OfferId, RegionId, RoomId, SessionId};
use crate::offer::{ClientTransport, Decider, MediaDescription, OfferRefusal};
use crate::policing::Policing;
use crate::registry::Op;
use crate::settings::{NewcomerAction, RedundancyMode};

crate::named! {
    /// Why a hop left the route of one room although its node is up.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum Strike {
        /// The node did not open a session.
        NotOpened = "not-opened",
        /// The kernel reports that the port of a session at the node is closed.
        PortClosed = "port-closed",
        /// A session stopped receiving from the node although the other participants still send.
        FlowLost = "flow-lost",
    }
}

crate::named! {
    /// Why a room moved.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
    pub enum MoveCause {
        /// The node of the room was marked down.
        NodeDown = "node-down",
        /// The hop did not carry this room although its node is up.
        Link = "link",
        /// A policy found a better node.
        Quality = "quality",
        /// An operator moved the room.
        Manual = "manual",
        /// The node of the room is draining.
        Drain = "drain",
        /// A preferred node is back.
        Failback = "failback",
        /// An operator ejected the node of the room.
        Ejected = "ejected",
    }
}

impl MoveCause {
    /// Returns true if the room lost its node before it had another one.
    pub fn is_loss(self) -> bool {
        matches!(self, MoveCause::NodeDown | MoveCause::Ejected)
    }
}

crate::named! {
    /// Why a session ended.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum CloseReason {
        /// The API closed it.
        Requested = "requested",
        /// No packet came from the client for `close_after` of the scenario.
        MediaTimeout = "media-timeout",
        /// The gateway shuts down.
        Shutdown = "shutdown",
        /// No node opened it, or no route was found.
        NotOpened = "not-opened",
        /// A worker panicked on one of its packets. Only that session is closed.
        Panicked = "panicked",
        /// The client closed its DTLS connection (`close_notify`).
        ClientClosed = "client-closed",
        /// The DTLS handshake of the client failed.
        HandshakeFailed = "handshake-failed",
        /// Another gateway or process had begun the client's DTLS handshake.
        HandshakeLost = "handshake-lost",
        /// Another gateway may have used indices of its SRTP that this one does not know.
        SrtpCountersLost = "srtp-counters-lost",
        /// A degradation policy ended it, by the action `end`.
        EndedByPolicy = "ended-by-policy",
    }
}

impl CloseReason {
    /// Returns true if a fault of a gateway ended the session.
    pub fn is_failure_of_gateway(self) -> bool {
        match self {
            CloseReason::Panicked | CloseReason::HandshakeLost | CloseReason::SrtpCountersLost => {
                true
            }
            CloseReason::Requested
            | CloseReason::MediaTimeout
            | CloseReason::Shutdown
            | CloseReason::NotOpened
            | CloseReason::ClientClosed
            | CloseReason::HandshakeFailed
            | CloseReason::EndedByPolicy => false,
        }
    }
}

/// A session at its end.
#[derive(Clone, PartialEq, Debug)]
pub struct ClosedSession {
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The labels of its offer.
    pub labels: Labels,
    /// The streams of its client.
    pub media: Arc<MediaDescription>,
    /// The redundancy mode in force.
    pub mode: RedundancyMode,
    /// The transport of the client.
    pub transport: ClientTransport,
    /// The author of the admission.
    pub admitted_by: Arc<Decider>,
    /// The author of the room's route.
    pub routed_by: Decider,
    /// The node that carried the room; `None` while it was stranded.
    pub node: Option<NodeId>,
    /// The mean R-factor of its voice, times 100; `None` if it was not measured.
    pub mean_r_centi: Option<u32>,
    /// The arrival of the offer.
    pub offered: Instant,
    /// The time at which the session ended.
    pub ended: Instant,
    /// Completed moves of its room since the offer, oldest first, as far as the room remembers them.
    pub moves: Vec<ClosedMove>,
}

/// A completed move of a session's room.
#[derive(Clone, PartialEq, Debug)]
pub struct ClosedMove {
    /// The reason of the move.
    pub cause: MoveCause,
    /// The author of the decision.
    pub by: Arc<Decider>,
    /// The hop before the move.
    pub from: Hop,
    /// `None`: no hop was left for the room.
    pub to: Option<Hop>,
    /// The time at which the move ended.
    pub ended: Instant,
}

/// Why the mode of a room changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModeChange {
    /// The configuration of the scenario changed.
    Scenario,
    /// Two hops delivered different packets: these nodes do not preserve SSRC, sequence number and payload.
    CopiesDiffer {
        /// The two hops of the room.
        hops: [Hop; 2],
    },
    /// A second hop with capacity for the room is missing, or is available again.
    Capacity,
}

impl ModeChange {
    /// The word in metrics and records: `copies-differ`.
    pub fn name(self) -> &'static str {
        match self {
            ModeChange::Scenario => "scenario",
            ModeChange::CopiesDiffer { .. } => "copies-differ",
            ModeChange::Capacity => "capacity",
        }
    }
}

crate::events! {
    /// An event of the core. Fields of the same name have the same meaning in all events.
    #[derive(Clone, PartialEq, Debug)]
    pub enum CoreEvent {
        /// A question to a policy was decided.
        Decided {
            /// The question that was answered.
            ask: AskId,
            /// The policy, by set and hook.
            policy: PolicyName,
            /// The arm whose revision was asked.
            arm: Arm,
            /// The revision that answered; `None` after a fault.
            revision: Option<Arc<str>>,
            /// The result after validation.
            outcome: DecisionOutcome,
            /// The reason that the plugin gave, for a question about one subject.
            reason: Option<Arc<str>>,
            /// The session of a question about one session.
            session: Option<SessionId>,
            /// The room of a question about one room.
            room: Option<RoomId>,
            /// The number of subjects of the question.
            rows: u32,
            /// The time of the question.
            asked: Instant,
            /// Time in the plugin; zero after a fault.
            took: Duration,
            /// Notes of the plugin on subjects of the question.
            notes: Vec<DecisionNote>,
            /// The nodes of the native default for a placement; empty for other questions.
            native: Vec<NodeId>,
        }
            logs Debug "policy decided" [ask, policy, arm = arm.name(), outcome = outcome.name(), rows, took];
            counts "evenkeel.policy.calls" [policy, outcome = outcome.name()];
        /// Part of a decision broke a rule and was not applied.
        Guarded {
            /// The policy, by set and hook.
            policy: PolicyName,
            /// The native rule that was broken.
            guard: GuardRule,
            /// How often it was broken in one answer.
            times: u32,
        }
            logs Debug "parts of a decision rejected by a guard" [policy, guard = guard.name(), times];
            counts "evenkeel.policy.guarded" [policy, guard = guard.name()] times *times;
        /// A revision faults on a session or room and is no longer asked about it. The subject stays as it is.
        Quarantined {
            /// The policy, by set and hook.
            policy: PolicyName,
            /// The revision that faults. Other revisions are still asked.
            revision: Arc<str>,
            /// The session; `None` if the subject is a room.
            session: Option<SessionId>,
            /// The room; `None` if the subject is a session.
            room: Option<RoomId>,
            /// The failure of the plugin.
            fault: PluginFault,
        }
            logs Warn "subject quarantined: this revision faults on it"
                [policy, revision, about = quarantined(*session, *room), fault = EventValue::Shown(fault)];
            counts "evenkeel.policy.quarantined" [policy, fault = fault.name()];
        /// A plugin answered differently from a fresh instance of it, so it keeps state between questions.
        HiddenState {
            /// The policy, by set and hook.
            policy: PolicyName,
            /// The name of the revision: a hash of plugin and settings.
            revision: Arc<str>,
            /// The difference between the answers.
            differs: Box<str>,
        }
            logs Warn "answer differs from that of a fresh instance: the plugin has hidden state" [policy, revision, differs];
        /// A session is open.
        Opened {
            /// The number of the session.
            session: SessionId,
            /// The number of the room.
            room: RoomId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The name of the scenario.
            scenario: Arc<str>,
            /// The node, in one incarnation.
            hop: Hop,
            /// The arrival of the offer.
            offered: Instant,
            /// The author of the admission.
            admitted_by: Decider,
            /// The author of the placement.
            routed_by: Decider,
        }
            counts "evenkeel.sessions.opened" [scenario];
            sends "opened" with "`session`, `room`, `scenario`, `hop`, `decided_by`";
        /// An offer was turned down.
        Refused {
            /// The offer that is answered.
            offer: OfferId,
            /// The session and room of the offer, if they were created.
            session: Option<(SessionId, RoomId)>,
            /// The name of the scenario.
            scenario: Arc<str>,
            /// The reason of the refusal.
            reason: OfferRefusal,
        }
        /// A session ended.
        Closed {
            /// The number of the session.
            session: SessionId,
            /// The number of the room.
            room: RoomId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The cause of the end.
            reason: CloseReason,
            /// The facts of the session for its history.
            closed: Box<ClosedSession>,
        }
            counts "evenkeel.sessions.closed" [scenario = &closed.scenario, reason = reason.name()];
            sends "closed" with "`session`, `room`, `reason`, `totals`";
        /// A room moved to another hop.
        Moved {
            /// The number of the room.
            room: RoomId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The name of the scenario.
            scenario: Arc<str>,
            /// The live sessions of the room.
            sessions: Vec<SessionId>,
            /// The reason of the move.
            cause: MoveCause,
            /// The author of the decision.
            by: Decider,
            /// The hop before the move.
            from: Hop,
            /// `None` if no hop was usable; the core keeps looking.
            to: Option<Hop>,
            /// The time at which the move or drain began.
            started: Instant,
            /// False: a closed port moved the room, and [`CoreEvent::MoveCauseFound`] tells within two seconds whether its node was dead.
            is_final: bool,
        }
            sends "moved" with "`room`, `sessions`, `cause`, `by`, `from`, `to`, `witnesses`, `detect_us`, `took_us`";
        /// A move was aborted. The room stays where it is.
        MoveEnded {
            /// The number of the room.
            room: RoomId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// Why the move began.
            cause: MoveCause,
            /// The author of the decision.
            by: Decider,
            /// The hop before the move.
            from: Hop,
            /// The hop after the move.
            to: Hop,
            /// The time at which the move or drain began.
            started: Instant,
            /// Why the move was aborted.
            outcome: MoveOutcome,
        }
            logs Debug "move aborted" [room, cause = cause.name(), by, from, to, outcome = outcome.name(), took = started];
            counts "evenkeel.moves.aborted" [cause = cause.name(), outcome = outcome.name()];
            sends "move-ended" with "`room`, `cause`, `by`, `from`, `to`, `outcome`, `took_us`";
        /// A standby of a room changed. The first hop stays.
        Rerouted {
            /// The number of the room.
            room: RoomId,
            /// The hops, best first.
            hops: Vec<Hop>,
            /// The author of the decision.
            by: Decider,
        }
            logs Debug "spares changed" [room, hops = hops.len(), by];
            counts "evenkeel.rooms.rerouted" [by];
        /// A hop left the route of a room although its node is up.
        HopRemoved {
            /// The number of the room.
            room: RoomId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The node, in one incarnation.
            hop: Hop,
            /// The reason why the hop left the route.
            why: Strike,
            /// The session that gave the evidence, if it was one session.
            session: Option<SessionId>,
        }
            logs Debug "hop removed from a route" [room, node = hop, why = why.name()];
            counts "evenkeel.hops.removed" [node = hop, reason = why.name()];
            sends "hop-removed" with "`room`, `node`, `reason`, `session`";
        /// The cause of moves that `moved` gave as `link` is known: their ports were closed because the node was dead. It follows the
        /// event `node`, which includes them in `rooms`.
        MoveCauseFound {
            /// The node, in one incarnation.
            hop: Hop,
            /// The reason of the moves.
            cause: MoveCause,
            /// The moves.
            moves: Vec<PortMove>,
        }
            logs Debug "cause of earlier moves found" [node = hop, cause = cause.name(), rooms = moves.len()];
            sends "move-cause" with "`node`, `cause`, `rooms`, `sessions`";
        /// A node's health changed.
        Node {
            /// The node and its incarnation.
            hop: Hop,
            /// The health before.
            from: Health,
            /// The health after.
            to: Health,
            /// Evidence against the node, with its time.
            witnesses: Vec<(EvidenceSource, Instant)>,
            /// The time of the last packet; `None` before the first.
            last_heard: Option<Instant>,
            /// Rooms at the node.
            rooms: u32,
        }
            sends "node" with "`node`, `incarnation`, `from`, `to`, `witnesses`, `detect_us`, `rooms`, `dependencies_down`";
        /// A node is being started, fails to, has started, or is not started because of a [limit](elastic.md#budget) (`step` is `refused`).
        Start {
            /// The number of the node.
            node: NodeId,
            /// The step that was reached.
            step: StartPhase,
        }
            counts "evenkeel.node.starts" [node, outcome = step.name()];
            sends "start" with "`node`, `step`, `attempt`, `reason`, `retry_after_us`, `took_us`";
        /// A node that is [no longer needed](elastic.md#stops) is told to stop, has stopped, or fails to.
        Stop {
            /// The number of the node.
            node: NodeId,
            /// The step that was reached.
            step: StopPhase,
        }
            counts "evenkeel.node.stops" [node, outcome = step.name()];
            sends "stop" with "`node`, `step` (stopping, stopped or failed), `took_us`";
        /// The state of the [breaker of a provider of nodes](elastic.md#providers) changed.
        ProviderBreaker {
            /// The program or host that starts nodes.
            provider: Arc<str>,
            /// The state before.
            from: BreakerState,
            /// The state after.
            to: BreakerState,
            /// Failed starts in a row.
            failures: u32,
        }
            logs Warn "breaker of a provider of nodes changed" [provider, was = from.name(), is = to.name(), failures];
            sends "provider-breaker" with "`provider`, `from`, `to`, `failures`";
        /// A room continues in another mode, or keeps more or less of its own.
        Mode {
            /// The number of the room.
            room: RoomId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The mode before.
            from: RedundancyMode,
            /// The mode it has now.
            to: RedundancyMode,
            /// The reason of the change.
            why: ModeChange,
        }
            counts "evenkeel.rooms.mode_changes" [mode = to.name(), reason = why.name()];
            sends "mode" with "`room`, `from`, `to`, `reason`, `nodes`";
        /// The drain of a node began or ended.
        Draining {
            /// The number of the node.
            node: NodeId,
            /// True at the start of the drain, false at its end.
            draining: bool,
        }
            sends "draining" with "`node`, `draining`";
        /// A drained node is empty, or its deadline passed.
        Drained {
            /// The number of the node.
            node: NodeId,
            /// Rooms that fit on no other node. They stay until they do.
            left: u32,
            /// The time at which the move or drain began.
            started: Instant,
        }
            sends "drained" with "`node`, `rooms_left`, `took_us`";
        /// The state of the [breaker of a region or zone](failover.md#breakers-of-regions-and-zones) changed, or is that of the process
        /// which this one continues.
        Breaker {
            /// The number of the region.
            region: RegionId,
            /// The name of the zone; `None`: the breaker is that of the region.
            zone: Option<Arc<str>>,
            /// The state before.
            from: BreakerState,
            /// The state after.
            to: BreakerState,
            /// How the state was decided.
            mode: BreakerMode,
            /// Sessions measured within the last second.
            sessions: u32,
            /// Sessions with bad media.
            bad: u32,
            /// Sessions opened there within the last second.
            opened: u32,
            /// Sessions that failed to open within the last second.
            failed: u32,
        }
            sends "breaker" with "`region`, `zone` (absent: that of the region), `from`, `to`, `mode` (auto, or open or closed if an operator \
                                  holds it), `sessions`, `bad`, `opened`, `failed`, `dependencies_down`";
        /// The state of the [breaker of a group of clients](failover.md#client-breaker) changed, or is that of the process which this one
        /// continues.
        ClientBreaker {
            /// The clients.
            group: ClientGroup,
            /// The configuration has the group's name. Other names come from clients.
            is_configured: bool,
            /// Groups of the label that the configuration does not name and that have a breaker that is not closed.
            others_open: u32,
            /// The treatment of newcomers while the breaker is open.
            action: NewcomerAction,
            /// The state before.
            from: BreakerState,
            /// The state after.
            to: BreakerState,
            /// How the state was decided.
            mode: BreakerMode,
            /// Sessions of the group that were measured within the last second.
            sessions: u32,
            /// Sessions that their uplink or downlink impairs.
            bad: u32,
        }
            sends "client-breaker" with "`label`, `value`, `action`, `from`, `to`, `mode`, `sessions`, `bad`, `dependencies_down`";
        /// The cap or rung of a session changed.
        Degraded {
            /// The number of the session.
            session: SessionId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The kind of the action.
            op: Op,
            /// The argument of the action: kbit/s for a cap.
            arg: u64,
            /// The rung after the change; 0 is undegraded.
            rung: u8,
            /// The author of the decision.
            by: Decider,
        }
            logs Debug "quality changed" [session, op = op.key(), arg, rung, by];
            counts "evenkeel.degradations" [op = op.key(), by];
            sends "degraded" with "`session`, `room`, `op`, `arg`, `rung`, `by`";
        /// Another [segment of its path](operations/daily.md#impaired-media) impairs a session's media, or none does any more.
        Impaired {
            /// The number of the session.
            session: SessionId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The name of the scenario.
            scenario: Arc<str>,
            /// `None` if the impairment ended.
            impairment: Option<Box<Impairment>>,
            /// The impairment before, with its start.
            ended: Option<(Box<Impairment>, Instant)>,
        }
            logs Debug "impairment changed"
                [session, scenario = &**scenario, segment = impairment.as_ref().map(|it| it.segment.name())];
            sends "impaired" with "`session`, `room`, `scenario`, `impairment` as an explanation of the session has it, absent at the end; the sign \
                                   is that of the beginning: a change of it alone is no event";
        /// Another [advice](media.md#advice) holds for the user of a session, or none does any more.
        Advised {
            /// The number of the session.
            session: SessionId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The name of the scenario.
            scenario: Arc<str>,
            /// The advice, or the end of the one before.
            advice: Advice,
        }
            logs Debug "advice changed"
                [session, scenario = &**scenario, advice = advice.kind.name(), cause = advice.cause.name()];
            counts "evenkeel.advices"
                [scenario = &**scenario, advice = advice.kind.name(), segment = advice.cause.name()];
            sends "advice" with "`session`, `room`, `scenario`, `advice`: suspended, switch-network, lower-quality, audio-only or restored, \
                                 with its cause: uplink, downlink, leg, node or unknown";
        /// A client sends [more than it may](media.md#senders-above-their-limit), is policed in another way, or no more.
        Policed {
            /// The number of the session.
            session: SessionId,
            /// The name that clients requested; the number of a room that is gone.
            room_name: Arc<str>,
            /// The name of the scenario.
            scenario: Arc<str>,
            /// `None` if the policing ended.
            policing: Option<Policing>,
        }
            logs Debug "policing changed"
                [session, scenario = &**scenario, step = policing.map(|it| it.step.name())];
            sends "policed" with "`session`, `room`, `scenario`, `policing` as a session has it, absent at the end";
        /// The control loop stalled. Every deadline moved by `late`, and no node was marked down.
        OwnStall {
            /// The time for which this process did not run.
            late: Duration,
        }
            counts "evenkeel.event_loop.stalls" [];
        /// Most nodes fell silent at once, so the uplink of the gateway is suspected and no node is marked down for silence;
        /// or the suspicion ended.
        Uplink {
            /// True if the gateway doubts its own uplink from now on.
            doubted: bool,
            /// The number of nodes that fell silent together.
            silent: u32,
            /// Nodes that were heard before.
            of: u32,
        }
            sends "uplink" with "`suspect`, `silent`, `of`, `dependencies_down`";
        /// A policy began to fail, or no longer does.
        Standing {
            /// The question that the policy answers.
            hook: Hook,
            /// The policy, by set and hook.
            policy: PolicyName,
            /// The fault; `None` if the policy answers again, or had none for five minutes.
            fault: Option<PluginFault>,
        }
            sends "policy";
        /// A candidate, or an active revision that can be rolled back, exceeded a threshold of its judge.
        Breached {
            /// The policy, by set and hook.
            policy: PolicyName,
            /// The name of the revision: a hash of plugin and settings.
            revision: Arc<str>,
            /// The evidence of harm.
            breach: Breach,
            /// The last part of it: the broken rule, the node and the room or session.
            last: Option<Box<str>>,
        }
            logs Warn "revision breached a rollback threshold"
                [policy, revision, breach = EventValue::Shown(breach), last = last.as_deref()];
        /// The gateway shuts down and admits no more sessions; then `node` is absent.
        ShuttingDown
            logs Info "new sessions are refused: shutting down" [];
            sends "draining";
    }
}

/// The subject of a quarantine.
fn quarantined(session: Option<SessionId>, room: Option<RoomId>) -> String {
    let session = session.map(|session| session.to_string());
    session.or(room.map(|room| room.to_string())).unwrap_or_default()
}

crate::named! {
    /// The end of a move.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
    pub enum MoveOutcome {
        /// The room is at its target.
        Done = "completed",
        /// No hop was usable; the core keeps looking.
        Stranded = "stranded",
        /// Another move replaced this one.
        Superseded = "superseded",
        /// The target was marked down before the move completed.
        TargetLost = "target-lost",
        /// The target did not open the sessions.
        NotOpened = "not-opened",
        /// The room moved too often within a minute.
        Damped = "damped",
        /// The room ended.
        Closed = "closed",
    }
}

crate::named! {
    /// A measure by which a revision is judged.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    #[repr(u8)]
    pub enum Figure {
        /// Nothing is heard for too long after steady media; or packets for that time are missing when another hop takes
        /// over.
        Gap = "gap",
        /// Too much loss after repair, up or down: measured, reported, or found by sequence numbers of the node's packets.
        Loss = "loss",
        /// Voice quality is too poor (ITU-T G.107).
        RFactor = "r-factor",
        /// Too far down the degradation ladder.
        Rung = "rung",
        /// The room moves too often.
        Moves = "moves",
        /// A limit of the scenario's service level objective is missed.
        Slo = "slo",
        /// Too many of the revision's own decisions break native rules.
        Guarded = "guarded decisions",
        /// Answers differ from those of a fresh instance: they cannot be replayed, and a restart after a fault changes
        /// them.
        HiddenState = "hidden state",
        /// The revision itself turns newcomers away: it rejects them, or redirects them to another region.
        Refusals = "refusals",
        /// The revision's routes have no standby with capacity where the native default has one.
        Redundancy = "redundancy",
        /// Rooms crowd on one node.
        Spread = "spread",
    }
}

/// Size of a cohort, and how much of it got worse.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct BreachCount {
    /// Rooms, sessions, decisions or newcomers.
    pub of: u32,
    /// The part that got worse, broke a rule, was turned away, or is on one node.
    pub worse: u32,
}

/// A room that left a hop for a closed port.
#[derive(Clone, PartialEq, Debug)]
pub struct PortMove {
    /// The number of the room.
    pub room: RoomId,
    /// The name that clients requested.
    pub room_name: Arc<str>,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The live sessions that moved.
    pub sessions: Vec<SessionId>,
    /// Time from the start of the move until the room was at its next hop.
    pub took: Duration,
}

/// Evidence that a revision does harm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breach {
    /// The measure that got worse.
    pub figure: Figure,
    /// The canary's count; the active revision's, if that is judged by itself.
    pub canary: BreachCount,
    /// The rest's count; empty if there is no comparison.
    pub rest: BreachCount,
}

impl std::fmt::Display for Breach {
    /// `loss: 8 of 10 got worse, of the rest 0 of 190`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Breach { figure, canary, rest } = self;
        let verb = match figure {
            Figure::Guarded => "broke a rule",
            Figure::HiddenState => "differed from a fresh instance's",
            Figure::Refusals => "turned away",
            Figure::Redundancy => "have no usable standby",
            Figure::Spread => "are on one node",
            Figure::Slo => "missed the objective",
            Figure::Gap | Figure::Loss | Figure::RFactor | Figure::Rung | Figure::Moves => {
                "got worse"
            }
        };
        write!(f, "{}: {} of {} {verb}", figure.name(), canary.worse, canary.of)?;
        match rest.of {
            0 => Ok(()),
            of => write!(f, ", of the rest {} of {of}", rest.worse),
        }
    }
}
