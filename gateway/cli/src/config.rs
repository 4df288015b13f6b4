//! `evenkeel config`.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use evenkeel_process::unix_us;
use serde_json::Value;

use crate::command::{ApiArgs, CommandError, number, show_lines, text, texts};
use crate::status::spell;

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

/// The file in force in one line: its name, digest and age, and the tables of it that wait.
pub(crate) fn origin(configuration: &Value, now: SystemTime) -> String {
    let age = unix_us(now).saturating_sub(number(configuration, "read_us"));
    let read = spell(Duration::from_micros(age));
    let Some(file) = configuration["file"].as_str() else {
        return format!("built-in configuration, in force for {read}");
    };
    let waiting = texts(configuration, "requires_restart");
    let waiting = match waiting.is_empty() {
        true => String::new(),
        false => format!("; restart for {}", waiting.join(", ")),
    };
    let digest = text(configuration, "sha256");
    format!("configuration {file}, SHA-256 {digest}, read {read} ago{waiting}")
}
