//! A trial: a copy of the gateway with rooms and sessions of its own, for which a revision decides in virtual time. The core
//! checks the answers and judges them, as it does those of a canary.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{Gateway, GatewayCopy, GatewayEffect, RestoreError};
use evenkeel_host::{BoundPlugin, PluginRefusal, processor_time};
use evenkeel_model::{
    Ask, CoreEvent, FeedbackSupport, IngressProtocol, Labels, Measures, MediaDescription,
    MediaStream, Metric, Offer, OfferId, PayloadType, PolicyName, PolicyQuestion, RtcpPort,
    SessionId, Srtp, StreamKind,
};
use evenkeel_revisions::{
    Actor, Judging, Revision, RolloutRequest, RolloutRules, Strategy, WallClock,
};

use super::entries::catalog_of;
use super::proof::{AskedQuestion, ProofFailure, REPEATED_FOR, ask, repeat};
use super::thread::RecentQuestions;

/// Rooms of two sessions. One session is offered in each turn.
const SESSIONS: u32 = 64;

/// Labels of recorded questions that the sessions of a trial get.
const LABELS_MAX: usize = 64;

const TURN: Duration = Duration::from_millis(100);

/// Duration of a trial: degradation policies lower and raise quality within it.
const TURNS: u32 = 160;

/// Sessions are measured in one of this many turns.
const MEASURED_EVERY: u32 = 5;

/// For this many turns all sessions are well, and for as many a third of them is impaired, in turns.
const WELL_FOR: u32 = 30;

/// Turns in which routing policies are asked about all rooms.
const REVIEWED: [u32; 6] = [66, 82, 98, 114, 130, 146];

/// Changes of direction of a session's bit rate, at most: twice as many as the changes of its measures.
const TURNS_OF_RATE_MAX: u32 = 2 * TURNS / WELL_FOR;

/// Maximum calls of a revision: a policy may ask for a review of each room at each time.
const CALLS_MAX: usize = 2_048;

/// Maximum processor time of a trial: a plugin may need its whole budget each time.
const PLAYED_FOR: Duration = Duration::from_secs(5);

/// Time during which the revision before could be restored: beyond the end of each trial.
const KEPT_FOR: Duration = Duration::from_secs(3_600);

/// The last change of the bit rate in a direction of a session.
#[derive(Default)]
struct RateTrend {
    /// 0: no cap.
    cap_kbps: u32,
    is_lowered: bool,
    /// Changes of direction.
    turns: u32,
}

impl RateTrend {
    fn note(&mut self, cap_kbps: u32) {
        let height = |cap: u32| if cap == 0 { u32::MAX } else { cap };
        let (before, after) = (height(self.cap_kbps), height(cap_kbps));
        if before != after && self.is_lowered != (after < before) {
            self.is_lowered = after < before;
            self.turns += 1;
        }
        self.cap_kbps = cap_kbps;
    }
}

pub(super) struct Trial<'a> {
    gateway: Gateway,
    policy: PolicyName,
    plugin: &'a mut BoundPlugin,
    /// Scenarios whose sessions the policy decides about.
    scenarios: Vec<Arc<str>>,
    /// Labels of offers, in turns.
    labels: Vec<Labels>,
    media: Arc<MediaDescription>,
    sessions: Vec<SessionId>,
    /// What each session sends, and what it receives.
    rates: BTreeMap<SessionId, [RateTrend; 2]>,
    questions: RecentQuestions,
    calls: usize,
    /// The processor time of the thread at which the trial ends.
    until: Duration,
    now: Instant,
}

