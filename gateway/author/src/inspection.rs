//! Inspection of a plugin file, valid or not.

use std::fmt;

use data_encoding::HEXLOWER;
use evenkeel_host::limits::MANIFEST_BYTES_MAX;
use evenkeel_host::{PluginFile, PluginFormat, PluginRefusal, PublicKey, signer};
use evenkeel_model::{Metric, Op};
use serde_json::{Value, json};

use crate::built::BuiltPlugin;
use crate::setting::SettingSchema;

/// The readable content of a plugin file, and the host's verdict.
///
/// As text for people; see [`json`](Inspection::json) for tools.
#[derive(Debug)]
pub struct Inspection {
    bytes: usize,
    file: PluginFile,
    manifest: Value,
    revision: Option<String>,
    signer: Result<Option<PublicKey>, PluginRefusal>,
    refused: Option<PluginRefusal>,
}

impl Inspection {
    /// Reads a file and validates it, the signature first, as gateways do.
    pub fn of(bytes: &[u8]) -> Inspection {
        let signer = signer(bytes);
        let built = signer.clone().and_then(|_| BuiltPlugin::from_bytes(bytes.to_vec()));
        let (revision, refused) = match built.and_then(|built| built.revision()) {
            Ok(revision) => (revision, None),
            Err(refused) => (None, Some(refused)),
        };
        Inspection { revision, signer, refused, ..Inspection::outline(bytes) }
    }

    /// Reads a file without validating it.
    fn outline(bytes: &[u8]) -> Inspection {
        let file = PluginFile::parse(bytes);
        let text = file.manifest.as_deref().filter(|text| text.len() <= MANIFEST_BYTES_MAX);
        let manifest = text.and_then(|text| serde_json::from_slice(text).ok());
        let (manifest, signer) = (manifest.unwrap_or(Value::Null), Ok(None));
        Inspection { bytes: bytes.len(), file, manifest, revision: None, signer, refused: None }
    }

    /// The error with which gateways refuse the file.
    pub fn refused(&self) -> Option<&PluginRefusal> {
        self.refused.as_ref()
    }

    /// The key of a valid signature; each gateway decides whether to trust it.
    pub(crate) fn signer(&self) -> Option<PublicKey> {
        self.signer.clone().ok().flatten()
    }

    fn signature(&self) -> String {
        match &self.signer {
            Ok(Some(key)) => format!("by {key}"),
            Ok(None) => "none".to_owned(),
            Err(PluginRefusal::Signature(found)) => (*found).to_owned(),
            Err(_) => "unknown: the file could not be read".to_owned(),
        }
    }

    /// Unreadable parts are `null` or empty.
    pub fn json(&self) -> Value {
        let of = |key: &str| self.manifest.get(key).cloned().unwrap_or(Value::Null);
        let sections = self.file.sections.iter();
        let sections: Vec<Value> =
            sections.map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect();
        let metrics = |key| {
            let numbers = self.numbers(key);
            let metric = |number: u32| match Metric::from_number(number) {
                Some(metric) => {
                    json!({"number": number, "name": metric.key(), "unit": metric.unit()})
                }
                None => json!({"number": number, "name": null, "unit": null}),
            };
            numbers.into_iter().map(metric).collect::<Vec<Value>>()
        };
        let op = |number| json!({"number": number, "name": Op::from_number(number).map(Op::key)});
        json!({
            "name": of("name"),
            "version": of("version"),
            "contract": of("contract"),
            "hooks": of("hooks"),
            "settings": self.settings(),
            "data": of("data"),
            "state_schema": of("state_schema"),
            "subject_metrics": metrics("subject_metrics"),
            "node_metrics": metrics("node_metrics"),
            "ops": self.numbers("ops").into_iter().map(op).collect::<Vec<_>>(),
            "reasons": of("reasons"),
            "cost": of("cost"),
            "bytes": self.bytes,
            "digest": HEXLOWER.encode(&self.file.digest),
            "revision": self.revision,
            "form": self.file.form.map(form),
            "imports": self.file.imports,
            "exports": self.file.exports,
            "sections": sections,
            "signed": self.signer().is_some(),
            "signer": self.signer().map(|key| key.to_string()),
            "refused": self.refused.as_ref().map(PluginRefusal::to_string),
            "code": self.refused.as_ref().map(PluginRefusal::code),
        })
    }

