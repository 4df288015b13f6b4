//! The connection between an owner and its standby: frames over TLS 1.3 over TCP.
//!
//! Both ends dial, so that one direction is enough; one connection is kept. It runs on a thread of its own, because
//! encrypting many records delays beats.

mod frame;
mod handshakes;
mod hello;
mod queue;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::{GatewayConfig, GroupSettings, PeerSettings, SecretFile};
use evenkeel_process::descriptors;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

pub(crate) use self::frame::LinkFrame;
use self::frame::{FrameRead, QUIET};
use self::handshakes::Handshakes;
pub(crate) use self::hello::LinkedPeer;
use self::hello::{Hello, LinkRefusal, record_peer};
use self::queue::{FrameQueue, QueuedFrame};
pub(crate) use self::tls::LinkTls;
use super::refusals::RefusalLog;

/// The server name of handshakes; the key alone counts.
const NAME: &str = "evenkeel";

/// Time limit of a connection until both hellos are read.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(2);

/// Time limit of a TCP handshake. A repeated SYN (after 1 s; RFC 6298, 2.1) could succeed after the peer has connected,
/// and replace that connection.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
const _: () = assert!(CONNECT_WITHIN.as_millis() < 1_000);

/// First and longest interval of attempts to connect.
const DIAL_FIRST: Duration = Duration::from_millis(50);
const DIAL_MAX: Duration = Duration::from_secs(1);

/// Events that the member has not taken yet.
const EVENTS_MAX: usize = 16;

/// Interval of frames while nothing else is sent.
const IDLE_EVERY: Duration = Duration::from_millis(500);

const _: () = assert!(QUIET.as_millis() >= 3 * IDLE_EVERY.as_millis());

/// A connection between the APIs of both members. Both ends are authenticated.
pub type PeerStream = TlsStream<TcpStream>;

/// Connects to the API of the owner.
#[derive(Clone)]
pub struct PeerApi {
    cluster: GroupSettings,
    peer: watch::Receiver<LinkedPeer>,
    tls: watch::Receiver<LinkTls>,
}

impl PeerApi {
    pub(crate) fn new(
        cluster: &GroupSettings,
        peer: watch::Receiver<LinkedPeer>,
        tls: watch::Receiver<LinkTls>,
    ) -> PeerApi {
        PeerApi { cluster: cluster.clone(), peer, tls }
    }

    /// Opens a stream to the API of the gateway that this one follows.
    pub async fn connect(&self) -> io::Result<PeerStream> {
        let address = self.cluster.peers[self.peer.borrow().id.0].address;
        let tls = Arc::clone(&self.tls.borrow().api);
        let opened = open(self.cluster.listen, address, &tls);
        timeout(HANDSHAKE_WITHIN, opened).await?
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    events: mpsc::Receiver<LinkMessage>,
    /// The connection ends when its outbox is dropped.
    outbox: Option<FrameQueue>,
    /// The connected peer can announce the addresses before it owns them.
    peer_announces: bool,
    hello: watch::Sender<Hello>,
    cluster: GroupSettings,
    peer: watch::Sender<LinkedPeer>,
    tls: watch::Sender<LinkTls>,
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
        peer: watch::Sender<LinkedPeer>,
        tls: watch::Sender<LinkTls>,
    ) -> io::Result<Link> {
        let mut instance = [0; 8];
        SystemRandom::new().fill(&mut instance).map_err(|_| io::Error::other("no random bytes"))?;
        let peer_name = record_peer(cluster, *peer.borrow());
        let hello = Hello::of(settings, cluster, peer_name, u64::from_ne_bytes(instance));
        let (hello, own) = watch::channel(hello);
        let (messages, events) = mpsc::channel(EVENTS_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let cluster = cluster.clone();
        let local = LocalMember {
            cluster: cluster.clone(),
            peer: peer.subscribe(),
            tls: tls.subscribe(),
            hello: own,
            messages,
            streams,
            refusals,
        };
        std::thread::Builder::new()
            .name("evenkeel-link".to_owned())
            .spawn(move || runtime.block_on(serve(listener, local)))?;
        Ok(Link { events, outbox: None, peer_announces: false, hello, cluster, peer, tls })
    }

    pub(crate) fn peer(&self) -> LinkedPeer {
        *self.peer.borrow()
    }

    /// Connects to this member alone from now on. Returns true if it is another one.
    pub(crate) fn set_peer(&mut self, peer: LinkedPeer) -> bool {
        if *self.peer.borrow() == peer {
            return false;
        }
        self.hello.send_modify(|hello| hello.set_peer(record_peer(&self.cluster, peer)));
        self.peer.send_replace(peer);
        true
    }

    /// Tells the peer of changed nodes, scenarios and voters.
    pub(crate) fn apply(&self, settings: &GatewayConfig) {
        self.hello.send_modify(|hello| {
            let peer_name = record_peer(&self.cluster, *self.peer.borrow());
            let mut fresh = Hello::of(settings, &self.cluster, peer_name, hello.instance);
            fresh.keep_store_vote(hello);
            *hello = fresh;
        });
    }

    /// Connections to come have these secrets. The open one stays.
    pub(crate) fn replace_secrets(&self, secrets: &[SecretFile]) -> Result<(), rustls::Error> {
        self.tls.send_replace(LinkTls::of(secrets)?);
        Ok(())
    }

    /// False if there is no connection, or if the peer did not read and the connection ends.
    pub(crate) fn send(&mut self, frame: &LinkFrame) -> bool {
        let sent = self.outbox.as_ref().is_some_and(|outbox| outbox.send(frame));
        if !sent {
            self.restart();
        }
        sent
    }

    /// Has the peer announce the group's addresses before it owns them. False without a connection, or if its version cannot.
    pub(crate) fn ask_to_announce(&mut self) -> bool {
        self.peer_announces && self.outbox.is_some() && self.send(&LinkFrame::Announce)
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
            Some(LinkMessage::Connected { outbox, announces }) => {
                (self.outbox, self.peer_announces) = (Some(outbox), announces);
                LinkEvent::Connected
            }
            Some(LinkMessage::Event(event)) => {
                if let LinkEvent::Disconnected | LinkEvent::PeerChanged = event {
                    self.outbox = None;
                }
                event
            }
            // The thread has ended, which a panic alone can cause.
            None => std::future::pending().await,
        }
    }
}

