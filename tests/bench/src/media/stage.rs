//! A gateway and its sample nodes as processes, and the sessions of clients.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint};
use evenkeel_contract::sessions::{Session, SessionPage};
use evenkeel_lab::process::ChildProcess;
use hyper::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::process::{self, FIRST_LINE_WITHIN};
use crate::relay;

/// The nodes. [`Clients::DeclaredOverTwo`] alone have the second one.
static NODES: [&str; 2] = ["east-a1", "east-a2"];

/// No policy decides, so that a row shows what repair does alone.
const CALL: &str = r#"
[scenario.call]
bitrate = { floor = "24 kbit/s", ceiling = "8 Mbit/s" }
close_after = "1h"
await_first_packet = false
"#;

/// The listener of clients with declared addresses.
const DECLARED: &str = "udp = \"127.0.0.1:0\"\nidentity = [\"declared\"]\n";

/// The clients of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Clients {
    /// Plain RTP from declared addresses, without policies.
    Declared,
    /// The same by the shipped policies.
    DeclaredByPolicies,
    /// Plain RTP from declared addresses, without policies, over two nodes that leave packets unchanged.
    DeclaredOverTwo,
    /// WebRTC by the shipped policies. The gateway listens at the first address and tells clients the second one.
    Webrtc { gateway: SocketAddr, advertised: SocketAddr },
}

impl Clients {
    fn node_names(self) -> &'static [&'static str] {
        if self == Clients::DeclaredOverTwo { &NODES } else { &NODES[..1] }
    }
}

/// A running gateway. Dropping it ends the processes.
pub(super) struct MediaStage {
    /// The socket of the API.
    pub(super) api: PathBuf,
    runtime: Runtime,
    admin: ApiClient,
    gateway: ChildProcess,
    _nodes: Vec<ChildProcess>,
}

impl MediaStage {
    /// Starts all in this folder, and waits until the gateway takes sessions. `leg` gets the address of a node, and returns the one that the
    /// gateway uses.
    ///
    /// # Errors
    /// A process cannot be started, or does not serve.
    pub(super) fn start(
        evenkeel: &Path,
        folder: &Path,
        clients: Clients,
        mut leg: impl FnMut(SocketAddr) -> io::Result<SocketAddr>,
    ) -> Result<MediaStage, String> {
        let secret = write(folder, "secret", "secret of the media bench's node and gateway")?;
        let secret = secret.display().to_string();
        let (mut nodes, mut addresses) = (Vec::new(), Vec::new());
        for &name in clients.node_names() {
            let words = ["sample-node", "--json", "--listen", "127.0.0.1:0", "--name", name];
            let mut words: Vec<String> = words.map(str::to_owned).into();
            words.extend(["--secret".to_owned(), secret.clone()]);
            match clients {
                Clients::Webrtc { .. } => words.push("--webrtc".to_owned()),
                Clients::DeclaredOverTwo => words.push("--untouched".to_owned()),
                Clients::Declared | Clients::DeclaredByPolicies => {}
            }
            let mut node = process::start(name, evenkeel, &words, b"", folder)?;
            let line = node.json_line(FIRST_LINE_WITHIN)?;
            let address = line["listening"].as_str().and_then(|address| address.parse().ok());
            let address: SocketAddr =
                address.ok_or_else(|| node.error(format!("printed {line}")))?;
            addresses.push(leg(address).map_err(|error| error.to_string())?);
            nodes.push(node);
        }
        let scenario = match clients {
            Clients::Declared => Some(CALL.to_owned()),
            Clients::DeclaredOverTwo => Some(format!("{CALL}mode = \"hitless\"\n")),
            Clients::DeclaredByPolicies | Clients::Webrtc { .. } => None,
        };
        if let Some(scenario) = scenario {
            let policies = folder.join("policies");
            fs::create_dir_all(&policies).map_err(|error| error.to_string())?;
            write(&policies, "call.toml", &scenario)?;
        }
        let config = write(folder, "evenkeel.toml", &configuration(clients, &addresses))?;
        let words = ["run", "--json", "--config", &config.display().to_string()].map(str::to_owned);
        let mut gateway = process::start("gateway", evenkeel, &words, b"", folder)?;
        let line = gateway.json_line(FIRST_LINE_WITHIN)?;
        let api = line["socket"].as_str().map(PathBuf::from);
        let api = api.ok_or_else(|| gateway.error(format!("printed {line}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(relay::ready(&api)).map_err(|why| gateway.error(why))?;
        let admin = ApiClient::new(ApiEndpoint::Unix(api.clone()));
        Ok(MediaStage { api, runtime, admin, gateway, _nodes: nodes })
    }

    /// The sessions with a degradation in force.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(super) fn degraded(&mut self) -> Result<usize, String> {
        let is_degraded = |session: &&Session| session.rung > 0 || !session.actions.is_empty();
        Ok(self.sessions()?.iter().filter(is_degraded).count())
    }

    /// All sessions, of which a stage has fewer than a page.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(super) fn sessions(&mut self) -> Result<Vec<Session>, String> {
        let page = self.runtime.block_on(self.admin.get::<SessionPage>("/v1/sessions"));
        Ok(page.map_err(|error| self.gateway.error(error.to_string()))?.sessions)
    }

    /// Opens a session of a declared client. Returns the gateway's address for it.
    ///
    /// # Errors
    /// The gateway refuses the offer.
    pub(super) fn open(&mut self, offer: &Value) -> Result<SocketAddr, String> {
        let body = offer.to_string().into();
        let call = ApiCall { method: Method::POST, path: "/v1/sessions", headers: &[], body };
        let asked = self.runtime.block_on(self.admin.ask(call));
        let answer = asked.and_then(|answer| answer.accepted());
        let answer = answer.map_err(|error| self.gateway.error(format!("{error}: {offer}")))?;
        let address = answer["udp"]["addresses"][0].as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| self.gateway.error(format!("answered {answer}")).into())
    }
}

fn configuration(clients: Clients, nodes: &[SocketAddr]) -> String {
    let (gateway, listen) = match clients {
        Clients::Declared | Clients::DeclaredOverTwo => {
            ("policies = \"policies\"\n", DECLARED.to_owned())
        }
        Clients::DeclaredByPolicies => ("", DECLARED.to_owned()),
        Clients::Webrtc { gateway, advertised } => (
            "",
            format!("udp = \"{gateway}\"\nidentity = [\"stun\"]\nadvertise = \"{advertised}\"\n"),
        ),
    };
    let mut text = format!(
        "[gateway]\nregion = \"east\"\n{gateway}cache = \"cache\"\ndrain_timeout = \"0s\"\n\n\
         [[listen]]\n{listen}\n[admin]\nsocket = \"admin.sock\"\n"
    );
    for (name, address) in clients.node_names().iter().zip(nodes) {
        text += &format!(
            "\n[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nregion = \"east\"\n\
             zone = \"a\"\ndriver = \"agent\"\nsecret_file = \"secret\"\ncapacity = \"1 Gbit/s\"\n"
        );
    }
    text
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
