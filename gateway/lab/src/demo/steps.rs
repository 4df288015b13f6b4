//! The steps of the demo, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_client::{ApiCall, ApiClient, ServerEvent};
use evenkeel_contract::policies::{Rollout, RolloutAnswer};
use evenkeel_contract::sessions::Room;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::hostile::{self, HostilePlugin};
use super::processes::{DemoOptions, Processes};
use super::report::{PolicyCalls, StrangerFigures, Takeover};
use super::sessions::{self, rooms_of, sessions_by};
use super::takeover;
use super::telemetry::{self, TelemetryReceiver};
use crate::clock;
use crate::crowd::{OpenSessions, PlannedSession, PlannedTransport};
use crate::error::LabError;
use crate::ledger::PacketLedger;
use crate::links::Conditions;
use crate::machine::{MachineWatch, Timeliness};
use crate::relay::RelayDrop;
use crate::stranger::{Stranger, knock_quic};
use crate::watch::{self, Watch};

const STEADY: Duration = Duration::from_secs(4);
/// Observation time after a death.
const AFTER_DEATH: Duration = Duration::from_millis(2_000);
/// Timeout until a restarted node is trusted. It is ejected for one second and wary for two.
const TRUSTED_WITHIN: Duration = Duration::from_secs(8);
/// Timeout until all rooms have both nodes of their region in their route again.
const SPARES_WITHIN: Duration = Duration::from_secs(4);
/// Loss that the relay makes, per cent.
const LOSS: u32 = 10;
const VOICE_ONLY_WITHIN: Duration = Duration::from_secs(8);
const RESTORED_WITHIN: Duration = Duration::from_secs(15);
/// Wait after the policy swap. A policy may move a quarter of the rooms per second.
const SWAP_SETTLES: Duration = Duration::from_secs(4);
const BETWEEN_PUSHES: Duration = Duration::from_millis(400);
const API_ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Packets of each kind that unauthorised clients send.
const UNAUTHORISED_PACKETS: u32 = 50;
/// Wait for the last packets.
const LAST_WORDS: Duration = Duration::from_millis(700);

/// The node that is killed and the node that is stopped, both in the gateway's region.
const VICTIMS: [&str; 2] = ["east-b1", "east-a1"];
/// The node that gets unknown tags. It runs to the end and then reports its counters.
const PROBED_NODE: &str = "west-a1";

/// The policy that is pushed: the shipped plugin, with settings that keep rooms in the zone of their label.
const POLICY: (&str, &str) = ("call", "routing");
const PLUGIN: &str = "route-nearest";

struct DemoProgress {
    since: Instant,
}

impl DemoProgress {
    fn say(&self, words: &str) {
        let at = self.since.elapsed().as_secs_f64();
        if std::io::stderr().is_terminal() {
            eprintln!("\x1b[2m{at:5.1} s\x1b[0m  {words}");
        } else {
            eprintln!("{at:5.1} s  {words}");
        }
    }
}

pub(super) struct DemoFault {
    pub(super) node: String,
    /// The node was stopped (SIGSTOP), so that its port stays open.
    pub(super) silent: bool,
    /// The gateway ran without plugins, API and telemetry receiver.
    pub(super) unattended: bool,
    /// Nanoseconds since the Unix epoch.
    pub(super) span: Range<u64>,
}

pub(super) struct DemoPush {
    /// `None` for a valid plugin.
    pub(super) hostile: Option<HostilePlugin>,
    pub(super) answer: Rollout,
    /// Nanoseconds since the Unix epoch.
    pub(super) span: Range<u64>,
    pub(super) rooms_moved: usize,
}

