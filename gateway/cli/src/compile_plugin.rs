//! `evenkeel compile-plugin`, which `evenkeel run` starts to compile a plugin that is not embedded.

use clap::Args;

use crate::CommandError;

/// Compile a plugin within limits; started by the gateway.
#[derive(Args)]
pub(crate) struct CompilePlugin {
    /// Limit of processor time, seconds
    #[arg(long)]
    processor_seconds: u64,
    /// Limit of memory
    #[arg(long)]
    memory_mib: u64,
}

impl CompilePlugin {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        evenkeel_policies::compile_plugin(self.processor_seconds, self.memory_mib)
            .map_err(|error| CommandError::Failed(error.to_string()))
    }
}
