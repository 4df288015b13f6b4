//! A simulated day at the shipped rules: the core in virtual time, the recorder of its events, the readings of its states, and promtool.
//! The nodes, their links and the clients are simulated.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use evenkeel_core::{Gateway, GatewayEffect, NotOpened};
use evenkeel_media::quality::{Codec, HeardLoss, r_factor};
use evenkeel_model::{
    CoreSettings, FlowCounts, IngressProtocol, NodeProbing, Offer, OfferId, Stamp, Timings,
};
use evenkeel_nodes::{NodeEffect, NodeEvidence};
use evenkeel_telemetry::{EventRecorder, MetricSample};
use evenkeel_testkit::required;
use fastrand::Rng;

use super::*;

/// Interval of the core's watch. The detector's times are longer than those of the product by about as much, so that a day takes seconds.
const STEP: Duration = Duration::from_millis(500);

/// Interval of the workers' reports on a session.
const REPORTS_EVERY: Duration = Duration::from_secs(5);

/// Packets of voice between two reports.
const PACKETS: u32 = 50 * REPORTS_EVERY.as_secs() as u32;

/// Packets that a session misses at the death of its node: `tests/limits.toml` allows 50 ms.
const MISSED: u32 = 3;

/// Interval of Prometheus, and of its evaluations.
const SCRAPES_EVERY: Duration = Duration::from_secs(60);

/// From mouth to ear.
const DELAY: Duration = Duration::from_millis(80);

const NODES: u32 = 6;

/// The calls at midnight and at noon.
const CALLS: [f64; 2] = [10.0, 60.0];

/// One client of so many loses packets, by which its R-factor is below 70.
const LOSSY_ONE_OF: u32 = 40;

const DAY: Duration = Duration::from_secs(86_400);

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Times of the day at which a node dies. It is repaired after ten minutes.
const DEATHS: [(u32, Duration); 3] = [(1, minutes(430)), (3, minutes(690)), (5, minutes(1_180))];

const REPAIRED_AFTER: Duration = minutes(10);

/// The first node is drained at this time, and each next one 20 minutes later, for ten minutes.
const DRAINS: Duration = minutes(180);

/// Another process continues the sessions.
const UPGRADE: Duration = minutes(840);

/// All nodes die in the control run.
const OUTAGE: Duration = minutes(60);

/// A client in a call.
struct Talker {
    ends: Duration,
    loss_ppm: u32,
    /// The hop at its last report.
    hop: Option<Hop>,
}

/// The telemetry of one process.
struct DayTelemetry {
    telemetry: Telemetry,
    recorder: EventRecorder,
    reader: CounterFollower,
    requests: mpsc::Receiver<ControlRequest>,
}

impl DayTelemetry {
    fn start(config: &GatewayConfig) -> DayTelemetry {
        let telemetry = Telemetry::start(config, "day").unwrap();
        let names = Arc::new(NodeNames::of(&config.core()));
        let events = broadcast::channel(1).1;
        let recorder = telemetry.recorder(events, Arc::clone(&names), Arc::default());
        let (handle, requests) = Handle::new(names, Arc::default());
        let credentials = vec![CredentialEnd {
            credential: "quic-certificate",
            ends: SystemTime::now() + 60 * DAY,
        }];
        let reader = CounterFollower::new(handle, telemetry.instruments(), None, credentials);
        DayTelemetry { telemetry, recorder, reader, requests }
    }

    /// Reads the state of the core as the product does, and returns the series that rules read.
    async fn scrape(
        &mut self,
        core: &Gateway,
        metrics: &BTreeSet<&'static str>,
        now: Instant,
    ) -> Vec<MetricSample> {
        let DayTelemetry { reader, requests, .. } = self;
        let reading = async {
            reader.read().await.unwrap();
            reader.read_sessions().await.unwrap();
        };
        tokio::select! {
            () = reading => {}
            () = answer_from(core, requests, now) => unreachable!("the reader has the handle"),
        }
        self.telemetry.prometheus().samples(metrics)
    }
}

