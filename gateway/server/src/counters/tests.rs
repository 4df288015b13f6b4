use evenkeel_alerts::Alerts;
use evenkeel_config::GatewayConfig;
use evenkeel_control::samples::closed_session;
use evenkeel_control::{
    AdmissionState, ControlRequest, EventRecord, GatewayEvent, NodeNames, ScenarioTraffic,
    SessionView, TraceIds,
};
use evenkeel_model::{
    BreakerMode, BreakerState, ClientTransport, CloseReason, CoreEvent, FailureScope,
    FeedbackSupport, Health, Hook, Hop, Impairment, ImpairmentSign, Incarnation, MediaDescription,
    MediaStream, NodeId, NodeSettings, Op, PathEvidence, PathSegment, PayloadType, Plan,
    PolicyName, RedundancyMode, RegionId, RoomId, RtcpPort, SessionId, SloIndicator, Srtp,
    StreamKind, Zone, ZoneId,
};
use evenkeel_policies::{PluginView, PolicyView};
use evenkeel_revisions::PolicyStatus;
use evenkeel_telemetry::{Moment, Telemetry};
use tokio::sync::{broadcast, mpsc};

use super::*;

mod day;

fn telemetry() -> Telemetry {
    Telemetry::start(&GatewayConfig::load(None, None, &[]).unwrap(), "test").unwrap()
}

fn closed(number: u64) -> Arc<EventRecord> {
    let (session, room) = (SessionId(number), RoomId(1));
    let event = GatewayEvent::Core(CoreEvent::Closed {
        session,
        room,
        room_name: "room".into(),
        reason: CloseReason::Shutdown,
        closed: Box::new(closed_session(std::time::Instant::now())),
    });
    Arc::new(EventRecord { at: SystemTime::now(), event, totals: None, caller: None })
}

/// Checks that the Prometheus text has this line; other labels are ignored.
fn says(telemetry: &Telemetry, name: &str, label: &str, value: &str) {
    let text = telemetry.prometheus().render();
    let found = text.lines().any(|line| {
        line.starts_with(name) && line.contains(label) && line.ends_with(&format!(" {value}"))
    });
    assert!(found, "{name} {label} {value} is not in\n{text}");
}

#[test]
fn pending_events_are_recorded_at_the_end() {
    let telemetry = telemetry();
    let (events, told) = broadcast::channel(512);
    let mut recorder = telemetry.recorder(told, Arc::default(), Arc::default());
    for number in 0..300 {
        events.send(closed(number)).unwrap();
    }
    recorder.finish();
    says(&telemetry, "evenkeel_sessions_closed_total", "shutdown", "300");
    says(&telemetry, "evenkeel_sessions_active", "", "0");
}

#[test]
fn checked_losses_are_measured_by_scope() {
    let telemetry = telemetry();
    let worst = |scope, reduced_sessions| WorstLoss {
        scope,
        unplaced_sessions: 1,
        reduced_sessions,
        unprotected_rooms: 2,
    };
    let worst = [worst(FailureScope::Node, 3), worst(FailureScope::Zone, 4)];
    measure_losses(&telemetry.instruments(), &LossLevels { worst, rooms_unprotected: 5 });
    for (scope, reduced) in [("scope=\"node\"", "3"), ("scope=\"zone\"", "4")] {
        says(&telemetry, "evenkeel_loss_unplaced", scope, "1");
        says(&telemetry, "evenkeel_loss_reduced", scope, reduced);
        says(&telemetry, "evenkeel_loss_unprotected", scope, "2");
    }
    says(&telemetry, "evenkeel_rooms_unprotected", "", "5");
}

#[test]
fn events_that_were_missed_are_counted() {
    let telemetry = telemetry();
    let (events, told) = broadcast::channel(16);
    let mut recorder = telemetry.recorder(told, Arc::default(), Arc::default());
    for number in 0..40 {
        events.send(closed(number)).unwrap();
    }
    recorder.finish();
    says(&telemetry, "evenkeel_sessions_closed_total", "shutdown", "16");
    says(&telemetry, "evenkeel_telemetry_dropped_total", "signal=\"events\"", "24");
}

