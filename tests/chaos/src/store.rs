//! The store of the shared index: a NATS server on the host of the clients. It has low priority, because a store has a
//! host of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_testkit::nats::NatsServer;

use crate::hosts::CLIENTS;
use crate::layout::Layout;
use crate::process::Quiet;
use crate::stage::Stage;
use crate::tcp_link::TcpLink;

const PORT: u16 = 4_222;
/// The near end of the link to the store.
const LINK_PORT: u16 = 4_223;
pub(crate) const BUCKET: &str = "evenkeel";
/// Each look reads all entries and lists all sessions, which takes processor time from gateways.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// An index that is wrong for longer stays so.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(30);

pub(crate) struct Store {
    /// `None` while another thread works with it.
    server: Option<NatsServer>,
    /// `None` if the layout has none.
    link: Option<TcpLink>,
    /// From each return of the store until the index was correct.
    pub(crate) corrected_ns: Vec<u64>,
}

impl Store {
    pub(crate) fn address() -> SocketAddr {
        (CLIENTS, PORT).into()
    }

    /// The address in the configuration of gateways.
    pub(crate) fn seen_by_gateways(layout: &Layout) -> SocketAddr {
        let port = if layout.store_delay.is_some() { LINK_PORT } else { PORT };
        (CLIENTS, port).into()
    }

    pub(crate) fn start(layout: &Layout, folder: &Path) -> Result<Store, String> {
        let folder = folder.join("store");
        // Another row's.
        let _none = std::fs::remove_dir_all(&folder);
        let mut server = NatsServer::new(Store::address(), &folder)?;
        {
            let _quiet = Quiet::begin()?;
            server.start();
        }
        let near = Store::seen_by_gateways(layout);
        let link = layout.store_delay.map(|delay| TcpLink::start(near, Store::address(), delay));
        let link = link.transpose().map_err(|error| format!("a link to the store: {error}"))?;
        Ok(Store { server: Some(server), link, corrected_ns: Vec::new() })
    }

    /// Sets the one-way delay to the store.
    pub(crate) fn set_delay(&self, delay: Duration) -> Result<(), String> {
        let link = self.link.as_ref().ok_or("the row has no link to the store")?;
        link.set_delay(delay);
        Ok(())
    }

    /// True if gateways and store sent each other bytes since the delay was set.
    pub(crate) fn link_was_used(&self) -> bool {
        self.link.as_ref().is_some_and(TcpLink::was_used)
    }

    /// Works with the server on another thread, while clients talk.
    pub(crate) async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut NatsServer) -> T + Send + 'static,
    ) -> Result<T, String> {
        let mut server = self.server.take().ok_or("the store failed before")?;
        let working = tokio::task::spawn_blocking(move || {
            let _quiet = Quiet::begin()?;
            let done = work(&mut server);
            Ok((server, done))
        });
        let worked: Result<_, String> =
            working.await.map_err(|error| format!("the store: {error}"))?;
        let (server, done) = worked?;
        self.server = Some(server);
        Ok(done)
    }
}

impl Stage {
    pub(crate) fn store(&mut self) -> Result<&mut Store, String> {
        self.store.as_mut().ok_or_else(|| "the row has no store".to_owned())
    }

    /// Waits until the index lists the sessions of the gateway that serves, and names it.
    pub(crate) async fn await_index(&mut self) -> Result<(), String> {
        let back = Instant::now();
        let members: Vec<_> = self.layout.members(0).iter().map(|member| member.name).collect();
        let group = members.join("/");
        loop {
            let listed = self.admin().list("sessions").await;
            let listed = listed.map_err(self.request_error("listing sessions"))?;
            let ids: Vec<&str> = listed.iter().filter_map(|it| it["id"].as_str()).collect();
            let mut served: Vec<_> = ids.iter().map(|id| format!("{group}.session.{id}")).collect();
            served.sort();
            let pattern = format!("{group}.session.*");
            let keys = self.store()?.with(move |server| server.keys(BUCKET, &pattern)).await?;
            let wrong = if keys != served {
                format!("{} entries of {} sessions", keys.len(), served.len())
            } else {
                match self.misnamed(ids.first()).await {
                    None => break,
                    Some(wrong) => wrong,
                }
            };
            if back.elapsed() > GIVEN_UP_AFTER {
                return Err(format!("index wrong after {GIVEN_UP_AFTER:?}: {wrong}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.store()?.corrected_ns.push(back.elapsed().as_nanos() as u64);
        Ok(())
    }

    /// The answer of the index, unless it names the gateway that serves this session.
    async fn misnamed(&self, session: Option<&&str>) -> Option<String> {
        let path = format!("/v1/index/sessions/{}", session?);
        let found = match self.admin().read(&path).await {
            Ok(found) => found["sessions"][0]["gateway"].clone(),
            Err(error) => return Some(error.to_string()),
        };
        (found != self.gateway().name()).then(|| format!("served by {found}"))
    }
}
