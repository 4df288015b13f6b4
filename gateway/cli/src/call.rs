//! `evenkeel call`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use clap::Args;
use evenkeel_lab::call::{
    self, CallChange, CallFact, CallPlan, CallSession, CallState, CallTotals,
};
use evenkeel_lab::crowd::CrowdPlan;
use evenkeel_lab::links::Conditions;
use serde_json::json;

use crate::command::{ApiArgs, CommandError, runtime, say, verdict};
use crate::lab::{await_gateway, explain};
use crate::session::{decision, degradation};

/// Sessions of all rooms together. Each one is explained every second.
const SESSIONS_MAX: i64 = 500;

/// Open test sessions at a running gateway, send media, and show the decisions of policies about them
///
/// The sessions have the scenario and labels of a real call. The first one of each room sends voice, and the others receive it. Their
/// node, rung, degradation actions and the answers of policies are printed when they change. The call ends after --seconds or with Ctrl-C;
/// its sessions are closed then. It goes on while the API does not answer.
///
/// The sessions send from addresses that their offers declare: on the gateway's machine from 127.0.0.1, or from --from. The gateway
/// needs a listener that takes the identity `declared`; with --stun, --webrtc, --loss or --delay, one that takes `stun`.
///
/// Exit code 1: the gateway refuses a session, a session receives no packets, or sessions could not be closed.
#[derive(Args)]
#[command(mut_arg("api", |api| api.visible_alias("to")))]
pub(crate) struct CallArgs {
    /// Scenario of the sessions
    #[arg(long, value_name = "NAME", default_value = "call")]
    scenario: String,
    /// Label of all sessions, such as `tenant=gold`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Sessions in each room
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=SESSIONS_MAX))]
    sessions: u32,
    /// Number of rooms
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=SESSIONS_MAX))]
    rooms: u32,
    /// Begin the rooms' names with this, before `-1`; default: `call` and the number of this process
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    /// All sessions of a room send
    #[arg(long)]
    all_send: bool,
    /// Send video too
    #[arg(long)]
    video: bool,
    /// Duration; default: until Ctrl-C
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Drop this share of all packets, in both directions; for a gateway on the loopback interface
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    loss: u32,
    /// Delay all packets, in both directions; for a gateway on the loopback interface
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    delay: u64,
    /// Begin --loss and --delay this many seconds after the sessions have opened
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    after: u64,
    /// Prove the sessions' addresses by STUN checks instead of declaring them
    #[arg(long)]
    stun: bool,
    /// Be WebRTC clients, by ICE, DTLS and SRTP
    #[arg(long)]
    webrtc: bool,
    /// Send from this address; default: 127.0.0.1, and any with --stun or --webrtc
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Seed of the clients' SSRCs and packet sizes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: an object for each change, with `session`, `after_ms` and `state` or `answer`, and an object with the packets of all
    /// `sessions` last
    #[arg(long)]
    pub(crate) json: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("found `{text}`, expected a key and a value: `tenant=gold`")),
    }
}

impl CallArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let plan = self.plan()?;
        await_gateway(&self.api)?;
        let client = self.api.client()?;
        let json = self.json;
        let mut tell = |change: CallChange| match (json, serde_json::to_string(&change)) {
            (true, Ok(line)) => say(&line),
            (true, Err(_)) | (false, _) => say(&change_line(&change)),
        };
        let called = call::run(&plan, || client.another(), &mut tell);
        let called = runtime()?.block_on(called).map_err(|failed| explain(&self.api, failed))?;
        let CallTotals { sessions, unclosed } = called;
        if json {
            say(&json!({"sessions": sessions}));
        } else {
            sessions.iter().for_each(|session| say(&session_line(session)));
        }
        let unheard = sessions.iter().filter(|session| session.is_unheard()).count();
        let of = sessions.len();
        let unheard =
            (unheard > 0).then(|| format!("{unheard} of {of} sessions received no packets"));
        let unclosed = unclosed.map(|error| format!("sessions may still be open: {error}"));
        let words: Vec<String> = unheard.into_iter().chain(unclosed).collect();
        verdict(json, (!words.is_empty()).then(|| words.join("\n")))
    }

    fn plan(&self) -> Result<CallPlan, CommandError> {
        let sessions = self.sessions.saturating_mul(self.rooms);
        if i64::from(sessions) > SESSIONS_MAX {
            let words =
                format!("found {sessions} sessions in all rooms, expected ≤ {SESSIONS_MAX}");
            return Err(CommandError::Wrong(words));
        }
        let conditions = Conditions {
            delay: Duration::from_millis(self.delay),
            ..Conditions::loss_percent(self.loss)
        };
        let natted = conditions != Conditions::default();
        let any = || match (self.stun || self.webrtc) && !natted {
            true => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            false => Ipv4Addr::LOCALHOST.into(),
        };
        let crowd = CrowdPlan {
            room_size: self.sessions,
            both_ways: self.all_send,
            feedback: true,
            video: self.video,
            scenario: self.scenario.clone(),
            rooms: self.room.clone().unwrap_or_else(|| format!("call-{}", std::process::id())),
            labels: self.label.iter().cloned().collect(),
            stun: self.stun,
            webrtc: self.webrtc,
            natted,
            clients_at: self.from.unwrap_or_else(any),
            seed: self.seed,
            ..CrowdPlan::new(sessions)
        };
        let impaired_after = Duration::from_secs(self.after);
        let duration = self.seconds.map(Duration::from_secs);
        Ok(CallPlan { conditions, impaired_after, duration, ..CallPlan::new(crowd) })
    }
}

/// `2.0 s  s7     degradation: lossy (applied 0 s ago, call/degradation@5f0c)`.
fn change_line(change: &CallChange) -> String {
    let CallChange { session, after_ms, fact } = change;
    let shown = match fact {
        CallFact::State(state) => state_line(state),
        CallFact::Answer(answer) => decision(answer).trim_start().to_owned(),
    };
    format!("{:>6}.{} s  {session:<6} {shown}", after_ms / 1_000, after_ms / 100 % 10)
}

fn state_line(state: &CallState) -> String {
    match state {
        CallState::Ended { ended } => format!("ended: {ended}"),
        CallState::Live { node, rung, cap_kbps, actions } => {
            let node = node.as_deref().unwrap_or("no node");
            format!("at {node}, rung {rung}{}", degradation(*cap_kbps, actions))
        }
    }
}

fn session_line(session: &CallSession) -> String {
    let CallSession { session, packets_sent, packets_received, packets_missing } = session;
    format!(
        "{session:<6} {packets_sent} packets sent, {packets_received} received, {packets_missing} missing"
    )
}

#[cfg(test)]
mod tests;
