//! Advice to users, posted to the webhook of `[advice]`, in the order in which it was given: each at least once, as long as this process
//! lives and the queue has a place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_config::WebhookTarget;
use evenkeel_contract::events::AdviceChanged;
use evenkeel_contract::sessions::Advice;
use evenkeel_control::{EventRecord, GatewayEvent};
use evenkeel_http::{HttpClient, WebhookMessage};
use evenkeel_model::CoreEvent;
use evenkeel_process::unix_us;
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Count};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::outbox::retry_pause;
use super::post::post;

/// The version of the object that the webhook gets.
const VERSION: u32 = 1;

/// Advices in a request, which has about 100 KiB then. The others follow with the next one.
const ADVICES_PER_POST: usize = 500;

/// Advices that wait for a webhook that is down or slow, about 4 MiB. Beyond it the oldest are dropped: users have newer ones.
const WAITING_MAX: usize = 16_384;

/// Advices that the webhook has not taken yet.
#[derive(Default)]
struct AdviceQueue {
    /// The oldest first.
    waiting: VecDeque<AdviceChanged>,
    /// The number of them, from the oldest on, that are being posted.
    posting: usize,
    /// Failed posts since the last success.
    failures: u32,
    retry_at: Option<Instant>,
}

impl AdviceQueue {
    /// Adds advice. Returns false if the oldest that is not being posted was dropped for it.
    fn add(&mut self, advice: AdviceChanged) -> bool {
        self.waiting.push_back(advice);
        let has_place = self.waiting.len() <= WAITING_MAX;
        if !has_place {
            self.waiting.remove(self.posting);
        }
        has_place
    }

    /// The advices to post now, which [`AdviceQueue::handle_answer`] answers; none while others are being posted.
    fn next_post(&mut self, now: Instant) -> Option<Vec<&AdviceChanged>> {
        let is_paused = self.retry_at.is_some_and(|at| now < at);
        if self.posting > 0 || self.waiting.is_empty() || is_paused {
            return None;
        }
        self.retry_at = None;
        self.posting = self.waiting.len().min(ADVICES_PER_POST);
        Some(self.waiting.iter().take(self.posting).collect())
    }

    /// Returns the number of advices that were posted.
    fn handle_answer(&mut self, is_accepted: bool, now: Instant) -> usize {
        let posted = std::mem::take(&mut self.posting);
        if is_accepted {
            self.waiting.drain(..posted);
            self.failures = 0;
        } else {
            self.retry_at = Some(now + retry_pause(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
        posted
    }
}

/// Posts advice.
pub(crate) struct AdvicePoster {
    /// The name of this gateway, or of its group.
    pub(crate) gateway: String,
    /// The webhook; `None`: nothing is posted.
    pub(crate) targets: watch::Receiver<Option<Arc<WebhookTarget>>>,
    pub(crate) events: broadcast::Sender<Arc<EventRecord>>,
    pub(crate) instruments: Arc<Instruments>,
    pub(crate) client: Arc<HttpClient>,
}

impl AdvicePoster {
    /// Posts until no handle can set a webhook any more.
    pub(crate) async fn run(mut self) {
        while self.targets.wait_for(Option::is_some).await.is_ok() {
            let (mut events, mut queue) = (self.events.subscribe(), AdviceQueue::default());
            let mut posts = JoinSet::new();
            loop {
                let target = self.targets.borrow_and_update().clone();
                let Some(hook) = target else { break };
                if let Some(advices) = queue.next_post(Instant::now()) {
                    let body = body(&self.gateway, &advices).into();
                    let message = WebhookMessage { hook, body, trace: None };
                    let client = Arc::clone(&self.client);
                    posts.spawn(async move { post(&client, &message).await });
                }
                let retry_at = queue.retry_at.unwrap_or_else(Instant::now);
                tokio::select! {
                    changed = self.targets.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        (queue.failures, queue.retry_at) = (0, None);
                    }
                    event = events.recv() => match event {
                        Ok(record) => self.note_event(&record, &mut queue),
                        Err(RecvError::Lagged(missed)) => {
                            tracing::warn!(missed, "events missed; advice among them is not posted");
                        }
                        Err(RecvError::Closed) => return,
                    },
                    Some(posted) = posts.join_next() => {
                        let answer = posted.unwrap_or_else(|ended| Err(ended.to_string()));
                        self.note_answer(&answer, &mut queue);
                    }
                    () = sleep_until(retry_at.into()), if queue.retry_at.is_some() => {}
                }
            }
            self.count("dropped", queue.waiting.len());
        }
    }

    fn note_event(&self, record: &EventRecord, queue: &mut AdviceQueue) {
        let GatewayEvent::Core(CoreEvent::Advised { session, room_name, scenario, advice }) =
            &record.event
        else {
            return;
        };
        let cause = Some(advice.cause.name().into());
        let is_added = queue.add(AdviceChanged {
            at_us: unix_us(record.at),
            session: session.to_string(),
            room: Arc::clone(room_name),
            scenario: Arc::clone(scenario),
            advice: Advice { advice: advice.kind.name().into(), cause },
        });
        if !is_added {
            self.count("dropped", 1);
        }
    }

    fn note_answer(&self, answer: &Result<(), String>, queue: &mut AdviceQueue) {
        let before = queue.failures;
        let posted = queue.handle_answer(answer.is_ok(), Instant::now());
        self.count(if answer.is_ok() { "delivered" } else { "failed" }, posted);
        match answer {
            // The counter has the number of failures.
            Err(reason) if before == 0 => {
                tracing::warn!(reason, "webhook takes no advice; it is posted again");
            }
            Ok(()) if before > 0 => tracing::info!("webhook takes advice again"),
            _ => {}
        }
    }

    fn count(&self, outcome: &'static str, advices: usize) {
        let labels = [(Attribute::Outcome, outcome)];
        self.instruments.count(Count::AdviceDeliveries, advices as u64, &labels);
    }
}

fn body(gateway: &str, advices: &[&AdviceChanged]) -> Vec<u8> {
    let body = json!({"version": VERSION, "gateway": gateway, "advices": advices});
    body.to_string().into_bytes()
}

#[cfg(test)]
mod tests;
