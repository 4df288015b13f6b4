//! A WebRTC client: ICE, DTLS and SRTP on the socket of a phone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_contract::offers::{OfferFeedback, OfferMedia, OfferPayloadType, OfferStreamKind};
use evenkeel_control::OfferedSession;
use evenkeel_dataplane::worker::{AnsweredMedia, SrtpKeying};
use evenkeel_dtls::{DtlsClient, HandshakeFailure};
use evenkeel_lab::client::{SrtpEndpoint, WebrtcIdentity, answer_check};
use evenkeel_media::demux;
use evenkeel_media::numbering::{ClientNumbers, ExtensionMap};
use evenkeel_model::{ClientIdentity, IngressProtocol, MediaDescription, Srtp};
use serde_json::{Value, json};

use super::{Credentials, GatewayProcess, Nominate, Phone, TIMEOUT, offer, wait_until};

pub(crate) struct WebrtcPhone {
    pub(crate) phone: Phone,
    pub(crate) dtls: DtlsClient,
    identity: WebrtcIdentity,
    /// `sendrecv`, as its offers have it.
    direction: &'static str,
    /// The SSRC of voice in the last answer that announced one.
    pub(crate) announced: Option<u32>,
}

/// Firefox's payload types of Opus and VP8, and those of rooms.
fn numbers() -> Option<ClientNumbers> {
    ClientNumbers::new(&vec![(109, 111), (120, 96)].into(), &ExtensionMap::default(), None)
}

