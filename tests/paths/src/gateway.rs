//! The gateway that is observed, its nodes and its client.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use evenkeel_client::{
    ApiClient, ApiEndpoint, OfferIdentity, OfferIngress, OfferMedia, OfferPayloadType,
    OfferRequest, OfferStreamKind,
};
use evenkeel_lab::process::ChildProcess;
use evenkeel_lab::sample_node::{SampleNode, SampleNodeOptions};
use evenkeel_media::rtp;
use evenkeel_media::trunk::message::NodeSecret;
use evenkeel_testkit::TIMEOUT;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::coverage::{self, Snapshot};

const SECRET: &[u8] = b"what both ends know of each other";

/// Waits until the condition holds.
pub(crate) fn wait_until(
    what: &str,
    mut done: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let deadline = Instant::now() + TIMEOUT;
    while !done()? {
        if Instant::now() >= deadline {
            return Err(format!("timed out: {what}"));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A sample node in a thread. Its name is `REGION-ZONE`.
pub(crate) struct Node {
    options: SampleNodeOptions,
    alive: Option<(Arc<AtomicBool>, Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Node {
    pub(crate) fn start(name: &str, listen: &str) -> Result<Node, String> {
        let listen: SocketAddr = listen.parse().map_err(|error| format!("{listen}: {error}"))?;
        let mut options = SampleNodeOptions::new(listen, name);
        options.secret = NodeSecret::new(SECRET, name).ok();
        let mut node = Node { options, alive: None };
        node.revive()?;
        Ok(node)
    }

    /// Starts the node again at its address.
    pub(crate) fn revive(&mut self) -> Result<(), String> {
        let node = SampleNode::bind(self.options.clone()).map_err(|error| error.to_string())?;
        self.options.listen = node.address();
        let (ending, stopped) = (node.ending(), node.stopped());
        let thread = std::thread::spawn(move || {
            if let Err(error) = node.run() {
                eprintln!("a sample node failed: {error}");
            }
        });
        self.alive = Some((ending, stopped, thread));
        Ok(())
    }

    /// Ends the node without notice.
    pub(crate) fn kill(&mut self) {
        if let Some((ending, _, thread)) = self.alive.take() {
            ending.store(true, Ordering::Relaxed);
            // A failure was printed.
            let _ = thread.join();
        }
    }

    /// Stops or resumes reading.
    pub(crate) fn stop(&self, is_stopped: bool) {
        if let Some((_, stopped, _)) = &self.alive {
            stopped.store(is_stopped, Ordering::Relaxed);
        }
    }

    /// The node's table. Without canary sessions the gateway sends no packets of its own.
    pub(crate) fn table(&self) -> String {
        let SampleNodeOptions { name, listen, .. } = &self.options;
        let (region, zone) = name.split_once('-').unwrap_or((name, "a"));
        format!(
            "[[node]]\nname = \"{name}\"\naddress = \"{listen}\"\nregion = \"{region}\"\nzone = \"{zone}\"\n\
             capacity = \"200 Mbit/s\"\ndriver = \"agent\"\nsecret_file = \"secret\"\ncanary = false\n"
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A configuration.
pub(crate) struct Settings {
    /// The address of the listener.
    pub(crate) listen: String,
    /// Tables at the end of the file.
    pub(crate) tables: String,
    /// The policy set `call`.
    pub(crate) call: String,
    /// Further files of the folder of policies.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
}

impl Settings {
    pub(crate) fn new(nodes: &[&Node], call: &str) -> Settings {
        let tables = nodes.iter().map(|node| node.table()).collect();
        Settings {
            listen: "127.0.0.1:0".to_owned(),
            tables,
            call: call.to_owned(),
            files: Vec::new(),
        }
    }

    fn write(&self, folder: &Path) -> std::io::Result<()> {
        let policies = folder.join("policies");
        fs::create_dir_all(&policies)?;
        fs::write(folder.join("secret"), SECRET)?;
        fs::write(folder.join("cluster.secret"), [b'c'; 32])?;
        fs::write(policies.join("call.toml"), &self.call)?;
        for name in ["conference", "live"] {
            fs::write(policies.join(format!("{name}.toml")), format!("[scenario.{name}]\n"))?;
        }
        for (name, bytes) in &self.files {
            fs::write(policies.join(name), bytes)?;
        }
        // The timeouts of detection are longer than the defaults: counting takes time.
        let mut text = format!(
            "[[listen]]\nudp = \"{}\"\nidentity = [\"declared\"]\n[gateway]\nregion = \"east\"\n\
             policies = \"policies\"\n[admin]\nsocket = \"admin.sock\"\n[limits]\nworkers = 1\n\
             [detector]\nprobe_slack = \"100ms\"\nsilence = \"1s\"\n",
            self.listen
        );
        for place in ["in_region", "cross_region"] {
            let _infallible =
                writeln!(text, "{place} = {{ probe_interval = \"20ms\", down_after = \"2s\" }}");
        }
        fs::write(folder.join("evenkeel.toml"), text + &self.tables)
    }
}

/// A gateway in a process of its own, with counters. It is killed on drop.
pub(crate) struct Gateway {
    pub(crate) process: ChildProcess,
    folder: TempDir,
    client: ApiClient,
    runtime: Runtime,
}

impl Gateway {
    /// Starts a gateway and waits until it admits sessions.
    pub(crate) fn start(program: &Path, settings: &Settings) -> Result<Gateway, String> {
        let mut gateway = Gateway::begin(program, settings)?;
        wait_until("the policies are active", || gateway.is_ready())?;
        Ok(gateway)
    }

    /// Starts a gateway and waits until it forwards.
    pub(crate) fn begin(program: &Path, settings: &Settings) -> Result<Gateway, String> {
        let failed = |error: std::io::Error| format!("cannot start a gateway: {error}");
        let folder = tempfile::tempdir().map_err(failed)?;
        settings.write(folder.path()).map_err(failed)?;
        // The gateway ends if this process is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command.args(["run", "--json", "--config"]).arg(folder.path().join("evenkeel.toml"));
        command.env("XDG_CACHE_HOME", folder.path());
        command.env("LLVM_PROFILE_FILE", coverage::profile(folder.path()));
        let started = ChildProcess::start("gateway", &mut command, folder.path());
        let mut process = started.map_err(|error| error.to_string())?;
        process.json_line(TIMEOUT).map_err(|error| error.to_string())?;
        let client = ApiClient::new(ApiEndpoint::Unix(folder.path().join("admin.sock")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Gateway { process, folder, client, runtime: runtime.map_err(failed)? })
    }

    pub(crate) fn ask<T, E: ToString>(
        &mut self,
        request: impl AsyncFnOnce(&mut ApiClient) -> Result<T, E>,
    ) -> Result<T, String> {
        let client = &mut self.client;
        let limited = async { tokio::time::timeout(TIMEOUT, request(client)).await };
        let answer = self.runtime.block_on(limited);
        let failed = |problem: String| self.process.error(problem).to_string();
        answer
            .map_err(|_| failed("did not answer".to_owned()))?
            .map_err(|error| failed(error.to_string()))
    }

    pub(crate) fn read(&mut self, path: &str) -> Result<Value, String> {
        self.ask(async |client| client.read(path).await)
    }

    pub(crate) fn is_ready(&mut self) -> Result<bool, String> {
        self.ask(async |client| client.is_ready().await)
    }

    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.process.log().contains(text)
    }

    /// A file of the folder of policies.
    pub(crate) fn policy_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("policies").join(name)
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, String> {
        coverage::snapshot(&self.process, self.folder.path())
    }

    /// The counters before and after this time.
    pub(crate) fn idle(&self, time: Duration) -> Result<(Snapshot, Snapshot), String> {
        let before = self.snapshot()?;
        sleep(time);
        Ok((before, self.snapshot()?))
    }

    /// The folder is kept until the snapshots are read.
    pub(crate) fn leave(self) -> TempDir {
        self.folder
    }

    /// Opens a session with audio for this phone, which sends to it from then on.
    pub(crate) fn open(&mut self, phone: &mut Phone) -> Result<(), String> {
        let opus = OfferPayloadType { payload_type: 111, codec: "opus".into(), clock_rate: 48_000 };
        let audio = OfferMedia {
            kind: OfferStreamKind::Audio,
            payload_types: vec![opus],
            feedback: Vec::new(),
            bitrate: None,
        };
        let address = phone.0.local_addr().map_err(|error| error.to_string())?;
        let offer = OfferRequest {
            scenario: "call".into(),
            room: "room".into(),
            labels: Default::default(),
            ingress: OfferIngress::Udp(OfferIdentity::Declared { address, rtcp: None }),
            media: vec![audio],
            rtcp: None,
        };
        let opened = self.ask(async |client| client.open(&offer).await)?;
        let udp = opened.udp.ok_or("no address of the session")?;
        let address = udp.addresses.first().ok_or("no address of the session")?;
        phone.0.connect(address).map_err(|error| error.to_string())
    }

    /// The node that carries the packets of the only room.
    pub(crate) fn hop(&mut self) -> Result<String, String> {
        let rooms = self.read("/v1/rooms")?;
        let node = rooms["rooms"][0]["hop"]["node"].as_str();
        node.map(str::to_owned).ok_or_else(|| format!("no hop: {rooms}"))
    }

    /// The health of a node.
    pub(crate) fn health(&mut self, node: &str) -> Result<String, String> {
        let nodes = self.read("/v1/nodes")?;
        let mut listed = nodes["nodes"].as_array().into_iter().flatten();
        let found = listed.find(|listed| listed["name"] == node || listed["node"] == node);
        let health = found.and_then(|found| found["health"].as_str());
        health.map(str::to_owned).ok_or_else(|| format!("no node {node}: {nodes}"))
    }

    /// The active revision of the policy `call/routing`.
    pub(crate) fn revision(&mut self) -> Result<String, String> {
        let policies = self.read("/v1/policies")?;
        let mut listed = policies["policies"].as_array().into_iter().flatten();
        let found = listed.find(|policy| policy["policy"] == "call/routing");
        found
            .map(|policy| policy["revision"].to_string())
            .ok_or_else(|| format!("no routing: {policies}"))
    }
}

/// A client on a UDP socket.
pub(crate) struct Phone(UdpSocket);

impl Phone {
    pub(crate) fn bind(address: &str) -> Result<Phone, String> {
        let socket = UdpSocket::bind(address).map_err(|error| format!("{address}: {error}"))?;
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(Phone(socket))
    }

    /// Sends one packet of audio.
    pub(crate) fn send(&self, sequence: u16) -> Result<(), String> {
        let timestamp = u32::from(sequence) * 960;
        let fields = rtp::Fields { payload_type: 111, marker: false, sequence, timestamp, ssrc: 7 };
        let mut packet = Vec::new();
        rtp::write(&fields, &[0x5a; 100], &mut packet);
        self.0.send(&packet).map(drop).map_err(|error| error.to_string())
    }

    /// Packets that have arrived.
    pub(crate) fn received(&self) -> usize {
        let mut buffer = [0; 2_048];
        std::iter::from_fn(|| self.0.recv(&mut buffer).ok()).count()
    }
}
