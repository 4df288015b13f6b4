//! Test calls at a running gateway: sessions that send media, and the decisions of policies about them.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::{ApiClient, ClientError};
use evenkeel_contract::Word;
use evenkeel_contract::sessions::{Explanation, PolicyAnswer};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::crowd::{Crowd, CrowdPlan, ObservationWindow};
use crate::error::LabError;
use crate::interruption::until_interrupted;
use crate::links::Conditions;
use crate::relay::Direction;

/// Packets are counted, and their records removed, at this interval.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Timeout of an answer about a session.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Timeout of the end of all sessions, which a gateway that does not answer would prevent.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// The sessions of a test call, and how long they send.
#[derive(Clone, Debug)]
pub struct CallPlan {
    /// The sessions.
    pub crowd: CrowdPlan,
    /// Impairments of both directions between clients and gateway. They need clients behind the simulated NAT.
    pub conditions: Conditions,
    /// Time without impairments after all sessions have opened. Default 0.
    pub impaired_after: Duration,
    /// Duration of the call; `None`: until a signal ends it.
    pub duration: Option<Duration>,
    /// Interval at which the gateway is asked about each session. Default 1 s.
    pub ask_interval: Duration,
}

impl CallPlan {
    /// Plans a call without impairments that lasts until a signal ends it.
    pub fn new(crowd: CrowdPlan) -> CallPlan {
        CallPlan {
            crowd,
            conditions: Conditions::default(),
            impaired_after: Duration::ZERO,
            duration: None,
            ask_interval: Duration::from_secs(1),
        }
    }
}

/// A new fact about a session of the call.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CallChange {
    /// The id that the gateway assigned: `s4k7mq2-7`.
    pub session: String,
    /// Time since all sessions were open, in milliseconds.
    pub after_ms: u64,
    #[serde(flatten)]
    pub fact: CallFact,
}

/// A part of the explanation of a session.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallFact {
    State(CallState),
    /// A policy's answer, as in `policy_answers` of `GET /v1/sessions/ID/explain`.
    Answer(PolicyAnswer),
}

/// The state of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum CallState {
    /// The session has ended.
    Ended {
        /// The reason.
        ended: Box<str>,
    },
    /// The session is live.
    Live {
        /// The name of the node that carries it.
        node: Option<Arc<str>>,
        /// As of a session.
        rung: u8,
        /// As of a session.
        cap_kbps: Option<u32>,
        /// As of a session.
        actions: BTreeMap<Word, u32>,
    },
}

/// A session of the call after its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CallSession {
    /// The id that the gateway assigned: `s4k7mq2-7`.
    pub session: String,
    /// RTP packets that its client sent.
    pub packets_sent: u64,
    /// RTP packets of the other clients that arrived at its client.
    pub packets_received: u64,
    /// RTP packets that did not arrive, including those that a degradation drops.
    pub packets_missing: u64,
}

impl CallSession {
    /// Packets were due to it, and none arrived.
    pub fn is_unheard(&self) -> bool {
        self.packets_received == 0 && self.packets_missing > 0
    }
}

/// The totals of a call.
#[derive(Debug)]
pub struct CallTotals {
    /// All sessions, in their order.
    pub sessions: Vec<CallSession>,
    /// The reason for which the gateway may still have sessions of the call; `None`: all are closed.
    pub unclosed: Option<LabError>,
}

/// Opens the sessions, sends media until the end, and closes them. Each change is told once. The call goes on while the API does not
/// answer.
///
/// # Errors
/// The gateway refuses a session or does not answer while they are opened. All sessions are closed first.
pub async fn run(
    plan: &CallPlan,
    admin: impl Fn() -> ApiClient,
    tell: &mut dyn FnMut(CallChange),
) -> Result<CallTotals, LabError> {
    run_until(pin!(until_interrupted()), plan, admin, tell).await
}

async fn run_until(
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
    plan: &CallPlan,
    admin: impl Fn() -> ApiClient,
    tell: &mut dyn FnMut(CallChange),
) -> Result<CallTotals, LabError> {
    let mut crowd = Crowd::enter_unless(&plan.crowd, &admin, interrupted.as_mut()).await?;
    let mut own = admin();
    let sessions = follow(plan, &mut own, &mut crowd, interrupted, tell).await;
    // On another connection: a question may be without its answer.
    let left = timeout(CLOSED_WITHIN, crowd.leave(&mut admin())).await;
    let late = |_| Err(LabError::in_vain("the end of all sessions", CLOSED_WITHIN));
    let unclosed = left.unwrap_or_else(late).err();
    Ok(CallTotals { sessions, unclosed })
}

