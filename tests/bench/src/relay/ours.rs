//! The gateway: as it ships, sessions opened through its HTTP API.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::load::{Rig, Wire};
use evenkeel_client::{ApiCall, ApiClient, ApiEndpoint};
use evenkeel_contract::offers::{
    OfferAnswer, OfferFeedback, OfferIngress, OfferMedia, OfferPayloadType, OfferRequest,
    OfferStreamKind as MediaKind,
};
use evenkeel_media::srtp::{CryptoAttribute, SrtpKey};
use evenkeel_media::trunk::message::NodeSecret;
use evenkeel_model::SessionId;
use hyper::Method;
use serde_json::{Value, json};

use super::{Kind, Places, Running, Stage, client_line, relay_key, rig, system, write};
use crate::process;
use crate::row::Leg;

const SECRET: &str = "secret of bench nodes and gateway";
/// The payload type of a load.
const PAYLOAD_TYPE: u8 = 111;
/// Connections by which sessions are opened.
const CONNECTIONS: usize = 8;

/// Time limit for a gateway with an empty compilation cache to take sessions.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Interval of checks whether the gateway is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The gateway's compilation cache, in the bench's folder, so that no other gateway filled it.
const CACHE: &str = "cache";

/// The shipped set `call` with five changes: nodes cost the same, so that rooms spread over all of them and stay;
/// receive-only clients are neither awaited nor closed; revisions activate at once; a cap counts as degraded quality,
/// since there is only voice to take away; and no session of a saturated row exceeds the ceiling.
const CALL: &str = r#"
[scenario.call]
mode = "hot"
spares = 2
bitrate = { floor = "24 kbit/s", ceiling = "1 Gbit/s" }
close_after = "1h"
await_first_packet = false

[rollout]
canary = []
judge = { rung = 1 }

[resolve]
plugin = "scenario-call"
settings = { floor = 24, ceiling = 1000000, priority = 20, close_after = "1h" }
on_fault = "builtin"

[admission]
plugin = "admit-capacity"
settings = { cap_above = 0.8, cap = 300, full_above = 0.95, redirect_below = 0.7, retry_after = "5s" }
on_fault = "admit-capped"

[routing]
plugin = "route-nearest"
settings = { delay_weight = 0.0, loss_weight = 0.0, load_weight = 0.0, zone_cost = 0.0, wary_cost = 0.0, spares = 2, min_stay = "1h" }
on_fault = "native"

[degradation]
plugin = "degrade-ladder"
settings = { steps = ["cap", "voice-only"], down_at_loss = 0.03, down_after = "600ms", hysteresis = 0.5, up_after = "5s", cap_factor = 0.5 }
on_fault = "hold"
"#;

