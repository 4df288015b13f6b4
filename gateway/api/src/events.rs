//! The events of `GET /v1/events`, and the JSON objects that events and answers share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_alerts::AlertHandle;
use evenkeel_control::history::Carried;
use evenkeel_control::{
    EventRecord, GatewayEvent, GroupChange, NodeNames, ReloadReport, RolloutReport,
};
use evenkeel_forecast::{Forecast, ForecastChange};
use evenkeel_model::{
    CoreEvent, Decider, EventValue, EvidenceSource, Health, Hop, Incarnation, ListedEvent,
    ModeChange, MoveCause, NodeId, NoticeFields, NoticeRow, PluginFault, StartPhase, StopPhase,
};
use evenkeel_process::unix_us;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::impairments::impaired;
use super::object::{milliseconds, object};

/// A reload: its cause, its changes or, if it was refused, the reason.
pub(super) fn reload(report: &ReloadReport) -> impl Serialize + use<> {
    let (changes, reason) = match &report.outcome {
        Ok(changes) => (Some(changes.clone()), None),
        Err(reason) => (None, Some(reason.clone())),
    };
    object! {
        // `file`, `signal` or `operator`.
        by: report.by.name(),
        took_us: report.took.as_micros() as u64,
        #[serde(flatten)]
        changes: changes,
        reason?: reason,
    }
}

