//! `evenkeel reload`.

use clap::Args;
use serde_json::{Value, json};

use crate::api::Api;
use crate::status::rows;
use crate::{Failure, say};

/// Reload nodes, policies and modes from the configuration
///
/// A running gateway reads its files again and applies changes of nodes, policies, their settings, and modes. An invalid
/// configuration changes nothing. Each policy revision is proved by itself: one that fails is refused, its predecessor stays
/// active, and the command names it and ends with 1.
///
/// Removed nodes are drained first, without packet loss. If more than 30 % of the nodes would be removed within a minute,
/// nothing changes without --force.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Reload {
    /// Remove nodes even if they are more than 30 %
    #[arg(long)]
    force: bool,
    /// Time limit for draining removed nodes, as `60s`; rooms left by then are reported and move once there is capacity
    #[arg(long)]
    deadline: Option<String>,
    #[command(flatten)]
    api: Api,
    /// Print JSON: the nodes `added`, `removed` and `changed`, the keys that wait for a restart (`requires_restart`), and the
    /// policies `refused`, each with its `reason`
    #[arg(long)]
    pub(crate) json: bool,
}

impl Reload {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let body = json!({"force": self.force, "deadline": self.deadline});
        let reloaded = self.api.post("/v1/configuration:reload", &body)?;
        let refused = rows(&reloaded, "refused");
        if self.json {
            say(&reloaded);
            return if refused.is_empty() { Ok(()) } else { Err(Failure::Failed(String::new())) };
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
        if refused.is_empty() {
            return Ok(());
        }
        let word = |policy: &Value, key| policy[key].as_str().unwrap_or("").to_owned();
        let lines = refused.iter().map(|one| {
            let (policy, reason) = (word(one, "policy"), word(one, "reason"));
            format!("policy {policy} refused, active revision kept: {reason}")
        });
        Err(Failure::Failed(lines.collect::<Vec<_>>().join("\n")))
    }
}
