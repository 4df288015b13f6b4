//! A stream that a client opened, read to its end or to the first thing that is wrong with it.

use std::time::Instant;

use evenkeel_media::roq;
use quinn_proto::{Chunks, Connection, ConnectionHandle, ReadError, StreamId};

use super::code;
use super::counters::count;
use super::hub::{Hub, Rejected};
use crate::ring;

pub(super) struct Incoming {
    decoder: roq::StreamDecoder,
    flow: Option<roq::Flow>,
}

/// What became of what could be read.
enum Read {
    /// More may come.
    Blocked,
    /// Nothing more comes: it is whole, or the client reset it. What was not whole is lost then, and that is what it
    /// wanted.
    Over,
    /// Nothing more is wanted.
    Stop(roq::ErrorCode),
}

impl Incoming {
    pub(super) fn new() -> Incoming {
        Incoming { decoder: roq::StreamDecoder::new(ring::PACKET_MAX), flow: None }
    }

    /// Reads what there is. Whether there may be more.
    ///
    /// # Errors
    /// It ended within a packet.
    pub(super) fn read(
        &mut self,
        id: StreamId,
        line: ConnectionHandle,
        connection: &mut Connection,
        now: Instant,
        hub: &mut Hub,
    ) -> Result<bool, roq::Malformed> {
        let mut stream = connection.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return Ok(false) };
        let read = self.take(&mut chunks, line, now, hub);
        // Whether there is credit to tell of is found out when packets are made.
        let _ = chunks.finalize();
        match read? {
            Read::Blocked => Ok(true),
            Read::Over => Ok(false),
            Read::Stop(error) => {
                // The client may have reset it by now; then there is nothing left to stop.
                let _ = connection.recv_stream(id).stop(code(error));
                Ok(false)
            }
        }
    }

    fn take(
        &mut self,
        chunks: &mut Chunks<'_>,
        line: ConnectionHandle,
        now: Instant,
        hub: &mut Hub,
    ) -> Result<Read, roq::Malformed> {
        loop {
            let chunk = match chunks.next(ring::PACKET_MAX) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    return match self.decoder.finish() {
                        Ok(()) => Ok(Read::Over),
                        Err(unfinished) => {
                            count(&hub.counters.malformed);
                            Err(unfinished)
                        }
                    };
                }
                Err(ReadError::Blocked) => return Ok(Read::Blocked),
                Err(ReadError::Reset(_)) => return Ok(Read::Over),
            };
            if let Some(error) = self.decode(&chunk.bytes, line, now, hub) {
                return Ok(Read::Stop(error));
            }
        }
    }

    /// Delivers the packets in it. What the stream is to be stopped with, if anything is wrong.
    fn decode(
        &mut self,
        mut input: &[u8],
        line: ConnectionHandle,
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
                    hub.deliver(line, flow, packet, now, |all| &all.received_in_streams).err()
                }
                Err(malformed) => {
                    count(match malformed {
                        roq::Malformed::TooLong { .. } => &hub.counters.oversize,
                        roq::Malformed::Flow
                        | roq::Malformed::Empty
                        | roq::Malformed::Unfinished => &hub.counters.malformed,
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
