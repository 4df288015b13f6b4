//! Events for subscribers, the history of sessions, and cost and benefit of each mode as measured on this gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_contract::gateway::{Mode, Recovery};
use evenkeel_core::Gateway;
use evenkeel_dataplane::worker::{Distribution, MediaCounts, ShedRun, Summary, Totals};
use evenkeel_drivers::{DriverAction, Transport};
use evenkeel_dtls::HandshakeFailure;
use evenkeel_forecast::ForecastChange;
use evenkeel_media::srtp::SrtpProfile;
use evenkeel_model::{
    ClientTransport, CloseReason, CoreEvent, Hop, NodeId, RedundancyMode, RoomId, SessionId,
};
use evenkeel_process::unix_us;
use evenkeel_revisions::RolloutReport;
use tokio::sync::broadcast;

use crate::history::{HistoryWriter, OpenSession};
use crate::messages::{LossComparison, NodeOrder, OrderStep, ScenarioTraffic, UncoveredLoss};
use crate::names::NodeNames;
use crate::node_list::NodeListUpdate;
use crate::reloads::ReloadReport;
use crate::senders::RoomStream;
use crate::traces::CallerSpan;
use crate::workers::WorkerLines;

/// Wait for the final totals of a session. Workers report them with their next pass, well within this time.
const TOTALS_WITHIN: Duration = Duration::from_secs(1);

/// An event with its time and circumstances.
#[derive(Clone, PartialEq, Debug)]
pub struct EventRecord {
    /// The wall clock.
    pub at: SystemTime,
    /// The event.
    pub event: GatewayEvent,
    /// With [`CoreEvent::Closed`]: the session's final totals.
    pub totals: Option<Totals>,
    /// The caller, with [`CoreEvent::Opened`], [`CoreEvent::Refused`] and [`GatewayEvent::TurnedAway`].
    pub caller: Option<TraceCaller>,
}

impl EventRecord {
    /// An event of this moment.
    pub fn now(event: GatewayEvent) -> EventRecord {
        EventRecord { at: SystemTime::now(), event, totals: None, caller: None }
    }
}

/// The caller of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceCaller {
    /// The time at which the request arrived.
    pub arrived: Instant,
    /// From its `traceparent`.
    pub span: Option<CallerSpan>,
}

evenkeel_model::named! {
    /// The reason for which a process continues the sessions of another one.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Continuation {
        /// This process replaces the other one on the same machine.
        Upgrade = "upgrade",
        /// The owner of the group yielded.
        HandOver = "hand-over",
        /// The owner of the group is gone.
        Takeover = "takeover",
    }
}

