//! One connection, from its handshake to its end.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::GroupSettings;
use evenkeel_process::descriptors;
use rustls::ClientConfig;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::frame::{self, FRAME_MAX, FrameRead, LinkFrame, QUIET};
use super::hello::Hello;
use super::tls::{self, LinkTls};
use super::{LinkEvent, LinkRefusal, Local, Told};

/// Frames that wait for the peer to read, in KiB: two of the longest.
const QUEUE_MAX_KIB: usize = 2 * FRAME_MAX / 1_024;

/// Interval of frames while nothing else is sent.
const IDLE_EVERY: Duration = Duration::from_millis(500);

/// Time limit of a TCP handshake. A repeated SYN (after 1 s; RFC 6298, 2.1) could succeed after the peer has connected,
/// and replace that connection.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

const _: () = assert!(CONNECT_WITHIN.as_millis() < 1_000);

const _: () = assert!(QUIET.as_millis() >= 3 * IDLE_EVERY.as_millis());

#[derive(Debug)]
pub(super) enum ConnectError {
    Refused(LinkRefusal),
    Broken(io::Error),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> ConnectError {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner.is_some_and(tls::is_another_secret) {
            true => ConnectError::Refused(LinkRefusal::Secret),
            false => ConnectError::Broken(error),
        }
    }
}

#[derive(Debug)]
struct QueuedFrame {
    frame: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// Frames to the peer. The connection ends when it is dropped.
#[derive(Debug)]
pub(super) struct FrameQueue {
    frames: mpsc::UnboundedSender<QueuedFrame>,
    room: Arc<Semaphore>,
}

impl FrameQueue {
    /// False if the peer does not read, or has disconnected.
    pub(super) fn send(&self, frame: &LinkFrame) -> bool {
        let Some(frame) = frame.encode() else { return false };
        let kib = frame.len().div_ceil(1_024) as u32;
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib);
        room.is_ok_and(|room| self.frames.send(QueuedFrame { frame, _room: room }).is_ok())
    }

    pub(super) fn has_room(&self) -> bool {
        self.room.available_permits() > QUEUE_MAX_KIB / 2
    }
}

/// An authenticated connection to the configured peer.
pub(super) struct LinkConnection {
    stream: TlsStream<TcpStream>,
    /// This member opened it.
    pub(super) dialed: bool,
    theirs: Hello,
}

/// An authenticated connection that the peer opened.
pub(super) enum AcceptedConnection {
    Link(LinkConnection),
    Api(TlsStream<TcpStream>),
}

pub(super) async fn accept(
    stream: TcpStream,
    local: &Local,
) -> Result<AcceptedConnection, ConnectError> {
    let stream = move_to_early(stream)?;
    stream.set_nodelay(true)?;
    let accepting = TlsAcceptor::from(Arc::clone(&local.tls.server)).accept(stream);
    let stream: TlsStream<TcpStream> = accepting.await?.into();
    match tls::asks_api(stream.get_ref().1) {
        true => Ok(AcceptedConnection::Api(stream)),
        false => greet(stream, false, local).await.map(AcceptedConnection::Link),
    }
}

pub(super) async fn dial(local: &Local) -> Result<LinkConnection, ConnectError> {
    let stream = open(&local.cluster, &local.tls.client).await?;
    greet(stream, true, local).await
}

/// If this process is killed, the peer learns it before the kernel closes descriptors that take long.
fn move_to_early(stream: TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    // Without a free number the peer learns it later.
    let early = descriptors::closed_early(&stream).map_or(stream, StdStream::from);
    TcpStream::from_std(early)
}

/// Connects to the peer, never from an address of the group.
pub(super) async fn open(
    cluster: &GroupSettings,
    tls: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let peer = cluster.peer.address;
    let socket = match peer {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    let mut from = cluster.listen;
    from.set_port(0);
    socket.bind(from)?;
    let connecting = tokio::time::timeout(CONNECT_WITHIN, socket.connect(peer));
    let stream = move_to_early(connecting.await??)?;
    stream.set_nodelay(true)?;
    Ok(TlsConnector::from(Arc::clone(tls)).connect(LinkTls::name(), stream).await?.into())
}

/// Both ends send their hello first, then judge that of the other.
async fn greet(
    mut stream: TlsStream<TcpStream>,
    dialed: bool,
    local: &Local,
) -> Result<LinkConnection, ConnectError> {
    let own = local.hello.borrow().clone();
    let written = frame::write(&mut stream, &own.encode()).await;
    // A peer that does not accept this member's key says so, and closes.
    let theirs = frame::read_hello(&mut stream).await?;
    written?;
    if let Err(refused) = own.check(&theirs) {
        // The peer reads this member's hello before the end.
        let _ = stream.shutdown().await;
        return Err(ConnectError::Refused(refused));
    }
    Ok(LinkConnection { stream, dialed, theirs })
}

impl LinkConnection {
    pub(super) fn instance(&self) -> u64 {
        self.theirs.instance
    }

    /// Carries frames until the connection ends, and returns the reason.
    pub(super) async fn run(self, local: Local) -> io::Error {
        let LinkConnection { stream, theirs, .. } = self;
        let dropped = || io::Error::other("the link was dropped");
        let (frames, queue) = mpsc::unbounded_channel();
        let outbox = FrameQueue { frames, room: Arc::new(Semaphore::new(QUEUE_MAX_KIB)) };
        let (peer, version) = (&theirs.name, &theirs.version);
        tracing::info!(%peer, %version, "connected to the group's other gateway");
        if local.told.send(Told::Connected(outbox)).await.is_err() {
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
        let _ = tokio::time::timeout(IDLE_EVERY, writer.shutdown()).await;
        ended
    }
}

async fn read_all(
    reader: &mut ReadHalf<TlsStream<TcpStream>>,
    theirs: &watch::Sender<Hello>,
    local: &Local,
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

/// Reports how the node lists differ, at first and after each change. Returns if the link was dropped.
async fn compare(local: Local, mut theirs: watch::Receiver<Hello>) {
    let (mut own, mut reported) = (local.hello.clone(), None);
    loop {
        let differ = own.borrow_and_update().nodes_differ(&theirs.borrow_and_update());
        if differ != reported {
            if let Some(differ) = &differ {
                local.refusals.note_nodes(differ);
            }
            local.tell(LinkEvent::NodesDiffer(differ.clone())).await;
            reported = differ;
        }
        tokio::select! {
            changed = own.changed() => if changed.is_err() { return },
            changed = theirs.changed() => if changed.is_err() { return },
        }
    }
}
