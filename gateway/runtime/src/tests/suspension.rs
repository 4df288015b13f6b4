//! Two gateways in one process with duplicates of the same sockets: the second one continues the sessions of the first.

mod nodes;
mod records;

use std::net::{SocketAddr, UdpSocket};

use evenkeel_control::{
    AgentError, Continuation, ControlError, GatewayEvent, IngressAnswer, Inherited, KeyRecord,
    LastStatesPart, MediaStates, NodeOrder, NotSuspended, OfferedSession, RecordBatch, Replica,
    STATES, SessionAnswer, Snapshot, SnapshotError, Suspended,
};
use evenkeel_dataplane::worker::{ListenerParts, TrunkSocket};
use evenkeel_drivers::{DRIVERS, kinds};
use evenkeel_model::{
    ClientIdentity, CoreEvent, FeedbackSupport, IngressProtocol, MediaDescription, MediaStream,
    PayloadType, RtcpPort, SessionId, Srtp, StreamKind,
};
use nodes::{Agent, Operator, Rtpengine, SECRET, start_echo};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Sessions of [`talking`].
const SESSIONS: usize = 6;

const NODES: [&str; 4] = ["agent", "plain", "rtpengine", "webhook"];

/// A node of each driver that needs no other program.
struct World {
    agent: Agent,
    operator: Operator,
    rtpengine: Rtpengine,
    settings: Arc<GatewayConfig>,
    folder: TempDir,
}

impl World {
    fn new() -> World {
        World::of(Rtpengine::start(start_echo()), "off")
    }

    /// Legs to rtpengine have SRTP.
    fn with_srtp() -> World {
        World::of(Rtpengine::start_with_srtp(), "sdes")
    }

    fn of(rtpengine: Rtpengine, srtp: &str) -> World {
        let [plain, behind_webhook] = [(); 2].map(|()| start_echo());
        let (agent, operator) = (Agent::start("agent"), Operator::start(behind_webhook));
        let folder = tempdir().unwrap();
        let node = |name: &str, address: SocketAddr, rest: &str| {
            let key = if name == "rtpengine" { "ng" } else { "address" };
            format!(
                "[[node]]\nname = \"{name}\"\n{key} = \"{address}\"\nregion = \"east\"\nzone = \"{name}\"\n\
                 capacity = \"1 Gbit/s\"\n{rest}\n"
            )
        };
        let webhook =
            format!("driver = \"webhook\"\nprobe = \"none\"\nwebhook = \"{}\"", operator.url);
        let config = [
            "[[listen]]\nudp = \"127.0.0.1:0\"\nidentity = [\"declared\", \"declared-ip\", \"stun\"]\n".into(),
            node("agent", agent.address, "driver = \"agent\"\nsecret_file = \"secret\"\ncanary = false"),
            node("plain", plain, "driver = \"plain\"\nprobe = \"none\""),
            node("rtpengine", rtpengine.ng, &format!("driver = \"rtpengine\"\nsrtp = \"{srtp}\"")),
            node("webhook", behind_webhook, &webhook),
            "[gateway]\nregion = \"east\"\npolicies = \"policies\"\n[limits]\nworkers = 2\n".into(),
        ];
        std::fs::create_dir_all(folder.path().join("policies")).unwrap();
        let call = "[scenario.call]\nawait_first_packet = false\nspares = 1\n";
        for (set, text) in [
            ("call", call),
            ("live", "[scenario.live]\n"),
            ("conference", "[scenario.conference]\n"),
        ] {
            std::fs::write(folder.path().join(format!("policies/{set}.toml")), text).unwrap();
        }
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let path = folder.path().join("evenkeel.toml");
        std::fs::write(&path, config.concat()).unwrap();
        let settings = Arc::new(GatewayConfig::load(Some(&path), None, &kinds(DRIVERS)).unwrap());
        World { agent, operator, rtpengine, settings, folder }
    }

    /// Binds a policy that keeps a state of each session.
    fn bind_degradation(&mut self) {
        let set = self.folder.path().join("policies/call.toml");
        let text = std::fs::read_to_string(&set).unwrap();
        std::fs::write(&set, text + "[degradation]\nplugin = \"degrade-ladder\"\n").unwrap();
        let file = self.folder.path().join("evenkeel.toml");
        self.settings = Arc::new(GatewayConfig::load(Some(&file), None, &kinds(DRIVERS)).unwrap());
    }