pub(super) fn missing(notices: u64) -> EventNotice {
    EventNotice { name: "missed", data: format!("{{\"notices\":{notices}}}") }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EventNotice {
    pub(super) name: &'static str,
    pub(super) data: String,
}

/// A notice with the time of its event, Unix time in microseconds, and these fields.
macro_rules! notice {
    ($name:literal, $at_us:expr; $($fields:tt)*) => {{
        let body = object! { at_us: $at_us, $($fields)* };
        EventNotice { name: $name, data: serde_json::to_string(&body).expect("words and numbers") }
    }};
}

/// The fields of an event, in the order of its row.
struct ListedFields(Vec<(&'static str, Value)>);

impl Serialize for ListedFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A witness, and how long it has accused the node.
#[derive(Clone, Copy, Serialize)]
struct Accusation {
    witness: &'static str,
    for_us: u64,
}

/// Turns events into notices. It remembers why nodes went down for the moves that follow.
pub(super) struct NoticeWriter {
    names: Arc<NodeNames>,
    /// Knows dependencies that a fault may affect as well.
    alerts: Option<AlertHandle>,
    /// The last failure of each node.
    deaths: HashMap<NodeId, (Incarnation, Vec<Accusation>, Option<u64>)>,
}

impl NoticeWriter {
    pub(super) fn new(names: Arc<NodeNames>, alerts: Option<AlertHandle>) -> NoticeWriter {
        NoticeWriter { names, alerts, deaths: HashMap::new() }
    }

    pub(super) fn notice(&mut self, record: &EventRecord) -> Option<EventNotice> {
        let at_us = unix_us(record.at);
        Some(match &record.event {
            GatewayEvent::Core(event) => return self.core_notice(event, record),
            GatewayEvent::Rollout(report) => notice! {
                "policy", at_us;
                #[serde(flatten)]
                rollout: rollout(report.clone()),
            },
            // The list of nodes changed, or a change was refused for `reason`.
            GatewayEvent::NodeList(update) => {
                let list = update.outcome.clone().unwrap_or_default();
                notice! {
                    "node-list", at_us;
                    // `file`, `signal` or `operator`.
                    by: update.by.name(),
                    // With `--force`.
                    forced: update.forced,
                    added: list.added,
                    removed: list.removed,
                    changed: list.changed,
                    reason?: update.outcome.as_ref().err().map(ToString::to_string),
                }
            }
            // A node that was removed from the list is empty, and forgotten.
            GatewayEvent::NodeRemoved { node, name } => {
                self.deaths.remove(node);
                notice! { "node-removed", at_us; node: name }
            }
            // A reload had an effect, or was refused for `reason`.
            GatewayEvent::Reload(report) => notice! {
                "reload", at_us;
                #[serde(flatten)]
                reload: reload(report),
            },
            // A node did not open a session.
            GatewayEvent::NotOpened { session, node, reason } => notice! {
                "not-opened", at_us;
                session: session.to_string(),
                node: self.names.of_node(*node).node,
                reason: reason,
            },
            // The DTLS handshake of a session's client has ended.
            GatewayEvent::Handshake { session, result } => notice! {
                "handshake", at_us;
                session: session.to_string(),
                // The crypto suite (RFC 4568), or the reason of the failure.
                profile?: result.as_ref().ok().map(|profile| profile.name()),
                reason?: result.as_ref().err().map(ToString::to_string),
            },
            // A session follows a later offer of its WebRTC client.
            GatewayEvent::Renegotiated { session, streams_changed, ice_restarted } => notice! {
                "renegotiated", at_us;
                session: session.to_string(),
                streams_changed: streams_changed,
                ice_restarted: ice_restarted,
            },
            // A member of a group has another role, or the group lost or regained redundancy.
            GatewayEvent::Group(GroupChange { gateway, role, epoch, warnings }) => notice! {
                "group", at_us;
                gateway: gateway,
                role: role,
                epoch: epoch,
                // The losses of redundancy that have lasted, each a sentence.
                warnings: warnings,
            },
            // This process continues the sessions of another one.
            GatewayEvent::Continued { cause, sessions, took, .. } => notice! {
                "continued", at_us;
                // `upgrade`, `hand-over` or `takeover`.
                cause: cause.name(),
                sessions: sessions,
                took_us: took.as_micros() as u64,
            },
            // The set of checked losses that would leave rooms without a node or a spare, or sessions with a lower bit rate, changed.
            GatewayEvent::LossesUncovered(losses) => notice! {
                "losses-uncovered", at_us;
                // Empty once other nodes have capacity for each of them.
                losses: losses,
            },
            // Nodes died some seconds ago: the effect beside its prediction.
            GatewayEvent::LossCompared(compared) => notice! {
                "loss-compared", at_us;
                nodes: compared.nodes.iter().map(|hop| self.names.of_hop(*hop).node).collect::<Vec<_>>(),
                // The time of the first death.
                died_us: compared.died_us,
                // Null: this loss was not checked before.
                predicted: &compared.predicted,
                actual: compared.actual,
            },
            // A warning of what is expected begins or ends.
            GatewayEvent::Forecast(ForecastChange { forecast, is_over }) => notice! {
                "forecast", at_us;
                // `load`, `decay` or `flap`.
                kind: forecast.evidence.kind(),
                // The name of the region or node.
                subject: &forecast.subject,
                // The time at which the limit is expected to be reached.
                expected_us: forecast.expected_us,
                evidence: &forecast.evidence,
                over: *is_over,
            },
            // Consecutive RTP packets of a stream that a rung dropped.
            GatewayEvent::Shed { session, run } => notice! {
                "shed", at_us;
                session: session.to_string(),
                ssrc: run.ssrc,
                // Sequence number of the last packet before them that was sent to the client.
                after: run.after,
                // Position of the first one behind it, from 1.
                first: run.first,
                packets: run.packets,
            },
            event => return self.listed(event, record.at),
        })
    }

    /// An event with the fields of its row; `None` if it is for telemetry alone.
    fn listed(&self, event: &impl ListedEvent, at: SystemTime) -> Option<EventNotice> {
        let NoticeRow { name, fields: NoticeFields::Listed(fields) } = event.row().notice? else {
            return None;
        };
        let values = event.noticed();
        let values = values.iter().map(|value| match value {
            EventValue::Absent => None,
            EventValue::Number(number) => Some(Value::from(*number)),
            EventValue::Flag(flag) => Some(Value::from(*flag)),
            EventValue::Word(word) => Some(Value::from(&**word)),
            EventValue::Shown(shown) => Some(Value::from(shown.to_string())),
            EventValue::Time(time) => Some(Value::from(time.as_micros() as u64)),
            EventValue::Since(then) => Some(Value::from(since(*then, at))),
            EventValue::Node(node) => Some(Value::from(&*self.names.of_node(*node).node)),
            EventValue::Hop(hop) => Some(Value::from(&*self.names.of_hop(*hop).node)),
            EventValue::By(by) => Some(Value::from(by.to_string())),
        });
        let fields = fields.iter().zip(values);
        let fields = fields.filter_map(|(name, value)| Some((*name, value?)));
        let fields = [("at_us", Value::from(unix_us(at)))].into_iter().chain(fields);
        let body = ListedFields(fields.collect());
        Some(EventNotice { name, data: serde_json::to_string(&body).expect("words and numbers") })
    }

    fn core_notice(&mut self, event: &CoreEvent, record: &EventRecord) -> Option<EventNotice> {
        let at_us = unix_us(record.at);
        let since = |then: Instant| since(then, record.at);
        let of_hop = |hop: Hop| self.names.of_hop(hop).node;
        let down = || self.alerts.as_ref().and_then(AlertHandle::dependencies_down);
        Some(match event {
            CoreEvent::Opened {
                session, room_name, scenario, hop, admitted_by, routed_by, ..
            } => notice! {
                "opened", at_us;
                session: session.to_string(),
                room: room_name,
                scenario: scenario,
                hop: self::hop(*hop, &self.names),
                decided_by: decided_by(admitted_by, routed_by),
            },
            CoreEvent::Closed { session, room_name, reason, .. } => notice! {
                "closed", at_us;
                session: session.to_string(),
                room: room_name,
                reason: reason.name(),
                totals?: record.totals.as_ref().map(Carried::from),
            },
            CoreEvent::Moved { room_name, sessions, cause, by, from, to, started, .. } => {
                let (witnesses, detect_us) = self.death(*cause, *from);
                let witnesses = (!witnesses.is_empty()).then_some(witnesses);
                notice! {
                    "moved", at_us;
                    room: room_name,
                    sessions: sessions.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    cause: cause.name(),
                    by: by.to_string(),
                    from: of_hop(*from),
                    // Null: no hop was left.
                    to: to.map(of_hop),
                    // Evidence against the node it left, if that is down.
                    witnesses?: witnesses,
                    // From that node's last packet until it was marked down.
                    detect_us?: detect_us,
                    // From the start of the move until this event.
                    took_us: since(*started),
                }
            }
            CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms } => {
                let accuse = |&(witness, then): &(EvidenceSource, Instant)| Accusation {
                    witness: witness.name(),
                    for_us: since(then),
                };
                let witnesses: Vec<_> = witnesses.iter().map(accuse).collect();
                let detect_us = last_heard.map(since);
                let node = of_hop(*hop);
                if *to == Health::Down {
                    let death = (hop.incarnation, witnesses.clone(), detect_us);
                    self.deaths.insert(hop.node, death);
                }
                notice! {
                    "node", at_us;
                    node: node,
                    incarnation: hop.incarnation.0,
                    from: from.name(),
                    to: to.name(),
                    witnesses: witnesses,
                    // From its last packet.
                    detect_us?: detect_us,
                    rooms: *rooms,
                    // Omitted without any dependency, here and below.
                    dependencies_down?: down(),
                }
            }
            // An aborted move: the room stays where it was.
            CoreEvent::MoveEnded { room_name, cause, by, from, to, started, outcome, .. } => {
                notice! {
                    "move-ended", at_us;
                    room: room_name,
                    cause: cause.name(),
                    by: by.to_string(),
                    from: of_hop(*from),
                    to: of_hop(*to),
                    outcome: outcome.name(),
                    took_us: since(*started),
                }
            }
            // A drained node is empty, or its deadline passed.
            CoreEvent::Drained { node, left, started } => notice! {
                "drained", at_us;
                node: self.names.of_node(*node).node,
                rooms_left: *left,
                took_us: since(*started),
            },
            CoreEvent::Breaker { region, zone, from, to, mode, sessions, bad, opened, failed } => {
                notice! {
                    "breaker", at_us;
                    region: self.names.of_region(*region),
                    zone?: zone.clone(),
                    from: from.name(),
                    to: to.name(),
                    mode: mode.name(),
                    sessions: *sessions,
                    bad: *bad,
                    opened: *opened,
                    failed: *failed,
                    dependencies_down?: down(),
                }
            }
            CoreEvent::ClientBreaker { group, action, from, to, mode, sessions, bad, .. } => {
                notice! {
                    "client-breaker", at_us;
                    label: group.label.name(),
                    value: Arc::clone(&group.value),
                    action: action.name(),
                    from: from.name(),
                    to: to.name(),
                    mode: mode.name(),
                    sessions: *sessions,
                    bad: *bad,
                    dependencies_down?: down(),
                }
            }
            // A hop was removed from one room's route while its node was up.
            CoreEvent::HopRemoved { room_name, hop, why, session, .. } => notice! {
                "hop-removed", at_us;
                room: room_name,
                node: of_hop(*hop),
                reason: why.name(),
                // The session that showed it.
                session?: session.map(|session| session.to_string()),
            },
            // `moved` named the cause.
            CoreEvent::MoveCauseFound { cause: MoveCause::Link, .. } => return None,
            // The cause of moves that `moved` attributed to the link is known: their node was dead.
            CoreEvent::MoveCauseFound { hop, cause, moves } => notice! {
                "move-cause", at_us;
                node: of_hop(*hop),
                cause: cause.name(),
                rooms: moves.iter().map(|it| &it.room_name).collect::<Vec<_>>(),
                sessions: moves.iter().flat_map(|it| &it.sessions).map(ToString::to_string).collect::<Vec<_>>(),
            },
            // Most nodes fell silent at once, so none is marked down for it; or that has ended.
            CoreEvent::Uplink { doubted, silent, of } => notice! {
                "uplink", at_us;
                suspect: *doubted,
                silent: *silent,
                of: *of,
                dependencies_down?: down(),
            },
            CoreEvent::Degraded { session, room_name, op, arg, rung, by } => notice! {
                "degraded", at_us;
                session: session.to_string(),
                room: room_name,
                op: op.key(),
                arg: *arg,
                rung: *rung,
                by: by.to_string(),
            },
            // Another segment of the path impairs the session's media.
            CoreEvent::Impaired { session, room_name, scenario, impairment, ended: _ } => notice! {
                "impaired", at_us;
                session: session.to_string(),
                room: room_name,
                scenario: scenario,
                // Omitted if none does any more.
                impairment?: impairment.as_deref().map(impaired),
            },
            CoreEvent::Standing { policy, fault, .. } => notice! {
                "policy", at_us;
                policy: policy.to_string(),
                outcome: if fault.is_some() { "failing" } else { "recovered" },
                reason?: fault.as_ref().map(PluginFault::name),
            },
            CoreEvent::Draining { node, draining } => notice! {
                "draining", at_us;
                node: self.names.of_node(*node).node,
                draining: *draining,
            },
            // The gateway itself.
            CoreEvent::ShuttingDown => notice! { "draining", at_us; draining: true },
            // A `start` hook.
            CoreEvent::Start { node, step } => {
                let us = |time: Duration| time.as_micros() as u64;
                let (attempt, failed, took) = match step {
                    StartPhase::Begun { attempt } => (Some(*attempt), None, None),
                    StartPhase::Failed { why, again } => {
                        (None, Some((why.name(), Some(us(*again)))), None)
                    }
                    StartPhase::Done { took } => (None, None, Some(us(*took))),
                    StartPhase::Refused { why } => (None, Some((why.name(), None)), None),
                };
                notice! {
                    "start", at_us;
                    node: self.names.of_node(*node).node,
                    // `starting`, `failed`, `ready` or `refused`.
                    step: step.name(),
                    // With `starting`, from 1.
                    attempt?: attempt,
                    // With `failed`: `hook-failed`, `late`, `ejected` or `removed`, and the time until the next attempt.
                    // With `refused`: `max-nodes`, `budget` or `provider-breaker`.
                    reason?: failed.map(|(why, _)| why),
                    retry_after_us?: failed.and_then(|(_, again)| again),
                    // With `ready`: since the hook was called.
                    took_us?: took,
                }
            }
            // A node that is no longer needed.
            CoreEvent::Stop { node, step } => {
                let took = match step {
                    StopPhase::Done { took } => Some(took.as_micros() as u64),
                    StopPhase::Begun | StopPhase::Failed => None,
                };
                notice! {
                    "stop", at_us;
                    node: self.names.of_node(*node).node,
                    // `stopping`, `failed` or `stopped`.
                    step: step.name(),
                    // With `stopped`: since the node was told to stop.
                    took_us?: took,
                }
            }
            CoreEvent::ProviderBreaker { provider, from, to, failures } => notice! {
                "provider-breaker", at_us;
                provider: Arc::clone(provider),
                from: from.name(),
                to: to.name(),
                failures: *failures,
            },
            // The mode of a room, or for `capacity` its effective mode, changed.
            CoreEvent::Mode { room_name, from, to, why, .. } => {
                let nodes = match why {
                    ModeChange::Scenario | ModeChange::Capacity => None,
                    ModeChange::CopiesDiffer { hops } => Some(hops.map(of_hop)),
                };
                notice! {
                    "mode", at_us;
                    room: room_name,
                    from: from.name(),
                    to: to.name(),
                    // `scenario`, `copies-differ` or `capacity`.
                    reason: why.name(),
                    // With `copies-differ`.
                    nodes?: nodes,
                }
            }
            event => return self.listed(event, record.at),
        })
    }

    fn death(&self, cause: MoveCause, from: Hop) -> (Vec<Accusation>, Option<u64>) {
        let known = self.deaths.get(&from.node).filter(|_| cause.is_loss());
        let known = known.filter(|(incarnation, ..)| *incarnation == from.incarnation);
        known.map_or_else(Default::default, |(_, witnesses, took)| (witnesses.clone(), *took))
    }
}

/// The decider by hook, for a policy with its revision: `call/routing@5f0c5f0c5f0c`.
pub(super) fn decided_by(
    admitted_by: &Decider,
    routed_by: &Decider,
) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("admission", admitted_by.to_string()), ("routing", routed_by.to_string())])
}

