//! The shared index, in a NATS server that fails.

use std::net::TcpListener;
use std::time::Duration;

use evenkeel_client::{ApiClient, ApiEndpoint, ClientError};
use evenkeel_contract::offers::{OfferIngress, OfferRequest};
use evenkeel_lab::network::Host;
use evenkeel_model::PolicyQuestion;
use evenkeel_recording::{RecordingEntry, RecordingReader};
use evenkeel_testkit::http::HttpSink;
use evenkeel_testkit::nats::NatsServer;
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::harness::{
    GatewayProcess, Hosts, Node, Phone, SECRET, SHARED, World, assert_complete, await_replica, ids,
    offer_with_key, talk, talk_for, wait_until,
};

const BUCKET: &str = "evenkeel";
const SESSIONS: &str = "edge.session.*";
/// Packets of the client between events.
const PACKETS: u64 = 25;

/// The world of a gateway named so, with one node, that lists its sessions in the store.
fn world(gateway: &str, node: &Node, store: &NatsServer) -> World {
    let mut world = World::of(&[node]);
    world.gateway = "drain_timeout = \"0s\"\n".into();
    world.nodes += &format!("[index]\nname = \"{gateway}\"\nservers = [\"{}\"]\n", store.url());
    // Free until the gateway binds it.
    let api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.admin = format!("tcp = \"{api}\"\ntoken_file = \"secret\"\n");
    world
}

/// A gateway with a client that talks while the index changes.
struct Call {
    store: NatsServer,
    gateway: GatewayProcess,
    ann: Phone,
    _node: Node,
    _folder: TempDir,
}

impl Call {
    fn lay() -> Call {
        let folder = tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut store = NatsServer::new(address, folder.path()).unwrap();
        store.start();
        let node = Node::agent("east-a1");
        let mut call = Call {
            gateway: GatewayProcess::start(&world("edge", &node, &store)),
            ann: Phone::new(1),
            store,
            _node: node,
            _folder: folder,
        };
        call.gateway.open("room", &mut call.ann);
        call
    }

    /// Opens a session without packets.
    fn open(&mut self, room: &str) -> String {
        open(&mut self.gateway, room).unwrap()
    }

    fn close(&mut self, session: &str) {
        self.gateway.ask(async |client| client.close(session).await).unwrap();
    }

    /// The id of the one session.
    fn id(&mut self) -> String {
        let sessions = self.gateway.ask(async |client| client.list("sessions").await).unwrap();
        sessions[0]["id"].as_str().unwrap().to_owned()
    }

    fn served(&mut self) -> Vec<String> {
        let sessions = self.gateway.ask(async |client| client.list("sessions").await).unwrap();
        let id = |session: &Value| session["id"].as_str().unwrap().to_owned();
        let mut served: Vec<_> =
            sessions.iter().map(|session| format!("edge.session.{}", id(session))).collect();
        served.sort();
        served
    }

    /// Talks until the index lists the sessions that the gateway serves.
    fn expect_correct(&mut self, what: &str) {
        let served = self.served();
        let store = &self.store;
        talk(&mut [&mut self.ann], what, |_| store.keys(BUCKET, SESSIONS) == served);
    }

    /// Closes a session, opens another one, and talks.
    fn go_on(&mut self, number: u32, open: &mut String) {
        let before = std::mem::replace(open, self.open(&format!("room-{number}")));
        self.close(&before);
        talk_for(&mut [&mut self.ann], PACKETS);
    }

    fn await_state(&mut self, state: &str) {
        let Call { gateway, ann, .. } = self;
        talk(&mut [ann], state, |_| gateway.read("/v1/status")["index"]["state"] == state);
    }
}

fn offer(room: &str) -> OfferRequest {
    // Another address for each: 127.0.0.1 has one session of a declared address.
    let phone = Phone::new(2);
    let ingress = OfferIngress::declared(phone.address());
    GatewayProcess::offer(room, ingress)
}

fn open(gateway: &mut GatewayProcess, room: &str) -> Result<String, ClientError> {
    let offer = offer(room);
    Ok(gateway.ask(async |client| client.open(&offer).await)?.id)
}

pub(crate) fn at<T>(host: &Host, work: impl FnOnce() -> T) -> T {
    let _inside = host.enter().unwrap();
    work()
}

/// Waits until the index names the gateway of a session that was offered with this key.
fn expect_found(asked: &mut GatewayProcess, session: &str, gateway: &str, key: &str) {
    let path = format!("/v1/index/sessions/{session}");
    wait_until("the index names the gateway", || {
        let found = asked.ask(async |client| client.read(&path).await);
        found.is_ok_and(|found| {
            let found = &found["sessions"][0];
            found["gateway"] == gateway && found["idempotency_key"] == key
        })
    });
}

