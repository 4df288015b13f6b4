//! The events of `GET /v1/events`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_alerts::AlertHandle;
use evenkeel_contract::events::{
    AdviceChanged, BreakerChanged, ClientBreakerChanged, Closed, Continued, Degraded, Drained,
    Draining, EventData, ForecastChanged, GroupChanged, HandshakeEnded, HopRemoved,
    ImpairmentChanged, LossCompared, LossesUncovered, Missed, ModeChanged, MoveCauseFound,
    MoveEnded, Moved, NodeHealth, NodeListChanged, NodeRemoved, NodeStart, NodeStop, NotOpened,
    Opened, PacketsShed, PolicingChanged, PolicyHealth, PredictedLoss, ProviderBreakerChanged,
    Renegotiated, RoomDuplicate, StreamAdded, StreamRemoved, UncoveredLoss, UplinkSuspected,
    Witness,
};
use evenkeel_contract::policies::TimedRollout;
use evenkeel_control::history::traffic;
use evenkeel_control::{EventRecord, GatewayEvent, GroupChange, NodeNames, RoomStream};
use evenkeel_forecast::ForecastChange;
use evenkeel_model::{
    CoreEvent, EvidenceSource, Health, Hop, Incarnation, ModeChange, MoveCause, NodeId, StartPhase,
    StopPhase,
};
use evenkeel_process::unix_us;

use super::answers;

