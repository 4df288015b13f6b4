//! The endpoint's thread and its event loop.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{EndpointConfig, IdleTimeout, ServerConfig, VarInt};
use rustix::event::{Timespec, epoll};

use super::certificate::{EndpointIdentity, EndpointTls};
use super::endpoint::QuicEndpoint;
use super::hub::Hub;
use super::predecessors::{CarriedSession, HandedConnections, Predecessors};
use super::process_link::ProcessLink;
use super::short_lived::ShortLivedCertificates;
use super::socket::QuicSocket;
use super::{Counters, QuicSettings, QuicStartError, congestion, connection};
use crate::Waker;
use crate::client_probes::ClientProbes;
use crate::flows::Flows;
use crate::lease::{self, SendLease};
use crate::worker::Gather;
use crate::{panics, ring};

/// Time that the thread waits at its end for clients to receive the close.
const FAREWELL: Duration = Duration::from_secs(1);

/// The reason that clients get at the end of the gateway.
const SHUTDOWN: &[u8] = b"the gateway is shutting down";

/// Time in which the last packets are sent if the socket's buffer is full.
const SENT_WITHIN: Duration = Duration::from_millis(100);

/// Time in which the thread stops reading. A turn takes about a millisecond, on a processor that is not shared.
const PAUSED_WITHIN: Duration = Duration::from_secs(1);

/// Stages of the thread, in an atomic.
const RUNS: u8 = 0;
/// All connections are closed, and the thread waits until their clients know.
const STOPS: u8 = 1;
/// All connections are closed, and nothing more is read: another process reads the socket.
const LEAVES: u8 = 2;
/// Another process still reads the socket, or is about to.
const WAITS: u8 = 3;
/// The thread is to stop reading, and then waits.
const PAUSES: u8 = 4;
/// The thread keeps its connections for another process, which reads the socket.
const FOLLOWS: u8 = 5;

