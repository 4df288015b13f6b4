use std::path::{Path, PathBuf};

use evenkeel_host::PluginRefusal;
use evenkeel_toolchain::ToolchainError;

/// An error for a plugin author. As text: one sentence with the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorError {
    #[error("{found:?} is not a valid plugin name: {expected}")]
    BadName { found: String, expected: &'static str },
    #[error("{} exists already; nothing was changed", .0.display())]
    Exists(PathBuf),
    #[error(
        "there is no Cargo.toml in {}; `evenkeel plugin new --hook HOOK NAME` makes a project, `--path` names another \
         folder",
        .0.display()
    )]
    NoProject(PathBuf),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("cannot run {program}: {error}; Rust comes with rustup, see https://rustup.rs")]
    NoCargo { program: String, error: std::io::Error },
    #[error(transparent)]
    Toolchain(#[from] ToolchainError),
    #[error("`cargo {0}` failed; see its errors above")]
    Cargo(String),
    #[error(
        "the project makes no plugin: its Cargo.toml needs `crate-type = [\"cdylib\", \"rlib\"]` below [lib]"
    )]
    NoModule,
    #[error(
        "its tests measure nothing natively: the SDK beside it is not this evenkeel's (a new project has that one)"
    )]
    NotNative,
    #[error("{0}")]
    Refused(#[from] PluginRefusal),
}

impl AuthorError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> AuthorError + use<> {
        let path = path.to_owned();
        move |error| AuthorError::File { path, error }
    }

    /// True if the input is wrong, rather than the environment.
    pub fn is_of_the_question(&self) -> bool {
        match self {
            AuthorError::BadName { .. } | AuthorError::Exists(_) | AuthorError::NoProject(_) => {
                true
            }
            AuthorError::File { .. }
            | AuthorError::NoCargo { .. }
            | AuthorError::Toolchain(_)
            | AuthorError::Cargo(_)
            | AuthorError::NoModule
            | AuthorError::NotNative
            | AuthorError::Refused(_) => false,
        }
    }
}
