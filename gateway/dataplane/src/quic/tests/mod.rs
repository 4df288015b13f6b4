//! A real client on loopback, and a ring in place of a worker.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_media::roq;
use quinn::{ApplicationClose, Connection, ConnectionError, VarInt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::*;
use crate::client_probes::ClientProbes;
use crate::flows::{FlowEntry, FlowKey, Flows, Home};
use crate::lease::SendLease;
use crate::ring::{self, PathReport, RingItem, RingMeta};
use client::{client_config, client_speaking, client_without_credit, sha256};

mod accept;
mod client;
mod connections;
mod datagrams;
mod fairness;
mod gathering;
mod leased;
mod raw;
mod replaced;
mod sending;
mod slow_path;
mod streams;
mod turns;
mod upgraded;
mod webtransport;

const HOME: Home = Home { worker: 0, slot: 5, generation: 2 };
const FLOW: u64 = 0x1234_5678_9abc_def0;
const OTHER_HOME: Home = Home { worker: 0, slot: 6, generation: 1 };
const OTHER_FLOW: u64 = 0x0fed_cba9_8765_4321;
const STRANGE_FLOW: u64 = 7;
const BACK: u64 = 0x2222_3333_4444_5555;
const NEVER: Duration = Duration::from_secs(3_600);

struct World {
    thread: QuicThread,
    flows: Arc<Flows>,
    probes: Arc<ClientProbes>,
    to_client: ring::RingSender,
    from_client: ring::Receiver,
    /// Readable when the ring has entries.
    waker: AsyncFd<OwnedFd>,
    came: std::collections::VecDeque<(RingMeta, Vec<u8>)>,
    lease: Arc<SendLease>,
}

impl World {
    fn start(settings: QuicSettings) -> World {
        World::start_with(settings, 1_024)
    }

    fn start_with(settings: QuicSettings, slots: usize) -> World {
        World::on(listen(settings, None, None).unwrap(), slots)
    }

    fn on(listener: BoundQuicSocket, slots: usize) -> World {
        World::with_certificates(listener, slots, None)
    }

    /// A thread that waits.
    fn suspended(listener: BoundQuicSocket) -> World {
        World::with(listener, 1_024, None, true)
    }

    fn with_certificates(
        listener: BoundQuicSocket,
        slots: usize,
        short_lived: Option<Arc<ShortLivedCertificates>>,
    ) -> World {
        World::with(listener, slots, short_lived, false)
    }

    fn with(
        listener: BoundQuicSocket,
        slots: usize,
        short_lived: Option<Arc<ShortLivedCertificates>>,
        suspended: bool,
    ) -> World {
        let flows = Arc::new(Flows::new(10));
        flows.insert(FlowKey::Roq(FLOW), FlowEntry::of(HOME)).unwrap();
        flows.insert(FlowKey::Roq(OTHER_FLOW), FlowEntry::of(OTHER_HOME)).unwrap();
        let (to_worker, from_client) = ring::channel(slots).unwrap();
        let (to_client, from_worker) = ring::channel(1_024).unwrap();
        let lease = Arc::new(SendLease::forever());
        let rings = (vec![to_worker], vec![from_worker]);
        let (known, held) = (Arc::clone(&flows), Arc::clone(&lease));
        let (to, from) = rings;
        let probes = Arc::<ClientProbes>::default();
        let answered = Arc::clone(&probes);
        let thread =
            start(listener, known, answered, to, from, held, short_lived, suspended).unwrap();
        let waker = readable(from_client.as_fd().try_clone_to_owned().unwrap());
        let came = Default::default();
        World { thread, flows, probes, to_client, from_client, waker, came, lease }
    }

    async fn connect(&self, config: quinn::ClientConfig) -> Result<Connection, ConnectionError> {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        endpoint.connect_with(config, self.thread.address, "localhost").unwrap().await
    }

    async fn client(&self) -> Client {
        self.client_with(true).await
    }

    async fn client_with(&self, datagrams: bool) -> Client {
        Client { connection: self.connect(client_config(&self.thread, datagrams)).await.unwrap() }
    }

    /// Waits for the next entry of the ring.
    async fn next(&mut self) -> (RingMeta, Vec<u8>) {
        loop {
            if let Some(came) = self.came.pop_front() {
                return came;
            }
            let came = &mut self.came;
            let ring = &mut self.from_client;
            if ring.pop_batch(64, |meta, bytes| came.push_back((*meta, bytes.to_vec()))) == 0 {
                self.waker.readable().await.unwrap().clear_ready();
            }
        }
    }

    /// Waits for the next entry that is not a path report; these may arrive at any time.
    async fn next_but_path(&mut self) -> (RingMeta, Vec<u8>) {
        loop {
            let came = self.next().await;
            if !matches!(came.0.kind, RingItem::Path(_)) {
                return came;
            }
        }
    }

    async fn next_media(&mut self) -> Vec<u8> {
        loop {
            let (meta, bytes) = self.next().await;
            if matches!(meta.kind, RingItem::Rtp | RingItem::Rtcp) {
                return bytes;
            }
        }
    }

    fn send(&mut self, home: Home, packet: &[u8]) {
        self.push(meta_back(home), packet);
        self.to_client.wake();
    }

    fn push(&mut self, meta: RingMeta, packet: &[u8]) {
        self.to_client.push(meta, packet).unwrap();
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.thread.counters).load(Ordering::Relaxed)
    }
}

struct Client {
    connection: Connection,
}

impl Client {
    fn send(&self, flow: u64, packet: &[u8]) {
        let mut datagram = Vec::new();
        roq::write_datagram(roq::FlowId::new(flow).unwrap(), packet, &mut datagram);
        self.connection.send_datagram(datagram.into()).unwrap();
    }

    async fn receive(&self) -> (u64, Vec<u8>) {
        let datagram = self.connection.read_datagram().await.unwrap();
        let (flow, packet) = roq::read_datagram(&datagram).unwrap();
        (flow.number(), packet.to_vec())
    }

    async fn close_code(&self) -> u64 {
        match self.connection.closed().await {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
                error_code.into_inner()
            }
            other => panic!("closed by {other}"),
        }
    }
}

#[expect(
    deprecated,
    reason = "the successor is unsafe, for descriptors that may change; this one never does"
)]
fn readable(descriptor: OwnedFd) -> AsyncFd<OwnedFd> {
    AsyncFd::with_interest(descriptor, Interest::READABLE).unwrap()
}

/// Settings with timers that never fire during a test.
fn quiet() -> QuicSettings {
    QuicSettings {
        flowless_after: NEVER,
        feedback_every: NEVER,
        idle_after: NEVER,
        keep_alive_every: NEVER,
        ..QuicSettings::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }
}

fn meta(kind: RingItem) -> RingMeta {
    RingMeta { home: HOME, kind, flow: FLOW }
}

fn meta_back(home: Home) -> RingMeta {
    RingMeta { home, kind: RingItem::Rtp, flow: BACK }
}

const RTCP: &[u8] = &[0x80, 201, 0, 1, 0, 0, 0, 1];

fn rtp(number: u8) -> Vec<u8> {
    [&[0x80, 111, 0, number, 0, 0, 0, 0, 0, 0, 0, 9][..], b"voice"].concat()
}

fn framed(flow: u64, packets: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    roq::write_stream_start(roq::FlowId::new(flow).unwrap(), &mut bytes);
    for packet in packets {
        roq::write_stream_packet(packet, &mut bytes);
    }
    bytes
}
