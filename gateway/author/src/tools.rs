//! Runs the compilers of languages other than Rust in a project.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::failed::AuthorError;
use crate::project::Project;

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

impl Project {
    /// Compiles `policy.c`.
    pub(crate) fn clang(&self, options: &[&str]) -> Result<PathBuf, AuthorError> {
        let out = self.output()?;
        let mut clang = Command::new(std::env::var_os("CLANG").unwrap_or_else(|| "clang".into()));
        clang.args(CLANG).args(options).arg("-o").arg(&out).arg("policy.c");
        self.run(clang, NEEDS_CLANG)?;
        Ok(out)
    }

    /// Compiles `policy.js` as `npm run build` does.
    pub(crate) fn componentize(&self) -> Result<PathBuf, AuthorError> {
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
