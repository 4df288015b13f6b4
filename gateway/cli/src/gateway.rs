//! Commands about the gateway itself: `evenkeel gateway`, `reload`, `log-level` and `upgrade`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::command::{
    ApiArgs, CommandError, list, number, print_done, rows, say, show, text, texts,
};

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
    ///
    /// Exit status 1 if the group lost redundancy 3 s ago or longer, with a sentence for each loss: calls go on, and the next fault
    /// may end them.
    #[command(verbatim_doc_comment)]
    List {
        /// Gateways of all groups, from the shared index
        #[arg(long)]
        all: bool,
    },
    /// Make the standby the owner. Its calls continue there, and the process of the old owner ends, so that its supervisor
    /// starts it as the new standby
    #[command(verbatim_doc_comment)]
    HandOver {
        /// The standby's name. A standby that is asked asks the owner
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
    },
    /// Say whether this gateway may be stopped now, and why not: exit status 0 or 1
    ///
    /// The owner of a group may be stopped while its standby has all records: SIGTERM hands its calls over. A standby may be
    /// stopped. A gateway without a standby may be stopped while it has no session.
    #[command(verbatim_doc_comment)]
    CanStop,
    /// Make this gateway the owner while its peer is down
    ///
    /// Ends the wait for a silent peer, such as when the hosts of both lost power and one came back. Sessions of which
    /// this gateway has a record continue.
    ///
    /// The gateway cannot know whether its peer is down: power it off, or end its process, first. A peer that lives on
    /// and is cut off goes on sending to clients and to nodes without an agent; agents of nodes refuse it, and it ends
    /// once it hears this gateway, an agent or a witness. Refused if one of these hears the peer.
    #[command(verbatim_doc_comment)]
    TakeOver {
        /// Name of the peer, which must be down; of several silent gateways, separated by commas
        #[arg(long, value_name = "NAME")]
        confirm_down: String,
    },
}

impl GatewayArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        match self.verb {
            GatewayCommand::List { all } => {
                let (path, line): (_, fn(&Value) -> String) = if all {
                    ("/v1/index/gateways", indexed_line)
                } else {
                    ("/v1/gateways", member_line)
                };
                let gateways = self.api.read(path)?;
                list(self.json, &gateways, "gateways", line);
                if let Some(peer) = silent_peers(rows(&gateways, "gateways"))
                    && !self.json
                {
                    say(&format!(
                        "if {peer} is down, let this gateway serve: evenkeel gateway take-over --confirm-down {peer}"
                    ));
                }
                let warnings = texts(&gateways, "warnings");
                if !warnings.is_empty() {
                    let words = if self.json { String::new() } else { warnings.join("\n") };
                    return Err(CommandError::Failed(words));
                }
            }
            GatewayCommand::HandOver { to } => {
                let owner = self.api.post("/v1/gateway:hand-over", &json!({"to": to}))?;
                show(self.json, &owner, || owns(&owner));
            }
            GatewayCommand::CanStop => return self.can_stop(),
            GatewayCommand::TakeOver { confirm_down } => {
                let body = json!({"confirm_down": confirm_down});
                let owner = self.api.post("/v1/gateway:take-over", &body)?;
                show(self.json, &owner, || {
                    let sessions = number(&owner, "sessions");
                    format!("{}; sessions that continue: {sessions}", owns(&owner))
                });
            }
        }
        Ok(())
    }

    fn can_stop(&self) -> Result<(), CommandError> {
        let gateways = self.api.read("/v1/gateways");
        let verdict = match &gateways {
            Ok(gateways) => stops_member(rows(gateways, "gateways")),
            // 404: the gateway belongs to no group.
            Err(CommandError::Wrong(_)) => {
                stops_alone(number(&self.api.read("/v1/status")?, "sessions"))
            }
            Err(_) => return gateways.map(drop),
        };
        let (can_stop, reason) = match &verdict {
            Ok(reason) => (true, reason),
            Err(reason) => (false, reason),
        };
        let answer = json!({"can_stop": can_stop, "reason": reason});
        show(self.json, &answer, || format!("{}: {reason}", if can_stop { "yes" } else { "no" }));
        verdict.map(drop).map_err(|_| CommandError::Failed("stop it later".to_owned()))
    }
}

/// Why a gateway without a group may be stopped, or not.
fn stops_alone(sessions: u64) -> Result<String, String> {
    match sessions {
        0 => Ok("it has no session".to_owned()),
        _ => Err(format!("it has no standby, and {sessions} sessions would end with it")),
    }
}

