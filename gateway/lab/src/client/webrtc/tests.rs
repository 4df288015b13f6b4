use std::net::UdpSocket;
use std::time::Duration;

use evenkeel_contract::offers::OfferPayloadType;
use evenkeel_dtls::{HandshakeEvent, Handshakes, Peer};
use evenkeel_media::srtp::{SrtpKeys, SrtpReceiver, SrtpSender};
use evenkeel_media::stun::{self, BindingRequest, StunKey};
use evenkeel_media::{demux, demux::DatagramKind};

use super::*;
use crate::client::{ClientFleet, ClientPath, ClientState, Persona, UdpWay};
use crate::crowd::{video_media, voice_media};
use crate::ledger::Books;

const WITHIN: Duration = Duration::from_secs(30);

const ANSWER: &str = "v=0\r\no=- 7 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=ice-ufrag:gate\r\n\
    a=ice-pwd:thepasswordofthesession\r\na=fingerprint:sha-256 \
    D8:C8:68:39:9F:DE:05:C0:0B:26:F8:AC:08:72:3B:B2:D0:3F:E8:75:0F:6C:11:B5:36:95:97:B1:37:8A:38:19\r\n\
    m=audio 7000 UDP/TLS/RTP/SAVPF 111\r\na=candidate:1 1 udp 2130706431 192.0.2.1 7000 typ host\r\n\
    a=candidate:2 1 udp 2130706175 2001:db8::1 7000 typ host\r\n";

