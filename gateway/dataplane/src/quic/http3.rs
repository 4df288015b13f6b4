//! WebTransport: one session per connection, which an extended CONNECT of HTTP/3 opens (draft-ietf-webtrans-http3-02 and -07, RFC 9114,
//! RFC 9220). The payload of its DATAGRAMs (RFC 9297) is that of RoQ.
//!
//! The query of the request has the flow identifier of a session: `/roq?token=…`. From the answer on the session uses the connection.
//! Packets that are too large for a DATAGRAM go to the client in streams of WebTransport, as RoQ frames them.
//!
//! Or the request is that of a client's probe: `/probe?id=…&token=…`. Its DATAGRAMs are answered by their own bytes.
//!
//! `web-transport-proto` has the codec of SETTINGS and field sections. No table of QPACK grows: the announced capacity is 0.
//!
//! | error | handling |
//! |---|---|
//! | another path | status 404 |
//! | a token that is the flow of no session, or opens no session of a probe | status 403 |
//! | another method | status 405 |
//! | another protocol, or a client without DATAGRAMs of HTTP/3 | status 501 |
//! | a second session | stream reset with H3_REQUEST_REJECTED |
//! | a stream of WebTransport | stream reset with WEBTRANSPORT_BUFFERED_STREAM_REJECTED |
//! | a DATAGRAM of no open session, or of another flow | dropped, counted |
//! | a violation of HTTP/3, a DATAGRAM that is no packet | connection closed with the code of [`Http3Error`] |

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use evenkeel_media::roq::FlowId;
use quinn_proto::{Connection, ConnectionHandle, Dir, ReadError, StreamId, VarInt, WriteError};
use web_transport_proto::http::StatusCode;
use web_transport_proto::{
    ConnectError, ConnectRequest, ConnectResponse, Frame, Setting, Settings, StreamUni,
};

pub(super) use self::error::Http3Error;
use self::frames::{FrameReader, ReadFrame};
use super::counters::count;
use super::hub::Hub;
use crate::client_probes::ClientProbe;
use crate::flows::Home;

mod error;
mod frames;

/// The ALPN protocol name (RFC 9114, section 3.1).
pub(super) const ALPN: &[u8] = b"h3";

const PATH: &str = "/roq";
const PROBE_PATH: &str = "/probe";
const PROBE_ID: &str = "id";
const TOKEN: &str = "token";

/// Requests of a client in progress: that of the session, and one that is refused.
const REQUESTS_MAX: VarInt = VarInt::from_u32(2);

/// Bytes of a stream that are handled at a time.
const PIECE_MAX: usize = 4 * 1_024;

/// The largest quarter stream ID (RFC 9297, section 2.1).
const QUARTER_ID_MAX: u64 = (1 << 60) - 1;

pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
const STREAM_CREATION_ERROR: VarInt = VarInt::from_u32(0x103);
const REQUEST_REJECTED: VarInt = VarInt::from_u32(0x10b);
const REQUEST_INCOMPLETE: VarInt = VarInt::from_u32(0x10d);
const WEBTRANSPORT_BUFFERED_STREAM_REJECTED: VarInt = VarInt::from_u32(0x3994_bd84);

/// Frames that belong to other streams than one of a request, and those of HTTP/2 (RFC 9114, section 7.2.8).
const NOT_IN_REQUESTS: [u32; 9] = [0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xd];
/// Frames that belong to requests, and those of HTTP/2.
const NOT_IN_CONTROL: [u32; 7] = [0x0, 0x1, 0x2, 0x5, 0x6, 0x8, 0x9];
/// Settings of HTTP/2 (RFC 9114, section 7.2.4.1).
const RESERVED_SETTINGS: [u32; 4] = [0x2, 0x3, 0x4, 0x5];

/// The URL of a session at one address of the endpoint.
pub fn webtransport_url(address: SocketAddr, flow_to_gateway: u64) -> String {
    format!("https://{address}{PATH}?{TOKEN}={flow_to_gateway}")
}

/// The URL of a probe at one address of the endpoint.
pub fn probe_url(address: SocketAddr, id: &str, password: &str) -> String {
    format!("https://{address}{PROBE_PATH}?{PROBE_ID}={id}&{TOKEN}={password}")
}

