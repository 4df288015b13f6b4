//! Records the events of a gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use evenkeel_process::lock;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use evenkeel_client::{ApiClient, ClientError, ServerEvent};
use evenkeel_contract::events::{Degraded, NodeHealth};

/// Interval of attempts to reach a gateway that ended.
const AGAIN_EVERY: Duration = Duration::from_millis(20);

/// Events of the watched gateways in order of arrival, shared with the watching task.
#[derive(Clone, Default)]
pub struct EventLog(Arc<Mutex<Vec<ServerEvent>>>);

/// Records events until it is dropped.
pub struct Watch {
    pub(crate) events: EventLog,
    listening: Vec<JoinHandle<()>>,
}

impl Watch {
    pub(crate) async fn begin(admin: &ApiClient) -> Result<Watch, ClientError> {
        let mut watch = Watch { events: EventLog::default(), listening: Vec::new() };
        watch.also(admin).await?;
        Ok(watch)
    }

    /// Records the events of another gateway as well.
    pub(crate) async fn also(&mut self, admin: &ApiClient) -> Result<(), ClientError> {
        let mut events = admin.events().await?;
        let (admin, heard) = (admin.another(), self.events.clone());
        self.listening.push(tokio::spawn(async move {
            loop {
                while let Ok(Some(event)) = events.next().await {
                    heard.all().push(event);
                }
                // The stream ends with the process; another one may replace it.
                events = loop {
                    match admin.events().await {
                        Ok(of_successor) => break of_successor,
                        Err(_) => sleep(AGAIN_EVERY).await,
                    }
                };
            }
        }));
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

impl EventLog {
    pub(crate) fn all(&self) -> MutexGuard<'_, Vec<ServerEvent>> {
        lock(&self.0)
    }

    pub(crate) fn take(&self) -> Vec<ServerEvent> {
        std::mem::take(&mut *self.all())
    }

    /// Waits until `wanted` holds for an event since `from_ns`. Returns false on timeout.
    pub async fn wait(
        &self,
        from_ns: u64,
        within: Duration,
        wanted: impl Fn(&ServerEvent) -> bool,
    ) -> bool {
        let until = Instant::now() + within;
        loop {
            if self.all().iter().any(|event| at_ns(event) >= from_ns && wanted(event)) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Degradations in force, counted by session and operation.
    pub(crate) fn standing_degradations(&self) -> usize {
        let mut last = BTreeMap::new();
        for it in self.all().iter().filter_map(ServerEvent::data_of::<Degraded>) {
            last.insert((it.session, it.op), it.arg);
        }
        last.values().filter(|&&arg| arg > 0).count()
    }

    /// Sessions to which this degradation was applied since `from_ns`.
    pub(crate) fn degraded(&self, op: &str, from_ns: u64) -> BTreeSet<String> {
        let all = self.all();
        let degraded = all.iter().filter_map(ServerEvent::data_of::<Degraded>);
        let is_applied = |it: &Degraded| it.at_us * 1_000 >= from_ns && it.op == op && it.arg > 0;
        degraded.filter(is_applied).map(|it| it.session).collect()
    }
}

/// The event's time: nanoseconds since the Unix epoch.
pub fn at_ns(event: &ServerEvent) -> u64 {
    event.at_us() * 1_000
}

/// Returns true if the event reports this health of the node.
pub(crate) fn is_node(event: &ServerEvent, node: &str, to: &str) -> bool {
    event.data_of().is_some_and(|change: NodeHealth| *change.node == *node && change.to == to)
}
