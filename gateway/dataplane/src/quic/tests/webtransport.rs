//! Sessions of WebTransport, by a client that writes its frames itself.

use std::time::Instant;

use evenkeel_media::probe::ProbeTransport;
use quinn::{RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use web_transport_proto::http::StatusCode;
use web_transport_proto::{ConnectError, ConnectResponse, Frame, Setting, Settings};

use super::super::http3::Http3Error;
use super::super::http3::tests::connect_frame;
use super::client::client_trusting;
use super::*;
use crate::flows::Ufrag;

/// Streams that a client of HTTP/3 keeps open.
struct Browser {
    connection: Connection,
    control: SendStream,
}

/// An open session, with its request.
struct Session {
    browser: Browser,
    request: SendStream,
    _response: RecvStream,
}

fn h3(thread: &QuicThread) -> quinn::ClientConfig {
    client_speaking(thread, true, vec![b"h3".to_vec()])
}

fn settings_frame() -> Vec<u8> {
    let mut settings = Settings::default();
    settings.enable_webtransport(1);
    let mut bytes = Vec::new();
    settings.encode(&mut bytes);
    bytes
}

fn path_of(flow: u64) -> String {
    format!("/roq?token={flow}")
}

impl World {
    /// Opens a connection with a control stream that begins with these bytes.
    async fn browser_with(&self, control: &[u8]) -> Browser {
        let connection = self.connect(h3(&self.thread)).await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(control).await.unwrap();
        Browser { connection, control: stream }
    }

    async fn browser(&self) -> Browser {
        self.browser_with(&settings_frame()).await
    }

    async fn session(&self, flow: u64) -> Session {
        let browser = self.browser().await;
        let (request, response, status) = browser.request(&connect_frame(&path_of(flow))).await;
        assert_eq!(status.unwrap(), StatusCode::OK);
        Session { browser, request, _response: response }
    }
}

impl Browser {
    /// Sends a request. Returns the status of its answer.
    async fn request(
        &self,
        bytes: &[u8],
    ) -> (SendStream, RecvStream, Result<StatusCode, ConnectError>) {
        let (mut request, mut response) = self.connection.open_bi().await.unwrap();
        request.write_all(bytes).await.unwrap();
        let status = match ConnectResponse::read(&mut response).await {
            Ok(response) => Ok(response.status),
            Err(ConnectError::WrongStatus(Some(status)) | ConnectError::ErrorStatus(status)) => {
                Ok(status)
            }
            Err(other) => Err(other),
        };
        (request, response, status)
    }

    async fn close_code(&self) -> VarInt {
        match self.connection.closed().await {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => error_code,
            other => panic!("closed by {other}"),
        }
    }

    async fn expect_close(&self, error: Http3Error) {
        assert_eq!(self.close_code().await, error.code(), "{error}");
    }

    fn datagram(&self, bytes: &[&[u8]]) {
        self.connection.send_datagram(bytes.concat().into()).unwrap();
    }
}

fn roq_datagram(flow: u64, packet: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    roq::write_datagram(roq::FlowId::new(flow).unwrap(), packet, &mut bytes);
    bytes
}

#[tokio::test]
async fn session_carries_packets_both_ways() {
    let mut world = World::start(quiet());
    let session = world.session(FLOW).await;
    // The session uses the connection before its first packet.
    assert_eq!(world.next_but_path().await, (meta(RingItem::Attached), vec![]));
    session.browser.datagram(&[&[0], &roq_datagram(FLOW, &rtp(1))]);
    assert_eq!(world.next_but_path().await, (meta(RingItem::Rtp), rtp(1)));

    world.send(HOME, &rtp(2));
    let received = session.browser.connection.read_datagram().await.unwrap();
    assert_eq!(received, [&[0][..], &roq_datagram(BACK, &rtp(2))].concat());
    assert_eq!(world.count(|counters| &counters.webtransport_opened), 1);
    assert_eq!(world.count(|counters| &counters.received_datagrams), 1);
}

#[tokio::test]
async fn packet_above_the_mtu_goes_in_a_stream() {
    let mut world = World::start(quiet());
    let session = world.session(FLOW).await;
    let large = [&rtp(1)[..], &[7; 1_900]].concat();
    // The first stream to the client has SETTINGS.
    let control = session.browser.connection.accept_uni().await.unwrap();
    world.send(HOME, &large);
    let mut stream = session.browser.connection.accept_uni().await.unwrap();
    let bytes = stream.read_to_end(4_000).await.unwrap();
    assert_eq!(bytes, [&[0x40, 0x54, 0][..], &framed(BACK, &[&large])].concat());
    drop(control);
}

#[tokio::test]
async fn end_of_the_request_ends_the_session() {
    let mut world = World::start(quiet());
    let mut session = world.session(FLOW).await;
    assert_eq!(world.next_but_path().await.0.kind, RingItem::Attached);
    session.request.finish().unwrap();
    assert_eq!(world.next_but_path().await, (meta(RingItem::Detached), vec![]));
    session.browser.datagram(&[&[0], &roq_datagram(FLOW, &rtp(1))]);
    // A page may open a session again.
    let (_request, _response, status) =
        session.browser.request(&connect_frame(&path_of(FLOW))).await;
    assert_eq!(status.unwrap(), StatusCode::OK);
    assert_eq!(world.next_but_path().await.0.kind, RingItem::Attached);
    session.browser.datagram(&[&[1], &roq_datagram(FLOW, &rtp(2))]);
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(world.count(|counters| &counters.webtransport_sessionless), 1);
}

#[tokio::test]
async fn request_waits_for_settings() {
    let world = World::start(quiet());
    // The type of the control stream only.
    let mut browser = world.browser_with(&[0]).await;
    let (mut request, mut response) = browser.connection.open_bi().await.unwrap();
    request.write_all(&connect_frame(&path_of(FLOW))).await.unwrap();
    // A later packet has been read.
    browser.datagram(&[&[0], &roq_datagram(FLOW, &rtp(1))]);
    while world.count(|counters| &counters.webtransport_sessionless) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.count(|counters| &counters.webtransport_opened), 0);
    browser.control.write_all(&settings_frame()[1..]).await.unwrap();
    assert_eq!(ConnectResponse::read(&mut response).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn refused_requests_keep_the_connection() {
    let world = World::start(quiet());
    let browser = world.browser().await;
    let mut get = Vec::new();
    // Indexed fields of QPACK's static table: GET, https, `/`; a literal authority.
    get.extend([0x01, 9, 0, 0, 0xd1, 0xd7, 0xc1, 0x50, 2, b'a', b'b']);
    let cases = [
        (connect_frame("/other?token=1"), StatusCode::NOT_FOUND),
        (connect_frame(&path_of(STRANGE_FLOW)), StatusCode::FORBIDDEN),
        (connect_frame("/roq"), StatusCode::FORBIDDEN),
        (connect_frame("/roq?token=-1"), StatusCode::FORBIDDEN),
        (get, StatusCode::METHOD_NOT_ALLOWED),
    ];
    for (bytes, expected) in &cases {
        let (_request, mut response, status) = browser.request(bytes).await;
        assert_eq!(status.unwrap(), *expected);
        assert!(response.read_chunk(1, true).await.unwrap().is_none(), "the answer ends");
    }
    let refused = world.count(|counters| &counters.webtransport_refused);
    assert_eq!(refused, cases.len() as u64);
    let (_request, _response, status) = browser.request(&connect_frame(&path_of(FLOW))).await;
    assert_eq!(status.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn client_without_datagrams_of_http3_is_refused() {
    let world = World::start(quiet());
    let browser = world.browser_with(&[0, 0x04, 0]).await;
    let (_request, _response, status) = browser.request(&connect_frame(&path_of(FLOW))).await;
    assert_eq!(status.unwrap(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn second_session_is_rejected() {
    let world = World::start(quiet());
    let session = world.session(FLOW).await;
    let (mut request, mut response) = session.browser.connection.open_bi().await.unwrap();
    request.write_all(&connect_frame(&path_of(OTHER_FLOW))).await.unwrap();
    let reset = response.read_chunk(100, true).await.unwrap_err();
    assert_eq!(reset, quinn::ReadError::Reset(VarInt::from_u32(0x10b)));
    assert_eq!(request.stopped().await.unwrap(), Some(VarInt::from_u32(0x10b)));
    assert_eq!(world.count(|counters| &counters.webtransport_opened), 1);
}

#[tokio::test]
async fn probe_is_echoed_in_one_session() {
    const ID: &str = "0123456789abcdef";
    let world = World::start(quiet());
    let (ufrag, transport) = (Ufrag::new(ID.as_bytes()).unwrap(), ProbeTransport::WebTransport);
    world.probes.open(ufrag, "password", transport, Instant::now()).unwrap();
    let request = |id, token| connect_frame(&format!("/probe?id={id}&token={token}"));
    for (id, token) in [(ID, "another"), ("another", "password")] {
        let browser = world.browser().await;
        let (_request, _response, status) = browser.request(&request(id, token)).await;
        assert_eq!(status.unwrap(), StatusCode::FORBIDDEN);
    }
    let browser = world.browser().await;
    let (_request, _response, status) = browser.request(&request(ID, "password")).await;
    assert_eq!(status.unwrap(), StatusCode::OK);
    let question = |number: u8| [&[0, 0, number][..], &[7; 158]].concat();
    browser.datagram(&[&question(3)]);
    assert_eq!(browser.connection.read_datagram().await.unwrap(), question(3));
    // A repetition, and another size than the number has.
    browser.datagram(&[&question(3)]);
    browser.datagram(&[&question(4), &[7; 4]]);
    browser.datagram(&[&question(5)]);
    assert_eq!(browser.connection.read_datagram().await.unwrap(), question(5));
    let probe = world.probes.find(ID, Instant::now()).unwrap();
    assert_eq!((probe.refused(), probe.has_received(3), probe.has_received(4)), (2, true, false));

    let other = world.browser().await;
    let (_request, _response, status) = other.request(&request(ID, "password")).await;
    assert_eq!(status.unwrap(), StatusCode::FORBIDDEN, "a token opens one session");
}

#[tokio::test]
async fn streams_of_webtransport_are_rejected() {
    let world = World::start(quiet());
    let session = world.session(FLOW).await;
    let mut uni = session.browser.connection.open_uni().await.unwrap();
    uni.write_all(&[0x40, 0x54, 0, 1, 2]).await.unwrap();
    assert_eq!(uni.stopped().await.unwrap(), Some(VarInt::from_u32(0x3994_bd84)));
    let (mut bidi, _receive) = session.browser.connection.open_bi().await.unwrap();
    bidi.write_all(&[0x40, 0x41, 0, 1, 2]).await.unwrap();
    assert_eq!(bidi.stopped().await.unwrap(), Some(VarInt::from_u32(0x3994_bd84)));
    // A reserved type (RFC 9114, section 6.2.3).
    let mut unknown = session.browser.connection.open_uni().await.unwrap();
    unknown.write_all(&[0x21, 1]).await.unwrap();
    assert_eq!(unknown.stopped().await.unwrap(), Some(VarInt::from_u32(0x103)));
}

#[tokio::test]
async fn datagram_of_no_session_or_another_flow_is_dropped() {
    let mut world = World::start(quiet());
    let browser = world.browser().await;
    browser.datagram(&[&[0], &roq_datagram(FLOW, &rtp(1))]);
    while world.count(|counters| &counters.webtransport_sessionless) == 0 {
        tokio::task::yield_now().await;
    }
    let session = world.session(FLOW).await;
    session.browser.datagram(&[&[1], &roq_datagram(FLOW, &rtp(2))]);
    session.browser.datagram(&[&[0], &roq_datagram(OTHER_FLOW, &rtp(3))]);
    session.browser.datagram(&[&[0], &roq_datagram(FLOW, &rtp(4))]);
    assert_eq!(world.next_media().await, rtp(4));
    assert_eq!(world.count(|counters| &counters.webtransport_sessionless), 2);
    assert_eq!(world.count(|counters| &counters.unknown_flow_datagrams), 1);
}

#[tokio::test]
async fn malformed_datagram_closes_with_its_code() {
    let world = World::start(quiet());
    let packet = roq_datagram(FLOW, b"no packet");
    let wrong: [&[&[u8]]; 4] = [&[], &[&[0xff; 8]], &[&[0], &[0xc0]], &[&[0], &packet]];
    for wrong in wrong {
        let session = world.session(FLOW).await;
        session.browser.datagram(wrong);
        session.browser.expect_close(Http3Error::Datagram).await;
    }
    assert_eq!(world.count(|counters| &counters.http3_errors), 2);
    assert_eq!(world.count(|counters| &counters.malformed), 1);
    assert_eq!(world.count(|counters| &counters.not_rtp), 1);
}

#[tokio::test]
async fn malformed_control_stream_closes_with_its_code() {
    let world = World::start(quiet());
    let settings = settings_frame();
    let then = |more: &[u8]| [&settings[..], more].concat();
    let cases = [
        // GOAWAY and a reserved frame before SETTINGS.
        (vec![0, 0x07, 1, 0], Http3Error::MissingSettings),
        (vec![0, 0x21, 0], Http3Error::MissingSettings),
        (then(&settings[1..]), Http3Error::FrameUnexpected),
        (then(&[0x00, 0]), Http3Error::FrameUnexpected),
        (then(&[0x01, 0]), Http3Error::FrameUnexpected),
        (then(&[0x06, 0]), Http3Error::FrameUnexpected),
        // An identifier without its value, a setting of HTTP/2, and 17 KiB.
        (vec![0, 0x04, 1, 0x33], Http3Error::Frame),
        (vec![0, 0x04, 2, 0x03, 1], Http3Error::Settings),
        (vec![0, 0x04, 0x80, 0, 0x44, 0], Http3Error::ExcessiveLoad),
        (vec![0x01], Http3Error::StreamCreation),
    ];
    for (bytes, error) in &cases {
        world.browser_with(bytes).await.expect_close(*error).await;
    }
    assert_eq!(world.count(|counters| &counters.http3_errors), cases.len() as u64);

    let browser = world.browser().await;
    let mut second = browser.connection.open_uni().await.unwrap();
    second.write_all(&[0]).await.unwrap();
    browser.expect_close(Http3Error::StreamCreation).await;

    for critical in [&settings[..], &[0x02], &[0x03]] {
        let browser = world.browser_with(critical).await;
        let Browser { connection, control: mut stream } = browser;
        stream.finish().unwrap();
        let browser = Browser { connection, control: stream };
        browser.expect_close(Http3Error::ClosedCriticalStream).await;
    }
}

#[tokio::test]
async fn malformed_request_closes_with_its_code() {
    let world = World::start(quiet());
    let large = [&[0x01, 0x80, 0, 0x44, 0][..], &[0; 100]].concat();
    // A literal field with a compressed value: 17,600 times the character `0`, five bits each.
    let many = vec![0; 10 * 1_100];
    let mut bomb = vec![0, 0, 0x5f, 0x1d, 0xff];
    let rest = many.len() - 127;
    bomb.extend([(rest % 128) as u8 | 0x80, (rest / 128) as u8]);
    bomb.extend(&many);
    let mut compressed = Vec::new();
    Frame::HEADERS.encode(&mut compressed);
    web_transport_proto::VarInt::from_u32(bomb.len() as u32).encode(&mut compressed);
    compressed.extend(&bomb);
    let cases = [
        (vec![0x00, 1, 0], Http3Error::FrameUnexpected),
        (vec![0x04, 0], Http3Error::FrameUnexpected),
        (vec![0x07, 1, 0], Http3Error::FrameUnexpected),
        (large, Http3Error::ExcessiveLoad),
        (compressed, Http3Error::ExcessiveLoad),
        // No field, and an entry of the dynamic table.
        (vec![0x01, 2, 0, 0], Http3Error::Message),
        (vec![0x01, 3, 0, 0, 0x80], Http3Error::Decompression),
    ];
    for (bytes, error) in &cases {
        let browser = world.browser().await;
        let (mut request, _response) = browser.connection.open_bi().await.unwrap();
        request.write_all(bytes).await.unwrap();
        browser.expect_close(*error).await;
    }
    let mut session = world.session(FLOW).await;
    session.request.write_all(&[0x00, 2, 1, 2, 0x01, 0]).await.unwrap();
    session.browser.expect_close(Http3Error::FrameUnexpected).await;

    let mut session = world.session(FLOW).await;
    session.request.write_all(&[0x00, 2, 1]).await.unwrap();
    session.request.finish().unwrap();
    session.browser.expect_close(Http3Error::Frame).await;
    assert_eq!(world.count(|counters| &counters.http3_errors), cases.len() as u64 + 2);
}

#[tokio::test]
async fn connection_without_a_session_is_closed() {
    let world = World::start(QuicSettings {
        flowless_after: Duration::from_millis(50),
        feedback_every: Duration::from_millis(10),
        ..quiet()
    });
    let browser = world.browser().await;
    assert_eq!(browser.close_code().await, VarInt::from_u32(0x100));
    assert_eq!(world.count(|counters| &counters.flowless), 1);
}

#[tokio::test]
async fn settings_enable_webtransport_without_a_dynamic_table() {
    let world = World::start(quiet());
    let browser = world.browser().await;
    let mut stream = browser.connection.accept_uni().await.unwrap();
    let settings = Settings::read(&mut stream).await.unwrap();
    assert_eq!(settings.supports_webtransport(), 1);
    for absent in [Setting::QPACK_MAX_TABLE_CAPACITY, Setting::QPACK_BLOCKED_STREAMS] {
        assert!(settings.get(&absent).is_none());
    }
    let connect = settings.get(&Setting::ENABLE_CONNECT_PROTOCOL);
    assert_eq!(connect.map(|value| value.into_inner()), Some(1));
}

#[tokio::test]
async fn browsers_alone_see_the_short_lived_certificate() {
    let names = vec!["localhost".to_owned()];
    let short_lived =
        ShortLivedCertificates::generate(names, std::time::SystemTime::now()).unwrap();
    let short_lived = Arc::new(short_lived);
    let listener = listen(quiet(), None, None).unwrap();
    let world = World::with_certificates(listener, 16, Some(Arc::clone(&short_lived)));
    let seen = async |alpn: &[&[u8]], trusted| {
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        let connection = world.connect(client_trusting(trusted, alpn)).await?;
        let identity = connection.peer_identity().unwrap();
        let chain = identity.downcast::<Vec<CertificateDer<'_>>>().unwrap();
        Ok::<_, ConnectionError>(sha256(&chain[0]))
    };
    let long_lived = world.thread.certificate_sha256;
    let [current, _] = short_lived.sha256();
    assert_eq!(seen(&[b"h3"], current).await.unwrap(), current);
    assert_eq!(seen(&[roq::ALPN], long_lived).await.unwrap(), long_lived);
    assert_eq!(seen(&[b"h3", roq::ALPN], long_lived).await.unwrap(), long_lived);

    // A replacement is for new connections.
    let connection = world.connect(client_trusting(current, vec![b"h3".to_vec()])).await.unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(8 * 24 * 60 * 60);
    assert!(short_lived.renew(later).unwrap());
    let [next, _] = short_lived.sha256();
    assert_eq!(seen(&[b"h3"], next).await.unwrap(), next);
    assert!(connection.close_reason().is_none());
}