/// Answers requests to control from this core.
async fn answer_from(core: &Gateway, requests: &mut mpsc::Receiver<ControlRequest>, now: Instant) {
    while let Some(request) = requests.recv().await {
        match request {
            ControlRequest::Nodes(reply) => {
                reply.send(core.views().nodes().collect()).unwrap();
            }
            ControlRequest::Status(reply) => {
                let status = StatusReport {
                    sessions: core.live(),
                    rooms: core.standing_rooms(),
                    uplink_suspect: core.node_table().doubts_uplink(),
                    slos: core.views().slos(now).collect(),
                    scenario_traffic: BTreeMap::new(),
                    messages_refused: BTreeMap::new(),
                    quic_counts: BTreeMap::new(),
                    ..status()
                };
                reply.send(status).unwrap();
            }
            ControlRequest::Sessions(after, limit, reply) => {
                let live = core.views().sessions_after(after, now).filter_map(|(_, state)| state);
                let trace = TraceIds { trace_id: [1; 16], span_id: [1; 8] };
                let view =
                    |state| SessionView { state, totals: Default::default(), trace, ice: None };
                let _ = reply.send(live.take(limit).map(view).collect());
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Values at each scrape, by series as promtool names them.
#[derive(Default)]
struct Scrapes {
    taken: usize,
    series: BTreeMap<String, Vec<String>>,
}

impl Scrapes {
    fn add(&mut self, samples: Vec<MetricSample>) {
        for MetricSample { metric, labels, value } in samples {
            let labels = labels.iter().map(|(name, value)| format!("{name}=\"{value}\""));
            let own = ["instance=\"gateway\"", "job=\"evenkeel\""].map(str::to_owned);
            let labels: Vec<String> = own.into_iter().chain(labels).collect();
            let values =
                self.series.entry(format!("{metric}{{{}}}", labels.join(","))).or_default();
            leave_out(values, self.taken);
            values.push(value.to_string());
        }
        self.taken += 1;
    }

    /// A unit test of promtool: each of these alerts fires during these scrapes, or does not.
    fn rule_test(mut self, alerts: &[(&str, bool)]) -> String {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/alerts/rules.yml");
        let every = SCRAPES_EVERY.as_secs();
        let mut text = format!(
            "rule_files: ['{}']\nevaluation_interval: {every}s\n\
             tests:\n- interval: {every}s\n  input_series:\n",
            rules.display()
        );
        for (series, values) in &mut self.series {
            leave_out(values, self.taken);
            writeln!(text, "  - {{series: '{series}', values: '{}'}}", values.join(" ")).unwrap();
        }
        text += "  promql_expr_test:\n";
        let last_s = every * (self.taken as u64 - 1);
        for (selector, fires) in alerts {
            let samples = if *fires { "[{value: 1}]" } else { "[]" };
            writeln!(
                text,
                "  - {{expr: 'count(count_over_time(ALERTS{{alertstate=\"firing\",{selector}}}[1d])) > bool 0', \
                 eval_time: {last_s}s, exp_samples: {samples}}}"
            )
            .unwrap();
        }
        text
    }
}

/// Adds scrapes in which the series was not there.
fn leave_out(values: &mut Vec<String>, until: usize) {
    if values.len() < until && values.last().is_some_and(|last| *last != "_") {
        values.push("stale".to_owned());
    }
    values.resize(until, "_".to_owned());
}

struct Day {
    began: Moment,
    /// Since midnight.
    time: Duration,
    outage: Option<Duration>,
    config: GatewayConfig,
    core: Gateway,
    process: DayTelemetry,
    rng: Rng,
    offers: u64,
    offered: BTreeMap<OfferId, Talker>,
    talkers: BTreeMap<SessionId, Talker>,
    drained: Option<NodeId>,
}

fn configuration(folder: &Path) -> GatewayConfig {
    let mut text = "[gateway]\nregion = \"east\"\npolicies = \"policies\"\n".to_owned();
    for node in 0..NODES {
        let zone = ["a", "b"][node as usize % 2];
        write!(
            text,
            "[[node]]\nname = \"east-{zone}{node}\"\naddress = \"127.0.0.1:{}\"\nregion = \"east\"\n\
             zone = \"{zone}\"\ndriver = \"plain\"\ncapacity = \"4 Mbit/s\"\n",
            4_000 + node
        )
        .unwrap();
    }
    let policies = folder.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    let slo = "slo = { objective = 0.99, set_up = \"2s\", gap = \"150ms\", r_factor = 70 }";
    std::fs::write(policies.join("call.toml"), format!("[scenario.call]\n{slo}\n")).unwrap();
    let file = folder.join("evenkeel.toml");
    std::fs::write(&file, text).unwrap();
    let kinds = evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS);
    GatewayConfig::load(Some(&file), None, &kinds).unwrap()
}

/// The settings of the core, with the times of a watch each [`STEP`].
fn core_settings(config: &GatewayConfig) -> CoreSettings {
    let mut settings = config.core();
    settings.nodes.iter_mut().for_each(|node| node.probed = NodeProbing::Yes);
    settings.timings = Timings {
        probe_every_near: 2 * STEP,
        probe_slack: STEP,
        silence_min: 10 * STEP,
        down_after_near: 10 * STEP,
        own_stall: STEP,
        ..settings.timings
    };
    settings
}

impl Day {
    fn new(config: GatewayConfig, outage: Option<Duration>) -> Day {
        let began = Moment::now();
        let mut day = Day {
            began,
            time: Duration::ZERO,
            outage,
            core: Gateway::new(core_settings(&config), began.now),
            process: DayTelemetry::start(&config),
            config,
            rng: Rng::with_seed(65),
            offers: 0,
            offered: BTreeMap::new(),
            talkers: BTreeMap::new(),
            drained: None,
        };
        day.core.handle_summaries_within(REPORTS_EVERY);
        day.settle();
        day
    }

    fn moment(&self) -> Moment {
        let Moment { now, wall } = self.began;
        Moment { now: now + self.time, wall: wall + self.time }
    }

    fn is_dead(&self, node: NodeId) -> bool {
        let mut deaths = DEATHS.iter().filter(|(dead, _)| *dead == node.0).map(|(_, at)| *at);
        let within = |at: Duration| (at..at + REPAIRED_AFTER).contains(&self.time);
        deaths.any(within) || self.outage.is_some_and(within)
    }

    /// The calls that are wanted now.
    fn wanted(&self) -> usize {
        let [night, noon] = CALLS;
        let turn = self.time.as_secs_f64() / DAY.as_secs_f64() * std::f64::consts::TAU;
        (night + (noon - night) * (1.0 - turn.cos()) / 2.0) as usize
    }

    /// Plays until this time of the day.
    async fn play(&mut self, until: Duration) -> Scrapes {
        let (metrics, mut scrapes) = (Alerts::new(&[]).metrics(), Scrapes::default());
        while self.time < until {
            self.step();
            let is_due = |every: Duration| self.time.as_millis().is_multiple_of(every.as_millis());
            let (reports, scrape) = (is_due(REPORTS_EVERY), is_due(SCRAPES_EVERY));
            if reports {
                self.report();
            }
            if scrape {
                let now = self.moment().now;
                scrapes.add(self.process.scrape(&self.core, &metrics, now).await);
            }
        }
        scrapes
    }

    fn step(&mut self) {
        self.time += STEP;
        let now = self.moment().now;
        self.core.handle_timeout(now);
        self.settle();
        self.core.handle_watch(&[Stamp::default(); NODES as usize], Duration::ZERO, now);
        self.settle();
        while self.core.fails_over() {
            let at = self.core.poll_timeout().expect("rooms of dead nodes have a timer");
            self.core.handle_timeout(at);
            self.settle();
        }
        if self.time == UPGRADE {
            self.upgrade();
        }
        self.drain();
        self.end_calls();
        if (self.talkers.len() + self.offered.len()).div_ceil(2) < self.wanted() {
            self.begin_call();
        }
    }

    /// Executes the effects of the core.
    fn settle(&mut self) {
        let at = self.moment();
        while let Some(effect) = self.core.poll_output() {
            match effect {
                GatewayEffect::Open { session, hop, .. } => {
                    let result = if self.is_dead(hop.node) { Err(NotOpened) } else { Ok(()) };
                    self.core.handle_opened(session, hop, result, at.now);
                }
                GatewayEffect::Reply { offer, result } => {
                    if let Some(talker) = self.offered.remove(&offer)
                        && let Ok(accepted) = result
                    {
                        self.talkers.insert(accepted.session, talker);
                    }
                }
                GatewayEffect::End { session, .. } => drop(self.talkers.remove(&session)),
                GatewayEffect::Node(NodeEffect::Probe { node, sequence }) => {
                    let evidence = match self.is_dead(node) {
                        true => NodeEvidence::ProbeRefused(sequence),
                        false => NodeEvidence::ProbeAnswered(sequence),
                    };
                    let took = Duration::from_micros(self.rng.u64(800..3_000));
                    self.core.handle_evidence(node, evidence, at.now + took);
                }
                GatewayEffect::Event(event) => self.process.recorder.handle_event(&event, None, at),
                _ => {}
            }
        }
    }

    /// Two clients offer sessions in a new room.
    fn begin_call(&mut self) {
        let ends = self.time + Duration::from_secs(self.rng.u64(120..1_080));
        let room: Arc<str> = format!("room-{}", self.offers).into();
        for _ in 0..2 {
            self.offers += 1;
            let id = OfferId(self.offers);
            let is_lossy = self.rng.u32(..LOSSY_ONE_OF) == 0;
            let loss_ppm = if is_lossy { 90_000 } else { self.rng.u32(..4_000) };
            self.offered.insert(id, Talker { ends, loss_ppm, hop: None });
            let voice = PayloadType::new(111, "opus", 48_000);
            let stream = MediaStream {
                kind: StreamKind::Audio,
                payload_types: vec![voice],
                feedback: FeedbackSupport::default(),
                bitrate_kbps: Some(64),
            };
            let media = MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain);
            let offer = Offer {
                id,
                scenario: "call".into(),
                room: Arc::clone(&room),
                labels: Vec::new().into(),
                ingress: IngressProtocol::Quic,
                media: Arc::new(media),
            };
            self.core.handle_offer(offer, self.moment().now);
            self.settle();
        }
    }

    fn end_calls(&mut self) {
        let over = self.talkers.iter().filter(|(_, talker)| talker.ends <= self.time);
        let over: Vec<SessionId> = over.map(|(session, _)| *session).collect();
        for session in over {
            self.core.handle_close(session, self.moment().now).unwrap();
            self.settle();
        }
    }

    /// The workers report on all sessions.
    fn report(&mut self) {
        let now = self.moment().now;
        let sessions: Vec<SessionId> = self.talkers.keys().copied().collect();
        for session in sessions {
            let hop = self.core.views().session(session, now).and_then(|standing| standing.hop);
            let Some(talker) = self.talkers.get_mut(&session) else { continue };
            let before = std::mem::replace(&mut talker.hop, hop);
            let loss = talker.loss_ppm;
            let mut measures = Measures::default();
            measures
                .set(Metric::LossUp, loss.into())
                .set(Metric::LossDown, loss.into())
                .set(Metric::RFactor, r_factor(DELAY, HeardLoss::random(loss), Codec::Opus).into());
            self.core.handle_summary(session, measures, Some(now));
            let Some(hop) = hop.filter(|hop| !self.is_dead(hop.node)) else { continue };
            let is_rescued = before.is_some_and(|before| self.is_dead(before.node));
            let flow = FlowCounts {
                sent: [PACKETS, 0],
                received: [PACKETS, 0],
                hears: Some(hop),
                expected: PACKETS,
                missed: if is_rescued { MISSED } else { 0 },
                ..FlowCounts::default()
            };
            self.core.handle_flow(session, &flow, now);
        }
        self.settle();
    }

    /// An operator drains one node after another.
    fn drain(&mut self) {
        let since = self.time.checked_sub(DRAINS).map(|since| since.as_secs() / 60);
        let turn = since.filter(|since| since % 20 < 10).map(|since| (since / 20) as u32);
        let node = turn.filter(|turn| *turn < NODES).map(NodeId);
        if node == self.drained {
            return;
        }
        let now = self.moment().now;
        for (node, draining) in [(self.drained, false), (node, true)] {
            if let Some(node) = node {
                self.core.handle_drain(node, draining, None, now).unwrap();
            }
        }
        self.drained = node;
        self.settle();
    }

    /// Another process continues the sessions. Its counters begin with 0.
    fn upgrade(&mut self) {
        let now = self.moment().now;
        let record = self.core.record(now);
        self.core = Gateway::new(core_settings(&self.config), now);
        self.core.handle_summaries_within(REPORTS_EVERY);
        self.process = DayTelemetry::start(&self.config);
        self.offered.clear();
        let names: BTreeMap<Box<str>, NodeId> = (self.core.node_table().iter())
            .map(|node| (node.settings.name.clone(), node.id))
            .collect();
        self.core.handle_record(record, |name| names.get(name).copied(), now).unwrap();
        self.settle();
        self.core.settle_restored(now);
        self.settle();
        assert_eq!(self.core.live(), self.talkers.len());
    }
}

/// Puts these scrapes to the shipped rules.
fn check_rules(folder: &Path, scrapes: Scrapes, alerts: &[(&str, bool)]) {
    let file = folder.join("day.yml");
    std::fs::write(&file, scrapes.rule_test(alerts)).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(&file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[required(Prometheus)]
#[tokio::test]
async fn day_of_healthy_traffic_sends_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut day = Day::new(configuration(folder.path()), None);
    let scrapes = day.play(DAY).await;
    // Without a series its rule would not fire, either.
    for metric in [
        "evenkeel_rooms_stranded_total",
        "evenkeel_sessions_refused_total",
        "evenkeel_uplink_suspicions_total",
        "evenkeel_credential_expiry_seconds",
        "evenkeel_slo_burn_rate",
    ] {
        let is_there = |series: &String| series.starts_with(&format!("{metric}{{"));
        assert!(scrapes.series.keys().any(is_there), "{metric} is not scraped");
    }
    let alerts = [
        ("severity=\"page\"", false),
        // The rules see the deaths.
        ("alertname=\"EvenkeelNodeDown\"", true),
        ("alertname=\"EvenkeelNodeFailed\"", true),
    ];
    check_rules(folder.path(), scrapes, &alerts);
}

#[required(Prometheus)]
#[tokio::test]
async fn day_with_an_outage_sends_pages() {
    let folder = tempfile::tempdir().unwrap();
    let mut day = Day::new(configuration(folder.path()), Some(OUTAGE));
    let scrapes = day.play(OUTAGE + 2 * REPAIRED_AFTER).await;
    let alerts = [
        ("alertname=\"EvenkeelRoomsStranded\",severity=\"page\"", true),
        ("alertname=\"EvenkeelOffersRefused\",severity=\"page\"", true),
    ];
    check_rules(folder.path(), scrapes, &alerts);
}
