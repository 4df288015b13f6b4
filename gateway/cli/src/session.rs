//! `evenkeel session`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use evenkeel_client::{ApiClient, ClientError, escape};
use evenkeel_contract::Word;
use evenkeel_contract::gateway::{IndexedSession, IndexedSessionList};
use evenkeel_contract::nodes::{NodeList, NodePlace};
use evenkeel_contract::sessions::{
    Advice, AskedRevision, EndedExplanation, EndedSession, Explanation, HistoryPage, Impairment,
    LiveExplanation, Policing, PolicyAnswer, Quarantine, RoomDecisions, RoomExplanation, Session,
    SessionPage, SessionRating,
};
use serde_json::{Value, json};

use crate::command::{ApiArgs, CommandError, counted, list, print_done, say, typed, unknown_name};

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
    /// List sessions with room, node, quality, rung, degradation actions, and the segment of the path that impairs them
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
    /// Only sessions with an R-factor below 70, a loss of 2 % or more after repair, a degradation, or no node
    #[arg(long)]
    bad: bool,
}

impl ListArgs {
    fn takes(&self, session: &Session) -> bool {
        let place = session.hop.as_ref().map(|hop| &hop.place);
        let is_at = |holds: &dyn Fn(&NodePlace) -> bool| place.is_some_and(holds);
        self.node.as_ref().is_none_or(|name| is_at(&|place| *place.node == **name))
            && self.zone.as_ref().is_none_or(|name| is_at(&|place| is_in(place, name)))
            && (!self.bad || is_bad(session))
    }

    /// Fails if no node has the name of the node or of the zone.
    fn require_known(&self, nodes: &[NodePlace]) -> Result<(), CommandError> {
        let unknown = |what: &str, name: &str, known: BTreeSet<String>| {
            unknown_name(what, name, known.iter().take(NAMED_MAX).map(String::as_str))
        };
        if let Some(name) = &self.node
            && nodes.iter().all(|place| *place.node != **name)
        {
            let known = nodes.iter().map(|place| place.node.to_string());
            return Err(unknown("node", name, known.collect()));
        }
        if let Some(name) = &self.zone
            && !nodes.iter().any(|place| is_in(place, name))
        {
            return Err(unknown("zone", name, nodes.iter().map(NodePlace::full_zone).collect()));
        }
        Ok(())
    }
}

/// Maximum known names in an error, as in those of the API.
const NAMED_MAX: usize = 8;

/// The node is in the zone of this name, `eu/a` or `a`.
fn is_in(place: &NodePlace, name: &str) -> bool {
    *place.zone == *name || place.full_zone() == name
}

/// R-factor times 100 below which many users are dissatisfied (ITU-T G.109).
const BAD_R: u32 = 7_000;

const BAD_LOSS_PPM: u32 = 20_000;

fn is_bad(session: &Session) -> bool {
    let measured = |key: &str| session.measures.get(key);
    // A gateway of an earlier version, which repairs nothing, measures the loss before repair alone.
    let is_lossy = |loss: &str| {
        let left = measured(&format!("{loss}-after-repair")).or(measured(loss));
        left.is_some_and(|ppm| *ppm >= BAD_LOSS_PPM)
    };
    measured("r-factor").is_some_and(|r| *r < BAD_R)
        || is_lossy("loss-up")
        || is_lossy("loss-down")
        || session.rung > 0
        || session.impairment.is_some()
        || session.hop.is_none()
}

/// The measured quality with units: `R 82.1, loss 3 % up, after repair 0.1 % up, jitter 3 ms up`; empty if nothing is measured.
fn quality(measures: &BTreeMap<Word, u32>) -> String {
    let percent = |ppm: u32| format!("{} %", hundredths(ppm / 100));
    let ms = |us: u32| format!("{} ms", us.div_ceil(1_000));
    let both = |name: &str, written: &dyn Fn(u32) -> String| {
        let value = |way: &str| {
            let value = measures.get(&*format!("{name}-{way}"))?;
            Some(format!("{} {way}", written(*value)))
        };
        let ways: Vec<String> = ["up", "down"].into_iter().filter_map(value).collect();
        (!ways.is_empty()).then(|| format!("{name} {}", ways.join(" and ")))
    };
    let r = measures.get("r-factor").map(|r| format!("R {}", hundredths(*r)));
    let left = |way: &str| {
        let (before, after) = (format!("loss-{way}"), format!("loss-{way}-after-repair"));
        let after = measures.get(&*after)?;
        (measures.get(&*before) != Some(after)).then(|| format!("{} {way}", percent(*after)))
    };
    let left: Vec<String> = ["up", "down"].into_iter().filter_map(left).collect();
    let left = (!left.is_empty()).then(|| format!("after repair {}", left.join(" and ")));
    let trip = measures.get("rtt-client").map(|us| format!("round trip {}", ms(*us)));
    let available = measures.get("available-down");
    let available = available.map(|kbps| format!("available {kbps} kbit/s down"));
    let growth = measures.get("trend-down").filter(|permille| **permille > 0);
    let growth = growth.map(|ms| format!("delay grows {ms} ms/s down"));
    let parts = [r, both("loss", &percent), left, both("jitter", &ms), trip, available, growth];
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
            let page: HistoryPage<Value> = admin.get(&path).await?;
            all.extend(page.sessions);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        Ok(all)
    }
}

