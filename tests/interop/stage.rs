//! A gateway and nodes as processes, and a client of the admin API.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_client::{
    ApiCall, ApiClient, ApiEndpoint, ApiResponse, ClientError, Events, ServerEvent,
};
use evenkeel_contract::offers::{
    OfferAnswer, OfferFeedback, OfferIngress, OfferMedia, OfferPayloadType, OfferRequest,
    OfferStreamKind,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::binary::evenkeel;

/// Two zones of one region, so that a node's death leaves the other zone.
pub(crate) const NODES: [&str; 2] = ["east-a1", "east-b1"];

/// Encoders, decoders and nodes of one test use both cores of a test machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The gateway and its nodes; ended on drop.
pub(crate) struct Stage {
    runtime: Runtime,
    admin: ApiClient,
    events: Events,
    gateway: ChildProcess,
    /// The address of the API over TCP.
    api: Option<SocketAddr>,
    /// The address of WHIP and WHEP.
    webrtc: Option<SocketAddr>,
    nodes: BTreeMap<&'static str, ChildProcess>,
    folder: Folder,
    _exclusive: MutexGuard<'static, ()>,
}

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) process: ChildProcess,
    /// Lines of the node's `[[node]]` table.
    pub(crate) table: String,
}

impl Node {
    /// The address in its table.
    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.table.split('"').nth(1).and_then(|address| address.parse().ok());
        address.expect("the table of a sample node begins with its address")
    }
}

/// A sample node. It rewrites RTP, unless `more` arguments have it do otherwise.
pub(crate) fn sample_node(name: &'static str, folder: &Path, more: &[&str]) -> Node {
    let mut command = Command::new(evenkeel());
    command.args(["sample-node", "--json", "--listen", "127.0.0.1:0", "--name", name]);
    command.arg("--secret").arg(folder.join("secret")).args(more);
    let mut process = ChildProcess::start(name, &mut command, folder).expect("a node starts");
    let line = process.json_line(TIMEOUT).expect("a node prints where it listens");
    let address = line["listening"].as_str().unwrap_or_else(|| panic!("{name} printed {line}"));
    let table = format!("address = \"{address}\"\ndriver = \"agent\"\nsecret_file = \"secret\"");
    Node { name, process, table }
}

/// A temporary folder, readable by its owner only.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Logs of a failed test are kept.
        if !std::thread::panicking() {
            let _gone_already = fs::remove_dir_all(&self.0);
        }
    }
}

impl Stage {
    /// Starts two rewriting nodes and a gateway; `more` is appended to its configuration.
    pub(crate) fn set(name: &str, more: &str) -> Stage {
        Stage::of(name, &(CONFIGURATION.to_owned() + more), |_| {})
    }

    /// Like `set`, with another configuration; `prepare` adds files to the test's folder first.
    pub(crate) fn of(name: &str, configuration: &str, prepare: impl FnOnce(&Path)) -> Stage {
        Stage::before(name, configuration, |folder| {
            prepare(folder);
            NODES.map(|node| sample_node(node, folder, &[])).into()
        })
    }

