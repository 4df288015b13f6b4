//! The connection between the members: frames over TLS 1.3 over TCP.
//!
//! Both members dial, so that one direction is enough; one connection is kept. It runs on a thread of its own, because
//! encrypting many records delays beats.

mod connection;
mod frame;
mod hello;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::{GatewayConfig, GroupSettings};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use self::connection::{AcceptedConnection, ConnectError, FrameQueue, LinkConnection};
pub(crate) use self::frame::LinkFrame;
use self::hello::Hello;
use self::tls::LinkTls;
use super::refusals::RefusalLog;

/// Handshakes of others at a time: each takes processor time before its sender is known.
const HANDSHAKES_MAX: usize = 8;

/// Time limit of a connection until both hellos are read.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(2);

/// First and longest interval of attempts to connect.
const DIAL_FIRST: Duration = Duration::from_millis(50);
const DIAL_MAX: Duration = Duration::from_secs(1);

/// Events that the member has not taken yet.
const EVENTS_MAX: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LinkEvent {
    /// Frames are sent and received until [`LinkEvent::Disconnected`].
    Connected,
    Disconnected,
    /// The members are not connected for this reason.
    Refused(LinkRefusal),
    /// How the node lists differ; `None` once they do not any more. The connection stays.
    NodesDiffer(Option<String>),
    Frame(LinkFrame),
}

/// The reason why two members do not connect. Both ends find it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LinkRefusal {
    #[error("the two ends have different secrets: both members need the same `secret_file`")]
    Secret,
    #[error("`{peer}` has version {there} of the connection, this gateway has version {here}")]
    Protocol { peer: String, here: u32, there: u32 },
    #[error("both members have the `name` `{name}`: each needs a name of its own")]
    SameName { name: String },
    #[error("the member `{found}` connected, the configured peer is `{expected}`")]
    UnknownPeer { found: String, expected: String },
    #[error("`{peer}` is configured with the peer `{found}`, and this member is `{here}`")]
    UnknownHere { peer: String, found: String, here: String },
    #[error("{part} differs from that of `{peer}`: {difference}")]
    Differs { peer: String, part: &'static str, difference: String },
}

impl LinkRefusal {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            LinkRefusal::Secret => "secret",
            LinkRefusal::Protocol { .. } => "version",
            LinkRefusal::SameName { .. } => "same-name",
            LinkRefusal::UnknownPeer { .. } | LinkRefusal::UnknownHere { .. } => "unknown-peer",
            LinkRefusal::Differs { .. } => "configuration",
        }
    }
}

/// An event on its way from the link's thread.
#[derive(Debug)]
enum Told {
    Connected(FrameQueue),
    Event(LinkEvent),
}

/// A connection between the APIs of both members. Both ends are authenticated.
pub type PeerStream = TlsStream<TcpStream>;

/// Connects to the peer's API.
pub struct PeerApi {
    cluster: GroupSettings,
    tls: Arc<ClientConfig>,
}

impl PeerApi {
    pub(crate) fn new(cluster: &GroupSettings) -> io::Result<PeerApi> {
        let LinkTls { api: tls, .. } = LinkTls::of(&cluster.secrets).map_err(io::Error::other)?;
        Ok(PeerApi { cluster: cluster.clone(), tls })
    }

