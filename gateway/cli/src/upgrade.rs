//! `evenkeel upgrade`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::api::ApiArgs;
use crate::{CommandError, say};

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
        let upgraded = request(&self.api, &body)?;
        if self.json {
            say(&upgraded);
        } else {
            say(&sentence(&upgraded));
        }
        Ok(())
    }
}

pub(crate) fn request(api: &ApiArgs, body: &Value) -> Result<Value, CommandError> {
    api.waiting_longer(MARGIN).post("/v1/gateway:upgrade", body)
}

pub(crate) fn sentence(upgraded: &Value) -> String {
    let number = |key: &str| upgraded[key].as_u64().unwrap_or(0);
    let (pid, sessions) = (number("pid"), number("sessions"));
    let paused = number("paused_us") as f64 / 1_000.0;
    format!("process {pid} serves {sessions} sessions; packets waited {paused:.1} ms")
}
