//! `evenkeel config`.

use std::time::SystemTime;

use clap::{Args, Subcommand};
use evenkeel_contract::gateway::Configuration;

use crate::command::{ApiArgs, CommandError, show_lines, typed};
use crate::status;

/// Show the configuration of a running gateway
#[derive(Args)]
pub(crate) struct ConfigurationArgs {
    #[command(subcommand)]
    verb: ConfigurationCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON, as in the API
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum ConfigurationCommand {
    /// Print the configuration in force as TOML: the keys of the file, and the values of those that it leaves out
    ///
    /// Secrets are the names of their files. Commands and URLs are printed as they are written.
    #[command(verbatim_doc_comment)]
    Show,
}

impl ConfigurationArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let ConfigurationCommand::Show = self.verb;
        let answer = self.api.read("/v1/configuration")?;
        let Configuration { origin, policies, configuration } = typed(&answer)?;
        let tables: toml::Table = typed(&configuration.into())?;
        let tables = toml::to_string(&tables);
        let tables = tables.map_err(|error| CommandError::Failed(error.to_string()))?;
        show_lines(self.json, &answer, || {
            let sets = policies.iter().map(|(set, file)| format!("# policy set {set}: {file}\n"));
            let sets: String = sets.collect();
            let origin = status::origin(&origin, SystemTime::now());
            format!("# {origin}\n{sets}\n{}", tables.trim_end())
        });
        Ok(())
    }
}