    /// Starts a gateway, and a second one that reads nothing.
    async fn gateways(&self) -> (RunningGateway, RunningGateway) {
        let sockets = Sockets::open(&self.settings).unwrap();
        let duplicates = self.duplicates(&sockets);
        let start = |sockets| {
            let running =
                begin_with(&self.settings, DRIVERS, sockets, Reads::Now, PolicyRecords::default())
                    .unwrap();
            running.first_policies.wait().unwrap();
            running
        };
        let second = start(duplicates);
        second.handle.suspend().await.unwrap().guard.stay();
        stop_packets(&second).await;
        (start(sockets), second)
    }

    fn duplicates(&self, sockets: &Sockets) -> Sockets {
        let copy = |socket: &UdpSocket| socket.try_clone().unwrap();
        let listener = |parts: &ListenerParts| ListenerParts {
            rtp: copy(&parts.rtp),
            rtcp: parts.rtcp.as_ref().map(copy),
            open: parts.open,
        };
        let nodes = self.settings.nodes.iter().zip(&sockets.equipment);
        let equipment = nodes.map(|(node, equipment)| {
            let trunks = equipment.trunks.iter();
            let trunks = trunks.map(|trunk| TrunkSocket {
                socket: copy(&trunk.socket),
                seal: None,
                first_number: 0,
            });
            evenkeel_control::Equipment {
                trunks: trunks.collect(),
                ..evenkeel_control::equip(&self.settings, node, 0, &mut Inherited::default())
                    .unwrap()
            }
        });
        Sockets {
            duplicates: Vec::new(),
            equipment: equipment.collect(),
            udp: sockets.udp.clone(),
            listeners: sockets
                .listeners
                .iter()
                .map(|all| all.iter().map(listener).collect())
                .collect(),
            quic: None,
        }
    }
}

/// Returns the last states of all sessions with media.
async fn stop_packets(gateway: &RunningGateway) -> Vec<LastStatesPart> {
    let mut states = gateway.handle.suspend_packets().await.unwrap();
    let mut parts = Vec::new();
    while parts.last().is_none_or(|part: &LastStatesPart| !part.is_last) {
        parts.push(states.next().await.unwrap());
    }
    parts
}

/// A client that sends RTP and expects it back.
struct Client {
    socket: UdpSocket,
    answer: Option<SessionAnswer>,
    sent: u16,
    /// Sequence numbers as received.
    heard: Vec<u16>,
}

impl Client {
    fn new() -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Client { socket, answer: None, sent: 0, heard: Vec::new() }
    }

    fn declared(&self) -> ClientIdentity {
        ClientIdentity::Declared { address: self.socket.local_addr().unwrap(), rtcp: None }
    }

    fn wanted(room: &str, identity: ClientIdentity) -> OfferedSession {
        let payload = PayloadType::new(111, "opus", 48_000);
        let stream = MediaStream {
            kind: StreamKind::Audio,
            payload_types: vec![payload],
            feedback: FeedbackSupport::default(),
            bitrate_kbps: None,
        };
        OfferedSession {
            scenario: "call".into(),
            room: room.into(),
            labels: Arc::new([("device".into(), "phone".into())]),
            ingress: IngressProtocol::Udp(identity),
            media: Arc::new(MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain)),
            srtp: None,
            nodes: Vec::new(),
            caller: None,
        }
    }

    /// Opens a session in a room of its own at the node with this name.
    async fn open_at(gateway: &RunningGateway, node: &str, room: &str) -> Client {
        let mut client = Client::new();
        let wanted = Client::wanted(room, client.declared());
        let opened = gateway.handle.offer(wanted).await.unwrap();
        // The room may be there already.
        let _ = gateway.handle.move_room(room.into(), node.into()).await;
        wait_until(async || {
            let session = gateway.handle.session(opened.session).await.unwrap().unwrap();
            let names = gateway.handle.names();
            session.state.hop.is_some_and(|hop| &*names.of_hop(hop).node == node)
        })
        .await;
        client.answer = Some(opened);
        client
    }

    fn session(&self) -> SessionId {
        self.answer.as_ref().unwrap().session
    }

    /// Sends a packet.
    fn send(&mut self) {
        let IngressAnswer::Udp { addresses, .. } = &self.answer.as_ref().unwrap().ingress else {
            panic!("a UDP session")
        };
        let address = addresses[0];
        self.sent += 1;
        let mut packet = vec![0x80, 111];
        packet.extend(self.sent.to_be_bytes());
        packet.extend((u32::from(self.sent) * 960).to_be_bytes());
        packet.extend(7_u32.to_be_bytes());
        packet.extend([0; 40]);
        self.socket.send_to(&packet, address).unwrap();
    }

    /// Receives all packets that were sent so far and not received.
    fn hear(&mut self) {
        let mut packet = [0; 1_500];
        while self.heard.len() < usize::from(self.sent) {
            let length = self.socket.recv(&mut packet).expect("the packet comes back");
            if packet[1] & 0x7f == 111 && length > 12 {
                self.heard.push(u16::from_be_bytes([packet[2], packet[3]]));
            }
        }
    }

    fn talk(&mut self, packets: usize) {
        for _ in 0..packets {
            self.send();
            self.hear();
        }
    }

    /// No number is missing and none came twice.
    fn assert_continuous(&self) {
        let steps = self.heard.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
        assert!(steps.clone().all(|step| step == 1), "{:?}", self.heard);
    }
}