/// The running endpoint. Dropping it closes all connections within a second and joins the thread.
#[derive(Debug)]
pub struct QuicThread {
    /// The bound address.
    pub address: SocketAddr,
    /// SHA-256 of the certificate.
    pub certificate_sha256: [u8; 32],
    /// The end of the certificate, or of one of its intermediates before.
    pub certificate_ends: Option<SystemTime>,
    /// Counters of the endpoint, which the thread writes.
    pub counters: Arc<Counters>,
    /// The certificate in use, and its replacement.
    pub identity: EndpointIdentity,
    /// A duplicate of the endpoint's socket.
    socket: UdpSocket,
    stage: Arc<AtomicU8>,
    /// Connections that a paused thread hands over.
    handed: Receiver<HandedConnections>,
    /// Connections of other processes, for a thread that waits.
    adopting: Sender<AdoptedConnections>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

type AdoptedConnections = (Predecessors, Vec<CarriedSession>);

/// The thread of a process that another one has replaced.
#[derive(Debug)]
pub struct PredecessorThread(JoinHandle<()>);

impl PredecessorThread {
    /// Returns once its last connection has ended, or the process that serves.
    pub fn wait(self) {
        // The thread has already reported a panic.
        let _ = self.0.join();
    }
}

/// Lets a suspended endpoint read.
#[derive(Clone, Debug)]
pub struct Resumer {
    stage: Arc<AtomicU8>,
    thread: Option<std::thread::Thread>,
}

impl Resumer {
    /// Has the endpoint read again.
    pub fn resume(&self) {
        // A thread that is to pause may do so in between. Both fail only for an endpoint that reads already.
        for stage in [PAUSES, WAITS] {
            let _ = self.stage.compare_exchange(stage, RUNS, Ordering::AcqRel, Ordering::Acquire);
        }
        self.thread.iter().for_each(std::thread::Thread::unpark);
    }
}

/// A bound socket, with the settings and the certificate of the endpoint that [`start`] runs on it.
pub struct BoundQuicSocket {
    settings: QuicSettings,
    identity: EndpointIdentity,
    tls: EndpointTls,
    socket: QuicSocket,
    address: SocketAddr,
}

/// Reads the certificate and binds the socket, both of which may need privileges that [`start`] does not.
///
/// `socket` is that of another process, `identity` that of a process or a group of gateways; by default both are new.
///
/// # Errors
///
/// If this fails, nothing is bound.
pub fn listen(
    settings: QuicSettings,
    socket: Option<UdpSocket>,
    identity: Option<EndpointIdentity>,
) -> Result<BoundQuicSocket, QuicStartError> {
    let mut identity = identity.map_or_else(EndpointIdentity::new, Ok)?;
    let tls = identity.tls(&settings.certificate)?;
    let bind = || match socket {
        Some(socket) => QuicSocket::on(socket),
        None => QuicSocket::listen(settings.listen, settings.moves),
    };
    let unheard = |error| QuicStartError::Listen { address: settings.listen, error };
    let socket = bind().map_err(unheard)?;
    let address = socket.socket.local_addr().map_err(unheard)?;
    Ok(BoundQuicSocket { settings, identity, tls, socket, address })
}

/// Starts the endpoint's thread.
///
/// `probes` are answered by WebTransport. `to_workers` and `from_workers` have one ring per worker, by number. Browsers see a certificate of `short_lived`, if it is given, and
/// else that of all clients. The endpoint reads and sends only while it has the lease. A suspended one reads nothing before [`Resumer::resume`].
///
/// # Errors
///
/// If this fails, nothing was started.
pub fn start(
    listener: BoundQuicSocket,
    flows: Arc<Flows>,
    probes: Arc<ClientProbes>,
    to_workers: Vec<ring::RingSender>,
    from_workers: Vec<ring::Receiver>,
    lease: Arc<SendLease>,
    short_lived: Option<Arc<ShortLivedCertificates>>,
    suspended: bool,
) -> Result<QuicThread, QuicStartError> {
    let BoundQuicSocket { settings, identity, tls, socket, address } = listener;
    let (certificate_sha256, certificate_ends) = (tls.sha256, tls.ends);
    let gather = settings.gather;
    let configs = configs(&settings, &identity, tls.config(short_lived));
    let duplicate = socket.socket.try_clone().map_err(QuicStartError::Thread)?;

    let counters = Arc::<Counters>::default();
    let waker = Arc::new(Waker::new().map_err(QuicStartError::Thread)?);
    let hub = Hub::new(flows, Arc::clone(&counters), to_workers).with_probes(probes);
    let endpoint = QuicEndpoint::new(configs, socket, settings, hub, from_workers, lease);
    let sleep = Sleep::new(&endpoint, Arc::clone(&waker)).map_err(QuicStartError::Thread)?;
    let stage = Arc::new(AtomicU8::new(if suspended { WAITS } else { RUNS }));
    let ((handing, handed), (adopting, adopted)) = (bounded(1), bounded(1));
    let (staged, process) = (Arc::clone(&stage), identity.process());
    let orders = ThreadOrders { stage: staged, process, handing, adopted, link: None };
    let thread = std::thread::Builder::new()
        .name("evenkeel-quic".into())
        .spawn(move || {
            Gather::keep_time();
            panics::capture_here();
            // Only epoll can fail here. `QuicThread::is_running` then returns false.
            let _ = run(endpoint, gather, sleep, orders);
        })
        .map_err(QuicStartError::Thread)?;
    Ok(QuicThread {
        address,
        certificate_sha256,
        certificate_ends,
        counters,
        identity,
        socket: duplicate,
        stage,
        handed,
        adopting,
        waker,
        thread: Some(thread),
    })
}

impl QuicThread {
    /// Lets a suspended endpoint read.
    pub fn resumer(&self) -> Resumer {
        let thread = self.thread.as_ref().map(|thread| thread.thread().clone());
        Resumer { stage: Arc::clone(&self.stage), thread }
    }

    /// Has the thread rest, so that another process can read its socket, or [`Resumer::resume`] continues it. Returns what that process
    /// needs to continue the connections; `None` if they cannot be continued.
    pub fn pause(&self) -> Option<HandedConnections> {
        self.stage.compare_exchange(RUNS, PAUSES, Ordering::AcqRel, Ordering::Acquire).ok()?;
        // A pause that took too long has left its connections there.
        let _ = self.handed.try_recv();
        self.waker.wake();
        self.handed.recv_timeout(PAUSED_WITHIN).ok()
    }

    /// Has a paused thread keep its connections for another process, which has what [`pause`](QuicThread::pause) has returned.
    pub fn follow(&self) {
        self.enter(FOLLOWS);
    }

    /// Gives a waiting thread the connections of the processes before it.
    pub fn adopt(&self, connections: HandedConnections) {
        let (keys, own) = (self.identity.connection_id_keys(), self.identity.process());
        // Full only if others came before and were not taken, which stay.
        let _ = self.adopting.try_send(connections.adopt(&keys, own));
    }

