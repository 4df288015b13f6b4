//! The endpoint: reads from clients and workers, drives quinn-proto's state machines and sends their output.
//!
//! The endpoint drives quinn-proto in its own loop. quinn's tasks use a task, a queue and three locks per connection,
//! and their wake-ups cost more than QUIC itself (`docs/benchmarks.md`).

mod accept;
mod from_clients;
mod isolation;
mod to_clients;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use evenkeel_media::roq;
use quinn_proto::{ConnectionHandle, EndpointConfig, Transmit};

use super::QuicSettings;
use super::connections::Connections;
use super::counters::count;
use super::hub::Hub;
use super::round::Round;
use super::socket::{From, QuicSocket, SocketSend};
use crate::lease::SendLease;
use crate::ring;

pub(super) struct QuicEndpoint {
    quinn: quinn_proto::Endpoint,
    socket: QuicSocket,
    connections: Connections,
    hub: Hub,
    rings: Vec<ring::Receiver>,
    settings: QuicSettings,
    round: Round,
    /// Datagrams read but not handled yet.
    received: VecDeque<(From, BytesMut)>,
    /// Buffer that quinn writes packets into.
    packet: Vec<u8>,
    /// The packet that the full socket refused, or that waits for the lease. It is sent before any other.
    blocked: Option<(Transmit, Vec<u8>)>,
    framed: Vec<u8>,
    lease: Arc<SendLease>,
}

/// The result of one turn of the loop.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct TurnResult {
    /// Datagrams from clients and packets from workers.
    pub(super) packets: usize,
    /// True if more input may be waiting.
    pub(super) more: bool,
}

impl QuicEndpoint {
    pub(super) fn new(
        (own, config): (EndpointConfig, quinn_proto::ServerConfig),
        socket: QuicSocket,
        settings: QuicSettings,
        hub: Hub,
        rings: Vec<ring::Receiver>,
        lease: Arc<SendLease>,
    ) -> QuicEndpoint {
        let own = Arc::new(own);
        // MTU discovery needs unfragmented probes: a fragmented probe always arrives.
        let discovers_mtu = !socket.may_fragment();
        QuicEndpoint {
            quinn: quinn_proto::Endpoint::new(own, Some(Arc::new(config)), discovers_mtu, None),
            socket,
            connections: Connections::default(),
            hub,
            rings,
            round: Round::new(settings.feedback_every, Instant::now()),
            settings,
            received: VecDeque::new(),
            packet: Vec::new(),
            blocked: None,
            framed: Vec::new(),
            lease,
        }
    }

    pub(super) fn socket(&self) -> &QuicSocket {
        &self.socket
    }

    pub(super) fn rings(&self) -> &[ring::Receiver] {
        &self.rings
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    pub(super) fn next_due(&mut self) -> Instant {
        let round = self.round.due();
        self.connections.next_due().map_or(round, |due| due.min(round))
    }

    pub(super) fn may_send(&self) -> bool {
        self.lease.is_held_now()
    }

    /// Returns whether no connection is left, not even one that is still closing.
    pub(super) fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// Reads, runs timers and sends.
    pub(super) fn turn(&mut self, now: Instant) -> TurnResult {
        let from_clients = self.read_socket(now);
        let from_workers = self.read_rings(now);
        while let Some(handle) = self.connections.take_due(now) {
            if let Some(client) = self.connections.get_mut(handle) {
                client.handle_timeout(now, &mut self.hub);
            }
            self.connections.touch(handle);
        }
        self.drive(now);
        self.hub.wake_workers();
        TurnResult {
            packets: from_clients.packets + from_workers.packets,
            more: from_clients.more || from_workers.more,
        }
    }

    /// Runs when due: reports the paths of a share of the sessions and, once per round, closes connections without a
    /// session.
    pub(super) fn look_round(&mut self, now: Instant) {
        if now < self.round.due() {
            return;
        }
        let QuicEndpoint { hub, connections, settings, round, .. } = self;
        if round.is_over() {
            round.begin(hub.homes(), now);
            for handle in hub.flowless(settings.flowless_after, now) {
                if let Some(client) = connections.get_mut(handle) {
                    count(&hub.counters.flowless);
                    client.close(roq::ErrorCode::General, b"no flow of a session", now, hub);
                }
                connections.touch(handle);
            }
        }
        for home in round.share() {
            hub.look_after(*home, now, |handle| {
                connections.get_mut(handle).map(|client| client.path())
            });
        }
    }

    /// Refuses new connections and closes all others.
    pub(super) fn close(&mut self, why: &[u8], now: Instant) {
        self.quinn.set_server_config(None);
        for handle in self.connections.handles() {
            if let Some(client) = self.connections.get_mut(handle) {
                client.close(roq::ErrorCode::NoError, why, now, &mut self.hub);
            }
            self.connections.touch(handle);
        }
        self.drive(now);
    }

    /// Drives all touched connections until the socket's buffer is full.
    pub(super) fn drive(&mut self, now: Instant) {
        if let Some((transmit, bytes)) = self.blocked.take()
            && send(&self.socket, &self.lease, &transmit, &bytes) == SocketSend::Blocked
        {
            self.blocked = Some((transmit, bytes));
            return;
        }
        while let Some(handle) = self.connections.next_touched() {
            if self.settle(handle, now) {
                self.connections.remove(handle);
                continue;
            }
            if !self.transmit(handle, now) {
                self.connections.touch_first(handle);
                return;
            }
            self.connections.schedule(handle);
        }
    }

    /// Handles a connection's events. Returns whether quinn has forgotten it.
    fn settle(&mut self, handle: ConnectionHandle, now: Instant) -> bool {
        let Some(client) = self.connections.get_mut(handle) else { return true };
        let opened = client.handle_events(now, &mut self.hub);
        // DATAGRAMs may arrive with the end of the handshake.
        client.read_datagrams(now, &mut self.hub);
        while let Some(event) = client.connection.poll_endpoint_events() {
            let drained = event.is_drained();
            let answer = self.quinn.handle_event(handle, event);
            if drained {
                client.forgotten(&mut self.hub);
                return true;
            }
            if let Some(answer) = answer {
                client.connection.handle_event(answer);
            }
        }
        if opened {
            self.connections.opened(handle);
        }
        false
    }

    /// Sends all pending packets of a connection. Returns whether the socket took them.
    fn transmit(&mut self, handle: ConnectionHandle, now: Instant) -> bool {
        let Some(client) = self.connections.get_mut(handle) else { return true };
        let segments = self.socket.segments_max();
        loop {
            self.packet.clear();
            let Some(transmit) = client.connection.poll_transmit(now, segments, &mut self.packet)
            else {
                return true;
            };
            client.count_sent(&self.hub.counters);
            if send(&self.socket, &self.lease, &transmit, &self.packet) == SocketSend::Blocked {
                self.blocked = Some((transmit, std::mem::take(&mut self.packet)));
                return false;
            }
        }
    }
}

/// Sends a packet unless the lease has ended, which blocks like a full buffer.
fn send(socket: &QuicSocket, lease: &SendLease, transmit: &Transmit, bytes: &[u8]) -> SocketSend {
    if lease.is_held_now() { socket.send(transmit, bytes) } else { SocketSend::Blocked }
}
