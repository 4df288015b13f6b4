//! A revision on its way: prepared on a thread of its own, so that control goes on.

use std::sync::Arc;
use std::time::SystemTime;

use evenkeel_core::PolicyName;
use tokio::sync::oneshot;

use super::thread::Control;
use super::words::{Failed, Happened, Rollout, RolloutOutcome, Told};
use crate::policy::Source;

impl Control {
    /// Prepares a revision on a thread of its own; the reply comes when it is decided.
    pub(super) fn roll_out(
        &mut self,
        policy: &PolicyName,
        source: Source,
        reply: Option<oneshot::Sender<Result<Rollout, Failed>>>,
    ) {
        let Some(workshop) = self.policies.workshop(policy) else {
            if let Some(reply) = reply {
                let _ =
                    reply.send(Err(Failed::Policy(format!("there is no policy {policy}").into())));
            }
            return;
        };
        let events = self.events.clone();
        let spawned = std::thread::Builder::new().name("rollout".into()).spawn(move || {
            let rollout = crate::policy::prepare(&workshop, source);
            if rollout.outcome == RolloutOutcome::Refused {
                let told = Told {
                    at: SystemTime::now(),
                    event: Happened::Rollout(rollout.clone()),
                    totals: None,
                    caller: None,
                };
                let _ = events.send(Arc::new(told));
            }
            if let Some(reply) = reply {
                let _ = reply.send(Ok(rollout));
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, %policy, "no thread for a rollout");
        }
    }
}