evenkeel_model::events! {
    /// An event of the core or of control.
    #[derive(Clone, PartialEq, Debug)]
    pub enum GatewayEvent {
        /// An event of the core.
        Core(event: CoreEvent)
        /// An offer was refused because no listener accepts it, or because of a node that it names.
        TurnedAway {
            /// The name of the scenario.
            scenario: Arc<str>,
            /// The reason: `no-listener`, `address-taken`, `full`, `room-full`, `unknown-node` or `outside-networks`.
            reason: &'static str,
            /// The session and its room, if they were created.
            session: Option<(SessionId, RoomId)>,
        }
        /// A revision took a step of its rollout, or was refused or rolled back.
        Rollout(report: RolloutReport)
            sends "policy" with "`policy`, `outcome`, `revision`, `previous`, `code`, `reason`, `by`, `stage`, `percent` and others";
        /// A node did not open a session.
        NotOpened {
            /// The number of the session.
            session: SessionId,
            /// The number of the node.
            node: NodeId,
            /// The answer of the node.
            reason: Box<str>,
        }
            sends "not-opened" with "`session`, `node`, `reason`";
        /// The DTLS handshake of a session's client has ended.
        Handshake {
            /// The number of the session.
            session: SessionId,
            /// The profile of SRTP, or the reason of the failure.
            result: Result<SrtpProfile, HandshakeFailure>,
        }
            sends "handshake" with "`session`, `profile`: the crypto suite, or `reason`";
        /// A session follows a [later offer](api.md#later-offers) of its WebRTC client.
        Renegotiated {
            /// The number of the session.
            session: SessionId,
            /// The streams, their direction or their numbers are others.
            streams_changed: bool,
            /// Both sides have new ICE credentials.
            ice_restarted: bool,
        }
            sends "renegotiated" with "`session`, `streams_changed`, `ice_restarted`";
        /// A session sends a stream to its room.
        StreamAdded(stream: RoomStream)
            sends "stream-added" with "`session`, `room`, `participant`, `kind` (audio or video), `stream`: its [id in answers](webrtc.md#senders)";
        /// A session no longer sends a stream to its room.
        StreamRemoved(stream: RoomStream)
            sends "stream-removed" with "`session`, `room`, `participant`, `kind`, `stream`";
        /// The node list was reloaded, or a reload of it was refused.
        NodeList(update: NodeListUpdate)
            sends "node-list" with "`by`, `forced`, `added`, `removed`, `changed`, `reason`";
        /// A reload had an effect or was refused.
        Reload(report: ReloadReport)
            sends "reload" with "`by`: `file`, `signal` or `operator`; `took_us`; `added`, `removed`, `changed` (nodes), `requires_restart`, \
                                 `refused` (policies), or `reason` if nothing changed";
        /// A removed node is empty and forgotten.
        NodeRemoved {
            /// The node's number, which may be reused.
            node: NodeId,
            /// The name of the node.
            name: Arc<str>,
        }
            sends "node-removed" with "`node`";
        /// This process continues the sessions of another one.
        Continued {
            /// The reason.
            cause: Continuation,
            /// The number of sessions.
            sessions: usize,
            /// The oldest of them, at most 10,000.
            oldest: Vec<SessionId>,
            /// The spans of trusted callers.
            callers: Vec<(SessionId, CallerSpan)>,
            /// The time since restoring began. A standby begins it in advance.
            took: Duration,
        }
            sends "continued" with "`cause` (upgrade, hand-over or takeover), `sessions`, `took_us`";
        /// This member of a group has another role, or the group [lost or regained redundancy](operations/groups.md#lost-redundancy).
        Group(change: GroupChange)
            sends "group" with "`gateway`, `role`, `epoch`, `warnings`";
        /// The set of [checked losses](failover.md#blast-radius) that would leave rooms without a node or a spare, or sessions with a lower
        /// bit rate, changed.
        LossesUncovered(losses: Vec<UncoveredLoss>)
            sends "losses-uncovered" with "`losses`: scope and place of each, its rooms and sessions, sessions without a node, those with a lower \
                                           bit rate, and rooms that would lose their spare";
        /// Five seconds ago nodes died: the effect beside its [prediction](failover.md#blast-radius).
        LossCompared(comparison: Box<LossComparison>)
            sends "loss-compared" with "`nodes`, `died_us`, `witnesses`, `predicted`: time, scope and place of the check and its figures, null if this loss was \
                                        not checked; `actual`: rooms, sessions, sessions without a node, and those with a lower bit rate";
        /// A [warning of what is expected](operations/objectives.md#forecasts) begins or ends (`over`).
        Forecast(change: ForecastChange)
            sends "forecast" with "`kind`: load, decay, flap or delay; `subject`, the region or node; `expected_us`; `evidence`: its \
                                   [facts](operations/objectives.md#forecasts); `over`";
        /// A room turned out to be at another group as well: `group` and `gateway` are the other ones.
        RoomDuplicate {
            /// The name of the room.
            room: Arc<str>,
            /// The name of the other group.
            group: Arc<str>,
            /// The gateway of that group that serves it.
            gateway: Arc<str>,
        }
            sends "room-duplicate" with "`room`, `group`, `gateway`";
        /// Media to these clients paused.
        MediaPaused(pauses: Vec<MediaPause>)
        /// A step of an order to the agent of a node.
        NodeOrdered {
            /// The number of the node.
            node: NodeId,
            /// The order.
            order: NodeOrder,
            /// The step that was reached.
            step: OrderStep,
        }
        /// A rung left out a run of packets to a client.
        Shed {
            /// The number of the session.
            session: SessionId,
            /// The withheld packets.
            run: ShedRun,
        }
            sends "shed" with "`session`, `ssrc`, `after`, `first`, `packets`";
    }
}

/// Pauses of the media to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaPause {
    /// The number of the session.
    pub session: SessionId,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The hop that the client hears now.
    pub hop: Hop,
    /// The time from the last packet of a node that died to the first one of the next node.
    pub gap: Option<Duration>,
    /// Pictures that came so late that the video froze.
    pub freezes: u32,
}

