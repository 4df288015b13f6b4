use evenkeel_model::{Hook, PluginFault};

use crate::limits::{MEMORY_BYTES_MAX, budget_of};

/// The reason why a plugin or its settings are refused. As text: one sentence with the next step.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginRefusal {
    /// The file exceeds the limit.
    #[error("the plugin has {bytes} bytes; at most {max} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The parser rejects the file, with this error.
    #[error("the file is not WebAssembly: {0}")]
    NotWasm(Box<str>),
    /// The signature is invalid; says what was found.
    #[error("the plugin's signature: found {0}; sign it with `evenkeel plugin sign`")]
    Signature(&'static str),
    /// No trusted key signed the plugin; the unknown key that did, if any.
    #[error(
        "{}: sign it with `evenkeel plugin sign` and a key of [trust], or say `unsigned = true` where the policy is bound",
        unsigned_words(.0.as_deref())
    )]
    Unsigned(Option<Box<str>>),
    /// `[trust]` names its key or digest, given here.
    #[error("the plugin is revoked in [trust]: {0}")]
    Revoked(Box<str>),
    /// A newer version of the plugin ran here.
    #[error(
        "version {found} of `{plugin}` is older than {ran}, which ran here before: force it, or roll back, if that is meant"
    )]
    Downgrade {
        /// The plugin's name.
        plugin: Box<str>,
        /// Version of the file.
        found: Box<str>,
        /// The highest version that ran.
        ran: Box<str>,
    },
    /// Compiling exceeded this limit: `10 s`.
    #[error("compiling the plugin exceeded {0}; build a smaller one")]
    CompileLimit(Box<str>),
    /// The compiler process failed, with this exit status or output.
    #[error("the plugin was not compiled: {0}")]
    Compiler(Box<str>),
    /// The plugin imports something that no policy may use.
    #[error(
        "the plugin imports `{found}`, but a policy may only import `{allowed}`: rebuild it with `cargo build \
         --release --target wasm32-unknown-unknown`, without crates that need a clock, files, randomness or a network"
    )]
    Import {
        /// Module and name of the import.
        found: Box<str>,
        /// The only interfaces that may be imported.
        allowed: &'static str,
    },
    /// The plugin speaks another version of the contract.
    #[error(
        "the plugin speaks version {found} of the contract and this gateway {spoken}: rebuild it with the SDK of \
         that version"
    )]
    Contract {
        /// Its version.
        found: Box<str>,
        /// The gateway's versions.
        spoken: &'static str,
    },
    /// The component encoder rejects the module, with this error.
    #[error("the module is not a policy plugin: {0}; build it with the Evenkeel plugin SDK")]
    NotAPlugin(Box<str>),
    /// The file has no manifest.
    #[error(
        "the plugin has no section `evenkeel:manifest`: build it with the Evenkeel plugin SDK, and do not strip \
         custom sections"
    )]
    NoManifest,
    /// A field of the manifest is invalid.
    #[error("the plugin's manifest: `{field}` should be {expected}, found {found}")]
    Manifest {
        /// Path in the manifest.
        field: Box<str>,
        /// The expected form.
        expected: Box<str>,
        /// The value found.
        found: Box<str>,
    },
    /// The manifest names this hook, but the plugin does not export it.
    #[error(
        "the plugin's manifest names the hook `{}`, but the plugin does not export it; in C, define EK_{} before the header",
        .0.name(),
        .0.name().to_uppercase()
    )]
    HookMissing(Hook),
    /// The plugin exports only a part of an interface.
    #[error("the plugin does not export the function `{0}`")]
    ExportMissing(Box<str>),
    /// The policy needs a hook that the plugin does not have.
    #[error("the plugin `{plugin}` does not answer the hook `{}`", hook.name())]
    HookUnanswered {
        /// The plugin's name.
        plugin: Box<str>,
        hook: Hook,
    },
    /// The plugin uses a disabled feature, exceeds a limit, or does not match the contract's types; the engine's error.
    #[error("the engine does not take the plugin: {0}")]
    Engine(Box<str>),
    /// A setting contradicts the schema.
    #[error("setting `{path}` should be {expected}, found {found}")]
    Setting {
        /// JSON path of the setting: `$.tiers[0].cap`.
        path: Box<str>,
        /// The expected form.
        expected: Box<str>,
        /// The value found.
        found: Box<str>,
    },
    /// A data document contradicts its schema, or cannot be read.
    #[error(
        "data document `{document}`{} should be {expected}, found {found}",
        pointer_words(pointer)
    )]
    Document {
        /// Its name.
        document: Box<str>,
        /// JSON pointer to the value (RFC 6901); empty: the whole document.
        pointer: Box<str>,
        /// The expected form.
        expected: Box<str>,
        /// The value found.
        found: Box<str>,
    },
    /// The plugin's `init` rejects the settings, with this message.
    #[error("the plugin does not take its settings: {0}")]
    Settings(Box<str>),
    /// The plugin failed before its first question, in its proof, or in a question of an author's tool.
    #[error("{}", fault_words(call, fault))]
    Faulted {
        /// The call: `start`, `init` or `tick`.
        call: &'static str,
        /// The failure.
        fault: PluginFault,
    },
}

impl PluginRefusal {
    /// The code in metrics, events and the API: `import`. It never changes.
    pub fn code(&self) -> &'static str {
        match self {
            PluginRefusal::TooLarge { .. } => "too-large",
            PluginRefusal::NotWasm(_) => "not-wasm",
            PluginRefusal::Signature(_) => "signature",
            PluginRefusal::Unsigned(_) => "unsigned",
            PluginRefusal::Revoked(_) => "revoked",
            PluginRefusal::Downgrade { .. } => "downgrade",
            PluginRefusal::CompileLimit(_) => "compile-limit",
            PluginRefusal::Compiler(_) => "compiler",
            PluginRefusal::Import { .. } => "import",
            PluginRefusal::Contract { .. } => "contract",
            PluginRefusal::NotAPlugin(_) => "not-a-plugin",
            PluginRefusal::NoManifest => "no-manifest",
            PluginRefusal::Manifest { .. } => "manifest",
            PluginRefusal::HookMissing(_) => "hook-missing",
            PluginRefusal::ExportMissing(_) => "export-missing",
            PluginRefusal::HookUnanswered { .. } => "hook-unanswered",
            PluginRefusal::Engine(_) => "engine",
            PluginRefusal::Setting { .. } => "setting",
            PluginRefusal::Document { .. } => "document",
            PluginRefusal::Settings(_) => "settings",
            PluginRefusal::Faulted { fault, .. } => fault.name(),
        }
    }
}

fn pointer_words(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") }
}

fn unsigned_words(by: Option<&str>) -> String {
    match by {
        Some(key) => format!("the plugin is signed with the unknown key {key}"),
        None => "the plugin is not signed".to_owned(),
    }
}

fn fault_words(call: &str, fault: &PluginFault) -> String {
    let said: &str = match (fault, budget_of(call)) {
        (PluginFault::Deadline, Some(budget)) => {
            let ms = budget.as_millis();
            return format!("`{call}` did not return within {ms} ms; is there an endless loop?");
        }
        (PluginFault::OutOfMemory, _) => {
            return format!("`{call}` wanted more than {} MiB of memory", MEMORY_BYTES_MAX >> 20);
        }
        (PluginFault::Trap(said) | PluginFault::Malformed(said), _) => said,
        (PluginFault::Deadline | PluginFault::Late | PluginFault::Absent, _) => fault.name(),
    };
    format!("the plugin failed in `{call}`: {said}")
}

#[cfg(test)]
pub(crate) mod tests;
