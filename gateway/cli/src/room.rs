//! `evenkeel room`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::{Api, segment};
use crate::node::done;
use crate::status::{rows, text};
use crate::{Failure, say};

/// List rooms, and move them.
#[derive(Args)]
pub(crate) struct Room {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    api: Api,
    /// Say it as JSON: `list` as the API does, all else as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Every room with where it stands, its spares and who placed it
    List,
    /// Move a room to a node, make-before-break; nothing is lost
    Move {
        /// The room's name
        room: String,
        /// The node's name
        node: String,
    },
}

impl Room {
    pub(crate) fn act(self) -> Result<(), Failure> {
        match self.verb {
            Verb::List => {
                let rooms = self.api.operate(async |admin| admin.read("/v1/rooms").await)?;
                if self.json {
                    say(&rooms);
                } else {
                    rows(&rooms, "rooms").iter().for_each(|room| say(&line(room)));
                }
            }
            Verb::Move { room, node } => {
                let path = format!("/v1/rooms/{}:move", segment(&room));
                self.api.post(&path, &json!({"node": node}))?;
                done(self.json);
            }
        }
        Ok(())
    }
}

fn line(room: &Value) -> String {
    let route = rows(&room["route"], "");
    let nodes: Vec<&str> = route.iter().map(|hop| text(hop, "node")).collect();
    format!(
        "{:<24} {:<10} {:>3} sessions at {}, route {}, placed by {}",
        text(room, "room"),
        text(room, "scenario"),
        rows(&room["sessions"], "").len(),
        room["hop"]["node"].as_str().unwrap_or("no node"),
        nodes.join(" "),
        text(room, "placed_by"),
    )
}
