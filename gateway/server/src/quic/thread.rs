//! The endpoint's thread: starts it, lets clients in, ends it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_media::roq;
use quinn::{IdleTimeout, VarInt};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::certificate::Identity;
use super::counters::count;
use super::hub::Hub;
use super::{Counters, Failure, Settings, code, connection, outgoing};
use crate::flows::Flows;
use crate::ring;

/// How long clients may take to hear that the endpoint ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes the kernel may hold for us while we are busy: 100 ms of 50,000 voice packets a second.
const SOCKET_BUFFER: usize = 4 * 1_024 * 1_024;

/// The running endpoint. Ends when dropped.
#[derive(Debug)]
pub struct Thread {
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 of the certificate it shows.
    pub certificate_sha256: [u8; 32],
    /// What it counts.
    pub counters: Arc<Counters>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the endpoint on a thread of its own.
///
/// `to_workers` and `from_workers` have one ring per worker, by the worker's number.
///
/// # Errors
///
/// [`Failure`]; nothing was started.
pub fn start(
    settings: Settings,
    flows: Arc<Flows>,
    to_workers: Vec<ring::Sender>,
    from_workers: Vec<ring::Receiver>,
) -> Result<Thread, Failure> {
    let identity = Identity::of(&settings.certificate)?;
    let certificate_sha256 = identity.sha256;
    let config = server_config(&settings, identity);
    let socket = listen(settings.listen)
        .map_err(|error| Failure::Listen { address: settings.listen, error })?;
    let address =
        socket.local_addr().map_err(|error| Failure::Listen { address: settings.listen, error })?;

    let counters = Arc::<Counters>::default();
    let (stop, stopped) = oneshot::channel();
    let (report, started) = std::sync::mpsc::sync_channel(1);
    let counting = Arc::clone(&counters);
    let thread = std::thread::Builder::new()
        .name("evenkeel-quic".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(report.send(Err(error))),
            };
            // Rings and connections belong to this thread: made here, dropped here.
            let hub = Hub::new(settings, flows, counting, to_workers);
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, async move {
                match prepare(config, socket, from_workers) {
                    Ok((endpoint, rings)) => {
                        // Whoever waits for this is `start`, which waits until it has it.
                        let _ = report.send(Ok(()));
                        run(Rc::new(hub), endpoint, rings, stopped).await;
                    }
                    Err(error) => drop(report.send(Err(error))),
                }
            });
        })
        .map_err(Failure::Thread)?;
    let ended = || io::Error::other("it ended before it had begun");
    started.recv().unwrap_or_else(|_| Err(ended())).map_err(Failure::Thread)?;
    Ok(Thread { address, certificate_sha256, counters, stop: Some(stop), thread: Some(thread) })
}

impl Thread {
    /// Ends the endpoint: tells clients, at most for a second, and returns when the thread is gone.
    pub fn shut_down(mut self) {
        self.end();
    }

    /// Whether the thread still runs.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel gives what it is allowed to; less is not an error.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn server_config(settings: &Settings, identity: Identity) -> quinn::ServerConfig {
    let mut transport = quinn::TransportConfig::default();
    let idle = u32::try_from(settings.idle_after.as_millis()).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(settings.keep_alive_every))
        .datagram_receive_buffer_size(Some(settings.datagram_queue_bytes))
        .datagram_send_buffer_size(settings.datagram_queue_bytes)
        .max_concurrent_uni_streams(VarInt::from_u32(settings.streams_in_max))
        // One, so that a client that opens it hears the draft's error instead of the transport's.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        // A stream carries packets, not files: enough for a key frame, and a bound on what a connection may hold.
        .stream_receive_window(VarInt::from_u32(64 * 1_024))
        .receive_window(VarInt::from_u32(512 * 1_024))
        .send_window(512 * 1_024);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(identity.tls));
    config.transport_config(Arc::new(transport)).max_incoming(settings.connections_max);
    config
}

fn prepare(
    config: quinn::ServerConfig,
    socket: std::net::UdpSocket,
    from_workers: Vec<ring::Receiver>,
) -> io::Result<(quinn::Endpoint, Vec<AsyncFd<ring::Receiver>>)> {
    let endpoint = quinn::Endpoint::new(
        quinn::EndpointConfig::default(),
        Some(config),
        socket,
        Arc::new(quinn::TokioRuntime),
    )?;
    let rings =
        from_workers.into_iter().map(ring::Receiver::into_async).collect::<io::Result<_>>()?;
    Ok((endpoint, rings))
}

async fn run(
    hub: Rc<Hub>,
    endpoint: quinn::Endpoint,
    rings: Vec<AsyncFd<ring::Receiver>>,
    stopped: oneshot::Receiver<()>,
) {
    for ring in rings {
        spawn_local(outgoing::send(Rc::clone(&hub), ring));
    }
    let waking = Rc::clone(&hub);
    spawn_local(async move { waking.wake_workers().await });
    let reporting = Rc::clone(&hub);
    spawn_local(async move { reporting.report_paths().await });
    tokio::select! {
        () = let_in(&hub, &endpoint) => {}
        _ = stopped => {}
    }
    endpoint.close(code(roq::ErrorCode::NoError), b"the gateway is shutting down");
    let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
}

async fn let_in(hub: &Rc<Hub>, endpoint: &quinn::Endpoint) {
    let most = hub.settings.connections_max as u64;
    while let Some(incoming) = endpoint.accept().await {
        let open = hub.counters.connections.load(Ordering::Relaxed);
        if open >= most {
            count(&hub.counters.connections_refused);
            incoming.refuse();
        } else if open >= most / 2 && incoming.may_retry() && !incoming.remote_address_validated() {
            // `may_retry` was true, so it cannot fail.
            let _ = incoming.retry();
        } else if let Ok(connecting) = incoming.accept() {
            count(&hub.counters.connections);
            let hub = Rc::clone(hub);
            spawn_local(async move {
                connection::serve(Rc::clone(&hub), connecting).await;
                hub.counters.connections.fetch_sub(1, Ordering::Relaxed);
            });
        } else {
            count(&hub.counters.handshakes_failed);
        }
    }
}
