//! `evenkeel node`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::{Api, segment};
use crate::status::{rows, text};
use crate::{Failure, say};

/// List nodes; drain them, send them away and let them back.
#[derive(Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    api: Api,
    /// Say it as JSON: `list` as the API does, `drain` as `{"accepted": true}`, all else as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Every node with its health, its load and what it is opening
    List,
    /// Let it take no new rooms, and move those that it has; nothing is lost, and nobody is hung up. It takes no new ones when
    /// this returns; `node list` says how many it still has, and the event `drained` when it is empty
    #[command(verbatim_doc_comment)]
    Drain {
        /// The node's name
        node: String,
        /// When it is to be empty, as `60s`; what is left by then is told, and stays until it fits elsewhere
        #[arg(long)]
        deadline: Option<String>,
    },
    /// Let it take rooms again; what drains by its own wish (its agent had SIGUSR1) stays so, and says so
    Undrain {
        /// The node's name
        node: String,
    },
    /// Declare it dead, whatever it says: its rooms leave it at once, and it stays down until `uneject`, or a restart
    /// of the gateway
    Eject {
        /// The node's name
        node: String,
    },
    /// Let a node that is down back as soon as it answers, without waiting out its ejection
    Uneject {
        /// The node's name
        node: String,
    },
}

impl Node {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let (node, verb, body) = match self.verb {
            Verb::List => {
                let nodes = self.api.operate(async |admin| admin.read("/v1/nodes").await)?;
                if self.json {
                    say(&nodes);
                } else {
                    rows(&nodes, "nodes").iter().for_each(|node| say(&line(node)));
                }
                return Ok(());
            }
            Verb::Drain { node, deadline } => (node, "drain", drain(deadline)),
            Verb::Undrain { node } => (node, "undrain", Value::Null),
            Verb::Eject { node } => (node, "eject", Value::Null),
            Verb::Uneject { node } => (node, "uneject", Value::Null),
        };
        self.api.post(&format!("/v1/nodes/{}:{verb}", segment(&node)), &body)?;
        match verb {
            "drain" => asked(self.json, &format!("{node} {DRAINS}")),
            "undrain" => done(self.json, &format!("{node} may take rooms again")),
            "eject" => {
                let until = format!("it stays down until `evenkeel node uneject {node}`");
                done(self.json, &format!("{node} is out: its rooms leave it at once, and {until}"));
            }
            _ => done(self.json, &format!("{node} is let back as soon as it answers")),
        }
        Ok(())
    }
}

/// What the API is told of a deadline.
pub(crate) fn drain(deadline: Option<String>) -> Value {
    deadline.map_or(Value::Null, |deadline| json!({"deadline": deadline}))
}

/// What is said of a place that drains.
pub(crate) const DRAINS: &str = "takes no new rooms, and those that it has are asked to leave; `evenkeel node list` shows how \
    many are left, and the event `drained` says when it is empty";

/// A verb that has begun what takes a while says so, and where to look for what becomes of it.
pub(crate) fn asked(json: bool, words: &str) {
    if json {
        say(&json!({"accepted": true}));
    } else {
        say(&words);
    }
}

/// A verb that did what it was asked to says what is now so.
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
