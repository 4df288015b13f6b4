//! How a revision comes to answer: vetted, compiled, warmed, proved, activated. On a thread of its own, so that a
//! plugin that takes long to compile delays nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Entry, Fault, PolicyName};
use evenkeel_host as host;
use tokio::sync::oneshot;

use super::{Job, Ready, Standing};
use crate::control::{Rollout, RolloutOutcome};

/// A plugin's bytes and settings, and where they came from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) bytes: Vec<u8>,
    pub(crate) settings: serde_json::Value,
    /// `embedded`, a file, or `pushed`.
    pub(crate) origin: Box<str>,
    pub(crate) seed: u64,
}

/// What a rollout works with.
pub(crate) struct Workshop {
    pub(super) engine: host::Engine,
    pub(super) catalog: Vec<Entry>,
    pub(super) policy: PolicyName,
    pub(super) standing: Arc<Standing>,
    pub(super) jobs: crossbeam_channel::Sender<Job>,
}

/// Why a revision never answered.
#[derive(Debug)]
enum Unfit {
    /// The host did not take it.
    Refused(host::Refused),
    /// It failed at a question that the gateway was asked before.
    Disproved { questions: usize, fault: Fault },
    /// The policy's thread is gone.
    Gone,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::Refused(refused) => refused.fmt(f),
            Unfit::Disproved { questions, fault } => {
                let detail = match fault {
                    Fault::Trap(said) | Fault::Malformed(said) => format!(": {said}"),
                    Fault::Deadline | Fault::OutOfMemory | Fault::Late | Fault::Absent => {
                        String::new()
                    }
                };
                write!(
                    f,
                    "asked one of the {questions} questions answered last, it failed ({}){detail}",
                    fault.name()
                )
            }
            Unfit::Gone => f.write_str("the policy is not running"),
        }
    }
}

/// Takes a revision all the way, and says how it went. Blocks for as long as compiling takes.
pub(crate) fn prepare(workshop: &Workshop, source: Source) -> Rollout {
    let (reply, activated) = oneshot::channel();
    let outcome = prove(workshop, source).and_then(|(policy, origin)| {
        let ready = Ready { policy, origin, since: Instant::now(), reply: Some(reply) };
        workshop.jobs.send(Job::Activate(Box::new(ready))).map_err(|_| Unfit::Gone)?;
        activated.blocking_recv().map_err(|_| Unfit::Gone)
    });
    outcome.unwrap_or_else(|unfit| Rollout {
        policy: workshop.policy.clone(),
        outcome: RolloutOutcome::Refused,
        revision: None,
        previous: workshop.standing.revision(),
        reason: Some(unfit.to_string().into()),
        activate: Duration::ZERO,
    })
}

/// Vetted, compiled, warmed; then asked what was asked last.
fn prove(workshop: &Workshop, source: Source) -> Result<(host::Policy, Box<str>), Unfit> {
    let Workshop { engine, catalog, policy, standing, .. } = workshop;
    let component = host::Component::vet(engine, &source.bytes).map_err(Unfit::Refused)?;
    let mut revision = host::Policy::install(
        engine,
        &component,
        policy.hook,
        source.settings,
        catalog.clone(),
        source.seed,
    )
    .map_err(Unfit::Refused)?;
    let questions = standing.questions();
    for (question, now_us) in &questions {
        let disproved = |fault| Unfit::Disproved { questions: questions.len(), fault };
        revision.ask(question, *now_us).map_err(disproved)?;
    }
    Ok((revision, source.origin))
}
