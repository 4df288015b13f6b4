//! `evenkeel status`.

use clap::Args;
use serde_json::Value;

use crate::api::ApiArgs;
use crate::{CommandError, say};

/// Show sessions, nodes and policies of a running gateway.
#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: the objects `status`, `nodes` and `policies` of the API
    #[arg(long)]
    pub(crate) json: bool,
}

impl StatusArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let (status, nodes, policies) = self.api.with(async |admin| {
            Ok((
                admin.read("/v1/status").await?,
                admin.read("/v1/nodes").await?,
                admin.read("/v1/policies").await?,
            ))
        })?;
        if self.json {
            say(&format!(
                "{}",
                serde_json::json!({"status": status, "nodes": nodes, "policies": policies})
            ));
            return Ok(());
        }
        let number = |key: &str| status[key].as_u64().unwrap_or(0);
        say(&format!(
            "{} sessions in {} rooms · {} packets to nodes, {} to clients{}{}",
            number("sessions"),
            number("rooms"),
            number("packets_to_node"),
            number("packets_to_client"),
            match status["state"].as_str() {
                Some("starting") => " · starting: compiling policies",
                Some("draining") => " · shutting down",
                _ => "",
            },
            match status["uplink_suspect"] == Value::Bool(true) {
                true => " · most nodes fell silent at once; check this gateway's uplink",
                false => "",
            }
        ));
        if let Some(reason) = status["index"]["reason"].as_str() {
            say(&format!("  index {}: {reason}", text(&status["index"], "state")));
        }
        for node in rows(&nodes, "nodes") {
            say(&format!(
                "  node {:<16} {:<8} {:>3} rooms, {:>3} % load{}{}",
                text(node, "node"),
                text(node, "health"),
                node["rooms"].as_u64().unwrap_or(0),
                node["load_permille"].as_u64().unwrap_or(0) / 10,
                if node["draining"] == Value::Bool(true) { ", draining" } else { "" },
                accused(node)
            ));
        }
        for policy in rows(&policies, "policies") {
            say(&format!(
                "  policy {:<20} {} ({}){}",
                text(policy, "policy"),
                policy["revision"].as_str().unwrap_or("native default"),
                text(policy, "plugin"),
                failing(policy)
            ));
        }
        Ok(())
    }
}

fn accused(node: &Value) -> String {
    let witnesses = node["suspected_by"].as_array().map_or(&[][..], Vec::as_slice);
    let words: Vec<&str> = witnesses.iter().filter_map(Value::as_str).collect();
    if words.is_empty() { String::new() } else { format!(", accused by {}", words.join(", ")) }
}

pub(crate) fn failing(policy: &Value) -> String {
    policy["failing"].as_str().map_or(String::new(), |fault| format!(", failing: {fault}"))
}

/// The rows of a list: the array itself, or the member of this name.
pub(crate) fn rows<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.as_array().or_else(|| value[name].as_array()).map_or(&[], Vec::as_slice)
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}
