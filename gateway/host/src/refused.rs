use evenkeel_model::{Hook, PluginFault};

use crate::signature::PublicKey;

/// The reason why a plugin or its settings are refused. As text: one sentence with the next step.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginRefusal {
    #[error("the plugin has {bytes} bytes; at most {max} are taken")]
    TooLarge { bytes: usize, max: usize },
    #[error("the file is not WebAssembly: {said}")]
    NotWasm {
        /// The parser's error.
        said: Box<str>,
    },
    #[error("the plugin's signature: found {found}; sign it with `evenkeel plugin sign`")]
    Signature { found: &'static str },
    #[error(
        "{}: sign it with `evenkeel plugin sign` and a key of [trust], or say `unsigned = true` where the policy is bound",
        unsigned_words(*by)
    )]
    Unsigned {
        /// The unknown key that signed the plugin, if any.
        by: Option<PublicKey>,
    },
    #[error("the plugin is revoked in [trust]: {what}")]
    Revoked {
        /// The revoked key or digest.
        what: Box<str>,
    },
    #[error(
        "version {found} of `{plugin}` is older than {ran}, which ran here before: force it, or roll back, if that is meant"
    )]
    Downgrade {
        plugin: Box<str>,
        found: Box<str>,
        /// The highest version that ran.
        ran: Box<str>,
    },
    #[error("compiling the plugin exceeded {limit}; build a smaller one")]
    CompileLimit { limit: Box<str> },
    #[error("the plugin was not compiled: {said}")]
    Compiler {
        /// The process's exit status or output.
        said: Box<str>,
    },
    /// The plugin imports something other than `diag`.
    #[error(
        "the plugin imports `{found}`, but a policy may import `{allowed}` alone: rebuild it with `cargo build \
         --release --target wasm32-unknown-unknown`, without crates that need a clock, files, randomness or a network"
    )]
    Import {
        /// Module and name of the import.
        found: Box<str>,
        /// The only interface that may be imported.
        allowed: &'static str,
    },
    #[error(
        "the plugin speaks version {found} of the contract and this gateway {spoken}: rebuild it with the SDK of \
         that version"
    )]
    Contract { found: Box<str>, spoken: &'static str },
    #[error("the module is not a policy plugin: {said}; build it with the Evenkeel plugin SDK")]
    NotAPlugin { said: Box<str> },
    #[error(
        "the plugin has no section `evenkeel:manifest`: build it with the Evenkeel plugin SDK, and do not strip \
         custom sections"
    )]
    NoManifest,
    #[error("the plugin's manifest: `{field}` should be {expected}, found {found}")]
    Manifest {
        /// Path in the manifest.
        field: Box<str>,
        expected: Box<str>,
        found: Box<str>,
    },
    #[error("the plugin's manifest names the hook `{}`, but the plugin does not export it", hook.name())]
    HookMissing { hook: Hook },
    #[error("the plugin `{plugin}` does not answer the hook `{}`", hook.name())]
    HookUnanswered { plugin: Box<str>, hook: Hook },
    /// The plugin uses a disabled feature, exceeds a limit, or does not match the contract's types.
    #[error("the engine does not take the plugin: {said}")]
    Engine {
        /// The engine's error.
        said: Box<str>,
    },
    #[error("setting `{path}` should be {expected}, found {found}")]
    Setting {
        /// JSON path of the setting: `$.tiers[0].cap`.
        path: Box<str>,
        expected: Box<str>,
        found: Box<str>,
    },
    #[error("the plugin does not take its settings: {said}")]
    Settings {
        /// The plugin's message.
        said: Box<str>,
    },
    #[error("the plugin failed in `{call}`: {}", fault_words(fault))]
    Faulted {
        /// The call: `start`, `init` or `catalog`.
        call: &'static str,
        fault: PluginFault,
    },
}

impl PluginRefusal {
    /// The code in metrics, events and the API: `import`. It never changes.
    pub fn code(&self) -> &'static str {
        match self {
            PluginRefusal::TooLarge { .. } => "too-large",
            PluginRefusal::NotWasm { .. } => "not-wasm",
            PluginRefusal::Signature { .. } => "signature",
            PluginRefusal::Unsigned { .. } => "unsigned",
            PluginRefusal::Revoked { .. } => "revoked",
            PluginRefusal::Downgrade { .. } => "downgrade",
            PluginRefusal::CompileLimit { .. } => "compile-limit",
            PluginRefusal::Compiler { .. } => "compiler",
            PluginRefusal::Import { .. } => "import",
            PluginRefusal::Contract { .. } => "contract",
            PluginRefusal::NotAPlugin { .. } => "not-a-plugin",
            PluginRefusal::NoManifest => "no-manifest",
            PluginRefusal::Manifest { .. } => "manifest",
            PluginRefusal::HookMissing { .. } => "hook-missing",
            PluginRefusal::HookUnanswered { .. } => "hook-unanswered",
            PluginRefusal::Engine { .. } => "engine",
            PluginRefusal::Setting { .. } => "setting",
            PluginRefusal::Settings { .. } => "settings",
            PluginRefusal::Faulted { fault, .. } => fault.name(),
        }
    }
}

fn unsigned_words(by: Option<PublicKey>) -> String {
    match by {
        Some(key) => format!("the plugin is signed with the unknown key {key}"),
        None => "the plugin is not signed".to_owned(),
    }
}

fn fault_words(fault: &PluginFault) -> String {
    match fault {
        PluginFault::Deadline => "it ran past its budget and was stopped".into(),
        PluginFault::Trap(said) | PluginFault::Malformed(said) => said.to_string(),
        PluginFault::OutOfMemory => "it asked for more memory than it is allowed".into(),
        PluginFault::Late | PluginFault::Absent => fault.name().into(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