/// Plays control, with one node and one policy without any calls.
async fn answer(mut requests: mpsc::Receiver<ControlRequest>) {
    while let Some(request) = requests.recv().await {
        match request {
            ControlRequest::Policies(reply) => {
                let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
                let view = PolicyView {
                    policy,
                    scenarios: Vec::new(),
                    status: PolicyStatus {
                        active: Some("0123456789ab".into()),
                        ..PolicyStatus::default()
                    },
                    active: PluginView::default(),
                    candidate: PluginView::default(),
                    cohorts: Vec::new(),
                    judged: None,
                    quarantined: 0,
                    hidden_state: (0, 0),
                    preparing: None,
                };
                reply.send(vec![view]).unwrap();
            }
            ControlRequest::Nodes(reply) => {
                let view = NodeStanding {
                    leaves: false,
                    hop: Hop { node: NodeId(0), incarnation: Incarnation(1) },
                    health: Health::Up,
                    suspected_by: Default::default(),
                    draining: false,
                    ejected: false,
                    started: false,
                    stopping: false,
                    need: None,
                    capacity_kbps: 1_000,
                    opening: 0,
                    waiting: 0,
                    load_permille: 250,
                    carried_kbps: 0,
                    reported_permille: None,
                    process: None,
                    rooms: 3,
                    round_trip: Some(Duration::from_millis(50)),
                    loss_ppm: 20_000,
                    impaired_sessions: 0,
                    is_probed: true,
                    zone_breaker: BreakerState::Closed,
                    zone_breaker_mode: BreakerMode::Auto,
                };
                reply.send(vec![view]).unwrap();
            }
            ControlRequest::Status(reply) => {
                reply.send(status()).unwrap();
            }
            ControlRequest::Sessions(.., reply) => {
                let _ = reply.send(Vec::new());
            }
            other => panic!("{other:?}"),
        }
    }
}

fn status() -> StatusReport {
    let mut traffic = ScenarioTraffic {
        packets_up: 6,
        packets_down: 7,
        bytes_up: 600,
        bytes_down: 700,
        bytes_copied: 800,
        lost_up: 9,
        lost_down: 11,
        answered: 16,
        requested: 17,
        caches_refused: 18,
        replayed: 19,
        redundant_bytes: 20,
        recovered: 21,
        key_frames_given_up: 22,
        thinned: 23,
        repaired: 24,
        parity_bytes: 25,
        paced: 26,
        policed: 27,
        ..ScenarioTraffic::default()
    };
    let [rtx, fec] = &mut traffic.repairs;
    (rtx.packets_up, rtx.bytes_up, rtx.packets_down, rtx.bytes_down) = (1, 12, 2, 13);
    (fec.packets_up, fec.bytes_up, fec.packets_down, fec.bytes_down) = (3, 14, 4, 15);
    StatusReport {
        state: AdmissionState::Serving,
        version: "1.2.3",
        region: "east".into(),
        uptime_ms: 1_000,
        last_reload: None,
        sessions: 7,
        rooms: 1,
        uplink_suspect: true,
        policies_failing: Vec::new(),
        slos: vec![slo()],
        client_breakers: Vec::new(),
        provider_breakers: Vec::new(),
        forecasts: Vec::new(),
        packets_to_node: 10,
        packets_to_client: 0,
        bytes_to_node: 1_000,
        bytes_to_client: 0,
        key_frames_to_node: 0,
        key_frames_to_client: 0,
        from_route: 0,
        scenario_traffic: [("call".into(), traffic)].into(),
        drops: BTreeMap::new(),
        messages_refused: [("clock", 4)].into(),
        udp: Vec::new(),
        quic: None,
        short_lived_sha256: Vec::new(),
        carriers: BTreeMap::new(),
        quic_counts: [("connections", 2), ("handshakes-failed", 3)].into(),
    }
}

fn slo() -> SloStanding {
    let of =
        |window, burn_rate| SloWindow { window, counted: None, sessions: 20, bad: 3, burn_rate };
    SloStanding {
        scenario: "call".into(),
        slo: SloIndicator::Gap,
        objective: 0.99,
        budget: -0.5,
        windows: [of("5m", Some(15.0)), of("1h", Some(2.5)), of("6h", None), of("30d", Some(1.5))],
    }
}