/// Reports a connection that did not come about.
async fn note(local: &LocalMember, failed: &io::Error, other: SocketAddr) {
    let Some(refused) = refusal(failed) else {
        tracing::debug!(%other, error = %failed, "no connection to the peer");
        return;
    };
    if let LinkRefusal::NotStandby { .. } = refused {
        // One of both learns a moment later that the owner has another standby.
        tracing::debug!(%other, "connection of a group's gateway refused: {refused}");
        return;
    }
    if local.refusals.count(refused.reason()) {
        tracing::error!(%other, "connection of a group's gateway refused: {refused}");
    }
    // Other hosts may try.
    if local.is_member(other.ip()) {
        local.tell(LinkEvent::Refused(refused)).await;
    }
}

fn refusal(failed: &io::Error) -> Option<LinkRefusal> {
    let inner = failed.get_ref()?;
    let is_secret = inner.downcast_ref().is_some_and(tls::is_another_secret);
    if is_secret { Some(LinkRefusal::Secret) } else { inner.downcast_ref().cloned() }
}

struct KeptConnection {
    peer: String,
    instance: u64,
    dialed: bool,
    task: JoinHandle<io::Error>,
}

async fn serve(listener: StdListener, local: LocalMember) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let (opened_in, mut opened) = mpsc::channel(1);
    let (connected_in, connected) = watch::channel(false);
    let accepting = accept(listener, local.clone(), opened_in.clone());
    let dialing = dial(local.clone(), opened_in, connected);
    let keeping = keep(&local, &mut opened, &connected_in);
    // All connections end with the runtime.
    tokio::select! {
        () = local.messages.closed() => {}
        () = accepting => {}
        () = dialing => {}
        () = keeping => {}
    }
}

async fn keep(
    local: &LocalMember,
    opened: &mut mpsc::Receiver<LinkConnection>,
    connected: &watch::Sender<bool>,
) {
    let mut kept: Option<KeptConnection> = None;
    let mut peer = local.peer.clone();
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
                let peer = kept.take().map(|kept| kept.peer).unwrap_or_default();
                tracing::warn!(%peer, %reason, "disconnected from another gateway of the group");
                connected.send_replace(false);
                local.tell(LinkEvent::Disconnected).await;
            }
            Ok(()) = peer.changed() => {
                let name = record_peer(&local.cluster, *peer.borrow_and_update());
                if let Some(other) = kept.take_if(|kept| kept.peer != name) {
                    other.task.abort();
                    // Fails because it was aborted.
                    let _ = other.task.await;
                    connected.send_replace(false);
                    local.tell(LinkEvent::PeerChanged).await;
                }
            }
            fresh = opened.recv() => {
                let Some(fresh) = fresh else { return };
                if fresh.theirs.name != record_peer(&local.cluster, *local.peer.borrow()) {
                    continue;
                }
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
                let (instance, dialed) = (fresh.theirs.instance, fresh.dialed);
                let peer = fresh.theirs.name.clone();
                connected.send_replace(true);
                let task = tokio::spawn(fresh.run(local.clone()));
                kept = Some(KeptConnection { peer, instance, dialed, task });
            }
        }
    }
}

