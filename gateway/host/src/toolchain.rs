//! The target for which plugins are compiled. The build script of this crate includes this file.

use std::path::Path;
use std::process::Command;
use std::{env, fmt, io};

/// The target's name in rustup and cargo.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The reason for which no plugin can be compiled.
#[derive(Debug)]
pub enum ToolchainError {
    /// The compiler cannot be run.
    NoCompiler {
        /// The value of `RUSTC`, or `rustc`.
        program: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The compiler has no standard library for [`TARGET`].
    NoTarget,
}

impl fmt::Display for ToolchainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ToolchainError::NoCompiler { program, error } => write!(
                f,
                "cannot run {program}: {error}; Rust comes with rustup, see https://rustup.rs"
            ),
            ToolchainError::NoTarget => write!(
                f,
                "plugins need the target {TARGET}, which is not installed: run `rustup target add {TARGET}`"
            ),
        }
    }
}

impl std::error::Error for ToolchainError {}

/// Checks for the target, because the compiler's own error is a hundred lines long.
///
/// # Errors
/// The compiler cannot be run, or lacks the target.
pub fn check_target() -> Result<(), ToolchainError> {
    let program = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output =
        Command::new(&program).args(["--print", "target-libdir", "--target", TARGET]).output();
    let output = output.map_err(|error| ToolchainError::NoCompiler { program, error })?;
    let folder = String::from_utf8_lossy(&output.stdout);
    let is_there = output.status.success() && Path::new(folder.trim()).is_dir();
    if is_there { Ok(()) } else { Err(ToolchainError::NoTarget) }
}
