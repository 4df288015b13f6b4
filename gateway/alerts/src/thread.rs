//! The thread that evaluates rules, posts notices and advice, and checks dependencies. Nothing waits for it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::{AlertReceiver, DependencySettings, GatewayConfig, WebhookTarget};
use evenkeel_contract::alerts::{AlertList, Dependency};
use evenkeel_control::{ControlError, Handle};
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_http::{HttpClient, WebhookMessage};
use evenkeel_kept::{EarlierRead, Encoded};
use evenkeel_process::host;
use evenkeel_telemetry::registry::{Attribute, Count};
use evenkeel_telemetry::{Instruments, Moment, Prometheus};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::active::AcknowledgeError;
use super::advice::AdvicePoster;
use super::alerts::{AlertDelivery, Alerts};
use super::dependencies::{DependencyChecks, DependencyViews, down};
use super::post::post;

/// Interval of evaluations. Rules hold for 10 s or longer before they fire, or look at minutes.
const EVALUATED_EVERY: Duration = Duration::from_secs(5);

/// Requests of the API that may wait.
const REQUESTS_MAX: usize = 64;

/// A request to the thread.
pub enum AlertRequest {
    /// Alerts and receivers; `None` without a receiver.
    List(oneshot::Sender<Option<AlertList>>),
    /// Ends the escalation of the alerts of a name that fire.
    Acknowledge {
        /// Such as `EvenkeelNodeDown`.
        name: String,
        /// The header `from` of the request, unverified.
        by: Option<Arc<str>>,
        /// The outcome.
        reply: oneshot::Sender<Result<(), AcknowledgeError>>,
    },
    /// Replaces receivers and dependencies.
    Reload(Vec<AlertReceiver>, Vec<DependencySettings>),
}

/// Asks the thread.
#[derive(Clone)]
pub struct AlertHandle {
    requests: mpsc::Sender<AlertRequest>,
    advice: watch::Sender<Option<Arc<WebhookTarget>>>,
    dependencies: watch::Receiver<DependencyViews>,
}

impl AlertHandle {
    /// Alerts and receivers; `None` without a receiver, or if the thread has ended.
    pub async fn list(&self) -> Option<AlertList> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(AlertRequest::List(reply)).await.ok()?;
        answer.await.ok()?
    }

    /// Acknowledges all alerts of this name that fire now. Returns once that is on the disk.
    pub async fn acknowledge(
        &self,
        name: &str,
        by: Option<Arc<str>>,
    ) -> Result<(), AcknowledgeError> {
        let (reply, answer) = oneshot::channel();
        let request = AlertRequest::Acknowledge { name: name.to_owned(), by, reply };
        let silent = || AcknowledgeError::Silent(name.to_owned());
        self.requests.send(request).await.map_err(|_| silent())?;
        answer.await.unwrap_or_else(|_| Err(silent()))
    }

    /// Applies a saved configuration.
    pub async fn reload(&self, settings: &GatewayConfig) {
        self.set_advice(settings);
        let (alerts, dependencies) = (settings.alerts.clone(), settings.dependencies.clone());
        // The thread may have ended with the gateway.
        let _ = self.requests.send(AlertRequest::Reload(alerts, dependencies)).await;
    }

    /// Sets the webhook of advice.
    fn set_advice(&self, settings: &GatewayConfig) {
        self.advice.send_if_modified(|target| {
            let is_same = target.as_deref() == settings.advice.as_ref();
            if !is_same {
                *target = settings.advice.clone().map(Arc::new);
            }
            !is_same
        });
    }

    /// The last check of each dependency, by name.
    pub fn dependencies(&self) -> Vec<Dependency> {
        self.dependencies.borrow().values().cloned().collect()
    }

    /// Names of the dependencies that did not answer their last check. `None`: none was checked.
    pub fn dependencies_down(&self) -> Option<Vec<Arc<str>>> {
        let views = self.dependencies.borrow();
        (!views.is_empty()).then(|| down(&views))
    }
}

/// The channels of the thread before it starts.
pub struct AlertChannels {
    handle: AlertHandle,
    /// Requests to the thread.
    pub requests: mpsc::Receiver<AlertRequest>,
    views: watch::Sender<DependencyViews>,
}