/// The names of one node.
fn names() -> NodeNames {
    names_of(["east-a1"])
}

fn names_of<'a>(nodes: impl IntoIterator<Item = &'a str>) -> NodeNames {
    let node = |name: &'a str| NodeSettings::new(name, ZoneId(0), 1_000);
    let mut settings = GatewayConfig::load(None, None, &[]).unwrap().core();
    settings.zones = vec![Zone { name: "a".into(), region: RegionId(0) }];
    settings.nodes = nodes.into_iter().map(node).collect();
    NodeNames::of(&settings)
}

#[tokio::test]
async fn initial_state_is_reported_without_events() {
    let telemetry = telemetry();
    let (handle, requests) = Handle::new(Arc::new(names()), Arc::default());
    handle.tokens_refused.count(true);
    let control = tokio::spawn(answer(requests));
    let ends = SystemTime::UNIX_EPOCH;
    let credentials = vec![CredentialEnd { credential: "index-token", ends }];
    let mut reader = CounterFollower::new(handle, telemetry.instruments(), None, credentials);
    reader.begin().await;
    reader.read().await.unwrap();
    reader.read().await.unwrap();
    says(&telemetry, "evenkeel_policy_failing", "call/routing", "0");
    let expired = "evenkeel_credential_expiry_seconds{evenkeel_credential=\"index-token\",\
                   evenkeel_ends=\"1970-01-01 00:00 UTC\"} -";
    assert!(telemetry.prometheus().render().contains(expired));
    says(&telemetry, "evenkeel_node_health", "east-a1", "0");
    says(&telemetry, "evenkeel_node_draining", "east-a1", "0");
    says(&telemetry, "evenkeel_node_load_ratio", "east-a1", "0.25");
    says(&telemetry, "evenkeel_node_load_ratio", "evenkeel_zone=\"a\"", "0.25");
    says(&telemetry, "evenkeel_node_capacity_bytes_per_second", "east-a1", "125000");
    says(&telemetry, "evenkeel_node_rooms", "east-a1", "3");
    says(&telemetry, "evenkeel_node_round_trip_seconds", "east-a1", "0.05");
    says(&telemetry, "evenkeel_sessions_active", "", "7");
    says(&telemetry, "evenkeel_slo_burn_rate", "evenkeel_window=\"5m\"", "15");
    says(&telemetry, "evenkeel_slo_burn_rate", "evenkeel_window=\"6h\"", "0");
    says(&telemetry, "evenkeel_slo_budget_ratio", "gap", "-0.5");
    reader.set_slos(Vec::new());
    says(&telemetry, "evenkeel_slo_burn_rate", "evenkeel_window=\"5m\"", "0");
    says(&telemetry, "evenkeel_slo_budget_ratio", "gap", "1");
    says(&telemetry, "evenkeel_quic_connections", "", "2");
    says(&telemetry, "evenkeel_quic_counts_total", "handshakes-failed", "3");
    says(&telemetry, "evenkeel_node_messages_refused_total", "clock", "4");
    says(&telemetry, "evenkeel_api_tokens_refused_total", "missing", "1");
    says(&telemetry, "media_traffic_bytes_total", "up", "1000");
    says(&telemetry, "evenkeel_scenario_packets_total", "up", "6");
    says(&telemetry, "evenkeel_scenario_packets_total", "down", "7");
    says(&telemetry, "evenkeel_scenario_traffic_bytes_total", "up", "600");
    says(&telemetry, "evenkeel_scenario_traffic_bytes_total", "down", "700");
    says(&telemetry, "evenkeel_scenario_copied_bytes_total", "call", "800");
    says(&telemetry, "evenkeel_scenario_replayed_packets_total", "call", "19");
    says(&telemetry, "evenkeel_scenario_redundancy_bytes_total", "call", "20");
    says(&telemetry, "evenkeel_scenario_recovered_total", "call", "21");
    says(&telemetry, "evenkeel_scenario_key_frames_given_up_total", "call", "22");
    says(&telemetry, "evenkeel_scenario_thinned_packets_total", "call", "23");
    says(&telemetry, "evenkeel_scenario_repaired_total", "call", "24");
    says(&telemetry, "evenkeel_scenario_parity_bytes_total", "call", "25");
    says(&telemetry, "evenkeel_scenario_paced_packets_total", "call", "26");
    says(&telemetry, "evenkeel_scenario_policed_packets_total", "call", "27");
    says(&telemetry, "evenkeel_scenario_lost_total", "up", "9");
    says(&telemetry, "evenkeel_scenario_lost_total", "down", "11");
    says(&telemetry, "evenkeel_scenario_retransmissions_total", "down", "16");
    says(&telemetry, "evenkeel_scenario_retransmissions_total", "up", "17");
    says(&telemetry, "evenkeel_scenario_caches_refused_total", "call", "18");
    for (repair, bytes, packets) in [("rtx", [12, 13], [1, 2]), ("fec", [14, 15], [3, 4])] {
        for (at, direction) in ["up", "down"].into_iter().enumerate() {
            let label = format!("evenkeel_direction=\"{direction}\",evenkeel_repair=\"{repair}\"");
            let of = |name: &str, value: [u64; 2]| {
                says(&telemetry, name, &label, &value[at].to_string());
            };
            of("evenkeel_scenario_repair_bytes_total", bytes);
            of("evenkeel_scenario_repair_packets_total", packets);
        }
    }
    says(&telemetry, "evenkeel_node_loss_ratio", "east-a1", "0.02");
    says(&telemetry, "evenkeel_zone_capacity_left_bytes_per_second", "zone=\"a\"", "93750");
    says(&telemetry, "evenkeel_uplink_suspect", "", "1");
    reader.read_sessions().await.unwrap();
    says(&telemetry, "evenkeel_scenario_sessions", "call", "0");
    says(&telemetry, "evenkeel_scenario_degraded", "call", "0");
    says(&telemetry, "evenkeel_scenario_impaired", "leg", "0");
    says(
        &telemetry,
        "evenkeel_scenario_degraded",
        "rung=\"2\",evenkeel_scenario=\"call\",evenkeel_zone=\"a\"",
        "0",
    );
    reader.read().await.unwrap();
    says(&telemetry, "evenkeel_node_sessions", "east-a1", "0");
    reader.read_policies().await.unwrap();
    says(&telemetry, "evenkeel_policy_revision", "revision=\"0123456789ab\"", "1");
    drop(reader);
    control.await.unwrap();
}

