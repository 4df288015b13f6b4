//! Checks of the services that calls depend on. Each has a task of its own: one that hangs delays no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use evenkeel_config::{DependencySettings, DependencyTarget};
use evenkeel_contract::alerts::Dependency;
use evenkeel_http::HttpClient;
use evenkeel_process::unix_us;
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Level};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The last checks by name. One that was not checked yet is missing.
pub(crate) type DependencyViews = BTreeMap<Arc<str>, Dependency>;

/// Names of the dependencies that did not answer their last check.
pub(crate) fn down(views: &DependencyViews) -> Vec<Arc<str>> {
    views.values().filter(|it| !it.up).map(|it| Arc::clone(&it.dependency)).collect()
}

/// Runs the checks of all dependencies.
pub(crate) struct DependencyChecks {
    settings: Vec<DependencySettings>,
    report: DependencyReport,
    /// They end with this set.
    tasks: JoinSet<()>,
}

#[derive(Clone)]
struct DependencyReport {
    views: watch::Sender<DependencyViews>,
    instruments: Arc<Instruments>,
}

impl DependencyChecks {
    /// Without any check.
    pub(crate) fn new(
        views: watch::Sender<DependencyViews>,
        instruments: Arc<Instruments>,
    ) -> DependencyChecks {
        let report = DependencyReport { views, instruments };
        DependencyChecks { settings: Vec::new(), report, tasks: JoinSet::new() }
    }

    /// See [`down`].
    pub(crate) fn down(&self) -> Vec<Arc<str>> {
        down(&self.report.views.borrow())
    }

    /// Replaces the dependencies.
    pub(crate) fn set(&mut self, settings: &[DependencySettings]) {
        if self.settings == settings {
            return;
        }
        self.settings = settings.to_vec();
        self.tasks = JoinSet::new();
        self.report.keep(settings);
        let client = Arc::new(HttpClient::default());
        for dependency in settings {
            let (report, client) = (self.report.clone(), Arc::clone(&client));
            self.tasks.spawn(check_repeatedly(dependency.clone(), report, client));
        }
    }
}

async fn check_repeatedly(
    dependency: DependencySettings,
    report: DependencyReport,
    client: Arc<HttpClient>,
) {
    let mut every = interval(dependency.every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let checked = timeout(dependency.timeout, check(&dependency.target, &client)).await;
        let late = |_| Err(format!("no answer within {:?}", dependency.timeout));
        report.note(&dependency.name, checked.unwrap_or_else(late));
    }
}

/// Asks a dependency once; the error says why it counts as down.
async fn check(target: &DependencyTarget, client: &HttpClient) -> Result<(), String> {
    match target {
        DependencyTarget::Http { url, expect_status } => {
            let status = client.get_status(url).await.map_err(|error| error.to_string())?;
            match expect_status {
                Some(right) if status != *right => Err(format!("status {status}, not {right}")),
                None if status >= 500 => Err(format!("status {status}")),
                _ => Ok(()),
            }
        }
        DependencyTarget::Tcp { host, port } => {
            let connected = TcpStream::connect((&**host, *port)).await;
            connected.map(drop).map_err(|error| format!("no connection: {error}"))
        }
    }
}

impl DependencyReport {
    /// Forgets dependencies that are no longer configured. Their gauges stay, so they have to show no fault.
    fn keep(&self, settings: &[DependencySettings]) {
        self.views.send_modify(|views| {
            views.retain(|name, _| {
                let is_kept = settings.iter().any(|it| it.name == *name);
                if !is_kept {
                    self.level(name, true);
                }
                is_kept
            });
        });
    }

    fn note(&self, name: &Arc<str>, checked: Result<(), String>) {
        self.level(name, checked.is_ok());
        let (up, reason) = (checked.is_ok(), checked.err());
        let was_up = self.views.borrow().get(name).map(|view| view.up);
        match &reason {
            Some(reason) if was_up != Some(false) => {
                tracing::warn!(dependency = %name, reason, "dependency is down");
            }
            None if was_up == Some(false) => {
                tracing::info!(dependency = %name, "dependency is up again");
            }
            _ => {}
        }
        self.views.send_modify(|views| {
            let since_us = unix_us(SystemTime::now());
            let view = Dependency { dependency: Arc::clone(name), up, since_us, reason };
            match views.get_mut(name) {
                Some(before) if before.up == up => before.reason = view.reason,
                _ => _ = views.insert(Arc::clone(name), view),
            }
        });
    }

    fn level(&self, name: &str, up: bool) {
        let labels = [(Attribute::Dependency, name)];
        self.instruments.level(Level::DependencyUp, f64::from(u8::from(up)), &labels);
    }
}
