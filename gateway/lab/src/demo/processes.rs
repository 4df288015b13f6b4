//! The processes of the demo: six nodes in three regions of two zones, and the gateway.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::LabError;
use crate::process::{ChildProcess, ProcessError};
use crate::sample_node::SampleNodeCounters;
use evenkeel_client::{ApiClient, ApiEndpoint};

/// The regions; the gateway is in the first.
pub(super) const REGIONS: [&str; 3] = ["east", "north", "west"];
/// Nodes of the first zone keep sequence numbers unchanged, those of the second rewrite them.
pub(super) const ZONES: [&str; 2] = ["a", "b"];
/// Timeout of a process's first line. A loaded machine compiles eight plugins within it.
const FIRST_LINE_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Capacity of a node, enough for all sessions.
const CAPACITY: &str = "200 Mbit/s";

/// The configuration of the gateway, in the demo's folder.
const CONFIGURATION: &str = "evenkeel.toml";

pub(super) const CALL: &str = include_str!("policies/call.toml");
const LIVE: &str = include_str!("policies/live.toml");

/// See the gateway work: calls and streams, nodes that die, policies that change; as root, a gateway that is replaced by
/// its standby. Takes about 50 seconds.
#[derive(Args, Clone, Debug)]
pub struct DemoOptions {
    /// Print the outcome as one JSON object, the last line on standard output
    #[arg(long)]
    pub json: bool,
    /// Sessions: four fifths in 1v1 calls, the others in live streams
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..=2_000))]
    pub(super) sessions: u32,
    /// Set the seed of all random choices
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Keep everything running until interrupted, with an agent beside each node, for drills and for calls of a browser
    #[arg(long)]
    pub serve: bool,
    /// Take policy sets from this folder, and the embedded ones, in place of the demo's own, which decide faster
    #[arg(long, value_name = "FOLDER", requires = "serve")]
    policies: Option<PathBuf>,
    /// Keep the folder with configuration and logs
    #[arg(long)]
    keep: bool,
}

/// The demo's folder, removed on drop unless `keep` is set.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("configuration and logs are in {}", self.path.display());
        } else {
            let _gone_already = fs::remove_dir_all(&self.path);
        }
    }
}

struct DemoNode {
    name: String,
    address: SocketAddr,
    /// The agent that started the node, if any.
    agent: Option<SocketAddr>,
    /// The process of the node, or of its agent.
    process: Option<ChildProcess>,
}

/// All processes of the demo. Dropping it ends them.
pub(super) struct Processes {
    evenkeel: PathBuf,
    gateway: ChildProcess,
    nodes: Vec<DemoNode>,
    /// The last field, so that all processes have ended when the folder is removed.
    folder: Folder,
    pub(super) udp: SocketAddr,
    pub(super) place: ApiEndpoint,
}

/// The first line of `evenkeel run --json`, as far as the demo needs it. The demo's gateway has one UDP listener.
#[derive(Deserialize)]
struct GatewayAddresses {
    udp: [SocketAddr; 1],
    socket: PathBuf,
}

/// The first line of a sample node or an agent.
#[derive(Deserialize)]
struct NodeAddress {
    listening: SocketAddr,
}

impl Processes {
    pub(super) async fn start(
        options: &DemoOptions,
        evenkeel: &Path,
        telemetry: &str,
    ) -> Result<Processes, LabError> {
        let folder = folder(options)?;
        let mut nodes = Vec::new();
        for name in REGIONS.iter().flat_map(|region| ZONES.map(|zone| format!("{region}-{zone}1")))
        {
            let folder = &folder.path;
            nodes.push(if options.serve {
                node_with_agent(evenkeel, folder, &name).await?
            } else {
                let (process, address) = node(evenkeel, folder, &name, "127.0.0.1:0").await?;
                DemoNode { name, address, agent: None, process: Some(process) }
            });
        }
        write(&folder.path.join(CONFIGURATION), &configuration(options, telemetry, &nodes))?;
        let mut gateway = start_gateway(options, evenkeel, &folder.path)?;
        let GatewayAddresses { udp: [udp], socket } = first_line(&mut gateway).await?;
        let place = ApiEndpoint::Unix(socket);
        Ok(Processes { evenkeel: evenkeel.to_owned(), gateway, nodes, folder, udp, place })
    }

    /// Kills the gateway and starts it again, which ends its sessions.
    pub(super) async fn replace_gateway(&mut self, options: &DemoOptions) -> Result<(), LabError> {
        self.gateway.kill();
        self.gateway = start_gateway(options, &self.evenkeel, &self.folder.path)?;
        GatewayAddresses { udp: [self.udp], .. } = first_line(&mut self.gateway).await?;
        Ok(())
    }