/// Why a member of a group may be stopped, or not.
fn stops_member(gateways: &[Value]) -> Result<String, String> {
    let here = gateways.iter().find(|gateway| gateway["here"] == true);
    let others = || gateways.iter().filter(|gateway| gateway["here"] == false);
    // Beside the owner and its standby there may be spares.
    let serves = |gateway: &&Value| matches!(text(gateway, "role"), "owner" | "standby");
    let peer = others().find(serves).or_else(|| others().next());
    let (Some(here), Some(peer)) = (here, peer) else {
        return Err("the group has not begun".to_owned());
    };
    let (name, sessions) = (text(peer, "gateway"), number(here, "sessions"));
    match (text(here, "role"), text(peer, "role")) {
        ("owner", "standby") if peer["in_sync"] == true => {
            Ok(format!("{name} continues its {sessions} sessions"))
        }
        ("owner", "standby") => Err(format!("{name} does not hold all records yet")),
        ("owner", _) => match sessions {
            0 => Ok("it has no session".to_owned()),
            _ => Err(format!("{name} is no standby, and {sessions} sessions would end")),
        },
        ("standby", "owner") => Ok(format!("{name} serves the sessions, without a standby then")),
        ("spare", _) => Ok("it is a spare".to_owned()),
        (role, _) => Err(format!("it is {role}: whether {name} serves is unknown")),
    }
}

fn owns(owner: &Value) -> String {
    let (name, epoch) = (text(owner, "gateway"), number(owner, "epoch"));
    format!("{name} owns the addresses in epoch {epoch}")
}

/// The names of the silent gateways, if this one does not serve because of them.
fn silent_peers(gateways: &[Value]) -> Option<String> {
    gateways.iter().find(|gateway| gateway["blocked"].is_string())?;
    let silent = gateways.iter().filter(|gateway| gateway["role"] == "silent");
    Some(silent.map(|gateway| text(gateway, "gateway")).collect::<Vec<_>>().join(","))
}

fn member_line(gateway: &Value) -> String {
    let sync = match (text(gateway, "role"), &gateway["in_sync"], &gateway["armed"]) {
        ("standby", Value::Bool(true), Value::Bool(false)) => {
            ", in sync, takes over only if the owner's process ends"
        }
        ("standby", Value::Bool(true), _) => ", in sync",
        ("standby", ..) => ", not in sync",
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

fn indexed_line(gateway: &Value) -> String {
    format!(
        "{:<16} {:<8} epoch {}, group {}{}",
        text(gateway, "gateway"),
        text(gateway, "role"),
        number(gateway, "epoch"),
        text(gateway, "group"),
        gateway["api"].as_str().map(|api| format!(", API at {api}")).unwrap_or_default(),
    )
}

/// Reload nodes, witnesses and policy sets from the configuration
///
/// A running gateway reads its files again and applies changes of nodes, witnesses, and policy sets. An invalid
/// configuration changes nothing. Each policy revision is proved by itself: one that fails is refused, its predecessor stays
/// active, and the command names it and ends with 1.
///
/// Other changed keys need a new process: it takes the sockets and sessions over, as with `evenkeel upgrade`, unless
/// --keep-process is given.
///
/// Removed nodes are drained first, without packet loss. If more than 30 % of the nodes would be removed within a minute,
/// nothing changes without --force.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ReloadArgs {
    /// Remove nodes even if they are more than 30 %
    #[arg(long)]
    force: bool,
    /// Time limit for draining removed nodes, as `60s`; rooms left by then are reported and move once there is capacity
    #[arg(long)]
    deadline: Option<String>,
    /// Leave keys that need a new process to the next upgrade or restart
    #[arg(long)]
    keep_process: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: the nodes `added`, `removed` and `changed`, the keys that wait for a restart (`requires_restart`), the policies
    /// `refused`, each with its `reason`, and `upgraded`, the new process with the `keys` that it applied
    #[arg(long)]
    pub(crate) json: bool,
}

impl ReloadArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let body = json!({"force": self.force, "deadline": self.deadline});
        let mut reloaded = self.api.post("/v1/configuration:reload", &body)?;
        let not_upgraded = match self.upgrade(&mut reloaded) {
            Err(CommandError::Failed(reason) | CommandError::Refused { words: reason, .. }) => {
                Some(reason)
            }
            other => other.map(|()| None)?,
        };
        let refused = rows(&reloaded, "refused");
        if self.json {
            say(&reloaded);
            return match not_upgraded {
                None if refused.is_empty() => Ok(()),
                reason => Err(CommandError::Failed(reason.unwrap_or_default())),
            };
        }
        let nodes = |key: &&'static str| {
            let nodes = texts(&reloaded, key).into_iter();
            nodes.map(|node| format!("node {node} {key}")).collect::<Vec<_>>()
        };
        let changes: Vec<String> = ["added", "removed", "changed"].iter().flat_map(nodes).collect();
        if changes.is_empty() {
            say(&"node list unchanged");
        }
        changes.iter().for_each(say);
        for key in texts(&reloaded, "requires_restart") {
            say(&format!("{key} takes effect after a restart"));
        }
        if let Some(upgraded) = reloaded.get("upgraded") {
            texts(upgraded, "keys").iter().for_each(|key| say(&format!("{key} changed")));
            say(&sentence(upgraded));
        }
        let lines = refused.iter().map(|one| {
            let (policy, reason) = (text(one, "policy"), text(one, "reason"));
            format!("policy {policy} refused, active revision kept: {reason}")
        });
        let lines: Vec<_> = lines.chain(not_upgraded).collect();
        if lines.is_empty() { Ok(()) } else { Err(CommandError::Failed(lines.join("\n"))) }
    }

    /// Replaces the process if changed keys need that, and notes the new one in the answer.
    fn upgrade(&self, reloaded: &mut Value) -> Result<(), CommandError> {
        let keys = reloaded["requires_restart"].clone();
        if self.keep_process || rows(&keys, "").is_empty() {
            return Ok(());
        }
        match request_upgrade(&self.api, &json!({})) {
            Ok(mut upgraded) => {
                upgraded["keys"] = keys;
                reloaded["requires_restart"] = json!([]);
                reloaded["upgraded"] = upgraded;
                Ok(())
            }
            // The gateway runs within another program, or its version has no upgrades.
            Err(CommandError::Wrong(_)) => Ok(()),
            Err(failed) => Err(failed),
        }
    }
}