    /// The rest of a thread that follows another process.
    pub fn into_predecessor(mut self) -> Option<PredecessorThread> {
        let follows = self.stage.load(Ordering::Acquire) == FOLLOWS;
        self.thread.take_if(|_| follows).map(PredecessorThread)
    }

    /// Closes all connections and ends the thread, which reads nothing more: another process has the socket. The
    /// clients connect to it again with their flow identifiers. One that misses the close gets a stateless reset.
    ///
    /// Returns once that is done. The thread is not running then.
    pub fn close_connections(&self) {
        self.enter(LEAVES);
        while self.is_running() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns a duplicate of the socket, for [`listen`].
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn try_clone_socket(&self) -> io::Result<UdpSocket> {
        self.socket.try_clone()
    }

    /// Returns whether the thread has not ended.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn enter(&self, stage: u8) {
        self.stage.store(stage, Ordering::Release);
        self.waker.wake();
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Drop for QuicThread {
    fn drop(&mut self) {
        // Else it is that of a predecessor.
        if self.thread.is_some() {
            self.enter(STOPS);
        }
        if let Some(thread) = self.thread.take() {
            // The thread has already reported a panic.
            let _ = thread.join();
        }
    }
}

pub(super) fn configs(
    settings: &QuicSettings,
    identity: &EndpointIdentity,
    tls: QuicServerConfig,
) -> (EndpointConfig, ServerConfig) {
    let mut transport = quinn_proto::TransportConfig::default();
    let idle = u32::try_from(settings.idle_after.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(settings.keep_alive_every))
        .datagram_receive_buffer_size(Some(settings.datagram_queue_bytes))
        .datagram_send_buffer_size(connection::QUINN_QUEUE)
        .congestion_controller_factory(Arc::new(congestion::DelayBased))
        .max_concurrent_uni_streams(VarInt::from_u32(settings.streams_in_max))
        // One stream is allowed, so that a client that opens one gets the draft's error instead of a transport error.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        // Enough for a key frame: streams carry packets, not files.
        .stream_receive_window(VarInt::from_u32(64 * 1_024))
        .receive_window(VarInt::from_u32(512 * 1_024))
        .send_window(512 * 1_024);
    let mut config = ServerConfig::new(Arc::new(tls), Arc::new(identity.token_key()));
    config.transport_config(Arc::new(transport)).max_incoming(settings.connections_max);
    (identity.endpoint_config(), config)
}

struct Sleep {
    epoll: OwnedFd,
    waker: Arc<Waker>,
    /// True if epoll watches the socket for writability.
    sending: bool,
}

impl Sleep {
    fn new(endpoint: &QuicEndpoint, waker: Arc<Waker>) -> io::Result<Sleep> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let any = epoll::EventData::new_u64(0);
        epoll::add(&epoll, &endpoint.wire, any, epoll::EventFlags::IN)?;
        for link in endpoint.links() {
            epoll::add(&epoll, link, any, epoll::EventFlags::IN)?;
        }
        epoll::add(&epoll, &waker, any, epoll::EventFlags::IN)?;
        for ring in &endpoint.rings {
            epoll::add(&epoll, ring, any, epoll::EventFlags::IN)?;
        }
        Ok(Sleep { epoll, waker, sending: false })
    }

    /// Waits for an event, at most until `due`.
    fn until(&mut self, endpoint: &QuicEndpoint, due: Instant) -> io::Result<()> {
        if self.sending != endpoint.blocked.is_some() {
            self.sending = endpoint.blocked.is_some();
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, self.sending);
            epoll::modify(&self.epoll, &endpoint.wire, epoll::EventData::new_u64(0), flags)?;
        }
        let time = due.saturating_duration_since(Instant::now());
        // `None` means no timeout; it results only from a time too long for `Timespec`, which no timer has.
        let time = Timespec::try_from(time).ok();
        // A turn reads every source, so the event itself does not matter.
        let mut event = [MaybeUninit::uninit()];
        match epoll::wait(&self.epoll, &mut event, time.as_ref()) {
            Ok(_) => _ = self.waker.clear(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// The thread's end of its orders.
struct ThreadOrders {
    stage: Arc<AtomicU8>,
    /// The number of this process.
    process: u8,
    handing: Sender<HandedConnections>,
    adopted: Receiver<AdoptedConnections>,
    /// The link to the next process, once connections were handed over.
    link: Option<ProcessLink>,
}

impl ThreadOrders {
    /// Waits while the endpoint may not read or send. Returns the stage, and whether the endpoint has other descriptors since.
    fn wait(&mut self, endpoint: &mut QuicEndpoint) -> (u8, bool) {
        loop {
            match self.stage.load(Ordering::Acquire) {
                PAUSES => self.pause(endpoint),
                WAITS => std::thread::park(),
                RUNS if !endpoint.lease.is_held(Instant::now) => {
                    std::thread::sleep(lease::CHECKED_EVERY);
                }
                RUNS => {
                    endpoint.resume();
                    self.link = None;
                    return (RUNS, self.adopt(endpoint));
                }
                // Perhaps before the thread has read at all.
                STOPS => {
                    let adopts = self.adopt(endpoint);
                    if adopts {
                        endpoint.resume();
                    }
                    return (STOPS, adopts);
                }
                FOLLOWS => {
                    let Some(link) = self.link.take() else { return (FOLLOWS, false) };
                    let connections = endpoint.connections.count;
                    tracing::info!(connections, "QUIC connections stay with the replaced process");
                    endpoint.follow(link);
                    return (FOLLOWS, true);
                }
                stage => return (stage, false),
            }
        }
    }

    /// Takes the connections that this process was given. Returns false if there are none.
    fn adopt(&mut self, endpoint: &mut QuicEndpoint) -> bool {
        let Ok((predecessors, sessions)) = self.adopted.try_recv() else { return false };
        endpoint.adopt(predecessors, sessions);
        true
    }

    fn pause(&mut self, endpoint: &mut QuicEndpoint) {
        endpoint.pause();
        match endpoint.hand_over(self.process) {
            Ok((link, connections)) => {
                self.link = Some(link);
                // Full only after a pause that took too long.
                let _ = self.handing.try_send(connections);
            }
            Err(error) => tracing::warn!(%error, "QUIC connections cannot be handed over"),
        }
        // Fails if the thread is to do something else by now.
        let _ = self.stage.compare_exchange(PAUSES, WAITS, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Runs until stopped, then until clients have received the close or [`FAREWELL`] has passed. A predecessor runs until it is not needed.
fn run(
    mut endpoint: QuicEndpoint,
    gather: Duration,
    mut sleep: Sleep,
    mut orders: ThreadOrders,
) -> io::Result<()> {
    let mut gather = Gather::new(gather);
    let mut farewell: Option<Instant> = None;
    let mut more = false;
    loop {
        if !gather.gathered && !more {
            let due = endpoint.next_due();
            sleep.until(&endpoint, farewell.map_or(due, |until| due.min(until)))?;
        }
        let (stage, is_other) = orders.wait(&mut endpoint);
        if is_other {
            sleep = Sleep::new(&endpoint, sleep.waker)?;
        }
        let now = Instant::now();
        // Packets pushed before the stop are sent before the end.
        if stage != RUNS && !endpoint.lease.is_held(Instant::now) {
            return Ok(());
        }
        if stage == LEAVES || stage == FOLLOWS && !endpoint.is_predecessor() {
            leave(&mut endpoint, b"the gateway is replaced; connect again", now);
            return Ok(());
        }
        let look = endpoint.guarded_turn(now);
        if endpoint.is_abandoned {
            leave(&mut endpoint, SHUTDOWN, now);
            return Ok(());
        }
        match farewell {
            None if stage == STOPS => {
                endpoint.close(SHUTDOWN, now);
                endpoint.finish_links();
                farewell = Some(now + FAREWELL);
            }
            Some(until) if endpoint.is_empty() || until <= now => return Ok(()),
            None if stage == FOLLOWS && endpoint.is_empty() => return Ok(()),
            _ => {}
        }
        more = look.more;
        if gather.ends(now, Instant::now(), look.packets) && !more {
            std::thread::sleep(gather.pause);
        }
    }
}

/// Closes all connections and reads nothing.
fn leave(endpoint: &mut QuicEndpoint, why: &[u8], now: Instant) {
    endpoint.close(why, now);
    while endpoint.blocked.is_some() && now.elapsed() < SENT_WITHIN {
        std::thread::sleep(Duration::from_millis(1));
        endpoint.drive(now);
    }
}
