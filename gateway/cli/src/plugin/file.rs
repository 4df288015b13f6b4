//! Plugin files and cases that a command line names.

use std::path::{Path, PathBuf};

use clap::Args;
use evenkeel_author::case::Case;
use evenkeel_author::{AuthorError, BuiltPlugin};
use evenkeel_host::DataDocuments;

use crate::command::{CommandError, documents_of, named_file, read_file};
use crate::progress::report_progress;

pub(super) fn read(file: &Path) -> Result<BuiltPlugin, CommandError> {
    let bytes = read_file(file)?;
    let built = report_progress(&format!("compiling {}", file.display()), || {
        BuiltPlugin::from_bytes(bytes)
    });
    Ok(built.map_err(AuthorError::from)?)
}

/// Data documents of a plugin.
#[derive(Args)]
pub(super) struct DataArgs {
    /// Data document that the plugin is given, JSON or TOML; may be repeated
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    data: Vec<(String, PathBuf)>,
}

impl DataArgs {
    pub(super) fn read(&self) -> Result<DataDocuments, CommandError> {
        documents_of(&self.data)
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.data.iter().map(|(_, file)| file)
    }
}

/// A plugin, and all that its tests read.
#[derive(Args)]
pub(super) struct TestedArgs {
    /// Plugin file, to be tested without its project; default: build the project
    pub(super) plugin: Option<PathBuf>,
    /// Folder of the project
    #[arg(long, value_name = "FOLDER", default_value = ".", conflicts_with = "plugin")]
    pub(super) path: PathBuf,
    #[command(flatten)]
    pub(super) data: DataArgs,
    /// Folder of cases; default: `tests` beside the project or plugin, if it is there
    #[arg(long, value_name = "FOLDER")]
    pub(super) cases: Option<PathBuf>,
}

impl TestedArgs {
    pub(super) fn cases(&self) -> Result<Vec<Case>, CommandError> {
        let beside = self.plugin.as_deref().map_or(&*self.path, folder_of);
        cases_in(beside, self.cases.as_deref())
    }
}

/// The cases in the folder that is named, else in `tests` of this folder, if it is there.
pub(super) fn cases_in(beside: &Path, named: Option<&Path>) -> Result<Vec<Case>, CommandError> {
    if let Some(folder) = named.filter(|folder| !folder.is_dir()) {
        return Err(CommandError::Wrong(format!("there is no folder {}", folder.display())));
    }
    let folder = named.map_or_else(|| beside.join("tests"), Path::to_owned);
    Ok(Case::all_in(&folder)?)
}

/// The folder of a plugin file.
pub(super) fn folder_of(plugin: &Path) -> &Path {
    plugin.parent().unwrap_or(Path::new(""))
}