async fn wait_until(condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < TIMEOUT, "the condition holds in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn end(gateway: RunningGateway) {
    gateway.handle.shut_down(Duration::ZERO).await.unwrap();
    gateway.join().unwrap();
}

/// The sessions and rooms as the API shows them, without measurements and ages.
async fn views(gateway: &RunningGateway) -> Vec<String> {
    let names = gateway.handle.names();
    let node = |hop| names.of_hop(hop).node;
    let mut views = Vec::new();
    for session in gateway.handle.sessions().await.unwrap() {
        let it = session.state;
        let why = gateway.handle.explain(it.session).await.unwrap().unwrap();
        let of_session = (it.session, it.room, it.scenario, it.transport, it.mode, it.plan);
        let route: Vec<_> =
            why.room.route.iter().map(|(hop, grant)| (node(*hop), *grant)).collect();
        let decided = (why.admitted_by, why.room.placed_by, why.share_permille, route);
        views.push(format!("{of_session:?} {:?} {decided:?}", it.hop.map(node)));
    }
    for room in gateway.handle.rooms().await.unwrap() {
        let route: Vec<_> = room.route.into_iter().map(node).collect();
        views.push(format!("{} {} {:?} {route:?}", room.room, room.name, room.sessions));
    }
    views
}

/// Packets of all clients so far, as the API shows them.
async fn packets(gateway: &RunningGateway) -> Vec<u64> {
    let sessions = gateway.handle.sessions().await.unwrap();
    sessions.iter().map(|session| session.totals.packets_up).collect()
}

fn snapshot_of(batches: impl IntoIterator<Item = RecordBatch>) -> Snapshot {
    let mut replica = Replica::new();
    batches.into_iter().for_each(|batch| replica.apply(batch).unwrap());
    replica.snapshot().unwrap()
}

/// An answered key of the API.
fn key() -> KeyRecord {
    let answer = json!({"key": "k", "body_sha256": vec![7; 32], "status": 201, "answer": "{}"});
    serde_json::from_value(answer).unwrap()
}

/// Opens a session at each node, one that learns its client's port and a silent one, and talks.
async fn talking(gateway: &RunningGateway) -> Vec<Client> {
    let mut clients = Vec::new();
    for node in NODES {
        clients.push(Client::open_at(gateway, node, node).await);
    }
    let mut learned = Client::new();
    let ip = ClientIdentity::DeclaredIp([127, 0, 0, 1].into());
    let opened = gateway.handle.offer(Client::wanted("learned", ip)).await.unwrap();
    learned.answer = Some(opened);
    clients.push(learned);
    gateway.handle.offer(Client::wanted("silent", ClientIdentity::Stun)).await.unwrap();
    gateway.handle.idempotency_keys.restore(vec![key()]);
    clients.iter_mut().for_each(|client| client.talk(20));
    wait_until(async || packets(gateway).await == [20, 20, 20, 20, 20, 0]).await;
    clients
}

#[tokio::test]
async fn second_gateway_continues_all_sessions() {
    continue_all_sessions(&World::new()).await;
}

