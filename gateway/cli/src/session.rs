//! `evenkeel session`.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use evenkeel_client::{ApiClient, ClientError, escape};
use serde_json::{Value, json};

use crate::command::{ApiArgs, CommandError, list, number, print_done, rows, say, text, texts};

/// Maximum size of a page of gateways of earlier versions.
const PAGE_MAX: usize = 1_000;

/// List, explain and close sessions
///
/// With `affinity = "session"` a single session is moved with `evenkeel room move ROOM~SESSION NODE`.
#[derive(Args)]
pub(crate) struct SessionArgs {
    #[command(subcommand)]
    verb: SessionCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `list`, `find`, `history` and `explain` as in the API, `close` as `{"done": true}`
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
enum SessionCommand {
    /// List sessions with room, node, quality, rung and degradation actions
    List(ListArgs),
    /// Explain a session's node and quality: the deciding policies, the alternatives, and past moves. Of an ended session, show its
    /// record and its moves
    Explain {
        /// The session: `s4k7mq2-17`
        session: String,
    },
    /// Find the gateway that serves a session, of all groups, in the shared index
    Find {
        /// The session: `s4k7mq2-17`
        session: String,
    },
    /// List ended sessions, newest first, with packets, losses, moves and the reason of the end
    History(HistoryArgs),
    /// Close a session; its client and its nodes are told
    Close {
        /// The session: `s4k7mq2-17`
        session: String,
    },
}

#[derive(Args)]
struct ListArgs {
    /// Only sessions at this node
    #[arg(long)]
    node: Option<String>,
    /// Only sessions at nodes of this zone, `eu/a` or `a`
    #[arg(long)]
    zone: Option<String>,
    /// Only sessions with an R-factor below 70, a loss of 2 % or more, a degradation, or no node
    #[arg(long)]
    bad: bool,
}

impl ListArgs {
    fn takes(&self, session: &Value) -> bool {
        let hop = &session["hop"];
        self.node.as_ref().is_none_or(|name| hop["node"] == **name)
            && self.zone.as_ref().is_none_or(|name| is_in(hop, name))
            && (!self.bad || is_bad(session))
    }