/// The client's connection, and the sessions that it may use.
pub(super) struct Http3Context<'a> {
    pub(super) handle: ConnectionHandle,
    pub(super) connection: &'a mut Connection,
    pub(super) hub: &'a mut Hub,
    pub(super) now: Instant,
}

pub(super) struct Http3 {
    /// Types of the streams that a client opens at most once.
    opened: Vec<StreamUni>,
    /// True if the client receives DATAGRAMs of HTTP/3; `None` before its SETTINGS.
    has_datagrams: Option<bool>,
    /// The transport parameters bound the number of streams.
    streams: HashMap<StreamId, Http3Stream>,
    session: Option<WebTransportSession>,
}

enum Http3Stream {
    /// A unidirectional stream with an incomplete type.
    Untyped(Vec<u8>),
    Control(FrameReader),
    /// A stream of QPACK; its instructions have no effect on a table of capacity 0.
    Qpack,
    Request(FrameReader),
    /// A request that waits for the client's SETTINGS, and the bytes after it.
    Waiting {
        request: Vec<u8>,
        rest: Vec<u8>,
    },
    /// The request of the open session.
    Open(FrameReader),
}

struct WebTransportSession {
    purpose: SessionPurpose,
    quarter_id: u64,
    datagram_prefix: Vec<u8>,
    stream_prefix: Vec<u8>,
}

/// The content of a session of WebTransport.
enum SessionPurpose {
    Media {
        home: Home,
        /// The only flow towards the gateway.
        flow: FlowId,
    },
    Probe(Arc<ClientProbe>),
}

enum Piece {
    Bytes(Bytes),
    Blocked,
    Finished,
    Reset,
}

impl Http3 {
    /// Sends SETTINGS.
    pub(super) fn start(connection: &mut Connection) -> Result<Http3, Http3Error> {
        connection.set_max_concurrent_streams(Dir::Bi, REQUESTS_MAX);
        let mut settings = Settings::default();
        settings.enable_webtransport(1);
        let mut bytes = Vec::new();
        settings.encode(&mut bytes);
        let id = connection.streams().open(Dir::Uni).ok_or(Http3Error::NoCredit)?;
        write(connection, id, &bytes)?;
        Ok(Http3 {
            opened: Vec::new(),
            has_datagrams: None,
            streams: HashMap::new(),
            session: None,
        })
    }

    /// Returns the offset of RoQ's DATAGRAM in one of the open session; `None` for others.
    pub(super) fn payload(&self, datagram: &[u8]) -> Result<Option<usize>, Http3Error> {
        let mut rest = datagram;
        let quarter_id = web_transport_proto::VarInt::decode(&mut rest);
        let quarter_id = quarter_id.map_err(|_| Http3Error::Datagram)?.into_inner();
        if quarter_id > QUARTER_ID_MAX {
            return Err(Http3Error::Datagram);
        }
        let is_open = self.session.as_ref().is_some_and(|open| open.quarter_id == quarter_id);
        Ok(is_open.then(|| datagram.len() - rest.len()))
    }

    /// Returns whether the open session has this flow towards the gateway.
    pub(super) fn has_flow(&self, flow: FlowId) -> bool {
        let purpose = self.session.as_ref().map(|open| &open.purpose);
        matches!(purpose, Some(SessionPurpose::Media { flow: own, .. }) if *own == flow)
    }

    /// The probe of the open session.
    pub(super) fn probe(&self) -> Option<&ClientProbe> {
        match &self.session.as_ref()?.purpose {
            SessionPurpose::Media { .. } => None,
            SessionPurpose::Probe(probe) => Some(probe),
        }
    }