/// Voice only on the first rung, and a cap beside it on the second.
fn degraded(rung: u8) -> Plan {
    let video = PayloadType::new(96, "VP8", 90_000);
    let stream = MediaStream {
        kind: StreamKind::Video,
        payload_types: vec![video],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    let media = MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain);
    let voice_only = Plan::default().with(Op::VoiceOnly, u32::from(rung > 0), &media);
    voice_only.capped(if rung > 1 { 300 } else { 0 })
}

/// A session at the node of [`names`].
fn view(session: u64, rung: u8, metrics: &[(Metric, u64)]) -> SessionView {
    let mut measures = Measures::default();
    for (metric, value) in metrics {
        measures.set(*metric, *value);
    }
    let state = SessionStanding {
        session: SessionId(session),
        room: "room".into(),
        scenario: "call".into(),
        labels: [("participant".into(), "anna".into())].into(),
        transport: ClientTransport::Udp,
        mode: RedundancyMode::Hot,
        kept: RedundancyMode::Hot,
        hop: Some(Hop { node: NodeId(0), incarnation: Incarnation(1) }),
        plan: degraded(rung),
        measures,
        impairment: None,
        advice: None,
        policing: None,
        mean_r_centi: None,
        age: Duration::ZERO,
    };
    let trace = TraceIds { trace_id: [1; 16], span_id: [1; 8] };
    SessionView { state, totals: Default::default(), trace, ice: None }
}

