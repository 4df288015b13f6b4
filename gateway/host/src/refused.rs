//! Why a plugin, or its settings, were not taken.

use evenkeel_core::{Fault, Hook};

use crate::signature::PublicKey;

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
    /// Its signature is not what it should be.
    #[error("the plugin's signature: found {found}; sign it with `evenkeel plugin sign`")]
    Signature {
        /// What is there.
        found: &'static str,
    },
    /// Nobody who is known here vouches for it.
    #[error(
        "{}: sign it with `evenkeel plugin sign` and a key of [trust], or say `unsigned = true` where the policy is bound",
        unsigned_words(*by)
    )]
    Unsigned {
        /// Who signed it, if anybody did.
        by: Option<PublicKey>,
    },
    /// The operator took it back, or the key that signed it.
    #[error("the plugin is revoked in [trust]: {what}")]
    Revoked {
        /// The key or the digest that is revoked.
        what: Box<str>,
    },
    /// A newer one of its name ran here before.
    #[error(
        "version {found} of `{plugin}` is older than {ran}, which ran here before: force it, or roll back, if that is meant"
    )]
    Downgrade {
        /// The plugin's name.
        plugin: Box<str>,
        /// Its version.
        found: Box<str>,
        /// The highest that ran.
        ran: Box<str>,
    },
    /// Compiling it took more than a plugin may cost.
    #[error(
        "compiling the plugin was stopped at {limit}: what no honest policy needs; build a smaller one"
    )]
    CompileLimit {
        /// Which limit.
        limit: Box<str>,
    },
    /// The process that was to compile it did not.
    #[error("the plugin was not compiled: {said}")]
    Compiler {
        /// What became of that process.
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

impl Refused {
    /// The word in metrics, events and the API's answers: `import`. It never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::TooLarge { .. } => "too-large",
            Refused::NotWasm { .. } => "not-wasm",
            Refused::Signature { .. } => "signature",
            Refused::Unsigned { .. } => "unsigned",
            Refused::Revoked { .. } => "revoked",
            Refused::Downgrade { .. } => "downgrade",
            Refused::CompileLimit { .. } => "compile-limit",
            Refused::Compiler { .. } => "compiler",
            Refused::Import { .. } => "import",
            Refused::Contract { .. } => "contract",
            Refused::NotAPlugin { .. } => "not-a-plugin",
            Refused::NoManifest => "no-manifest",
            Refused::Manifest { .. } => "manifest",
            Refused::HookMissing { .. } => "hook-missing",
            Refused::HookUnanswered { .. } => "hook-unanswered",
            Refused::Engine { .. } => "engine",
            Refused::Setting { .. } => "setting",
            Refused::Settings { .. } => "settings",
            Refused::Faulted { fault, .. } => fault.name(),
        }
    }
}

fn unsigned_words(by: Option<PublicKey>) -> String {
    match by {
        Some(key) => format!("the plugin is signed with {key}, which is not known here"),
        None => "the plugin is not signed".to_owned(),
    }
}

fn fault_words(fault: &Fault) -> String {
    match fault {
        Fault::Deadline => "it ran past its budget and was stopped".into(),
        Fault::Trap(said) | Fault::Malformed(said) => said.to_string(),
        Fault::OutOfMemory => "it asked for more memory than it is allowed".into(),
        Fault::Late | Fault::Absent => fault.name().into(),
    }
}
