//! `evenkeel reload`.

use clap::Args;
use serde_json::{Value, json};

use crate::api::ApiArgs;
use crate::status::rows;
use crate::{CommandError, say, upgrade};

/// Reload nodes, policies and modes from the configuration
///
/// A running gateway reads its files again and applies changes of nodes, policies, their settings, and modes. An invalid
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
            Err(CommandError::Failed(reason)) => Some(reason),
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
        let silent = |key: &&str| rows(&reloaded, key).is_empty();
        if ["added", "removed", "changed"].iter().all(silent) {
            say(&"node list unchanged");
        }
        for key in ["added", "removed", "changed"] {
            for node in rows(&reloaded, key).iter().filter_map(Value::as_str) {
                say(&format!("node {node} {key}"));
            }
        }
        for key in rows(&reloaded, "requires_restart").iter().filter_map(Value::as_str) {
            say(&format!("{key} takes effect after a restart"));
        }
        if let Some(upgraded) = reloaded.get("upgraded") {
            for key in rows(&upgraded["keys"], "").iter().filter_map(Value::as_str) {
                say(&format!("{key} changed"));
            }
            say(&upgrade::sentence(upgraded));
        }
        let word = |policy: &Value, key| policy[key].as_str().unwrap_or("").to_owned();
        let lines = refused.iter().map(|one| {
            let (policy, reason) = (word(one, "policy"), word(one, "reason"));
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
        match upgrade::request(&self.api, &json!({})) {
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