    /// Opens a stream to the peer's API through the link.
    pub async fn connect(&self) -> io::Result<PeerStream> {
        let opened = connection::open(&self.cluster, &self.tls);
        tokio::time::timeout(HANDSHAKE_WITHIN, opened).await?
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    events: mpsc::Receiver<Told>,
    /// The connection ends when its outbox is dropped.
    outbox: Option<FrameQueue>,
    hello: watch::Sender<Hello>,
    cluster: GroupSettings,
}

impl Link {
    /// Opens the listening socket. Needs no event loop.
    pub(crate) fn bind(cluster: &GroupSettings) -> io::Result<StdListener> {
        let listener = StdListener::bind(cluster.listen)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    pub(crate) fn start(
        listener: StdListener,
        settings: &GatewayConfig,
        cluster: &GroupSettings,
        refusals: RefusalLog,
        streams: mpsc::Sender<PeerStream>,
    ) -> io::Result<Link> {
        let tls = LinkTls::of(&cluster.secrets).map_err(io::Error::other)?;
        let mut instance = [0; 8];
        SystemRandom::new().fill(&mut instance).map_err(|_| io::Error::other("no random bytes"))?;
        let hello = Hello::of(settings, cluster, u64::from_ne_bytes(instance));
        let (hello, own) = watch::channel(hello);
        let (told, events) = mpsc::channel(EVENTS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = Local { cluster: cluster.clone(), tls, hello: own, told, streams, refusals };
        std::thread::Builder::new()
            .name("evenkeel-link".to_owned())
            .spawn(move || runtime.block_on(serve(listener, local)))?;
        Ok(Link { events, outbox: None, hello, cluster: cluster.clone() })
    }

    /// Changed nodes are told to the peer.
    pub(crate) fn apply(&self, settings: &GatewayConfig) {
        self.hello.send_modify(|hello| {
            *hello = Hello::of(settings, &self.cluster, hello.instance);
        });
    }

    /// False if there is no connection, or if the peer did not read and the connection ends.
    pub(crate) fn send(&mut self, frame: &LinkFrame) -> bool {
        let sent = self.outbox.as_ref().is_some_and(|outbox| outbox.send(frame));
        if !sent {
            self.restart();
        }
        sent
    }

    /// True if there is a connection with room for the longest frame.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.as_ref().is_some_and(FrameQueue::has_room)
    }

    /// Ends the connection; the next one follows.
    pub(crate) fn restart(&mut self) {
        self.outbox = None;
    }

    /// May be cancelled without a loss.
    pub(crate) async fn recv(&mut self) -> LinkEvent {
        match self.events.recv().await {
            Some(Told::Connected(outbox)) => {
                self.outbox = Some(outbox);
                LinkEvent::Connected
            }
            Some(Told::Event(event)) => {
                if event == LinkEvent::Disconnected {
                    self.outbox = None;
                }
                event
            }
            // The thread has ended, which a panic alone can cause.
            None => std::future::pending().await,
        }
    }
}

/// A member, as its connections know it.
#[derive(Clone)]
struct Local {
    cluster: GroupSettings,
    tls: LinkTls,
    hello: watch::Receiver<Hello>,
    told: mpsc::Sender<Told>,
    streams: mpsc::Sender<PeerStream>,
    refusals: RefusalLog,
}

impl Local {
    async fn tell(&self, event: LinkEvent) {
        // Fails if the link was dropped, which ends the thread.
        let _ = self.told.send(Told::Event(event)).await;
    }

    fn is_greater(&self) -> bool {
        self.cluster.name > self.cluster.peer.name
    }

