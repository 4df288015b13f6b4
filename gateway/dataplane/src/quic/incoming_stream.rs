//! A stream that a client opened; it is read until its end or its first error.

use std::time::Instant;

use evenkeel_media::roq;
use quinn_proto::{Chunks, Connection, ConnectionHandle, ReadError, StreamId};

use super::code;
use super::counters::count;
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

    /// Reads available data. Returns whether more may arrive.
    ///
    /// # Errors
    /// Fails if the stream ended within a packet.
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
                    hub.home(found).is_none().then_some(Rejected::UnknownFlow)
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
