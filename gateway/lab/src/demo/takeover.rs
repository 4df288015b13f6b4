//! The last act: a group of two gateways, each on a host of its own. The owner is killed under calls, and its standby
//! takes them over.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::de::IgnoredAny;
use tokio::sync::oneshot;

use super::processes::{CALL, first_line, start, start_node, write};
use super::report::{GapFigures, Takeover};
use crate::clock;
use crate::crowd::{Crowd, CrowdPlan, InjectedFault, Scope};
use crate::error::LabError;
use crate::ledger::GapSpread;
use crate::network::{Host, INTERFACE, NamespaceGuard, NamespaceNetwork, PREFIX};
use crate::process::ChildProcess;
use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_contract::gateway::Gateway;

const SESSIONS: u32 = 40;
/// The address that belongs to one of the gateways.
const SHARED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 20);
const EDGES: [(&str, Ipv4Addr); 2] =
    [("edge-1", Ipv4Addr::new(10, 77, 0, 1)), ("edge-2", Ipv4Addr::new(10, 77, 0, 2))];
const NODE_NAME: &str = "east-a1";
/// Timeout until the first gateway owns the address and the second has its records.
const JOINED_WITHIN: Duration = Duration::from_secs(20);
/// Time before the fault, in which every receiver hears packets.
const STEADY: Duration = Duration::from_secs(1);
/// Observation time after the fault.
const AFTER_DEATH: Duration = Duration::from_secs(2);

/// Plays the act with files in `folder`, or returns the reason why this machine does not permit it. Everything has ended
/// when this returns, and soon after it is dropped.
pub(super) async fn play(
    evenkeel: &Path,
    folder: PathBuf,
    seed: u64,
) -> Result<Result<Takeover, String>, LabError> {
    let (_goes_on, dropped) = oneshot::channel::<()>();
    let evenkeel = evenkeel.to_owned();
    // A network namespace belongs to a thread.
    let act = tokio::task::spawn_blocking(move || {
        let network = match NamespaceNetwork::lay() {
            Ok(network) => network,
            Err(reason) => return Ok(Err(reason)),
        };
        let stage = TakeoverHosts::build(network, evenkeel, folder, seed)?;
        let _inside = enter(&stage.clients)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LabError::system("starting an event loop"))?;
        runtime.block_on(async {
            tokio::select! {
                takeover = stage.take_over() => takeover.map(Ok),
                _ = dropped => Err(LabError::Interrupted),
            }
        })
    });
    act.await.unwrap_or_else(|panicked| Err(LabError::Takeover(panicked.to_string())))
}

/// The hosts. Dropping them removes the network.
struct TakeoverHosts {
    clients: Host,
    node: Host,
    edges: Vec<Host>,
    _network: NamespaceNetwork,
    evenkeel: PathBuf,
    folder: PathBuf,
    seed: u64,
}

impl TakeoverHosts {
    fn build(
        network: NamespaceNetwork,
        evenkeel: PathBuf,
        folder: PathBuf,
        seed: u64,
    ) -> Result<TakeoverHosts, LabError> {
        let host = |name, at| network.host(name, at).map_err(LabError::Takeover);
        let edges = EDGES.into_iter().map(|(name, at)| host(name, at));
        let edges = edges.collect::<Result<Vec<Host>, LabError>>()?;
        let (clients, node) = (host("clients", CLIENTS)?, host("node", NODE)?);
        let policies = folder.join("policies");
        fs::create_dir_all(&policies).map_err(LabError::system("making the folder of a group"))?;
        write(&policies.join("call.toml"), CALL)?;
        write(&folder.join("cluster.secret"), "a secret of two gateways and of no others")?;
        Ok(TakeoverHosts { clients, node, edges, _network: network, evenkeel, folder, seed })
    }

