//! `evenkeel room`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::ApiArgs;
use crate::node::asked;
use crate::status::{rows, text};
use crate::{CommandError, say};

/// List and move rooms.
#[derive(Args)]
pub(crate) struct RoomArgs {
    #[command(subcommand)]
    verb: RoomCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `move` as `{"accepted": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum RoomCommand {
    /// List rooms with number, node, route and deciding policy
    List,
    /// Move a room to a node, make-before-break and without loss. The command returns before the move, which begins once the
    /// room's sessions are open at the node: the event `moved` reports success, `move-ended` failure; `session explain` shows both
    #[command(verbatim_doc_comment)]
    Move {
        /// The room's name; with `affinity = "session"` each session is a room of its own: `conf~s7`
        room: String,
        /// The node's name
        node: String,
    },
}

impl RoomArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        match self.verb {
            RoomCommand::List => {
                let rooms = self.api.operate(async |admin| admin.list("rooms").await)?;
                if self.json {
                    say(&json!({"rooms": rooms}));
                } else {
                    rooms.iter().for_each(|room| say(&line(room)));
                }
            }
            RoomCommand::Move { room, node } => {
                let path = format!("/v1/rooms/{}:move", evenkeel_client::escape(&room));
                self.api.post(&path, &json!({"node": node}))?;
                let words = format!(
                    "{room} moves to {node} once its sessions are open there; `evenkeel room list` shows its node, and `evenkeel session explain` the outcome"
                );
                asked(self.json, &words);
            }
        }
        Ok(())
    }
}

fn line(room: &Value) -> String {
    let route = rows(&room["route"], "");
    let nodes: Vec<&str> = route.iter().map(|hop| text(hop, "node")).collect();
    format!(
        "{:<24} {:<6} {:<10} {:>3} sessions at {}, route {}, placed by {}",
        text(room, "room"),
        text(room, "id"),
        text(room, "scenario"),
        rows(&room["sessions"], "").len(),
        room["hop"]["node"].as_str().unwrap_or("no node"),
        nodes.join(" "),
        text(room, "placed_by"),
    )
}