impl SessionArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        match self.verb {
            SessionCommand::List(chosen) => {
                if chosen.node.is_some() || chosen.zone.is_some() {
                    let NodeList { nodes } = self.api.get("/v1/nodes")?;
                    let places: Vec<_> = nodes.into_iter().map(|node| node.hop.place).collect();
                    chosen.require_known(&places)?;
                }
                let listed = self.api.operate(async |admin| admin.list("sessions").await)?;
                let mut sessions = Vec::new();
                for session in listed {
                    if chosen.takes(&typed(&session)?) {
                        sessions.push(session);
                    }
                }
                let rows = |page: SessionPage| page.sessions;
                list(self.json, &json!({"sessions": sessions}), rows, line)?;
            }
            SessionCommand::Find { session } => {
                let path = format!("/v1/index/sessions/{}", escape(&session));
                let rows = |found: IndexedSessionList| found.sessions;
                list(self.json, &self.api.read(&path)?, rows, place)?;
            }
            SessionCommand::History(history) => {
                let sessions = self.api.operate(async |admin| history.read(admin).await)?;
                let rows = |page: HistoryPage| page.sessions;
                list(self.json, &json!({"sessions": sessions}), rows, ended)?;
            }
            SessionCommand::Explain { session } => {
                let path = format!("/v1/sessions/{}/explain", escape(&session));
                let said = self.api.read(&path)?;
                if self.json {
                    say(&said);
                } else {
                    match typed(&said)? {
                        Explanation::Ended(record) => explain_ended(&record),
                        Explanation::Live(said) => explain(&said),
                    }
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
fn place(session: &IndexedSession) -> String {
    let at = match &session.gateway {
        Some(gateway) => format!("at {gateway}"),
        None => "at no gateway that runs".to_owned(),
    };
    let api = session.api.map(|api| format!(", API at {api}")).unwrap_or_default();
    let IndexedSession { id, room, scenario, group, .. } = session;
    format!("{id:<8} {room:<24} {scenario:<10} {at}, group {group}{api}")
}

fn line(session: &Session) -> String {
    let quality = quality(&session.measures);
    let quality = if quality.is_empty() { String::new() } else { format!(", {quality}") };
    let impaired = session.impairment.as_ref();
    let impaired = impaired.map_or(String::new(), |it| format!(", impaired by {}", segment(it)));
    let Session { id, room, scenario, ingress, rung, .. } = session;
    format!(
        "{id:<8} {room:<24} {scenario:<10} {ingress} at {}, rung {rung}{}{quality}{impaired}",
        session.hop.as_ref().map_or("no node", |hop| &hop.place.node),
        degradation(session.cap_kbps, &session.actions),
    )
}

fn ended(record: &EndedSession) -> String {
    let moves: Vec<String> =
        record.moves.iter().map(|(cause, times)| format!("{cause} {times}")).collect();
    let moved =
        if moves.is_empty() { String::new() } else { format!("; moved: {}", moves.join(", ")) };
    let carried = match &record.totals {
        None => "its totals are lost".to_owned(),
        Some(totals) => format!(
            "{} packets up, {} lost before; {} down, {} lost at {} switches",
            totals.packets_up,
            totals.lost_up,
            totals.packets_down,
            totals.lost_at_switches,
            totals.switches,
        ),
    };
    let EndedSession { id, room, scenario, ingress, reason, .. } = record;
    format!(
        "{id:<8} {room:<24} {scenario:<10} {ingress} for {}, ended {} ago: {reason}; {carried}{moved}",
        period(Duration::from_millis(record.duration_ms)),
        period(age(record.ended_us)),
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
pub(crate) fn degradation(cap_kbps: Option<u32>, actions: &BTreeMap<Word, u32>) -> String {
    let cap = cap_kbps.map(|cap| format!(", capped at {cap} kbit/s"));
    let others = actions.iter().filter(|(name, _)| !(*name == "cap" || *name == "cap-up"));
    let others = others.map(|(name, arg)| match arg {
        1 => format!(", {name}"),
        _ => format!(", {name} {arg}"),
    });
    cap.into_iter().chain(others).collect()
}

/// The record of an ended session, with its moves.
fn explain_ended(EndedExplanation { ended: record, rating, .. }: &EndedExplanation) {
    say(&ended(record));
    rating.iter().for_each(|it| say(&rated(it)));
    for step in &record.last_moves {
        say(&format!(
            "  moved {} ago from {} to {}: {}, by {}",
            period(age(step.at_us)),
            step.from,
            step.to.as_deref().unwrap_or("nowhere"),
            step.cause,
            step.by,
        ));
    }
}

/// `  rated 2 of 5, measured R 62.00: "choppy"`.
fn rated(SessionRating { rating, mean_r_centi, words, .. }: &SessionRating) -> String {
    let measured = r_factor(*mean_r_centi);
    let words = words.as_ref().map(|words| format!(": \"{words}\"")).unwrap_or_default();
    format!("  rated {rating} of 5, {measured}{words}")
}

/// `measured R 62.00`.
pub(crate) fn r_factor(centi: Option<u32>) -> String {
    centi.map_or("R not measured".to_owned(), |r| format!("measured R {}", hundredths(r)))
}

/// `62.05`.
pub(crate) fn hundredths(centi: u32) -> String {
    format!("{}.{:02}", centi / 100, centi % 100)
}

fn explain(said: &LiveExplanation) {
    let LiveExplanation { id, room, scenario, mode, decisions, .. } = said;
    let priority = decisions.priority;
    say(&format!("{id} in room {room}, scenario {scenario} ({mode}), priority {priority}"));
    if let Some(trace) = &said.trace_id {
        say(&format!("  trace ID {trace}"));
    }
    place_lines(mode, &said.effective_mode, decisions).iter().for_each(say);
    for (hook, by) in &said.decided_by {
        say(&format!("  {hook} decided by {by}"));
    }
    match quality(&said.measures) {
        quality if quality.is_empty() => say(&"  quality: nothing measured lately"),
        quality => say(&format!("  quality: {quality}")),
    }
    if let Some(said) = &said.impairment {
        impairment(said).iter().for_each(say);
    }
    said.advice.iter().for_each(|it| say(&advice(it)));
    said.policing.iter().for_each(|it| say(&policing(it)));
    let less = if said.share_permille < 1_000 { ", for lack of capacity" } else { "" };
    say(&format!("  rung {}{}{less}", said.rung, degradation(said.cap_kbps, &said.actions)));
    let limits: Vec<&str> = said.degradation_limits.iter().map(|reason| limit(reason)).collect();
    if !limits.is_empty() {
        say(&format!("  degradation is limited: {}", limits.join("; ")));
    }
    if let Some(group) = &said.voice_only_for {
        let (label, value) = (&group.label, &group.value);
        say(&format!("  voice only until the breaker of clients with {label} {value} is closed"));
    }
    decision_lines(decisions).iter().for_each(say);
}

/// The explanation of a room.
pub(crate) fn room_lines(said: &RoomExplanation) -> Vec<String> {
    let RoomExplanation { room, id, scenario, mode, sessions, placed_by, decisions, .. } = said;
    let priority = decisions.priority;
    let first = format!(
        "{room} ({id}), scenario {scenario} ({mode}), priority {priority}, {} sessions: {}",
        sessions.len(),
        sessions.join(", ")
    );
    let mut lines = vec![first];
    lines.extend(place_lines(mode, &said.effective_mode, decisions));
    lines.push(format!("  routing decided by {placed_by}"));
    lines.extend(decision_lines(decisions));
    lines
}

/// Mode, hop and health of a room.
fn place_lines(mode: &str, effective_mode: &str, said: &RoomDecisions) -> Vec<String> {
    let mut lines = Vec::new();
    if !effective_mode.is_empty() && effective_mode != mode {
        let reason = said.mode_reason.as_deref().unwrap_or_default();
        lines.push(format!("  runs in {effective_mode} mode: {reason}"));
    }
    lines.push(match &said.hop {
        Some(hop) => {
            let health = said.health.as_deref().unwrap_or_default();
            format!("  at {}, which is {health}", hop.place.node)
        }
        None => "  at no node: none is up with capacity; retrying".to_owned(),
    });
    let accused = said.witnesses.iter();
    lines.extend(accused.map(|it| format!("    accused by {} for {} ms", it.witness, it.for_ms)));
    lines
}

/// The policies that are asked about a room, their answers, and its candidates and moves.
fn decision_lines(said: &RoomDecisions) -> Vec<String> {
    let mut lines: Vec<String> = said.asked.iter().map(asked_line).collect();
    lines.extend(said.policy_answers.iter().map(decision));
    for Quarantine { by, fault, .. } in &said.quarantined {
        lines.push(format!(
            "  quarantined by {by}: {fault}; this revision is no longer asked about it"
        ));
    }
    for granted in &said.route {
        let NodePlace { node, region, .. } = &granted.hop.place;
        lines.push(format!("  route: {node} ({region}), {}", granted.grant));
    }
    if let Some(heading) = &said.pending_move {
        let (to, cause, by) = (&heading.to, &heading.cause, &heading.by);
        let waiting = heading.pending_opens;
        lines.push(format!("  moving to {to}: {cause}, by {by}, waiting for {waiting}"));
    }
    for other in &said.candidates {
        let NodePlace { node, region, .. } = &other.place;
        let reason = match &other.policy_reason {
            None => other.reason.to_string(),
            Some(policy_reason) => format!("{policy_reason} (the policy's reason)"),
        };
        let (load, carried) = (other.load_permille / 10, other.carried_permille / 10);
        lines.push(format!(
            "  not {node} ({region}): {reason}, {load} % load, {carried} % without reserves"
        ));
    }
    for step in &said.moves {
        lines.push(format!(
            "  moved {} s ago from {} to {}: {}, by {}, {} after {} ms",
            step.ago_ms / 1_000,
            step.from,
            step.to.as_deref().unwrap_or("nowhere"),
            step.cause,
            step.by,
            step.outcome,
            step.took_ms,
        ));
    }
    lines
}

/// A revision that is asked: `asks call/routing@5f0c5f0c5f0c (canary), about 2 sessions`.
fn asked_line(asked: &AskedRevision) -> String {
    let AskedRevision { policy, arm, revision, sessions } = asked;
    let about = format!("about {}", counted(*sessions, "session"));
    match revision {
        Some(revision) => format!("  asks {policy}@{revision} ({arm}), {about}"),
        None => {
            format!("  asks no revision of {policy} ({arm}), {about}: the native default decides")
        }
    }
}

/// The segment that impairs the session's media: `impaired by the uplink of s18: 10.0 % lost there, 99 % certain`.
fn impairment(said: &Impairment) -> Vec<String> {
    let place = segment(said);
    let sign = &*said.sign;
    let shown_by = match sign {
        "jitter" | "delay" => format!(" {sign},"),
        "few-frames" => " few video frames,".to_owned(),
        "no-key-frame" => " no key frame,".to_owned(),
        "silence" => " voice without sound,".to_owned(),
        _ => String::new(),
    };
    let percent = |ppm: u32| format!("{:.1} %", f64::from(ppm) / 1e4);
    let lost = match said.loss_ppm {
        0 => String::new(),
        ppm => format!(" {} lost there,", percent(ppm)),
    };
    let certain = said.confidence_percent;
    let mut lines = vec![format!("  impaired by {place}:{lost}{shown_by} {certain} % certain")];
    let evidence = &said.evidence;
    let measured = |(name, ppm): (&str, Option<u32>)| Some(format!("{name} {}", percent(ppm?)));
    let timed = |(name, us): (&str, Option<u32>)| {
        us.map(|us| format!("{name} {:.0} ms", f64::from(us) / 1e3))
    };
    let losses = [
        ("uplink", evidence.uplink_ppm),
        ("worst uplink of the room", evidence.senders_ppm),
        ("at the node", evidence.to_node_ppm),
        ("from the node", evidence.from_node_ppm),
        ("of probes", evidence.probes_ppm),
        ("at the client", evidence.client_ppm),
    ];
    let losses: Vec<String> = losses.into_iter().filter_map(measured).collect();
    if !losses.is_empty() {
        lines.push(format!("    loss: {}", losses.join(", ")));
    }
    let (quantity, times) = match sign {
        "delay" => (
            "round trip",
            vec![
                ("to the client", evidence.client_round_trip_us),
                ("to the node", evidence.node_round_trip_us),
            ],
        ),
        _ => (
            "jitter",
            vec![
                ("uplink", evidence.uplink_jitter_us),
                ("worst uplink of the room", evidence.senders_jitter_us),
                ("from the node", evidence.from_node_jitter_us),
                ("of probes", evidence.probes_jitter_us),
                ("at the client", evidence.client_jitter_us),
            ],
        ),
    };
    let times: Vec<String> = times.into_iter().filter_map(timed).collect();
    if !times.is_empty() && ["jitter", "delay"].contains(&sign) {
        lines.push(format!("    {quantity}: {}", times.join(", ")));
    }
    if let Some(missing) = evidence.key_frame_missing_ms {
        lines.push(format!("    video: key frames requested for {missing} ms, none came"));
    }
    if let Some(silent) = evidence.silent_packets {
        lines.push(format!("    voice: {silent} packets, none with sound"));
    }
    if let (Some(frames), Some(usual)) =
        (evidence.frames_per_second, evidence.usual_frames_per_second)
    {
        lines.push(format!("    video: {frames} frames a second, usually {usual}"));
    }
    if evidence.gateway_late_ms > 0 {
        lines.push(format!("    this gateway was late by {} ms", evidence.gateway_late_ms));
    }
    lines
}

/// The advice to the user: `  user advised: switch-network, for the downlink`.
fn advice(said: &Advice) -> String {
    let cause = said.cause.as_deref().unwrap_or("unknown segment");
    format!("  user advised: {}, for the {cause}", said.advice)
}

/// The policing of the client: `  policed: sends 3100 of at most 2000 kbit/s; is told by REMB or TMMBR`.
fn policing(said: &Policing) -> String {
    let treatment = match &*said.step {
        "told" => "is told by REMB or TMMBR",
        "frames" => "frames of its video are dropped",
        "voice" => "frames of its video and packets of its voice are dropped",
        "encrypted" => "its media passes, since its SRTP does not end at the gateway",
        "unknown-codec" => "its media passes, since the frames of its codec are unknown",
        other => other,
    };
    let (sent, limit) = (said.sent_kbps, said.limit_kbps);
    format!("  policed: sends {sent} of at most {limit} kbit/s; {treatment}")
}

/// The segment with the session of that device, uplink or downlink: `the uplink of s18`.
fn segment(said: &Impairment) -> String {
    match &*said.segment {
        segment @ ("device" | "uplink" | "downlink") => {
            format!("the {segment} of {}", said.impaired_by)
        }
        "gateway" => "this gateway".to_owned(),
        "unknown" => "an unknown segment".to_owned(),
        segment => format!("the {segment}"),
    }
}

/// Describes a limit of degradation.
fn limit(reason: &str) -> &str {
    match reason {
        "no-policy" => "the scenario has no degradation policy",
        "cap-unsupported" => "no cap, since no `feedback` of an offer has `remb` or `tmmbr`",
        "cap-at-floor" => "the bit rate is at the scenario's floor",
        "no-video" => "there is no video to drop",
        "video-dropped" => "the video is dropped already",
        other => other,
    }
}

/// A policy's last answer: `degradation: lossy (applied 3 s ago, call/degradation@5f0c): loss_ppm 40000`.
pub(crate) fn decision(said: &PolicyAnswer) -> String {
    let reason = said.reason.as_deref().unwrap_or("without a reason");
    let guard = said.guard.as_ref().map_or(String::new(), |guard| format!(" by {guard}"));
    let fault = said.fault.as_ref().map_or(String::new(), |fault| format!(": {fault}"));
    let ago = said.ago_ms / 1_000;
    let PolicyAnswer { hook, by, outcome, .. } = said;
    let notes: Vec<String> =
        said.notes.iter().map(|note| format!("{} {}", note.key, note.value)).collect();
    let behind = if notes.is_empty() { "" } else { ": " };
    let notes = notes.join(", ");
    format!("  {hook}: {reason} ({outcome}{guard}{fault} {ago} s ago, {by}){behind}{notes}")
}

#[cfg(test)]
mod tests;
