//! How a revision comes to answer: vetted, compiled, warmed, proved, activated. On a thread of its own, so that a
//! plugin that takes long to compile delays nobody.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{Entry, Fault, Pace, PolicyName};
use evenkeel_host as host;
use tokio::sync::oneshot;

use super::thread::Revision;
use super::{Foundry, Ledger, Order, Ready, Refusal, Rules, Standing};
use crate::control::{Actor, Quarantined, Rollout, RolloutOutcome};

/// A plugin's bytes and settings, and where they came from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) bytes: Vec<u8>,
    /// `None`: those of the revision that stands, or the defaults where that is of another plugin.
    pub(crate) settings: Option<serde_json::Value>,
    /// `embedded`, a file, or `pushed`.
    pub(crate) origin: Box<str>,
    pub(crate) seed: u64,
    /// When somebody asked for it.
    pub(crate) arrived: Instant,
    pub(crate) how: How,
}

/// How a revision is to come into force.
#[derive(Clone, Debug)]
pub(crate) struct How {
    /// Who wants it.
    pub(crate) by: Actor,
    /// It may come in though it was rolled back by itself before, or is older than what ran before.
    pub(crate) force: bool,
    /// By which steps; none: at once.
    pub(crate) pace: Option<Pace>,
    /// Whether it is taken back where it is the one that was in force before, at once and however old it is.
    pub(crate) returns: bool,
}

impl How {
    /// At once.
    pub(crate) fn at_once(by: Actor) -> How {
        How { by, force: false, pace: None, returns: false }
    }
}

/// What a rollout works with.
pub(crate) struct Workshop {
    pub(super) foundry: Foundry,
    pub(super) rules: Arc<Rules>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) catalog: Vec<Entry>,
    /// Changes of the catalog that are in it.
    pub(super) lessons: u64,
    pub(super) policy: PolicyName,
    pub(super) standing: Arc<Standing>,
    pub(super) orders: crossbeam_channel::Sender<Order>,
    /// Which word on this policy it is for; a later one wins.
    pub(super) word: u64,
}

impl Workshop {
    pub(crate) fn policy(&self) -> &PolicyName {
        &self.policy
    }
}

/// Why a revision never answered.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The host did not take it.
    Refused(host::Refused),
    /// It failed at a question that the gateway was asked before.
    Disproved { questions: usize, fault: Fault },
    /// It did harm before.
    Quarantined(Quarantined),
    /// A later push, rollback or reload of the same policy came before it was ready.
    Superseded,
    /// The policy's thread is gone.
    Gone,
}

impl Unfit {
    /// The word in metrics, events and the API's answers. It never changes.
    fn code(&self) -> &'static str {
        match self {
            Unfit::Refused(refused) => refused.code(),
            Unfit::Disproved { .. } => "proof-failed",
            Unfit::Quarantined(_) => "quarantined",
            Unfit::Superseded => "superseded",
            Unfit::Gone => "unavailable",
        }
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::Refused(refused) => refused.fmt(f),
            Unfit::Disproved { questions, fault } => {
                write!(
                    f,
                    "asked one of the {questions} questions kept of those answered, it failed ({fault})"
                )
            }
            Unfit::Quarantined(it) => write!(
                f,
                "revision {} is quarantined for {}: {}; `--force` tries it again",
                it.revision,
                it.since_text(),
                it.reason
            ),
            Unfit::Superseded => f.write_str("superseded by a later word on this policy"),
            Unfit::Gone => f.write_str("the policy is not running"),
        }
    }
}

/// Which revision of a policy it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entrance {
    /// The first since the gateway began: there is nothing to keep instead, so that it comes in whatever ran before.
    First,
    /// One of those that follow.
    Later,
}

