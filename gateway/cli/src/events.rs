//! `evenkeel events`, `evenkeel changes` and `evenkeel failures`.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;
use evenkeel_client::{ServerEvent, escape};
use evenkeel_contract::openapi::event_fields;
use evenkeel_contract::operations::{Change, ChangeList, Failure, FailureList};
use evenkeel_model::Hook;
use evenkeel_telemetry::date;
use serde_json::{Map, Value};

use crate::command::{ApiArgs, CommandError, counted, list, say, unknown_name};
use crate::status::spell;

const DAY: Duration = Duration::from_secs(86_400);

const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Follow the events of a running gateway
///
/// Prints a line for each event until the gateway ends: the time (UTC), the name and the fields. docs/telemetry.md lists them. In a
/// group the owner has the events of calls.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct EventsArgs {
    /// Only events of these names: `moved degraded`
    names: Vec<String>,
    /// Only events with this value of a field, also within lists and objects: `--filter node=east-a1`. Repeated: all of them
    #[arg(long, value_name = "FIELD=VALUE")]
    filter: Vec<FieldFilter>,
    /// Events are always followed
    #[arg(long, hide = true)]
    follow: bool,
    #[command(flatten)]
    api: ApiArgs,
    /// Print a JSON object for each event, with its name in `event`
    #[arg(long)]
    pub(crate) json: bool,
}

/// A field and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct FieldFilter {
    field: String,
    value: String,
}

impl FromStr for FieldFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<FieldFilter, String> {
        match text.split_once('=') {
            Some((field, value)) if !field.is_empty() => {
                Ok(FieldFilter { field: field.to_owned(), value: value.to_owned() })
            }
            _ => Err(format!("found `{text}`, expected a field and a value: `node=east-a1`")),
        }
    }
}

impl FieldFilter {
    /// The field of the object, or of an object in it, has the value.
    fn matches(&self, object: &Value) -> bool {
        match object {
            Value::Object(fields) => fields.iter().any(|(field, value)| {
                (*field == self.field && self.equals(value)) || self.matches(value)
            }),
            Value::Array(all) => all.iter().any(|one| self.matches(one)),
            _ => false,
        }
    }

    fn equals(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => *text == self.value,
            Value::Array(all) => all.iter().any(|one| self.equals(one)),
            Value::Object(_) => false,
            other => self.value.parse::<Value>().is_ok_and(|wanted| wanted == *other),
        }
    }
}

impl EventsArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let EventsArgs { names, filter, follow: _, api, json } = self;
        require_known(&names, &filter, &event_fields())?;
        api.follow(async |admin| {
            loop {
                let mut events = admin.events().await?;
                while let Some(event) = events.next().await? {
                    if is_chosen(&event.name, &event.data, &names, &filter) {
                        print(event, json);
                    }
                }
                // The process that replaces this one accepts connections.
                tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
            }
        })
    }
}

/// List what operators, saved files and rollouts changed, newest first
///
/// Requests with their user, reloads, revisions of policies, and roles in a group. Prints a line for each change, with its time (UTC).
/// The user is the one that the command names, and is not verified; of other clients of the Unix socket, the user of the process.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ChangesArgs {
    /// Only changes within this time: `1h`, `7d`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON, as in the API
    #[arg(long)]
    pub(crate) json: bool,
}

impl ChangesArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let query = self.since.map(|since| format!("?since={}", escape(&days_as_hours(since))));
        let path = format!("/v1/changes{}", query.unwrap_or_default());
        list(self.json, &self.api.read(&path)?, |list: ChangeList| list.changes, change_line)
    }
}

/// A time for the API, which has no days; other texts as they are.
fn days_as_hours(since: String) -> String {
    match since.strip_suffix('d').map(str::parse::<u64>) {
        Some(Ok(days)) => format!("{}h", days.saturating_mul(24)),
        _ => since,
    }
}

/// List failures of nodes and gateways, newest first
///
/// Deaths of nodes, takeovers, and failures of a gateway by which sessions ended. Prints a line for each failure, with its cause, its
/// reach (nodes, rooms and sessions that it hit) and its outcome. Times are UTC; those beyond a day have a date.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct FailuresArgs {
    /// Only failures within this time: `1h`, `7d`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only failures of this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Maximum number of failures
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON, as in the API
    #[arg(long)]
    pub(crate) json: bool,
}

impl FailuresArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let mut path = format!("/v1/failures?limit={}", self.limit);
        for (key, value) in [("since", self.since.map(days_as_hours)), ("node", self.node)] {
            path.extend(value.map(|value| format!("&{key}={}", escape(&value))));
        }
        let answer = self.api.read(&path)?;
        let (now, mut truncated) = (SystemTime::now(), false);
        let rows = |list: FailureList| {
            truncated = list.truncated;
            list.failures
        };
        list(self.json, &answer, rows, |failure| failure_line(failure, now))?;
        if truncated {
            eprintln!("evenkeel: older failures match, too: raise --limit (at most 2000)");
        }
        Ok(())
    }
}

