//! The floor and the limit: this program as another process.

use crate::load::Wire;

use super::{Kind, Places, Running, Stage, rig, system};
use crate::bare::{Manner, Orders};
use crate::process;
use crate::row::Leg;

pub(super) fn start(manner: Manner, stage: Stage, places: &Places) -> Result<Running, String> {
    let (kind, word) = match manner {
        Manner::Floor => (Kind::Floor, "floor"),
        Manner::Limit => (Kind::Limit, "limit"),
    };
    let wire = match (stage.leg, manner) {
        (Leg::Port, _) => Wire::Port,
        (Leg::Trunk, Manner::Floor) => Wire::Shared,
        (Leg::Trunk, Manner::Limit) => Wire::Bundled,
    };
    let rig = rig(stage, wire, Vec::new())?;
    let orders = Orders {
        socket_per_session: stage.leg == Leg::Port,
        clients: rig.clients_at().map_err(system)?,
        nodes: rig.nodes_at().map_err(system)?,
    };
    let own = std::env::current_exe().map_err(system)?;
    let input = serde_json::to_vec(&orders).map_err(|error| error.to_string())?;
    let words = ["relay".to_owned(), word.to_owned()];
    let mut process = process::start(word, &own, &words, &input, &places.folder)?;
    let listening = process.json_line(process::FIRST_LINE_WITHIN)?;
    let address = listening["listening"].as_str().and_then(|text| text.parse().ok());
    let address = address.ok_or_else(|| process.error(format!("said {listening}")))?;
    for session in (0..).take(stage.sessions) {
        rig.connect(session, address).map_err(system)?;
    }
    Ok(Running { kind, process, rig, api: None })
}