impl WebrtcPhone {
    /// Reads an answer of the API: the address of the gateway and the credentials.
    fn told(&mut self, answer: &Value) -> (SocketAddr, Credentials) {
        let sdp = answer["webrtc"]["answer"].as_str().unwrap_or_else(|| panic!("{answer}"));
        let ssrcs = sdp.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next());
        self.announced = ssrcs.filter_map(|ssrc| ssrc.parse().ok()).next().or(self.announced);
        Credentials::in_answer(sdp)
    }

    pub(crate) fn new(number: u64) -> WebrtcPhone {
        WebrtcPhone::on(Phone::new(number))
    }

    pub(crate) fn on(mut phone: Phone) -> WebrtcPhone {
        phone.numbers = numbers();
        let identity = WebrtcIdentity::generate(phone.number).unwrap();
        let dtls = DtlsClient::new(&identity.certificate, Instant::now());
        WebrtcPhone { phone, dtls, identity, direction: "sendrecv", announced: None }
    }

    /// The request of a session, as the API reads it from SDP.
    pub(crate) fn offer(&self, room: &str) -> OfferedSession {
        let mut wanted = offer(room, IngressProtocol::Udp(ClientIdentity::Stun));
        let media = MediaDescription { srtp: Srtp::Terminated, ..(*wanted.media).clone() };
        let fingerprints = [self.identity.fingerprint()].into();
        wanted.media = Arc::new(media);
        let answered = Arc::new(AnsweredMedia {
            ufrag: self.identity.ufrag().into(),
            password: Default::default(),
            may_send: true,
            may_receive: true,
            sends: Vec::new(),
            numbers: numbers(),
            announced: Arc::default(),
        });
        wanted.srtp = Some(SrtpKeying::Dtls { fingerprints, keys: None, answered });
        wanted
    }

    pub(crate) fn ufrag(&self) -> &str {
        self.identity.ufrag()
    }

    /// The SDP of the client: audio and video.
    pub(crate) fn sdp(&self) -> String {
        let stream = |kind, payload_type, codec: &str, clock_rate, feedback| OfferMedia {
            kind,
            payload_types: vec![OfferPayloadType::new(payload_type, codec, clock_rate)],
            feedback,
            bitrate: None,
        };
        let sdp = self.identity.sdp(&[
            stream(OfferStreamKind::Audio, 109, "opus", 48_000, Vec::new()),
            stream(OfferStreamKind::Video, 120, "VP8", 90_000, vec![OfferFeedback::Pli]),
        ]);
        sdp.replacen("a=group", &format!("a={}\r\na=group", self.direction), 1)
    }

    /// Opens a session through the API. Returns the address of the gateway and the credentials.
    pub(crate) fn open(
        &mut self,
        gateway: &mut GatewayProcess,
        room: &str,
    ) -> (SocketAddr, Credentials) {
        let body = json!({"scenario": "call", "room": room, "webrtc": {"offer": self.sdp()}});
        self.told(&gateway.post("/v1/sessions", &body))
    }

    /// Offers again in the session. Returns the address of the gateway and the credentials.
    pub(crate) fn offer_again(
        &mut self,
        gateway: &mut GatewayProcess,
        id: &str,
    ) -> (SocketAddr, Credentials) {
        let body = json!({"webrtc": {"offer": self.sdp()}});
        self.told(&gateway.put(&format!("/v1/sessions/{id}"), &body))
    }

    /// Offers again in this direction.
    pub(crate) fn turn(
        &mut self,
        gateway: &mut GatewayProcess,
        id: &str,
        direction: &'static str,
    ) -> Credentials {
        self.direction = direction;
        self.offer_again(gateway, id).1
    }

    /// Goes on at another socket, after a restart of ICE.
    pub(crate) fn change_network(&mut self, gateway: &mut GatewayProcess, id: &str) {
        self.identity.restart_ice();
        let (address, credentials) = self.offer_again(gateway, id);
        let number = self.phone.number;
        self.phone.socket = Phone::new(number).socket;
        self.phone.set_target(address);
        credentials.check(&self.phone, Nominate::Yes);
    }

    /// Opens a session through the API, and connects.
    pub(crate) fn call(&mut self, gateway: &mut GatewayProcess, room: &str) {
        let (address, credentials) = self.open(gateway, room);
        self.connect(address, &credentials).unwrap();
    }

    /// Opens a session through the API, and begins a handshake. Returns the first flight of the gateway.
    pub(crate) fn begin_handshake(
        &mut self,
        gateway: &mut GatewayProcess,
        room: &str,
    ) -> Vec<Vec<u8>> {
        let (address, credentials) = self.open(gateway, room);
        let WebrtcPhone { phone, dtls, .. } = self;
        phone.set_target(address);
        credentials.check(phone, Nominate::Yes);
        wait_until("the check is answered", || {
            phone.listen();
            !phone.other.is_empty()
        });
        phone.other.clear();
        let send = &mut |datagram: &[u8]| phone.send(datagram);
        dtls.handle_timeout(Instant::now(), send).unwrap();
        wait_until("the gateway answers", || {
            phone.listen();
            !phone.other.is_empty()
        });
        std::mem::take(&mut phone.other)
    }

    /// Sends the next flight, after this one of the gateway.
    pub(crate) fn answer(&mut self, flight: &[Vec<u8>]) {
        let WebrtcPhone { phone, dtls, .. } = self;
        let send = &mut |datagram: &[u8]| phone.send(datagram);
        // The client repeats no ClientHello, however long the flight took: it would begin another handshake.
        let now = Instant::now().min(dtls.next_timeout() - Duration::from_millis(1));
        for datagram in flight {
            dtls.receive(datagram, now, send).unwrap();
        }
    }

    /// Checks the address and completes the handshake. The phone encrypts from then on.
    pub(crate) fn connect(
        &mut self,
        gateway: SocketAddr,
        credentials: &Credentials,
    ) -> Result<(), HandshakeFailure> {
        self.phone.set_target(gateway);
        credentials.check(&self.phone, Nominate::Yes);
        self.complete(false)
    }

    /// Completes a handshake that has begun. The phone encrypts from then on.
    pub(crate) fn complete_handshake(&mut self) -> Result<(), HandshakeFailure> {
        self.complete(true)
    }

    fn complete(&mut self, mut is_checked: bool) -> Result<(), HandshakeFailure> {
        let WebrtcPhone { phone, dtls, .. } = self;
        let deadline = Instant::now() + TIMEOUT;
        let (socket, gateway) = (phone.socket.try_clone().unwrap(), phone.target);
        let send = &mut |datagram: &[u8]| _ = socket.send_to(datagram, gateway).unwrap();
        while dtls.keys().is_none() {
            let now = Instant::now();
            assert!(now < deadline, "no keys in time");
            if is_checked && now >= dtls.next_timeout() {
                dtls.handle_timeout(now, send)?;
            }
            let mut buffer = [0; 2_048];
            let Ok(length) = phone.socket.recv(&mut buffer) else { continue };
            let datagram = &buffer[..length];
            match (demux::classify(datagram), answer_check(datagram, gateway)) {
                (_, Some(answer)) => send(&answer),
                (demux::DatagramKind::Dtls, None) => dtls.receive(datagram, now, send)?,
                _ => is_checked = true,
            }
        }
        phone.srtp = dtls.keys().map(|keys| SrtpEndpoint::new(keys).into());
        Ok(())
    }

    /// Ends the DTLS connection.
    pub(crate) fn close(&mut self) {
        let (socket, gateway) = (&self.phone.socket, self.phone.target);
        self.dtls.close(&mut |datagram| _ = socket.send_to(datagram, gateway).unwrap());
    }
}