    /// Fails if no node has the name of the node or of the zone.
    fn require_known(&self, nodes: &[Value]) -> Result<(), CommandError> {
        let unknown = |what: &str, name: &str, known: BTreeSet<String>| {
            let mut there_are: Vec<String> = known.into_iter().take(NAMED_MAX).collect();
            if there_are.is_empty() {
                there_are.push("none".to_owned());
            }
            let there_are = there_are.join(", ");
            CommandError::Wrong(format!("there is no such {what}: {name}; there are {there_are}"))
        };
        if let Some(name) = &self.node
            && nodes.iter().all(|node| node["node"] != **name)
        {
            let known = nodes.iter().map(|node| text(node, "node").to_owned());
            return Err(unknown("node", name, known.collect()));
        }
        if let Some(name) = &self.zone
            && !nodes.iter().any(|node| is_in(node, name))
        {
            return Err(unknown("zone", name, nodes.iter().map(zone).collect()));
        }
        Ok(())
    }
}

/// Maximum known names in an error, as in those of the API.
const NAMED_MAX: usize = 8;

/// The zone of a node: `eu/a`.
fn zone(node: &Value) -> String {
    format!("{}/{}", text(node, "region"), text(node, "zone"))
}

/// The node is in the zone of this name, `eu/a` or `a`.
fn is_in(node: &Value, name: &str) -> bool {
    node["zone"] == *name || zone(node) == name
}

/// R-factor times 100 below which many users are dissatisfied (ITU-T G.109).
const BAD_R: u64 = 7_000;

const BAD_LOSS_PPM: u64 = 20_000;

fn is_bad(session: &Value) -> bool {
    let measures = &session["measures"];
    let is_lossy = |key: &str| measures[key].as_u64().is_some_and(|ppm| ppm >= BAD_LOSS_PPM);
    measures["r-factor"].as_u64().is_some_and(|r| r < BAD_R)
        || is_lossy("loss-up")
        || is_lossy("loss-down")
        || number(session, "rung") > 0
        || session["impairment"].is_object()
        || session["hop"].is_null()
}

/// The measured quality with units: `R 82.1, loss 0.1 % up, jitter 3 ms up`; empty if nothing is measured.
fn quality(session: &Value) -> String {
    let measures = &session["measures"];
    let hundredths = |value: u64| format!("{}.{:02}", value / 100, value % 100);
    let percent = |ppm: u64| format!("{} %", hundredths(ppm / 100));
    let ms = |us: u64| format!("{} ms", us.div_ceil(1_000));
    let both = |name: &str, written: &dyn Fn(u64) -> String| {
        let value = |way: &str| {
            let value = measures[format!("{name}-{way}")].as_u64()?;
            Some(format!("{} {way}", written(value)))
        };
        let ways: Vec<String> = ["up", "down"].into_iter().filter_map(value).collect();
        (!ways.is_empty()).then(|| format!("{name} {}", ways.join(" and ")))
    };
    let r = measures["r-factor"].as_u64().map(|r| format!("R {}", hundredths(r)));
    let trip = measures["rtt-client"].as_u64().map(|us| format!("round trip {}", ms(us)));
    let parts = [r, both("loss", &percent), both("jitter", &ms), trip];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[derive(Args)]
struct HistoryArgs {
    /// Only sessions of this room
    #[arg(long)]
    room: Option<String>,
    /// Only sessions that ended within this time: `1h`
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Maximum number of sessions
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
}

impl HistoryArgs {
    async fn read(&self, admin: &mut ApiClient) -> Result<Vec<Value>, ClientError> {
        let (mut all, mut next) = (Vec::new(), None::<String>);
        while all.len() < self.limit {
            let mut path =
                format!("/v1/sessions/history?limit={}", (self.limit - all.len()).min(PAGE_MAX));
            for (key, value) in [("room", &self.room), ("since", &self.since), ("after", &next)] {
                if let Some(value) = value {
                    path += &format!("&{key}={}", escape(value));
                }
            }
            let mut page = admin.read(&path).await?;
            if let Some(Value::Array(more)) = page.get_mut("sessions").map(Value::take) {
                all.extend(more);
            }
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() {
                break;
            }
        }
        Ok(all)
    }
}

impl SessionArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        match self.verb {
            SessionCommand::List(chosen) => {
                if chosen.node.is_some() || chosen.zone.is_some() {
                    chosen.require_known(rows(&self.api.read("/v1/nodes")?, "nodes"))?;
                }
                let mut sessions = self.api.operate(async |admin| admin.list("sessions").await)?;
                sessions.retain(|session| chosen.takes(session));
                list(self.json, &json!({"sessions": sessions}), "sessions", line);
            }
            SessionCommand::Find { session } => {
                let path = format!("/v1/index/sessions/{}", escape(&session));
                list(self.json, &self.api.read(&path)?, "sessions", place);
            }
            SessionCommand::History(history) => {
                let sessions = self.api.operate(async |admin| history.read(admin).await)?;
                list(self.json, &json!({"sessions": sessions}), "sessions", ended);
            }
            SessionCommand::Explain { session } => {
                let path = format!("/v1/sessions/{}/explain", escape(&session));
                let said = self.api.read(&path)?;
                if self.json {
                    say(&said);
                } else {
                    explain(&said);
                }
            }
            SessionCommand::Close { session } => {
                self.api.operate(async |admin| admin.close(&session).await)?;
                print_done(self.json, format!("{session} is closed"));
            }
        }
        Ok(())
    }
}

/// A session of the shared index.
fn place(session: &Value) -> String {
    let at = match session["gateway"].as_str() {
        Some(gateway) => format!("at {gateway}"),
        None => "at no gateway that runs".to_owned(),
    };
    format!(
        "{:<8} {:<24} {:<10} {at}, group {}{}",
        text(session, "id"),
        text(session, "room"),
        text(session, "scenario"),
        text(session, "group"),
        session["api"].as_str().map(|api| format!(", API at {api}")).unwrap_or_default(),
    )
}