impl MediaPause {
    /// `None` if the client hears no hop, or if media to it did not pause.
    fn of(summary: &Summary, scenario: &Arc<str>) -> Option<MediaPause> {
        let MediaCounts { gap, freezes, .. } = summary.counts;
        let (session, scenario) = (summary.session, Arc::clone(scenario));
        let pause = MediaPause { session, scenario, hop: summary.flow.hears?, gap, freezes };
        (gap.is_some() || freezes > 0).then_some(pause)
    }
}

/// A member of a group and the redundancy of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupChange {
    /// The name of this member.
    pub gateway: Arc<str>,
    /// Its role, as the API names it.
    pub role: &'static str,
    /// The number of the ownership that it knows, 0 if none.
    pub epoch: u64,
    /// Losses of redundancy that have lasted, each a sentence.
    pub warnings: Vec<Arc<str>>,
}

/// Sends events, keeps the history of sessions, and measures the modes.
pub(crate) struct Reporting {
    events: broadcast::Sender<Arc<EventRecord>>,
    history: HistoryWriter,
    names: Arc<NodeNames>,
    closings: Closings,
    costs: Costs,
}

impl Reporting {
    pub(crate) fn new(
        events: broadcast::Sender<Arc<EventRecord>>,
        history: HistoryWriter,
        names: Arc<NodeNames>,
    ) -> Reporting {
        let (closings, costs) = (Closings::default(), Costs::default());
        Reporting { events, history, names, closings, costs }
    }

    pub(crate) fn history(&self) -> &HistoryWriter {
        &self.history
    }

    pub(crate) fn send(&self, record: EventRecord) {
        // Fails only without subscribers.
        let _ = self.events.send(Arc::new(record));
    }

    pub(crate) fn send_event(&self, event: GatewayEvent) {
        self.send(EventRecord::now(event));
    }

    /// Notes the session of this event as open.
    pub(crate) fn open(
        &self,
        event: &CoreEvent,
        mode: Option<(RedundancyMode, usize)>,
        transport: ClientTransport,
    ) {
        let CoreEvent::Opened { session, room_name, scenario, offered, admitted_by, .. } = event
        else {
            return;
        };
        let ago = offered.elapsed().as_micros() as u64;
        self.history.open(OpenSession {
            id: session.to_string().into(),
            gateway: self.history.gateway().into(),
            room: (**room_name).into(),
            scenario: (**scenario).into(),
            ingress: transport.name().into(),
            mode: mode.map_or("", |(mode, _)| mode.name()).into(),
            offered_us: unix_us(SystemTime::now()).saturating_sub(ago),
            admitted_by: admitted_by.to_string().into(),
        });
    }

    /// Sends the event of a session's end once its worker has reported the final totals. `totals`: those of the last summary, if
    /// the session was registered.
    pub(crate) fn close(&mut self, session: SessionId, event: CoreEvent, totals: Option<Totals>) {
        match totals {
            // A worker that panicked over the session has removed it and reports no totals.
            Some(totals)
                if !matches!(event, CoreEvent::Closed { reason: CloseReason::Panicked, .. }) =>
            {
                self.closings.hold(session, event, totals, Instant::now());
            }
            totals => self.send_closed(event, totals),
        }
    }

    fn send_closed(&self, event: CoreEvent, totals: Option<Totals>) {
        if let CoreEvent::Closed { session, room_name, reason, closed, .. } = &event {
            let totals = totals.unwrap_or_default();
            self.history.write(*session, room_name, *reason, closed, &totals, &self.names);
        }
        self.send(EventRecord { totals, ..EventRecord::now(GatewayEvent::Core(event)) });
    }

    /// Sends the event of an ended session with the final totals, which the worker reported.
    pub(crate) fn handle_removed(
        &mut self,
        session: SessionId,
        mode: RedundancyMode,
        totals: Totals,
        counts: &MediaCounts,
    ) {
        if let Some((closed, before)) = self.closings.take(session) {
            // The session has no legs any more.
            if let CoreEvent::Closed { closed: session, .. } = &closed {
                self.costs.carried(mode, 0, &session.scenario, &before, &totals);
                self.costs.count(&session.scenario, counts);
            }
            self.send_closed(closed, Some(totals));
        }
    }

    /// Sends no event of the end of a session that was not opened.
    pub(crate) fn handle_not_opened(&mut self, session: SessionId) {
        self.closings.take(session);
    }

