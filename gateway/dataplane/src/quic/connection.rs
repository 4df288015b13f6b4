//! One client's connection, from its handshake to its end.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel_media::roq;
use quinn_proto::crypto::rustls::HandshakeData;
use quinn_proto::{Connection, ConnectionHandle, Dir, Event, StreamEvent, StreamId, VarInt};

use super::code;
use super::congestion::SendRoom;
use super::counters::{Counters, count};
use super::http3::{self, Http3, Http3Context, Http3Error};
use super::hub::{Hub, PathStatistics, Rejected};
use super::send_queue::SendQueue;
use super::streams::{IncomingStream, OutgoingStreams};
use crate::ring::{PacketPriority, SendTerms};

/// DATAGRAMs that quinn gets at once, for one system call. quinn sends as many in a burst before its pacer delays others (`MIN_BURST_SIZE`).
const BATCH: usize = 8;

/// The queue of quinn in bytes, for a batch.
pub(super) const QUINN_QUEUE: usize = 64 * 1_024;

/// The queue for answers to a probe in bytes, as for media by default. A connection has the one or the other.
const ECHO_QUEUE: usize = 64 * 1_024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConnectionStage {
    Handshake {
        until: Instant,
    },
    Open,
    /// The connection is closed; quinn decides when to forget it.
    Ended,
}

pub(super) struct ClientConnection {
    pub(super) handle: ConnectionHandle,
    pub(super) connection: Connection,
    stage: ConnectionStage,
    /// `None`: the client speaks RoQ.
    http3: Option<Box<Http3>>,
    incoming: HashMap<StreamId, IncomingStream>,
    outgoing: OutgoingStreams,
    waiting: SendQueue,
    room: SendRoom,
    read: u64,
    /// DATAGRAMs that quinn has and that are not yet known to be sent.
    queued: u64,
    sent: u64,
}

impl ClientConnection {
    pub(super) fn new(
        handle: ConnectionHandle,
        connection: Connection,
        until: Instant,
    ) -> ClientConnection {
        ClientConnection {
            handle,
            room: SendRoom::of(&connection),
            connection,
            stage: ConnectionStage::Handshake { until },
            http3: None,
            incoming: HashMap::new(),
            outgoing: OutgoingStreams::default(),
            waiting: SendQueue::default(),
            read: 0,
            queued: 0,
            sent: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage == ConnectionStage::Open
    }

    pub(super) fn due(&mut self) -> Option<Instant> {
        let own = match self.stage {
            ConnectionStage::Handshake { until } => Some(until),
            ConnectionStage::Open => self.outgoing.due,
            ConnectionStage::Ended => None,
        };
        let due = [self.connection.poll_timeout(), own, self.waiting.due()];
        due.into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, hub: &mut Hub) {
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.handle_timeout(now);
        }
        match self.stage {
            ConnectionStage::Handshake { until } if until <= now => {
                self.close(roq::ErrorCode::NoError, b"", now, hub);
            }
            ConnectionStage::Open => {
                self.outgoing.expire(&mut self.connection, now, &hub.counters);
                self.waiting.expire(now, &hub.counters);
            }
            ConnectionStage::Handshake { .. } | ConnectionStage::Ended => {}
        }
    }