/// Tells changes until the end of the call, and counts its packets.
async fn follow(
    plan: &CallPlan,
    admin: &mut ApiClient,
    crowd: &mut Crowd,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
    tell: &mut dyn FnMut(CallChange),
) -> Vec<CallSession> {
    let began = Instant::now();
    let mut end = pin!(async {
        match plan.duration {
            Some(duration) => sleep(duration).await,
            None => pending().await,
        }
    });
    let (mut known, mut counts, mut counted) = (KnownFacts::default(), Counts::new(crowd), began);
    let sessions = crowd.by_id().values().copied().collect();
    let (mut conditions, mut is_silent) = (Some(plan.conditions), false);
    loop {
        let is_due = |_: &mut Conditions| began.elapsed() >= plan.impaired_after;
        if let Some(conditions) = conditions.take_if(is_due) {
            for direction in [Direction::Up, Direction::Down] {
                crowd.impair(&sessions, direction, conditions);
            }
        }
        let ids = counts.by_id.keys();
        let asked = known.ask(ids, admin, |session, fact| {
            let after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tell(CallChange { session, after_ms, fact });
        });
        let asked = tokio::select! {
            asked = asked => asked,
            () = end.as_mut() => break,
            () = interrupted.as_mut() => break,
        };
        match (&asked, is_silent) {
            (Err(error), false) => eprintln!("{error}; the call goes on"),
            (Ok(()), true) => eprintln!("the gateway answers again"),
            _ => {}
        }
        is_silent = asked.is_err();
        if counted.elapsed() >= COUNT_INTERVAL {
            counts.add(&crowd.end_window().await);
            counted = Instant::now();
        }
        tokio::select! {
            () = sleep(plan.ask_interval) => {}
            () = end.as_mut() => break,
            () = interrupted.as_mut() => break,
        }
    }
    counts.add(&crowd.end_window().await);
    counts.sessions()
}

/// The gateway's explanation of a session; `None` if the gateway does not know it any more.
async fn explain(admin: &mut ApiClient, id: &str) -> Result<Option<Explanation>, LabError> {
    match admin.explain(id).await {
        Ok(explained) => Ok(Some(explained)),
        Err(ClientError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(LabError::gateway(&format!("explaining session {id}"))(error)),
    }
}

/// Returns true if the gateway was not asked, or the connection ended, so that later questions would fail, too.
fn is_of_connection(error: &LabError) -> bool {
    let LabError::Gateway(_, error) = error else { return false };
    matches!(
        error,
        ClientError::Unreached(_) | ClientError::Untrusted { .. } | ClientError::Http(_)
    )
}

/// The last facts by session and hook; the state is that of no hook.
#[derive(Default)]
struct KnownFacts(BTreeMap<(String, Word), CallFact>);

impl KnownFacts {
    /// Asks the gateway about each session, and tells the facts that are new or changed. Fails with the first failure; later sessions are
    /// asked about unless the connection failed or no answer came.
    async fn ask<'a>(
        &mut self,
        ids: impl Iterator<Item = &'a String>,
        admin: &mut ApiClient,
        mut tell: impl FnMut(String, CallFact),
    ) -> Result<(), LabError> {
        let mut outcome = Ok(());
        for id in ids {
            let late = |_| LabError::in_vain("an answer of the gateway", ANSWERED_WITHIN);
            match timeout(ANSWERED_WITHIN, explain(admin, id)).await.map_err(late)? {
                Ok(Some(explained)) => {
                    for fact in self.changes(id, &explained) {
                        tell(id.clone(), fact);
                    }
                }
                Ok(None) => {}
                Err(error) if is_of_connection(&error) => return Err(error),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// The facts that are new or changed.
    fn changes(&mut self, id: &str, explained: &Explanation) -> Vec<CallFact> {
        let (state, answers) = match explained {
            Explanation::Ended(record) => {
                (CallState::Ended { ended: record.ended.reason.clone() }, &[][..])
            }
            Explanation::Live(said) => {
                let node = said.decisions.hop.as_ref().map(|hop| Arc::clone(&hop.place.node));
                let (rung, cap_kbps) = (said.rung, said.cap_kbps);
                let state = CallState::Live { node, rung, cap_kbps, actions: said.actions.clone() };
                (state, &said.decisions.policy_answers[..])
            }
        };
        let answers = answers.iter().cloned().map(CallFact::Answer);
        let facts = [CallFact::State(state)].into_iter().chain(answers);
        facts.filter(|fact| self.is_new(id, fact)).collect()
    }

    fn is_new(&mut self, id: &str, fact: &CallFact) -> bool {
        let (hook, stable) = match fact.clone() {
            CallFact::State(_) => (Word::default(), fact.clone()),
            CallFact::Answer(mut answer) => {
                // They differ from one question to the next.
                answer.ago_ms = 0;
                answer.notes.clear();
                (answer.hook.clone(), CallFact::Answer(answer))
            }
        };
        let before = self.0.insert((id.to_owned(), hook), stable.clone());
        before.as_ref() != Some(&stable)
    }
}

/// Packets of each session over all windows.
struct Counts {
    by_id: BTreeMap<String, u64>,
    by_session: BTreeMap<u64, CallSession>,
}

impl Counts {
    fn new(crowd: &Crowd) -> Counts {
        let by_id = crowd.by_id().clone();
        let none = |(id, session): (&String, &u64)| {
            let id = id.clone();
            let session_counts = CallSession {
                session: id,
                packets_sent: 0,
                packets_received: 0,
                packets_missing: 0,
            };
            (*session, session_counts)
        };
        Counts { by_session: by_id.iter().map(none).collect(), by_id }
    }

    fn add(&mut self, window: &ObservationWindow) {
        for (session, counts) in &mut self.by_session {
            counts.packets_sent += window.ledger.sent_by(*session);
            counts.packets_received += window.ledger.arrived_at(*session);
        }
        for packet in window.ledger.missing() {
            if let Some(counts) = self.by_session.get_mut(&packet.path.receiver) {
                counts.packets_missing += 1;
            }
        }
    }

    fn sessions(self) -> Vec<CallSession> {
        self.by_session.into_values().collect()
    }
}

#[cfg(test)]
mod tests;
