//! The gateway and quinn's echo with their clients.

use std::net::SocketAddr;
use std::path::PathBuf;

use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_contract::offers::{OfferAnswer, OfferIngress};
use evenkeel_media::roq::FlowId;
use evenkeel_media::trunk::message::NodeSecret;

use super::clients::Way;
use super::load::Load;
use crate::process;
use crate::relay::{Places, offer};
use crate::row::Leg;
use evenkeel_lab::process::ChildProcess;

const SECRET: &str = "secret of bench nodes and gateway";
const NODE: &str = "east-a0";

/// A relay that forwards, and the load around it.
pub(super) struct Running {
    pub(super) process: ChildProcess,
    pub(super) load: Load,
}

pub(super) fn echo(sessions: usize, places: &Places) -> Result<Running, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let words = ["quinn-echo".to_owned()];
    let mut process = process::start("quinn-echo", &own, &words, b"", &places.folder)?;
    let said = process.json_line(process::FIRST_LINE_WITHIN)?;
    let relay: Option<SocketAddr> = said["listening"].as_str().and_then(|text| text.parse().ok());
    let sha256 = serde_json::from_value(said["sha256"].clone()).ok();
    let (Some(relay), Some(certificate_sha256)) = (relay, sha256) else {
        return Err(process.error(format!("said {said}")).into());
    };
    let mut load = Load::new().map_err(|error| error.to_string())?;
    let ways: Vec<Way> = (0..sessions as u64)
        .filter_map(FlowId::new)
        .map(|flow| Way { relay, certificate_sha256, flow_out: flow, flow_in: flow })
        .collect();
    load.connect(&ways).map_err(|why| process.error(why))?;
    Ok(Running { process, load })
}

/// The gateway, its sessions opened through its HTTP API, all at one node.
pub(super) fn ours(leg: Leg, sessions: usize, places: &Places) -> Result<Running, String> {
    let mut load = Load::new().map_err(|error| error.to_string())?;
    let secret = NodeSecret::new(SECRET.as_bytes(), NODE).map_err(|error| error.to_string())?;
    let node = load.with_node(secret, sessions).map_err(|error| error.to_string())?;
    let folder = places.folder.join("roq");
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.join("policies"))
            .and_then(|()| std::fs::write(folder.join(name), text))
            .map_err(|error| format!("cannot write {name} in {}: {error}", folder.display()))
    };
    write("secret", SECRET)?;
    write("policies/call.toml", "[scenario.call]\nclose_after = \"1h\"\n")?;
    write("evenkeel.toml", &configuration(leg, node))?;
    let config = folder.join("evenkeel.toml").display().to_string();
    let words = ["run", "--config", &config, "--json"].map(str::to_owned);
    let mut process = process::start("ours-roq", &places.evenkeel, &words, b"", &places.folder)?;
    let said = process.json_line(process::FIRST_LINE_WITHIN)?;
    let Some(api) = said["socket"].as_str().map(PathBuf::from) else {
        return Err(process.error(format!("said {said}")).into());
    };
    let opening = std::thread::spawn(move || open(sessions, api));
    while !opening.is_finished() {
        load.idle();
    }
    let ways = opening.join().map_err(|_| "the task that opens sessions panicked".to_owned());
    let ways = ways.flatten().map_err(|why| process.error(why))?;
    load.connect(&ways).map_err(|why| process.error(why))?;
    Ok(Running { process, load })
}

fn configuration(leg: Leg, node: SocketAddr) -> String {
    let driver = match leg {
        Leg::Port => "driver = \"plain\"\nprobe = \"echo\"",
        Leg::Trunk => "driver = \"agent\"\nsecret_file = \"secret\"\ncanary = false",
    };
    format!(
        "[gateway]\nregion = \"east\"\npolicies = \"policies\"\ndrain_timeout = \"0s\"\n\n\
         [[listen]]\nquic = \"10.77.0.1:0\"\n\n[admin]\nsocket = \"admin.sock\"\n\n\
         [limits]\nworkers = 1\n\n\
         [[node]]\nname = \"{NODE}\"\naddress = \"{node}\"\nregion = \"east\"\nzone = \"a\"\n{driver}\n\
         capacity = \"1000 Gbit/s\"\n"
    )
}

fn open(sessions: usize, api: PathBuf) -> Result<Vec<Way>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let mut admin = ApiClient::new(ApiEndpoint::Unix(api));
        let mut ways = Vec::with_capacity(sessions);
        for session in 0..sessions as u32 {
            let opened = admin
                .open(&offer(session, OfferIngress::quic()))
                .await
                .map_err(|error| error.to_string())?;
            ways.push(way(&opened).ok_or_else(|| format!("no QUIC address: {opened:?}"))?);
        }
        Ok(ways)
    })
}

fn way(opened: &OfferAnswer) -> Option<Way> {
    let quic = opened.quic.as_ref()?;
    let flow = |text: &str| text.parse().ok().and_then(FlowId::new);
    Some(Way {
        relay: *quic.addresses.first()?,
        certificate_sha256: quic.certificate()?,
        flow_out: flow(&quic.flow_to_gateway)?,
        flow_in: flow(&quic.flow_from_gateway)?,
    })
}
