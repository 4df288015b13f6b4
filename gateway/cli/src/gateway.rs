//! `evenkeel gateway`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::ApiArgs;
use crate::status::{rows, text};
use crate::{CommandError, say};

/// List the gateways of a group, and hand its addresses and calls over
#[derive(Args)]
pub(crate) struct GatewayArgs {
    #[command(subcommand)]
    verb: GatewayCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON, as in the API
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum GatewayCommand {
    /// List the group's gateways with role, epoch and sessions, as this one sees them
    List {
        /// Gateways of all groups, from the shared index
        #[arg(long)]
        all: bool,
    },
    /// Make the standby the owner. Its calls continue there, and the process of the old owner ends, so that its supervisor
    /// starts it as the new standby
    #[command(verbatim_doc_comment)]
    HandOver {
        /// The standby's name
        #[arg(long, value_name = "NAME")]
        to: String,
    },
    /// Make this gateway the owner while its peer is down
    ///
    /// Ends the wait for a silent peer, such as when the hosts of both lost power and one came back. Sessions of which
    /// this gateway has a record continue.
    ///
    /// The gateway cannot know whether its peer is down: power it off, or end its process, first. A peer that lives on
    /// and is cut off goes on sending to clients and to nodes without an agent; agents of nodes refuse it, and it ends
    /// once it hears this gateway or an agent. Refused if this gateway or an agent hears the peer.
    #[command(verbatim_doc_comment)]
    TakeOver {
        /// Name of the peer, which must be down
        #[arg(long, value_name = "NAME")]
        confirm_down: String,
    },
}

impl GatewayArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        match self.verb {
            GatewayCommand::List { all } => {
                let (path, line): (_, fn(&Value) -> String) =
                    if all { ("/v1/index/gateways", listed) } else { ("/v1/gateways", line) };
                let gateways = self.api.operate(async |admin| admin.read(path).await)?;
                if self.json {
                    say(&gateways);
                } else {
                    let gateways = rows(&gateways, "gateways");
                    gateways.iter().for_each(|gateway| say(&line(gateway)));
                    if let Some(peer) = silent_peer(gateways) {
                        say(&format!(
                            "if {peer} is down, let this gateway serve: evenkeel gateway take-over --confirm-down {peer}"
                        ));
                    }
                }
            }
            GatewayCommand::HandOver { to } => {
                let owner = self.api.post("/v1/gateway:hand-over", &json!({"to": to}))?;
                if self.json {
                    say(&owner);
                } else {
                    let (name, epoch) = (text(&owner, "gateway"), number(&owner, "epoch"));
                    say(&format!("{name} owns the addresses in epoch {epoch}"));
                }
            }
            GatewayCommand::TakeOver { confirm_down } => {
                let body = json!({"confirm_down": confirm_down});
                let owner = self.api.post("/v1/gateway:take-over", &body)?;
                if self.json {
                    say(&owner);
                } else {
                    let (name, epoch) = (text(&owner, "gateway"), number(&owner, "epoch"));
                    let sessions = number(&owner, "sessions");
                    say(&format!(
                        "{name} owns the addresses in epoch {epoch}; sessions that continue: {sessions}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// The silent peer's name, if this gateway does not serve because of it.
fn silent_peer(gateways: &[Value]) -> Option<&str> {
    gateways.iter().find(|gateway| gateway["blocked"].is_string())?;
    gateways.iter().find(|gateway| gateway["here"] == false)?["gateway"].as_str()
}

fn line(gateway: &Value) -> String {
    let sync = match (text(gateway, "role"), &gateway["in_sync"]) {
        ("standby", Value::Bool(true)) => ", in sync",
        ("standby", _) => ", not in sync",
        _ => "",
    };
    let heard = gateway["heard_ms"].as_u64().map(|ms| format!(", heard {ms} ms ago"));
    let [refused, blocked] = ["refused", "blocked"]
        .map(|key| gateway[key].as_str().map(|reason| format!(", {reason}")).unwrap_or_default());
    let here = if gateway["here"] == Value::Bool(true) { " (this one)" } else { "" };
    format!(
        "{:<16} {:<8} epoch {}, {} sessions{sync}{}{refused}{blocked}{here}",
        text(gateway, "gateway"),
        text(gateway, "role"),
        number(gateway, "epoch"),
        number(gateway, "sessions"),
        heard.unwrap_or_default(),
    )
}

/// A gateway of the shared index.
fn listed(gateway: &Value) -> String {
    format!(
        "{:<16} {:<8} epoch {}, group {}{}",
        text(gateway, "gateway"),
        text(gateway, "role"),
        number(gateway, "epoch"),
        text(gateway, "group"),
        gateway["api"].as_str().map(|api| format!(", API at {api}")).unwrap_or_default(),
    )
}
