//! `evenkeel config`.

use std::time::SystemTime;

use clap::{Args, Subcommand};

use crate::command::{ApiArgs, CommandError, show_lines};
use crate::status::origin;

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
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let ConfigurationCommand::Show = self.verb;
        let answer = self.api.read("/v1/configuration")?;
        let tables: toml::Table = serde_json::from_value(answer["configuration"].clone())
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let tables = toml::to_string(&tables);
        let tables = tables.map_err(|error| CommandError::Failed(error.to_string()))?;
        show_lines(self.json, &answer, || {
            let sets = answer["policies"].as_object().into_iter().flatten();
            let sets = sets.map(|(set, file)| {
                format!("# policy set {set}: {}\n", file.as_str().unwrap_or_default())
            });
            let sets: String = sets.collect();
            format!("# {}\n{sets}\n{}", origin(&answer, SystemTime::now()), tables.trim_end())
        });
        Ok(())
    }
}
