//! Quilkin: one worker, a socket per session, nodes chosen by the client's address.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::load::Wire;
use serde_json::{Value, json};

use super::{Kind, Places, Running, Stage, rig, system, write};
use crate::namespace::RELAY;
use crate::process;

const PORT: u16 = 5_003;

pub(super) fn missing(places: &Places) -> Option<String> {
    let program = program(places);
    (!program.exists()).then(|| format!("{} is not there (tests/bench/install)", program.display()))
}

fn program(places: &Places) -> PathBuf {
    places.peers.join("bin/quilkin")
}

pub(super) fn start(stage: Stage, places: &Places) -> Result<Running, String> {
    let rig = rig(stage, Wire::Port, Vec::new())?;
    let nodes = rig.nodes_at().map_err(system)?;
    let endpoints: Vec<Value> = nodes.iter().map(|node| json!({"address": node})).collect();
    let config = json!({
        "version": "v1alpha1",
        "filters": [{
            "name": "quilkin.filters.load_balancer.v1alpha1.LoadBalancer",
            "config": {"policy": "HASH"},
        }],
        "clusters": [{"endpoints": endpoints}],
    });
    let config = write(&places.folder, "quilkin.yaml", &config.to_string())?;
    let words = [
        "--service.udp".to_owned(),
        format!("--service.udp.port={PORT}"),
        "--service.udp.workers=1".to_owned(),
        "--provider.fs".to_owned(),
        format!("--provider.fs.path={}", config.display()),
    ];
    let process = process::start("quilkin", &program(places), &words, b"", &places.folder)?;
    let listen = SocketAddr::from((RELAY, PORT));
    for session in (0..).take(stage.sessions) {
        rig.connect(session, listen).map_err(system)?;
    }
    Ok(Running { kind: Kind::Quilkin, process, rig, api: None })
}
