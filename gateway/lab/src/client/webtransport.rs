//! A session of WebTransport on a connection (draft-ietf-webtrans-http3), as a page opens it: the first request, on stream 0.

use quinn::{Connection, RecvStream, SendStream};
use web_transport_proto::{ConnectResponse, Frame, Settings, VarInt};

/// The protocol of HTTP/3 (RFC 9114, section 3.1).
pub(super) const ALPN: &[u8] = b"h3";

/// The beginning of a DATAGRAM: a quarter of the session's stream ID (RFC 9297, section 2.1).
pub(super) const DATAGRAM_HEAD: &[u8] = &[0];

/// The beginning of a unidirectional stream: its type, and the session.
pub(super) const STREAM_HEAD: &[u8] = &[0x40, 0x54, 0];

/// An open session, which ends when this is dropped.
pub(super) struct WebtransportSession {
    _control: SendStream,
    _request: SendStream,
    _response: RecvStream,
}

impl WebtransportSession {
    /// Opens the session with this token. The connection must be new.
    pub(super) async fn open(connection: &Connection, token: u64) -> Result<Self, String> {
        let opened = async {
            let mut control = connection.open_uni().await?;
            control.write_all(&control_stream()).await?;
            let (mut request, response) = connection.open_bi().await?;
            request.write_all(&connect_frame(&format!("/roq?token={token}"))).await?;
            Ok::<_, std::io::Error>((control, request, response))
        };
        let (control, request, mut response) = opened.await.map_err(|error| error.to_string())?;
        let answer = ConnectResponse::read(&mut response).await;
        answer.map_err(|error| format!("no session of WebTransport: {error}"))?;
        Ok(Self { _control: control, _request: request, _response: response })
    }
}

/// The beginning of a page's control stream: its type, and SETTINGS.
pub fn control_stream() -> Vec<u8> {
    let mut settings = Settings::default();
    settings.enable_webtransport(1);
    let mut bytes = Vec::new();
    settings.encode(&mut bytes);
    bytes
}

/// The HEADERS of a request for a session at this path of at most 126 bytes, with literal fields (RFC 9204, section 4.5): that of `web-transport-proto` takes a type of another crate.
pub fn connect_frame(path: &str) -> Vec<u8> {
    let fields = [(0x50_u8, "evenkeel"), (0x51, path)];
    // CONNECT and `https` have entries in the static table, `:protocol` has none. A length below 127 has one byte.
    let mut section = vec![0, 0, 0xcf, 0xd7];
    for (name, value) in fields {
        section.extend([name, value.len() as u8]);
        section.extend_from_slice(value.as_bytes());
    }
    section.extend_from_slice(&[0x27, 2]);
    section.extend_from_slice(b":protocol");
    section.push(12);
    section.extend_from_slice(b"webtransport");
    let mut frame = Vec::new();
    Frame::HEADERS.encode(&mut frame);
    VarInt::from_u32(section.len() as u32).encode(&mut frame);
    frame.extend(section);
    frame
}
