//! `evenkeel reload`.

use clap::Args;
use serde_json::{Value, json};

use crate::api::Api;
use crate::status::rows;
use crate::{Failure, say};

/// Read the configuration again: nodes, policies and modes that changed
///
/// A running gateway reads its files, and takes what can be taken live: nodes that come, go and change,
/// policies and their settings, and how sessions survive. A configuration that is wrong changes nothing. Policies go their own
/// way after that: one that fails its proof is refused by itself, and the one in force stays. The command names it, says what
/// was taken, and ends with 1.
///
/// A node that is listed no longer is drained first, and loses no packet. Where more than 30 % of the nodes would go within
/// a minute nothing changes, unless a person says --force: a list that shrank may be a mistake.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Reload {
    /// Let nodes go however many they are
    #[arg(long)]
    force: bool,
    /// When nodes that go are to be empty, as `60s`; what is left by then is told, and stays until it fits elsewhere
    #[arg(long)]
    deadline: Option<String>,
    #[command(flatten)]
    api: Api,
    /// Say it as JSON: the nodes `added`, `removed` and `changed`, the keys that wait for a restart (`requires_restart`), and the
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
            // The object says it; the exit code says it to whoever reads no object.
            return if refused.is_empty() { Ok(()) } else { Err(Failure::Failed(String::new())) };
        }
        let silent = |key: &&str| rows(&reloaded, key).is_empty();
        if ["added", "removed", "changed"].iter().all(silent) {
            say(&"no node comes, goes or changes");
        }
        for (key, word) in [("added", "comes"), ("removed", "goes"), ("changed", "changed")] {
            for node in rows(&reloaded, key).iter().filter_map(Value::as_str) {
                say(&format!("node {node} {word}"));
            }
        }
        for key in rows(&reloaded, "requires_restart").iter().filter_map(Value::as_str) {
            say(&format!("{key} waits for a restart"));
        }
        if refused.is_empty() {
            return Ok(());
        }
        let word = |policy: &Value, key| policy[key].as_str().unwrap_or("").to_owned();
        let lines = refused.iter().map(|one| {
            let (policy, reason) = (word(one, "policy"), word(one, "reason"));
            format!("policy {policy} is refused, and what stands answers on: {reason}")
        });
        Err(Failure::Failed(lines.collect::<Vec<_>>().join("\n")))
    }
}
