//! `GET /v1/events`: server-sent events (WHATWG HTML, section 9.2), and their JSON.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::response::sse::{Event, KeepAlive, KeepAliveStream, Sse};
use evenkeel_control::history::Carried;
use evenkeel_control::{EventRecord, GatewayEvent, ListChange, NodeNames};
use evenkeel_dataplane::worker::ShedRun;
use evenkeel_model::{
    CoreEvent, Decider, EvidenceSource, Health, Hop, Incarnation, ModeChange, MoveCause, NodeId,
    StartPhase,
};
use evenkeel_process::unix_us;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

use super::error::{ApiError, ApiErrorCode};
use super::view::{HopView as Step, RolloutView};

const LISTENERS_MAX: usize = 64;
/// Notices that a listener may lag behind, enough for the failure of a region with thousands of rooms.
const NOTICES_MAX: usize = 16_384;
/// Interval of comments, because proxies close silent connections.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

pub(super) struct EventFeed {
    notices: broadcast::Sender<Arc<EventNotice>>,
    places: Arc<Semaphore>,
}

impl Default for EventFeed {
    fn default() -> Self {
        let (notices, _) = broadcast::channel(NOTICES_MAX);
        EventFeed { notices, places: Arc::new(Semaphore::new(LISTENERS_MAX)) }
    }
}

impl EventFeed {
    pub(super) fn publish(&self, notice: EventNotice) {
        // Fails only without listeners.
        let _ = self.notices.send(Arc::new(notice));
    }

    /// Publishes control's events until control ends. Each event is serialised once for all listeners.
    pub(super) async fn follow(
        &self,
        mut events: broadcast::Receiver<Arc<EventRecord>>,
        mut notices: NoticeWriter,
    ) {
        loop {
            match events.recv().await {
                Ok(record) => {
                    if let Some(notice) = notices.notice(&record) {
                        self.publish(notice);
                    }
                }
                Err(RecvError::Lagged(missed)) => self.publish(missing(missed)),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// The stream of one listener. A listener that is too slow gets `missed` with the number of lost notices, and
    /// continues.
    pub(super) fn listen(
        &self,
    ) -> Result<Sse<KeepAliveStream<impl Stream<Item = Result<Event, Infallible>> + use<>>>, ApiError>
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("{LISTENERS_MAX} listeners are connected, which is the limit");
            ApiError::new(ApiErrorCode::Unavailable, message).retry_after(COMMENT_EVERY)
        })?;
        let stream = BroadcastStream::new(self.notices.subscribe()).map(move |notice| {
            // The permit is released when the stream is dropped.
            let _: &OwnedSemaphorePermit = &place;
            let notice = notice.unwrap_or_else(|BroadcastStreamRecvError::Lagged(missed)| {
                Arc::new(missing(missed))
            });
            Ok(Event::default().event(notice.name).data(&notice.data))
        });
        Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)))
    }
}

