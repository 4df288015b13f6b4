//! The steps of the demo, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel_client::{ApiCall, ApiClient, ServerEvent};
use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::hostile::{self, Vice};
use super::options::{DemoError, DemoOptions};
use super::processes::Processes;
use super::record::{DemoFault, DemoPush, DemoRecord, TimeSpan};
use super::report::{PolicyCalls, StrangerFigures};
use super::sessions::{DemoScenario, OpenSessions, SessionPlan};
use super::{takeover, telemetry};
use crate::clock;
use crate::crowd::PlannedTransport;
use crate::ledger::PacketLedger;
use crate::machine::MachineWatch;
use crate::relay::Conditions;
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
/// Wait between two pushes.
const BETWEEN_PUSHES: Duration = Duration::from_millis(400);
/// Packets of each kind that unauthorised clients send.
const UNAUTHORISED_PACKETS: u32 = 50;
/// Wait for the last packets.
const LAST_WORDS: Duration = Duration::from_millis(700);

/// The node that is killed and the node that is stopped, both in the gateway's region.
const VICTIMS: [&str; 2] = ["east-b1", "east-a1"];
/// The node that gets unknown tags. It runs to the end and then reports its counters.
const PROBED_NODE: &str = "west-a1";

/// The policy that is pushed: the shipped plugin, with settings that keep rooms in the zone of their label.
const POLICY: &str = "call/routing";
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

struct DemoRun {
    evenkeel: PathBuf,
    processes: Processes,
    sessions: OpenSessions,
    admin: ApiClient,
    watch: Watch,
    progress: DemoProgress,
    machine: MachineWatch,
    seed: u64,
    faults: Vec<DemoFault>,
    pushes: Vec<DemoPush>,
}

/// Runs all steps and returns the records for evaluation.
pub(super) async fn run(
    options: &DemoOptions,
    evenkeel: &Path,
) -> Result<(DemoRecord, PacketLedger), DemoError> {
    let progress = DemoProgress { since: Instant::now() };
    progress.say("measuring the scheduling latency of this machine");
    let machine = MachineWatch::begin();
    progress.say("starting six nodes in three regions, a telemetry receiver, and the gateway");
    let mut processes = Processes::start(options, evenkeel).await?;
    let watch = Watch::begin(&processes.admin()).await;
    let watch = watch.map_err(DemoError::admin("listening to events"))?;
    let plan = SessionPlan::of(options.sessions);
    progress.say(&format!(
        "opening {} sessions in {} rooms: {} over UDP, {} over QUIC",
        plan.sessions.len(),
        plan.rooms.len(),
        plan.count(PlannedTransport::Udp),
        plan.count(PlannedTransport::Quic)
    ));
    let sessions = OpenSessions::enter(plan, &mut processes, options.seed).await?;
    let admin = processes.admin();
    let seed = options.seed;
    let (faults, pushes) = (Vec::new(), Vec::new());
    let evenkeel = evenkeel.to_owned();
    DemoRun { evenkeel, processes, sessions, admin, watch, progress, machine, seed, faults, pushes }
        .play()
        .await
}

