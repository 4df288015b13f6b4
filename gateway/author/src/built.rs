//! A plugin file that was built from a project or accepted by the host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use data_encoding::HEXLOWER;
use evenkeel_host::{
    BoundPlugin, CallBudgets, Component, DataDocuments, Engine, PluginInputs, PluginRefusal,
};
use serde_json::Value;

use crate::failed::AuthorError;
use crate::project::Project;

/// The gateway's budgets, with more time for `open`: a recorded question may be about more new sessions than an author's
/// machine opens in time.
pub(crate) fn recorded_budgets() -> CallBudgets {
    CallBudgets { open: Duration::from_millis(250), ..CallBudgets::default() }
}

/// An engine that repeats recorded questions. A busy machine does not change answers, and endless loops end.
pub fn patient_engine() -> Engine {
    Engine::patient(recorded_budgets())
}

/// A plugin accepted by the host.
///
/// The file is the module as cargo wrote it. The host wraps it as a component itself; wrapping here
/// would make it larger, and equal sources would no longer give equal bytes, which signatures require.
pub struct BuiltPlugin {
    /// The module as shipped.
    pub bytes: Vec<u8>,
    /// The vetted plugin.
    pub component: Component,
    /// The data documents that it is given.
    pub documents: DataDocuments,
    /// With the gateway's budgets.
    pub(crate) engine: Engine,
    pub(crate) compiled_in: Duration,
}

impl BuiltPlugin {
    /// Compiles the project and vets the module as a gateway would.
    pub fn of(project: &Project) -> Result<BuiltPlugin, AuthorError> {
        BuiltPlugin::read(&project.compile()?)
    }

    /// Compiles the project with lines of source, for [`cover`](crate::coverage::cover).
    pub fn for_coverage(project: &Project) -> Result<BuiltPlugin, AuthorError> {
        BuiltPlugin::read(&project.compile_for_coverage()?)
    }

    pub(crate) fn read(file: &Path) -> Result<BuiltPlugin, AuthorError> {
        Ok(BuiltPlugin::from_bytes(fs::read(file).map_err(AuthorError::file(file))?)?)
    }

    /// Accepts a core module or a component.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<BuiltPlugin, PluginRefusal> {
        let engine = Engine::patient(CallBudgets::default());
        let began = Instant::now();
        let component = Component::vet(&engine, &bytes)?;
        let (documents, compiled_in) = (DataDocuments::new(), began.elapsed());
        Ok(BuiltPlugin { bytes, component, documents, engine, compiled_in })
    }

    /// Its documents, with these settings.
    pub(crate) fn inputs(&self, settings: &Value) -> PluginInputs {
        PluginInputs { settings: settings.clone(), documents: self.documents.clone() }
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

    /// Name of the plugin's revision under default settings; `None` if these are not settings of the plugin, such as one
    /// that has to be set, or if it needs a data document.
    ///
    /// # Errors
    /// If the plugin does not start.
    pub fn revision(&self) -> Result<Option<String>, PluginRefusal> {
        let Some(&hook) = self.component.manifest().hooks.first() else { return Ok(None) };
        let inputs = self.inputs(&Value::Null);
        match BoundPlugin::install(&self.engine, &self.component, hook, inputs, Vec::new(), 0) {
            Ok(policy) => Ok(Some(policy.revision().to_owned())),
            Err(
                PluginRefusal::Setting { .. }
                | PluginRefusal::Settings(_)
                | PluginRefusal::Document { .. },
            ) => Ok(None),
            Err(refused) => Err(refused),
        }
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