#[derive(Default)]
pub(super) struct DemoRecord {
    pub(super) plan: Vec<PlannedSession>,
    /// Session numbers by the gateway's id.
    pub(super) by_id: BTreeMap<String, u64>,
    /// Nanoseconds since the Unix epoch.
    pub(super) span: Range<u64>,
    pub(super) machine: Timeliness,
    pub(super) control_ns: Vec<u64>,
    pub(super) faults: Vec<DemoFault>,
    pub(super) dropped: Vec<RelayDrop>,
    pub(super) pushes: Vec<DemoPush>,
    pub(super) strangers: StrangerFigures,
    pub(super) calls: PolicyCalls,
    /// Spans that the receiver of telemetry got, by name.
    pub(super) spans: BTreeMap<String, u64>,
    /// Every event, until the API ended.
    pub(super) events: Vec<ServerEvent>,
    /// The folder with configuration and logs, if kept.
    pub(super) kept: Option<PathBuf>,
    /// Sessions with a failed or closed client.
    pub(super) failed: BTreeSet<u64>,
    pub(super) takeover: Option<Takeover>,
    /// Acts that this machine does not permit, with the reason.
    pub(super) skipped: Vec<String>,
}

impl DemoRecord {
    /// Sessions behind the relay.
    pub(super) fn lossy(&self) -> impl Iterator<Item = &PlannedSession> {
        self.plan.iter().filter(|planned| planned.is_relayed)
    }
}

struct DemoRun {
    processes: Processes,
    receiver: TelemetryReceiver,
    sessions: OpenSessions,
    admin: ApiClient,
    watch: Watch,
    progress: DemoProgress,
    seed: u64,
    record: DemoRecord,
}

pub(super) async fn run(
    options: &DemoOptions,
    evenkeel: &Path,
) -> Result<(DemoRecord, PacketLedger), LabError> {
    let progress = DemoProgress { since: Instant::now() };
    progress.say("measuring the scheduling latency of this machine");
    let machine = MachineWatch::begin();
    progress.say("starting six nodes in three regions, a telemetry receiver, and the gateway");
    let receiver = TelemetryReceiver::start().await;
    let receiver = receiver.map_err(LabError::system("receiving telemetry"))?;
    let mut processes = Processes::start(options, evenkeel, &receiver.endpoint).await?;
    let watch = Watch::begin(&processes.admin()).await;
    let watch = watch.map_err(LabError::gateway("listening to events"))?;
    let plan = sessions::plan(options.sessions, options.seed);
    progress.say(&format!(
        "opening {} sessions in {} rooms: {} over UDP, {} over QUIC",
        plan.len(),
        rooms_of(&plan, "call").len() + rooms_of(&plan, "live").len(),
        sessions_by(&plan, PlannedTransport::Udp).len(),
        sessions_by(&plan, PlannedTransport::Quic).len()
    ));
    let sessions = sessions::open(&plan, &mut processes, options.seed).await?;
    let span = clock::now_ns()..u64::MAX;
    let (admin, seed) = (processes.admin(), options.seed);
    let record = DemoRecord { plan, span, ..DemoRecord::default() };
    DemoRun { processes, receiver, sessions, admin, watch, progress, seed, record }
        .play(evenkeel, &machine)
        .await
}

