//! Envoy as a UDP proxy: one worker, a socket per session.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::load::Wire;
use serde_json::{Value, json};

use super::{Kind, Places, Running, Stage, rig, system, write};
use crate::namespace::RELAY;
use crate::process;

const PORT: u16 = 5_002;
/// Envoy's session limit; the default is 1,024.
const SESSIONS_MAX: u32 = 100_000;

pub(super) fn missing(places: &Places) -> Option<String> {
    let program = program(places);
    (!program.exists()).then(|| format!("{} is not there (tests/bench/install)", program.display()))
}

fn program(places: &Places) -> PathBuf {
    places.peers.join("envoy")
}

pub(super) fn start(stage: Stage, places: &Places) -> Result<Running, String> {
    let rig = rig(stage, Wire::Port, Vec::new())?;
    let listen = SocketAddr::from((RELAY, PORT));
    let config = configuration(listen, &rig.nodes_at().map_err(system)?).to_string();
    let config = write(&places.folder, "envoy.json", &config)?;
    let config = config.display().to_string();
    let words = ["-c", &config, "--concurrency", "1", "--disable-hot-restart", "-l", "warn"];
    let words = words.map(str::to_owned);
    let process = process::start("envoy", &program(places), &words, b"", &places.folder)?;
    for session in (0..).take(stage.sessions) {
        rig.connect(session, listen).map_err(system)?;
    }
    Ok(Running { kind: Kind::Envoy, process, rig, api: None })
}

fn configuration(listen: SocketAddr, nodes: &[SocketAddr]) -> Value {
    const EXTENSION: &str = "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.";
    let at = |address: &SocketAddr, protocol: &str| {
        json!({"socket_address": {
            "protocol": protocol, "address": address.ip().to_string(), "port_value": address.port(),
        }})
    };
    let endpoints: Vec<Value> =
        nodes.iter().map(|node| json!({"endpoint": {"address": at(node, "UDP")}})).collect();
    let buffer = |name: u32| json!({"level": 1, "name": name, "int_value": 4 << 20, "state": "STATE_PREBIND"});
    json!({"static_resources": {
        "listeners": [{
            "name": "media",
            "address": at(&listen, "UDP"),
            // SO_SNDBUF and SO_RCVBUF, as large as those of the other relays.
            "socket_options": [buffer(7), buffer(8)],
            "listener_filters": [{
                "name": "envoy.filters.udp_listener.udp_proxy",
                "typed_config": {
                    "@type": format!("{EXTENSION}UdpProxyConfig"),
                    "stat_prefix": "media",
                    "idle_timeout": "3600s",
                    "matcher": {"on_no_match": {"action": {
                        "name": "route",
                        "typed_config": {"@type": format!("{EXTENSION}Route"), "cluster": "nodes"},
                    }}},
                },
            }],
        }],
        "clusters": [{
            "name": "nodes",
            "type": "STATIC",
            "lb_policy": "ROUND_ROBIN",
            "circuit_breakers": {"thresholds": [{"max_connections": SESSIONS_MAX}]},
            "load_assignment": {
                "cluster_name": "nodes",
                "endpoints": [{"lb_endpoints": endpoints}],
            },
        }],
    }})
}
