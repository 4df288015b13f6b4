//! Why something was not done for an author.

use std::path::{Path, PathBuf};

use evenkeel_host::Refused;

/// Why something was not done for an author. As text: one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// No plugin may be called so.
    #[error("{found:?} is no name for a plugin: {expected}")]
    BadName {
        /// The name.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// There is something where a new project was to be.
    #[error("{} is there already; nothing was changed", .0.display())]
    Exists(PathBuf),
    /// A folder in which cargo has nothing to build.
    #[error(
        "there is no Cargo.toml in {}; `evenkeel plugin new --hook HOOK NAME` makes a project, `--path` names another \
         folder",
        .0.display()
    )]
    NoProject(PathBuf),
    /// A file or folder could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Cargo did not start.
    #[error("cannot run {program}: {error}; Rust comes with rustup, see https://rustup.rs")]
    NoCargo {
        /// What was to run.
        program: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The standard library for plugins is not there.
    #[error(
        "plugins need the target {target}, which is not installed: run `rustup target add {target}`"
    )]
    NoTarget {
        /// Its name.
        target: &'static str,
    },
    /// Cargo failed, and said why on standard error.
    #[error("`cargo {0}` failed; it says why above")]
    Cargo(String),
    /// Cargo built the project, and no plugin came of it.
    #[error(
        "the project makes no plugin: its Cargo.toml needs `crate-type = [\"cdylib\", \"rlib\"]` below [lib]"
    )]
    NoModule,
    /// The project's tests measure nothing natively.
    #[error(
        "its tests measure nothing natively: the SDK beside it is not this evenkeel's (a new project has that one)"
    )]
    NotNative,
    /// The host does not take the plugin.
    #[error("{0}")]
    Refused(#[from] Refused),
}

impl Failed {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Failed + use<> {
        let path = path.to_owned();
        move |error| Failed::File { path, error }
    }

    /// Whether what was asked for is wrong, rather than what was tried.
    pub fn is_of_the_question(&self) -> bool {
        match self {
            Failed::BadName { .. } | Failed::Exists(_) | Failed::NoProject(_) => true,
            Failed::File { .. }
            | Failed::NoCargo { .. }
            | Failed::NoTarget { .. }
            | Failed::Cargo(_)
            | Failed::NoModule
            | Failed::NotNative
            | Failed::Refused(_) => false,
        }
    }
}
