//! Commands about the gateway itself: `evenkeel gateway`, `reload`, `log-level` and `upgrade`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use evenkeel_contract::gateway::{
    Gateway, GatewayList, HandOverRequest, IndexedGateway, IndexedGatewayList, LogFilter,
    LogRequest, NewOwner, ReloadRequest, Reloaded, Status, TakeOverRequest, TakenOver,
    UpgradeRequest, Upgraded,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::command::{ApiArgs, CommandError, list, print_done, say, show, typed};

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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        match self.verb {
            GatewayCommand::List { all: true } => {
                let answer = self.api.read("/v1/index/gateways")?;
                let rows = |list: IndexedGatewayList| list.gateways;
                list(self.json, &answer, rows, indexed_line)?;
            }
            GatewayCommand::List { all: false } => {
                let answer = self.api.read("/v1/gateways")?;
                let GatewayList { gateways, warnings } = typed(&answer)?;
                list(self.json, &answer, |list: GatewayList| list.gateways, member_line)?;
                if let Some(peer) = silent_peers(&gateways)
                    && !self.json
                {
                    say(&format!(
                        "if {peer} is down, let this gateway serve: evenkeel gateway take-over --confirm-down {peer}"
                    ));
                }
                if !warnings.is_empty() {
                    let words = if self.json { String::new() } else { warnings.join("\n") };
                    return Err(CommandError::Failed(words));
                }
            }
            GatewayCommand::HandOver { to } => {
                let answer = self.api.post("/v1/gateway:hand-over", &HandOverRequest { to })?;
                let owner: NewOwner = typed(&answer)?;
                show(self.json, &answer, || owns(&owner));
            }
            GatewayCommand::CanStop => return self.can_stop(),
            GatewayCommand::TakeOver { confirm_down } => {
                let body = TakeOverRequest { confirm_down };
                let answer = self.api.post("/v1/gateway:take-over", &body)?;
                let TakenOver { owner, sessions } = typed(&answer)?;
                show(self.json, &answer, || {
                    format!("{}; sessions that continue: {sessions}", owns(&owner))
                });
            }
        }
        Ok(())
    }

    fn can_stop(&self) -> Result<(), CommandError> {
        let verdict = match self.api.get::<GatewayList>("/v1/gateways") {
            Ok(list) => stops_member(&list.gateways),
            // 404: the gateway belongs to no group.
            Err(CommandError::Wrong(_)) => {
                stops_alone(self.api.get::<Status>("/v1/status")?.sessions)
            }
            Err(failed) => return Err(failed),
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
fn stops_alone(sessions: usize) -> Result<String, String> {
    match sessions {
        0 => Ok("it has no session".to_owned()),
        _ => Err(format!("it has no standby, and {sessions} sessions would end with it")),
    }
}

/// Why a member of a group may be stopped, or not.
fn stops_member(gateways: &[Gateway]) -> Result<String, String> {
    let here = gateways.iter().find(|gateway| gateway.here);
    let others = || gateways.iter().filter(|gateway| !gateway.here);
    // Beside the owner and its standby there may be spares.
    let serves = |gateway: &&Gateway| matches!(&*gateway.role, "owner" | "standby");
    let peer = others().find(serves).or_else(|| others().next());
    let (Some(here), Some(peer)) = (here, peer) else {
        return Err("the group has not begun".to_owned());
    };
    let (name, sessions) = (&peer.gateway, here.sessions);
    match (&*here.role, &*peer.role) {
        ("owner", "standby") if peer.in_sync => {
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

fn owns(NewOwner { gateway, epoch }: &NewOwner) -> String {
    format!("{gateway} owns the addresses in epoch {epoch}")
}

/// The names of the silent gateways, if this one does not serve because of them.
fn silent_peers(gateways: &[Gateway]) -> Option<String> {
    gateways.iter().find(|gateway| gateway.blocked.is_some())?;
    let silent = gateways.iter().filter(|gateway| gateway.role == "silent");
    Some(silent.map(|gateway| &*gateway.gateway).collect::<Vec<_>>().join(","))
}

fn member_line(member: &Gateway) -> String {
    let sync = match (&*member.role, member.in_sync, member.armed) {
        ("standby", true, false) => ", in sync, takes over only if the owner's process ends",
        ("standby", true, true) => ", in sync",
        ("standby", false, _) => ", not in sync",
        _ => "",
    };
    let heard = member.heard_ms.map(|ms| format!(", heard {ms} ms ago"));
    let [refused, blocked] = [&member.refused, &member.blocked]
        .map(|reason| reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default());
    let here = if member.here { " (this one)" } else { "" };
    let Gateway { gateway, role, epoch, sessions, .. } = member;
    format!(
        "{gateway:<16} {role:<8} epoch {epoch}, {sessions} sessions{sync}{}{refused}{blocked}{here}",
        heard.unwrap_or_default(),
    )
}

fn indexed_line(indexed: &IndexedGateway) -> String {
    let api = indexed.api.map(|api| format!(", API at {api}")).unwrap_or_default();
    let IndexedGateway { gateway, role, epoch, group, .. } = indexed;
    format!("{gateway:<16} {role:<8} epoch {epoch}, group {group}{api}")
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
    /// `refused`, each with its `reason`, `warnings`, and `upgraded`, the new process with the `keys` that it applied
    #[arg(long)]
    pub(crate) json: bool,
}

/// The output of `evenkeel reload --json`: both answers, with the members of later versions.
#[derive(Serialize, Deserialize)]
struct ReloadOutput {
    #[serde(default)]
    requires_restart: Vec<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    upgraded: Option<AppliedKeys>,
}

/// The answer to the upgrade, and the keys that the new process applied.
#[derive(Serialize)]
struct AppliedKeys {
    #[serde(flatten)]
    answer: Value,
    keys: Vec<String>,
}

impl ReloadArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let body = ReloadRequest { force: self.force, deadline: self.deadline.clone() };
        let answer = self.api.post("/v1/configuration:reload", &body)?;
        let reloaded: Reloaded = typed(&answer)?;
        let upgraded = match self.upgrade(&reloaded) {
            Err(CommandError::Failed(reason) | CommandError::Refused { words: reason, .. }) => {
                Err(reason)
            }
            other => Ok(other?),
        };
        if self.json {
            let mut output: ReloadOutput = typed(&answer)?;
            if let Ok(Some(answer)) = &upgraded {
                let keys = std::mem::take(&mut output.requires_restart);
                output.upgraded = Some(AppliedKeys { answer: answer.clone(), keys });
            }
            say(&json!(output));
            return match upgraded {
                Ok(_) if reloaded.refused.is_empty() => Ok(()),
                reason => Err(CommandError::Failed(reason.err().unwrap_or_default())),
            };
        }
        let lists = [
            ("added", &reloaded.added),
            ("removed", &reloaded.removed),
            ("changed", &reloaded.changed),
        ];
        let changes = lists.into_iter().flat_map(|(change, nodes)| {
            nodes.iter().map(move |node| format!("node {node} {change}"))
        });
        let changes: Vec<String> = changes.collect();
        if changes.is_empty() {
            say(&"node list unchanged");
        }
        changes.iter().for_each(say);
        let keys = &reloaded.requires_restart;
        match &upgraded {
            Ok(Some(upgraded)) => {
                keys.iter().for_each(|key| say(&format!("{key} changed")));
                say(&sentence(typed(upgraded)?));
            }
            Ok(None) | Err(_) => {
                keys.iter().for_each(|key| say(&format!("{key} takes effect after a restart")));
            }
        }
        let warnings = reloaded.warnings.iter();
        warnings.for_each(|warning| say(&format!("warning: {warning}")));
        let lines = reloaded.refused.iter().map(|one| {
            format!("policy {} refused, active revision kept: {}", one.policy, one.reason)
        });
        let lines: Vec<_> = lines.chain(upgraded.err()).collect();
        if lines.is_empty() { Ok(()) } else { Err(CommandError::Failed(lines.join("\n"))) }
    }

    /// Replaces the process if changed keys need that, and returns the answer.
    fn upgrade(&self, reloaded: &Reloaded) -> Result<Option<Value>, CommandError> {
        if self.keep_process || reloaded.requires_restart.is_empty() {
            return Ok(None);
        }
        match request_upgrade(&self.api, &UpgradeRequest::default()) {
            Ok(answer) => {
                typed::<Upgraded>(&answer)?;
                Ok(Some(answer))
            }
            // The gateway runs within another program, or its version has no upgrades.
            Err(CommandError::Wrong(_)) => Ok(None),
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        if self.reset || self.filter.is_some() {
            let filter = self.filter.as_deref().map(Into::into);
            self.api.post("/v1/log", &LogRequest { filter })?;
            let filter = self.filter.as_deref().unwrap_or("that of EVENKEEL_LOG");
            print_done(self.json, format!("log filter: {filter}"));
            return Ok(());
        }
        let log = self.api.read("/v1/log")?;
        let LogFilter { filter } = typed(&log)?;
        show(self.json, &log, || match filter {
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
/// in the sockets' buffers, longer with more sessions. QUIC connections stay with the replaced process until they end. If anything fails, the running process continues and the command names the reason.
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
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let binary = self.binary.map(std::path::absolute).transpose();
        let binary = binary.map_err(|error| CommandError::Wrong(format!("BINARY: {error}")))?;
        let body = UpgradeRequest { binary, deadline: self.deadline };
        let answer = request_upgrade(&self.api, &body)?;
        let upgraded = typed(&answer)?;
        show(self.json, &answer, || sentence(upgraded));
        Ok(())
    }
}

fn request_upgrade(api: &ApiArgs, body: &UpgradeRequest) -> Result<Value, CommandError> {
    api.waiting_longer(MARGIN).post("/v1/gateway:upgrade", body)
}

fn sentence(Upgraded { pid, sessions, paused_us }: Upgraded) -> String {
    let paused = paused_us as f64 / 1_000.0;
    format!("process {pid} serves {sessions} sessions; packets waited {paused:.1} ms")
}

#[cfg(test)]
mod tests;
