//! A folder with a plugin's source, and what its language needs to build it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failed::AuthorError;
use crate::language::Language;

/// A folder with a plugin's source.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder with `Cargo.toml`, `policy.c` or `policy.js`.
    pub folder: PathBuf,
    /// The language of the source.
    pub language: Language,
}

impl Project {
    /// Finds the project of this folder.
    pub fn at(folder: &Path) -> Result<Project, AuthorError> {
        let found = folder
            .canonicalize()
            .ok()
            .and_then(|folder| Some(Project { language: Language::of(&folder)?, folder }));
        found.ok_or_else(|| AuthorError::NoProject(folder.to_owned()))
    }

    /// Finds the plugin's project: the given folder, else the folder of the plugin file, else the current folder.
    ///
    /// # Errors
    /// If the given folder has no project.
    pub fn of_plugin(
        name: &str,
        file: &Path,
        given: Option<&Path>,
    ) -> Result<Option<Project>, AuthorError> {
        if let Some(given) = given {
            return Project::at(given).map(Some);
        }
        let beside = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folders = beside.into_iter().chain([Path::new(".")]);
        let mut projects = folders.filter_map(|folder| Project::at(folder).ok());
        Ok(projects.find(|project| project.name().as_deref() == Some(name)))
    }

    /// The plugin's name, if its manifest can be read.
    fn name(&self) -> Option<String> {
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).ok();
        match self.language {
            Language::Rust => {
                let manifest: toml::Table = read("Cargo.toml")?.parse().ok()?;
                Some(manifest.get("package")?.get("name")?.as_str()?.to_owned())
            }
            Language::C | Language::JavaScript => {
                let manifest: Value = serde_json::from_str(&read("manifest.json")?).ok()?;
                Some(manifest.get("name")?.as_str()?.to_owned())
            }
        }
    }

    /// Runs the project's own tests natively, if its language has such. `to_stderr` keeps standard output for the result of a
    /// command.
    pub fn test(&self, to_stderr: bool) -> Result<(), AuthorError> {
        match self.language {
            Language::Rust => self.cargo_test(to_stderr),
            Language::C | Language::JavaScript => Ok(()),
        }
    }

    /// Compiles the plugin, and returns the path of the module.
    pub(crate) fn compile(&self) -> Result<PathBuf, AuthorError> {
        match self.language {
            Language::Rust => self.cargo_build(&["--release"]),
            Language::C => self.clang(&["-O2"]),
            Language::JavaScript => self.componentize(),
        }
    }

    /// Compiles the plugin with lines of source, so little optimised that its branches are those of the source.
    pub(crate) fn compile_for_coverage(&self) -> Result<PathBuf, AuthorError> {
        match self.language {
            Language::Rust => self.cargo_build_for_coverage(),
            Language::C => self.clang(&["-O1", "-g"]),
            Language::JavaScript => self.componentize(),
        }
    }

    /// Runs one ignored test natively with full optimisation and returns its output.
    pub(crate) fn run_test(&self, test: &str, with: (&str, &Path)) -> Result<String, AuthorError> {
        match self.language {
            Language::Rust => self.cargo_run_test(test, with),
            Language::C | Language::JavaScript => Err(AuthorError::NotRust),
        }
    }
}

#[cfg(test)]
mod tests;
