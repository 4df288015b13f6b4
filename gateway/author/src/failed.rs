use std::path::{Path, PathBuf};

use evenkeel_host::PluginRefusal;
use evenkeel_host::toolchain::ToolchainError;

use crate::case::CaseError;

/// An error for a plugin author. As text: one sentence with the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorError {
    /// The name is not that of a crate and a plugin.
    #[error("{found:?} is not a valid plugin name: {expected}")]
    BadName {
        /// The name.
        found: String,
        /// The rule that it breaks.
        expected: &'static str,
    },
    /// A new project would replace this file.
    #[error("{} exists already; nothing was changed", .0.display())]
    Exists(PathBuf),
    /// The folder has no plugin project.
    #[error(
        "there is no project in {}: no Cargo.toml, policy.c or policy.js; `evenkeel plugin new --hook HOOK NAME` makes \
         one, `--path` names another folder",
        .0.display()
    )]
    NoProject(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {1}", path = .0.display())]
    File(PathBuf, std::io::Error),
    /// The file is no case.
    #[error("{path}: {1}", path = .0.display())]
    Case(PathBuf, CaseError),
    /// Cargo cannot be started.
    #[error("cannot run {0}: {1}; Rust comes with rustup, see https://rustup.rs")]
    NoCargo(String, std::io::Error),
    /// The toolchain lacks the target of plugins.
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    /// A compiler of another language cannot be started.
    #[error("cannot run {program}: {error}; {needs}")]
    NoProgram {
        program: String,
        /// The error of the system.
        error: std::io::Error,
        /// The tools that the language needs.
        needs: &'static str,
    },
    /// The packages of a project in JavaScript are not installed.
    #[error("the packages of {} are not installed; run `npm ci` there", .0.display())]
    NoPackages(PathBuf),
    /// A compiler of another language failed.
    #[error("`{0}` failed; see its errors above")]
    Compiler(String),
    /// There is no first policy for this hook in this language.
    #[error(
        "`plugin new --lang {language}` makes policies for the hook degradation only, not for {hook}"
    )]
    NoTemplate { language: &'static str, hook: &'static str },
    /// The project cannot be measured natively.
    #[error("native figures are of projects in Rust only")]
    NotRust,
    /// Cargo failed, with these arguments.
    #[error("`cargo {0}` failed; see its errors above")]
    Cargo(String),
    /// The package builds no module.
    #[error(
        "the project makes no plugin: its Cargo.toml needs `crate-type = [\"cdylib\", \"rlib\"]` below [lib]"
    )]
    NoModule,
    /// The package cannot be built for this machine.
    #[error(
        "its tests measure nothing natively: the SDK beside it is not this evenkeel's (a new project has that one)"
    )]
    NotNative,
    /// A gateway would refuse the plugin.
    #[error("{0}")]
    Refused(#[from] PluginRefusal),
}

impl AuthorError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorError + use<> {
        let path = path.to_owned();
        move |error| AuthorError::File(path, error)
    }

    pub(crate) fn case(path: &Path) -> impl FnOnce(CaseError) -> AuthorError + use<> {
        let path = path.to_owned();
        move |error| AuthorError::Case(path, error)
    }

    /// True if the input is wrong, rather than the environment.
    pub fn is_of_the_question(&self) -> bool {
        matches!(
            self,
            AuthorError::BadName { .. }
                | AuthorError::Exists(_)
                | AuthorError::NoProject(_)
                | AuthorError::NoTemplate { .. }
                | AuthorError::Case(..)
        )
    }
}