/// Both ends keep the same of two connections.
fn replaces(local: &LocalMember, fresh: &LinkConnection, kept: &KeptConnection) -> bool {
    // The peer was restarted, or has given up its earlier connection.
    if fresh.theirs.instance != kept.instance || fresh.dialed == kept.dialed {
        return true;
    }
    // Of two that crossed, that of the member with the greater name (like RFC 4271, 6.8).
    fresh.dialed == (*local.cluster.name > *fresh.theirs.name)
}

async fn accept(listener: TcpListener, local: LocalMember, opened: mpsc::Sender<LinkConnection>) {
    // Strangers must not use up the handshakes of the members' hosts: no connection of this member replaces that of its API.
    let [mut of_members, mut of_others] = [(); 2].map(|()| Handshakes::default());
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
        let turns = if local.is_member(other.ip()) { &mut of_members } else { &mut of_others };
        if !turns.make_room() {
            continue;
        }
        let (local, opened) = (local.clone(), opened.clone());
        turns.push(async move {
            let shaken = timeout(HANDSHAKE_WITHIN, shake_hands(stream, &local)).await;
            match shaken.unwrap_or_else(|late| Err(late.into())) {
                // Fails if the link was dropped.
                Ok(Some(connection)) => _ = opened.send(connection).await,
                Ok(None) => {}
                Err(failed) => note(&local, &failed, other).await,
            }
        });
    }
}

/// A connection that the peer opened. `None`: it goes to this member's API.
async fn shake_hands(stream: TcpStream, local: &LocalMember) -> io::Result<Option<LinkConnection>> {
    let stream = move_to_early(stream)?;
    let tls = Arc::clone(&local.tls.borrow().server);
    let accepting = TlsAcceptor::from(tls).accept(stream);
    let stream: TlsStream<TcpStream> = accepting.await?.into();
    if tls::asks_api(stream.get_ref().1) {
        // Fails if the API has ended; the peer connects again.
        let _ = local.streams.try_send(stream);
        return Ok(None);
    }
    greet(stream, false, local).await.map(Some)
}

/// If this process is killed, the peer learns it before the kernel closes descriptors that take long.
fn move_to_early(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    // Without a free number the peer learns it later.
    let early = descriptors::closed_early(&stream).map_or(stream, StdStream::from);
    TcpStream::from_std(early)
}

