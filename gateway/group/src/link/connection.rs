//! One connection, from its hellos to its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::GroupSettings;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_rustls::TlsStream;

use super::super::refusals::RefusalLog;
use super::frame::{self, FRAME_MAX, FrameRead, LinkFrame, QUIET};
use super::hello::{Hello, LinkRefusal};
use super::tls::LinkTls;

/// Frames that wait for the peer to read, in KiB: two of the longest.
const QUEUE_MAX_KIB: usize = 2 * FRAME_MAX / 1_024;

/// Interval of frames while nothing else is sent.
const IDLE_EVERY: Duration = Duration::from_millis(500);

const _: () = assert!(QUIET.as_millis() >= 3 * IDLE_EVERY.as_millis());

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

/// An event on its way from the link's thread.
#[derive(Debug)]
pub(super) enum LinkMessage {
    Connected(FrameQueue),
    Event(LinkEvent),
}

/// A member, as its connections know it.
#[derive(Clone)]
pub(super) struct LocalMember {
    pub(super) cluster: GroupSettings,
    pub(super) tls: LinkTls,
    pub(super) hello: watch::Receiver<Hello>,
    pub(super) messages: mpsc::Sender<LinkMessage>,
    /// Connections of the peer to this member's API.
    pub(super) streams: mpsc::Sender<TlsStream<TcpStream>>,
    pub(super) refusals: RefusalLog,
}

impl LocalMember {
    pub(super) async fn tell(&self, event: LinkEvent) {
        // Fails if the link was dropped, which ends the thread.
        let _ = self.messages.send(LinkMessage::Event(event)).await;
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

/// Both ends send their hello first, then judge that of the other.
///
/// # Errors
/// The stream broke, or a [`LinkRefusal`].
pub(super) async fn greet(
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
    pub(super) fn instance(&self) -> u64 {
        self.theirs.instance
    }

    /// Carries frames until the connection ends, and returns the reason.
    pub(super) async fn run(self, local: LocalMember) -> io::Error {
        let LinkConnection { stream, theirs, .. } = self;
        let dropped = || io::Error::other("the link was dropped");
        let (frames, queue) = mpsc::unbounded_channel();
        let outbox = FrameQueue { frames, room: Arc::new(Semaphore::new(QUEUE_MAX_KIB)) };
        let (peer, version) = (&theirs.name, &theirs.version);
        tracing::info!(%peer, %version, "connected to the group's other gateway");
        if local.messages.send(LinkMessage::Connected(outbox)).await.is_err() {
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

/// Reports how the node lists differ, at first and after each change. Returns if the link was dropped.
async fn compare(local: LocalMember, mut theirs: watch::Receiver<Hello>) {
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
