use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel_model::Hook;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::ConfigCheck;
use super::invalid::{ConfigSource, InvalidSetting, nearest};
use super::set::{OnFault, SetOrigin};
use super::trust::PluginLimits;
use super::{embedded, raw};

/// `[admission]`, `[routing]`, `[degradation]` or `[resolve]` of a policy set.
#[derive(Clone, Debug)]
pub struct PolicyBinding {
    /// The hook that the plugin answers.
    pub hook: Hook,
    /// The plugin's origin.
    pub plugin: PluginLocation,
    /// A JSON object, not yet checked against the plugin's schema.
    pub settings: Value,
    /// The response to a failure of the plugin. Default: the first that the hook allows.
    pub on_fault: OnFault,
    /// Limits of the plugin, however it is pushed.
    pub allowed: PluginLimits,
    source: Arc<ConfigSource>,
    /// Span of the plugin's name in the file.
    named: Range<usize>,
}

/// The origin of a plugin's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PluginLocation {
    /// The name of an embedded plugin.
    Shipped(&'static str),
    /// A file, watched for changes.
    File(PathBuf),
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
        raw: &raw::BindingTable,
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
                let words: Vec<_> = allowed.iter().map(|m| format!("`{}`", m.name())).collect();
                let found = format!("`{}` for [{}]", written.get_ref().name(), key(hook));
                check.refuse(written.span(), found, words.join(" or "));
            }
        }
        let allowed = PluginLimits::check(hook, raw, check);
        let source = Arc::clone(&check.source);
        let named = raw.plugin.span();
        Some(PolicyBinding { hook, plugin: plugin?, settings, on_fault, allowed, source, named })
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
        let span = place(&self.source.text, key(self.hook), path).unwrap_or(0..0);
        InvalidSetting::at(&self.source, span, found, expected)
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
    if let Some(shipped) = embedded::plugins().find(|shipped| shipped == name) {
        return Some(PluginLocation::Shipped(shipped));
    }
    let is_file = name.ends_with(".wasm") || name.contains('/');
    if is_file && matches!(origin, SetOrigin::File(_)) {
        let path = check.path(name);
        return match std::fs::metadata(&path) {
            Ok(facts) if facts.is_file() => Some(PluginLocation::File(path)),
            Ok(_) => {
                check.refuse(raw.span(), format!("`{name}`, which is not a file"), "a Wasm file");
                None
            }
            Err(error) => {
                check.refuse(raw.span(), format!("`{name}`: {error}"), "a Wasm file");
                None
            }
        };
    }
    let known = embedded::plugins().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let found = format!("unknown plugin `{name}`");
    let invalid = check.refuse(raw.span(), found, format!("one of {known}, or a Wasm file"));
    invalid.help = nearest(name, embedded::plugins())
        .or_else(|| Some(format!("name a file with its extension: `{name}.wasm`")));
    None
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

/// The span of a setting, or of the nearest enclosing value.
fn place(text: &str, hook: &str, path: &str) -> Option<Range<usize>> {
    let root = DeTable::parse(text).ok()?;
    let hook = root.get_ref().get(hook)?;
    let mut value = hook.get_ref().get("settings").unwrap_or(hook);
    let parts = path.split(['/', '.', '[', ']']).filter(|part| !part.is_empty() && *part != "$");
    for part in parts {
        let inner = match value.get_ref() {
            DeValue::Table(table) => table.get(part),
            DeValue::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get(index)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => None,
        };
        let Some(inner) = inner else { break };
        value = inner;
    }
    Some(value.span())
}

#[cfg(test)]
mod tests;