#[required(Nats)]
#[test]
fn index_recovers_from_faults_of_its_store() {
    let mut call = Call::lay();
    let mut open = call.open("room-0");
    call.expect_correct("sessions are listed");
    call.go_on(1, &mut open);
    call.expect_correct("closed sessions vanish");
    call.await_state("current");
    let members = || call.store.keys(BUCKET, "*.member.*");
    wait_until("the member is listed", || members() == ["edge.member.edge"]);

    call.store.kill();
    call.await_state("unreachable");
    call.go_on(2, &mut open);
    call.store.start();
    call.expect_correct("the store was down");

    call.store.purge(BUCKET);
    call.go_on(3, &mut open);
    call.expect_correct("the store was emptied");

    call.store.put(BUCKET, "edge.session.s4000", "{}");
    call.go_on(4, &mut open);
    call.expect_correct("another program wrote");

    call.store.kill();
    call.store.save("older");
    call.store.start();
    call.go_on(5, &mut open);
    call.expect_correct("the store was restarted");
    call.store.kill();
    call.store.restore("older");
    call.store.start();
    call.expect_correct("the store was rolled back");

    call.store.pause(true);
    call.await_state("unreachable");
    call.go_on(6, &mut open);
    let asked = call.gateway.ask(async |client| client.read("/v1/index/sessions/s1").await);
    let refused = asked.unwrap_err().to_string();
    assert!(refused.contains("the store of the index is not reachable"), "{refused}");
    call.store.pause(false);
    call.expect_correct("the store was stopped");

    call.ann.hear_rest();
    assert_complete(&call.ann.heard, 0, call.ann.voice.sent);
}

#[required(Nats)]
#[test]
fn index_names_the_gateway_of_a_session() {
    let mut call = Call::lay();
    call.expect_correct("the session is listed");
    let id = call.id();
    let found = call.gateway.read(&format!("/v1/index/sessions/{id}"));
    let session = &found["sessions"][0];
    let fields = ["group", "gateway", "id", "room", "scenario"].map(|key| &session[key]);
    assert_eq!(fields, ["edge", "edge", &id, "room", "call"]);
    wait_until("the gateway is listed", || {
        call.gateway.read("/v1/index/gateways")["gateways"][0]["role"] == "owner"
    });
    let none = call.gateway.ask(async |client| client.read("/v1/index/sessions/s9").await);
    assert!(none.unwrap_err().to_string().contains("lists no session `s9`"));
    // An orderly end removes the entries.
    call.gateway.process.signal(Signal::SIGTERM).unwrap();
    wait_until("the entries are removed", || {
        call.store.keys(BUCKET, SESSIONS).is_empty()
            && call.store.keys(BUCKET, "*.member.*").is_empty()
    });
}

#[required(Namespaces, Nats)]
#[test]
fn takeover_without_the_store_is_listed_later() {
    let place = Hosts::lay();
    let (folder, key) = (tempdir().unwrap(), "key-1");
    let address = (place.client.address(), 4_222).into();
    let mut store = NatsServer::new(address, folder.path()).unwrap();
    at(&place.client, || store.start());
    let (node, mut ann) = (place.node(), place.phone());
    let nodes = format!("{}[index]\nservers = [\"{}\"]\n", node.text(), store.url());
    let [mut owner, mut standby] = place.group_before(&nodes, "");
    let opened = offer_with_key(&mut owner, key, &ann);
    let session = opened["id"].as_str().unwrap();
    ann.set_target((SHARED, 7_000).into());
    talk_for(&mut [&mut ann], PACKETS);
    expect_found(&mut standby, session, "edge-1", key);
    await_replica(&mut owner);

    at(&place.client, || store.kill());
    owner.process.signal(Signal::SIGKILL).unwrap();
    let heard = ann.heard.len();
    talk(&mut [&mut ann], "packets arrive again", |phones| {
        phones[0].heard.len() >= heard + PACKETS as usize
    });
    at(&place.client, || store.start());
    expect_found(&mut standby, session, "edge-2", key);
    at(&place.client, || assert_eq!(store.keys(BUCKET, "*.session.*").len(), 1));
}

