//! Why a plugin, or its settings, were not taken.

use evenkeel_core::{Fault, Hook};

/// Why a plugin, or its settings, were not taken. As text: one sentence that says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The file is larger than any policy.
    #[error("the plugin has {bytes} bytes; at most {max} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The file is no WebAssembly, or breaks off.
    #[error("the file is not WebAssembly: {said}")]
    NotWasm {
        /// What the parser said.
        said: Box<str>,
    },
    /// It wants something from us other than `diag`.
    #[error(
        "the plugin imports `{found}`, but a policy may import `{allowed}` alone: rebuild it with `cargo build \
         --release --target wasm32-unknown-unknown`, without crates that need a clock, files, randomness or a network"
    )]
    Import {
        /// Module and name of the import.
        found: Box<str>,
        /// The one interface that may be imported.
        allowed: &'static str,
    },
    /// It was built for another version of the contract.
    #[error(
        "the plugin speaks version {found} of the contract and this gateway {spoken}: rebuild it with the SDK of \
         that version"
    )]
    Contract {
        /// Its version.
        found: Box<str>,
        /// Ours.
        spoken: &'static str,
    },
    /// A core module that does not describe a policy.
    #[error("the module is not a policy plugin: {said}; build it with the Evenkeel plugin SDK")]
    NotAPlugin {
        /// What could not be made of it.
        said: Box<str>,
    },
    /// It has no manifest.
    #[error(
        "the plugin has no section `evenkeel:manifest`: build it with the Evenkeel plugin SDK, and do not strip \
         custom sections"
    )]
    NoManifest,
    /// Its manifest is not what it should be.
    #[error("the plugin's manifest: `{field}` should be {expected}, found {found}")]
    Manifest {
        /// Where in the manifest.
        field: Box<str>,
        /// What would be right.
        expected: Box<str>,
        /// What is there.
        found: Box<str>,
    },
    /// The manifest promises a hook that the plugin does not export.
    #[error("the plugin's manifest names the hook `{}`, but the plugin does not export it", hook.name())]
    HookMissing {
        /// The hook.
        hook: Hook,
    },
    /// The plugin was bound to a hook that it does not answer.
    #[error("the plugin `{plugin}` does not answer the hook `{}`", hook.name())]
    HookUnanswered {
        /// The plugin's name.
        plugin: Box<str>,
        /// The hook it was bound to.
        hook: Hook,
    },
    /// It uses what is switched off, wants more than the limits, or does not keep the types of the contract.
    #[error("the engine does not take the plugin: {said}")]
    Engine {
        /// What the engine said.
        said: Box<str>,
    },
    /// Settings that the plugin's schema does not allow.
    #[error("setting `{path}` should be {expected}, found {found}")]
    Setting {
        /// JSON path of the setting: `$.tiers[0].cap`.
        path: Box<str>,
        /// What the schema wants.
        expected: Box<str>,
        /// What was given.
        found: Box<str>,
    },
    /// The plugin itself did not take its settings.
    #[error("the plugin does not take its settings: {said}")]
    Settings {
        /// What the plugin said.
        said: Box<str>,
    },
    /// The plugin failed before its first question.
    #[error("the plugin failed in `{call}`: {}", fault_words(fault))]
    Faulted {
        /// The call: `start`, `init` or `catalog`.
        call: &'static str,
        /// How.
        fault: Fault,
    },
}

fn fault_words(fault: &Fault) -> String {
    match fault {
        Fault::Deadline => "it ran past its budget and was stopped".into(),
        Fault::Trap(said) | Fault::Malformed(said) => said.to_string(),
        Fault::OutOfMemory => "it asked for more memory than it is allowed".into(),
        Fault::Late | Fault::Absent => fault.name().into(),
    }
}
