//! Streams of a connection: a client's, each read until its end or its first error, and those to the client, one packet each,
//! for packets that are too large for a DATAGRAM.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use evenkeel_media::roq;
use quinn_proto::{
    Chunks, Connection, ConnectionHandle, Dir, ReadError, StreamEvent, StreamId, WriteError,
};

use super::code;
use super::counters::{Counters, count};
use super::hub::{Hub, Rejected};
use crate::ring;

pub(super) struct IncomingStream {
    decoder: roq::StreamDecoder,
    flow: Option<roq::FlowId>,
}

enum StreamRead {
    /// More data may arrive.
    Blocked,
    /// The stream is finished, or the client has reset it and dropped an incomplete packet.
    Over,
    /// The gateway stopped the stream.
    Stop(roq::ErrorCode),
}

impl IncomingStream {
    pub(super) fn new() -> IncomingStream {
        IncomingStream { decoder: roq::StreamDecoder::new(ring::PACKET_MAX), flow: None }
    }

    /// Reads available data. Returns whether more may arrive. Fails if the stream ended within a packet.
    pub(super) fn read(
        &mut self,
        id: StreamId,
        client: ConnectionHandle,
        connection: &mut Connection,
        now: Instant,
        hub: &mut Hub,
    ) -> Result<bool, roq::RoqError> {
        let mut stream = connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return Ok(false) };
        let read = self.take(&mut chunks, client, now, hub);
        // Flow-control updates go out with the next packets.
        let _ = chunks.finalize();
        match read? {
            StreamRead::Blocked => Ok(true),
            StreamRead::Over => Ok(false),
            StreamRead::Stop(error) => {
                // Fails if the client has reset the stream, which then needs no stop.
                let _ = connection.recv_stream(id).stop(code(error));
                Ok(false)
            }
        }
    }

    fn take(
        &mut self,
        chunks: &mut Chunks<'_>,
        client: ConnectionHandle,
        now: Instant,
        hub: &mut Hub,
    ) -> Result<StreamRead, roq::RoqError> {
        loop {
            let chunk = match chunks.next(ring::PACKET_MAX) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    return match self.decoder.finish() {
                        Ok(()) => Ok(StreamRead::Over),
                        Err(unfinished) => {
                            count(&hub.counters.malformed);
                            Err(unfinished)
                        }
                    };
                }
                Err(ReadError::Blocked) => return Ok(StreamRead::Blocked),
                Err(ReadError::Reset(_)) => return Ok(StreamRead::Over),
            };
            if let Some(error) = self.decode(&chunk.bytes, client, now, hub) {
                return Ok(StreamRead::Stop(error));
            }
        }
    }

    /// Delivers the packets in `input`. Returns the error to stop the stream with, if any.
    fn decode(
        &mut self,
        mut input: &[u8],
        client: ConnectionHandle,
        now: Instant,
        hub: &mut Hub,
    ) -> Option<roq::ErrorCode> {
        loop {
            let rejected = match self.decoder.next(&mut input) {
                Ok(None) => return None,
                Ok(Some(roq::Item::Flow(found))) => {
                    self.flow = Some(found);
                    hub.is_unknown(found).then_some(Rejected::UnknownFlow)
                }
                Ok(Some(roq::Item::Packet(packet))) => {
                    let flow = self.flow.expect("a stream's flow comes before its packets");
                    hub.deliver(client, flow, packet, now, |all| &all.received_in_streams).err()
                }
                Err(malformed) => {
                    count(match malformed {
                        roq::RoqError::TooLong { .. } => &hub.counters.oversize,
                        roq::RoqError::Flow | roq::RoqError::Empty | roq::RoqError::Unfinished => {
                            &hub.counters.malformed
                        }
                    });
                    return Some(roq::ErrorCode::Packet);
                }
            };
            match rejected {
                None => {}
                Some(Rejected::UnknownFlow) => {
                    count(&hub.counters.unknown_flow_streams);
                    return Some(roq::ErrorCode::UnknownFlow);
                }
                Some(Rejected::NotRtp) => {
                    count(&hub.counters.not_rtp);
                    return Some(roq::ErrorCode::Packet);
                }
            }
        }
    }
}

