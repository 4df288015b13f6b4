//! Plugins of policy sets: their bindings, the limits of a binding, the keys that sign plugins, and their compiler.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_host::{
    GrantLimits, PluginRefusal, PublicKey, TrustedKeys, UnsignedPlugins, nearest, read_digest,
};
use evenkeel_model::{Hook, Metric, Op};
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{ConfigCheck, ConfigSource, InvalidSetting, quoted};
use super::registry::{PluginReference, REFERENCE};

/// Maximum keys, current and earlier: a few each year, for many years.
const KEYS_MAX: usize = 64;

/// Maximum revocations. One entry revokes a key, however many plugins it signed.
const REVOKED_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct BindingTable {
    plugin: Spanned<String>,
    settings: Option<Spanned<toml::Table>>,
    #[serde(default)]
    data: BTreeMap<String, Spanned<String>>,
    on_fault: Option<Spanned<OnFault>>,
    unsigned: Option<bool>,
    actions: Option<Vec<Spanned<String>>>,
    metrics: Option<Vec<Spanned<String>>>,
}

/// `[admission]`, `[routing]`, `[degradation]` or `[resolve]` of a policy set.
#[derive(Clone, Debug)]
pub struct PolicyBinding {
    /// The hook that the plugin answers.
    pub hook: Hook,
    /// The plugin's origin.
    pub plugin: PluginLocation,
    /// A JSON object, not yet checked against the plugin's schema.
    pub settings: Value,
    /// Files of data documents by their names, watched for changes.
    pub documents: BTreeMap<Arc<str>, PathBuf>,
    /// The response to a failure of the plugin. Default: the first that the hook allows.
    pub on_fault: OnFault,
    /// Limits of the plugin, however it is pushed.
    pub allowed: PluginLimits,
    source: Arc<ConfigSource>,
    /// Span of the plugin's name in the file.
    named: Range<usize>,
}

/// The source of a policy set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetOrigin {
    /// It is embedded in the binary.
    Shipped,
    /// The path of its file.
    File(PathBuf),
}

/// The origin of a plugin's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PluginLocation {
    /// The name of an embedded plugin.
    Shipped(&'static str),
    /// A file, watched for changes.
    File(PathBuf),
    Registry(RegistryPlugin),
}

/// A plugin in a registry, by digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryPlugin {
    /// It has a digest.
    pub reference: PluginReference,
    /// The plugin in the cache; set once it is pulled, not by the file.
    pub kept: Option<KeptPlugin>,
}

/// A plugin of a registry in the cache of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptPlugin {
    /// Its file.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub content: [u8; 32],
}

/// The key of a hook in a policy set. The scenario hook is `resolve`, since `scenario` holds the scenarios.
fn key(hook: Hook) -> &'static str {
    match hook {
        Hook::Scenario => "resolve",
        Hook::Admission | Hook::Routing | Hook::Degradation => hook.name(),
    }
}

