//! Offers and first packets that take every descriptor for session ports: the operator's API still answers.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint, ClientError};
use evenkeel_contract::offers::{
    OfferAnswer, OfferIngress, OfferMedia, OfferPayloadType, OfferRequest, OfferStreamKind,
};
use evenkeel_lab::process::ChildProcess;
use evenkeel_lab::sample_node::PlainRoom;
use evenkeel_testkit::binary::evenkeel;
use hyper::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::harness::{Node, Phone, TIMEOUT, assert_continuous, talk, talk_for, wait_until};

/// The hard limit of the gateway's descriptors. Half of it is the reserve.
const LIMIT: u64 = 320;

/// The soft limit, fewer descriptors than the sessions of the attack take.
const SOFT_LIMIT: u64 = 64;

/// The reserve suffices for as many connections of operators.
const OPERATORS: usize = 64;

/// A gateway with few descriptors, as a process.
struct Gateway {
    folder: TempDir,
    process: ChildProcess,
    socket: PathBuf,
    udp: SocketAddr,
    runtime: Runtime,
    admin: ApiClient,
}

/// The command line under the limits.
fn limited(words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let limits = format!("ulimit -S -n {SOFT_LIMIT} && ulimit -H -n {LIMIT} && exec \"$0\" \"$@\"");
    command.arg("-c").arg(limits).arg(evenkeel()).args(words);
    command
}

impl Gateway {
    /// The lines of `listen` belong to the only `[[listen]]` table.
    fn start(node: &Node, listen: &str) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        let policies = folder.path().join("policies");
        fs::create_dir(&policies).unwrap();
        for scenario in ["call", "conference", "live"] {
            let set = policies.join(format!("{scenario}.toml"));
            fs::write(set, format!("[scenario.{scenario}]\n")).unwrap();
        }
        let text = format!(
            "[gateway]\npolicies = \"policies\"\ncache = \"none\"\n[admin]\nsocket = \"admin.sock\"\n\
             [limits]\nworkers = 1\n[[listen]]\nudp = \"127.0.0.1:0\"\nrtcp = \"mux\"\n{listen}\n{}",
            node.text()
        );
        let config = folder.path().join("evenkeel.toml");
        fs::write(&config, text).unwrap();
        let words = ["run", "--json", "--config", config.to_str().unwrap()];
        let mut process =
            ChildProcess::start("gateway", &mut limited(&words), folder.path()).unwrap();
        let line = process.json_line(TIMEOUT).unwrap();
        let socket = PathBuf::from(line["socket"].as_str().unwrap());
        let udp = line["udp"][0].as_str().unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = ApiClient::new(ApiEndpoint::Unix(socket.clone()));
        let mut gateway = Gateway { folder, process, socket, udp, runtime, admin };
        wait_until("the gateway is ready", || {
            gateway.runtime.block_on(gateway.admin.is_ready()).unwrap()
        });
        gateway
    }

    /// The number of sessions that `evenkeel check` names.
    fn sessions_that_fit(&self) -> usize {
        let config = self.folder.path().join("evenkeel.toml");
        let words = ["check", "--json", "--config", config.to_str().unwrap()];
        let output = limited(&words).output().unwrap();
        let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
        let notes = checked["notes"].as_array().unwrap().iter().filter_map(Value::as_str);
        let mut fitting = notes.filter_map(|note| note.split_once(" sessions fit: "));
        let (sessions, facts) = fitting.next().unwrap();
        assert!(facts.contains("`[limits] sessions` is 100000: lower it"), "{facts}");
        sessions.parse().unwrap()
    }

    fn open(&mut self, room: &str, address: SocketAddr) -> Result<OfferAnswer, ClientError> {
        let offer = OfferRequest {
            scenario: "call".into(),
            room: room.into(),
            ingress: Some(OfferIngress::declared(address)),
            media: Some(vec![OfferMedia {
                kind: OfferStreamKind::Audio,
                payload_types: vec![OfferPayloadType::new(111, "opus", 48_000)],
                feedback: Vec::new(),
                bitrate: None,
            }]),
            ..OfferRequest::default()
        };
        self.runtime.block_on(self.admin.open(&offer))
    }

    /// Opens one more session of the attack.
    fn attack(&mut self, number: u16) -> Result<OfferAnswer, ClientError> {
        self.open(&format!("attack-{number}"), ([127, 0, 0, 2], 10_000 + number).into())
    }

    /// The answers to operators, each on a connection of its own that stays open.
    fn ask_as_operators(&self) -> Vec<Value> {
        let mut operators: Vec<ApiClient> = (0..OPERATORS)
            .map(|_| ApiClient::new(ApiEndpoint::Unix(self.socket.clone())))
            .collect();
        let asked = operators.iter_mut().map(|operator| {
            let asked = async { tokio::time::timeout(TIMEOUT, operator.read("/v1/status")).await };
            self.runtime.block_on(asked).expect("the API answers in time").unwrap()
        });
        asked.collect()
    }

    /// Offers that were refused because the gateway is full, as `/metrics` reports them.
    fn refused_as_full(&mut self) -> bool {
        let (path, body) = ("/metrics", Bytes::new());
        let call = ApiCall { method: Method::GET, path, headers: &[], body };
        let reply = self.runtime.block_on(self.admin.ask(call)).unwrap();
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let mut lines = text.lines();
        lines.any(|line| {
            line.starts_with("evenkeel_sessions_refused_total")
                && line.contains("evenkeel_reason=\"full\"")
        })
    }
}