impl Default for AlertChannels {
    fn default() -> AlertChannels {
        let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
        let (views, dependencies) = watch::channel(DependencyViews::new());
        AlertChannels {
            handle: AlertHandle {
                requests: requests_in,
                advice: watch::Sender::new(None),
                dependencies,
            },
            requests,
            views,
        }
    }
}

/// The running thread; it ends when dropped.
pub struct AlertThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AlertChannels {
    /// Asks the thread once it runs.
    pub fn handle(&self) -> AlertHandle {
        self.handle.clone()
    }

    /// Starts the thread. `control`: keeps the alerts for the next process. `group`: most alerts are sent by the owner of it alone.
    pub fn start(
        self,
        settings: &GatewayConfig,
        control: Handle,
        group: Option<Group>,
        metrics: Prometheus,
        instruments: Arc<Instruments>,
    ) -> io::Result<AlertThread> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let checks = DependencyChecks::new(self.views, Arc::clone(&instruments));
        self.handle.set_advice(settings);
        let advice = AdvicePoster {
            gateway: name(settings),
            targets: self.handle.advice.subscribe(),
            events: control.events.clone(),
            instruments: Arc::clone(&instruments),
            client: Arc::default(),
        };
        let mut sender = AlertSender {
            alerts: Alerts::new(&settings.alerts),
            control,
            earlier: EarlierRead::Nothing,
            acknowledged: Vec::new(),
            gateway: name(settings),
            is_owner: Box::new(move || {
                let owner = group.as_ref().map(Group::owner);
                owner.is_none_or(|owner| owner == GroupOwnership::Here)
            }),
            metrics,
            instruments,
            client: Arc::default(),
            posts: JoinSet::new(),
            checks,
        };
        let dependencies = settings.dependencies.clone();
        let requests = self.requests;
        let thread = std::thread::Builder::new().name("evenkeel-alerts".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(async {
                sender.checks.set(&dependencies);
                tokio::spawn(advice.run());
                tokio::select! {
                    _ = stopped => {}
                    // Another process has the alerts, or this one ends.
                    _ = sender.run(requests) => {}
                }
            });
            drop(sender);
            // Does not wait until the name of a server is resolved.
            runtime.shutdown_background();
        })?;
        Ok(AlertThread { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for AlertThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The panic was reported already.
            let _ = thread.join();
        }
    }
}

/// The name of the gateway in notices. The members of a group have one: an alert is the same after a takeover.
fn name(settings: &GatewayConfig) -> String {
    if let Some(group) = &settings.cluster {
        return group.members().join("/");
    }
    host::name()
}

/// Evaluates, posts and answers requests, on one thread.
struct AlertSender {
    alerts: Alerts,
    /// Has the alerts for the next process.
    control: Handle,
    /// The alerts of the process before this one.
    earlier: EarlierRead,
    /// Acknowledgements that are answered once they are on the disk.
    acknowledged: Vec<oneshot::Sender<Result<(), AcknowledgeError>>>,
    gateway: String,
    /// This gateway owns its group, or has none.
    is_owner: Box<dyn Fn() -> bool + Send>,
    metrics: Prometheus,
    instruments: Arc<Instruments>,
    client: Arc<HttpClient>,
    /// One for each receiver at most.
    posts: JoinSet<PostedNotice>,
    checks: DependencyChecks,
}

/// The outcome of a delivery.
struct PostedNotice {
    receiver: Arc<str>,
    answer: Result<(), String>,
}