pub(crate) fn forget_compiled(places: &Places) -> Result<(), String> {
    match std::fs::remove_dir_all(places.folder.join(CACHE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(system(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn start(stage: Stage, places: &Places) -> Result<Running, String> {
    let (wire, nodes) = match stage.leg {
        Leg::Port => (Wire::Port, 0),
        Leg::Trunk => (Wire::Bundled, stage.destinations),
    };
    let secrets = (0..nodes).map(|number| NodeSecret::new(SECRET.as_bytes(), &node_name(number)));
    let secrets = secrets.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let mut rig = rig(stage, wire, secrets)?;
    let policies = places.folder.join("policies");
    std::fs::create_dir_all(&policies).map_err(system)?;
    write(&policies, "call.toml", CALL)?;
    write(&places.folder, "secret", SECRET)?;
    let text = configuration(stage.leg, &rig.nodes_at().map_err(system)?)?;
    let config = write(&places.folder, "evenkeel.toml", &text)?;
    let words = ["run", "--config", &config.display().to_string(), "--json"].map(str::to_owned);
    let mut process = process::start("ours", &places.evenkeel, &words, b"", &places.folder)?;
    let listening =
        rig.serving(|| process.json_line(process::FIRST_LINE_WITHIN)).map_err(system)??;
    let api = listening["socket"].as_str().map(PathBuf::from);
    let api = api.ok_or_else(|| process.error(format!("said {listening}")))?;
    open_all(&mut rig, &api, stage).map_err(|why| process.error(why))?;
    Ok(Running { kind: Kind::Ours, process, rig, api: Some(api) })
}

fn configuration(leg: Leg, nodes: &[SocketAddr]) -> Result<String, String> {
    let mut text = format!(
        "[gateway]\nregion = \"east\"\npolicies = \"policies\"\ncache = \"{CACHE}\"\ndrain_timeout = \"0s\"\n\n\
         [[listen]]\nudp = \"10.77.0.1:0\"\nidentity = [\"declared\", \"stun\"]\n\n\
         [admin]\nsocket = \"admin.sock\"\n\n\
         [limits]\nworkers = 1\nsessions = 200000\n",
    );
    let driver = match leg {
        Leg::Port => "driver = \"plain\"\nprobe = \"echo\"",
        // Nodes of a load answer only the gateway's packets.
        Leg::Trunk => "driver = \"agent\"\nsecret_file = \"secret\"\ncanary = false",
    };
    for (number, address) in nodes.iter().enumerate() {
        let (name, zone) = (node_name(number), zone(number));
        write!(
            text,
            "\n[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nregion = \"east\"\n\
             zone = \"{zone}\"\n{driver}\ncapacity = \"1000 Gbit/s\"\n"
        )
        .map_err(|error| error.to_string())?;
    }
    Ok(text)
}

fn node_name(number: usize) -> String {
    format!("east-{}{number}", zone(number))
}

/// Two zones, as a region has.
fn zone(number: usize) -> &'static str {
    ["a", "b"][number % 2]
}

/// Opens every session, one per room, and sets its client's destination from the answer.
fn open_all(rig: &mut Rig, api: &std::path::Path, stage: Stage) -> Result<(), String> {
    let clients = rig.clients_at().map_err(system)?;
    let opened = rig.serving(|| open(&clients, api, stage)).map_err(system)??;
    for OpenedSession { session, opened, keys } in opened {
        let address = opened.udp.as_ref().and_then(|udp| udp.addresses.first());
        let (Some(address), Some(id)) = (address, SessionId::parse(&opened.id)) else {
            return Err(format!("answered without an address or an id: {opened:?}"));
        };
        rig.know(id.0, session);
        rig.connect(session, *address).map_err(system)?;
        if let Some([client, relay]) = keys {
            rig.encrypt(session, &client, &relay)?;
        }
    }
    Ok(())
}

struct OpenedSession {
    session: u32,
    opened: OfferAnswer,
    /// The keys of a client with SRTP, and of the gateway.
    keys: Option<[SrtpKey; 2]>,
}

fn open(
    clients: &[SocketAddr],
    api: &std::path::Path,
    stage: Stage,
) -> Result<Vec<OpenedSession>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(system)?.block_on(async {
        ready(api).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for first in 0..CONNECTIONS.min(clients.len()) {
            let mut admin = ApiClient::new(ApiEndpoint::Unix(api.to_owned()));
            let own = clients.iter().copied().zip(0_u32..).skip(first).step_by(CONNECTIONS);
            let own: Vec<(SocketAddr, u32)> = own.collect();
            tasks.spawn(async move {
                let mut opened = Vec::with_capacity(own.len());
                for (address, session) in own {
                    let mut offer = offer(session, declared(address));
                    let remb = stage.obeys_caps.then_some(OfferFeedback::Remb);
                    let streams = offer.media.iter_mut().flatten();
                    streams.for_each(|one| one.feedback.extend(remb));
                    let line = stage.srtp.map(|suite| client_line(suite, session));
                    opened.push(open_one(&mut admin, session, &offer, line).await?);
                }
                Ok::<_, String>(opened)
            });
        }
        let mut all = Vec::with_capacity(clients.len());
        while let Some(opened) = tasks.join_next().await {
            all.extend(opened.map_err(|error| error.to_string())??);
        }
        Ok(all)
    })
}

async fn open_one(
    admin: &mut ApiClient,
    session: u32,
    offer: &OfferRequest,
    line: Option<CryptoAttribute>,
) -> Result<OpenedSession, String> {
    let mut body = serde_json::to_value(offer).map_err(|error| error.to_string())?;
    if let Some(line) = &line {
        body["srtp"] = json!({"crypto": [*line.to_value()]});
    }
    let body = body.to_string().into();
    let call = ApiCall { method: Method::POST, path: "/v1/sessions", headers: &[], body };
    let answer = admin.ask(call).await.and_then(|answer| answer.accepted());
    let answer: Value = answer.map_err(|error| error.to_string())?;
    let keys = line.map(|line| {
        let value = answer["srtp"]["crypto"][0].as_str().unwrap_or_default();
        relay_key(value, &line).map(|relay| [line.key, relay])
    });
    let keys = keys.transpose()?;
    let opened = serde_json::from_value(answer).map_err(|error| error.to_string())?;
    Ok(OpenedSession { session, opened, keys })
}

/// Waits until the gateway takes sessions: its policies may still be compiled.
pub(crate) async fn ready(api: &std::path::Path) -> Result<(), String> {
    let (mut admin, began) = (ApiClient::new(ApiEndpoint::Unix(api.to_owned())), Instant::now());
    while !admin.is_ready().await.map_err(|error| error.to_string())? {
        if began.elapsed() > READY_WITHIN {
            return Err(format!("takes no sessions after {READY_WITHIN:?}"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(())
}

fn declared(address: SocketAddr) -> OfferIngress {
    OfferIngress::declared(address)
}

/// An offer of voice, in a room of its own.
pub(crate) fn offer(session: u32, ingress: OfferIngress) -> OfferRequest {
    let opus = OfferPayloadType::new(PAYLOAD_TYPE, "opus", 48_000);
    OfferRequest {
        scenario: "call".to_owned(),
        room: format!("room-{session}"),
        ingress: Some(ingress),
        media: Some(vec![OfferMedia {
            kind: MediaKind::Audio,
            payload_types: vec![opus],
            feedback: Vec::new(),
            bitrate: None,
        }]),
        ..OfferRequest::default()
    }
}