#[required(Nats)]
#[test]
fn room_that_two_groups_are_offered_is_one_room() {
    let mut call = Call::lay();
    call.await_state("current");
    let node = Node::agent("east-a2");
    let mut west = GatewayProcess::start(&world("west", &node, &call.store));
    let await_state = |west: &mut GatewayProcess, state: &str| {
        wait_until(state, || west.read("/v1/status")["index"]["state"] == state);
    };
    await_state(&mut west, "current");
    wait_until("the room is claimed", || {
        call.store.keys(BUCKET, "room.claim.*") == ["room.claim.room"]
    });

    let offer = offer("room");
    let mut refused = Value::Null;
    // An offer waits 20 ms for the store. On a busy machine its answer may be later.
    wait_until("the other group refuses the room", || {
        let answer = west.ask(async |client| client.ask_to_open(&offer).await).unwrap();
        refused = serde_json::from_slice(&answer.body).unwrap();
        if answer.status == 201 {
            let id = refused["id"].as_str().unwrap();
            west.ask(async |client| client.close(id).await).unwrap();
        }
        answer.status == 409
    });
    let expected = "`room` is a room of group `edge`: offer it to gateway `edge`";
    assert_eq!(refused["error"]["message"], expected);
    let api = refused["error"]["api"].as_str().unwrap_or_else(|| panic!("{refused}"));
    let edge = ApiClient::new(ApiEndpoint::Tcp(api.parse().unwrap()));
    let mut edge = edge.with_token(str::from_utf8(SECRET).unwrap());
    let followed = west.ask(async |_| edge.open(&offer).await).unwrap().id;
    assert!(ids(&mut call.gateway).contains(&followed));
    call.close(&followed);
    open(&mut west, "other").unwrap();

    call.store.kill();
    await_state(&mut west, "unreachable");
    let duplicate = open(&mut west, "room").expect("no offer waits for the store");
    let mut events = west.ask(async |client| client.events().await).unwrap();
    call.store.start();
    let reported = west.ask(async |_| {
        loop {
            let event = events.next().await.unwrap().unwrap();
            if event.name == "room-duplicate" {
                return event.data;
            }
        }
    });
    let fields = ["room", "group", "gateway"].map(|field| &reported[field]);
    assert_eq!(fields, ["room", "edge", "edge"]);

    west.ask(async |client| client.close(&duplicate).await).unwrap();
    let id = call.id();
    call.close(&id);
    wait_until("the room is free", || open(&mut west, "room").is_ok());
}

/// The sessions that a gateway's admission policy was asked about, by its recording.
fn recorded(gateway: &mut GatewayProcess) -> Vec<String> {
    let bytes = gateway.ask(async |client| {
        let (mut download, mut bytes) =
            (client.download("/v1/recording?last=true").await?, Vec::new());
        while let Some(piece) = download.next().await? {
            bytes.extend(piece);
        }
        Ok::<_, ClientError>(bytes)
    });
    let bytes = bytes.unwrap();
    let entries = RecordingReader::open(&bytes[..]).unwrap();
    let admitted = entries.filter_map(|entry| match entry {
        RecordingEntry::Call(call) => match *call.question {
            PolicyQuestion::Admit { session, .. } => Some(session.to_string()),
            _ => None,
        },
        _ => None,
    });
    admitted.collect()
}

/// Opens a session about which the policy was asked. On a loaded machine a question expires before the thread of the policy takes it.
fn open_asked(gateway: &mut GatewayProcess) -> String {
    for _ in 0..20 {
        let id = open(gateway, "room").unwrap();
        for _ in 0..100 {
            if recorded(gateway).contains(&id) {
                return id;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway.ask(async |client| client.close(&id).await).unwrap();
    }
    panic!("no question is recorded");
}

/// Two groups without an index: each has its own numbers.
#[test]
fn id_of_a_session_is_of_one_gateway_everywhere() {
    let node = Node::agent("east-a1");
    let receivers = [0, 1].map(|_| HttpSink::start(([127, 0, 0, 1], 0).into()));
    let mut gateways = receivers.each_ref().map(|receiver| {
        let mut world = World::of(&[&node]);
        world.hooks = "[admission]\nplugin = \"admit-capacity\"\n".into();
        let otlp = receiver.address();
        world.nodes += &format!("[telemetry]\notlp = \"http://{otlp}\"\nprotocol = \"http\"\n");
        GatewayProcess::start(&world)
    });
    let mut events =
        gateways.each_mut().map(|it| it.ask(async |client| client.events().await.unwrap()));
    let opened = gateways.each_mut().map(open_asked);
    for ((gateway, events), id) in gateways.iter_mut().zip(&mut events).zip(&opened) {
        gateway.ask(async |_| {
            loop {
                let event = events.next().await.unwrap().unwrap();
                if event.name == "opened" && event.data["session"] == **id {
                    return;
                }
            }
        });
    }
    for (gateway, other) in gateways.iter_mut().zip([1, 0]) {
        assert!(!recorded(gateway).contains(&opened[other]));
        let refused = gateway.ask(async |client| client.close(&opened[other]).await).unwrap_err();
        assert!(refused.to_string().starts_with("404 "), "{refused}");
    }
    for (gateway, id) in gateways.iter_mut().zip(&opened) {
        assert_eq!(ids(gateway), std::slice::from_ref(id));
        gateway.ask(async |client| client.close(id).await).unwrap();
    }
    let names = |receiver: &HttpSink, id: &str| {
        let mut bodies = receiver.bodies().into_iter();
        bodies.any(|body| body.bytes.windows(id.len()).any(|text| text == id.as_bytes()))
    };
    for ((own, other), id) in [(0, 1), (1, 0)].into_iter().zip(&opened) {
        wait_until("the trace is exported", || names(&receivers[own], id));
        assert!(!names(&receivers[other], id));
    }
}