/// Lets other instances of the revision decide in a trial, and repeats its questions and the recorded ones.
pub(super) fn try_revision(
    plugin: &BoundPlugin,
    (policy, revision): (&PolicyName, &Revision),
    (copy, judging): (&GatewayCopy, Judging),
    mut questions: Vec<AskedQuestion>,
) -> Result<(), ProofFailure> {
    let mut instance = plugin.another()?;
    instance
        .catalog(catalog_of(copy.settings()))
        .map_err(|fault| PluginRefusal::Faulted { call: "catalog", fault })
        .map_err(|fault| ProofFailure::Trial { call: 0, fault })?;
    // Sessions and rooms of the same kinds as those of the recorded questions.
    let labels = questions.iter().flat_map(|(question, _)| labels(question));
    let labels = labels.take(LABELS_MAX).collect();
    match Trial::begin(&mut instance, copy, (policy, revision), judging, labels) {
        Ok(trial) => questions.extend(trial.play()?),
        // The gateway changed while it was copied.
        Err(error) => tracing::debug!(%policy, %error, "no trial of the revision"),
    }
    repeat(plugin, &questions, REPEATED_FOR)
}

/// The labels in a question.
fn labels(question: &PolicyQuestion) -> Vec<Labels> {
    match question {
        PolicyQuestion::Resolve { labels, .. }
        | PolicyQuestion::Admit { labels, .. }
        | PolicyQuestion::Place { labels, .. } => vec![Arc::clone(labels)],
        PolicyQuestion::Reroute { rooms, .. } => {
            rooms.iter().map(|room| Arc::clone(&room.labels)).collect()
        }
        PolicyQuestion::Tick { sessions, .. } => {
            sessions.iter().map(|session| Arc::clone(&session.labels)).collect()
        }
    }
}