    /// Counts the session's media since its last summary. Returns its pauses.
    pub(crate) fn handle_summary(
        &mut self,
        summary: &Summary,
        before: &Totals,
        mode: RedundancyMode,
        legs: usize,
        scenario: &Arc<str>,
    ) -> Option<MediaPause> {
        self.costs.carried(mode, legs, scenario, before, &summary.totals);
        self.costs.count(scenario, &summary.counts);
        MediaPause::of(summary, scenario)
    }

    /// Counts the bytes of signalling to a node or to its webhook.
    pub(crate) fn handle_signalled(&mut self, action: &DriverAction) {
        self.costs.signalled(action);
    }

    /// Media of the sessions of each scenario.
    pub(crate) fn scenario_traffic(&self) -> BTreeMap<Arc<str>, ScenarioTraffic> {
        self.costs.scenarios.clone()
    }

    /// Ended sessions wait for final totals.
    pub(crate) fn awaits_totals(&self) -> bool {
        !self.closings.is_empty()
    }

    /// Sends the events of all ended sessions, with the totals that are known.
    pub(crate) fn send_all_closings(&mut self) {
        for closing in std::mem::take(&mut self.closings).0.into_values() {
            self.send_closed(closing.event, Some(closing.totals));
        }
    }

    pub(crate) fn send_late_closings(&mut self, now: Instant) {
        for (event, totals) in self.closings.late(now) {
            self.send_closed(event, Some(totals));
        }
    }

    pub(crate) fn mode_view(
        &self,
        mode: RedundancyMode,
        gateway: &Gateway,
        workers: &WorkerLines,
    ) -> Mode {
        let scenarios = gateway.scenarios().filter(|(_, scenario)| scenario.mode == mode);
        let recoveries = Distribution::of(workers.stats().map(|stats| stats.recoveries(mode)));
        let times = recoveries.within(500).zip(recoveries.within(990)).zip(recoveries.longest());
        let ms = |time: Duration| time.as_micros() as f64 / 1_000.0;
        Mode {
            mode: mode.name().into(),
            scenarios: scenarios.map(|(name, _)| Arc::clone(name)).collect(),
            recoveries: recoveries.count(),
            recovery_ms: times.map(|((p50, p99), max)| Recovery {
                p50: ms(p50),
                p99: ms(p99),
                max: ms(max),
            }),
            packets_lost: self.costs.lost(mode, recoveries.count()),
            bandwidth_cost: self.costs.bandwidth(mode),
        }
    }
}

/// Ended sessions that wait for final totals from their workers.
#[derive(Default)]
struct Closings(BTreeMap<SessionId, Closing>);

struct Closing {
    event: CoreEvent,
    /// Totals of the last summary.
    totals: Totals,
    since: Instant,
}

impl Closings {
    fn hold(&mut self, session: SessionId, event: CoreEvent, totals: Totals, since: Instant) {
        self.0.insert(session, Closing { event, totals, since });
    }

    /// Takes a session whose worker has reported the final totals.
    fn take(&mut self, session: SessionId) -> Option<(CoreEvent, Totals)> {
        self.0.remove(&session).map(|closing| (closing.event, closing.totals))
    }

    /// Takes sessions whose final report did not come within [`TOTALS_WITHIN`], with the totals of the last summary.
    /// Reports may be lost when many sessions end at once.
    fn late(&mut self, now: Instant) -> Vec<(CoreEvent, Totals)> {
        let late = |_: &SessionId, closing: &mut Closing| {
            now.saturating_duration_since(closing.since) >= TOTALS_WITHIN
        };
        let late = self.0.extract_if(.., late);
        late.map(|(_, closing)| (closing.event, closing.totals)).collect()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Default)]
struct Costs {
    /// Bytes of signalling to nodes: signed messages, NG messages and webhook bodies.
    signalling_bytes: u64,
    /// The number of legs, first hops included, added up over all summaries.
    legs: u64,
    modes: [ModeCost; RedundancyMode::ALL.len()],
    scenarios: BTreeMap<Arc<str>, ScenarioTraffic>,
}

#[derive(Clone, Copy, Default)]
struct ModeCost {
    /// Media bytes to and from first hops.
    bytes: u64,
    bytes_copied: u64,
    switches: u64,
    lost: u64,
    /// Legs at standbys, included in `legs`.
    standbys: u64,
}