    /// A gateway with nodes of any kind, which `nodes` starts in the test's folder.
    pub(crate) fn before(
        name: &str,
        configuration: &str,
        nodes: impl FnOnce(&Path) -> Vec<Node>,
    ) -> Stage {
        let evenkeel = evenkeel();
        let exclusive = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let path = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).expect("the temporary folder is ours");
        let folder = Folder(path);
        let secret = folder.0.join("secret");
        fs::write(&secret, format!("{:?}-{name}", std::time::SystemTime::now()))
            .expect("a file can be written");
        let (mut started, mut text) = (BTreeMap::new(), configuration.to_owned());
        for Node { name, process, table } in nodes(&folder.0) {
            let zone = &name[5..6];
            write!(
                text,
                "\n[[node]]\nname = \"{name}\"\nregion = \"east\"\nzone = \"{zone}\"\n\
                 {table}\ncapacity = \"100 Mbit/s\"\n"
            )
            .expect("a string takes everything");
            started.insert(name, process);
        }
        let nodes = started;
        let config = folder.0.join("evenkeel.toml");
        fs::write(&config, text).expect("a file can be written");
        let mut command = Command::new(evenkeel);
        command.args(["run", "--json", "--config"]).arg(&config);
        let gateway = ChildProcess::start("gateway", &mut command, &folder.0);
        let mut gateway = gateway.expect("the gateway starts");
        let line = gateway.json_line(TIMEOUT).expect("the gateway prints where it listens");
        let socket = line["socket"].as_str().map(PathBuf::from);
        let socket = socket.unwrap_or_else(|| panic!("the gateway printed {line}"));
        let address = |name: &str| line[name].as_str().and_then(|address| address.parse().ok());
        let (api, webrtc) = (address("api"), address("webrtc"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut admin = ApiClient::new(ApiEndpoint::Unix(socket));
        runtime.block_on(ready(&mut admin));
        // Subscribes after the start, so that its events are not seen by tests.
        let events = runtime.block_on(admin.events()).expect("the API streams events");
        Stage { runtime, admin, events, gateway, api, webrtc, nodes, folder, _exclusive: exclusive }
    }

    /// The folder of logs and files of the test.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// The address of the API over TCP.
    pub(crate) fn api(&self) -> SocketAddr {
        self.api.expect("the configuration has `tcp`")
    }

    /// The address of WHIP and WHEP.
    pub(crate) fn webrtc(&self) -> SocketAddr {
        self.webrtc.expect("the configuration has `[webrtc]`")
    }

    pub(crate) fn open(&mut self, offer: &OfferRequest) -> OfferAnswer {
        let opened = self.runtime.block_on(self.admin.open(offer));
        opened.unwrap_or_else(|error| panic!("{offer:?}: {error}"))
    }

    pub(crate) fn ask(&mut self, call: ApiCall<'_>) -> ApiResponse {
        self.runtime.block_on(self.admin.ask(call)).expect("the API answers")
    }

    /// True if the gateway accepts new sessions.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.runtime.block_on(self.admin.is_ready()).expect("the API answers")
    }

