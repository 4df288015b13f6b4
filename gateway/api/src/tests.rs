//! Tests with a real HTTP client at the API's sockets. The test answers in place of control.

mod alerts;
mod changes;
mod documents;
mod events;
mod explain;
mod failures;
mod feedback;
mod forecasts;
mod history;
mod log;
mod offers;
mod probes;
mod slos;
mod sockets;
mod views;
mod whip;
mod zones;

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use evenkeel_config::{AdminSettings, AdminTcp, SecretFile, Traceparent};
use evenkeel_control::{
    AdmissionState, ControlError, ControlRequest, EventRecord, GatewayEvent, Handle, IceAnswer,
    IngressAnswer, NodeNames, ReloadReport, SessionAnswer, StatusReport,
};
use evenkeel_dataplane::worker::Totals;
use evenkeel_model::{
    ClientGroup, ClientLabel, CoreEvent, CoreSettings, Decider, Hook, Hop, Incarnation, NodeId,
    NodeSettings, PolicyName, RegionId, RoomId, SessionId, Zone, ZoneId,
};
use evenkeel_revisions::{Actor, RolloutOutcome, RolloutReport};
use evenkeel_telemetry::MetricsFormat;
use evenkeel_testkit::http::HttpClient;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use super::*;

struct World {
    thread: ApiThread,
    handle: Handle,
    socket: PathBuf,
    requests: mpsc::Receiver<ControlRequest>,
    events: broadcast::Sender<Arc<EventRecord>>,
}

impl World {
    fn start() -> World {
        World::with(64)
    }

    fn without_drills() -> World {
        World::made(64, false)
    }

    fn with(events_max: usize) -> World {
        World::made(events_max, true)
    }

    fn made(events_max: usize, drills: bool) -> World {
        let (handle, requests, events) = handle(events_max);
        let socket = socket_path();
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let token = |bytes: &[u8]| SecretFile::new(bytes.to_vec());
        let (tokens, read_tokens) = (vec![token(b"secret")], vec![token(b"reader")]);
        let tcp = Some(AdminTcp { address, tokens, read_tokens });
        let metrics = Box::new(|format: MetricsFormat| match format {
            MetricsFormat::Prometheus => "evenkeel_sessions 3\n".to_owned(),
            MetricsFormat::OpenMetrics => "# EOF\n".to_owned(),
        });
        let settings = AdminSettings { drills, ..admin(socket.clone(), tcp) };
        let thread = start(settings, handle.clone(), metrics).unwrap();
        World { thread, handle, socket, requests, events }
    }

    fn tell(&self, event: CoreEvent, totals: Option<Totals>) {
        self.happen(GatewayEvent::Core(event), totals);
    }

    fn happen(&self, event: GatewayEvent, totals: Option<Totals>) {
        self.events
            .send(Arc::new(EventRecord { at: SystemTime::now(), event, totals, caller: None }))
            .unwrap();
    }

    fn ask(&self, head: &str, body: &str) -> Asking<UnixStream> {
        Asking::at(UnixStream::connect(&self.socket).unwrap(), head, body)
    }

    fn request(&mut self) -> ControlRequest {
        self.requests.blocking_recv().unwrap()
    }

    /// The next request that is no question about nodes.
    fn operation(&mut self) -> ControlRequest {
        loop {
            match self.request() {
                ControlRequest::Nodes(reply) => reply.send(Vec::new()).unwrap(),
                other => return other,
            }
        }
    }

    /// Tells the API that the records of policies are on the disk.
    fn keep_policies(&mut self) {
        let ControlRequest::PoliciesKept(reply) = self.request() else { panic!("not asked") };
        reply.send(Ok(())).unwrap();
    }
}

/// A sent request: method and path, then headers, one per line.
struct Asking<S> {
    client: HttpClient<S>,
}

impl<S: Read + Write> Asking<S> {
    fn at(stream: S, head: &str, body: &str) -> Asking<S> {
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default();
        let headers: Vec<&str> = lines.chain(["connection: close"]).collect();
        let mut client = HttpClient::over(stream);
        client.send(line, &headers, body.as_bytes());
        Asking { client }
    }