impl Costs {
    fn signalled(&mut self, action: &DriverAction) {
        self.signalling_bytes += match action {
            DriverAction::Send {
                transport: Transport::Trunk { of_sessions: false, .. }, ..
            } => 0,
            DriverAction::Send { bytes, .. } => bytes.len() as u64,
            DriverAction::LimitBundles { .. }
            | DriverAction::Opened { .. }
            | DriverAction::Changed { .. }
            | DriverAction::Refused { .. }
            | DriverAction::RoomFull { .. }
            | DriverAction::Fenced { .. } => 0,
        };
    }

    /// Counts a session's traffic since its last summary.
    fn carried(
        &mut self,
        mode: RedundancyMode,
        legs: usize,
        scenario: &Arc<str>,
        before: &Totals,
        now: &Totals,
    ) {
        let cost = &mut self.modes[mode as usize];
        cost.bytes += now.bytes_up.saturating_sub(before.bytes_up);
        cost.bytes += now.bytes_down.saturating_sub(before.bytes_down);
        cost.bytes_copied += now.bytes_copied.saturating_sub(before.bytes_copied);
        cost.switches += u64::from(now.switches.saturating_sub(before.switches));
        cost.lost += u64::from(now.lost_at_switches.saturating_sub(before.lost_at_switches));
        cost.standbys += legs.saturating_sub(1) as u64;
        self.legs += legs as u64;
        let traffic = self.scenarios.entry(Arc::clone(scenario)).or_default();
        traffic.packets_up += now.packets_up.saturating_sub(before.packets_up);
        traffic.packets_down += now.packets_down.saturating_sub(before.packets_down);
        traffic.bytes_up += now.bytes_up.saturating_sub(before.bytes_up);
        traffic.bytes_down += now.bytes_down.saturating_sub(before.bytes_down);
        traffic.bytes_copied += now.bytes_copied.saturating_sub(before.bytes_copied);
        traffic.lost_up += now.lost_up.saturating_sub(before.lost_up);
    }

    /// Adds what a session of this scenario counted since its last summary.
    fn count(&mut self, scenario: &Arc<str>, counts: &MediaCounts) {
        let MediaCounts {
            repairs,
            lost_down,
            answered,
            requested,
            caches_refused,
            replayed,
            redundant_bytes,
            recovered,
            key_frames_given_up,
            thinned,
            repaired,
            parity_bytes,
            paced,
            policed,
            ..
        } = counts;
        let traffic = self.scenarios.entry(Arc::clone(scenario)).or_default();
        traffic.lost_down += u64::from(*lost_down);
        traffic.answered += u64::from(*answered);
        traffic.requested += u64::from(*requested);
        traffic.caches_refused += u64::from(*caches_refused);
        traffic.replayed += u64::from(*replayed);
        traffic.redundant_bytes += redundant_bytes;
        traffic.recovered += u64::from(*recovered);
        traffic.key_frames_given_up += u64::from(*key_frames_given_up);
        traffic.thinned += u64::from(*thinned);
        traffic.repaired += u64::from(*repaired);
        traffic.parity_bytes += parity_bytes;
        traffic.paced += u64::from(*paced);
        traffic.policed += u64::from(*policed);
        for (sum, new) in traffic.repairs.iter_mut().zip(repairs) {
            sum.packets_up += new.packets_up;
            sum.bytes_up += new.bytes_up;
            sum.packets_down += new.packets_down;
            sum.bytes_down += new.bytes_down;
        }
    }

    /// Returns `None` without switches. Recoveries are reported before switches, so that they count as switches here.
    fn lost(&self, mode: RedundancyMode, recoveries: u64) -> Option<u64> {
        let ModeCost { switches, lost, .. } = self.modes[mode as usize];
        (switches > 0 || recoveries > 0).then_some(lost)
    }

    /// Attributes signalling evenly to all legs, first hops and standbys.
    fn bandwidth(&self, mode: RedundancyMode) -> Option<f64> {
        let cost = &self.modes[mode as usize];
        let each = self.signalling_bytes as f64 / self.legs.max(1) as f64;
        let kept = each * cost.standbys as f64;
        (cost.bytes > 0).then(|| (cost.bytes_copied as f64 + kept) / cost.bytes as f64)
    }
}

#[cfg(test)]
mod tests;