impl PolicyBinding {
    /// The hook's key in a policy set: `routing`.
    pub fn key(&self) -> &'static str {
        key(self.hook)
    }

    pub(super) fn check(
        hook: Hook,
        raw: &BindingTable,
        origin: &SetOrigin,
        check: &mut ConfigCheck,
    ) -> Option<PolicyBinding> {
        let plugin = plugin(&raw.plugin, origin, check);
        let settings = raw.settings.as_ref().map_or_else(
            || Value::Object(serde_json::Map::new()),
            |table| table_to_json(table.get_ref(), &table.span(), check),
        );
        let allowed = OnFault::of(hook);
        let mut on_fault = allowed[0];
        if let Some(written) = &raw.on_fault {
            if allowed.contains(written.get_ref()) {
                on_fault = *written.get_ref();
            } else {
                let words = quoted(allowed.iter().map(|word| word.name()));
                let found = format!("`{}` for [{}]", written.get_ref().name(), key(hook));
                check.refuse(written.span(), found, words.replace(", ", " or "));
            }
        }
        let documents = documents(&raw.data, check);
        let allowed = PluginLimits::check(hook, raw, check);
        let source = Arc::clone(&check.source);
        let named = raw.plugin.span();
        let plugin = plugin?;
        Some(PolicyBinding { hook, plugin, settings, documents, on_fault, allowed, source, named })
    }

    /// An invalid setting, found once the plugin's schema is known.
    ///
    /// `path` names it inside the settings, as a JSON pointer (`/steps/0`) or with dots. If it is not in the file, the
    /// nearest enclosing value is shown.
    pub fn invalid(
        &self,
        path: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> InvalidSetting {
        let span = place(self.source.inner(), key(self.hook), "settings", path).unwrap_or(0..0);
        InvalidSetting::at(&self.source, span, found, expected)
    }

    /// An invalid data document, shown at the name of its file.
    pub fn document_invalid(
        &self,
        name: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> InvalidSetting {
        let span = place(self.source.inner(), key(self.hook), "data", name).unwrap_or(0..0);
        InvalidSetting::at(&self.source, span, found, expected)
    }

    /// A refused plugin, shown at the setting or data document that it refuses, or else at its name.
    pub fn refused(&self, refused: &PluginRefusal) -> InvalidSetting {
        match refused {
            PluginRefusal::Setting { path, expected, found } => {
                self.invalid(path.trim_start_matches("$."), &**found, &**expected)
            }
            PluginRefusal::Document { document, pointer, expected, found } => {
                let at = if pointer.is_empty() { "" } else { " at " };
                let found = format!("data document `{document}` with {found}{at}{pointer}");
                self.document_invalid(document, found, &**expected)
            }
            refused => self.plugin_invalid(refused.to_string(), "a plugin that runs"),
        }
    }

    /// An invalid plugin, shown at its name.
    pub fn plugin_invalid(
        &self,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> InvalidSetting {
        InvalidSetting::at(&self.source, self.named.clone(), found, expected)
    }
}

fn plugin(
    raw: &Spanned<String>,
    origin: &SetOrigin,
    check: &mut ConfigCheck,
) -> Option<PluginLocation> {
    let name = raw.get_ref();
    if let Some(shipped) = shipped_plugins().find(|shipped| shipped == name) {
        return Some(PluginLocation::Shipped(shipped));
    }
    if PluginReference::is_reference(name) {
        return registry_plugin(raw, check).map(PluginLocation::Registry);
    }
    let is_file = name.ends_with(".wasm") || name.contains('/');
    if is_file && matches!(origin, SetOrigin::File(_)) {
        let path = check.path(name);
        let found = match std::fs::metadata(&path) {
            Ok(facts) if facts.is_file() => return Some(PluginLocation::File(path)),
            Ok(_) => format!("`{name}`, which is not a file"),
            Err(error) => format!("`{name}`: {error}"),
        };
        check.refuse(raw.span(), found, "a Wasm file");
        return None;
    }
    let known = quoted(shipped_plugins());
    let found = format!("unknown plugin `{name}`");
    let invalid = check.refuse(raw.span(), found, format!("one of {known}, or a Wasm file"));
    invalid.help = nearest(name, shipped_plugins())
        .or_else(|| Some(format!("name a file with its extension: `{name}.wasm`")));
    None
}

fn registry_plugin(raw: &Spanned<String>, check: &mut ConfigCheck) -> Option<RegistryPlugin> {
    match raw.get_ref().parse::<PluginReference>() {
        Ok(reference) if reference.digest().is_some() => {
            Some(RegistryPlugin { reference, kept: None })
        }
        Ok(_) => {
            let expected =
                "`@sha256:` and 64 hexadecimal digits: a tag may name another plugin tomorrow";
            let invalid = check.refuse_text(raw, expected);
            let help = format!("`evenkeel plugin pull {}` prints the digest", raw.get_ref());
            invalid.help = Some(help);
            None
        }
        Err(bad) => {
            check.refuse(raw.span(), bad.found, REFERENCE);
            None
        }
    }
}

/// The files of data documents.
fn documents(
    raw: &BTreeMap<String, Spanned<String>>,
    check: &mut ConfigCheck,
) -> BTreeMap<Arc<str>, PathBuf> {
    let mut documents = BTreeMap::new();
    for (name, file) in raw {
        let path = check.path(file.get_ref());
        let found = match std::fs::metadata(&path) {
            Ok(facts) if facts.is_file() => {
                documents.insert(Arc::from(name.as_str()), path);
                continue;
            }
            Ok(_) => format!("`{}`, which is not a file", file.get_ref()),
            Err(error) => format!("`{}`: {error}", file.get_ref()),
        };
        check.refuse(file.span(), found, "a JSON file");
    }
    documents
}

fn table_to_json(table: &toml::Table, span: &Range<usize>, check: &mut ConfigCheck) -> Value {
    let pairs = table.iter().map(|(key, value)| (key.clone(), to_json(value, span, check)));
    Value::Object(pairs.collect())
}

fn to_json(value: &toml::Value, span: &Range<usize>, check: &mut ConfigCheck) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number).map_or_else(
            || {
                check.refuse(span.clone(), number.to_string(), "a finite number");
                Value::Null
            },
            Value::Number,
        ),
        toml::Value::Boolean(truth) => Value::Bool(*truth),
        toml::Value::Datetime(moment) => Value::String(moment.to_string()),
        toml::Value::Array(list) => {
            Value::Array(list.iter().map(|value| to_json(value, span, check)).collect())
        }
        toml::Value::Table(table) => table_to_json(table, span, check),
    }
}