struct UnsentStream {
    /// Bytes not written yet.
    rest: Bytes,
    /// Time after which the packet is too old to be retransmitted.
    until: Instant,
}

#[derive(Default)]
pub(super) struct OutgoingStreams {
    /// Packets beyond the client's stream limit, oldest first.
    waiting: VecDeque<UnsentStream>,
    open: HashMap<StreamId, UnsentStream>,
    /// Time when the first packet may expire.
    pub(super) due: Option<Instant>,
}

impl OutgoingStreams {
    /// Sends a framed packet, unless the limit of packets in progress is reached.
    pub(super) fn send(
        &mut self,
        rest: Bytes,
        until: Instant,
        most: usize,
        connection: &mut Connection,
        counters: &Counters,
    ) {
        if self.waiting.len() + self.open.len() >= most {
            return count(&counters.streams_full);
        }
        self.due = Some(self.due.map_or(until, |due| due.min(until)));
        self.waiting.push_back(UnsentStream { rest, until });
        self.open_waiting(connection, counters);
    }

    pub(super) fn handle_event(
        &mut self,
        event: &StreamEvent,
        connection: &mut Connection,
        counters: &Counters,
    ) {
        match *event {
            StreamEvent::Available { dir: Dir::Uni } => self.open_waiting(connection, counters),
            StreamEvent::Writable { id } => self.write(id, connection, counters),
            StreamEvent::Finished { id } => {
                if self.open.remove(&id).is_some() {
                    count(&counters.sent_in_streams);
                }
            }
            StreamEvent::Stopped { id, .. } => self.stopped(id, connection, counters),
            StreamEvent::Available { dir: Dir::Bi }
            | StreamEvent::Opened { .. }
            | StreamEvent::Readable { .. } => {}
        }
    }

    /// Drops packets that are too old and resets their streams.
    pub(super) fn expire(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        counters: &Counters,
    ) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        while self.waiting.front().is_some_and(|sending| sending.until <= now) {
            self.waiting.pop_front();
            count(&counters.streams_late);
        }
        self.open.retain(|id, sending| {
            let late = sending.until <= now;
            if late {
                // Fails only if the stream is already closed.
                let _ = connection.send_stream(*id).reset(code(roq::ErrorCode::FrameCancelled));
                count(&counters.streams_late);
            }
            !late
        });
        self.due = self.waiting.iter().chain(self.open.values()).map(|s| s.until).min();
    }

    /// Counts all packets in progress as stopped.
    pub(super) fn end(&mut self, counters: &Counters) {
        let stopped = self.waiting.len() + self.open.len();
        counters.streams_stopped.fetch_add(stopped as u64, Ordering::Relaxed);
        *self = OutgoingStreams::default();
    }

    fn open_waiting(&mut self, connection: &mut Connection, counters: &Counters) {
        while !self.waiting.is_empty()
            && let Some(id) = connection.streams().open(Dir::Uni)
            && let Some(sending) = self.waiting.pop_front()
        {
            self.open.insert(id, sending);
            self.write(id, connection, counters);
        }
    }

    fn write(&mut self, id: StreamId, connection: &mut Connection, counters: &Counters) {
        // A stream without remaining bytes is waiting for its acknowledgement.
        let sending = self.open.get_mut(&id).filter(|sending| !sending.rest.is_empty());
        let Some(sending) = sending else { return };
        let mut stream = connection.send_stream(id);
        while !sending.rest.is_empty() {
            match stream.write_chunks(std::slice::from_mut(&mut sending.rest)) {
                Ok(_) => {}
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return self.stopped(id, connection, counters);
                }
            }
        }
        if stream.finish().is_err() {
            self.stopped(id, connection, counters);
        }
    }

    /// Handles that the client stopped the stream.
    fn stopped(&mut self, id: StreamId, connection: &mut Connection, counters: &Counters) {
        if self.open.remove(&id).is_some() {
            // Fails only if the stream is already closed.
            let _ = connection.send_stream(id).reset(code(roq::ErrorCode::FrameCancelled));
            count(&counters.streams_stopped);
        }
    }
}