/// Connects to a member, never from an address of the group.
async fn open(
    mut from: SocketAddr,
    peer: SocketAddr,
    tls: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = match peer {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    from.set_port(0);
    socket.bind(from)?;
    let connecting = timeout(CONNECT_WITHIN, socket.connect(peer));
    let stream = move_to_early(connecting.await??)?;
    let name = ServerName::try_from(NAME).expect("a name of letters");
    Ok(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?.into())
}

async fn dial(
    local: LocalMember,
    opened: mpsc::Sender<LinkConnection>,
    mut connected: watch::Receiver<bool>,
) {
    let cluster = &local.cluster;
    let (mut wait, mut linked) = (DIAL_FIRST, local.peer.clone());
    loop {
        let since = Instant::now();
        if connected.wait_for(|connected| !connected).await.is_err() {
            return;
        }
        let Ok(id) = linked.wait_for(|peer| peer.has_records).await.map(|peer| peer.id) else {
            return;
        };
        let peer = &cluster.peers[id.0];
        let is_greater = cluster.name > peer.name;
        if since.elapsed() > DIAL_MAX {
            wait = DIAL_FIRST;
        }
        // Two that cross are rare if one member dials first.
        if !is_greater {
            tokio::time::sleep(DIAL_FIRST).await;
            if *connected.borrow() {
                continue;
            }
        }
        let tls = Arc::clone(&local.tls.borrow().client);
        let opening = open(cluster.listen, peer.address, &tls);
        let dialing = async { greet(opening.await?, true, &local).await };
        match timeout(HANDSHAKE_WITHIN, dialing).await.unwrap_or_else(|late| Err(late.into())) {
            Ok(connection) => {
                if opened.send(connection).await.is_err() {
                    return;
                }
            }
            Err(failed) => note(&local, &failed, peer.address).await,
        }
        // Another peer is dialed at once.
        let _ = timeout(wait, linked.changed()).await;
        wait = (wait * 2).min(DIAL_MAX);
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LinkEvent {
    /// Frames are sent and received until [`LinkEvent::Disconnected`].
    Connected,
    Disconnected,
    /// The connection was to another member.
    PeerChanged,
    /// The members are not connected for this reason.
    Refused(LinkRefusal),
    /// How node lists, scenarios and voters differ; `None` once they do not any more. The connection stays.
    Differs(Option<String>),
    Frame(LinkFrame),
}

/// An event on its way from the link's thread.
#[derive(Debug)]
enum LinkMessage {
    Connected { outbox: FrameQueue, announces: bool },
    Event(LinkEvent),
}

/// A member, as its connections know it.
#[derive(Clone)]
struct LocalMember {
    cluster: GroupSettings,
    peer: watch::Receiver<LinkedPeer>,
    tls: watch::Receiver<LinkTls>,
    hello: watch::Receiver<Hello>,
    messages: mpsc::Sender<LinkMessage>,
    /// Connections of the peer to this member's API.
    streams: mpsc::Sender<TlsStream<TcpStream>>,
    refusals: RefusalLog,
}

impl LocalMember {
    fn is_member(&self, ip: IpAddr) -> bool {
        let is_it = |peer: &PeerSettings| peer.address.ip().to_canonical() == ip.to_canonical();
        self.cluster.peers.iter().any(is_it)
    }

    async fn tell(&self, event: LinkEvent) {
        // Fails if the link was dropped, which ends the thread.
        let _ = self.messages.send(LinkMessage::Event(event)).await;
    }
}

/// An authenticated connection to the configured peer.
struct LinkConnection {
    stream: TlsStream<TcpStream>,
    /// This member opened it.
    dialed: bool,
    theirs: Hello,
}

/// Both ends send their hello first, then judge that of the other. Fails if the stream broke, or with a [`LinkRefusal`].
async fn greet(
    mut stream: TlsStream<TcpStream>,
    dialed: bool,
    local: &LocalMember,
) -> io::Result<LinkConnection> {
    let own = local.hello.borrow().clone();
    let written = frame::write(&mut stream, &own.encode()).await;
    // A peer that does not accept this member's key says so, and closes.
    let theirs = frame::read_hello(&mut stream).await?;
    written?;
    if let Err(refused) = own.check(&theirs) {
        // The peer reads this member's hello before the end.
        let _ = stream.shutdown().await;
        return Err(io::Error::other(refused));
    }
    Ok(LinkConnection { stream, dialed, theirs })
}

impl LinkConnection {
    /// Carries frames until the connection ends, and returns the reason.
    async fn run(self, local: LocalMember) -> io::Error {
        let LinkConnection { stream, theirs, .. } = self;
        let dropped = || io::Error::other("the link was dropped");
        let (outbox, queue) = FrameQueue::new();
        let (peer, version, announces) = (&theirs.name, &theirs.version, theirs.announces);
        tracing::info!(%peer, %version, "connected to another gateway of the group");
        if local.messages.send(LinkMessage::Connected { outbox, announces }).await.is_err() {
            return dropped();
        }
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (theirs_in, theirs) = watch::channel(theirs);
        let ended = tokio::select! {
            error = read_all(&mut reader, &theirs_in, &local) => error,
            error = write_all(&mut writer, queue, local.hello.clone()) => error,
            () = compare(local.clone(), theirs) => dropped(),
        };
        // The peer may not read any more.
        let _ = timeout(IDLE_EVERY, writer.shutdown()).await;
        ended
    }
}

async fn read_all(
    reader: &mut ReadHalf<TlsStream<TcpStream>>,
    theirs: &watch::Sender<Hello>,
    local: &LocalMember,
) -> io::Error {
    loop {
        match frame::read(reader).await {
            Ok(FrameRead::Idle) => {}
            Ok(FrameRead::Hello(hello)) => _ = theirs.send_replace(*hello),
            Ok(FrameRead::Frame(frame)) => local.tell(LinkEvent::Frame(frame)).await,
            Err(error) => return error,
        }
    }
}

async fn write_all(
    writer: &mut WriteHalf<TlsStream<TcpStream>>,
    mut queue: mpsc::UnboundedReceiver<QueuedFrame>,
    mut own: watch::Receiver<Hello>,
) -> io::Error {
    loop {
        let written = tokio::select! {
            queued = queue.recv() => match queued {
                Some(queued) => frame::write(writer, &queued.frame).await,
                None => return io::Error::other("this member ended the connection"),
            },
            Ok(()) = own.changed() => {
                let hello = own.borrow_and_update().encode();
                frame::write(writer, &hello).await
            }
            () = tokio::time::sleep(IDLE_EVERY) => frame::write(writer, &frame::idle()).await,
        };
        if let Err(error) = written {
            return error;
        }
    }
}

/// Reports how node lists, scenarios and voters differ, at first and after each change. Returns if the link was dropped.
async fn compare(local: LocalMember, mut theirs: watch::Receiver<Hello>) {
    let (mut own, mut reported) = (local.hello.clone(), None);
    loop {
        let differ = own.borrow_and_update().differences(&theirs.borrow_and_update());
        if differ != reported {
            if let Some(differ) = &differ {
                local.refusals.note_difference(differ);
            }
            local.tell(LinkEvent::Differs(differ.clone())).await;
            reported = differ;
        }
        tokio::select! {
            changed = own.changed() => if changed.is_err() { return },
            changed = theirs.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests;