/// Show or set the log level of a running gateway
///
/// The filter selects lines on standard error, as the environment variable EVENKEEL_LOG does. It holds until it is reset: after a
/// restart and a takeover too. At `debug` the log contains addresses of clients.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct LogLevelArgs {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, or levels of crates: `warn,evenkeel_group=debug`
    #[arg(conflicts_with = "reset")]
    filter: Option<String>,
    /// Return to the filter of EVENKEEL_LOG
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: the `filter`, null without one; `{"done": true}` if it was set or reset
    #[arg(long)]
    pub(crate) json: bool,
}

impl LogLevelArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        if self.reset || self.filter.is_some() {
            self.api.post("/v1/log", &json!({"filter": self.filter}))?;
            let filter = self.filter.as_deref().unwrap_or("that of EVENKEEL_LOG");
            print_done(self.json, format!("log filter: {filter}"));
            return Ok(());
        }
        let log = self.api.read("/v1/log")?;
        show(self.json, &log, || match log["filter"].as_str() {
            Some(filter) => format!("log filter: {filter}, set by an operator"),
            None => "log filter: that of EVENKEEL_LOG".to_owned(),
        });
        Ok(())
    }
}

/// Beyond the time in which the gateway gives up.
const MARGIN: Duration = Duration::from_secs(10);

/// Replace the process of a running gateway, with its calls
///
/// A new process reads the configuration and takes over all sockets and sessions; packets wait
/// in the sockets' buffers, longer with more sessions. Clients over QUIC connect again. If anything fails, the running process continues and the command names the reason.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct UpgradeArgs {
    /// Program to start; default: the running program's path, where a new version may lie
    binary: Option<PathBuf>,
    /// Time limit for the new process to get ready, as `20s`; default: 50 s
    #[arg(long)]
    deadline: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `pid` of the new process, `sessions`, and `paused_us`, the time for which packets waited
    #[arg(long)]
    pub(crate) json: bool,
}

impl UpgradeArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let binary = self.binary.map(std::path::absolute).transpose();
        let binary = binary.map_err(|error| CommandError::Wrong(format!("BINARY: {error}")))?;
        let body = json!({"binary": binary, "deadline": self.deadline});
        let upgraded = request_upgrade(&self.api, &body)?;
        show(self.json, &upgraded, || sentence(&upgraded));
        Ok(())
    }
}

fn request_upgrade(api: &ApiArgs, body: &Value) -> Result<Value, CommandError> {
    api.waiting_longer(MARGIN).post("/v1/gateway:upgrade", body)
}

fn sentence(upgraded: &Value) -> String {
    let (pid, sessions) = (number(upgraded, "pid"), number(upgraded, "sessions"));
    let paused = number(upgraded, "paused_us") as f64 / 1_000.0;
    format!("process {pid} serves {sessions} sessions; packets waited {paused:.1} ms")
}

#[cfg(test)]
mod tests;