    async fn note(&self, failed: ConnectError, other: SocketAddr) {
        match failed {
            ConnectError::Refused(refused) => {
                if self.refusals.count(refused.reason()) {
                    tracing::error!(%other, "connection of a group's gateway refused: {refused}");
                }
                // Other hosts may try.
                if other.ip() == self.cluster.peer.address.ip() {
                    self.tell(LinkEvent::Refused(refused)).await;
                }
            }
            ConnectError::Broken(error) => {
                tracing::debug!(%other, %error, "no connection to the peer");
            }
        }
    }
}

/// The connection that is kept.
struct KeptConnection {
    instance: u64,
    dialed: bool,
    task: JoinHandle<io::Error>,
}

async fn serve(listener: StdListener, local: Local) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let (opened_in, mut opened) = mpsc::channel(1);
    let (connected_in, connected) = watch::channel(false);
    let accepting = accept(listener, local.clone(), opened_in.clone());
    let dialing = dial(local.clone(), opened_in, connected);
    let keeping = keep(&local, &mut opened, &connected_in);
    // All connections end with the runtime.
    tokio::select! {
        () = local.told.closed() => {}
        () = accepting => {}
        () = dialing => {}
        () = keeping => {}
    }
}

async fn keep(
    local: &Local,
    opened: &mut mpsc::Receiver<LinkConnection>,
    connected: &watch::Sender<bool>,
) {
    let mut kept: Option<KeptConnection> = None;
    loop {
        let ended = async {
            match &mut kept {
                Some(kept) => (&mut kept.task).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = ended => {
                let reason = match ended {
                    Ok(error) => error.to_string(),
                    Err(panicked) => panicked.to_string(),
                };
                tracing::warn!(peer = %local.cluster.peer.name, %reason, "disconnected from the group's other gateway");
                kept = None;
                connected.send_replace(false);
                local.tell(LinkEvent::Disconnected).await;
            }
            fresh = opened.recv() => {
                let Some(fresh) = fresh else { return };
                if let Some(old) = kept.take() {
                    if !replaces(local, &fresh, &old) {
                        kept = Some(old);
                        continue;
                    }
                    old.task.abort();
                    // Fails because it was aborted.
                    let _ = old.task.await;
                    local.tell(LinkEvent::Disconnected).await;
                }
                let (instance, dialed) = (fresh.instance(), fresh.dialed);
                connected.send_replace(true);
                let task = tokio::spawn(fresh.run(local.clone()));
                kept = Some(KeptConnection { instance, dialed, task });
            }
        }
    }
}

/// Both ends keep the same of two connections.
fn replaces(local: &Local, fresh: &LinkConnection, kept: &KeptConnection) -> bool {
    // The peer was restarted, or has given up its earlier connection.
    if fresh.instance() != kept.instance || fresh.dialed == kept.dialed {
        return true;
    }
    // Of two that crossed, that of the member with the greater name (like RFC 4271, 6.8).
    fresh.dialed == local.is_greater()
}

async fn accept(listener: TcpListener, local: Local, opened: mpsc::Sender<LinkConnection>) {
    // Strangers must not use up the handshakes of the peer's host: no connection of this member replaces that of its API.
    let [of_peer, of_others] = [(); 2].map(|()| Arc::new(Semaphore::new(HANDSHAKES_MAX)));
    let peer = local.cluster.peer.address.ip().to_canonical();
    loop {
        let (stream, other) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // No descriptor is left, or the connection ended early.
                tracing::debug!(%error, "cannot accept a connection of the peer");
                tokio::time::sleep(DIAL_FIRST).await;
                continue;
            }
        };
        // Beyond the limit the connection is closed; the peer dials again, and this member dials too.
        let turns = if other.ip().to_canonical() == peer { &of_peer } else { &of_others };
        let Ok(turn) = Arc::clone(turns).try_acquire_owned() else { continue };
        let (local, opened) = (local.clone(), opened.clone());
        tokio::spawn(async move {
            let _turn = turn;
            match in_time(connection::accept(stream, &local)).await {
                // Fails if the link was dropped.
                Ok(AcceptedConnection::Link(connection)) => _ = opened.send(connection).await,
                // Fails if the API has ended; the peer connects again.
                Ok(AcceptedConnection::Api(stream)) => _ = local.streams.try_send(stream),
                Err(failed) => local.note(failed, other).await,
            }
        });
    }
}

async fn dial(
    local: Local,
    opened: mpsc::Sender<LinkConnection>,
    mut connected: watch::Receiver<bool>,
) {
    let peer = local.cluster.peer.address;
    let mut wait = DIAL_FIRST;
    loop {
        let since = Instant::now();
        if connected.wait_for(|connected| !connected).await.is_err() {
            return;
        }
        if since.elapsed() > DIAL_MAX {
            wait = DIAL_FIRST;
        }
        // Two that cross are rare if one member dials first.
        if !local.is_greater() {
            tokio::time::sleep(DIAL_FIRST).await;
            if *connected.borrow() {
                continue;
            }
        }
        match in_time(connection::dial(&local)).await {
            Ok(connection) => {
                if opened.send(connection).await.is_err() {
                    return;
                }
            }
            Err(failed) => local.note(failed, peer).await,
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(DIAL_MAX);
    }
}

async fn in_time<T>(
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let late = || ConnectError::Broken(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(HANDSHAKE_WITHIN, work).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests;