/// `2 h 10 min ago 09:41:07.031 node-down (probe) of east-a1: 12 sessions in 5 rooms, moved`.
fn failure_line(failure: &Failure, now: SystemTime) -> String {
    let Failure { at_us, cause, sessions, outcome, .. } = failure;
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(*at_us);
    let ago = now.duration_since(at).unwrap_or_default();
    let time = if ago < DAY { clock(*at_us) } else { dated_clock(*at_us) };
    let witnesses = match &failure.witnesses[..] {
        [] => String::new(),
        witnesses => format!(" ({})", witnesses.join(", ")),
    };
    let nodes = failure.nodes.join(", ");
    let of = match (&*nodes, &failure.gateway) {
        ("", None) => String::new(),
        ("", Some(gateway)) => format!(" at {gateway}"),
        (nodes, _) => format!(" of {nodes}"),
    };
    let rooms = failure.rooms.map(|rooms| format!(" in {}", counted(rooms, "room")));
    let rooms = rooms.unwrap_or_default();
    let part = |number: u32, words: &str| match number {
        0 => String::new(),
        number => format!(", {number} {words}"),
    };
    format!(
        "{:>12} ago {time} {cause}{witnesses}{of}: {}{rooms}, {outcome}{}{}",
        spell(ago),
        counted(*sessions, "session"),
        part(failure.unplaced_sessions, "without a node"),
        part(failure.reduced_sessions, "with a lower bit rate"),
    )
}

fn change_line(Change { at_us, event, members }: &Change) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(*at_us);
    let ago = SystemTime::now().duration_since(at).unwrap_or_default();
    format!("{:>12} ago {}", spell(ago), line(event, *at_us, members))
}

/// Fails if there is no event of a name, or if no event of these names has the field of a filter.
fn require_known(
    names: &[String],
    filter: &[FieldFilter],
    events: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), CommandError> {
    let all = || events.keys().map(String::as_str);
    if let Some(unknown) = names.iter().find(|name| !events.contains_key(*name)) {
        return Err(unknown_name("event", unknown, all()));
    }
    let chosen = events.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
    let mut fields: BTreeSet<&str> =
        chosen.flat_map(|(_, fields)| fields).map(String::as_str).collect();
    if fields.contains("decided_by") {
        fields.extend(Hook::ALL.map(Hook::name));
    }
    match filter.iter().find(|filter| !fields.contains(&*filter.field)) {
        Some(FieldFilter { field, .. }) => Err(unknown_name("field", field, fields)),
        None => Ok(()),
    }
}

/// `missed` is always shown: events are missing then.
fn is_chosen(name: &str, fields: &Value, names: &[String], filter: &[FieldFilter]) -> bool {
    let is_named = names.is_empty() || names.iter().any(|chosen| chosen == name);
    name == "missed" || is_named && filter.iter().all(|filter| filter.matches(fields))
}

fn print(event: ServerEvent, json: bool) {
    let at_us = event.at_us();
    let ServerEvent { name, data } = event;
    let Value::Object(mut fields) = data else { return };
    if json {
        fields.insert("event".to_owned(), name.into());
        say(&Value::Object(fields));
    } else {
        say(&line(&name, at_us, &fields));
    }
}

/// `09:41:07.031 moved room=team cause=node-down from=east-a1 to=east-a2`.
fn line(name: &str, at_us: u64, fields: &Map<String, Value>) -> String {
    let mut line = format!("{} {name}", clock(at_us));
    for (field, value) in fields {
        if field != "at_us" && !value.is_null() {
            line += &format!(" {field}={}", word(value));
        }
    }
    line
}

/// The time of day (UTC).
fn clock(at_us: u64) -> String {
    let at_ms = at_us / 1_000;
    let (seconds, ms) = (at_ms / 1_000 % 86_400, at_ms % 1_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{ms:03}")
}

/// The time in UTC with its date: `2027-01-31 09:41:07.031 UTC`.
fn dated_clock(at_us: u64) -> String {
    let date = date(SystemTime::UNIX_EPOCH + Duration::from_micros(at_us));
    let day = date.split(' ').next().unwrap_or_default();
    format!("{day} {} UTC", clock(at_us))
}

/// A hop is its node; texts without spaces have no quotes.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([' ', '"']) => text.clone(),
        Value::Object(fields) if fields.contains_key("node") => word(&fields["node"]),
        Value::Array(all) => all.iter().map(word).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