#[test]
fn answer_names_gateway_and_credentials() {
    let answer = AnswerTransport::parse(ANSWER).unwrap();
    assert_eq!(answer.gateway, "192.0.2.1:7000".parse().unwrap());
    assert_eq!((&*answer.ice.ufrag, &*answer.ice.password), ("gate", "thepasswordofthesession"));
    assert!(ANSWER.contains(&answer.fingerprint.to_string()));
    for part in
        ["a=candidate", "a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "sha-256", "192.0.2.1 7"]
    {
        assert!(AnswerTransport::parse(&ANSWER.replace(part, "x")).is_none(), "{part}");
    }
}

#[test]
fn offer_has_a_section_for_each_stream() {
    let identity = WebrtcIdentity::generate(1).unwrap();
    let feedback = vec![
        OfferFeedback::Pli,
        OfferFeedback::Remb,
        OfferFeedback::Nack,
        OfferFeedback::TransportCc,
        OfferFeedback::Ccfb,
    ];
    let mut video = OfferMedia { feedback, ..video_media() };
    let mut voice = voice_media();
    for (media, number, codec, clock_rate, apt) in
        [(&mut voice, 63, "red", 48_000, 111), (&mut video, 97, "rtx", 90_000, 96)]
    {
        let repair = OfferPayloadType::new(number, codec, clock_rate);
        media.payload_types.push(OfferPayloadType { apt: Some(apt), ..repair });
    }
    let sdp = identity.sdp(&[voice, video]);
    let lines: Vec<&str> = sdp.split("\r\n").collect();
    for line in [
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:63 red/48000",
        "a=fmtp:63 111/111",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "a=fmtp:97 apt=96",
        "a=rtpmap:96 vp8/90000",
        "a=rtcp-fb:96 nack pli",
        "a=rtcp-fb:96 goog-remb",
        "a=rtcp-fb:96 nack",
        "a=rtcp-fb:96 transport-cc",
        "a=rtcp-fb:96 ack ccfb",
    ] {
        assert!(lines.contains(&line), "{line}: {sdp}");
    }
    assert!(lines.contains(&&*format!("a=fingerprint:{}", identity.fingerprint())), "{sdp}");
}

/// A gateway for one client: ICE-lite, DTLS and SRTP on a socket.
struct Gateway {
    socket: UdpSocket,
    certificate: DtlsCertificate,
}

impl Gateway {
    fn new() -> Gateway {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        Gateway { socket, certificate: DtlsCertificate::generate().unwrap() }
    }

    /// The answer with this fingerprint.
    fn answer(&self, fingerprint: [u8; 32]) -> String {
        let fingerprint = CertificateFingerprint::Sha256(fingerprint);
        let port = self.socket.local_addr().unwrap().port();
        let known = AnswerTransport::parse(ANSWER).unwrap().fingerprint.to_string();
        ANSWER
            .replace(&known, &fingerprint.to_string())
            .replace("192.0.2.1 7000", &format!("127.0.0.1 {port}"))
    }

    /// Answers checks and the handshake. Returns its keys, the client's address and the first packet after the handshake.
    fn accept(&self, client: &CertificateFingerprint) -> (SrtpKeys, SocketAddr, Vec<u8>) {
        let key = StunKey::new("thepasswordofthesession");
        let mut handshakes = Handshakes::new(&self.certificate);
        let mut keys = None;
        let mut buffer = [0; 4_096];
        loop {
            let (length, source) = self.socket.recv_from(&mut buffer).unwrap();
            let datagram = &buffer[..length];
            match demux::classify(datagram) {
                DatagramKind::Stun => {
                    let request = BindingRequest::parse(datagram).unwrap();
                    assert!(request.use_candidate() && request.message.verify(&key).is_ok());
                    let (id, mut answer) = (request.message.transaction(), Vec::new());
                    stun::write_success(id, source, Some(&key), &mut answer);
                    self.socket.send_to(&answer, source).unwrap();
                }
                DatagramKind::Dtls => {
                    let peer = Peer::Expected(std::slice::from_ref(client));
                    let output = &mut |(), datagram: &[u8]| {
                        _ = self.socket.send_to(datagram, source).unwrap();
                    };
                    let event = handshakes.receive(7, (), peer, datagram, Instant::now(), output);
                    if let Some(HandshakeEvent::Connected(of_client)) = event {
                        keys = Some(of_client);
                    }
                }
                _ => return (keys.expect("media follow the handshake"), source, datagram.to_vec()),
            }
        }
    }
}

fn wait(fleet: &ClientFleet, what: &str, done: impl Fn(&ClientState) -> bool) -> ClientState {
    let deadline = Instant::now() + WITHIN;
    loop {
        let state = fleet.state(1).unwrap();
        if done(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "{what}: {state:?}");
        std::thread::yield_now();
    }
}

fn join(fleet: &ClientFleet, identity: WebrtcIdentity, answer: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let way = UdpWay::of_answer(identity, answer, socket).unwrap();
    let persona = Persona { session: 1, seed: 1, voice: true, video: false };
    fleet.join(persona, ClientPath::Udp(way));
}

#[test]
fn client_sends_srtp_after_one_handshake_and_counts_refusals() {
    let gateway = Gateway::new();
    let fleet = ClientFleet::start(&Books::default()).unwrap();
    let identity = WebrtcIdentity::generate(1).unwrap();
    let fingerprint = identity.fingerprint();
    join(&fleet, identity, &gateway.answer(gateway.certificate.fingerprint()));
    let (keys, client, mut first) = gateway.accept(&fingerprint);
    let mut receiver = SrtpReceiver::new(&keys.client);
    let opened = match demux::classify(&first) {
        DatagramKind::Rtp => receiver.unprotect_rtp(&mut first),
        _ => receiver.unprotect_rtcp(&mut first),
    };
    opened.unwrap();
    let mut sender = SrtpSender::new(&keys.gateway);
    sender.lease(7, u64::MAX, u64::MAX).unwrap();
    let mut packet = Vec::new();
    let fields = evenkeel_media::rtp::Fields {
        payload_type: 111,
        marker: false,
        sequence: 1,
        timestamp: 960,
        ssrc: 7,
    };
    evenkeel_media::rtp::write(&fields, b"voice", &mut packet);
    let length = packet.len();
    packet.resize(length + 20, 0);
    let packet = sender.protect_rtp(&mut packet, length).unwrap();
    for _ in 0..2 {
        gateway.socket.send_to(packet, client).unwrap();
    }
    *packet.last_mut().unwrap() ^= 1;
    gateway.socket.send_to(packet, client).unwrap();
    let state = wait(&fleet, "the refusals are counted", |state| state.webrtc.reused_indices == 1);
    let expected =
        WebrtcTally { handshakes: 1, replayed: 1, reused_indices: 1, ..WebrtcTally::default() };
    assert_eq!((state.webrtc, state.failed), (expected, None));
    assert!(state.ready_ns.is_some());
}

#[test]
fn certificate_that_the_answer_does_not_name_is_refused() {
    let gateway = Gateway::new();
    let fleet = ClientFleet::start(&Books::default()).unwrap();
    let identity = WebrtcIdentity::generate(1).unwrap();
    let fingerprint = identity.fingerprint();
    join(&fleet, identity, &gateway.answer([0; 32]));
    std::thread::scope(|scope| {
        gateway.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // It ends by the timeout of the socket, since the client sends no media.
        let accepting = scope.spawn(|| gateway.accept(&fingerprint));
        let state = wait(&fleet, "the client fails", |state| state.failed.is_some());
        assert!(state.failed.unwrap().contains("certificate"));
        assert_eq!((state.ready_ns, state.webrtc), (None, WebrtcTally::default()));
        assert!(accepting.join().is_err());
    });
}
