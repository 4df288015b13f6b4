//! A gateway as a process of its own, and a client of its API.

use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint, ClientError};
use evenkeel_contract::offers::{
    OfferIngress, OfferMedia, OfferPayloadType, OfferRequest, OfferStreamKind,
};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::binary::evenkeel;
use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tokio::runtime::Runtime;

use super::{Phone, TIMEOUT, World, wait_until};

/// It is killed on drop, with the processes that replaced it.
pub(crate) struct GatewayProcess {
    pub(crate) process: ChildProcess,
    successor: Option<Pid>,
    client: ApiClient,
    runtime: Runtime,
    folder: TempDir,
}

impl GatewayProcess {
    /// Starts the world's gateway, and waits until its policies are active, or until it is the standby of a group.
    pub(crate) fn start(world: &World) -> GatewayProcess {
        GatewayProcess::start_by(world, Command::new(evenkeel()))
    }

    /// As [`start`](GatewayProcess::start), by a command that runs `evenkeel` with the arguments appended to it.
    pub(crate) fn start_by(world: &World, command: Command) -> GatewayProcess {
        GatewayProcess::start_on(world, command, |_| ())
    }

    /// As [`start_by`](GatewayProcess::start_by), after `change` has changed the files in the gateway's folder.
    pub(crate) fn start_on(
        world: &World,
        command: Command,
        change: impl FnOnce(&Path),
    ) -> GatewayProcess {
        let folder = tempdir().unwrap();
        world.write(folder.path());
        change(folder.path());
        let process = begin(command, folder.path());
        let client = ApiClient::new(ApiEndpoint::Unix(folder.path().join("admin.sock")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut gateway = GatewayProcess { process, successor: None, client, runtime, folder };
        gateway.await_policies();
        gateway
    }

    /// Starts a gateway with the same files, after this one has ended.
    pub(crate) fn start_again(&mut self) {
        self.start_again_unready();
        self.await_policies();
    }

    /// As [`start_again`](GatewayProcess::start_again), of a gateway that need not become the owner or the standby.
    pub(crate) fn start_again_unready(&mut self) {
        self.process = begin(Command::new(evenkeel()), self.folder.path());
        // The connection has ended.
        self.client = self.client.another();
    }

    fn await_policies(&mut self) {
        let deadline = Instant::now() + 3 * TIMEOUT;
        while !self.ask(async |client| client.is_ready().await).unwrap() && !self.is_standby() {
            assert!(Instant::now() < deadline, "timed out: the policies are active");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// True for the standby or a spare of a group, which admits no sessions.
    fn is_standby(&mut self) -> bool {
        let seen = self.ask(async |client| client.read("/v1/gateways").await);
        let Ok(seen) = seen else { return false };
        let mut gateways = seen["gateways"].as_array().into_iter().flatten();
        gateways.any(|gateway| {
            gateway["here"] == true && (gateway["role"] == "standby" || gateway["role"] == "spare")
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A further client of the API.
    pub(crate) fn client(&self) -> ApiClient {
        self.client.another()
    }

    pub(crate) fn ask<T>(&mut self, request: impl AsyncFnOnce(&mut ApiClient) -> T) -> T {
        let client = &mut self.client;
        let limited = async { tokio::time::timeout(3 * TIMEOUT, request(client)).await };
        self.runtime.block_on(limited).expect("the API answers in time")
    }

    /// The client of another socket, from now on.
    pub(crate) fn move_api(&mut self, socket: &str) {
        self.client = ApiClient::new(ApiEndpoint::Unix(self.folder.path().join(socket)));
    }

    /// Waits until the log has these words. Its lines are written by a thread of their own.
    pub(crate) fn await_log(&self, words: &str) {
        wait_until("the log has the words", || self.process.log().contains(words));
    }

    /// Waits until a file in the cache has this text.
    pub(crate) fn await_written(&self, text: &str) {
        let cache = self.folder().join("evenkeel");
        wait_until("a file has the text", || has_file_with(&cache, text.as_bytes()));
    }

    /// Asks for an upgrade on a thread of its own.
    pub(crate) fn upgrade(&self, request: Value) -> JoinHandle<Result<Value, ClientError>> {
        let mut client = self.client();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(client.post("/v1/gateway:upgrade", &request))
        })
    }

    /// Notes the process that serves now.
    pub(crate) fn note_successor(&mut self, pid: i32) {
        self.successor = Some(Pid::from_raw(pid));
        // The process that was replaced has closed the connection.
        self.client = self.client.another();
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> Pid {
        self.successor.unwrap_or(Pid::from_raw(self.process.id() as i32))
    }

    pub(crate) fn read(&mut self, path: &str) -> Value {
        self.ask(async |client| client.read(path).await).unwrap()
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Value {
        // The API may have closed a connection that was idle, and a POST is not repeated.
        self.client = self.client.another();
        self.ask(async |client| client.post(path, body).await).unwrap()
    }

    /// The metrics in the text format of Prometheus.
    pub(crate) fn metrics(&mut self) -> String {
        let answer = self.ask(async |client| client.ask(ApiCall::get("/metrics")).await).unwrap();
        String::from_utf8(answer.body.into()).unwrap()
    }

    pub(crate) fn put(&mut self, path: &str, body: &Value) -> Value {
        let body = serde_json::to_vec(body).unwrap().into();
        let call = ApiCall { method: Method::PUT, body, ..ApiCall::get(path) };
        self.ask(async |client| client.ask(call).await).unwrap().accepted().unwrap()
    }

    /// Pushes a plugin to the set `call`, to be activated at once.
    pub(crate) fn push(&mut self, hook: &str, wasm: &[u8]) -> Value {
        let hook = format!("{hook}?now=true");
        self.ask(async |client| client.push("call", &hook, wasm).await).unwrap()
    }

    /// Opens a session with audio for this phone, which sends to it from then on.
    pub(crate) fn open(&mut self, room: &str, phone: &mut Phone) {
        let ingress = OfferIngress::declared(phone.address());
        let offer = GatewayProcess::offer(room, ingress);
        let opened = self.ask(async |client| client.open(&offer).await).unwrap();
        phone.set_target(opened.udp.unwrap().addresses[0]);
    }

    /// An offer of audio.
    pub(crate) fn offer(room: &str, ingress: OfferIngress) -> OfferRequest {
        let opus = OfferPayloadType::new(111, "opus", 48_000);
        let audio = OfferMedia {
            kind: OfferStreamKind::Audio,
            payload_types: vec![opus],
            feedback: Vec::new(),
            bitrate: None,
        };
        OfferRequest {
            scenario: "call".into(),
            room: room.into(),
            ingress: Some(ingress),
            media: Some(vec![audio]),
            ..OfferRequest::default()
        }
    }
}

impl Drop for GatewayProcess {
    fn drop(&mut self) {
        if let Some(successor) = self.successor {
            // Fails only if it has ended.
            let _ = kill(successor, Signal::SIGKILL);
        }
    }
}

/// True if a file in the folder, or in one of its folders, has this text.
fn has_file_with(folder: &Path, text: &[u8]) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| {
        let path = entry.path();
        // A file may be replaced meanwhile.
        let bytes = || std::fs::read(&path).unwrap_or_default();
        match path.is_dir() {
            true => has_file_with(&path, text),
            false => bytes().windows(text.len()).any(|part| part == text),
        }
    })
}

/// Starts a gateway with the configuration in the folder, and waits until it forwards.
fn begin(mut command: Command, folder: &Path) -> ChildProcess {
    command.args(["run", "--json", "--config"]).arg(folder.join("evenkeel.toml"));
    command.env("XDG_CACHE_HOME", folder);
    let mut process = ChildProcess::start("gateway", &mut command, folder).unwrap();
    process.json_line(TIMEOUT).unwrap();
    process
}
