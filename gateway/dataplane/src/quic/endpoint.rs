//! The endpoint: reads from clients and workers, drives quinn-proto's state machines and sends their output.
//!
//! The endpoint drives quinn-proto in its own loop. quinn's tasks use a task, a queue and three locks per connection,
//! and their wake-ups cost more than QUIC itself (`docs/benchmarks.md`).
//!
//! A panic over a packet of one connection ends only that connection.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evenkeel_media::roq;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, EndpointConfig, EndpointEvent, Incoming, Transmit,
};

use super::QuicSettings;
use super::connection::ClientConnection;
use super::connections::{ClientNetwork, Connections};
use super::counters::count;
use super::hub::{Carrier, Hub, Round};
use super::predecessors::{CarriedSession, HandedConnections, Predecessors};
use super::process_link::{LinkRead, MESSAGE_MAX, ProcessLink};
use super::socket::{From, QuicSocket, SEGMENTS_MAX};
use crate::lease::SendLease;
use crate::panics;
use crate::ring::{self, PacketPriority, RingItem, RingMeta, SendTerms};

/// With this many handshakes of a source in progress, further clients of the source must validate their address: a
/// sender of forged sources holds no more connections in the name of another host.
const UNVALIDATED_MAX: usize = 16;

/// Datagrams per turn. One batch of the kernel may hold eight times this number.
const DATAGRAMS_PER_TURN: usize = 256;

/// A handshake takes as long as this many datagrams. Otherwise other clients would wait 200 ms for a turn in which all connect
/// again, and each of these for the last one.
const DATAGRAMS_PER_HANDSHAKE: usize = 32;

/// Packets taken from one ring per turn.
const RING_BATCH: usize = 256;

/// The way to clients.
pub(super) enum Wire {
    Socket(QuicSocket),
    /// By way of the process that serves, which this one precedes.
    Successor {
        link: Arc<ProcessLink>,
        /// Datagrams of one size per message.
        segments: usize,
    },
}

impl Wire {
    fn segments(&self) -> usize {
        match self {
            Wire::Socket(socket) => socket.state.max_gso_segments().min(SEGMENTS_MAX),
            Wire::Successor { segments, .. } => *segments,
        }
    }

    /// Sends a packet. Returns `false` if the buffer is full.
    fn send(&self, transmit: &Transmit, bytes: &[u8]) -> bool {
        match self {
            Wire::Socket(socket) => socket.send(transmit, bytes),
            Wire::Successor { link, .. } => {
                let Transmit { destination, ecn, size, segment_size, src_ip } = *transmit;
                let client = From { source: destination, local: src_ip, ecn };
                link.send_datagram(client, segment_size, &bytes[..size])
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Wire::Socket(socket) => socket.as_fd(),
            Wire::Successor { link, .. } => link.as_fd(),
        }
    }
}

pub(super) struct QuicEndpoint {
    quinn: quinn_proto::Endpoint,
    pub(super) wire: Wire,
    pub(super) connections: Connections,
    hub: Hub,
    pub(super) rings: Vec<ring::Receiver>,
    settings: QuicSettings,
    round: Round,
    /// Datagrams read but not handled yet.
    received: VecDeque<(From, BytesMut)>,
    /// Buffer that quinn writes packets into.
    packet: Vec<u8>,
    /// The packet that the full socket refused, or that waits for the lease. It is sent before any other.
    pub(super) blocked: Option<(Transmit, Vec<u8>)>,
    framed: Vec<u8>,
    pub(super) lease: Arc<SendLease>,
    /// Nothing is read but the rings of workers: the endpoint is about to be replaced.
    is_paused: bool,
    /// The process that serves ends, or has ended.
    pub(super) is_abandoned: bool,
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
        let discovers_mtu = !socket.state.may_fragment();
        QuicEndpoint {
            quinn: quinn_proto::Endpoint::new(own, Some(Arc::new(config)), discovers_mtu, None),
            wire: Wire::Socket(socket),
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
            is_paused: false,
            is_abandoned: false,
        }
    }

    /// Handles all that was read, and reads no more from clients.
    pub(super) fn pause(&mut self) {
        self.is_paused = true;
        while self.guarded_turn(Instant::now()).more {}
    }

