//! `evenkeel node`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::ApiArgs;
use crate::status::{rows, text};
use crate::{CommandError, say};

/// List, drain, eject and return nodes.
#[derive(Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    verb: NodeCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list` as in the API, `drain` as `{"accepted": true}`, others as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// List nodes with health, load and openings in progress
    List,
    /// Move all rooms off a node without loss, and give it no new ones. The command returns at once; `node list` shows how
    /// many rooms are left, and the event `drained` reports the end
    #[command(verbatim_doc_comment)]
    Drain {
        /// The node's name
        node: String,
        /// Time limit, as `60s`; rooms left by then are reported and move once there is capacity
        #[arg(long)]
        deadline: Option<String>,
    },
    /// End a drain. A node that its agent drains (SIGUSR1) keeps draining
    Undrain {
        /// The node's name
        node: String,
    },
    /// Mark a node down whatever its health: its rooms fail over at once, and it stays down until `uneject` or a restart of
    /// the gateway
    Eject {
        /// The node's name
        node: String,
    },
    /// End a node's ejection: it is used again as soon as it answers
    Uneject {
        /// The node's name
        node: String,
    },
}

impl NodeArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let (node, verb, body) = match self.verb {
            NodeCommand::List => {
                let nodes = self.api.operate(async |admin| admin.read("/v1/nodes").await)?;
                if self.json {
                    say(&nodes);
                } else {
                    rows(&nodes, "nodes").iter().for_each(|node| say(&line(node)));
                }
                return Ok(());
            }
            NodeCommand::Drain { node, deadline } => (node, "drain", drain(deadline)),
            NodeCommand::Undrain { node } => (node, "undrain", Value::Null),
            NodeCommand::Eject { node } => (node, "eject", Value::Null),
            NodeCommand::Uneject { node } => (node, "uneject", Value::Null),
        };
        self.api.post(&format!("/v1/nodes/{}:{verb}", evenkeel_client::escape(&node)), &body)?;
        match verb {
            "drain" => asked(self.json, &format!("{node} {DRAINS}")),
            "undrain" => done(self.json, &format!("{node} takes rooms again")),
            "eject" => {
                let until = format!("it stays down until `evenkeel node uneject {node}`");
                done(
                    self.json,
                    &format!("{node} is ejected: its rooms fail over at once, and {until}"),
                );
            }
            _ => done(self.json, &format!("{node} is used again as soon as it answers")),
        }
        Ok(())
    }
}

pub(crate) fn drain(deadline: Option<String>) -> Value {
    deadline.map_or(Value::Null, |deadline| json!({"deadline": deadline}))
}

pub(crate) const DRAINS: &str = "takes no new rooms and is being emptied; `evenkeel node list` shows how many rooms are \
    left, and the event `drained` reports the end";

/// Prints that an operation was accepted and continues.
pub(crate) fn asked(json: bool, words: &str) {
    if json {
        say(&json!({"accepted": true}));
    } else {
        say(&words);
    }
}

/// Prints that an operation is complete.
pub(crate) fn done(json: bool, words: &str) {
    if json {
        say(&json!({"done": true}));
    } else {
        say(&words);
    }
}

fn line(node: &Value) -> String {
    let number = |key: &str| node[key].as_u64().unwrap_or(0);
    let flag = |key: &str, word| if node[key] == Value::Bool(true) { word } else { "" };
    let opening = match (number("opening"), number("queued")) {
        (0, 0) => String::new(),
        (opening, waiting) => format!(", opening {opening}, {waiting} queued"),
    };
    format!(
        "{:<16} {:<8} {:<8} {:>4} rooms, {:>3} % of {} kbit/s{opening}{}{}{}",
        text(node, "node"),
        text(node, "region"),
        text(node, "health"),
        number("rooms"),
        number("load_permille") / 10,
        number("capacity_kbps"),
        flag("draining", ", draining"),
        flag("leaving", ", leaving"),
        flag("ejected", ", ejected"),
    )
}