impl AlertSender {
    /// Runs until control does not take the alerts any more.
    async fn run(
        &mut self,
        mut requests: mpsc::Receiver<AlertRequest>,
    ) -> Result<Infallible, ControlError> {
        let mut every = interval(EVALUATED_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => self.evaluate(),
                Some(request) = requests.recv() => self.execute(request),
                Some(posted) = self.posts.join_next() => {
                    if let Ok(posted) = posted {
                        self.note(&posted);
                    }
                }
            }
            self.send().await?;
        }
    }

    fn evaluate(&mut self) {
        if self.alerts.has_receivers() {
            let samples = self.metrics.samples(&self.alerts.metrics());
            self.alerts.evaluate(samples, Moment::now());
        }
    }

    /// Sends what is due. A standby knows the same alerts, and sends those about itself. Once it is the owner, it continues those of the
    /// owner before it, and sends the others, too.
    async fn send(&mut self) -> Result<(), ControlError> {
        let is_owner = (self.is_owner)();
        let owned = self.earlier == EarlierRead::WithoutDisk;
        if is_owner && self.earlier.is_due(&self.control.kept) {
            let record = self.control.kept_alerts().await?;
            let record =
                record.map_or_else(Default::default, |row| row.decode().unwrap_or_default());
            self.alerts.restore(&record, owned, Moment::now());
        }
        let due = self.alerts.deliveries(Instant::now(), is_owner);
        match is_owner {
            true => self.keep().await?,
            false => self.refuse_to_keep(),
        }
        self.post(due);
        Ok(())
    }

    /// Has control keep the alerts, before receivers get them: a gateway that is suspended sends none.
    async fn keep(&mut self) -> Result<(), ControlError> {
        let Some(record) = self.alerts.take_changed_record(Moment::now()) else { return Ok(()) };
        let written = self.control.keep_alerts(Encoded::new("", &record)).await?;
        let acknowledged = std::mem::take(&mut self.acknowledged);
        if !acknowledged.is_empty() {
            tokio::spawn(async move {
                let written = written.await.unwrap_or_else(|_| Err("no thread writes it".into()));
                let outcome = written.map_err(AcknowledgeError::NotWritten);
                for reply in acknowledged {
                    // The client may have stopped waiting.
                    let _ = reply.send(outcome.clone());
                }
            });
        }
        Ok(())
    }

    /// The record is that of the owner.
    fn refuse_to_keep(&mut self) {
        for reply in self.acknowledged.drain(..) {
            let reason = "this gateway does not own its group".into();
            // The client may have stopped waiting.
            let _ = reply.send(Err(AcknowledgeError::NotWritten(reason)));
        }
    }

    fn post(&mut self, due: Vec<AlertDelivery>) {
        let dependencies_down = self.checks.down();
        for delivery in due {
            let body = delivery.body(&self.gateway, &dependencies_down, SystemTime::now());
            let AlertDelivery { receiver, .. } = delivery;
            let client = Arc::clone(&self.client);
            let hook = Arc::new(receiver.target);
            let message = WebhookMessage { hook, body: body.into(), trace: None };
            self.posts.spawn(async move {
                let answer = post(&client, &message).await;
                PostedNotice { receiver: receiver.name, answer }
            });
        }
    }

    fn note(&mut self, posted: &PostedNotice) {
        let PostedNotice { receiver, answer } = posted;
        let outcome = if answer.is_ok() { "delivered" } else { "failed" };
        let labels = [(Attribute::Receiver, &**receiver), (Attribute::Outcome, outcome)];
        self.instruments.count(Count::AlertDeliveries, 1, &labels);
        let failures = self.alerts.handle_answer(receiver, answer.is_ok(), Instant::now());
        match (failures, answer) {
            // The counter has the number of failures.
            (Some((0, _)), Err(reason)) => {
                tracing::warn!(%receiver, reason, "receiver takes no alerts; they are sent again");
            }
            (Some((1.., 0)), Ok(())) => {
                tracing::info!(%receiver, "receiver takes alerts again");
            }
            _ => {}
        }
    }

    fn execute(&mut self, request: AlertRequest) {
        // Clients may stop waiting.
        match request {
            AlertRequest::List(reply) => {
                let view = self.alerts.has_receivers().then(|| self.alerts.view());
                let _ = reply.send(view);
            }
            AlertRequest::Acknowledge { name, by, reply } => {
                let acknowledged = match self.alerts.has_receivers() {
                    true => self.alerts.acknowledge(&name, by, Instant::now()),
                    false => Err(AcknowledgeError::NoReceiver),
                };
                match acknowledged {
                    Ok(()) => self.acknowledged.push(reply),
                    refused => _ = reply.send(refused),
                }
            }
            AlertRequest::Reload(receivers, dependencies) => {
                self.alerts.set_receivers(&receivers);
                self.checks.set(&dependencies);
            }
        }
    }
}

#[cfg(test)]
mod tests;