#[tokio::test]
async fn second_gateway_continues_legs_with_srtp() {
    continue_all_sessions(&World::with_srtp()).await;
}

async fn continue_all_sessions(world: &World) {
    let (mut first, second) = world.gateways().await;
    let mut events = first.events();
    let mut clients = talking(&first).await;
    let before = views(&first).await;
    let (verbs, requests) = (world.operator.verbs(), world.rtpengine.requests());
    let calls = world.rtpengine.srtp_calls();
    let [opens, closes, keeps] = ["open", "close", "keep"].map(|kind| world.agent.count(kind));

    let Suspended { batch, descriptors, guard, .. } = first.handle.suspend().await.unwrap();
    let snapshot = snapshot_of([RecordBatch::decode(&batch.encode(), None).unwrap()]);
    // Packets go on until all sessions are restored.
    clients.iter_mut().for_each(|client| client.talk(1));
    let restored = second.handle.restore(snapshot, descriptors).await.unwrap();
    assert_eq!(restored.sessions, SESSIONS);
    let parts = stop_packets(&first).await;
    clients.iter_mut().for_each(Client::send);
    for LastStatesPart { states, is_last } in parts {
        let states = MediaStates::decode(&states.encode(Some(STATES))).unwrap();
        second.handle.continue_media(states, is_last).await.unwrap();
    }
    second.handle.idempotency_keys.follow();
    assert_eq!(second.handle.idempotency_keys.take_changed(2), [key()]);
    assert_eq!(world.agent.count("keep"), keeps, "nothing is sent before the second one resumes");
    guard.stay();
    first.handle.release().await.unwrap();
    first.join().unwrap();
    let earlier = world.agent.came().len();
    second.handle.resume(Continuation::Upgrade).await.unwrap();

    assert_eq!(views(&second).await, before);
    for client in &mut clients {
        client.hear();
        client.talk(20);
        client.assert_continuous();
    }
    // The source of the last signed message is where an agent sends to.
    let mut came = world.agent.came().into_iter().skip(earlier);
    assert_eq!(came.find(|kind| ["keep", "media"].contains(kind)), Some("keep"));
    wait_until(async || packets(&second).await == [42, 42, 42, 42, 42, 0]).await;
    wait_until(async || world.agent.count("keep") > keeps).await;
    assert_eq!(world.agent.count("open"), opens, "no session is opened again");
    assert_eq!(world.agent.count("close"), closes, "and none is closed");
    assert_eq!(world.operator.verbs(), verbs, "the webhook is told nothing");
    assert_eq!(world.rtpengine.requests(), requests, "the call is not signalled again");
    assert_eq!(world.rtpengine.srtp_calls(), calls, "keys go on");
    while let Ok(record) = events.try_recv() {
        let closed = matches!(record.event, GatewayEvent::Core(CoreEvent::Closed { .. }));
        assert!(!closed, "the sessions go on");
    }

    let mut later = Client::open_at(&second, "agent", "later").await;
    assert!(clients.iter().all(|client| client.session() < later.session()));
    later.talk(3);
    for client in &clients {
        second.handle.close(client.session()).await.unwrap();
    }
    wait_until(async || world.agent.count("close") > closes).await;
    let told = |verbs: &[String]| verbs.iter().filter(|verb| *verb == "close").count();
    wait_until(async || told(&world.operator.verbs()) > told(&verbs)).await;
    wait_until(async || world.rtpengine.requests() > requests).await;
    end(second).await;
}

