//! `evenkeel plugin profile`.

use std::path::{Path, PathBuf};

use clap::Args;
use evenkeel_author::profile::profile;
use evenkeel_author::replace;
use serde::Serialize;
use serde_json::{Value, json};

use super::file::{DataArgs, cases_in, folder_of, read};
use crate::command::{CommandError, say, settings_of, show_lines};
use crate::progress::report_progress;

/// Show the functions in which a plugin spends its time
///
/// The plugin answers the questions of its cases, or usual ones if it has none, and its stack is noted each millisecond. Names
/// of functions are those of the file: do not strip them. `own` is the time in the function itself, `total` that of the
/// functions that it calls too.
#[derive(Args)]
pub(super) struct ProfileArgs {
    /// Plugin: a WebAssembly module or component
    plugin: PathBuf,
    /// Folder of cases; default: `tests` beside the plugin, if it is there
    #[arg(long, value_name = "FOLDER")]
    cases: Option<PathBuf>,
    /// File with settings, JSON or TOML, for cases without; default: the plugin's own
    #[arg(long, value_name = "FILE.json|toml")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    /// Number of samples
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    samples: u64,
    /// Output file: a flame graph if it ends in .svg, else stacks in lines that other tools for flame graphs take
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The output of `evenkeel plugin profile --json`.
#[derive(Serialize)]
struct ProfileOutput<'a> {
    #[serde(flatten)]
    report: Value,
    out: Option<&'a Path>,
}

impl ProfileArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let settings = self.settings.as_deref().map_or(Ok(Value::Null), settings_of)?;
        let cases = cases_in(folder_of(&self.plugin), self.cases.as_deref())?;
        let mut built = read(&self.plugin)?;
        built.documents = self.data.read()?;
        let report =
            report_progress("sampling", || profile(&built, &cases, &settings, self.samples))?;
        if let Some(out) = &self.out {
            let is_graph = out.extension().is_some_and(|ending| ending == "svg");
            let text = if is_graph { report.flame_graph() } else { report.folded() };
            replace(out, text.as_bytes())
                .map_err(|error| CommandError::Failed(format!("{}: {error}", out.display())))?;
        }
        let shown = json!(ProfileOutput { report: report.json(), out: self.out.as_deref() });
        show_lines(self.json, &shown, || report.to_string());
        if let Some(out) = self.out.filter(|_| !self.json) {
            say(&format!("{} has all stacks", out.display()));
        }
        Ok(())
    }
}