fn line(session: &Value) -> String {
    let quality = quality(session);
    let quality = if quality.is_empty() { String::new() } else { format!(", {quality}") };
    format!(
        "{:<8} {:<24} {:<10} {} at {}, rung {}{}{quality}",
        text(session, "id"),
        text(session, "room"),
        text(session, "scenario"),
        text(session, "ingress"),
        session["hop"]["node"].as_str().unwrap_or("no node"),
        session["rung"],
        degradation(session),
    )
}

fn ended(record: &Value) -> String {
    let causes = record["moves"].as_object().into_iter().flatten();
    let moves: Vec<String> = causes.map(|(cause, times)| format!("{cause} {times}")).collect();
    let moved =
        if moves.is_empty() { String::new() } else { format!("; moved: {}", moves.join(", ")) };
    let carried = match &record["totals"] {
        Value::Null => "its totals are lost".to_owned(),
        totals => format!(
            "{} packets up, {} lost before; {} down, {} lost at {} switches",
            totals["packets_up"],
            totals["lost_up"],
            totals["packets_down"],
            totals["lost_at_switches"],
            totals["switches"],
        ),
    };
    format!(
        "{:<8} {:<24} {:<10} {} for {}, ended {} ago: {}; {carried}{moved}",
        text(record, "id"),
        text(record, "room"),
        text(record, "scenario"),
        text(record, "ingress"),
        period(Duration::from_millis(number(record, "duration_ms"))),
        period(age(number(record, "ended_us"))),
        text(record, "reason"),
    )
}

/// Time since a moment of Unix time.
pub(crate) fn age(at_us: u64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(at_us))
}