    fn settings(&self) -> Vec<SettingSchema> {
        self.manifest.get("settings").map(SettingSchema::all).unwrap_or_default()
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &Value> {
        self.manifest.get(key).and_then(Value::as_array).into_iter().flatten()
    }

    fn numbers(&self, key: &str) -> Vec<u32> {
        self.list(key).filter_map(|number| number.as_u64()?.try_into().ok()).collect()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.manifest.get(key).and_then(Value::as_str)
    }

    fn headline(&self) -> String {
        let Some(name) = self.text("name") else { return "no readable manifest".into() };
        let hooks: Vec<&str> = self.list("hooks").filter_map(Value::as_str).collect();
        format!(
            "{name} {} · {} · contract {}",
            self.text("version").unwrap_or("?"),
            hooks.join(", "),
            self.text("contract").unwrap_or("?")
        )
    }

    fn reads(&self) -> Vec<String> {
        let numbers =
            ["subject_metrics", "node_metrics"].into_iter().flat_map(|key| self.numbers(key));
        let metric = |number| match Metric::from_number(number) {
            Some(metric) => format!("{} ({})", metric.key(), metric.unit()),
            None => format!("metric {number}, unknown to this gateway"),
        };
        numbers.map(metric).collect()
    }

    fn actions(&self) -> Vec<String> {
        let op = |number| match Op::from_number(number) {
            Some(op) => op.key().to_owned(),
            None => format!("action {number}, unknown to this gateway"),
        };
        self.numbers("ops").into_iter().map(op).collect()
    }

    fn promises(&self) -> String {
        let costs = self.manifest.get("cost").and_then(Value::as_object).into_iter().flatten();
        let promise = |(call, cost): (&String, &Value)| {
            let of = |part| cost.get(part).and_then(Value::as_u64).unwrap_or(0);
            match (of("call"), of("row")) {
                (whole, 0) => format!("{call}: {} instructions", thousands(whole)),
                (whole, row) => {
                    let (whole, row) = (thousands(whole), thousands(row));
                    format!("{call}: {whole} instructions and {row} a row")
                }
            }
        };
        let promises: Vec<String> = costs.map(promise).collect();
        if promises.is_empty() { "no cost".into() } else { promises.join(", ") }
    }

    fn reasons(&self) -> Vec<String> {
        let word = |reason: &Value| {
            Some(format!("{} {}", reason.get("number")?.as_u64()?, reason.get("name")?.as_str()?))
        };
        self.list("reasons").filter_map(word).collect()
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![self.headline()];
        let mut say = |word: &str, what: &str| lines.push(format!("  {word:<10} {what}"));
        let form = self.file.form.map_or("not WebAssembly", form);
        say("file", &format!("{} bytes, {form}", thousands(self.bytes)));
        say("digest", &HEXLOWER.encode(&self.file.digest));
        if let Some(revision) = &self.revision {
            say("revision", &format!("{revision}, with default settings"));
        }
        say("signature", &self.signature());
        for (word, names) in [("imports", &self.file.imports), ("exports", &self.file.exports)] {
            for (i, line) in by_interface(names).iter().enumerate() {
                say(if i == 0 { word } else { "" }, line);
            }
        }
        if self.manifest.get("name").is_some() {
            let schema = self.manifest.get("state_schema").and_then(Value::as_u64).unwrap_or(0);
            let said = if schema == 0 { "none is kept".into() } else { format!("schema {schema}") };
            say("state", &said);
            for (word, what) in
                [("reads", self.reads()), ("actions", self.actions()), ("reasons", self.reasons())]
            {
                say(word, if what.is_empty() { "none".into() } else { what.join(", ") }.as_str());
            }
            say("promises", &self.promises());
            let data = self.manifest.get("data").and_then(Value::as_object);
            let data: Vec<&str> = data.into_iter().flatten().map(|(name, _)| &**name).collect();
            if !data.is_empty() {
                say("data", &data.join(", "));
            }
            say("settings", if self.settings().is_empty() { "none" } else { "" });
        }
        for setting in self.settings() {
            lines.push(format!("    {}: {}", setting.name, facts(&setting)));
            lines.extend(setting.doc.map(|doc| format!("        {doc}")));
        }
        if let Some(broken) = &self.file.broken {
            lines.push(format!("  incomplete: {broken}"));
        }
        // Text of an untrusted file must not control the terminal.
        let lines: Vec<String> = lines
            .iter()
            .map(|line| line.trim_end().replace(|c: char| c.is_control(), "\u{fffd}"))
            .collect();
        f.write_str(&lines.join("\n"))
    }
}

fn facts(setting: &SettingSchema) -> String {
    let mut facts = vec![setting.kind.clone()];
    facts.extend(setting.unit.clone());
    facts.extend(setting.bounds());
    facts.extend(setting.default.as_ref().map(|default| format!("default {default}")));
    if setting.required {
        facts.push("must be set".into());
    }
    facts.join(", ")
}

fn form(form: PluginFormat) -> &'static str {
    match form {
        PluginFormat::Module => "module",
        PluginFormat::Component => "component",
    }
}

/// `evenkeel:policy/diag@0.1.1: log, note`, with names without an interface last. Functions of the
/// canonical ABI and flat exports are left out.
fn by_interface(names: &[Box<str>]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut others = Vec::new();
    let left_out = ["cabi_", "flat_"];
    for name in names.iter().filter(|name| !left_out.iter().any(|start| name.starts_with(start))) {
        match name.split_once('#') {
            Some((interface, function)) => match groups.iter_mut().find(|(of, _)| *of == interface)
            {
                Some((_, functions)) => functions.push(function),
                None => groups.push((interface, vec![function])),
            },
            None => others.push(&**name),
        }
    }
    let mut lines: Vec<String> = groups
        .iter()
        .map(|(interface, functions)| format!("{interface}: {}", functions.join(", ")))
        .collect();
    if !others.is_empty() {
        lines.push(others.join(", "));
    }
    if lines.is_empty() {
        lines.push("none".into());
    }
    lines
}

/// `131,072`.
pub(crate) fn thousands(number: impl fmt::Display) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