impl<'a> Trial<'a> {
    /// Begins with the revision active, and a previous one that a breach would restore.
    ///
    /// # Errors
    /// If the copy is not consistent.
    pub(super) fn begin(
        plugin: &'a mut BoundPlugin,
        copy: &GatewayCopy,
        (policy, revision): (&PolicyName, &Revision),
        judging: Judging,
        mut labels: Vec<Labels>,
    ) -> Result<Trial<'a>, RestoreError> {
        let now = Instant::now();
        let mut gateway = copy.begin(policy, now)?;
        let at_once = Strategy {
            steps: Vec::new(),
            each: Duration::ZERO,
            shadow: Duration::ZERO,
            stays_in_shadow: false,
            held: false,
        };
        let rules = RolloutRules { strategy: at_once, keep: KEPT_FOR, judging };
        let clock = WallClock { instant: now, time: SystemTime::UNIX_EPOCH };
        gateway.handle_policy(policy, rules, clock);
        let before = Revision { name: "before".into(), ..revision.clone() };
        for revision in [before, revision.clone()] {
            gateway.change_policy(policy, now, |life| {
                let request = RolloutRequest {
                    push: life.next_push(),
                    by: Actor::Gateway,
                    arrived: now,
                    force: true,
                    replace: true,
                    strategy: None,
                    returns: false,
                };
                // The core accepts what is forced.
                let _ = life.handle_ready(&request, revision, None, (now, now));
            });
        }
        let of_set = copy.settings().scenarios.iter().filter(|(_, it)| it.set == policy.set);
        let scenarios = of_set.map(|(name, _)| Arc::clone(name)).collect();
        labels.push(Labels::default());
        Ok(Trial {
            gateway,
            policy: policy.clone(),
            plugin,
            scenarios,
            labels,
            media: Arc::new(video_call()),
            sessions: Vec::new(),
            rates: BTreeMap::new(),
            questions: RecentQuestions::default(),
            calls: 0,
            until: processor_time().saturating_add(PLAYED_FOR),
            now,
        })
    }

    /// Plays the trial to its end, and returns the last questions of each kind.
    ///
    /// # Errors
    /// The revision failed, more of its answers break a rule than the settings allow, or it keeps changing its mind.
    pub(super) fn play(mut self) -> Result<Vec<AskedQuestion>, ProofFailure> {
        for turn in 0..TURNS {
            if self.is_over() {
                break;
            }
            self.now += TURN;
            if turn < SESSIONS {
                self.offer(turn);
            }
            if turn.is_multiple_of(MEASURED_EVERY) {
                self.measure(turn);
            }
            if REVIEWED.contains(&turn) {
                self.gateway.handle_policy_changed(&self.policy, self.now);
            }
            self.settle()?;
            while self.gateway.poll_timeout().is_some_and(|next| next <= self.now) {
                if self.is_over() {
                    break;
                }
                self.gateway.handle_timeout(self.now);
                self.settle()?;
            }
        }
        Ok(self.questions.list())
    }

    fn is_over(&self) -> bool {
        self.calls >= CALLS_MAX || processor_time() >= self.until
    }

    fn offer(&mut self, turn: u32) {
        let room = turn as usize / 2;
        // A policy set without scenarios has no sessions.
        let Some(at) = room.checked_rem(self.scenarios.len()) else { return };
        let offer = Offer {
            id: OfferId(u64::from(turn)),
            scenario: Arc::clone(&self.scenarios[at]),
            room: format!("trial-{room}").into(),
            labels: Arc::clone(&self.labels[room % self.labels.len()]),
            ingress: IngressProtocol::Quic,
            media: Arc::clone(&self.media),
        };
        self.gateway.handle_offer(offer, self.now);
    }

    fn measure(&mut self, turn: u32) {
        for (at, session) in self.sessions.iter().enumerate() {
            let is_impaired = turn / WELL_FOR % 2 == 1 && at % 3 == 0;
            self.gateway.handle_summary(*session, measures(is_impaired), Some(self.now));
        }
    }

    fn settle(&mut self) -> Result<(), ProofFailure> {
        while let Some(output) = self.gateway.poll_output() {
            match output {
                GatewayEffect::Ask(ask) => self.answer(ask)?,
                GatewayEffect::Open { session, hop, .. } => {
                    self.gateway.handle_opened(session, hop, Ok(()), self.now);
                }
                GatewayEffect::Reply { result: Ok(accepted), .. } => {
                    self.sessions.push(accepted.session);
                }
                GatewayEffect::Plan { session, plan, .. } => {
                    let caps = [plan.cap_kbps(), plan.cap_down_kbps()];
                    let rates = self.rates.entry(session).or_default();
                    rates.iter_mut().zip(caps).for_each(|(rate, cap)| rate.note(cap));
                    let times = rates.iter().map(|rate| rate.turns).max().unwrap_or(0);
                    if times > TURNS_OF_RATE_MAX {
                        return Err(ProofFailure::Flaps { times, of: TURNS * TURN });
                    }
                }
                GatewayEffect::Event(CoreEvent::Breached { breach, .. }) => {
                    return Err(ProofFailure::Broke(breach));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, Ask { id, question, now_us, .. }: Ask) -> Result<(), ProofFailure> {
        self.calls += 1;
        let call = self.calls;
        let answered = ask(self.plugin, &question, now_us);
        let answered = answered.map_err(|fault| ProofFailure::Trial { call, fault })?;
        self.gateway.handle_answer(id, Ok(answered), self.now);
        self.questions.keep(question, now_us);
        Ok(())
    }
}

/// Voice and a camera that obeys caps.
fn video_call() -> MediaDescription {
    let stream = |kind, number, codec: &str, clock_rate| MediaStream {
        kind,
        payload_types: vec![PayloadType::new(number, codec, clock_rate)],
        feedback: FeedbackSupport { pli: true, remb: true, ..FeedbackSupport::default() },
        bitrate_kbps: None,
    };
    MediaDescription::new(
        vec![
            stream(StreamKind::Audio, 111, "opus", 48_000),
            stream(StreamKind::Video, 96, "VP8", 90_000),
        ],
        RtcpPort::Mux,
        Srtp::Plain,
    )
}

fn measures(is_impaired: bool) -> Measures {
    let mut measures = Measures::default();
    for (metric, well, impaired) in [
        (Metric::LossUp, 1_000, 120_000),
        (Metric::LossDown, 1_000, 80_000),
        (Metric::JitterUp, 3_000, 60_000),
        (Metric::JitterDown, 3_000, 60_000),
        (Metric::RttClient, 40_000, 400_000),
        (Metric::BitrateUp, 600, 300),
        (Metric::BitrateDown, 600, 300),
        (Metric::RFactor, 9_000, 5_500),
    ] {
        measures.set(metric, if is_impaired { impaired } else { well });
    }
    measures
}

#[cfg(test)]
mod tests;