    /// The bytes before RoQ's in a DATAGRAM to the client.
    pub(super) fn datagram_prefix(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], |open| &open.datagram_prefix)
    }

    /// The bytes before RoQ's in a stream to the client.
    pub(super) fn stream_prefix(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], |open| &open.stream_prefix)
    }

    /// Accepts new streams of the client, and reads them.
    pub(super) fn accept(&mut self, dir: Dir, cx: &mut Http3Context<'_>) -> Result<(), Http3Error> {
        while let Some(id) = cx.connection.streams().accept(dir) {
            let stream = match dir {
                Dir::Uni => Http3Stream::Untyped(Vec::new()),
                Dir::Bi => Http3Stream::Request(FrameReader::default()),
            };
            self.streams.insert(id, stream);
            self.read(id, cx)?;
        }
        Ok(())
    }

    /// Reads available data of a stream.
    pub(super) fn read(
        &mut self,
        id: StreamId,
        cx: &mut Http3Context<'_>,
    ) -> Result<(), Http3Error> {
        while let Some(stream) = self.streams.get(&id)
            && !matches!(stream, Http3Stream::Waiting { .. })
        {
            match read_piece(cx.connection, id) {
                Piece::Bytes(bytes) => self.take(id, &bytes, cx)?,
                Piece::Blocked => return Ok(()),
                Piece::Finished => self.end(id, true, cx)?,
                Piece::Reset => self.end(id, false, cx)?,
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        id: StreamId,
        mut input: &[u8],
        cx: &mut Http3Context<'_>,
    ) -> Result<(), Http3Error> {
        while let Some(stream) = self.streams.get_mut(&id) {
            match stream {
                Http3Stream::Untyped(held) => {
                    let Some(kind) = take_type(held, &mut input) else { return Ok(()) };
                    self.note_type(id, kind, cx.connection)?;
                }
                Http3Stream::Qpack | Http3Stream::Waiting { .. } => return Ok(()),
                Http3Stream::Control(reader) => {
                    let Some(frame) = reader.next(&mut input)? else { return Ok(()) };
                    self.handle_control(&frame, cx)?;
                }
                Http3Stream::Request(reader) => {
                    let Some(ReadFrame { kind, bytes }) = reader.next(&mut input)? else {
                        return Ok(());
                    };
                    match kind {
                        Frame::HEADERS => {
                            *stream = Http3Stream::Waiting { request: bytes, rest: input.to_vec() };
                            return self.answer(id, cx);
                        }
                        Frame::WEBTRANSPORT => {
                            let code = WEBTRANSPORT_BUFFERED_STREAM_REJECTED;
                            self.reject(id, code, cx);
                        }
                        Frame::DATA => return Err(Http3Error::FrameUnexpected),
                        kind => require_not_in(&NOT_IN_REQUESTS, kind)?,
                    }
                }
                // DATA carries capsules. The end of the stream is the end of the session, whatever they say.
                Http3Stream::Open(reader) => {
                    let Some(frame) = reader.next(&mut input)? else { return Ok(()) };
                    if frame.kind == Frame::HEADERS {
                        return Err(Http3Error::FrameUnexpected);
                    }
                    require_not_in(&NOT_IN_REQUESTS, frame.kind)?;
                }
            }
        }
        Ok(())
    }

    /// Handles the type of a unidirectional stream.
    fn note_type(
        &mut self,
        id: StreamId,
        kind: StreamUni,
        connection: &mut Connection,
    ) -> Result<(), Http3Error> {
        let stream = match kind {
            StreamUni::CONTROL => Http3Stream::Control(FrameReader::default()),
            StreamUni::QPACK_ENCODER | StreamUni::QPACK_DECODER => Http3Stream::Qpack,
            StreamUni::PUSH => return Err(Http3Error::StreamCreation),
            other => {
                let code = match other {
                    StreamUni::WEBTRANSPORT => WEBTRANSPORT_BUFFERED_STREAM_REJECTED,
                    _ => STREAM_CREATION_ERROR,
                };
                self.streams.remove(&id);
                // Fails if the client has reset the stream, which then needs no stop.
                let _ = connection.recv_stream(id).stop(code);
                return Ok(());
            }
        };
        if self.opened.contains(&kind) {
            return Err(Http3Error::StreamCreation);
        }
        self.opened.push(kind);
        self.streams.insert(id, stream);
        Ok(())
    }

    fn handle_control(
        &mut self,
        frame: &ReadFrame,
        cx: &mut Http3Context<'_>,
    ) -> Result<(), Http3Error> {
        match (frame.kind, self.has_datagrams) {
            (Frame::SETTINGS, None) => self.has_datagrams = Some(read_settings(&frame.bytes)?),
            (_, None) => return Err(Http3Error::MissingSettings),
            (Frame::SETTINGS, Some(_)) => return Err(Http3Error::FrameUnexpected),
            (kind, Some(_)) => return require_not_in(&NOT_IN_CONTROL, kind),
        }
        let mut requests: Vec<StreamId> = self.streams.keys().copied().collect();
        requests.sort_unstable();
        for id in requests {
            if let Some(Http3Stream::Waiting { .. }) = self.streams.get(&id) {
                self.answer(id, cx)?;
                self.read(id, cx)?;
            }
        }
        Ok(())
    }

    /// Answers a request, unless the client's SETTINGS have not arrived.
    fn answer(&mut self, id: StreamId, cx: &mut Http3Context<'_>) -> Result<(), Http3Error> {
        let Some(has_datagrams) = self.has_datagrams else { return Ok(()) };
        let Some(Http3Stream::Waiting { request, rest }) = self.streams.remove(&id) else {
            return Ok(());
        };
        let admitted = match admit(&request, cx.hub, cx.now)? {
            Ok(_) if self.session.is_some() => {
                count(&cx.hub.counters.webtransport_refused);
                self.reject(id, REQUEST_REJECTED, cx);
                return Ok(());
            }
            Ok(_) if !has_datagrams => Err(StatusCode::NOT_IMPLEMENTED),
            admitted => admitted,
        };
        let response = ConnectResponse::new(*admitted.as_ref().err().unwrap_or(&StatusCode::OK));
        let mut bytes = Vec::new();
        response.encode(&mut bytes).expect("a status is below the limit of a field section");
        write(cx.connection, id, &bytes)?;
        let Ok(purpose) = admitted else {
            count(&cx.hub.counters.webtransport_refused);
            // Both fail only if the client has ended the stream.
            let _ = cx.connection.send_stream(id).finish();
            let _ = cx.connection.recv_stream(id).stop(NO_ERROR);
            return Ok(());
        };
        count(&cx.hub.counters.webtransport_opened);
        if let SessionPurpose::Media { home, flow } = purpose {
            cx.hub.attach(cx.handle, home, flow.number(), cx.now);
        }
        self.session = Some(WebTransportSession::new(id, purpose));
        self.streams.insert(id, Http3Stream::Open(FrameReader::default()));
        self.take(id, &rest, cx)
    }

    /// Ends both sides of a request that is not answered.
    fn reject(&mut self, id: StreamId, code: VarInt, cx: &mut Http3Context<'_>) {
        self.streams.remove(&id);
        // Both fail only if the client has ended the stream.
        let _ = cx.connection.send_stream(id).reset(code);
        let _ = cx.connection.recv_stream(id).stop(code);
    }

    /// Handles the end of a stream.
    fn end(
        &mut self,
        id: StreamId,
        is_finished: bool,
        cx: &mut Http3Context<'_>,
    ) -> Result<(), Http3Error> {
        match self.streams.remove(&id) {
            Some(Http3Stream::Control(_) | Http3Stream::Qpack) => {
                return Err(Http3Error::ClosedCriticalStream);
            }
            Some(Http3Stream::Request(_)) => self.reject(id, REQUEST_INCOMPLETE, cx),
            Some(Http3Stream::Open(reader)) => {
                let purpose = self.session.take().map(|over| over.purpose);
                if let Some(SessionPurpose::Media { home, .. }) = purpose {
                    cx.hub.release(cx.handle, home, cx.now);
                }
                if is_finished && !reader.is_between_frames() {
                    return Err(Http3Error::Frame);
                }
                // Fails only if the client has stopped the stream.
                let _ = cx.connection.send_stream(id).finish();
            }
            Some(Http3Stream::Untyped(_) | Http3Stream::Waiting { .. }) | None => {}
        }
        Ok(())
    }
}

impl WebTransportSession {
    fn new(request: StreamId, purpose: SessionPurpose) -> WebTransportSession {
        let number = VarInt::from(request).into_inner();
        let varint = |number: u64| {
            web_transport_proto::VarInt::from_u64(number).expect("stream IDs have 62 bits")
        };
        let quarter_id = number / 4;
        let (mut datagram_prefix, mut stream_prefix) = (Vec::new(), Vec::new());
        varint(quarter_id).encode(&mut datagram_prefix);
        StreamUni::WEBTRANSPORT.encode(&mut stream_prefix);
        varint(number).encode(&mut stream_prefix);
        WebTransportSession { purpose, quarter_id, datagram_prefix, stream_prefix }
    }
}

/// The purpose of the session that a request opens, or the status of the refusal.
fn admit(
    request: &[u8],
    hub: &Hub,
    now: Instant,
) -> Result<Result<SessionPurpose, StatusCode>, Http3Error> {
    let request = match ConnectRequest::decode(&mut &*request) {
        Ok(request) => request,
        Err(ConnectError::WrongMethod(Some(_))) => return Ok(Err(StatusCode::METHOD_NOT_ALLOWED)),
        Err(ConnectError::WrongProtocol(_)) => return Ok(Err(StatusCode::NOT_IMPLEMENTED)),
        Err(ConnectError::QpackError(_)) => return Err(Http3Error::Decompression),
        Err(ConnectError::FieldSectionTooLarge) => return Err(Http3Error::ExcessiveLoad),
        Err(_) => return Err(Http3Error::Message),
    };
    let value = |key: &str| {
        let mut query = request.url.query_pairs();
        query.find(|(name, _)| name == key).map(|(_, value)| value)
    };
    let media = || {
        let flow = value(TOKEN)?.parse().ok().and_then(FlowId::new)?;
        Some(SessionPurpose::Media { home: hub.home(flow)?, flow })
    };
    let probe = || {
        let probe = hub.probe(&value(PROBE_ID)?, now)?;
        probe.admits_session(&value(TOKEN)?, now).then_some(SessionPurpose::Probe(probe))
    };
    let purpose = match request.url.path() {
        PATH => media(),
        PROBE_PATH => probe(),
        _ => return Ok(Err(StatusCode::NOT_FOUND)),
    };
    Ok(purpose.ok_or(StatusCode::FORBIDDEN))
}

/// Reads SETTINGS. Returns whether the client receives DATAGRAMs of HTTP/3.
fn read_settings(frame: &[u8]) -> Result<bool, Http3Error> {
    let mut stream = Vec::new();
    StreamUni::CONTROL.encode(&mut stream);
    stream.extend_from_slice(frame);
    let settings = Settings::decode(&mut &stream[..]).map_err(|_| Http3Error::Frame)?;
    let value = |setting| settings.get(&setting).map(|value| value.into_inner());
    let is_reserved = |number| value(Setting(web_transport_proto::VarInt::from_u32(number)));
    if RESERVED_SETTINGS.into_iter().any(|number| is_reserved(number).is_some()) {
        return Err(Http3Error::Settings);
    }
    let datagrams = [Setting::ENABLE_DATAGRAM, Setting::ENABLE_DATAGRAM_DEPRECATED];
    Ok(datagrams.into_iter().any(|setting| value(setting) == Some(1)))
}

fn require_not_in(forbidden: &[u32], kind: Frame) -> Result<(), Http3Error> {
    let is_forbidden = forbidden.iter().any(|&number| u64::from(number) == kind.0.into_inner());
    if is_forbidden { Err(Http3Error::FrameUnexpected) } else { Ok(()) }
}

/// Takes the type of a stream. `None` means that `input` is consumed.
fn take_type(held: &mut Vec<u8>, input: &mut &[u8]) -> Option<StreamUni> {
    loop {
        if let Ok(kind) = StreamUni::decode(&mut &held[..]) {
            return Some(kind);
        }
        let (&byte, rest) = input.split_first()?;
        held.push(byte);
        *input = rest;
    }
}

fn read_piece(connection: &mut Connection, id: StreamId) -> Piece {
    let mut stream = connection.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return Piece::Reset };
    let piece = match chunks.next(PIECE_MAX) {
        Ok(Some(chunk)) => Piece::Bytes(chunk.bytes),
        Ok(None) => Piece::Finished,
        Err(ReadError::Blocked) => Piece::Blocked,
        Err(ReadError::Reset(_)) => Piece::Reset,
    };
    // Flow-control updates go out with the next packets.
    let _ = chunks.finalize();
    piece
}

/// Writes everything. HTTP/3 requires credit for it (RFC 9114, section 6.2).
fn write(connection: &mut Connection, id: StreamId, bytes: &[u8]) -> Result<(), Http3Error> {
    match connection.send_stream(id).write(bytes) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) | Err(WriteError::Blocked) => Err(Http3Error::NoCredit),
        // The client wants no answer.
        Err(WriteError::Stopped(_) | WriteError::ClosedStream) => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests;
