//! `evenkeel policy`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use evenkeel_lab::admin::{Admin, Call, Failed};
use hyper::Method;
use serde_json::Value;

use crate::api::Api;
use crate::status::{failing, rows, text};
use crate::{Failure, recording, say};

/// List, replace and roll back policies of a running gateway.
#[derive(Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    api: Api,
    /// Say it as JSON, as the API does
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Every policy with its revision, calls and faults
    List,
    /// Replace a policy's plugin while packets flow
    Push {
        /// The policy as `<set>/<hook>`, or the hook alone where only one set binds it
        policy: String,
        /// The plugin: a WebAssembly module or component
        plugin: PathBuf,
        /// A file with its settings, as JSON or TOML; default: those in force, or the plugin's own where another is in force
        #[arg(long, value_name = "FILE.json|toml")]
        settings: Option<PathBuf>,
    },
    Record(recording::Record),
    Replay(recording::Replay),
    Diff(recording::Diff),
    /// Put the revision before in force again
    Rollback {
        /// The policy as `<set>/<hook>`, or the hook alone where only one set binds it
        policy: String,
    },
}

impl Policy {
    pub(crate) fn act(self) -> Result<(), Failure> {
        match self.verb {
            Verb::List => {
                let policies = self.api.with(async |admin| admin.read("/v1/policies").await)?;
                if self.json {
                    say(&policies);
                } else {
                    list(&policies);
                }
                Ok(())
            }
            Verb::Push { policy, plugin, settings } => {
                let bytes = std::fs::read(&plugin).map_err(|error| {
                    Failure::Wrong(format!("cannot read {}: {error}", plugin.display()))
                })?;
                let query = settings.as_deref().map(query).transpose()?.unwrap_or_default();
                let name = self.api.with(async |admin| named(admin, &policy).await)?;
                let (set, hook) = split(&policy, name)?;
                let path = format!("/v1/policies/{set}/{hook}{query}");
                let rollout = self.api.with(async |admin| push(admin, &path, bytes).await)?;
                said(&rollout, self.json)
            }
            Verb::Record(record) => record.act(&self.api, self.json),
            Verb::Replay(replay) => replay.act(self.json),
            Verb::Diff(diff) => diff.act(self.json, settings_of),
            Verb::Rollback { policy } => {
                let name = self.api.with(async |admin| named(admin, &policy).await)?;
                let (set, hook) = split(&policy, name)?;
                let path = format!("/v1/policies/{set}/{hook}:rollback");
                let rollout = self.api.with(async |admin| admin.post(&path, &Value::Null).await)?;
                said(&rollout, self.json)
            }
        }
    }
}

/// The outcome is the object that the API answers with, a refusal's too.
async fn push(admin: &mut Admin, path: &str, plugin: Vec<u8>) -> Result<Value, Failed> {
    let headers = [("content-type", "application/wasm")];
    let call = Call { method: Method::PUT, path, headers: &headers, body: plugin.into() };
    admin.ask(call).await?.json()
}

/// The settings of a file.
fn settings_of(file: &Path) -> Result<Value, Failure> {
    let wrong = |error: String| Failure::Wrong(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    match file.extension().and_then(OsStr::to_str) {
        Some("toml") => toml::from_str(&text).map_err(|error| wrong(error.to_string())),
        _ => serde_json::from_str(&text).map_err(|error| wrong(error.to_string())),
    }
}

/// The settings of a file, as the API takes them.
fn query(file: &Path) -> Result<String, Failure> {
    let settings = settings_of(file)?;
    let mut query = "?settings=".to_owned();
    for byte in settings.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => query.push(byte.into()),
            // RFC 3986, section 2.1.
            other => query += &format!("%{other:02X}"),
        }
    }
    Ok(query)
}

/// The full name, where a hook alone was named: of the one policy that answers it.
async fn named(admin: &mut Admin, policy: &str) -> Result<Vec<String>, Failed> {
    if policy.contains('/') {
        return Ok(vec![policy.to_owned()]);
    }
    let policies = admin.read("/v1/policies").await?;
    let names = rows(&policies, "policies").iter().map(|row| text(row, "policy").to_owned());
    Ok(names.filter(|name| name.rsplit('/').next() == Some(policy)).collect())
}

fn split(asked: &str, mut names: Vec<String>) -> Result<(String, String), Failure> {
    let name = match (names.pop(), names.is_empty()) {
        (Some(name), true) => name,
        (None, _) => {
            return Err(Failure::Wrong(format!(
                "no policy answers {asked}; see `evenkeel policy list`"
            )));
        }
        (Some(last), false) => {
            names.push(last);
            return Err(Failure::Wrong(format!(
                "{asked} could be {}; name one",
                names.join(" or ")
            )));
        }
    };
    match name.split_once('/') {
        Some((set, hook)) => Ok((set.to_owned(), hook.to_owned())),
        None => Err(Failure::Wrong(format!(
            "found {asked:?}, expected <set>/<hook>, such as call/routing"
        ))),
    }
}

fn list(policies: &Value) {
    for policy in rows(policies, "policies") {
        say(&format!(
            "{:<20} {:<13} {:<26} {:>8} calls {:>5} faults  {}{}",
            text(policy, "policy"),
            policy["revision"].as_str().unwrap_or("(native)"),
            text(policy, "plugin"),
            policy["calls"].as_u64().unwrap_or(0),
            policy["faults"].as_u64().unwrap_or(0),
            text(policy, "origin"),
            failing(policy)
        ));
    }
}

/// Says how a rollout went; one that was refused fails the command.
fn said(rollout: &Value, json: bool) -> Result<(), Failure> {
    let refused = || {
        let error = text(&rollout["error"], "message");
        let reason = if error.is_empty() { text(rollout, "reason") } else { error };
        Failure::Failed(format!("nothing changed: {reason}"))
    };
    if json {
        say(rollout);
    }
    match (text(rollout, "outcome"), json) {
        ("activated" | "unchanged" | "rolled-back", true) => Ok(()),
        (outcome @ ("activated" | "unchanged" | "rolled-back"), false) => {
            say(&format!(
                "{}: {outcome}, revision {} answers now",
                text(rollout, "policy"),
                rollout["revision"].as_str().unwrap_or("?")
            ));
            Ok(())
        }
        (_, true) => Err(Failure::Failed(String::new())),
        (_, false) => Err(refused()),
    }
}