pub(crate) fn period(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// `, capped at 300 kbit/s, voice-only`: the degradation actions in force.
pub(crate) fn degradation(session: &Value) -> String {
    let cap = session["cap_kbps"].as_u64().map(|cap| format!(", capped at {cap} kbit/s"));
    let actions = session["actions"].as_object().into_iter().flatten();
    let others = actions.filter(|(name, _)| *name != "cap").map(|(name, arg)| match arg.as_u64() {
        Some(1) => format!(", {name}"),
        _ => format!(", {name} {arg}"),
    });
    cap.into_iter().chain(others).collect()
}

/// The record of an ended session, with its moves.
fn explain_ended(record: &Value) {
    say(&ended(record));
    for step in rows(&record["last_moves"], "") {
        say(&format!(
            "  moved {} ago from {} to {}: {}, by {}",
            period(age(number(step, "at_us"))),
            text(step, "from"),
            step["to"].as_str().unwrap_or("nowhere"),
            text(step, "cause"),
            text(step, "by"),
        ));
    }
}

fn explain(said: &Value) {
    if said["ended"].is_object() {
        return explain_ended(&said["ended"]);
    }
    say(&format!(
        "{} in room {}, scenario {} ({}), priority {}",
        text(said, "id"),
        text(said, "room"),
        text(said, "scenario"),
        text(said, "mode"),
        said["priority"],
    ));
    if let Some(kept) =
        said["effective_mode"].as_str().filter(|kept| Some(*kept) != said["mode"].as_str())
    {
        say(&format!("  runs in {kept} mode: {}", text(said, "mode_reason")));
    }
    if let Some(trace) = said["trace_id"].as_str() {
        say(&format!("  trace ID {trace}"));
    }
    match said["hop"]["node"].as_str() {
        Some(node) => say(&format!("  at {node}, which is {}", text(said, "health"))),
        None => say(&"  at no node: none is up with capacity; retrying"),
    }
    for witness in rows(&said["witnesses"], "") {
        let (name, since) = (text(witness, "witness"), &witness["for_ms"]);
        say(&format!("    accused by {name} for {since} ms"));
    }
    for (hook, by) in said["decided_by"].as_object().into_iter().flatten() {
        say(&format!("  {hook} decided by {}", by.as_str().unwrap_or("")));
    }
    match quality(said) {
        quality if quality.is_empty() => say(&"  quality: nothing measured lately"),
        quality => say(&format!("  quality: {quality}")),
    }
    if said["impairment"].is_object() {
        impairment(&said["impairment"]).iter().for_each(say);
    }
    let share = said["share_permille"].as_u64().unwrap_or(1_000);
    let less = if share < 1_000 { ", for lack of capacity" } else { "" };
    say(&format!("  rung {}{}{less}", said["rung"], degradation(said)));
    let limits: Vec<String> = texts(said, "degradation_limits").into_iter().map(limit).collect();
    if !limits.is_empty() {
        say(&format!("  degradation is limited: {}", limits.join("; ")));
    }
    if let Some(value) = said["voice_only_for"]["value"].as_str() {
        let label = text(&said["voice_only_for"], "label");
        say(&format!("  voice only until the breaker of clients with {label} {value} is closed"));
    }
    rows(&said["policy_answers"], "").iter().for_each(|said| say(&decision(said)));
    for left_out in rows(&said["quarantined"], "") {
        let (by, fault) = (text(left_out, "by"), text(left_out, "fault"));
        say(&format!("  quarantined by {by}: {fault}; this revision is no longer asked about it"));
    }
    for hop in rows(&said["route"], "") {
        say(&format!(
            "  route: {} ({}), {}",
            text(hop, "node"),
            text(hop, "region"),
            text(hop, "grant")
        ));
    }
    if let Some(to) = said["pending_move"]["to"].as_str() {
        let heading = &said["pending_move"];
        let (cause, by) = (text(heading, "cause"), text(heading, "by"));
        say(&format!(
            "  moving to {to}: {cause}, by {by}, waiting for {}",
            heading["pending_opens"]
        ));
    }
    for other in rows(&said["candidates"], "") {
        let (node, region) = (text(other, "node"), text(other, "region"));
        let reason = match text(other, "policy_reason") {
            "" => text(other, "reason").to_owned(),
            policy_reason => format!("{policy_reason} (the policy's reason)"),
        };
        let load = number(other, "load_permille") / 10;
        let carried = number(other, "carried_permille") / 10;
        say(&format!(
            "  not {node} ({region}): {reason}, {load} % load, {carried} % without reserves"
        ));
    }
    for step in rows(&said["moves"], "") {
        say(&format!(
            "  moved {} s ago from {} to {}: {}, by {}, {} after {} ms",
            number(step, "ago_ms") / 1_000,
            text(step, "from"),
            step["to"].as_str().unwrap_or("nowhere"),
            text(step, "cause"),
            text(step, "by"),
            text(step, "outcome"),
            step["took_ms"],
        ));
    }
}

/// The segment that impairs the session's media: `impaired by the uplink of s18: 10.0 % lost there, 99 % certain`.
fn impairment(said: &Value) -> Vec<String> {
    let (segment, at) = (text(said, "segment"), text(said, "impaired_by"));
    let place = match segment {
        "device" | "uplink" | "downlink" => format!("the {segment} of {at}"),
        "gateway" => "this gateway".to_owned(),
        "unknown" => "an unknown segment".to_owned(),
        segment => format!("the {segment}"),
    };
    let sign = text(said, "sign");
    let shown_by = match sign {
        "jitter" | "delay" => format!(" {sign},"),
        "few-frames" => " few video frames,".to_owned(),
        "no-key-frame" => " no key frame,".to_owned(),
        "silence" => " voice without sound,".to_owned(),
        _ => String::new(),
    };
    let percent = |ppm: u64| format!("{:.1} %", ppm as f64 / 1e4);
    let lost = match number(said, "loss_ppm") {
        0 => String::new(),
        ppm => format!(" {} lost there,", percent(ppm)),
    };
    let certain = &said["confidence_percent"];
    let mut lines = vec![format!("  impaired by {place}:{lost}{shown_by} {certain} % certain")];
    let evidence = &said["evidence"];
    let measured =
        |(name, key): (&str, &str)| Some(format!("{name} {}", percent(evidence[key].as_u64()?)));
    let timed = |(name, key): (&str, &str)| {
        Some(format!("{name} {:.0} ms", evidence[key].as_u64()? as f64 / 1e3))
    };
    let losses = [
        ("uplink", "uplink_ppm"),
        ("worst uplink of the room", "senders_ppm"),
        ("at the node", "to_node_ppm"),
        ("from the node", "from_node_ppm"),
        ("of probes", "probes_ppm"),
        ("at the client", "client_ppm"),
    ];
    let losses: Vec<String> = losses.into_iter().filter_map(measured).collect();
    if !losses.is_empty() {
        lines.push(format!("    loss: {}", losses.join(", ")));
    }
    let (quantity, times) = match sign {
        "delay" => (
            "round trip",
            &[("to the client", "client_round_trip_us"), ("to the node", "node_round_trip_us")][..],
        ),
        _ => (
            "jitter",
            &[
                ("uplink", "uplink_jitter_us"),
                ("worst uplink of the room", "senders_jitter_us"),
                ("from the node", "from_node_jitter_us"),
                ("of probes", "probes_jitter_us"),
                ("at the client", "client_jitter_us"),
            ][..],
        ),
    };
    let times: Vec<String> = times.iter().copied().filter_map(timed).collect();
    if !times.is_empty() && ["jitter", "delay"].contains(&sign) {
        lines.push(format!("    {quantity}: {}", times.join(", ")));
    }
    if let Some(missing) = evidence["key_frame_missing_ms"].as_u64() {
        lines.push(format!("    video: key frames requested for {missing} ms, none came"));
    }
    if let Some(silent) = evidence["silent_packets"].as_u64() {
        lines.push(format!("    voice: {silent} packets, none with sound"));
    }
    if let Some(frames) = evidence["frames_per_second"].as_u64() {
        let usual = &evidence["usual_frames_per_second"];
        lines.push(format!("    video: {frames} frames a second, usually {usual}"));
    }
    if number(evidence, "gateway_late_ms") > 0 {
        lines.push(format!("    this gateway was late by {} ms", evidence["gateway_late_ms"]));
    }
    lines
}

/// Describes a limit of degradation.
fn limit(reason: &str) -> String {
    match reason {
        "no-policy" => "the scenario has no degradation policy",
        "cap-unsupported" => "no cap, since no `feedback` of an offer has `remb`",
        "cap-at-floor" => "the bit rate is at the scenario's floor",
        "no-video" => "there is no video to drop",
        "video-dropped" => "the video is dropped already",
        other => other,
    }
    .to_owned()
}

/// A policy's last answer: `degradation: lossy (applied 3 s ago, call/degradation@5f0c): loss_ppm 40000`.
pub(crate) fn decision(said: &Value) -> String {
    let reason = said["reason"].as_str().unwrap_or("without a reason");
    let guard = said["guard"].as_str().map_or(String::new(), |guard| format!(" by {guard}"));
    let fault = said["fault"].as_str().map_or(String::new(), |fault| format!(": {fault}"));
    let ago = number(said, "ago_ms") / 1_000;
    let (hook, by, outcome) = (text(said, "hook"), text(said, "by"), text(said, "outcome"));
    let notes = rows(&said["notes"], "").iter();
    let notes: Vec<String> =
        notes.map(|note| format!("{} {}", text(note, "key"), note["value"])).collect();
    let behind = if notes.is_empty() { "" } else { ": " };
    let notes = notes.join(", ");
    format!("  {hook}: {reason} ({outcome}{guard}{fault} {ago} s ago, {by}){behind}{notes}")
}

#[cfg(test)]
mod tests;
