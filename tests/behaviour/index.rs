//! The shared index, in a NATS server that fails.

use std::net::{SocketAddr, TcpListener};

use evenkeel_client::{Identity, Ingress};
use evenkeel_testkit::nats::NatsServer;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::harness::{
    GatewayProcess, Node, Phone, World, assert_complete, talk, talk_for, wait_until,
};

const BUCKET: &str = "evenkeel";
const SESSIONS: &str = "edge.session.*";
/// Packets of the client between events.
const PACKETS: u64 = 25;

/// A gateway whose client talks while its index changes.
struct Place {
    store: NatsServer,
    gateway: GatewayProcess,
    ann: Phone,
    _node: Node,
    _folder: TempDir,
}

impl Place {
    /// `None` without the server.
    fn lay(test: &str) -> Option<Place> {
        let folder = tempdir().unwrap();
        let mut store = match NatsServer::new(free_address(), folder.path()) {
            Ok(store) => store,
            Err(reason) => {
                eprintln!("{test} skipped: {reason}");
                return None;
            }
        };
        store.start();
        let node = Node::agent("east-a1");
        let mut world = World::of(&[&node]);
        world.gateway = "drain_timeout = \"0s\"\n".into();
        world.nodes += &format!("[index]\nname = \"edge\"\nservers = [\"{}\"]\n", store.url());
        let mut place = Place {
            gateway: GatewayProcess::start(&world),
            ann: Phone::new(1),
            store,
            _node: node,
            _folder: folder,
        };
        place.gateway.open("room", &mut place.ann);
        Some(place)
    }

    /// Opens a session without packets.
    fn open(&mut self, room: &str) -> String {
        // Another address for each: 127.0.0.1 has one session of a declared address.
        let phone = Phone::new(2);
        let identity = Identity::Declared { address: phone.address(), rtcp: None };
        let offer = GatewayProcess::offer(room, Ingress::Udp(identity));
        self.gateway.ask(async |client| client.open(&offer).await).unwrap().id
    }

    fn close(&mut self, session: &str) {
        self.gateway.ask(async |client| client.close(session).await).unwrap();
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

    fn state(&mut self) -> String {
        self.gateway.read("/v1/status")["index"]["state"].as_str().unwrap().to_owned()
    }

    /// Closes a session, opens another one, and talks.
    fn go_on(&mut self, number: u32, open: &mut String) {
        let before = std::mem::replace(open, self.open(&format!("room-{number}")));
        self.close(&before);
        talk_for(&mut [&mut self.ann], PACKETS);
    }

    fn await_state(&mut self, state: &str) {
        let Place { gateway, ann, .. } = self;
        talk(&mut [ann], state, |_| gateway.read("/v1/status")["index"]["state"] == state);
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn index_recovers_from_faults_of_its_store() {
    let Some(mut place) = Place::lay("index_recovers_from_faults_of_its_store") else { return };
    let mut open = place.open("room-0");
    place.expect_correct("sessions are listed");
    place.go_on(1, &mut open);
    place.expect_correct("closed sessions vanish");
    assert_eq!(place.state(), "current");
    let members = place.store.keys(BUCKET, "*.member.*");
    assert_eq!(members, ["edge.member.edge"]);

    place.store.kill();
    place.await_state("unreachable");
    place.go_on(2, &mut open);
    place.store.start();
    place.expect_correct("the store was down");

    place.store.purge(BUCKET);
    place.go_on(3, &mut open);
    place.expect_correct("the store was emptied");

    place.store.put(BUCKET, "edge.session.s4000", "{}");
    place.go_on(4, &mut open);
    place.expect_correct("another program wrote");

    place.store.kill();
    place.store.save("older");
    place.store.start();
    place.go_on(5, &mut open);
    place.expect_correct("the store was restarted");
    place.store.kill();
    place.store.restore("older");
    place.store.start();
    place.expect_correct("the store was rolled back");

    place.store.pause(true);
    place.await_state("unreachable");
    place.go_on(6, &mut open);
    let asked = place.gateway.ask(async |client| client.read("/v1/index/sessions/s1").await);
    let refused = asked.unwrap_err().to_string();
    assert!(refused.contains("the store of the index is not reachable"), "{refused}");
    place.store.pause(false);
    place.expect_correct("the store was stopped");

    wait_until("the last packet is heard", || {
        place.ann.listen();
        place.ann.heard.len() as u64 == place.ann.voice.sent
    });
    assert_complete(&place.ann.heard, 0, place.ann.voice.sent);
}

#[test]
fn index_names_the_gateway_of_a_session() {
    let Some(mut place) = Place::lay("index_names_the_gateway_of_a_session") else { return };
    place.expect_correct("the session is listed");
    let found = place.gateway.read("/v1/index/sessions/s1");
    let session = &found["sessions"][0];
    let fields = ["group", "gateway", "id", "room", "scenario"].map(|key| &session[key]);
    assert_eq!(fields, ["edge", "edge", "s1", "room", "call"]);
    let gateways = place.gateway.read("/v1/index/gateways");
    assert_eq!(gateways["gateways"][0]["role"], "owner");
    let none = place.gateway.ask(async |client| client.read("/v1/index/sessions/s9").await);
    assert!(none.unwrap_err().to_string().contains("lists no session `s9`"));
    // An orderly end removes the entries.
    place.gateway.process.signal(Signal::SIGTERM).unwrap();
    wait_until("the entries are removed", || {
        place.store.keys(BUCKET, SESSIONS).is_empty()
            && place.store.keys(BUCKET, "*.member.*").is_empty()
    });
}
