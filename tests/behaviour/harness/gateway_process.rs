//! A gateway as a process of its own, and a client of its API.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_client::{Client, Endpoint, Identity, Ingress, Kind, Media, Offer, PayloadType};
use evenkeel_lab::process::Process;
use evenkeel_testkit::binary::evenkeel;
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tokio::runtime::Runtime;

use super::{Phone, TIMEOUT, World};

/// It is killed on drop.
pub(crate) struct GatewayProcess {
    pub(crate) process: Process,
    client: Client,
    runtime: Runtime,
    folder: TempDir,
}

impl GatewayProcess {
    /// Starts the world's gateway, and waits until its policies are active.
    pub(crate) fn start(world: &World) -> GatewayProcess {
        GatewayProcess::start_by(world, Command::new(evenkeel()))
    }

    /// As [`start`](GatewayProcess::start), by a command that runs `evenkeel` with the arguments appended to it.
    pub(crate) fn start_by(world: &World, mut command: Command) -> GatewayProcess {
        let folder = tempdir().unwrap();
        let config = world.write(folder.path());
        command.args(["run", "--json", "--config"]).arg(config);
        command.env("XDG_CACHE_HOME", folder.path());
        let mut process = Process::start("gateway", &mut command, folder.path()).unwrap();
        process.json_line(TIMEOUT).unwrap();
        let client = Client::new(Endpoint::Unix(folder.path().join("admin.sock")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut gateway = GatewayProcess { process, client, runtime, folder };
        let deadline = Instant::now() + 3 * TIMEOUT;
        while !gateway.ask(async |client| client.is_ready().await).unwrap() {
            assert!(Instant::now() < deadline, "timed out: the policies are active");
            std::thread::park_timeout(Duration::from_millis(2));
        }
        gateway
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A further client of the API.
    pub(crate) fn client(&self) -> Client {
        self.client.another()
    }

    fn ask<T>(&mut self, request: impl AsyncFnOnce(&mut Client) -> T) -> T {
        let client = &mut self.client;
        let limited = async { tokio::time::timeout(3 * TIMEOUT, request(client)).await };
        self.runtime.block_on(limited).expect("the API answers in time")
    }

    pub(crate) fn read(&mut self, path: &str) -> Value {
        self.ask(async |client| client.read(path).await).unwrap()
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Value {
        self.ask(async |client| client.post(path, body).await).unwrap()
    }

    /// Pushes a plugin to the set `call`, to be activated at once.
    pub(crate) fn push(&mut self, hook: &str, wasm: &[u8]) -> Value {
        let hook = format!("{hook}?now=true");
        self.ask(async |client| client.push("call", &hook, wasm).await).unwrap()
    }

    /// Opens a session with audio for this phone, which sends to it from then on.
    pub(crate) fn open(&mut self, room: &str, phone: &mut Phone) {
        let opus = PayloadType { payload_type: 111, codec: "opus".into(), clock_rate: 48_000 };
        let audio = Media {
            kind: Kind::Audio,
            payload_types: vec![opus],
            feedback: Vec::new(),
            bitrate: None,
        };
        let offer = Offer {
            scenario: "call".into(),
            room: room.into(),
            labels: BTreeMap::new(),
            ingress: Ingress::Udp(Identity::Declared { address: phone.address(), rtcp: None }),
            media: vec![audio],
            rtcp: None,
            nodes: BTreeMap::new(),
        };
        let opened = self.ask(async |client| client.open(&offer).await).unwrap();
        phone.set_target(opened.udp.unwrap().addresses[0]);
    }
}
