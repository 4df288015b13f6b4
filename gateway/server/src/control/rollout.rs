//! Revisions on their way: prepared one after the other on a thread of their own, so that control goes on.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use evenkeel_core::PolicyName;
use tokio::sync::{broadcast, oneshot};

use super::messages::{ControlError, EventRecord, GatewayEvent, Rollout, RolloutOutcome};
use super::node_list::Actor;
use super::thread::Control;
use super::walking::Wish;
use crate::policy::{self, Back, How, Source, Workshop};

/// Rollouts that may wait, each with the bytes of its plugin; past it whoever pushes is told that control is busy.
const ROLLOUTS_MAX: usize = 8;

pub(super) type Reply = oneshot::Sender<Result<Rollout, ControlError>>;

/// A revision that waits to be prepared.
pub(super) struct Rolling {
    workshop: Workshop,
    source: Source,
    reply: Reply,
}

/// Starts the thread that prepares revisions; it ends with control.
///
/// # Errors
/// Where the system gives no thread.
pub(super) fn start(
    events: broadcast::Sender<Arc<EventRecord>>,
) -> std::io::Result<Sender<Rolling>> {
    let (rollouts, waiting) = crossbeam_channel::bounded(ROLLOUTS_MAX);
    std::thread::Builder::new().name("rollout".into()).spawn(move || prepare(&waiting, &events))?;
    Ok(rollouts)
}

fn prepare(waiting: &Receiver<Rolling>, events: &broadcast::Sender<Arc<EventRecord>>) {
    for Rolling { workshop, source, reply } in waiting {
        let rollout = policy::prepare(&workshop, source);
        match rollout.outcome {
            RolloutOutcome::Refused | RolloutOutcome::Unchanged => {
                let event = GatewayEvent::Rollout(rollout.clone());
                let told = EventRecord { at: SystemTime::now(), event, totals: None, caller: None };
                let _ = events.send(Arc::new(told));
            }
            // Control tells of it, and asks the policy anew.
            RolloutOutcome::Activated
            | RolloutOutcome::RolledBack
            | RolloutOutcome::Started
            | RolloutOutcome::Advanced
            | RolloutOutcome::Paused
            | RolloutOutcome::Resumed
            | RolloutOutcome::Revoked => {}
        }
        let _ = reply.send(Ok(rollout));
    }
}

impl Control {
    /// Somebody pushes a plugin, to come into force as the push or its set says.
    pub(super) fn push(
        &mut self,
        (policy, bytes, settings): (PolicyName, Vec<u8>, Option<serde_json::Value>),
        wish: &Wish,
        reply: Reply,
        now: Instant,
    ) {
        let pace = wish.pace(self.paces.get(&policy.set));
        let how = How { force: wish.force, pace, ..How::at_once(Actor::Operator) };
        let (origin, seed) = ("pushed".into(), self.seed());
        let source = Source { bytes, settings, origin, seed, arrived: now, how };
        self.roll_out(&policy, source, reply);
    }

    /// Has a revision prepared; the reply comes when it is decided.
    pub(super) fn roll_out(&mut self, policy: &PolicyName, source: Source, reply: Reply) {
        // The later word would win over the first revision, and might come to nothing itself.
        if self.awaits_policies() {
            let _ = reply.send(Err(ControlError::Starting));
            return;
        }
        // Looked at first, since to ask for the workshop is a word already. Nobody else puts anything in.
        if self.rollouts.is_full() {
            let _ = reply.send(Err(ControlError::Unavailable));
            return;
        }
        let Some(workshop) = self.policies.workshop(policy) else {
            let _ = reply.send(Err(policy::unknown(policy)));
            return;
        };
        // It ends with control, and there is room.
        let _ = self.rollouts.try_send(Rolling { workshop, source, reply });
    }

    pub(super) fn roll_back(&mut self, policy: &PolicyName, back: Back, reply: Reply) {
        if self.awaits_policies() {
            let _ = reply.send(Err(ControlError::Starting));
            return;
        }
        let (done, rolled) = oneshot::channel();
        match self.policies.roll_back(policy, back, done) {
            Ok(()) => pass_on(rolled, reply),
            Err(failed) => _ = reply.send(Err(failed)),
        }
    }
}

/// What a policy's thread says goes to whoever asked.
pub(super) fn pass_on(rolled: oneshot::Receiver<Result<Rollout, &'static str>>, reply: Reply) {
    tokio::task::spawn_local(async move {
        let outcome = match rolled.await {
            Ok(outcome) => outcome.map_err(|reason| ControlError::Policy(reason.into())),
            Err(_) => Err(ControlError::Unavailable),
        };
        let _ = reply.send(outcome);
    });
}
