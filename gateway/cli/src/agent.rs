//! `evenkeel agent`.

use std::path::PathBuf;

use clap::Args;
use evenkeel_agent::{Config, OutputFormat};

use crate::Failure;

/// Stand beside a media server until SIGTERM or SIGINT: tell gateways of its death, end trunk legs for it. SIGUSR1 drains
/// the node, SIGUSR2 takes that back.
#[derive(Args)]
pub(crate) struct Agent {
    /// What it watches, and what it may do (`agent.toml`)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Say where it listens, and at the end what it counted, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Agent {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let config =
            Config::load(&self.config).map_err(|wrong| Failure::Wrong(wrong.to_string()))?;
        let format = if self.json { OutputFormat::Json } else { OutputFormat::Plain };
        evenkeel_agent::run(config, format).map_err(|error| Failure::Failed(error.to_string()))
    }
}