#[test]
fn offers_leave_descriptors_to_the_api() {
    let node = Node::plain("east-a1", "none", PlainRoom::Alone);
    let mut gateway = Gateway::start(&node, "identity = [\"declared\"]");
    let mut ann = Phone::new(1);
    let opened = gateway.open("ann", ann.address()).unwrap();
    ann.set_target(opened.udp.unwrap().addresses[0]);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);

    let mut opened = Vec::new();
    for number in 0..LIMIT as u16 {
        match gateway.attack(number) {
            Ok(session) => opened.push(session.id),
            Err(refused) => {
                let is_full = matches!(&refused, ClientError::Refused { status: 503, code, .. } if code == "full");
                assert!(is_full, "{refused}");
            }
        }
    }
    let fit = gateway.sessions_that_fit();
    // The session of the control is one of those that fit.
    assert!(opened.len() + 1 >= fit, "{} sessions were opened, {fit} fit", opened.len());
    assert!(opened.len() < LIMIT as usize / 2, "{} sessions left no reserve", opened.len());
    assert!(opened.len() > SOFT_LIMIT as usize, "the soft limit was raised");

    let answers = gateway.ask_as_operators();
    assert!(answers.iter().all(|status| status["sessions"] == opened.len() + 1), "{answers:?}");
    wait_until("the refusals are counted", || gateway.refused_as_full());
    talk_for(&mut [&mut ann], 50);
    talk(&mut [&mut ann], "she hears herself", |phones| {
        phones[0].heard.len() as u64 >= phones[0].voice.sent
    });
    assert_eq!(assert_continuous(&ann.heard), 0);

    let session = opened.pop().unwrap();
    gateway.runtime.block_on(gateway.admin.close(&session)).unwrap();
    wait_until("the freed descriptor admits a session", || gateway.attack(9_999).is_ok());
    assert!(gateway.process.is_running());
}

#[test]
fn first_packets_leave_descriptors_to_the_api() {
    let node = Node::plain("east-a1", "none", PlainRoom::Alone);
    let mut gateway = Gateway::start(&node, "identity = [\"open\"]\nscenario = \"call\"");
    let mut ann = Phone::new(1);
    ann.set_target(gateway.udp);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 5);
    let mut strangers: Vec<Phone> = (2..LIMIT).map(Phone::new).collect();
    strangers.iter_mut().for_each(|stranger| stranger.set_target(gateway.udp));
    wait_until("the gateway is full", || {
        strangers.iter_mut().for_each(Phone::send_media);
        gateway.refused_as_full()
    });
    let answers = gateway.ask_as_operators();
    assert_eq!(answers.len(), OPERATORS);
    let before = ann.heard.len();
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= before + 20);
}