#[tokio::test]
async fn suspended_gateway_resumes_unchanged() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut clients = talking(&first).await;
    let before = views(&first).await;
    let Suspended { batch, descriptors, guard, .. } = first.handle.suspend().await.unwrap();
    assert_eq!(first.handle.suspend().await.unwrap_err(), NotSuspended::UnderWay);
    let mut refused = None;
    for LastStatesPart { states, is_last } in stop_packets(&first).await {
        refused = second.handle.continue_media(states, is_last).await.err();
        assert_eq!(refused.is_some(), is_last, "the last answer is that of all parts");
    }
    let reason = "no sessions came before their states".to_owned();
    assert_eq!(refused, Some(SnapshotError::Malformed(reason)));
    let encoded = batch.encode();
    for length in [0, 3, 11, 19, 20, encoded.len() / 2, encoded.len() - 1] {
        let refused = RecordBatch::decode(&encoded[..length], None).unwrap_err();
        assert!(refused.to_string().starts_with("the state cannot be read: "), "{refused}");
    }
    let newer = [&encoded[..8], &[0, 0, 0, 3], &encoded[12..]].concat();
    let refused = RecordBatch::decode(&newer, None).unwrap_err();
    assert_eq!(refused, SnapshotError::Newer { found: 3, known: 2 });
    let snapshot = snapshot_of([RecordBatch::decode(&encoded, None).unwrap()]);
    let (some, count) = (vec![descriptors[0].try_clone().unwrap()], descriptors.len());
    let refused = second.handle.restore(snapshot, some).await.unwrap_err();
    let reason = format!("it names {count} sockets, and 1 came with it");
    assert_eq!(refused, SnapshotError::Malformed(reason));
    let stray = snapshot_of([RecordBatch::decode(&encoded, None).unwrap()]);
    let unknown = SessionId(u64::MAX);
    let stray = stray.with_stray_session(unknown);
    let refused = second.handle.restore(stray, descriptors).await.unwrap_err();
    let reason = format!("{unknown} is in one part and not in another");
    assert_eq!(refused, SnapshotError::Malformed(reason));

    clients.iter_mut().for_each(Client::send);
    let mut late = Client::new();
    let offered = first.handle.clone();
    let wanted = Client::wanted("late", late.declared());
    let offered = tokio::spawn(async move { offered.offer(wanted).await });
    first.handle.resume(Continuation::Upgrade).await.unwrap();
    drop(guard);
    let now = views(&first).await;
    assert!(before.iter().all(|view| now.contains(view)), "{now:#?}");
    for client in &mut clients {
        client.hear();
        client.talk(20);
        client.assert_continuous();
    }
    late.answer = Some(offered.await.unwrap().unwrap());
    late.talk(3);
    end(first).await;
    second.handle.release().await.unwrap();
    second.join().unwrap();
}

#[tokio::test]
async fn suspension_ends_with_its_party() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let mut clients = talking(&first).await;
    for _ in 0..2 {
        let suspended = first.handle.suspend().await.unwrap();
        stop_packets(&first).await;
        clients.iter_mut().for_each(Client::send);
        drop(suspended);
        clients.iter_mut().for_each(Client::hear);
    }
    clients.iter().for_each(Client::assert_continuous);
    end(first).await;
    second.handle.release().await.unwrap();
    second.join().unwrap();
}

#[tokio::test]
async fn release_answers_requests_that_wait() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    let refused = first.handle.release().await;
    assert_eq!(refused, Err(ControlError::Unavailable), "it is not suspended");
    let handle = first.handle.clone();
    let ordering =
        tokio::spawn(async move { handle.order("agent".into(), NodeOrder::Start).await });
    wait_until(async || world.agent.count("start") > 0).await;
    first.handle.suspend().await.unwrap().guard.stay();
    let handle = first.handle.clone();
    let held = tokio::spawn(async move { handle.status().await.map(drop) });
    tokio::task::yield_now().await;
    // Control has received it.
    wait_until(async || first.handle.requests.capacity() == first.handle.requests.max_capacity())
        .await;
    first.handle.release().await.unwrap();
    let silent = ControlError::Agent { node: "agent".into(), why: AgentError::Silent };
    assert_eq!(ordering.await.unwrap(), Err(silent), "the agent may have executed it");
    assert_eq!(held.await.unwrap(), Err(ControlError::Replaced));
    first.join().unwrap();
    let handle = second.handle.clone();
    second.handle.release().await.unwrap();
    second.join().unwrap();
    assert_eq!(handle.status().await.map(drop), Err(ControlError::Replaced), "after its end");
}

/// Writes the fixture of the format that this version writes. Those of released versions stay as they are.
#[tokio::test]
#[ignore = "writes a fixture"]
async fn write_fixture() {
    let world = World::new();
    let (first, second) = world.gateways().await;
    drop(talking(&first).await);
    let Suspended { batch, guard: _guard, .. } = first.handle.suspend().await.unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../control/tests/fixtures/snapshots/v2");
    std::fs::write(path, batch.encode()).unwrap();
    for gateway in [first, second] {
        gateway.handle.release().await.unwrap();
        gateway.join().unwrap();
    }
}
