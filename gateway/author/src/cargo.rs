//! Runs cargo in a project.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use evenkeel_host::toolchain::TARGET;
use serde_json::Value;

use crate::failed::AuthorError;
use crate::project::Project;

impl Project {
    /// Runs the project's own tests natively. `to_stderr` keeps standard output for the result of a command.
    pub(crate) fn cargo_test(&self, to_stderr: bool) -> Result<(), AuthorError> {
        let mut cargo = self.cargo("test");
        if to_stderr {
            cargo.stdout(std::io::stderr());
        }
        let status = cargo.status().map_err(|error| no_cargo(&cargo, error))?;
        if status.success() { Ok(()) } else { Err(AuthorError::Cargo("test".into())) }
    }

    /// Runs one ignored test natively with full optimisation and returns its output.
    pub(crate) fn cargo_run_test(
        &self,
        test: &str,
        with: (&str, &Path),
    ) -> Result<String, AuthorError> {
        let mut cargo = self.cargo("test");
        cargo.args(["--quiet", "--release", "--lib", test, "--", "--ignored", "--nocapture"]);
        cargo.env(with.0, with.1);
        let output = cargo.output().map_err(|error| no_cargo(&cargo, error))?;
        if !output.status.success() {
            return Err(AuthorError::Cargo(format!("test --release --lib {test} -- --ignored")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Compiles the plugin with lines of source, so little optimised that its branches are those of the source.
    pub(crate) fn cargo_build_for_coverage(&self) -> Result<PathBuf, AuthorError> {
        self.cargo_build(&[
            "--profile=coverage",
            "--config=profile.coverage.inherits='release'",
            "--config=profile.coverage.debug='line-tables-only'",
            "--config=profile.coverage.lto='off'",
            "--config=profile.coverage.opt-level=1",
            "--config=profile.coverage.strip=false",
        ])
    }

    /// Compiles the plugin, and returns the path of cargo's module.
    pub(crate) fn cargo_build(&self, profile: &[&str]) -> Result<PathBuf, AuthorError> {
        evenkeel_host::toolchain::check_target()?;
        let mut cargo = self.cargo("build");
        cargo
            .args(profile)
            .args(["--lib", "--target", TARGET])
            .args(["--message-format", "json-render-diagnostics"]);
        let output = cargo.output().map_err(|error| no_cargo(&cargo, error))?;
        if !output.status.success() {
            return Err(AuthorError::Cargo("build".into()));
        }
        let lines = output.stdout.split(|&byte| byte == b'\n');
        let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let ours = self.folder.join("Cargo.toml");
        let module = messages.filter_map(|message| module(&message, &ours)).next_back();
        module.ok_or(AuthorError::NoModule)
    }

    fn cargo(&self, verb: &str) -> Command {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut cargo = Command::new(program);
        cargo.arg(verb).current_dir(&self.folder).stdin(Stdio::null()).stderr(Stdio::inherit());
        cargo
    }
}

/// The module in a message of cargo, if it is about the crate with this manifest.
fn module(message: &Value, manifest: &Path) -> Option<PathBuf> {
    let of = message.get("manifest_path")?.as_str()?;
    if Path::new(of) != manifest {
        return None;
    }
    let files = message.get("filenames")?.as_array()?;
    let files = files.iter().filter_map(Value::as_str).map(PathBuf::from);
    files.into_iter().find(|file| file.extension() == Some(OsStr::new("wasm")))
}

fn no_cargo(command: &Command, error: std::io::Error) -> AuthorError {
    AuthorError::NoCargo(command.get_program().to_string_lossy().into_owned(), error)
}

#[cfg(test)]
mod tests;
