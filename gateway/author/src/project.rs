//! A folder with a plugin's source, and what its language needs to build it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use evenkeel_host::toolchain::TARGET;
use serde_json::Value;

use crate::failed::AuthorError;
use crate::language::Language;

/// Folder of compilers' output in a project.
const BUILD_FOLDER: &str = "build";

/// The module of a compiler, in its folder.
const MODULE: &str = "policy.wasm";

/// Names of functions stay in the module, for the trace of a trap.
const CLANG: [&str; 7] = [
    "--target=wasm32",
    "-ffreestanding",
    "-nostdlib",
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wl,--no-entry",
];

const NEEDS_CLANG: &str =
    "a policy in C needs clang and wasm-ld, the packages `clang` and `lld` of Debian";

const NEEDS_NODE: &str = "a policy in JavaScript needs Node.js and npm";

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

    /// Runs the project's own tests natively. `to_stderr` keeps standard output for the result of a command.
    fn cargo_test(&self, to_stderr: bool) -> Result<(), AuthorError> {
        let mut cargo = self.cargo("test");
        if to_stderr {
            cargo.stdout(std::io::stderr());
        }
        let status = cargo.status().map_err(|error| no_cargo(&cargo, error))?;
        if status.success() { Ok(()) } else { Err(AuthorError::Cargo("test".into())) }
    }

    /// Runs one ignored test natively with full optimisation and returns its output.
    fn cargo_run_test(&self, test: &str, with: (&str, &Path)) -> Result<String, AuthorError> {
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
    fn cargo_build_for_coverage(&self) -> Result<PathBuf, AuthorError> {
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
    fn cargo_build(&self, profile: &[&str]) -> Result<PathBuf, AuthorError> {
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

    /// Compiles `policy.c`.
    fn clang(&self, options: &[&str]) -> Result<PathBuf, AuthorError> {
        let out = self.output()?;
        let mut clang = Command::new(std::env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
        clang.args(CLANG).args(options).arg("-o").arg(&out).arg("policy.c");
        self.run(clang, NEEDS_CLANG)?;
        Ok(out)
    }

    /// Compiles `policy.js` as `npm run build` does.
    fn componentize(&self) -> Result<PathBuf, AuthorError> {
        if !self.folder.join("node_modules").is_dir() {
            return Err(AuthorError::NoPackages(self.folder.clone()));
        }
        let out = self.output()?;
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", "build", "--"]).arg(&out);
        self.run(npm, NEEDS_NODE)?;
        Ok(out)
    }

    fn output(&self) -> Result<PathBuf, AuthorError> {
        let folder = self.folder.join(BUILD_FOLDER);
        fs::create_dir_all(&folder).map_err(AuthorError::file(&folder))?;
        Ok(folder.join(MODULE))
    }

    /// Runs a compiler in the project; its output is on standard error.
    fn run(&self, mut compiler: Command, needs: &'static str) -> Result<(), AuthorError> {
        compiler.current_dir(&self.folder).stdin(Stdio::null()).stdout(std::io::stderr());
        let program = compiler.get_program().to_string_lossy().into_owned();
        match compiler.status() {
            Err(error) => Err(AuthorError::NoProgram { program, error, needs }),
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(AuthorError::Compiler(program)),
        }
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
