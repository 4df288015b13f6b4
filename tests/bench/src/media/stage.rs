//! A gateway and a sample node as processes, and the sessions of clients.

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

const NODE: &str = "east-a1";

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
    /// WebRTC by the shipped policies. The gateway listens at the first address and tells clients the second one.
    Webrtc { gateway: SocketAddr, advertised: SocketAddr },
}

/// A running gateway. Dropping it ends the processes.
pub(super) struct MediaStage {
    /// The socket of the API.
    pub(super) api: PathBuf,
    runtime: Runtime,
    admin: ApiClient,
    gateway: ChildProcess,
    _node: ChildProcess,
}

impl MediaStage {
    /// Starts both in this folder, and waits until the gateway takes sessions. `leg` gets the address of the node, and returns the
    /// one that the gateway uses.
    ///
    /// # Errors
    /// A process cannot be started, or does not serve.
    pub(super) fn start(
        evenkeel: &Path,
        folder: &Path,
        clients: Clients,
        leg: impl FnOnce(SocketAddr) -> io::Result<SocketAddr>,
    ) -> Result<MediaStage, String> {
        let secret = write(folder, "secret", "secret of the media bench's node and gateway")?;
        let secret = secret.display().to_string();
        let words = ["sample-node", "--json", "--listen", "127.0.0.1:0", "--name", NODE];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        words.extend(["--secret".to_owned(), secret]);
        if matches!(clients, Clients::Webrtc { .. }) {
            words.push("--webrtc".to_owned());
        }
        let mut node = process::start(NODE, evenkeel, &words, b"", folder)?;
        let line = node.json_line(FIRST_LINE_WITHIN)?;
        let address = line["listening"].as_str().and_then(|address| address.parse().ok());
        let address: SocketAddr = address.ok_or_else(|| node.error(format!("printed {line}")))?;
        let address = leg(address).map_err(|error| error.to_string())?;
        if clients == Clients::Declared {
            let policies = folder.join("policies");
            fs::create_dir_all(&policies).map_err(|error| error.to_string())?;
            write(&policies, "call.toml", CALL)?;
        }
        let config = write(folder, "evenkeel.toml", &configuration(clients, address))?;
        let words = ["run", "--json", "--config", &config.display().to_string()].map(str::to_owned);
        let mut gateway = process::start("gateway", evenkeel, &words, b"", folder)?;
        let line = gateway.json_line(FIRST_LINE_WITHIN)?;
        let api = line["socket"].as_str().map(PathBuf::from);
        let api = api.ok_or_else(|| gateway.error(format!("printed {line}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(relay::ready(&api)).map_err(|why| gateway.error(why))?;
        let admin = ApiClient::new(ApiEndpoint::Unix(api.clone()));
        Ok(MediaStage { api, runtime, admin, gateway, _node: node })
    }

    /// The sessions with a degradation in force.
    ///
    /// # Errors
    /// The gateway does not answer.
    pub(super) fn degraded(&mut self) -> Result<usize, String> {
        let page = self.runtime.block_on(self.admin.get::<SessionPage>("/v1/sessions"));
        let page = page.map_err(|error| self.gateway.error(error.to_string()))?;
        let is_degraded = |session: &&Session| session.rung > 0 || !session.actions.is_empty();
        Ok(page.sessions.iter().filter(is_degraded).count())
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

fn configuration(clients: Clients, node: SocketAddr) -> String {
    let (gateway, listen) = match clients {
        Clients::Declared => ("policies = \"policies\"\n", DECLARED.to_owned()),
        Clients::DeclaredByPolicies => ("", DECLARED.to_owned()),
        Clients::Webrtc { gateway, advertised } => (
            "",
            format!("udp = \"{gateway}\"\nidentity = [\"stun\"]\nadvertise = \"{advertised}\"\n"),
        ),
    };
    format!(
        "[gateway]\nregion = \"east\"\n{gateway}cache = \"cache\"\ndrain_timeout = \"0s\"\n\n\
         [[listen]]\n{listen}\n[admin]\nsocket = \"admin.sock\"\n\n\
         [[node]]\nname = \"{NODE}\"\naddress = \"{node}\"\nregion = \"east\"\nzone = \"a\"\n\
         driver = \"agent\"\nsecret_file = \"secret\"\ncapacity = \"1 Gbit/s\"\n"
    )
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}
