//! A WebRTC client: ICE, DTLS and SRTP on the socket of a phone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_control::OfferedSession;
use evenkeel_dataplane::worker::{AnsweredMedia, SrtpKeying};
use evenkeel_dtls::{DtlsCertificate, DtlsClient, HandshakeFailure};
use evenkeel_media::demux;
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::numbering::{ClientNumbers, ExtensionMap};
use evenkeel_model::{ClientIdentity, IngressProtocol, MediaDescription, Srtp};
use serde_json::{Value, json};

use super::phone::PhoneSrtp;
use super::{Credentials, GatewayProcess, Nominate, Phone, TIMEOUT, offer, wait_until};

/// Firefox's payload types of Opus and VP8, and those of rooms.
fn numbers() -> Option<ClientNumbers> {
    ClientNumbers::new(&vec![(109, 111), (120, 96)].into(), &ExtensionMap::default(), None)
}

/// The address of the gateway and the credentials in an answer of the API.
fn told(answer: &Value) -> (SocketAddr, Credentials) {
    let sdp = answer["webrtc"]["answer"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let value = |name: &str| {
        let line = sdp.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{sdp}")).to_owned()
    };
    let candidate = value("a=candidate:");
    let fields: Vec<&str> = candidate.split(' ').collect();
    let address = format!("{}:{}", fields[4], fields[5]).parse().unwrap();
    (address, Credentials { ufrag: value("a=ice-ufrag:"), password: value("a=ice-pwd:") })
}

pub(crate) struct WebrtcPhone {
    pub(crate) phone: Phone,
    pub(crate) dtls: DtlsClient,
    pub(crate) fingerprint: CertificateFingerprint,
    /// Its ICE user fragment.
    ufrag: &'static str,
    /// `sendrecv`, as its offers have it.
    direction: &'static str,
}

impl WebrtcPhone {
    pub(crate) fn new(number: u64) -> WebrtcPhone {
        WebrtcPhone::on(Phone::new(number))
    }

    pub(crate) fn on(phone: Phone) -> WebrtcPhone {
        let certificate = DtlsCertificate::generate().unwrap();
        WebrtcPhone {
            phone,
            dtls: DtlsClient::new(&certificate, Instant::now()),
            fingerprint: CertificateFingerprint::Sha256(certificate.fingerprint()),
            ufrag: "phon",
            direction: "sendrecv",
        }
    }

    /// The request of a session, as the API reads it from SDP.
    pub(crate) fn offer(&self, room: &str) -> OfferedSession {
        let mut wanted = offer(room, IngressProtocol::Udp(ClientIdentity::Stun));
        let media = MediaDescription { srtp: Srtp::Terminated, ..(*wanted.media).clone() };
        let fingerprints = [self.fingerprint.clone()].into();
        wanted.media = Arc::new(media);
        let ufrag = self.ufrag.into();
        let answered = Arc::new(AnsweredMedia {
            ufrag,
            may_send: true,
            may_receive: true,
            numbers: numbers(),
        });
        wanted.srtp = Some(SrtpKeying::Dtls { fingerprints, keys: None, answered });
        wanted
    }

    /// The SDP of the client.
    pub(crate) fn sdp(&self) -> String {
        let WebrtcPhone { fingerprint, ufrag, direction, .. } = self;
        let lines = [
            "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE 0 1",
            &format!("a=ice-ufrag:{ufrag}\na=ice-pwd:phonephonephonephonephone\na={direction}"),
            &format!("a=fingerprint:{fingerprint}"),
            "m=audio 9 UDP/TLS/RTP/SAVPF 109\nc=IN IP4 0.0.0.0\na=mid:0\na=rtcp-mux\na=setup:actpass",
            "a=rtpmap:109 opus/48000/2",
            "m=video 9 UDP/TLS/RTP/SAVPF 120\nc=IN IP4 0.0.0.0\na=mid:1\na=rtcp-mux\na=setup:actpass",
            "a=rtpmap:120 VP8/90000\na=rtcp-fb:120 nack pli\n",
        ];
        lines.join("\n").replace('\n', "\r\n")
    }

    /// Opens a session through the API. Returns the address of the gateway and the credentials.
    fn open(&self, gateway: &mut GatewayProcess, room: &str) -> (SocketAddr, Credentials) {
        let body = json!({"scenario": "call", "room": room, "webrtc": {"offer": self.sdp()}});
        told(&gateway.post("/v1/sessions", &body))
    }

    /// Offers again in the session. Returns the address of the gateway and the credentials.
    pub(crate) fn offer_again(
        &self,
        gateway: &mut GatewayProcess,
        id: &str,
    ) -> (SocketAddr, Credentials) {
        let body = json!({"webrtc": {"offer": self.sdp()}});
        told(&gateway.put(&format!("/v1/sessions/{id}"), &body))
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
    pub(crate) fn change_network(
        &mut self,
        gateway: &mut GatewayProcess,
        id: &str,
        ufrag: &'static str,
    ) {
        self.ufrag = ufrag;
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
        for datagram in flight {
            dtls.receive(datagram, Instant::now(), send).unwrap();
        }
    }

    /// Checks the address and completes the handshake. The phone encrypts from then on.
    pub(crate) fn connect(
        &mut self,
        gateway: SocketAddr,
        credentials: &Credentials,
    ) -> Result<(), HandshakeFailure> {
        let WebrtcPhone { phone, dtls, .. } = self;
        phone.set_target(gateway);
        credentials.check(phone, Nominate::Yes);
        let deadline = Instant::now() + TIMEOUT;
        let socket = phone.socket.try_clone().unwrap();
        let send = &mut |datagram: &[u8]| _ = socket.send_to(datagram, gateway).unwrap();
        let mut is_checked = false;
        while dtls.keys().is_none() {
            let now = Instant::now();
            assert!(now < deadline, "no keys in time");
            if is_checked && now >= dtls.next_timeout() {
                dtls.handle_timeout(now, send)?;
            }
            let mut buffer = [0; 2_048];
            let Ok(length) = phone.socket.recv(&mut buffer) else { continue };
            match demux::classify(&buffer[..length]) {
                demux::DatagramKind::Dtls => dtls.receive(&buffer[..length], now, send)?,
                _ => is_checked = true,
            }
        }
        phone.srtp = dtls.keys().map(|keys| PhoneSrtp::new(keys, numbers()));
        Ok(())
    }

    /// Ends the DTLS connection.
    pub(crate) fn close(&mut self) {
        let (socket, gateway) = (&self.phone.socket, self.phone.target);
        self.dtls.close(&mut |datagram| _ = socket.send_to(datagram, gateway).unwrap());
    }
}
