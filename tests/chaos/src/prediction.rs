//! The blast radius that the gateway computes before a fault, compared with the rooms after it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::stage::Stage;

/// The next node of each affected room; `None` if none has capacity.
pub(crate) type Targets = BTreeMap<String, Option<String>>;

/// Affected rooms, and those that went where the gateway said.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Predicted {
    pub(crate) rooms: usize,
    pub(crate) equal: usize,
}

impl Predicted {
    pub(crate) fn percent(self) -> f64 {
        self.equal as f64 * 100.0 / self.rooms.max(1) as f64
    }

    /// Compares with the rooms of now.
    pub(crate) async fn compare(&mut self, targets: &Targets, stage: &Stage) -> Result<(), String> {
        let nodes: Targets = stage.rooms().await?.iter().map(|room| target(room, "hop")).collect();
        self.rooms += targets.len();
        self.equal += targets.iter().filter(|(room, to)| nodes.get(*room) == Some(to)).count();
        Ok(())
    }
}

/// The blast radius of these nodes, room by room.
pub(crate) async fn ask(stage: &Stage, nodes: &[String]) -> Result<Targets, String> {
    let path = format!("/v1/blast?nodes={}&rooms=true", nodes.join(","));
    let blast = stage.admin().read(&path).await.map_err(stage.request_error("the blast radius"))?;
    let rooms = blast["details"].as_array().into_iter().flatten();
    Ok(rooms.map(|room| target(room, "to")).collect())
}

/// The name of the room, and its node under this key.
fn target(room: &Value, key: &str) -> (String, Option<String>) {
    let node = room[key].as_str().or_else(|| room[key]["node"].as_str());
    (room["room"].as_str().unwrap_or_default().to_owned(), node.map(str::to_owned))
}
