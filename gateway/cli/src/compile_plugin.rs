//! `evenkeel compile-plugin`: what `evenkeel run` starts for a plugin that is not ours. People have no use for it.

use clap::Args;

use crate::Failure;

/// Compile a plugin, within limits: the gateway starts this.
#[derive(Args)]
pub(crate) struct CompilePlugin {
    /// Seconds of processor time it may take
    #[arg(long)]
    processor_seconds: u64,
    /// Memory it may take
    #[arg(long)]
    memory_mib: u64,
}

impl CompilePlugin {
    pub(crate) fn act(self) -> Result<(), Failure> {
        evenkeel_server::compile_plugin(self.processor_seconds, self.memory_mib)
            .map_err(|error| Failure::Failed(error.to_string()))
    }
}