    /// Reads again.
    pub(super) fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Returns this process's end of a link, and what the process that replaces it needs to continue its connections and those of its
    /// predecessors. `process` is the number of this one.
    pub(super) fn hand_over(&self, process: u8) -> io::Result<(ProcessLink, HandedConnections)> {
        let (link, other) = ProcessLink::pair()?;
        Ok((link, self.hub.hand_over(process, other)?))
    }

    /// Becomes a predecessor: keeps the connections, and neither reads nor sends itself. The process that serves has a lease of its own.
    pub(super) fn follow(&mut self, successor: ProcessLink) {
        let link = Arc::new(successor);
        self.hub.follow(Arc::clone(&link));
        self.wire = Wire::Successor { link, segments: self.wire.segments() };
        self.lease = Arc::new(SendLease::forever());
        // New clients are the other's.
        self.quinn.set_server_config(None);
        self.resume();
    }

    pub(super) fn is_predecessor(&self) -> bool {
        matches!(self.wire, Wire::Successor { .. })
    }

    /// Has predecessors close their connections and end.
    pub(super) fn finish_links(&self) {
        self.links().for_each(ProcessLink::finish);
    }

    /// Returns whether no connection is left, neither here nor at a predecessor.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.count == 0 && self.hub.predecessors.all.is_empty()
    }

    /// Serves in place of processes that keep their connections.
    pub(super) fn adopt(&mut self, predecessors: Predecessors, sessions: Vec<CarriedSession>) {
        self.hub.adopt(predecessors, sessions);
    }

    /// The links to predecessors.
    pub(super) fn links(&self) -> impl Iterator<Item = &ProcessLink> {
        self.hub.predecessors.all.iter().map(|predecessor| &predecessor.link)
    }

    pub(super) fn next_due(&mut self) -> Instant {
        let round = self.round.due();
        self.connections.timers.next_due().map_or(round, |due| due.min(round))
    }

    /// Reads, runs timers and sends.
    pub(super) fn turn(&mut self, now: Instant) -> TurnResult {
        let successor = match &self.wire {
            Wire::Socket(_) => None,
            Wire::Successor { link, .. } => Some(Arc::clone(link)),
        };
        let from_clients = match successor {
            None => self.read_socket(now),
            Some(link) => self.read_successor(&link, now),
        };
        let from_predecessors = self.read_predecessors(now);
        let from_workers = self.read_rings(now);
        while let Some(handle) = self.connections.timers.take(now) {
            if let Some(client) = self.connections.get_mut(handle) {
                client.handle_timeout(now, &mut self.hub);
            }
            self.connections.touch(handle);
        }
        self.drive(now);
        self.hub.wake_workers();
        TurnResult {
            packets: from_clients.packets + from_predecessors.packets + from_workers.packets,
            more: from_clients.more || from_predecessors.more || from_workers.more,
        }
    }

    /// Runs when due: reports the paths of a share of the sessions and, once per round, closes connections without a
    /// session.
    fn look_round(&mut self, now: Instant) {
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
            && !send(&self.wire, &self.lease, &transmit, &bytes)
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
                client.end(&mut self.hub);
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
        let segments = self.wire.segments();
        loop {
            client.pass_datagrams(now, &self.hub.counters);
            self.packet.clear();
            let Some(transmit) = client.connection.poll_transmit(now, segments, &mut self.packet)
            else {
                return true;
            };
            client.count_sent(&self.hub.counters);
            if !send(&self.wire, &self.lease, &transmit, &self.packet) {
                self.blocked = Some((transmit, std::mem::take(&mut self.packet)));
                return false;
            }
        }
    }

    /// Runs the round when due, and a turn.
    pub(super) fn guarded_turn(&mut self, now: Instant) -> TurnResult {
        self.connections.accessed = None;
        let turn = AssertUnwindSafe(|| {
            self.look_round(now);
            self.turn(now)
        });
        catch_unwind(turn).unwrap_or_else(|panic| {
            self.isolate_panic(panic);
            TurnResult { packets: 0, more: true }
        })
    }

    /// Forgets the connection that was accessed when the panic occurred; its client gets a stateless reset (RFC 9000,
    /// 10.3). Resumes the panic, which ends the process, if no connection was accessed.
    #[cold]
    fn isolate_panic(&mut self, panic: Box<dyn Any + Send>) {
        let (location, message) = panics::describe(&*panic);
        let Some(handle) = self.connections.accessed.take() else {
            tracing::error!(panic = message, %location, "panic outside of a connection; gateway ends");
            resume_unwind(panic);
        };
        tracing::error!(panic = message, %location, "QUIC packet caused a panic; connection ends");
        if let Some(client) = self.connections.get_mut(handle) {
            client.end(&mut self.hub);
        }
        self.forget(handle);
    }

    /// Forgets an ended connection at once. Its client gets a stateless reset if it sends more.
    fn forget(&mut self, handle: ConnectionHandle) {
        self.connections.remove(handle);
        self.connections.accessed = None;
        let _ = self.quinn.handle_event(handle, EndpointEvent::drained());
    }

    fn read_socket(&mut self, now: Instant) -> TurnResult {
        let mut look = TurnResult { packets: 0, more: !self.is_paused };
        let mut spent = 0;
        while spent < DATAGRAMS_PER_TURN {
            if let Some((from, datagram)) = self.received.pop_front() {
                look.packets += 1;
                let before = self.connections.count;
                self.take_datagram(from, datagram, now);
                let is_handshake = self.connections.count > before;
                spent += if is_handshake { DATAGRAMS_PER_HANDSHAKE } else { 1 };
                continue;
            }
            // Lets workers start on the packets read so far.
            self.hub.wake_workers();
            if !look.more {
                return look;
            }
            let Wire::Socket(socket) = &mut self.wire else { return look };
            match socket.receive(&mut self.received) {
                Some(more) => {
                    count(&self.hub.counters.reads);
                    look.more = more;
                }
                None => return TurnResult { more: false, ..look },
            }
        }
        look.more |= !self.received.is_empty();
        look
    }

    /// Reads a predecessor's part from the process that serves: datagrams of its clients, and packets to them.
    fn read_successor(&mut self, link: &ProcessLink, now: Instant) -> TurnResult {
        let mut buffer = [0; MESSAGE_MAX];
        for packets in 0..DATAGRAMS_PER_TURN {
            match link.receive(&mut buffer) {
                LinkRead::Datagram { client, bytes, .. } => {
                    self.take_datagram(client, BytesMut::from(bytes), now);
                }
                LinkRead::Item(meta, bytes) => self.take_packet(&meta, bytes, now),
                LinkRead::Unknown => {}
                LinkRead::Nothing => return TurnResult { packets, more: false },
                LinkRead::Ended => {
                    self.is_abandoned = true;
                    return TurnResult { packets, more: false };
                }
            }
        }
        TurnResult { packets: DATAGRAMS_PER_TURN, more: true }
    }

    /// Reads packets of predecessors' clients, and sends datagrams to these.
    fn read_predecessors(&mut self, now: Instant) -> TurnResult {
        let mut look = TurnResult::default();
        if self.is_paused || self.hub.predecessors.all.is_empty() {
            return look;
        }
        let mut buffer = [0; MESSAGE_MAX];
        // From the end, since one that has ended is removed.
        for place in (0..self.hub.predecessors.all.len()).rev() {
            let mut taken = 0;
            while taken < DATAGRAMS_PER_TURN && self.blocked.is_none() {
                match self.hub.read_predecessor(place, &mut buffer) {
                    LinkRead::Datagram { client, segment, bytes } => {
                        self.send_for_predecessor(client, segment, bytes);
                    }
                    LinkRead::Item(meta, bytes) => self.hub.take_item(place, meta, bytes, now),
                    LinkRead::Unknown => {}
                    LinkRead::Nothing => break,
                    LinkRead::Ended => {
                        self.hub.part_predecessor(place);
                        break;
                    }
                }
                taken += 1;
            }
            look.packets += taken;
            look.more |= taken == DATAGRAMS_PER_TURN;
        }
        self.hub.wake_workers();
        look
    }

    fn send_for_predecessor(&mut self, client: From, segment: Option<usize>, bytes: &[u8]) {
        let From { source: destination, local: src_ip, ecn } = client;
        let size = bytes.len();
        let transmit = Transmit { destination, ecn, size, segment_size: segment, src_ip };
        if !send(&self.wire, &self.lease, &transmit, bytes) {
            self.blocked = Some((transmit, bytes.to_vec()));
        }
    }

    fn take_datagram(&mut self, from: From, datagram: BytesMut, now: Instant) {
        if let Some(predecessor) = self.hub.predecessors.issuer(&datagram) {
            if !predecessor.link.send_datagram(from, None, &datagram) {
                count(&self.hub.counters.predecessors_full);
            }
            return;
        }
        let From { source, local, ecn } = from;
        self.packet.clear();
        // Until quinn finds the connection, a panic belongs to none.
        self.connections.accessed = None;
        match self.quinn.handle(now, source, local, ecn, datagram, &mut self.packet) {
            None => {}
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(client) = self.connections.get_mut(handle) {
                    client.connection.handle_event(event);
                    client.read_datagrams(now, &mut self.hub);
                }
                self.connections.touch(handle);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(incoming, now),
            Some(DatagramEvent::Response(transmit)) => self.respond(&transmit),
        }
    }

    /// Accepts, retries, ignores or refuses a connection. The limits include connections that are closed but not
    /// forgotten, because they still use memory.
    ///
    /// At the limit a client with a validated address displaces a connection without a session, so that clients of a few
    /// sources cannot hold all places.
    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let counters = Arc::clone(&self.hub.counters);
        let (held, most) = (self.connections.count, self.settings.connections_max);
        let of_source = self.connections.sources.of(ClientNetwork::of(incoming.remote_address()));
        let most_of_source = self.settings.connections_per_source;
        self.packet.clear();
        if of_source.connections >= most_of_source {
            count(&counters.source_refused);
            return self.refuse(incoming);
        }
        let unvalidated_max = UNVALIDATED_MAX.min(most_of_source / 2);
        let is_crowded = held >= most / 2 || of_source.handshakes >= unvalidated_max;
        if is_crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            // `may_retry` was checked, so this cannot fail.
            if let Ok(retry) = self.quinn.retry(incoming, &mut self.packet) {
                count(&counters.retries);
                self.respond(&retry);
            }
            return;
        }
        if of_source.handshakes >= self.settings.handshakes_per_source {
            count(&counters.handshakes_deferred);
            return self.quinn.ignore(incoming);
        }
        if held >= most && !(incoming.remote_address_validated() && self.displace(now)) {
            count(&counters.connections_refused);
            return self.refuse(incoming);
        }
        self.packet.clear();
        match self.quinn.accept(incoming, now, &mut self.packet, None) {
            // The client's first packet closed the connection. quinn would keep it until the idle timeout, and such a
            // packet can be sent with a forged source.
            Ok((handle, connection)) if connection.is_closed() => {
                count(&counters.handshakes_failed);
                let _ = self.quinn.handle_event(handle, EndpointEvent::drained());
            }
            Ok((handle, connection)) => {
                count(&counters.connections);
                let until = now + self.settings.handshake_within;
                self.connections.insert(ClientConnection::new(handle, connection, until));
            }
            Err(error) => {
                count(&counters.handshakes_failed);
                if let Some(response) = error.response {
                    self.respond(&response);
                }
            }
        }
    }

    fn refuse(&mut self, incoming: Incoming) {
        self.packet.clear();
        let refusal = self.quinn.refuse(incoming, &mut self.packet);
        self.respond(&refusal);
    }

    /// Closes a connection without a session for a new one. Returns whether there was one.
    fn displace(&mut self, now: Instant) -> bool {
        let QuicEndpoint { connections, hub, .. } = self;
        let oldest = connections.oldest_of_largest_source(|client| hub.carries_session(client));
        let Some(oldest) = oldest else { return false };
        count(&hub.counters.displaced);
        if let Some(client) = connections.get_mut(oldest) {
            let why = b"another client needs the place; connect again with a flow of a session";
            client.close(roq::ErrorCode::General, why, now, hub);
        }
        if self.blocked.is_none() {
            self.transmit(oldest, now);
        }
        self.forget(oldest);
        true
    }

    /// Answers a client without a connection. A full socket drops the answer; the client will retry.
    fn respond(&self, transmit: &Transmit) {
        if self.blocked.is_none() {
            let _ = send(&self.wire, &self.lease, transmit, &self.packet);
        }
    }

    fn read_rings(&mut self, now: Instant) -> TurnResult {
        let mut look = TurnResult::default();
        let mut rings = std::mem::take(&mut self.rings);
        let read = catch_unwind(AssertUnwindSafe(|| {
            for ring in &mut rings {
                let taken =
                    ring.pop_batch(RING_BATCH, |meta, bytes| self.take_packet(meta, bytes, now));
                look.packets += taken;
                look.more |= taken == RING_BATCH;
            }
        }));
        self.rings = rings;
        read.unwrap_or_else(|panic| resume_unwind(panic));
        look
    }

    fn take_packet(&mut self, meta: &RingMeta, packet: &[u8], now: Instant) {
        match meta.kind {
            RingItem::ToClient(terms) => self.send(*meta, terms, packet, now),
            // These come from a process of an earlier version, which does not tell sound from video.
            RingItem::Rtp | RingItem::Rtcp => {
                let latency_ms = SendTerms::LATENCY_MS_MAX;
                let terms = SendTerms { priority: PacketPriority::Video, latency_ms };
                self.send(*meta, terms, packet, now);
            }
            // These two come from the process that serves.
            RingItem::Detached => self.hub.unlearn(meta.home, meta.flow, now),
            RingItem::Attached => self.hub.learn(meta.home, meta.flow),
            // Nothing sends these kinds to the endpoint.
            RingItem::Path(_) | RingItem::Relayed => {}
        }
    }

    /// Queues a packet for the session's client: in a DATAGRAM if it fits, otherwise in a separate stream.
    fn send(&mut self, meta: RingMeta, terms: SendTerms, packet: &[u8], now: Instant) {
        let counters = &self.hub.counters;
        let flow = roq::FlowId::new(meta.flow);
        let client = match self.hub.carrier(meta.home) {
            Some(Carrier::Own(handle)) => self.connections.get_mut(handle),
            Some(Carrier::Predecessor(process)) => {
                if self.hub.tell_predecessor(process, meta, packet) {
                    count(&counters.sent_by_predecessors);
                }
                return;
            }
            None => None,
        };
        let (Some(flow), Some(client)) = (flow, client.filter(|client| client.is_open())) else {
            return count(&counters.unattached);
        };
        let framed = datagram(client.datagram_prefix(), flow, packet, &mut self.framed);
        let until = now + Duration::from_millis(terms.latency_ms.into());
        if client.takes_datagram(framed.len()) {
            let bytes_max = self.settings.datagram_queue_bytes;
            client.queue_datagram(framed, terms.priority, until, bytes_max, counters);
        } else {
            let mut bytes = Vec::with_capacity(packet.len() + 32);
            bytes.extend_from_slice(client.stream_prefix());
            roq::write_stream_start(flow, &mut bytes);
            roq::write_stream_packet(packet, &mut bytes);
            client.send_stream(bytes.into(), until, self.settings.streams_out_max, &self.hub);
        }
        let handle = client.handle;
        self.connections.touch(handle);
    }
}

/// Sends a packet unless the lease has ended, which blocks like a full buffer. Returns whether it was taken.
fn send(wire: &Wire, lease: &SendLease, transmit: &Transmit, bytes: &[u8]) -> bool {
    lease.is_held(Instant::now) && wire.send(transmit, bytes)
}

/// Frames a packet in separately allocated memory. Packets may wait in a queue, and the queue's limit in bytes holds
/// only if they share no memory.
fn datagram(prefix: &[u8], flow: roq::FlowId, packet: &[u8], framed: &mut Vec<u8>) -> Bytes {
    framed.clear();
    framed.extend_from_slice(prefix);
    roq::write_datagram(flow, packet, framed);
    Bytes::copy_from_slice(framed)
}

#[cfg(test)]
mod tests;