impl DemoRun {
    async fn play(
        mut self,
        evenkeel: &Path,
        machine: &MachineWatch,
    ) -> Result<(DemoRecord, PacketLedger), LabError> {
        self.progress.say("steady state: the control run");
        self.record.control_ns = clock::control_moments(STEADY).await;
        // On a stalled machine all rooms may have left one of the nodes; then the other node has all rooms.
        let all_left = self.rooms_on(VICTIMS[0]).await? == 0;
        let [killed, stopped] = if all_left { [VICTIMS[1], VICTIMS[0]] } else { VICTIMS };
        self.kill(killed, Signal::SIGKILL).await?;
        self.heal(killed).await?;
        self.kill(stopped, Signal::SIGSTOP).await?;
        self.heal(stopped).await?;
        self.lose_packets().await;
        self.swap().await?;
        for kind in HostilePlugin::ALL {
            self.push_hostile(kind).await?;
        }
        self.send_unauthorised().await?;
        self.leave_alone().await?;
        self.kill_unattended(killed).await?;
        self.processes.require_gateway()?;
        self.progress.say("collecting the last packets");

        let DemoRun { processes, sessions, watch, progress, seed, mut record, .. } = self;
        record.span.end = clock::now_ns();
        sessions.books.open().due_between(record.span.start, record.span.end);
        tokio::time::sleep(LAST_WORDS).await;
        let states = sessions.fleet.states();
        let failed = states.iter().filter(|(_, state)| state.failed.is_some());
        record.failed = failed.map(|(&session, _)| session).collect();
        let OpenSessions { fleet, books, relay, by_id, .. } = sessions;
        drop(fleet);
        record.dropped = relay.dropped();
        record.by_id = by_id;
        record.kept = processes.kept_folder();
        progress.say("two gateways in a group: the owner of their address is killed (SIGKILL)");
        match takeover::play(evenkeel, processes.subfolder("group"), seed).await? {
            Ok(takeover) => record.takeover = Some(takeover),
            Err(reason) => record.skipped.push(format!("gateway killed: {reason}")),
        }
        progress.say("evaluating the ledger");
        let counted = processes.end().await?;
        let unknown_tags = counted.get(PROBED_NODE).map_or(0, |node| node.unknown_tag);
        record.strangers.counted.insert("unknown-tag".to_owned(), unknown_tags);
        record.events = watch.events.take();
        record.machine = machine.so_far();
        Ok((record, books.turn()))
    }

    async fn kill(&mut self, node: &str, signal: Signal) -> Result<(), LabError> {
        let silent = signal == Signal::SIGSTOP;
        let how = if silent { "is stopped (SIGSTOP)" } else { "is killed (SIGKILL)" };
        let rooms = self.rooms_on(node).await?;
        self.progress.say(&format!("{node} {how} under {rooms} rooms"));
        let from_ns = clock::now_ns();
        self.processes.signal_node(node, signal)?;
        let is_down = |event: &ServerEvent| watch::is_node(event, node, "down");
        self.watch.events.wait(from_ns, AFTER_DEATH, is_down).await;
        tokio::time::sleep(AFTER_DEATH).await;
        self.add_fault(node, silent, false, from_ns);
        self.processes.require_gateway()
    }

    fn add_fault(&mut self, node: &str, silent: bool, unattended: bool, from_ns: u64) {
        let (node, span) = (node.to_owned(), from_ns..clock::now_ns());
        self.record.faults.push(DemoFault { node, silent, unattended, span });
    }

    async fn rooms_on(&mut self, node: &str) -> Result<u64, LabError> {
        let nodes = self.admin.nodes().await.map_err(LabError::gateway("listing nodes"))?;
        let row = nodes.iter().find(|row| *row.hop.place.node == *node);
        Ok(row.map_or(0, |row| row.rooms.into()))
    }