/// Takes a revision all the way, and says how it went. Blocks for as long as compiling takes.
pub(crate) fn prepare(workshop: &Workshop, source: Source) -> Rollout {
    let (arrived, by, origin) = (source.arrived, source.how.by, source.origin.clone());
    let mut revision = None;
    take_in(workshop, source, Entrance::Later, &mut revision).unwrap_or_else(|unfit| {
        let (policy, code, reason) = (workshop.policy.clone(), unfit.code(), unfit.to_string());
        let at = SystemTime::now();
        let refusal = Refusal { at, policy, origin, code, reason: reason.clone().into() };
        workshop.ledger.refuse(refusal);
        Rollout {
            policy: workshop.policy.clone(),
            outcome: RolloutOutcome::Refused,
            stage: None,
            by,
            revision,
            previous: workshop.standing.revision(),
            code: Some(code),
            reason: Some(reason.into()),
            arrived,
            activate: Duration::ZERO,
        }
    })
}

/// Takes the first revision of a policy all the way. That the policy was ended meanwhile is no failure of the revision's;
/// nobody else has a word on it until it is in force.
///
/// # Errors
/// Why it does not run.
pub(crate) fn begin(workshop: &Workshop, source: Source) -> Result<(), Box<str>> {
    match take_in(workshop, source, Entrance::First, &mut None) {
        Ok(_) | Err(Unfit::Superseded | Unfit::Gone) => Ok(()),
        Err(unfit) => Err(unfit.to_string().into()),
    }
}

/// `revision` is its name as soon as it has one.
fn take_in(
    workshop: &Workshop,
    source: Source,
    entrance: Entrance,
    revision: &mut Option<Arc<str>>,
) -> Result<Rollout, Unfit> {
    let Workshop { foundry, rules, catalog, policy, standing, orders, word, .. } = workshop;
    if !standing.is_last(*word) {
        return Err(Unfit::Superseded);
    }
    let vouched = rules.judge(policy, &source.bytes).map_err(Unfit::Refused)?;
    let seal = host::Seal::of(&source.bytes).map_err(Unfit::Refused)?;
    let component = foundry.vet(&source.bytes).map_err(Unfit::Refused)?;
    let manifest = component.manifest();
    let settings = source.settings.unwrap_or_else(|| standing.settings_for(&manifest.name));
    let (engine, hook, given) = (foundry.engine(), policy.hook, settings.clone());
    let (catalog, seed, allowed) = (catalog.clone(), source.seed, rules.grant(policy));
    let made =
        host::Policy::install_within(engine, &component, hook, given, catalog, seed, &allowed);
    let mut made = made.map_err(Unfit::Refused)?;
    *revision = Some(made.revision().into());
    let returns = source.how.returns && standing.previous().as_deref() == Some(made.revision());
    if entrance == Entrance::Later {
        if !(source.how.force || returns) {
            standing.is_new_enough(manifest).map_err(Unfit::Refused)?;
        }
        let harm = standing.quarantined(made.revision()).filter(|_| !source.how.force);
        harm.map_or(Ok(()), |harm| Err(Unfit::Quarantined(harm)))?;
    }
    prove(&mut made, standing)?;
    let (reply, activated) = oneshot::channel();
    let ready = Ready {
        revision: Revision {
            policy: made,
            seal,
            origin: source.origin,
            settings,
            lessons: workshop.lessons,
        },
        by: source.how.by,
        arrived: source.arrived,
        since: Instant::now(),
        word: *word,
        force: source.how.force,
        reply,
    };
    let order = match source.how.pace.filter(|_| !returns) {
        Some(pace) => Order::Try(Box::new(ready), pace),
        None => Order::Activate(Box::new(ready)),
    };
    orders.send(order).map_err(|_| Unfit::Gone)?;
    let rollout = activated.blocking_recv().map_err(|_| Unfit::Gone)??;
    if let Some(gone) = rollout.previous.as_deref().filter(|_| returns) {
        standing.take_back(gone);
    }
    tracing::debug!(%policy, ?vouched, "a plugin that somebody vouches for, or nobody, answers");
    Ok(rollout)
}

/// It is asked what its predecessors answered last, some of each kind.
fn prove(revision: &mut host::Policy, standing: &Standing) -> Result<(), Unfit> {
    let questions = standing.questions();
    for (question, now_us) in &questions {
        let disproved = |fault| Unfit::Disproved { questions: questions.len(), fault };
        revision.ask_of_all(question, *now_us, Duration::MAX).map_err(disproved)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
