//! A validated and compiled plugin.

use std::borrow::Cow;
use std::sync::Arc;

use evenkeel_model::Hook;
use wasmtime::component::InstancePre;

use crate::bindings::exports::evenkeel::policy::{
    admission, degradation, guest, routing, scenario,
};
use crate::engine::Engine;
use crate::guest::StoreData;
use crate::limits::{BINARY_BYTES_MAX, LINE_BYTES_MAX, NAME_BYTES_MAX};
use crate::log::one_line;
use crate::manifest::{CONTRACT, Manifest, same_contract};
use crate::native::{self, NativeCode};
use crate::outline::{Form, Outline};
use crate::refused::PluginRefusal;
use crate::signature::sha256;
use crate::wrap::wrap;

/// The only interface with functions that a policy may import.
const DIAG: &str = "evenkeel:policy/diag@0.1.0";

/// The contract's package, the prefix of its interface names.
const PACKAGE: &str = "evenkeel:policy/";

/// A validated and compiled plugin. Clones share it.
#[derive(Clone)]
pub struct Component(Arc<Vetted>);

pub(crate) struct Vetted {
    manifest: Manifest,
    digest: [u8; 32],
    instance_pre: InstancePre<StoreData>,
    exports: Exports,
}

/// Export indices of a component; hooks missing in the manifest are not looked up.
#[derive(Clone)]
pub(crate) struct Exports {
    pub(crate) guest: guest::GuestIndices,
    pub(crate) admission: Option<admission::GuestIndices>,
    pub(crate) routing: Option<routing::GuestIndices>,
    pub(crate) degradation: Option<degradation::GuestIndices>,
    pub(crate) scenario: Option<scenario::GuestIndices>,
}

impl Component {
    /// Validates a plugin, a core module or a component, and compiles it here.
    ///
    /// All checks that need no compilation come first. Compilation takes 10 to 20 ms for a typical
    /// policy, and is unbounded for a hostile one; a plugin already in use is not compiled again.
    pub fn vet(engine: &Engine, bytes: &[u8]) -> Result<Component, PluginRefusal> {
        if let Some(known) = Component::known(engine, bytes) {
            return Ok(known);
        }
        let manifest = look(bytes)?;
        let binary = wrapped(bytes, &manifest)?;
        let compiled = wasmtime::component::Component::from_binary(engine.wasm(), &binary);
        Component::of(engine, bytes, manifest, compiled)
    }

    /// Validates a plugin whose code was compiled elsewhere; takes 0.1 ms.
    pub fn vet_native(
        engine: &Engine,
        bytes: &[u8],
        code: &NativeCode,
    ) -> Result<Component, PluginRefusal> {
        if let Some(known) = Component::known(engine, bytes) {
            return Ok(known);
        }
        let manifest = look(bytes)?;
        Component::of(engine, bytes, manifest, native::load(engine.wasm(), code))
    }

    /// The plugin with these bytes, if it is already in use.
    pub fn known(engine: &Engine, bytes: &[u8]) -> Option<Component> {
        engine.recall(&sha256(bytes)).map(Component)
    }

    fn of(
        engine: &Engine,
        bytes: &[u8],
        manifest: Manifest,
        compiled: wasmtime::Result<wasmtime::component::Component>,
    ) -> Result<Component, PluginRefusal> {
        let (instance_pre, exports) = compiled
            .and_then(|compiled| link(engine, &compiled, &manifest))
            .map_err(|error| PluginRefusal::Engine { said: format!("{error:#}").into() })?;
        let digest = sha256(bytes);
        let vetted = Arc::new(Vetted { manifest, digest, instance_pre, exports });
        engine.remember(digest, &vetted);
        Ok(Component(vetted))
    }

    /// The validated manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// SHA-256 of the plugin's bytes.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0.digest
    }

    pub(crate) fn instance_pre(&self) -> &InstancePre<StoreData> {
        &self.0.instance_pre
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.0.exports
    }
}

/// Reads the manifest, after all checks that need no compilation.
///
/// # Errors
/// The reason why this gateway refuses the plugin.
pub fn look(bytes: &[u8]) -> Result<Manifest, PluginRefusal> {
    if bytes.len() > BINARY_BYTES_MAX {
        return Err(PluginRefusal::TooLarge { bytes: bytes.len(), max: BINARY_BYTES_MAX });
    }
    let outline = Outline::read(bytes)?;
    check_imports(&outline)?;
    Manifest::read(outline.manifest.ok_or(PluginRefusal::NoManifest)?)
}

/// Wraps the plugin as a component with the exports of its manifest, if it is a core module.
pub(crate) fn wrapped<'a>(
    bytes: &'a [u8],
    manifest: &Manifest,
) -> Result<Cow<'a, [u8]>, PluginRefusal> {
    let outline = Outline::read(bytes)?;
    let binary = match outline.form {
        Form::Module => Cow::Owned(wrap(bytes, outline.typed, manifest)?),
        Form::Component => Cow::Borrowed(bytes),
    };
    check_exports(&binary, manifest)?;
    Ok(binary)
}

fn check_imports(outline: &Outline<'_>) -> Result<(), PluginRefusal> {
    for (interface, function) in &outline.imports {
        if let Some((name, version)) = of_contract(interface) {
            if !same_contract(version) {
                let found = one_line(version, NAME_BYTES_MAX);
                return Err(PluginRefusal::Contract { found, spoken: CONTRACT });
            }
            // `types` has no functions.
            if name == "diag" || (name == "types" && outline.form == Form::Component) {
                continue;
            }
        }
        let function = function.as_deref().map(|name| format!("::{name}")).unwrap_or_default();
        return Err(PluginRefusal::Import {
            found: one_line(&format!("{interface}{function}"), LINE_BYTES_MAX),
            allowed: DIAG,
        });
    }
    Ok(())
}

/// Interface and version of a name of the contract: `evenkeel:policy/diag@0.1.0`.
fn of_contract(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn check_exports(component: &[u8], manifest: &Manifest) -> Result<(), PluginRefusal> {
    let exports = Outline::read(component)?.exports;
    let has = |interface: &str| {
        let mut ours = exports.iter().filter_map(|export| of_contract(export));
        ours.any(|(name, version)| name == interface && same_contract(version))
    };
    if !has("guest") {
        let said = format!("it does not export `{PACKAGE}guest@{CONTRACT}`");
        return Err(PluginRefusal::NotAPlugin(said.into()));
    }
    match manifest.hooks.iter().find(|hook| !has(hook.name())) {
        Some(&hook) => Err(PluginRefusal::HookMissing(hook)),
        None => Ok(()),
    }
}

fn link(
    engine: &Engine,
    component: &wasmtime::component::Component,
    manifest: &Manifest,
) -> wasmtime::Result<(InstancePre<StoreData>, Exports)> {
    let pre = engine.linker().instantiate_pre(component)?;
    let named = |hook| manifest.hooks.contains(&hook);
    let exports = Exports {
        guest: guest::GuestIndices::new(&pre)?,
        admission: named(Hook::Admission)
            .then(|| admission::GuestIndices::new(&pre))
            .transpose()?,
        routing: named(Hook::Routing).then(|| routing::GuestIndices::new(&pre)).transpose()?,
        degradation: named(Hook::Degradation)
            .then(|| degradation::GuestIndices::new(&pre))
            .transpose()?,
        scenario: named(Hook::Scenario).then(|| scenario::GuestIndices::new(&pre)).transpose()?,
    };
    Ok((pre, exports))
}

#[cfg(test)]
mod tests;