impl DemoRun {
    async fn play(mut self) -> Result<(DemoRecord, PacketLedger), DemoError> {
        let control_ns = self.steady().await;
        // On a stalled machine all rooms may have left one of the nodes; then the other node has all rooms.
        let all_left = self.rooms_on(VICTIMS[0]).await? == 0;
        let [killed, stopped] = if all_left { [VICTIMS[1], VICTIMS[0]] } else { VICTIMS };
        self.kill(killed, Signal::SIGKILL).await?;
        self.heal(killed).await?;
        self.kill(stopped, Signal::SIGSTOP).await?;
        self.heal(stopped).await?;
        self.lose_packets().await;
        self.swap().await?;
        for vice in Vice::ALL {
            self.push_hostile(vice).await?;
        }
        let mut strangers = self.send_unauthorised().await?;
        let (calls, telemetry) = self.leave_alone().await?;
        self.kill_unattended(killed).await?;
        self.processes.require_gateway()?;
        self.progress.say("collecting the last packets");

        let DemoRun {
            evenkeel,
            processes,
            sessions,
            watch,
            progress,
            machine,
            seed,
            faults,
            pushes,
            ..
        } = self;
        let span = TimeSpan { from_ns: sessions.from_ns, until_ns: clock::now_ns() };
        for planned in &sessions.plan.sessions {
            sessions.books.open().leave(planned.session, span.until_ns);
        }
        tokio::time::sleep(LAST_WORDS).await;
        let states = sessions.fleet.states();
        let failed = states.iter().filter(|(_, state)| state.failed.is_some());
        let failed = failed.map(|(&session, _)| session).collect();
        let lossy = sessions.lossy();
        let OpenSessions { plan, fleet, books, relay, by_id, .. } = sessions;
        drop(fleet);
        let dropped = relay.dropped();
        let kept = processes.kept();
        progress.say("two gateways in a group: the owner of their address is killed (SIGKILL)");
        let takeover = takeover::play(&evenkeel, processes.subfolder("group"), seed).await?;
        progress.say("evaluating the ledger");
        let counted = processes.end().await?;
        let unknown_tags = counted.get(PROBED_NODE).and_then(|node| node["unknown_tag"].as_u64());
        strangers.counted.insert("unknown-tag".to_owned(), unknown_tags.unwrap_or(0));
        let events = watch.heard.all().clone();
        let ledger = books.open().clone();
        let record = DemoRecord {
            plan,
            by_id,
            span,
            machine: machine.so_far(),
            control_ns,
            faults,
            lossy,
            dropped,
            pushes,
            strangers,
            calls,
            telemetry,
            events,
            kept,
            failed,
            takeover,
        };
        Ok((record, ledger))
    }

    /// Runs the control run, without a fault.
    async fn steady(&self) -> Vec<u64> {
        self.progress.say("steady state: the control run");
        clock::control_moments(STEADY).await
    }

    async fn kill(&mut self, node: &str, signal: Signal) -> Result<(), DemoError> {
        let silent = signal == Signal::SIGSTOP;
        let how = if silent { "is stopped (SIGSTOP)" } else { "is killed (SIGKILL)" };
        let rooms = self.rooms_on(node).await?;
        self.progress.say(&format!("{node} {how} under {rooms} rooms"));
        let from_ns = clock::now_ns();
        self.processes.signal_node(node, signal)?;
        let is_down = |event: &ServerEvent| watch::is_node(event, node, "down");
        self.watch.heard.wait(from_ns, AFTER_DEATH, is_down).await;
        tokio::time::sleep(AFTER_DEATH).await;
        let span = TimeSpan { from_ns, until_ns: clock::now_ns() };
        self.faults.push(DemoFault { node: node.to_owned(), silent, unattended: false, span });
        self.processes.require_gateway()
    }