    async fn take_over(&self) -> Result<Takeover, LabError> {
        let mut node = {
            let _inside = enter(&self.node)?;
            start_node(&self.evenkeel, &self.folder, NODE_NAME, &format!("{NODE}:7000"))?
        };
        first_line::<IgnoredAny>(&mut node).await?;
        let mut gateways = [self.start_gateway(0)?, self.start_gateway(1)?];
        for gateway in &mut gateways {
            first_line::<IgnoredAny>(gateway).await?;
        }
        self.await_standby().await?;
        let plan = CrowdPlan {
            both_ways: true,
            clients_at: CLIENTS.into(),
            seed: self.seed,
            ..CrowdPlan::new(SESSIONS)
        };
        let crowd = Crowd::enter(&plan, || self.admin(0)).await;
        let mut crowd = crowd.map_err(|error| LabError::Takeover(error.to_string()))?;
        tokio::time::sleep(STEADY).await;
        let fault = InjectedFault { at_ns: clock::now_ns(), scope: Scope::Everybody };
        let [owner, standby] = &mut gateways;
        owner.signal(Signal::SIGKILL)?;
        tokio::time::sleep(AFTER_DEATH).await;
        if !standby.is_running() {
            return Err(standby.error("ended").into());
        }
        let effect = crowd.end_window().await.effect_of(&fault);
        Ok(Takeover {
            sessions: effect.hit,
            unheard: effect.unheard,
            gap_ms: GapFigures { spread: GapSpread::of_ns(effect.gaps_ns), clock: "kernel" },
            packets_lost: effect.lost,
            twice: effect.twice,
            misdelivered: effect.misdelivered,
        })
    }

    fn start_gateway(&self, number: usize) -> Result<ChildProcess, LabError> {
        let [own, peer] = [number, 1 - number].map(|at| &self.edges[at]);
        let name = own.name();
        let file = self.folder.join(format!("{name}.toml"));
        let preferred = number == 0;
        write(
            &file,
            &format!(
                r#"[gateway]
region = "east"
policies = "policies"

[[listen]]
udp = "{SHARED}:7000"
identity = ["declared"]

[admin]
socket = "{name}.sock"

[[node]]
name = "{NODE_NAME}"
address = "{NODE}:7000"
region = "east"
zone = "a"
driver = "agent"
secret_file = "{NODE_NAME}.secret"
capacity = "200 Mbit/s"

[cluster]
name = "{name}"
secret_file = "cluster.secret"
listen = "{}:7100"
preferred = {preferred}

[cluster.peer]
name = "{}"
address = "{}:7100"

[[cluster.address]]
address = "{SHARED}/{PREFIX}"
interface = "{INTERFACE}"
"#,
                own.address(),
                peer.name(),
                peer.address(),
            ),
        )?;
        let _inside = enter(own)?;
        let words = ["run", "--config", &file.display().to_string(), "--json"];
        Ok(start(&self.evenkeel, &words, name, &self.folder)?)
    }

    fn admin(&self, number: usize) -> ApiClient {
        let socket = self.folder.join(format!("{}.sock", self.edges[number].name()));
        ApiClient::new(ApiEndpoint::Unix(socket))
    }

    /// Waits until the first gateway is the owner, and the second its standby with all records.
    async fn await_standby(&self) -> Result<(), LabError> {
        let until = Instant::now() + JOINED_WITHIN;
        let mut owner = self.admin(0);
        loop {
            let listed = owner.gateways().await.map_err(LabError::gateway("listing gateways"))?;
            let gateways = &listed.gateways;
            let is_owner = |gateway: &Gateway| gateway.here && gateway.role == "owner";
            let is_standby = |gateway: &Gateway| gateway.role == "standby" && gateway.in_sync;
            if gateways.iter().any(is_owner) && gateways.iter().any(is_standby) {
                return Ok(());
            }
            if Instant::now() > until {
                let what = format!("a group in sync, instead of {listed:?},");
                return Err(LabError::in_vain(what, JOINED_WITHIN));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn enter(host: &Host) -> Result<NamespaceGuard, LabError> {
    host.enter().map_err(LabError::Takeover)
}