    fn status(&mut self) -> u16 {
        let line = self.find("HTTP/1.1");
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next line that begins with `start`.
    fn find(&mut self, start: &str) -> String {
        loop {
            let line = self.client.line().unwrap_or_else(|| panic!("no {start}"));
            if line.starts_with(start) {
                return line;
            }
        }
    }

    fn whole(mut self) -> (u16, String) {
        let answer = self.client.answer().expect("no answer");
        (answer.status, answer.body)
    }

    fn answer(self) -> (u16, Value) {
        let (status, body) = self.whole();
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Returns the data of the next event and requires this event name.
    fn notice(&mut self, name: &str) -> Value {
        assert_eq!(self.find("event:"), format!("event: {name}"));
        let data = self.find("data:");
        serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
    }

    fn text(self) -> String {
        self.whole().1
    }

    /// Reads to the end of the stream and returns the number of bytes.
    fn end(&mut self) -> usize {
        self.client.rest().iter().filter(|byte| !byte.is_ascii_whitespace()).count()
    }
}

const OFFER: &str = r#"{"scenario": "call", "room": "room-1", "ingress": {"quic": {}},
    "media": [{"kind": "audio",
               "payload_types": [{"payload_type": 111, "codec": "opus", "clock_rate": 48000}]}]}"#;

fn handle(
    events_max: usize,
) -> (Handle, mpsc::Receiver<ControlRequest>, broadcast::Sender<Arc<EventRecord>>) {
    let (mut handle, requests) = Handle::new(Arc::new(names()), Arc::default());
    let (events, _) = broadcast::channel(events_max);
    handle.events = events.clone();
    (handle, requests, events)
}

fn admin(socket: PathBuf, tcp: Option<AdminTcp>) -> AdminSettings {
    AdminSettings { socket, tcp, traceparent: Traceparent::Link, drills: true }
}

fn names() -> NodeNames {
    NodeNames::of(&settings())
}

/// A node in each of two regions.
fn settings() -> CoreSettings {
    let zone = |name: &str, region| Zone { name: name.into(), region: RegionId(region) };
    let node = |name: &str, zone, carrier: Option<&str>| NodeSettings {
        carrier: carrier.map(Into::into),
        ..NodeSettings::new(name, ZoneId(zone), 1_000)
    };
    CoreSettings {
        home: RegionId(0),
        regions: vec!["east".into(), "west".into()],
        carriers: Vec::new(),
        zones: vec![zone("a", 0), zone("b", 1)],
        nodes: vec![node("east-a1", 0, None), node("west-b1", 1, Some("cn"))],
        scenarios: Default::default(),
        timings: Default::default(),
        limits: Default::default(),
    }
}

fn carrier() -> ClientGroup {
    ClientGroup { label: ClientLabel::Carrier, value: "ct".into() }
}

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn opened(number: u64) -> SessionAnswer {
    SessionAnswer {
        session: SessionId(number),
        room: RoomId(4),
        ingress: IngressAnswer::Quic {
            addresses: vec![(Ipv4Addr::LOCALHOST, 4433).into()],
            certificate_sha256: [0xab; 32],
            short_lived_sha256: vec![[0x01; 32], [0x02; 32]],
            flow_to_gateway: (1 << 62) - 1,
            flow_from_gateway: 7,
        },
        route: vec![hop(0)],
        admitted_by: Decider::Native,
        routed_by: Decider::Policy { policy: routing(), revision: "5f0c5f0c5f0c".into() },
    }
}

fn status(state: &str) -> StatusReport {
    StatusReport {
        state: match state {
            "starting" => AdmissionState::Starting,
            "serving" => AdmissionState::Serving,
            _ => AdmissionState::Draining,
        },
        version: "1.2.3",
        region: "east".into(),
        uptime_ms: 1_500,
        last_reload: Some((
            ReloadReport {
                by: Actor::File,
                took: Duration::from_millis(4),
                outcome: Err("evenkeel.toml:3:1: found nothing".into()),
            },
            SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        )),
        sessions: 2,
        rooms: 1,
        uplink_suspect: false,
        policies_failing: vec![routing().to_string()],
        slos: Vec::new(),
        client_breakers: Vec::new(),
        provider_breakers: Vec::new(),
        forecasts: Vec::new(),
        packets_to_node: 10,
        packets_to_client: 20,
        bytes_to_node: 1_000,
        bytes_to_client: 2_000,
        key_frames_to_node: 1,
        key_frames_to_client: 2,
        from_route: 3,
        scenario_traffic: Default::default(),
        drops: [("unknown-source", 3)].into(),
        messages_refused: [("clock", 1)].into(),
        udp: vec![(Ipv4Addr::LOCALHOST, 5004).into()],
        quic: None,
        short_lived_sha256: Vec::new(),
        carriers: Default::default(),
        quic_counts: [("connections", 1)].into(),
    }
}

fn rollout(outcome: RolloutOutcome) -> RolloutReport {
    RolloutReport {
        policy: routing(),
        outcome,
        stage: None,
        by: Actor::Operator,
        revision: None,
        previous: None,
        code: (outcome == RolloutOutcome::Refused).then_some("import"),
        reason: Some("it imports a clock".into()),
        arrived: std::time::Instant::now(),
        activate: Duration::from_micros(900),
    }
}

fn socket_path() -> PathBuf {
    static EVER: AtomicUsize = AtomicUsize::new(0);
    let number = EVER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("evenkeel-api-{}-{number}.sock", std::process::id()))
}