    async fn rooms_on(&mut self, node: &str) -> Result<u64, DemoError> {
        let nodes =
            self.admin.read("/v1/nodes").await.map_err(DemoError::admin("listing nodes"))?;
        let rows = nodes["nodes"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(rows
            .iter()
            .find(|row| row["node"] == node)
            .and_then(|row| row["rooms"].as_u64())
            .unwrap_or(0))
    }

    /// Restarts the node and waits until it is trusted and is the second hop of its rooms again.
    async fn heal(&mut self, node: &str) -> Result<(), DemoError> {
        self.progress.say(&format!("{node} is back"));
        let from_ns = clock::now_ns();
        if self.faults.last().is_some_and(|fault| fault.silent) {
            self.processes.signal_node(node, Signal::SIGCONT)?;
        } else {
            self.processes.restart_node(node).await?;
        }
        let is_up = |event: &ServerEvent| watch::is_node(event, node, "up");
        if !self.watch.heard.wait(from_ns, TRUSTED_WITHIN, is_up).await {
            let what = format!("{node} trusted again");
            return Err(DemoError::InVain { what, seconds: TRUSTED_WITHIN.as_secs() });
        }
        let until = Instant::now() + SPARES_WITHIN;
        while Instant::now() < until && !self.all_have_spares().await? {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Returns true if every room has its second hop in the region of its first.
    async fn all_have_spares(&mut self) -> Result<bool, DemoError> {
        let routes = self.routes().await?;
        Ok(routes.values().all(|route| {
            let region = |node: &String| node.split_once('-').map(|(region, _)| region.to_owned());
            route.len() >= 2 && region(&route[0]) == region(&route[1])
        }))
    }

    /// The nodes of each room's route.
    async fn routes(&mut self) -> Result<BTreeMap<String, Vec<String>>, DemoError> {
        let rooms = self.admin.list("rooms").await.map_err(DemoError::admin("listing rooms"))?;
        let nodes = |room: &Value| {
            let route = room["route"].as_array().map_or(&[][..], Vec::as_slice);
            route.iter().map(|hop| watch::word(&hop["node"])).collect()
        };
        Ok(rooms.iter().map(|room| (watch::word(&room["room"]), nodes(room))).collect())
    }

    /// Adds loss to the UDP clients of one region. Moving to another node would not help.
    async fn lose_packets(&self) {
        let lossy = self.sessions.lossy();
        self.progress.say(&format!(
            "{} UDP clients of one region lose {LOSS} % of their packets",
            lossy.len()
        ));
        let from_ns = clock::now_ns();
        let heard = self.watch.heard.clone();
        let done = |op: &str, gives_up: bool| {
            heard.degraded(op, |arg| (arg > 0) == gives_up, (from_ns, u64::MAX))
        };
        self.sessions.relay.set_all(Conditions::loss_percent(LOSS));
        let with_video = self.with_video(&lossy);
        wait_for(VOICE_ONLY_WITHIN, || done("voice-only", true).len() >= with_video).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let given_up = done("voice-only", true).len();
        self.progress.say(&format!("{given_up} sessions are on voice only; the network recovers"));
        self.sessions.relay.set_all(Conditions::default());
        wait_for(RESTORED_WITHIN, || heard.standing_degradations() == 0).await;
        // Wait until retransmitted packets have arrived.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    fn with_video(&self, sessions: &BTreeSet<u64>) -> usize {
        let plan = &self.sessions.plan;
        let seen = plan.sessions.iter().filter(|planned| {
            sessions.contains(&planned.session)
                && planned.video
                && plan.room_of(planned).scenario == DemoScenario::Call
        });
        seen.count()
    }

    /// Replaces the routing policy by one that decides differently.
    async fn swap(&mut self) -> Result<(), DemoError> {
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
        let span = TimeSpan { from_ns, until_ns: clock::now_ns() };
        self.pushes.push(DemoPush { policy: POLICY, vice: None, answer, span, rooms_moved });
        self.processes.require_gateway()
    }

    async fn push_hostile(&mut self, vice: Vice) -> Result<(), DemoError> {
        let bytes = hostile::plugin(vice, shipped(), self.seed);
        let bytes = bytes.map_err(|error| DemoError::InVain {
            what: format!("a {} plugin: {error}", vice.name()),
            seconds: 0,
        })?;
        let from_ns = clock::now_ns();
        let answer = self.push(&bytes, None).await?;
        tokio::time::sleep(BETWEEN_PUSHES).await;
        let reason = watch::word(&answer["reason"]);
        self.progress.say(&format!(
            "{} plugin pushed: {}, {reason}",
            vice.name(),
            watch::word(&answer["outcome"])
        ));
        let span = TimeSpan { from_ns, until_ns: clock::now_ns() };
        self.pushes.push(DemoPush {
            policy: POLICY,
            vice: Some(vice),
            answer,
            span,
            rooms_moved: 0,
        });
        self.processes.require_gateway()
    }

    async fn push(&mut self, wasm: &[u8], settings: Option<&Value>) -> Result<Value, DemoError> {
        let mut path = format!("/v1/policies/{POLICY}");
        if let Some(settings) = settings {
            path += "?settings=";
            path += &evenkeel_client::escape(&settings.to_string());
        }
        let headers = [("content-type", "application/wasm")];
        let body = Bytes::copy_from_slice(wasm);
        let call = ApiCall { method: Method::PUT, path: &path, headers: &headers, body };
        let reply = self.admin.ask(call).await.map_err(DemoError::admin("pushing a policy"))?;
        reply.json().map_err(DemoError::admin("pushing a policy"))
    }

    /// Sends unauthorised traffic to all listeners.
    async fn send_unauthorised(&mut self) -> Result<StrangerFigures, DemoError> {
        self.progress
            .say("sending unauthorised traffic: unknown addresses, passwords, tags and flows");
        let before = self.counts().await?;
        let failed = DemoError::system("sending unauthorised traffic");
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
        let mut figures = StrangerFigures::default();
        if let Some((address, certificate)) = self.sessions.quic {
            let quic = knock_quic(address, certificate, UNAUTHORISED_PACKETS, self.seed).await;
            let quic = quic.map_err(|reason| DemoError::InVain {
                what: format!("the unauthorised QUIC connection: {reason}"),
                seconds: 0,
            })?;
            figures.sent += quic.sent();
            figures.learned += quic.came;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let report =
            stranger.report().map_err(DemoError::system("listening for answers to strangers"))?;
        figures.sent += report.sent();
        figures.learned += report.learned();
        let after = self.counts().await?;
        let grown = after.into_iter().map(|(reason, count)| {
            let more = count - before.get(&reason).copied().unwrap_or(0).min(count);
            (reason, more)
        });
        figures.counted = grown.filter(|(_, more)| *more > 0).collect();
        Ok(figures)
    }

    /// The gateway's drop counters by reason.
    async fn counts(&mut self) -> Result<BTreeMap<String, u64>, DemoError> {
        let status =
            self.admin.read("/v1/status").await.map_err(DemoError::admin("reading the status"))?;
        let tables =
            ["drops", "quic_counts"].into_iter().filter_map(|table| status[table].as_object());
        let counts =
            tables.flatten().filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?)));
        Ok(counts.collect())
    }

    /// Ends all plugins, the receiver of telemetry and the admin API.
    async fn leave_alone(&mut self) -> Result<(PolicyCalls, Value), DemoError> {
        self.progress.say("stopping all plugins, the telemetry receiver and the admin API");
        let metrics =
            ApiCall { method: Method::GET, path: "/metrics", headers: &[], body: Bytes::new() };
        let metrics = self.admin.ask(metrics).await.map_err(DemoError::admin("reading metrics"))?;
        let calls = telemetry::calls(&String::from_utf8_lossy(&metrics.body));
        let policies =
            self.admin.read("/v1/policies").await.map_err(DemoError::admin("listing policies"))?;
        for policy in policies["policies"].as_array().map_or(&[][..], Vec::as_slice) {
            let path = format!("/v1/policies/{}:stop", watch::word(&policy["policy"]));
            self.admin
                .post(&path, &Value::Null)
                .await
                .map_err(DemoError::admin("stopping a policy"))?;
        }
        let report = self.processes.end_receiver().await?;
        self.admin
            .post("/v1/drill:close-api", &Value::Null)
            .await
            .map_err(DemoError::admin("closing the API"))?;
        let until = Instant::now() + Duration::from_secs(2);
        while self.processes.admin().read("/v1/status").await.is_ok() {
            if Instant::now() > until {
                return Err(DemoError::InVain {
                    what: "the end of the API".to_owned(),
                    seconds: 2,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok((calls, report))
    }

    async fn kill_unattended(&mut self, node: &str) -> Result<(), DemoError> {
        self.progress.say(&format!("{node} is killed without plugins, receiver or API"));
        let from_ns = clock::now_ns();
        self.processes.signal_node(node, Signal::SIGKILL)?;
        tokio::time::sleep(AFTER_DEATH).await;
        let span = TimeSpan { from_ns, until_ns: clock::now_ns() };
        self.faults.push(DemoFault {
            node: node.to_owned(),
            silent: false,
            unattended: true,
            span,
        });
        Ok(())
    }
}

async fn wait_for(within: Duration, mut happened: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + within;
    while Instant::now() < until {
        if happened() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    happened()
}

fn shipped() -> &'static [u8] {
    let mut all = evenkeel_host::shipped().iter();
    all.find(|plugin| plugin.name == PLUGIN).expect("it ships").bytes
}