#[tokio::test]
async fn quality_of_sessions_is_sampled_by_scenario() {
    let telemetry = telemetry();
    let (handle, mut requests) = Handle::new(Arc::new(names()), Arc::default());
    let lossy = [(Metric::RFactor, 6_900), (Metric::LossUp, 30_000), (Metric::JitterDown, 4_000)];
    let mut impaired = view(2, 2, &lossy);
    impaired.state.impairment = Some(Impairment {
        segment: PathSegment::Leg,
        sign: ImpairmentSign::Loss,
        at: SessionId(2),
        loss_ppm: 30_000,
        confidence: 95,
        evidence: PathEvidence::default(),
    });
    let mut stranded = view(3, 1, &[]);
    stranded.state.hop = None;
    let listed = [vec![view(1, 0, &[(Metric::RFactor, 8_800)]), impaired, stranded], Vec::new()];
    let control = tokio::spawn(async move {
        for sessions in listed {
            let mut sessions = Some(sessions);
            while let Some(ControlRequest::Sessions(.., reply)) = requests.recv().await {
                let items = sessions.take().unwrap_or_default();
                let is_last = items.is_empty();
                let _ = reply.send(items);
                if is_last {
                    break;
                }
            }
        }
    });
    let mut reader = CounterFollower::new(handle, telemetry.instruments(), None, Vec::new());
    reader.read_sessions().await.unwrap();
    let at = |place: &str| format!("evenkeel_scenario=\"call\",evenkeel_zone=\"{place}\"");
    says(&telemetry, "evenkeel_scenario_sessions", &at("a"), "2");
    says(&telemetry, "evenkeel_scenario_sessions", &at(""), "1");
    let on = |rung, place| format!("evenkeel_rung=\"{rung}\",{}", at(place));
    for (rung, place, sessions) in [(1, "a", "0"), (2, "a", "1"), (1, "", "1"), (2, "", "0")] {
        says(&telemetry, "evenkeel_scenario_degraded", &on(rung, place), sessions);
    }
    says(&telemetry, "evenkeel_scenario_actions", "evenkeel_op=\"cap\"", "1");
    says(&telemetry, "evenkeel_scenario_actions", "evenkeel_op=\"voice-only\"", "2");
    assert_eq!(reader.sessions_at, Some([(NodeId(0), 2)].into()));
    let leg = "evenkeel_node=\"east-a1\",evenkeel_region=\"local\",evenkeel_scenario=\"call\",evenkeel_segment=\"leg\",evenkeel_zone=\"a\"";
    says(&telemetry, "evenkeel_scenario_impaired", leg, "1");
    says(&telemetry, "evenkeel_scenario_impaired", "evenkeel_segment=\"node\"", "0");
    says(&telemetry, "evenkeel_scenario_impaired", "evenkeel_segment=\"gateway\"", "0");
    says(&telemetry, "evenkeel_session_r_factor_bucket", "le=\"70\"", "1");
    says(&telemetry, "evenkeel_session_r_factor_count", "call", "2");
    says(&telemetry, "evenkeel_session_loss_ratio_sum", "up", "0.03");
    says(&telemetry, "evenkeel_session_jitter_seconds_sum", "down", "0.004");
    reader.read_sessions().await.unwrap();
    says(&telemetry, "evenkeel_scenario_sessions", &at("a"), "0");
    says(&telemetry, "evenkeel_scenario_sessions", &at(""), "0");
    // The series of a node ends with its impairments.
    assert!(!telemetry.prometheus().render().contains(leg));
    drop(reader);
    control.await.unwrap();
}

/// A scenario, of which each leg impairs this number of sessions.
fn impaired_by(legs: impl IntoIterator<Item = (u32, u32)>) -> ScenarioCount {
    let on = |(node, sessions)| ((PathSegment::Leg, Some(NodeId(node))), sessions);
    ScenarioCount { impaired: legs.into_iter().map(on).collect(), ..ScenarioCount::default() }
}