    /// Returns whether the connection opened.
    pub(super) fn handle_events(&mut self, now: Instant, hub: &mut Hub) -> bool {
        let mut opened = false;
        while let Some(event) = self.connection.poll() {
            if self.stage == ConnectionStage::Ended {
                continue;
            }
            match event {
                Event::Connected => {
                    self.stage = ConnectionStage::Open;
                    opened = true;
                    hub.join(self.handle, now);
                    if speaks_http3(&self.connection) {
                        match Http3::start(&mut self.connection) {
                            Ok(http3) => self.http3 = Some(Box::new(http3)),
                            Err(error) => self.fail(error, now, hub),
                        }
                    }
                }
                Event::ConnectionLost { .. } => {
                    // DATAGRAMs may have arrived before the end.
                    self.read_datagrams(now, hub);
                    self.end(hub);
                }
                Event::Stream(StreamEvent::Opened { dir }) if self.http3.is_some() => {
                    self.with_http3(now, hub, |http3, cx| http3.accept(dir, cx));
                }
                Event::Stream(StreamEvent::Readable { id }) if self.http3.is_some() => {
                    self.with_http3(now, hub, |http3, cx| http3.read(id, cx));
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(id) = self.connection.streams().accept(Dir::Uni) {
                        // The transport parameters bound the number of streams.
                        self.incoming.insert(id, IncomingStream::new());
                        self.read_stream(id, now, hub);
                    }
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    count(&hub.counters.bidirectional);
                    let why = b"media comes in unidirectional streams and DATAGRAMs";
                    self.close(roq::ErrorCode::StreamCreation, why, now, hub);
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read_stream(id, now, hub),
                Event::Stream(event) => {
                    self.outgoing.handle_event(&event, &mut self.connection, &hub.counters);
                }
                // DATAGRAMs are read after every UDP datagram, whatever its events.
                Event::DatagramReceived | Event::DatagramsUnblocked | Event::HandshakeDataReady => {
                }
            }
        }
        opened
    }

    pub(super) fn read_datagrams(&mut self, now: Instant, hub: &mut Hub) {
        while self.stage == ConnectionStage::Open
            && let Some(datagram) = self.connection.datagrams().recv()
        {
            self.read += 1;
            let start = match self.http3.as_ref().map(|http3| http3.payload(&datagram)) {
                None => 0,
                Some(Ok(Some(start))) => start,
                Some(Ok(None)) => {
                    count(&hub.counters.webtransport_sessionless);
                    continue;
                }
                Some(Err(error)) => {
                    self.fail(error, now, hub);
                    continue;
                }
            };
            let probe = self.http3.as_ref().and_then(|http3| http3.probe());
            let echoes = probe.map(|probe| {
                probe.echoes(self.connection.remote_address(), &datagram[start..], now)
            });
            if let Some(echoes) = echoes {
                // One that does not fit is lost.
                if echoes && self.takes_datagram(datagram.len()) {
                    // In memory of its own, as all that may wait in the queue.
                    let answer = Bytes::copy_from_slice(&datagram);
                    let until = now + Duration::from_millis(SendTerms::LATENCY_MS_MAX.into());
                    let priority = PacketPriority::Voice;
                    self.queue_datagram(answer, priority, until, ECHO_QUEUE, &hub.counters);
                }
                continue;
            }
            let (flow, packet) = match roq::read_datagram(&datagram[start..]) {
                Ok((flow, _)) if self.http3.as_ref().is_some_and(|http3| !http3.has_flow(flow)) => {
                    count(&hub.counters.unknown_flow_datagrams);
                    continue;
                }
                Ok(read) => read,
                Err(malformed) => {
                    count(&hub.counters.malformed);
                    let why = malformed.to_string();
                    self.close(roq::ErrorCode::Packet, why.as_bytes(), now, hub);
                    continue;
                }
            };
            match hub.deliver(self.handle, flow, packet, now, |all| &all.received_datagrams) {
                Ok(()) => {}
                Err(Rejected::UnknownFlow) => count(&hub.counters.unknown_flow_datagrams),
                Err(Rejected::NotRtp) => {
                    count(&hub.counters.not_rtp);
                    self.close(roq::ErrorCode::Packet, b"neither RTP nor RTCP", now, hub);
                }
            }
        }
    }

    fn read_stream(&mut self, id: StreamId, now: Instant, hub: &mut Hub) {
        let Some(stream) = self.incoming.get_mut(&id) else { return };
        match stream.read(id, self.handle, &mut self.connection, now, hub) {
            Ok(true) => {}
            Ok(false) => drop(self.incoming.remove(&id)),
            Err(unfinished) => {
                let why = unfinished.to_string();
                self.close(roq::ErrorCode::Packet, why.as_bytes(), now, hub);
            }
        }
    }

    fn with_http3(
        &mut self,
        now: Instant,
        hub: &mut Hub,
        act: impl FnOnce(&mut Http3, &mut Http3Context<'_>) -> Result<(), Http3Error>,
    ) {
        let Some(http3) = &mut self.http3 else { return };
        let (handle, connection) = (self.handle, &mut self.connection);
        let acted = act(http3, &mut Http3Context { handle, connection, hub: &mut *hub, now });
        if let Err(error) = acted {
            self.fail(error, now, hub);
        }
    }

    /// The bytes before RoQ's in a DATAGRAM to the client.
    pub(super) fn datagram_prefix(&self) -> &[u8] {
        self.http3.as_ref().map_or(&[], |http3| http3.datagram_prefix())
    }

    /// The bytes before RoQ's in a stream to the client.
    pub(super) fn stream_prefix(&self) -> &[u8] {
        self.http3.as_ref().map_or(&[], |http3| http3.stream_prefix())
    }

    /// Returns whether the client takes a DATAGRAM of so many bytes now.
    pub(super) fn takes_datagram(&mut self, bytes: usize) -> bool {
        self.connection.datagrams().max_size().is_some_and(|most| bytes <= most)
    }

    /// Queues a DATAGRAM of at most that size, in a queue of so many bytes. It expires at `until`.
    pub(super) fn queue_datagram(
        &mut self,
        datagram: Bytes,
        priority: PacketPriority,
        until: Instant,
        bytes_max: usize,
        counters: &Counters,
    ) {
        self.waiting.push(datagram, priority, until, bytes_max, counters);
    }

    /// Passes queued DATAGRAMs to quinn, as far as the window takes them: what quinn has can neither expire nor be overtaken. There it
    /// waits for the pacer alone, for less than a round trip.
    pub(super) fn pass_datagrams(&mut self, now: Instant, counters: &Counters) {
        if self.waiting.is_empty() || !self.has_passed_all() {
            return;
        }
        self.room.follow(&self.connection);
        for _ in 0..BATCH {
            if !self.room.is_open() {
                return;
            }
            let Some(datagram) = self.waiting.pop(now, counters) else { return };
            self.room.note_queued(datagram.len());
            match self.connection.datagrams().send(datagram, false) {
                Ok(()) => self.queued += 1,
                // The MTU of the path shrank.
                Err(_) => count(&counters.datagrams_dropped),
            }
        }
    }

    /// Returns whether quinn has sent all DATAGRAMs that it got, or dropped them.
    fn has_passed_all(&mut self) -> bool {
        // quinn counts each with a `Bytes`, and one of these as taken.
        let space = self.connection.datagrams().send_buffer_space();
        space + size_of::<Bytes>() >= QUINN_QUEUE
    }

    /// Counts the DATAGRAMs sent since the last call.
    pub(super) fn count_sent(&mut self, counters: &Counters) {
        if self.queued > 0 {
            let sent = self.connection.stats().frame_tx.datagram;
            let left = sent.saturating_sub(self.sent);
            counters.sent_datagrams.fetch_add(left, Ordering::Relaxed);
            self.queued = self.queued.saturating_sub(left);
            self.sent = sent;
        }
    }

    /// Sends a framed packet in a stream of its own, unless `most` are in progress. It expires at `until`.
    pub(super) fn send_stream(&mut self, bytes: Bytes, until: Instant, most: usize, hub: &Hub) {
        self.outgoing.send(bytes, until, most, &mut self.connection, &hub.counters);
    }

    pub(super) fn path(&self) -> PathStatistics {
        let path = self.connection.stats().path;
        PathStatistics { rtt: path.rtt, lost: path.lost_packets, sent: path.sent_packets }
    }

    /// Closes the connection and sends the client the reason.
    pub(super) fn close(&mut self, error: roq::ErrorCode, why: &[u8], now: Instant, hub: &mut Hub) {
        let code = match (&self.http3, error) {
            (None, error) => code(error),
            (Some(_), roq::ErrorCode::Packet) => Http3Error::Datagram.code(),
            (Some(_), _) => http3::NO_ERROR,
        };
        self.close_with(code, why, now, hub);
    }

    /// Closes the connection of a client that violates HTTP/3.
    fn fail(&mut self, error: Http3Error, now: Instant, hub: &mut Hub) {
        count(&hub.counters.http3_errors);
        self.close_with(error.code(), error.to_string().as_bytes(), now, hub);
    }

    fn close_with(&mut self, code: VarInt, why: &[u8], now: Instant, hub: &mut Hub) {
        if self.stage != ConnectionStage::Ended {
            self.connection.close(now, code, Bytes::copy_from_slice(why));
            self.end(hub);
        }
    }

    /// Handles that the connection is closed, or that quinn has forgotten it.
    pub(super) fn end(&mut self, hub: &mut Hub) {
        if self.stage == ConnectionStage::Ended {
            return;
        }
        let counters = &hub.counters;
        counters.connections.fetch_sub(1, Ordering::Relaxed);
        match mem::replace(&mut self.stage, ConnectionStage::Ended) {
            ConnectionStage::Open => {
                let received = self.connection.stats().frame_rx.datagram;
                let unread = received.saturating_sub(self.read);
                counters.receive_overflow.fetch_add(unread, Ordering::Relaxed);
                // Queued DATAGRAMs are no longer sent.
                let unsent = mem::take(&mut self.queued) + self.waiting.clear() as u64;
                counters.datagrams_dropped.fetch_add(unsent, Ordering::Relaxed);
                self.outgoing.end(counters);
                hub.part(self.handle);
            }
            ConnectionStage::Handshake { .. } => count(&counters.handshakes_failed),
            ConnectionStage::Ended => {}
        }
        self.incoming.clear();
        self.http3 = None;
    }
}

/// Returns whether the client chose HTTP/3 in the handshake.
fn speaks_http3(connection: &Connection) -> bool {
    let data = connection.crypto_session().handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|protocol| protocol == http3::ALPN)
}