    /// The process of the gateway.
    pub(super) fn gateway_id(&self) -> u32 {
        self.gateway.id()
    }

    pub(super) fn admin(&self) -> ApiClient {
        ApiClient::new(self.place.clone())
    }

    pub(super) fn api(&self) -> String {
        match &self.place {
            ApiEndpoint::Unix(path) => path.display().to_string(),
            ApiEndpoint::Tcp(address) => address.to_string(),
        }
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    fn node(&self, name: &str) -> Option<&DemoNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    pub(super) fn address_of(&self, name: &str) -> Option<SocketAddr> {
        self.node(name).map(|node| node.address)
    }

    pub(super) fn signal_node(&self, name: &str, signal: Signal) -> Result<(), LabError> {
        let process = self.node(name).and_then(|node| node.process.as_ref());
        Ok(process.map_or(Ok(()), |process| process.signal(signal))?)
    }

    pub(super) async fn restart_node(&mut self, name: &str) -> Result<(), LabError> {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) {
            // Reaps the dead process, which frees its port.
            node.process = None;
            let at = node.address.to_string();
            node.process = Some(self::node(&self.evenkeel, &self.folder.path, name, &at).await?.0);
        }
        Ok(())
    }

    /// Ends the gateway's policies and API, as a drill may.
    pub(super) fn end_policies_and_api(&self) -> Result<(), LabError> {
        Ok(self.gateway.signal(Signal::SIGUSR2)?)
    }

    pub(super) fn require_gateway(&mut self) -> Result<(), LabError> {
        if self.gateway.is_running() {
            return Ok(());
        }
        Err(self.gateway.error("ended").into())
    }

    pub(super) fn subfolder(&self, name: &str) -> PathBuf {
        self.folder.path.join(name)
    }

    pub(super) fn kept_folder(&self) -> Option<PathBuf> {
        self.folder.keep.then(|| self.folder.path.clone())
    }

    /// Ends all processes, and returns the counters of nodes that were still alive, by name.
    pub(super) async fn end(self) -> Result<BTreeMap<String, SampleNodeCounters>, LabError> {
        let Processes { gateway, nodes, folder, .. } = self;
        end(gateway).await?;
        let mut counted = BTreeMap::new();
        for node in nodes {
            if let Some(mut process) = node.process
                && process.is_running()
                && let Some(line) = end(process).await?
                && let Ok(counters) = serde_json::from_str(&line)
            {
                counted.insert(node.name, counters);
            }
        }
        drop(folder);
        Ok(counted)
    }
}

pub(super) fn start(
    evenkeel: &Path,
    words: &[&str],
    name: &str,
    folder: &Path,
) -> Result<ChildProcess, ProcessError> {
    ChildProcess::start(name, Command::new(evenkeel).args(words), folder)
}

fn start_gateway(
    options: &DemoOptions,
    evenkeel: &Path,
    folder: &Path,
) -> Result<ChildProcess, ProcessError> {
    let config = folder.join(CONFIGURATION).display().to_string();
    let policies = options.policies.as_deref().map(|policies| policies.display().to_string());
    let mut words = vec!["run", "--config", &config, "--json"];
    words.extend(policies.iter().flat_map(|policies| ["--policies", policies.as_str()]));
    start(evenkeel, &words, "gateway", folder)
}