pub(super) fn missing(notices: u64) -> EventNotice {
    EventNotice::of(&Missed { notices })
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EventNotice {
    pub(super) name: &'static str,
    pub(super) data: String,
}

impl EventNotice {
    fn of<E: EventData>(event: &E) -> EventNotice {
        let data = serde_json::to_string(event).expect("words and numbers");
        EventNotice { name: E::NAME, data }
    }
}

/// Turns events into notices. It remembers why nodes went down for the moves that follow.
pub(super) struct NoticeWriter {
    names: Arc<NodeNames>,
    /// Knows dependencies that a fault may affect as well.
    alerts: Option<AlertHandle>,
    /// The last failure of each node.
    deaths: HashMap<NodeId, (Incarnation, Vec<Witness>, Option<u64>)>,
}

impl NoticeWriter {
    pub(super) fn new(names: Arc<NodeNames>, alerts: Option<AlertHandle>) -> NoticeWriter {
        NoticeWriter { names, alerts, deaths: HashMap::new() }
    }

    pub(super) fn notice(&mut self, record: &EventRecord) -> Option<EventNotice> {
        let at_us = unix_us(record.at);
        let node_name = |node: NodeId| self.names.of_node(node).node;
        Some(match &record.event {
            GatewayEvent::Core(event) => return self.core_notice(event, record),
            // For telemetry alone.
            GatewayEvent::TurnedAway { .. }
            | GatewayEvent::MediaPaused(_)
            | GatewayEvent::NodeOrdered { .. } => return None,
            GatewayEvent::Rollout(report) => {
                EventNotice::of(&TimedRollout { at_us, rollout: answers::rollout(report.clone()) })
            }
            GatewayEvent::NodeList(update) => {
                let list = update.outcome.clone().unwrap_or_default();
                EventNotice::of(&NodeListChanged {
                    at_us,
                    by: update.by.name().into(),
                    forced: update.forced,
                    added: list.added,
                    removed: list.removed,
                    changed: list.changed,
                    reason: update.outcome.as_ref().err().map(ToString::to_string),
                })
            }
            GatewayEvent::NodeRemoved { node, name } => {
                self.deaths.remove(node);
                EventNotice::of(&NodeRemoved { at_us, node: Arc::clone(name) })
            }
            GatewayEvent::Reload(report) => EventNotice::of(&answers::reload(report, record.at)),
            GatewayEvent::NotOpened { session, node, reason } => EventNotice::of(&NotOpened {
                at_us,
                session: session.to_string(),
                node: node_name(*node),
                reason: reason.clone(),
            }),
            GatewayEvent::Handshake { session, result } => EventNotice::of(&HandshakeEnded {
                at_us,
                session: session.to_string(),
                profile: result.as_ref().ok().map(|profile| profile.name().into()),
                reason: result.as_ref().err().map(ToString::to_string),
            }),
            GatewayEvent::Renegotiated { session, streams_changed, ice_restarted } => {
                EventNotice::of(&Renegotiated {
                    at_us,
                    session: session.to_string(),
                    streams_changed: *streams_changed,
                    ice_restarted: *ice_restarted,
                })
            }
            GatewayEvent::StreamAdded(stream) => {
                let RoomStream { session, room, participant, kind, id } = stream.clone();
                EventNotice::of(&StreamAdded {
                    at_us,
                    session: session.to_string(),
                    room,
                    participant,
                    kind: kind.name().into(),
                    stream: id,
                })
            }
            GatewayEvent::StreamRemoved(stream) => {
                let RoomStream { session, room, participant, kind, id } = stream.clone();
                EventNotice::of(&StreamRemoved {
                    at_us,
                    session: session.to_string(),
                    room,
                    participant,
                    kind: kind.name().into(),
                    stream: id,
                })
            }
            GatewayEvent::Group(GroupChange { gateway, role, epoch, warnings }) => {
                EventNotice::of(&GroupChanged {
                    at_us,
                    gateway: Arc::clone(gateway),
                    role: (*role).into(),
                    epoch: *epoch,
                    warnings: warnings.clone(),
                })
            }
            GatewayEvent::Continued { cause, sessions, took, .. } => EventNotice::of(&Continued {
                at_us,
                cause: cause.name().into(),
                sessions: *sessions,
                took_us: took.as_micros() as u64,
            }),
            GatewayEvent::LossesUncovered(losses) => {
                let losses = losses.iter().map(|loss| UncoveredLoss {
                    scope: loss.scope.name().into(),
                    place: Arc::clone(&loss.place),
                    figures: answers::loss_figures(&loss.figures),
                    unprotected_rooms: loss.unprotected_rooms,
                });
                EventNotice::of(&LossesUncovered { at_us, losses: losses.collect() })
            }
            GatewayEvent::LossCompared(compared) => {
                let predicted = compared.predicted.as_ref().map(|predicted| PredictedLoss {
                    at_us: predicted.at_us,
                    scope: predicted.scope.name().into(),
                    place: Arc::clone(&predicted.place),
                    figures: answers::loss_figures(&predicted.figures),
                });
                EventNotice::of(&LossCompared {
                    at_us,
                    nodes: compared.nodes.iter().map(|hop| self.names.of_hop(*hop).node).collect(),
                    died_us: compared.died_us,
                    witnesses: compared.witnesses.iter().map(|it| it.name().into()).collect(),
                    predicted,
                    actual: answers::loss_figures(&compared.actual),
                })
            }
            GatewayEvent::Forecast(ForecastChange { forecast, is_over }) => {
                EventNotice::of(&ForecastChanged {
                    at_us,
                    kind: forecast.evidence.kind().into(),
                    subject: Arc::clone(&forecast.subject),
                    expected_us: forecast.expected_us,
                    evidence: answers::forecast_evidence(&forecast.evidence),
                    over: *is_over,
                })
            }
            GatewayEvent::RoomDuplicate { room, group, gateway } => {
                EventNotice::of(&RoomDuplicate {
                    at_us,
                    room: Arc::clone(room),
                    group: Arc::clone(group),
                    gateway: Arc::clone(gateway),
                })
            }
            GatewayEvent::Shed { session, run } => EventNotice::of(&PacketsShed {
                at_us,
                session: session.to_string(),
                ssrc: run.ssrc,
                after: run.after,
                first: run.first,
                packets: run.packets,
            }),
        })
    }

    fn core_notice(&mut self, event: &CoreEvent, record: &EventRecord) -> Option<EventNotice> {
        let at_us = unix_us(record.at);
        let since = |then: Instant| since(then, record.at);
        let of_hop = |hop: Hop| self.names.of_hop(hop).node;
        let node_name = |node: NodeId| self.names.of_node(node).node;
        let down = || self.alerts.as_ref().and_then(AlertHandle::dependencies_down);
        let us = |time: Duration| time.as_micros() as u64;
        Some(match event {
            CoreEvent::Opened {
                session, room_name, scenario, hop, admitted_by, routed_by, ..
            } => EventNotice::of(&Opened {
                at_us,
                session: session.to_string(),
                room: Arc::clone(room_name),
                scenario: Arc::clone(scenario),
                hop: answers::hop(*hop, &self.names),
                decided_by: answers::decided_by(admitted_by, routed_by),
            }),
            CoreEvent::Closed { session, room_name, reason, .. } => EventNotice::of(&Closed {
                at_us,
                session: session.to_string(),
                room: Arc::clone(room_name),
                reason: reason.name().into(),
                totals: record.totals.as_ref().map(traffic),
            }),
            CoreEvent::Moved { room_name, sessions, cause, by, from, to, started, .. } => {
                let (witnesses, detect_us) = self.death(*cause, *from);
                EventNotice::of(&Moved {
                    at_us,
                    room: Arc::clone(room_name),
                    sessions: sessions.iter().map(ToString::to_string).collect(),
                    cause: cause.name().into(),
                    by: by.to_string(),
                    from: of_hop(*from),
                    to: to.map(of_hop),
                    witnesses: (!witnesses.is_empty()).then_some(witnesses),
                    detect_us,
                    took_us: since(*started),
                })
            }
            CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms } => {
                let accuse = |&(witness, then): &(EvidenceSource, Instant)| Witness {
                    witness: witness.name().into(),
                    for_us: since(then),
                };
                let witnesses: Vec<_> = witnesses.iter().map(accuse).collect();
                let detect_us = last_heard.map(since);
                let node = of_hop(*hop);
                let dependencies_down = down();
                if *to == Health::Down {
                    let death = (hop.incarnation, witnesses.clone(), detect_us);
                    self.deaths.insert(hop.node, death);
                }
                EventNotice::of(&NodeHealth {
                    at_us,
                    node,
                    incarnation: hop.incarnation.0,
                    from: from.name().into(),
                    to: to.name().into(),
                    witnesses,
                    detect_us,
                    rooms: *rooms,
                    dependencies_down,
                })
            }
            CoreEvent::MoveEnded { room_name, cause, by, from, to, started, outcome, .. } => {
                EventNotice::of(&MoveEnded {
                    at_us,
                    room: Arc::clone(room_name),
                    cause: cause.name().into(),
                    by: by.to_string(),
                    from: of_hop(*from),
                    to: of_hop(*to),
                    outcome: outcome.name().into(),
                    took_us: since(*started),
                })
            }
            CoreEvent::Drained { node, left, started } => EventNotice::of(&Drained {
                at_us,
                node: node_name(*node),
                rooms_left: *left,
                took_us: since(*started),
            }),
            CoreEvent::Breaker { region, zone, from, to, mode, sessions, bad, opened, failed } => {
                EventNotice::of(&BreakerChanged {
                    at_us,
                    region: self.names.of_region(*region),
                    zone: zone.clone(),
                    from: from.name().into(),
                    to: to.name().into(),
                    mode: mode.name().into(),
                    sessions: *sessions,
                    bad: *bad,
                    opened: *opened,
                    failed: *failed,
                    dependencies_down: down(),
                })
            }
            CoreEvent::ClientBreaker { group, action, from, to, mode, sessions, bad, .. } => {
                EventNotice::of(&ClientBreakerChanged {
                    at_us,
                    label: group.label.name().into(),
                    value: Arc::clone(&group.value),
                    action: action.name().into(),
                    from: from.name().into(),
                    to: to.name().into(),
                    mode: mode.name().into(),
                    sessions: *sessions,
                    bad: *bad,
                    dependencies_down: down(),
                })
            }
            CoreEvent::HopRemoved { room_name, hop, why, session, .. } => {
                EventNotice::of(&HopRemoved {
                    at_us,
                    room: Arc::clone(room_name),
                    node: of_hop(*hop),
                    reason: why.name().into(),
                    session: session.map(|session| session.to_string()),
                })
            }
            // `moved` named the cause.
            CoreEvent::MoveCauseFound { cause: MoveCause::Link, .. } => return None,
            CoreEvent::MoveCauseFound { hop, cause, moves } => {
                let sessions = moves.iter().flat_map(|it| &it.sessions);
                EventNotice::of(&MoveCauseFound {
                    at_us,
                    node: of_hop(*hop),
                    cause: cause.name().into(),
                    rooms: moves.iter().map(|it| Arc::clone(&it.room_name)).collect(),
                    sessions: sessions.map(ToString::to_string).collect(),
                })
            }
            CoreEvent::Uplink { doubted, silent, of } => EventNotice::of(&UplinkSuspected {
                at_us,
                suspect: *doubted,
                silent: *silent,
                of: *of,
                dependencies_down: down(),
            }),
            CoreEvent::Degraded { session, room_name, op, arg, rung, by } => {
                EventNotice::of(&Degraded {
                    at_us,
                    session: session.to_string(),
                    room: Arc::clone(room_name),
                    op: op.key().into(),
                    arg: *arg,
                    rung: *rung,
                    by: by.to_string(),
                })
            }
            CoreEvent::Impaired { session, room_name, scenario, impairment, ended: _ } => {
                EventNotice::of(&ImpairmentChanged {
                    at_us,
                    session: session.to_string(),
                    room: Arc::clone(room_name),
                    scenario: Arc::clone(scenario),
                    impairment: impairment.as_deref().map(answers::impairment),
                })
            }
            CoreEvent::Advised { session, room_name, scenario, advice } => {
                EventNotice::of(&AdviceChanged {
                    at_us,
                    session: session.to_string(),
                    room: Arc::clone(room_name),
                    scenario: Arc::clone(scenario),
                    advice: answers::advice(*advice),
                })
            }
            CoreEvent::Policed { session, room_name, scenario, policing } => {
                EventNotice::of(&PolicingChanged {
                    at_us,
                    session: session.to_string(),
                    room: Arc::clone(room_name),
                    scenario: Arc::clone(scenario),
                    policing: policing.map(answers::policing),
                })
            }
            CoreEvent::Standing { policy, fault, .. } => EventNotice::of(&PolicyHealth {
                at_us,
                policy: policy.to_string(),
                outcome: if fault.is_some() { "failing" } else { "recovered" }.into(),
                reason: fault.as_ref().map(|fault| fault.name().into()),
            }),
            CoreEvent::Draining { node, draining } => EventNotice::of(&Draining {
                at_us,
                node: Some(node_name(*node)),
                draining: *draining,
            }),
            CoreEvent::ShuttingDown => {
                EventNotice::of(&Draining { at_us, node: None, draining: true })
            }
            CoreEvent::Start { node, step } => {
                let started = NodeStart {
                    at_us,
                    node: node_name(*node),
                    step: step.name().into(),
                    ..NodeStart::default()
                };
                EventNotice::of(&match step {
                    StartPhase::Begun { attempt } => {
                        NodeStart { attempt: Some(*attempt), ..started }
                    }
                    StartPhase::Failed { why, again } => NodeStart {
                        reason: Some(why.name().into()),
                        retry_after_us: Some(us(*again)),
                        ..started
                    },
                    StartPhase::Done { took } => NodeStart { took_us: Some(us(*took)), ..started },
                    StartPhase::Refused { why } => {
                        NodeStart { reason: Some(why.name().into()), ..started }
                    }
                })
            }
            CoreEvent::Stop { node, step } => EventNotice::of(&NodeStop {
                at_us,
                node: node_name(*node),
                step: step.name().into(),
                took_us: match step {
                    StopPhase::Done { took } => Some(us(*took)),
                    StopPhase::Begun | StopPhase::Failed => None,
                },
            }),
            CoreEvent::ProviderBreaker { provider, from, to, failures } => {
                EventNotice::of(&ProviderBreakerChanged {
                    at_us,
                    provider: Arc::clone(provider),
                    from: from.name().into(),
                    to: to.name().into(),
                    failures: *failures,
                })
            }
            CoreEvent::Mode { room_name, from, to, why, .. } => EventNotice::of(&ModeChanged {
                at_us,
                room: Arc::clone(room_name),
                from: from.name().into(),
                to: to.name().into(),
                reason: why.name().into(),
                nodes: match why {
                    ModeChange::Scenario | ModeChange::Capacity => None,
                    ModeChange::CopiesDiffer { hops } => Some(hops.map(of_hop).into()),
                },
            }),
            // The others are for telemetry alone.
            _ => return None,
        })
    }

    fn death(&self, cause: MoveCause, from: Hop) -> (Vec<Witness>, Option<u64>) {
        let known = self.deaths.get(&from.node).filter(|_| cause.is_loss());
        let known = known.filter(|(incarnation, ..)| *incarnation == from.incarnation);
        known.map_or_else(Default::default, |(_, witnesses, took)| (witnesses.clone(), *took))
    }
}

/// Microseconds from `then` until `at`, which are readings of two clocks: the time since `at` is subtracted.
fn since(then: Instant, at: SystemTime) -> u64 {
    let late = at.elapsed().unwrap_or(Duration::ZERO);
    then.elapsed().saturating_sub(late).as_micros() as u64
}