    /// Restarts the node and waits until it is trusted and is the second hop of its rooms again.
    async fn heal(&mut self, node: &str) -> Result<(), LabError> {
        self.progress.say(&format!("{node} is back"));
        let from_ns = clock::now_ns();
        if self.record.faults.last().is_some_and(|fault| fault.silent) {
            self.processes.signal_node(node, Signal::SIGCONT)?;
        } else {
            self.processes.restart_node(node).await?;
        }
        let is_up = |event: &ServerEvent| watch::is_node(event, node, "up");
        if !self.watch.events.wait(from_ns, TRUSTED_WITHIN, is_up).await {
            return Err(LabError::in_vain(format!("{node} trusted again"), TRUSTED_WITHIN));
        }
        let until = Instant::now() + SPARES_WITHIN;
        while Instant::now() < until && !self.all_have_spares().await? {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Returns true if every room has its second hop in the region of its first.
    async fn all_have_spares(&mut self) -> Result<bool, LabError> {
        let routes = self.routes().await?;
        Ok(routes.values().all(|route| {
            let region = |node: &String| node.split_once('-').map(|(region, _)| region.to_owned());
            route.len() >= 2 && region(&route[0]) == region(&route[1])
        }))
    }

    async fn routes(&mut self) -> Result<BTreeMap<String, Vec<String>>, LabError> {
        let rooms = self.admin.rooms().await.map_err(LabError::gateway("listing rooms"))?;
        let nodes = |room: &Room| room.route.iter().map(|hop| hop.place.node.to_string()).collect();
        Ok(rooms.iter().map(|room| (room.room.to_string(), nodes(room))).collect())
    }

    /// Adds loss to the UDP clients of one region. Moving to another node would not help.
    async fn lose_packets(&self) {
        let lossy = self.record.lossy();
        self.progress.say(&format!(
            "{} UDP clients of one region lose {LOSS} % of their packets",
            lossy.count()
        ));
        let from_ns = clock::now_ns();
        let heard = &self.watch.events;
        let on_voice_only = || heard.degraded("voice-only", from_ns).len();
        self.sessions.relay.set_all(Conditions::loss_percent(LOSS));
        let in_call = self.record.lossy().filter(|planned| planned.offer.scenario == "call");
        let with_video = in_call.filter(|planned| planned.persona.video).count();
        wait_for(VOICE_ONLY_WITHIN, || on_voice_only() >= with_video).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.progress
            .say(&format!("{} sessions are on voice only; the network recovers", on_voice_only()));
        self.sessions.relay.set_all(Conditions::default());
        wait_for(RESTORED_WITHIN, || heard.standing_degradations() == 0).await;
        // Wait until retransmitted packets have arrived.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    async fn swap(&mut self) -> Result<(), LabError> {
        self.progress.say("pushing another revision of call/routing: rooms stay in their zone");
        let before = self.routes().await?;
        let settings = json!({
            "delay_weight": 0.0, "load_weight": 0.0, "loss_weight": 0.0, "wary_cost": 0.0,
            "zone_cost": 30.0, "region_cost": 80.0, "spares": 2, "min_stay": "0s", "review_interval": "1s",
        });
        let from_ns = clock::now_ns();
        let answer = self.push(shipped(), Some(&settings)).await?;
        tokio::time::sleep(SWAP_SETTLES).await;
        let after = self.routes().await?;
        let rooms_moved =
            after.iter().filter(|(room, route)| before.get(*room) != Some(*route)).count();
        self.progress.say(&format!("{rooms_moved} of {} rooms were rerouted", after.len()));
        let span = from_ns..clock::now_ns();
        self.record.pushes.push(DemoPush { hostile: None, answer, span, rooms_moved });
        self.processes.require_gateway()
    }

    async fn push_hostile(&mut self, kind: HostilePlugin) -> Result<(), LabError> {
        let bytes = hostile::plugin(kind, shipped(), self.seed);
        let bytes = bytes.map_err(|error| {
            LabError::in_vain(format!("a {} plugin: {error}", kind.name()), Duration::ZERO)
        })?;
        let from_ns = clock::now_ns();
        let answer = self.push(&bytes, None).await?;
        tokio::time::sleep(BETWEEN_PUSHES).await;
        let reason = answer.reason.as_deref().unwrap_or_default();
        self.progress.say(&format!("{} plugin pushed: {}, {reason}", kind.name(), answer.outcome));
        let span = from_ns..clock::now_ns();
        self.record.pushes.push(DemoPush { hostile: Some(kind), answer, span, rooms_moved: 0 });
        self.processes.require_gateway()
    }

    async fn push(&mut self, wasm: &[u8], settings: Option<&Value>) -> Result<Rollout, LabError> {
        let (set, mut hook) = (POLICY.0, POLICY.1.to_owned());
        if let Some(settings) = settings {
            hook += &format!("?settings={}", evenkeel_client::escape(&settings.to_string()));
        }
        let pushed = self.admin.push(set, &hook, wasm).await;
        let pushed = pushed.and_then(|answer| Ok(RolloutAnswer::deserialize(&answer)?));
        Ok(pushed.map_err(LabError::gateway("pushing a policy"))?.rollout)
    }

    async fn send_unauthorised(&mut self) -> Result<(), LabError> {
        self.progress
            .say("sending unauthorised traffic: unknown addresses, passwords, tags and flows");
        let before = self.counts().await?;
        let failed = LabError::system("sending unauthorised traffic");
        let mut stranger = Stranger::new(self.seed);
        let gateway = self.processes.udp;
        let ufrag = self.sessions.ufrag.clone().unwrap_or_default();
        let mut send = || -> std::io::Result<()> {
            stranger.send_rtp(gateway, UNAUTHORISED_PACKETS)?;
            stranger.send_checks(gateway, &ufrag, UNAUTHORISED_PACKETS)?;
            stranger.send_bundles(gateway, UNAUTHORISED_PACKETS)?;
            stranger.send_messages(gateway, UNAUTHORISED_PACKETS)?;
            if let Some(node) = self.processes.address_of(PROBED_NODE) {
                stranger.send_bundles(node, UNAUTHORISED_PACKETS)?;
            }
            Ok(())
        };
        send().map_err(failed)?;
        let figures = &mut self.record.strangers;
        if let Some((address, certificate)) = self.sessions.quic {
            let quic = knock_quic(address, certificate, UNAUTHORISED_PACKETS, self.seed).await;
            let quic = quic.map_err(|reason| {
                let what = format!("the unauthorised QUIC connection: {reason}");
                LabError::in_vain(what, Duration::ZERO)
            })?;
            figures.sent += quic.datagrams + quic.streams;
            figures.learned += quic.came;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let report =
            stranger.report().map_err(LabError::system("listening for answers to strangers"))?;
        figures.sent += report.sent;
        figures.learned += report.learned();
        let after = self.counts().await?;
        let grown = after.into_iter().map(|(reason, count)| {
            let more = count - before.get(&reason).copied().unwrap_or(0).min(count);
            (reason, more)
        });
        self.record.strangers.counted = grown.filter(|(_, more)| *more > 0).collect();
        Ok(())
    }

    /// The gateway's drop counters by reason.
    async fn counts(&mut self) -> Result<BTreeMap<String, u64>, LabError> {
        let status = self.admin.status().await.map_err(LabError::gateway("reading the status"))?;
        let counts = status.drops.into_iter().chain(status.quic_counts);
        Ok(counts.map(|(reason, count)| (reason.into_owned(), count)).collect())
    }

    /// Ends all plugins, the receiver of telemetry and the admin API.
    async fn leave_alone(&mut self) -> Result<(), LabError> {
        self.progress.say("stopping all plugins, the telemetry receiver and the admin API");
        let metrics = self.admin.ask(ApiCall::get("/metrics")).await;
        let metrics = metrics.map_err(LabError::gateway("reading metrics"))?;
        self.record.calls = telemetry::calls(&String::from_utf8_lossy(&metrics.body));
        self.record.spans = self.receiver.end();
        self.processes.end_policies_and_api()?;
        let until = Instant::now() + API_ENDS_WITHIN;
        while self.processes.admin().status().await.is_ok() {
            if Instant::now() > until {
                return Err(LabError::in_vain("the end of the API", API_ENDS_WITHIN));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    async fn kill_unattended(&mut self, node: &str) -> Result<(), LabError> {
        self.progress.say(&format!("{node} is killed without plugins, receiver or API"));
        let from_ns = clock::now_ns();
        self.processes.signal_node(node, Signal::SIGKILL)?;
        tokio::time::sleep(AFTER_DEATH).await;
        self.add_fault(node, false, true, from_ns);
        Ok(())
    }
}

async fn wait_for(within: Duration, happened: impl Fn() -> bool) {
    let until = Instant::now() + within;
    while Instant::now() < until && !happened() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn shipped() -> &'static [u8] {
    let mut all = evenkeel_host::shipped().iter();
    all.find(|plugin| plugin.name == PLUGIN).expect("it ships").bytes
}