#[test]
fn nodes_that_impair_most_sessions_are_named() {
    // Of as many sessions the first nodes are named.
    let voice = impaired_by((0..40).map(|node| (node, 2)).chain([(40, 3)]));
    let video = impaired_by([(39, 1), (41, 1)]);
    let named = most_impairing([&voice, &video].into_iter());
    let right: BTreeSet<NodeId> = (0..30).chain([39, 40]).map(NodeId).collect();
    assert_eq!(named, right);
    assert_eq!(most_impairing([&video].into_iter()), [NodeId(39), NodeId(41)].into());
}

#[test]
fn impairing_nodes_beyond_the_limit_are_others() {
    let telemetry = telemetry();
    let (handle, _requests) = Handle::new(Arc::new(names()), Arc::default());
    let reader = CounterFollower::new(handle, telemetry.instruments(), None, Vec::new());
    let named: BTreeSet<NodeId> = (0..32).map(NodeId).collect();
    let on = |node| (PathSegment::Leg, Some(NodeId(node)));
    let impaired = [(on(0), 2), (on(40), 3), (on(41), 4), ((PathSegment::Leg, None), 1)].into();
    let mut table = LevelTable::new(Level::ScenarioImpaired);
    reader.add_impaired(&mut table, "call", &impaired, &named);
    telemetry.instruments().replace(table);
    let is_leg = |line: &str| {
        line.starts_with("evenkeel_scenario_impaired{") && line.contains("segment=\"leg\"")
    };
    let at = |node: &str| format!("evenkeel_node=\"{node}\",");
    for (node, sessions) in [("east-a1", "2"), ("n1", "0"), ("other", "7"), ("", "1")] {
        let of_leg = |line: &&str| is_leg(line) && line.contains(&at(node));
        let text = telemetry.prometheus().render();
        let found = text.lines().find(of_leg).unwrap_or_else(|| panic!("{node} is not in {text}"));
        assert!(found.ends_with(&format!("}} {sessions}")), "{found}");
    }
    let text = telemetry.prometheus().render();
    assert_eq!(text.lines().filter(|line| is_leg(line)).count(), 34);
}

#[tokio::test]
async fn nodes_beyond_the_named_ones_raise_an_alert() {
    let telemetry = telemetry();
    let nodes: Vec<String> = (0..40).map(|node| format!("n{node}")).collect();
    let names = names_of(nodes.iter().map(String::as_str));
    let (handle, mut requests) = Handle::new(Arc::new(names), Arc::default());
    let impaired = |node: u32| {
        let number = u64::from(node) + 1;
        let mut view = view(number, 0, &[]);
        view.state.hop = Some(Hop { node: NodeId(node), incarnation: Incarnation(1) });
        view.state.impairment = Some(Impairment {
            segment: PathSegment::Leg,
            sign: ImpairmentSign::Loss,
            at: SessionId(number),
            loss_ppm: 30_000,
            confidence: 95,
            evidence: PathEvidence::default(),
        });
        view
    };
    let sessions: Vec<SessionView> = (0..40).map(impaired).collect();
    let control = tokio::spawn(async move {
        let mut sessions = Some(sessions);
        while let Some(ControlRequest::Sessions(.., reply)) = requests.recv().await {
            let _ = reply.send(sessions.take().unwrap_or_default());
        }
    });
    let mut reader = CounterFollower::new(handle, telemetry.instruments(), None, Vec::new());
    reader.read_sessions().await.unwrap();
    let mut alerts = Alerts::new(&[]);
    let began = Moment::now();
    let mut fires_after = |seconds: u64| {
        let passed = Duration::from_secs(seconds);
        let at = Moment { now: began.now + passed, wall: began.wall + passed };
        alerts.evaluate(telemetry.prometheus().samples(&alerts.metrics()), at);
        alerts.view().alerts.iter().any(|alert| alert.alert == "EvenkeelOtherNodesImpair")
    };
    // The eight nodes without a name impair a fifth of the sessions.
    assert!(!fires_after(0));
    assert!(fires_after(60));
    drop(reader);
    control.await.unwrap();
}

#[test]
fn time_left_is_negative_after_the_end() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(seconds_left(at(90), at(30)), 60.0);
    assert_eq!(seconds_left(at(30), at(90)), -60.0);
}