pub(super) fn hop(hop: Hop, names: &NodeNames) -> impl Serialize + use<> {
    object! { #[serde(flatten)] name: names.of_hop(hop), incarnation: hop.incarnation.0 }
}

/// A warning of what is expected.
pub(super) fn forecast(forecast: &Forecast) -> impl Serialize + use<> {
    let Forecast { subject, since_us, expected_us, evidence } = forecast.clone();
    object! {
        kind: evidence.kind(),
        subject: subject,
        since_us: since_us,
        expected_us: expected_us,
        evidence: evidence,
    }
}

pub(super) fn route(hops: &[Hop], names: &NodeNames) -> impl Serialize + use<> {
    hops.iter().map(|&it| hop(it, names)).collect::<Vec<_>>()
}

/// The outcome of a push, a step or a rollback.
pub(super) fn rollout(rollout: RolloutReport) -> impl Serialize {
    let stage = rollout.stage.map(|staged| {
        object! {
            // `shadow` or `canary`.
            stage: staged.stage.name(),
            percent: staged.stage.percent(),
            paused: staged.paused,
            // The next share; at 100 the revision is active.
            next_percent: staged.next,
            // Minimum time until the next share; omitted if the rollout needs `promote`.
            next_in_ms?: milliseconds(staged.next_in),
        }
    });
    object! {
        outcome: rollout.outcome.name(),
        policy: rollout.policy.to_string(),
        revision: rollout.revision,
        previous: rollout.previous,
        // Code of a refusal: `import`, `unsigned`.
        code?: rollout.code,
        reason?: rollout.reason,
        activate_us: rollout.activate.as_micros() as u64,
        // `file`, `signal`, `operator` or `gateway`.
        by: rollout.by.name(),
        #[serde(flatten)]
        stage: stage,
    }
}

/// Microseconds from `then` until `at`, which are readings of two clocks: the time since `at` is subtracted.
fn since(then: Instant, at: SystemTime) -> u64 {
    let late = at.elapsed().unwrap_or(Duration::ZERO);
    then.elapsed().saturating_sub(late).as_micros() as u64
}
