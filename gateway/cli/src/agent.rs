//! `evenkeel agent`.

use std::path::PathBuf;

use clap::Args;
use evenkeel_agent::{Config, OutputFormat};

use crate::CommandError;

/// Run an agent beside a media server or a gateway until SIGTERM or SIGINT
///
/// It reports the server's death to gateways and ends trunk legs for it. SIGUSR1 drains the node, SIGUSR2 ends the drain. Beside
/// a gateway of a group it reports the end of its process to the other gateway.
#[derive(Args)]
pub(crate) struct AgentArgs {
    /// Configuration of the agent (`agent.toml`)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print the listen address, and counters at the end, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl AgentArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let config =
            Config::load(&self.config).map_err(|wrong| CommandError::Wrong(wrong.to_string()))?;
        let format = if self.json { OutputFormat::Json } else { OutputFormat::Plain };
        evenkeel_agent::run(config, format).map_err(|error| CommandError::Failed(error.to_string()))
    }
}