/// The span of a setting or of a data document's file, or of the nearest enclosing value. `of`: its table, `settings` or
/// `data`.
fn place(text: &str, hook: &str, of: &str, path: &str) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?;
    let hook = root.get_ref().get(hook)?;
    let mut value = hook.get_ref().get(of).unwrap_or(hook);
    let parts = path.split(['/', '.', '[', ']']).filter(|part| !part.is_empty() && *part != "$");
    for part in parts {
        let inner = match value.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get(index)),
            _ => None,
        };
        let Some(inner) = inner else { break };
        value = inner;
    }
    Some(value.span())
}

/// Behaviour while a policy fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// Admission: sessions are admitted at their scenario's floor. The default.
    AdmitCapped,
    /// Admission: the native default decides.
    Admit,
    /// Admission: sessions are rejected.
    Reject,
    /// Routing: the native default places and moves. The default.
    Native,
    /// Degradation: sessions keep their plans. The default.
    Hold,
    /// Degradation: after 2 s each session follows the native ladder by its own loss.
    NativeLadder,
    /// Scenario: the values of the policy set apply. The default.
    Builtin,
}

impl OnFault {
    /// The values that a hook accepts, its default first.
    pub(super) fn of(hook: Hook) -> &'static [OnFault] {
        match hook {
            Hook::Admission => &[OnFault::AdmitCapped, OnFault::Admit, OnFault::Reject],
            Hook::Routing => &[OnFault::Native],
            Hook::Degradation => &[OnFault::Hold, OnFault::NativeLadder],
            Hook::Scenario => &[OnFault::Builtin],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            OnFault::AdmitCapped => "admit-capped",
            OnFault::Admit => "admit",
            OnFault::Reject => "reject",
            OnFault::Native => "native",
            OnFault::Hold => "hold",
            OnFault::NativeLadder => "native-ladder",
            OnFault::Builtin => "builtin",
        }
    }
}

/// Names of the shipped plugins; the host holds their bytes.
fn shipped_plugins() -> impl Iterator<Item = &'static str> {
    evenkeel_host::shipped().iter().map(|shipped| shipped.name)
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct TrustTable {
    keys: Vec<Spanned<TrustKeyTable>>,
    revoked: Vec<Spanned<String>>,
    unsigned: Option<UnsignedPlugins>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table with `name` and `public`")]
struct TrustKeyTable {
    name: Spanned<String>,
    public: Spanned<String>,
}

/// `[trust]`: the keys that plugins may be signed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustSettings {
    /// Trusted and revoked keys, and revoked digests.
    pub keys: TrustedKeys,
    /// Treatment of unsigned plugins if their policy does not set it. Default: allowed while no key is configured, else
    /// refused.
    pub unsigned: UnsignedPlugins,
}

/// Limits of a policy's plugin, however it is pushed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PluginLimits {
    /// Unsigned plugins are accepted. Default: [`TrustSettings::unsigned`].
    pub(crate) unsigned: Option<bool>,
    /// Limits the grants that the plugin's manifest requests. Default: no limit, but for actions that need to be listed.
    pub grant: GrantLimits,
}

impl Default for TrustSettings {
    fn default() -> Self {
        TrustSettings { keys: TrustedKeys::default(), unsigned: UnsignedPlugins::Allow }
    }
}

impl TrustSettings {
    /// A warning if no key is configured.
    pub fn note(&self) -> Option<&'static str> {
        let takes_all = self.keys.known.is_empty() && self.unsigned == UnsignedPlugins::Allow;
        takes_all.then_some(
            "plugin signatures are not checked: any plugin that is pushed or written to a file is accepted; create a key \
             with `evenkeel plugin key new --out NAME` and name it in [trust], or set `unsigned = \"refuse\"` there",
        )
    }

    /// The treatment of unsigned plugins of a policy with these limits.
    pub fn unsigned(&self, allowed: &PluginLimits) -> UnsignedPlugins {
        match allowed.unsigned {
            Some(true) => UnsignedPlugins::Allow,
            Some(false) => UnsignedPlugins::Refuse,
            None => self.unsigned,
        }
    }
}

impl PluginLimits {
    pub(super) fn check(hook: Hook, raw: &BindingTable, check: &mut ConfigCheck) -> PluginLimits {
        let ops: Vec<_> = Op::ALL.into_iter().map(|op| (op.key(), op)).collect();
        let metrics: Vec<_> = Metric::ALL.iter().map(|&metric| (metric.key(), metric)).collect();
        if let Some(first) = raw.actions.as_ref().and_then(|list| list.first())
            && hook != Hook::Degradation
        {
            let found = format!("`actions` of hook `{}`", hook.name());
            check.refuse(first.span(), found, "`actions` in [degradation] only");
        }
        let mut ops = raw.actions.as_ref().map(|list| named(list, &ops, "action", check));
        // A cap on both directions takes more than one on either: sets of versions without the latter remain in force.
        if let Some(allowed) = ops.as_mut().filter(|allowed| allowed.contains(&Op::Cap)) {
            allowed.extend([Op::CapUp, Op::CapDown]);
        }
        let grant = GrantLimits {
            ops,
            metrics: raw.metrics.as_ref().map(|list| named(list, &metrics, "metric", check)),
        };
        PluginLimits { unsigned: raw.unsigned, grant }
    }
}

