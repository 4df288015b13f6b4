//! A plugin file that was built from a project or accepted by the host.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use data_encoding::HEXLOWER;
use evenkeel_host::{BoundPlugin, CallBudgets, Component, Engine, PluginRefusal};
use serde_json::Value;

use crate::cargo::Project;
use crate::failed::AuthorError;

/// Time limit of a call: generous, as an author's machine is busy with compiling.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// An engine with a time limit far above the gateway's budget, so that a slow machine does not change answers. Endless
/// loops still end.
pub fn patient_engine() -> Engine {
    Engine::with_budgets(CallBudgets::all(PATIENCE))
}

/// A plugin accepted by the host.
///
/// The file is the module as cargo wrote it. The host wraps it as a component itself; wrapping here
/// would make it larger, and equal sources would no longer give equal bytes, which signatures require.
pub struct Built {
    /// The module as shipped.
    pub bytes: Vec<u8>,
    /// The vetted plugin.
    pub component: Component,
    pub(crate) engine: Engine,
}

impl Built {
    /// Compiles the project and vets the module as a gateway would.
    pub fn of(project: &Project) -> Result<Built, AuthorError> {
        Built::read(&project.compile()?)
    }

    pub(crate) fn read(file: &Path) -> Result<Built, AuthorError> {
        Ok(Built::from_bytes(fs::read(file).map_err(AuthorError::file(file))?)?)
    }

    /// Accepts a core module or a component.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Built, PluginRefusal> {
        let engine = patient_engine();
        let component = Component::vet(&engine, &bytes)?;
        Ok(Built { bytes, component, engine })
    }

    /// Writes `<name>.wasm` into a folder and returns the path.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, AuthorError> {
        let path = folder.join(format!("{}.wasm", self.component.manifest().name));
        replace(&path, &self.bytes).map_err(AuthorError::file(&path))?;
        Ok(path)
    }

    /// True if a build of the project's present sources equals this plugin; signatures are ignored.
    ///
    /// # Errors
    /// If the project does not build.
    pub fn is_current(&self, project: &Project) -> Result<bool, AuthorError> {
        let now = project.compile()?;
        let now = fs::read(&now).map_err(AuthorError::file(&now))?;
        Ok(self.bytes.starts_with(&now))
    }

    /// SHA-256 of the file, 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        HEXLOWER.encode(self.component.digest())
    }

    /// Name of the plugin's revision under default settings; `None` if a setting has no default.
    pub fn revision(&self) -> Option<String> {
        let hook = *self.component.manifest().hooks.first()?;
        let policy =
            BoundPlugin::install(&self.engine, &self.component, hook, Value::Null, Vec::new(), 0);
        policy.ok().map(|policy| policy.revision().to_owned())
    }
}

/// Replaces a file at once: a gateway that watches it sees the old plugin or the new one, never a part.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