/// Waits for the first line on standard output and reads it as JSON. Clients run on meanwhile.
pub(super) async fn first_line<T: DeserializeOwned>(
    process: &mut ChildProcess,
) -> Result<T, LabError> {
    let until = Instant::now() + FIRST_LINE_WITHIN;
    loop {
        if let Some(line) = process.try_line()? {
            return Ok(process.json(&line)?);
        }
        if Instant::now() >= until {
            return Err(process.error("printed nothing").into());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Ends a process with SIGTERM, or kills it after [`END_WITHIN`], and returns its last line on standard output.
async fn end(mut process: ChildProcess) -> Result<Option<String>, LabError> {
    process.signal(Signal::SIGTERM)?;
    let until = Instant::now() + END_WITHIN;
    while process.is_running() && Instant::now() < until {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    process.kill();
    Ok(process.all_lines(END_WITHIN).pop())
}

fn folder(options: &DemoOptions) -> Result<Folder, LabError> {
    let path = std::env::temp_dir().join(format!("evenkeel-demo-{}", std::process::id()));
    let what = format!("making {}", path.display());
    // Only the owner may read the folder, because it contains secrets.
    fs::DirBuilder::new().mode(0o700).create(&path).map_err(LabError::system(&what))?;
    let folder = Folder { path, keep: options.keep };
    let policies = folder.path.join("policies");
    fs::create_dir(&policies).map_err(LabError::system(&what))?;
    write(&policies.join("call.toml"), CALL)?;
    write(&policies.join("live.toml"), LIVE)?;
    Ok(folder)
}

/// Creates the node's secret, unless the node is restarted, and returns the file's name. Each node has its own, as
/// drills require.
fn secret(folder: &Path, name: &str) -> Result<String, LabError> {
    let file = format!("{name}.secret");
    let path = folder.join(&file);
    if !path.exists() {
        let secret: String = (0..32).map(|_| fastrand::alphanumeric()).collect();
        write(&path, &secret)?;
    }
    Ok(file)
}

/// Starts a node. Its first line says where it listens.
pub(super) fn start_node(
    evenkeel: &Path,
    folder: &Path,
    name: &str,
    listen: &str,
) -> Result<ChildProcess, LabError> {
    let secret = folder.join(secret(folder, name)?).display().to_string();
    let mut words =
        vec!["sample-node", "--name", name, "--listen", listen, "--secret", &secret, "--json"];
    words.push("--webrtc");
    if name.ends_with("-a1") {
        words.extend(["--untouched", "--stamp"]);
    }
    Ok(start(evenkeel, &words, name, folder)?)
}

async fn node(
    evenkeel: &Path,
    folder: &Path,
    name: &str,
    listen: &str,
) -> Result<(ChildProcess, SocketAddr), LabError> {
    let mut process = start_node(evenkeel, folder, name, listen)?;
    let NodeAddress { listening } = first_line(&mut process).await?;
    Ok((process, listening))
}

/// Starts an agent that starts the node, for drills.
async fn node_with_agent(evenkeel: &Path, folder: &Path, name: &str) -> Result<DemoNode, LabError> {
    // The node is started later.
    let free = || std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr();
    let address = free().map_err(LabError::system("looking for a free port"))?;
    let listen = address.to_string();
    let secret_file = secret(folder, name)?;
    let secret = folder.join(&secret_file).display().to_string();
    let evenkeel_at = evenkeel.display().to_string();
    let mut command = vec![&*evenkeel_at, "sample-node", "--name", name, "--listen", &listen];
    command.extend(["--secret", &secret, "--drills", "--webrtc"]);
    if name.ends_with("-a1") {
        command.push("--untouched");
    }
    let config = folder.join(format!("agent-{name}.toml"));
    let text = format!(
        "name = \"{name}\"\nlisten = \"127.0.0.1:0\"\nsecret_file = \"{secret_file}\"\ndrills = true\n\
         drain_timeout = \"100ms\"\n\n[process]\ncommand = {}\n",
        serde_json::json!(command)
    );
    write(&config, &text)?;
    let words = ["agent", "--config", &config.display().to_string(), "--json"];
    let mut process = start(evenkeel, &words, &format!("agent-{name}"), folder)?;
    let NodeAddress { listening } = first_line(&mut process).await?;
    Ok(DemoNode { name: name.to_owned(), address, agent: Some(listening), process: Some(process) })
}

fn configuration(options: &DemoOptions, endpoint: &str, nodes: &[DemoNode]) -> String {
    // With `--serve` the gateway uses the default socket, so that commands find it.
    let socket = if options.serve { "" } else { "socket = \"admin.sock\"\n" };
    let mut text = format!(
        r#"[gateway]
region = "{}"
policies = "policies"
drain_timeout = "0s"

[[listen]]
udp = "127.0.0.1:0"
identity = ["declared", "stun"]

[[listen]]
quic = "127.0.0.1:0"

[admin]
{socket}drills = true

[telemetry]
otlp = "{endpoint}"
protocol = "http"
metrics_interval = "1s"
"#,
        REGIONS[0]
    );
    for DemoNode { name, address, agent, .. } in nodes {
        let agent = agent.map_or(String::new(), |agent| format!("agent = \"{agent}\"\n"));
        let (region, zone) = name.trim_end_matches('1').split_once('-').unwrap_or((name, ""));
        let written = write!(
            text,
            r#"
[[node]]
name = "{name}"
address = "{address}"
region = "{region}"
zone = "{zone}"
driver = "agent"
{agent}secret_file = "{name}.secret"
capacity = "{CAPACITY}"
"#
        );
        written.expect("a string takes everything");
    }
    text
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), LabError> {
    let what = format!("writing {}", path.display());
    fs::write(path, text).map_err(LabError::system(&what))
}