/// The named actions or metrics; unknown names are refused.
fn named<T: Copy>(
    list: &[Spanned<String>],
    known: &[(&'static str, T)],
    what: &str,
    check: &mut ConfigCheck,
) -> Vec<T> {
    let find = |word: &Spanned<String>| {
        let found = known.iter().find(|(key, _)| key == word.get_ref()).map(|(_, thing)| *thing);
        if found.is_none() {
            check.refuse_unknown(word, what, known.iter().map(|(key, _)| *key));
        }
        found
    };
    list.iter().filter_map(find).collect()
}

pub(super) fn trust(raw: &TrustTable, check: &mut ConfigCheck) -> TrustSettings {
    check.at_most(&raw.keys, KEYS_MAX, "keys");
    check.at_most(&raw.revoked, REVOKED_MAX, "revocations");
    let mut keys = TrustedKeys::default();
    for key in &raw.keys {
        let TrustKeyTable { name, public } = key.get_ref();
        let name_checked = check.name(name);
        let Ok(public_key) = public.get_ref().parse::<PublicKey>() else {
            // A secret key is not repeated in the error.
            let found = match public.get_ref().starts_with("ed25519-secret") {
                true => "a secret key".to_owned(),
                false => format!("`{}`", public.get_ref()),
            };
            let expected = "`ed25519:` and 64 hexadecimal digits, as in the file `.pub` of `evenkeel plugin key new`";
            check.refuse(public.span(), found, expected);
            continue;
        };
        if keys.known.iter().any(|(known, _)| *known == name_checked) {
            let found = format!("key `{name_checked}` a second time");
            check.refuse(name.span(), found, "a unique name");
        } else if let Some((first, _)) = keys.known.iter().find(|(_, key)| *key == public_key) {
            let found = format!("the same key as `{first}`");
            check.refuse(public.span(), found, "each key once");
        } else {
            keys.add(name_checked, public_key);
        }
    }
    for revoked in &raw.revoked {
        revoke(revoked, &mut keys, check);
    }
    let default =
        if raw.keys.is_empty() { UnsignedPlugins::Allow } else { UnsignedPlugins::Refuse };
    let unsigned = raw.unsigned.unwrap_or(default);
    TrustSettings { keys, unsigned }
}

/// Revokes a key by name or value, or a plugin by digest.
fn revoke(revoked: &Spanned<String>, keys: &mut TrustedKeys, check: &mut ConfigCheck) {
    let word = revoked.get_ref();
    if let Ok(key) = word.parse() {
        return keys.revoke_key(key);
    }
    if let Ok(digest) = read_digest(word) {
        return keys.revoke_digest(digest);
    }
    let known = keys.known.iter().find(|(name, _)| **name == **word).map(|(_, key)| *key);
    match known {
        Some(key) => keys.revoke_key(key),
        None => {
            let help = nearest(word, keys.known.iter().map(|(name, _)| &**name));
            let expected = "the name of a key, a public key (`ed25519:…`), or the digest of a plugin \
                            (`sha256:…`, as `sha256sum` says it)";
            check.refuse_text(revoked, expected).help = help;
        }
    }
}

/// A program that compiles plugins, and the limits for one plugin. It is started as `<program> compile-plugin …` and
/// calls `compile_plugin`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiler {
    pub program: PathBuf,
    /// Limit of processor time. Default 30 s.
    pub processor: Duration,
    /// Limit of memory, in MiB. Default 2,048: twice the need of a plugin that contains a language runtime.
    pub memory_mib: u64,
    /// Limit of wall-clock time. Default 45 s, since a push waits at most a minute for its answer.
    pub within: Duration,
}

impl Compiler {
    /// Compiles with this program and the default limits.
    pub fn at(program: PathBuf) -> Compiler {
        let (processor, within) = (Duration::from_secs(30), Duration::from_secs(45));
        Compiler { program, processor, memory_mib: 2_048, within }
    }

    /// The running program, even if its file was replaced by a newer one. Only the process that forks finds itself there:
    /// a gateway that hides its memory hides its program from all others.
    pub fn this_program() -> Compiler {
        Compiler::at(PathBuf::from("/proc/self/exe"))
    }
}

#[cfg(test)]
mod tests;