    pub(crate) fn read(&mut self, path: &str) -> Value {
        self.runtime.block_on(self.admin.read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Waits until the gateway has counted these events of QUIC. A client hears of the last ones before they are counted.
    pub(crate) fn await_quic_counts(&mut self, expected: &[(&str, u64)]) {
        self.await_status(&format!("{expected:?}"), |status| {
            let counts = &status["quic_counts"];
            expected.iter().all(|(count, expected)| counts[count] == *expected)
        });
    }

    /// Waits until the gateway's status meets the condition.
    pub(crate) fn await_status(&mut self, what: &str, holds: impl Fn(&Value) -> bool) {
        let until = Instant::now() + TIMEOUT;
        loop {
            let status = self.read("/v1/status");
            if holds(&status) {
                return;
            }
            assert!(Instant::now() < until, "timed out: {what}: {status}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Waits until the series of a counter with these labels count at least one. Lines of Prometheus name it.
    pub(crate) fn await_counted(&mut self, counter: &str, labels: &str) {
        let until = Instant::now() + TIMEOUT;
        loop {
            let page = self.ask(ApiCall::get("/metrics")).body;
            let page = String::from_utf8_lossy(&page);
            let of_counter = format!("{counter}{{");
            let mut series = page.lines().filter(|line| {
                let series = line.strip_prefix(&of_counter);
                series.is_some_and(|series| series.contains(labels) && !series.ends_with(" 0"))
            });
            if series.next().is_some() {
                return;
            }
            assert!(Instant::now() < until, "timed out: {counter} with {labels}:\n{page}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    pub(crate) fn push(
        &mut self,
        set: &str,
        hook: &str,
        wasm: &[u8],
    ) -> Result<Value, ClientError> {
        self.runtime.block_on(self.admin.push(set, hook, wasm))
    }

    /// Waits for an event in which `look` finds something.
    pub(crate) fn wait_for_event<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&ServerEvent) -> Option<T>,
    ) -> T {
        let heard = async {
            loop {
                let event = self.events.next().await.expect("the API streams events");
                let event = event.unwrap_or_else(|| panic!("no more events before {what}"));
                if let Some(found) = look(&event) {
                    return found;
                }
            }
        };
        let heard = self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, heard).await });
        heard.unwrap_or_else(|_| panic!("no {what} in time"))
    }

    /// Kills a node with SIGKILL and waits until the room has left it.
    pub(crate) fn kill_under(&mut self, node: &str, room: &str) -> Value {
        self.nodes[node].signal(Signal::SIGKILL).expect("the node runs");
        self.wait_for_event("move of the room", |event| {
            let ours = event.name == "moved" && event.data["room"] == room;
            (ours && event.data["from"] == node).then(|| event.data.clone())
        })
    }

    /// Ends a node with SIGTERM and returns the counters that it prints.
    pub(crate) fn end_node(&mut self, node: &str) -> Value {
        let node = self.nodes.remove(node).expect("the node was started");
        let output = node.end(Signal::SIGTERM, TIMEOUT).expect("the node runs");
        let last = output.last().expect("a node prints its counters");
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{last:?} is no JSON: {error}"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.gateway.signal(signal).expect("the gateway runs");
    }

    /// Waits until the gateway's log contains the text, and returns the log.
    pub(crate) fn wait_for_log(&self, words: &str) -> String {
        let until = Instant::now() + TIMEOUT;
        loop {
            let log = self.gateway.log();
            if log.contains(words) {
                return log;
            }
            assert!(Instant::now() < until, "no {words:?} in the log:\n{log}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Waits until the gateway has ended after a signal.
    pub(crate) fn outcome(mut self) -> ExitStatus {
        self.gateway.wait(TIMEOUT).expect("the gateway ends")
    }

    /// Ends the gateway with SIGTERM, which flushes telemetry.
    pub(crate) fn end_gateway(self) {
        self.gateway.end(Signal::SIGTERM, TIMEOUT).expect("the gateway runs");
    }
}

/// The configuration of a gateway without nodes.
pub(crate) const CONFIGURATION: &str = r#"
[gateway]
region = "east"
drain_timeout = "0s"

[[listen]]
udp = "127.0.0.1:0"
identity = ["declared"]

[[listen]]
quic = "127.0.0.1:0"

[admin]
socket = "admin.sock"
"#;

/// Waits for the first policies, which compile after the gateway prints its first line.
async fn ready(admin: &mut ApiClient) {
    let waited = async {
        while !admin.is_ready().await.expect("the API answers") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waited).await.expect("the gateway becomes ready in time");
}

pub(crate) fn offer(room: &str, ingress: OfferIngress, media: Vec<OfferMedia>) -> OfferRequest {
    OfferRequest {
        scenario: "call".to_owned(),
        room: room.to_owned(),
        ingress: Some(ingress),
        media: Some(media),
        ..OfferRequest::default()
    }
}

/// A UDP client identified by its declared addresses.
pub(crate) fn declared(rtp: SocketAddr, rtcp: Option<SocketAddr>) -> OfferIngress {
    match rtcp {
        Some(rtcp) => OfferIngress::declared_with_rtcp(rtp, rtcp),
        None => OfferIngress::declared(rtp),
    }
}

pub(crate) fn voice() -> OfferMedia {
    media(OfferStreamKind::Audio, 111, "opus", 48_000, &[])
}

pub(crate) fn picture(codec: &str) -> OfferMedia {
    media(OfferStreamKind::Video, 96, codec, 90_000, &[OfferFeedback::Pli])
}

fn media(
    kind: OfferStreamKind,
    payload_type: u8,
    codec: &str,
    clock_rate: u32,
    feedback: &[OfferFeedback],
) -> OfferMedia {
    OfferMedia {
        kind,
        payload_types: vec![OfferPayloadType::new(payload_type, codec, clock_rate)],
        feedback: feedback.to_vec(),
        bitrate: None,
    }
}

/// Two consecutive ports that were free a moment ago, for programs that cannot report the ports they choose.
pub(crate) fn free_pair() -> (SocketAddr, SocketAddr) {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let pair = (0..1_000).find_map(|_| {
        let first = UdpSocket::bind(at(0)).ok()?.local_addr().ok()?;
        let even = at(first.port() & !1);
        let next = at(even.port() + 1);
        (UdpSocket::bind(even).is_ok() && UdpSocket::bind(next).is_ok()).then_some((even, next))
    });
    pair.expect("loopback has two ports ")
}