fn missing(notices: u64) -> EventNotice {
    EventNotice { name: "missed", data: format!("{{\"notices\":{notices}}}") }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EventNotice {
    pub(super) name: &'static str,
    pub(super) data: String,
}

/// `at_us` is Unix time in microseconds.
#[derive(Serialize)]
#[serde(untagged)]
enum NoticeBody<'a> {
    Opened {
        at_us: u64,
        session: String,
        room: &'a str,
        scenario: &'a str,
        hop: Step,
        decided_by: BTreeMap<&'static str, String>,
    },
    Moved {
        at_us: u64,
        room: &'a str,
        sessions: Vec<String>,
        cause: &'static str,
        by: String,
        from: Arc<str>,
        /// Null: no hop was left.
        to: Option<Arc<str>>,
        /// Evidence against the node it left, if that is down.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        witnesses: Vec<Accusation>,
        /// From that node's last packet until it was marked down.
        #[serde(skip_serializing_if = "Option::is_none")]
        detect_us: Option<u64>,
        /// From the start of the move until this event.
        took_us: u64,
    },
    /// An aborted move: the room stays where it was.
    MoveEnded {
        at_us: u64,
        room: &'a str,
        cause: &'static str,
        by: String,
        from: Arc<str>,
        to: Arc<str>,
        outcome: &'static str,
        took_us: u64,
    },
    /// A drained node is empty, or its deadline passed.
    Drained { at_us: u64, node: Arc<str>, rooms_left: u32, took_us: u64 },
    Breaker {
        at_us: u64,
        region: Arc<str>,
        from: &'static str,
        to: &'static str,
        sessions: u32,
        bad: u32,
        opened: u32,
        failed: u32,
    },
    Closed {
        at_us: u64,
        session: String,
        room: &'a str,
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        totals: Option<Carried>,
    },
    Node {
        at_us: u64,
        node: Arc<str>,
        incarnation: u32,
        from: &'static str,
        to: &'static str,
        witnesses: Vec<Accusation>,
        /// From its last packet.
        #[serde(skip_serializing_if = "Option::is_none")]
        detect_us: Option<u64>,
        rooms: u32,
    },
    /// The list of nodes changed, or a change was refused for `reason`.
    NodeList {
        at_us: u64,
        /// `file`, `signal` or `operator`.
        by: &'static str,
        /// With `--force`.
        forced: bool,
        added: Vec<Arc<str>>,
        removed: Vec<Arc<str>>,
        changed: Vec<Arc<str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A node that was removed from the list is empty, and forgotten.
    NodeRemoved { at_us: u64, node: Arc<str> },
    /// A hop was removed from one room's route while its node was up.
    HopRemoved {
        at_us: u64,
        room: &'a str,
        node: Arc<str>,
        reason: &'static str,
        /// The session that showed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// Most nodes fell silent at once, so none is marked down for it; or that has ended.
    Uplink { at_us: u64, suspect: bool, silent: u32, of: u32 },
    Rollout {
        at_us: u64,
        #[serde(flatten)]
        rollout: RolloutView,
    },
    Standing {
        at_us: u64,
        policy: String,
        /// `recovered` or `failing`.
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
    },
    Degraded {
        at_us: u64,
        session: String,
        room: &'a str,
        op: &'static str,
        arg: u64,
        rung: u8,
        by: String,
    },
    /// Consecutive RTP packets of a stream that a rung dropped.
    Shed {
        at_us: u64,
        session: String,
        ssrc: u32,
        /// Sequence number of the last packet before them that was sent to the client.
        after: u16,
        /// Position of the first one behind it, from 1.
        first: u32,
        packets: u32,
    },
    /// A `start` hook.
    Start {
        at_us: u64,
        node: Arc<str>,
        /// `starting`, `failed` or `ready`.
        step: &'static str,
        /// With `starting`, from 1.
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// With `failed`: `hook-failed`, `late`, `ejected` or `removed`.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        /// With `failed`: until the next attempt.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_us: Option<u64>,
        /// With `ready`: since the hook was called.
        #[serde(skip_serializing_if = "Option::is_none")]
        took_us: Option<u64>,
    },
    /// The mode of a room, or for `capacity` its effective mode, changed.
    Mode {
        at_us: u64,
        room: &'a str,
        from: &'static str,
        to: &'static str,
        /// `scenario`, `copies-differ` or `capacity`.
        reason: &'static str,
        /// With `copies-differ`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        nodes: Vec<Arc<str>>,
    },
    /// A node did not open a session.
    NotOpened { at_us: u64, session: String, node: Arc<str>, reason: &'a str },
    Draining {
        at_us: u64,
        /// Left out for the gateway itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<Arc<str>>,
        draining: bool,
    },
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
    /// The last failure of each node.
    deaths: HashMap<NodeId, (Incarnation, Vec<Accusation>, Option<u64>)>,
}

impl NoticeWriter {
    pub(super) fn new(names: Arc<NodeNames>) -> NoticeWriter {
        NoticeWriter { names, deaths: HashMap::new() }
    }

    pub(super) fn notice(&mut self, record: &EventRecord) -> Option<EventNotice> {
        let at_us = unix_us(record.at);
        let since = |then: Instant| since(then, record.at);
        let event = match &record.event {
            GatewayEvent::Core(event) => event,
            GatewayEvent::Rollout(rollout) => {
                let rollout = RolloutView::from(rollout.clone());
                return Some(EventNotice::of("policy", &NoticeBody::Rollout { at_us, rollout }));
            }
            GatewayEvent::TurnedAway { .. } => return None,
            GatewayEvent::NodeList(update) => {
                let list = update.outcome.as_ref().ok().cloned().unwrap_or_default();
                let ListChange { added, removed, changed } = list;
                let reason = update.outcome.as_ref().err().map(ToString::to_string);
                let (by, forced) = (update.by.name(), update.forced);
                return Some(EventNotice::of(
                    "node-list",
                    &NoticeBody::NodeList { at_us, by, forced, added, removed, changed, reason },
                ));
            }
            GatewayEvent::NodeRemoved { node, name } => {
                self.deaths.remove(node);
                let node = Arc::clone(name);
                return Some(EventNotice::of(
                    "node-removed",
                    &NoticeBody::NodeRemoved { at_us, node },
                ));
            }
            GatewayEvent::NotOpened { session, node, reason } => {
                let (session, node) = (session.to_string(), self.names.of_node(*node).node);
                return Some(EventNotice::of(
                    "not-opened",
                    &NoticeBody::NotOpened { at_us, session, node, reason },
                ));
            }
            GatewayEvent::Shed { session, run } => {
                let ShedRun { ssrc, after, first, packets } = *run;
                let session = session.to_string();
                return Some(EventNotice::of(
                    "shed",
                    &NoticeBody::Shed { at_us, session, ssrc, after, first, packets },
                ));
            }
        };
        let (name, body) = match event {
            CoreEvent::Opened {
                session, room_name, scenario, hop, admitted_by, routed_by, ..
            } => {
                let decided_by = decided_by(admitted_by, routed_by);
                let (session, hop) = (session.to_string(), Step::of(*hop, &self.names));
                (
                    "opened",
                    NoticeBody::Opened {
                        at_us,
                        session,
                        room: room_name,
                        scenario,
                        hop,
                        decided_by,
                    },
                )
            }
            CoreEvent::Closed { session, room_name, reason, .. } => {
                let (room, reason) = (&**room_name, reason.name());
                let totals = record.totals.as_ref().map(Carried::from);
                let session = session.to_string();
                ("closed", NoticeBody::Closed { at_us, session, room, reason, totals })
            }
            CoreEvent::Moved { room_name, sessions, cause, by, from, to, started, .. } => {
                let (witnesses, detect_us) = self.death(*cause, *from);
                let body = NoticeBody::Moved {
                    at_us,
                    room: room_name,
                    sessions: sessions.iter().map(ToString::to_string).collect(),
                    cause: cause.name(),
                    by: by.to_string(),
                    from: self.names.of_hop(*from).node,
                    to: to.map(|to| self.names.of_hop(to).node),
                    witnesses,
                    detect_us,
                    took_us: since(*started),
                };
                ("moved", body)
            }
            CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms } => {
                let accuse = |&(witness, then): &(EvidenceSource, Instant)| Accusation {
                    witness: witness.name(),
                    for_us: since(then),
                };
                let witnesses: Vec<_> = witnesses.iter().map(accuse).collect();
                let detect_us = last_heard.map(since);
                if *to == Health::Down {
                    let death = (hop.incarnation, witnesses.clone(), detect_us);
                    self.deaths.insert(hop.node, death);
                }
                let body = NoticeBody::Node {
                    at_us,
                    node: self.names.of_hop(*hop).node,
                    incarnation: hop.incarnation.0,
                    from: from.name(),
                    to: to.name(),
                    witnesses,
                    detect_us,
                    rooms: *rooms,
                };
                ("node", body)
            }
            CoreEvent::MoveEnded { room_name, cause, by, from, to, started, outcome, .. } => {
                let body = NoticeBody::MoveEnded {
                    at_us,
                    room: room_name,
                    cause: cause.name(),
                    by: by.to_string(),
                    from: self.names.of_hop(*from).node,
                    to: self.names.of_hop(*to).node,
                    outcome: outcome.name(),
                    took_us: since(*started),
                };
                ("move-ended", body)
            }
            CoreEvent::Drained { node, left, started } => {
                let (node, took_us) = (self.names.of_node(*node).node, since(*started));
                ("drained", NoticeBody::Drained { at_us, node, rooms_left: *left, took_us })
            }
            CoreEvent::Breaker { region, from, to, sessions, bad, opened, failed } => {
                let body = NoticeBody::Breaker {
                    at_us,
                    region: self.names.of_region(*region),
                    from: from.name(),
                    to: to.name(),
                    sessions: *sessions,
                    bad: *bad,
                    opened: *opened,
                    failed: *failed,
                };
                ("breaker", body)
            }
            CoreEvent::HopRemoved { room_name, hop, why, session, .. } => {
                let session = session.map(|session| session.to_string());
                let (node, reason) = (self.names.of_hop(*hop).node, why.name());
                (
                    "hop-removed",
                    NoticeBody::HopRemoved { at_us, room: room_name, node, reason, session },
                )
            }
            CoreEvent::Uplink { doubted, silent, of } => {
                let (suspect, silent, of) = (*doubted, *silent, *of);
                ("uplink", NoticeBody::Uplink { at_us, suspect, silent, of })
            }
            CoreEvent::Degraded { session, room_name, op, arg, rung, by } => {
                let body = NoticeBody::Degraded {
                    at_us,
                    session: session.to_string(),
                    room: room_name,
                    op: op.key(),
                    arg: *arg,
                    rung: *rung,
                    by: by.to_string(),
                };
                ("degraded", body)
            }
            CoreEvent::Standing { policy, fault, .. } => {
                let reason = fault.as_ref().map(evenkeel_model::PluginFault::name);
                let outcome = if fault.is_some() { "failing" } else { "recovered" };
                (
                    "policy",
                    NoticeBody::Standing { at_us, policy: policy.to_string(), outcome, reason },
                )
            }
            CoreEvent::Draining { node, draining } => {
                let node = Some(self.names.of_node(*node).node);
                ("draining", NoticeBody::Draining { at_us, node, draining: *draining })
            }
            CoreEvent::Start { node, step } => {
                let us = |time: Duration| time.as_micros() as u64;
                let (attempt, failed, took_us) = match step {
                    StartPhase::Begun { attempt } => (Some(*attempt), None, None),
                    StartPhase::Failed { why, again } => {
                        (None, Some((why.name(), us(*again))), None)
                    }
                    StartPhase::Done { took } => (None, None, Some(us(*took))),
                };
                let (reason, retry_after_us) = failed.unzip();
                let (node, step) = (self.names.of_node(*node).node, step.name());
                (
                    "start",
                    NoticeBody::Start {
                        at_us,
                        node,
                        step,
                        attempt,
                        reason,
                        retry_after_us,
                        took_us,
                    },
                )
            }
            CoreEvent::Mode { room_name, from, to, why, .. } => {
                let hops = match why {
                    ModeChange::Scenario | ModeChange::Capacity => &[][..],
                    ModeChange::CopiesDiffer { hops } => &hops[..],
                };
                let nodes = hops.iter().map(|hop| self.names.of_hop(*hop).node).collect();
                let (from, to, reason) = (from.name(), to.name(), why.name());
                ("mode", NoticeBody::Mode { at_us, room: room_name, from, to, reason, nodes })
            }
            CoreEvent::ShuttingDown => {
                ("draining", NoticeBody::Draining { at_us, node: None, draining: true })
            }
            CoreEvent::Decided { .. }
            | CoreEvent::Breached { .. }
            | CoreEvent::Guarded { .. }
            | CoreEvent::Quarantined { .. }
            | CoreEvent::HiddenState { .. }
            | CoreEvent::Refused { .. }
            | CoreEvent::Rerouted { .. }
            | CoreEvent::OwnStall { .. } => return None,
        };
        Some(EventNotice::of(name, &body))
    }

    fn death(&self, cause: MoveCause, from: Hop) -> (Vec<Accusation>, Option<u64>) {
        let known = self.deaths.get(&from.node).filter(|_| cause == MoveCause::NodeDown);
        let known = known.filter(|(incarnation, ..)| *incarnation == from.incarnation);
        known.map_or_else(Default::default, |(_, witnesses, took)| (witnesses.clone(), *took))
    }
}

impl EventNotice {
    fn of(name: &'static str, body: &NoticeBody<'_>) -> EventNotice {
        EventNotice { name, data: serde_json::to_string(body).expect("words and numbers") }
    }
}

fn decided_by(admitted_by: &Decider, routed_by: &Decider) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("admission", admitted_by.to_string()), ("routing", routed_by.to_string())])
}

/// Microseconds from `then` until `at`, which are readings of two clocks: the time since `at` is subtracted.
fn since(then: Instant, at: SystemTime) -> u64 {
    let late = at.elapsed().unwrap_or(Duration::ZERO);
    then.elapsed().saturating_sub(late).as_micros() as u64
}
