//! A WebRTC client's offer, the answer, and its DTLS and SRTP.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use evenkeel_contract::offers::{OfferFeedback, OfferMedia, OfferStreamKind};
use evenkeel_dtls::{CertificateError, DtlsCertificate, DtlsClient, HandshakeFailure};
use evenkeel_media::fingerprint::CertificateFingerprint;
use fastrand::Rng;
use serde::Serialize;

use super::ice::{self, Credentials};
use super::srtp::SrtpEndpoint;
use crate::clock;

/// Length of the ICE password, by which the gateway signs its checks of the client (RFC 8839, section 5.4: at least 22).
const PASSWORD_LENGTH: usize = 24;

/// The certificate and the ICE credentials of a WebRTC client.
pub struct WebrtcIdentity {
    /// The certificate that the client shows.
    pub certificate: DtlsCertificate,
    rng: Rng,
    ice: Credentials,
}

fn draw(rng: &mut Rng) -> Credentials {
    let ufrag = ice::ufrag(rng);
    let password = (0..PASSWORD_LENGTH).map(|_| rng.alphanumeric()).collect();
    Credentials { ufrag, password }
}

impl WebrtcIdentity {
    /// Makes a certificate, and credentials from a seed.
    ///
    /// # Errors
    /// Fails if the system has no random numbers.
    pub fn generate(seed: u64) -> Result<Self, CertificateError> {
        let mut rng = Rng::with_seed(seed);
        let ice = draw(&mut rng);
        Ok(Self { certificate: DtlsCertificate::generate()?, rng, ice })
    }

    /// Draws other ICE credentials for the next offer.
    pub fn restart_ice(&mut self) {
        self.ice = draw(&mut self.rng);
    }

    /// The ICE user fragment of the offer.
    pub fn ufrag(&self) -> &str {
        &self.ice.ufrag
    }

    /// The fingerprint that the offer names.
    pub fn fingerprint(&self) -> CertificateFingerprint {
        CertificateFingerprint::Sha256(self.certificate.fingerprint())
    }

    /// The offer of these streams in both directions, each in an m-line of one bundle (RFC 8829).
    pub fn sdp(&self, media: &[OfferMedia]) -> String {
        let mids: Vec<String> = (0..media.len()).map(|mid| mid.to_string()).collect();
        let Credentials { ufrag, password } = &self.ice;
        let mut text = format!(
            "v=0\no=- 1 1 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE {}\n\
             a=ice-ufrag:{ufrag}\na=ice-pwd:{password}\na=fingerprint:{}\n",
            mids.join(" "),
            self.fingerprint()
        );
        media.iter().zip(&mids).for_each(|(stream, mid)| write_section(&mut text, stream, mid));
        text.replace('\n', "\r\n")
    }
}

fn write_section(text: &mut String, media: &OfferMedia, mid: &str) {
    let kind = match media.kind {
        OfferStreamKind::Audio => "audio",
        OfferStreamKind::Video => "video",
    };
    let numbers = media.payload_types.iter().map(|of| of.payload_type.to_string());
    let mut lines = format!(
        "m={kind} 9 UDP/TLS/RTP/SAVPF {}\nc=IN IP4 0.0.0.0\na=mid:{mid}\na=rtcp-mux\na=setup:actpass\n",
        numbers.collect::<Vec<_>>().join(" ")
    );
    for of in &media.payload_types {
        let (number, codec, clock_rate) = (of.payload_type, &of.codec, of.clock_rate);
        // Opus always has two channels (RFC 7587, section 7).
        let channels = if codec.eq_ignore_ascii_case("opus") { "/2" } else { "" };
        let _whole = writeln!(lines, "a=rtpmap:{number} {codec}/{clock_rate}{channels}");
        if let Some(apt) = of.apt {
            let _whole = if codec.eq_ignore_ascii_case("red") {
                writeln!(lines, "a=fmtp:{number} {apt}/{apt}")
            } else {
                writeln!(lines, "a=fmtp:{number} apt={apt}")
            };
        }
        for feedback in &media.feedback {
            let value = match feedback {
                OfferFeedback::Pli => "nack pli",
                OfferFeedback::Fir => "ccm fir",
                OfferFeedback::Tmmbr => "ccm tmmbr",
                OfferFeedback::Remb => "goog-remb",
                OfferFeedback::Nack => "nack",
                OfferFeedback::TransportCc => "transport-cc",
                OfferFeedback::Ccfb => "ack ccfb",
            };
            let _whole = writeln!(lines, "a=rtcp-fb:{number} {value}");
        }
    }
    text.push_str(&lines);
}

/// The parts of an answer that a client needs.
pub struct AnswerTransport {
    /// The preferred candidate.
    pub gateway: SocketAddr,
    /// The gateway's credentials.
    pub ice: Credentials,
    /// The fingerprint of the gateway's certificate.
    pub fingerprint: CertificateFingerprint,
}

impl AnswerTransport {
    /// Reads the SDP of an answer; `None` if a part is absent or malformed.
    pub fn parse(sdp: &str) -> Option<Self> {
        let value = |name: &str| sdp.lines().find_map(|line| line.strip_prefix(name));
        let mut candidate = value("a=candidate:")?.split(' ').skip(4);
        let ip: IpAddr = candidate.next()?.parse().ok()?;
        Some(Self {
            gateway: SocketAddr::new(ip, candidate.next()?.parse().ok()?),
            ice: Credentials {
                ufrag: value("a=ice-ufrag:")?.to_owned(),
                password: value("a=ice-pwd:")?.to_owned(),
            },
            fingerprint: value("a=fingerprint:")?.parse().ok()?,
        })
    }
}

/// The security of a WebRTC client's way: its own identity, and the fingerprint of the answer.
pub struct WebrtcWay {
    pub(super) identity: WebrtcIdentity,
    pub(super) fingerprint: CertificateFingerprint,
}

impl WebrtcWay {
    /// The username fragment of the client's offer.
    pub(super) fn ufrag(&self) -> String {
        self.identity.ufrag().to_owned()
    }
}

/// Events of a WebRTC client's transport since it joined.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct WebrtcTally {
    /// Complete DTLS handshakes.
    pub handshakes: u64,
    /// Times without an answered check for 5 s, after which an application restarts ICE.
    pub ice_restarts: u64,
    /// Packets of the gateway with a wrong tag, and malformed ones.
    pub authentication_failures: u64,
    /// Packets with an index that was accepted before or is more than 127 below the highest one, except for `reused_indices`.
    pub replayed: u64,
    /// Packets of SRTP or SRTCP with the SSRC and index of an accepted packet, and with other bytes.
    pub reused_indices: u64,
}

impl WebrtcTally {
    /// Adds the events of another client.
    pub fn add(&mut self, other: WebrtcTally) {
        self.handshakes += other.handshakes;
        self.ice_restarts += other.ice_restarts;
        self.authentication_failures += other.authentication_failures;
        self.replayed += other.replayed;
        self.reused_indices += other.reused_indices;
    }
}

/// DTLS and SRTP of a client. The handshake begins once a check of ICE was answered.
pub(super) struct WebrtcTransport {
    dtls: DtlsClient,
    fingerprint: CertificateFingerprint,
    has_begun: bool,
    /// `None` before the handshake is complete.
    srtp: Option<SrtpEndpoint>,
}

impl WebrtcTransport {
    pub(super) fn new(way: WebrtcWay) -> Self {
        Self {
            dtls: DtlsClient::new(&way.identity.certificate, Instant::now()),
            fingerprint: way.fingerprint,
            has_begun: false,
            srtp: None,
        }
    }

    /// Begins the handshake, and repeats flights that had no answer.
    pub(super) fn handle_timeout(&mut self, send: &mut impl FnMut(&[u8])) -> Result<(), String> {
        let now = Instant::now();
        let is_due = !self.has_begun || now >= self.dtls.next_timeout();
        if self.srtp.is_some() || !is_due {
            return Ok(());
        }
        self.has_begun = true;
        self.dtls.handle_timeout(now, send).map_err(|failure| failed(&failure))
    }

    /// The time of the next [`Self::handle_timeout`], nanoseconds since the Unix epoch.
    pub(super) fn poll_timeout(&self, now_ns: u64) -> u64 {
        if self.srtp.is_some() || !self.has_begun {
            return u64::MAX;
        }
        let wait = self.dtls.next_timeout().saturating_duration_since(Instant::now());
        now_ns.saturating_add(clock::nanoseconds(wait))
    }

    /// Processes a DTLS datagram. Returns true if it completed the handshake.
    pub(super) fn handle_dtls(
        &mut self,
        datagram: &[u8],
        send: &mut impl FnMut(&[u8]),
    ) -> Result<bool, String> {
        if self.srtp.is_some() {
            return Ok(false);
        }
        let received = self.dtls.receive(datagram, Instant::now(), send);
        received.map_err(|failure| failed(&failure))?;
        let Some(keys) = self.dtls.keys() else { return Ok(false) };
        let certificate = self.dtls.gateway_certificate();
        if !certificate.is_some_and(|certificate| self.fingerprint.matches(certificate)) {
            return Err("the gateway's certificate is not that of its answer".to_owned());
        }
        self.srtp = Some(SrtpEndpoint::new(keys));
        Ok(true)
    }

    /// Protects a packet for the gateway; `None` if SRTP refuses it.
    pub(super) fn protect(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.srtp.as_mut()?.protect(packet).ok()
    }

    /// Unprotects a packet of the gateway; `None` if it is refused, which is counted.
    pub(super) fn unprotect(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.srtp.as_mut()?.unprotect(packet).ok()
    }

    /// Its events, without those of ICE.
    pub(super) fn tally(&self) -> WebrtcTally {
        let counts = |of: fn(&SrtpEndpoint) -> u64| self.srtp.as_ref().map_or(0, of);
        WebrtcTally {
            handshakes: u64::from(self.srtp.is_some()),
            ice_restarts: 0,
            authentication_failures: counts(|srtp| srtp.authentication_failures),
            replayed: counts(|srtp| srtp.replayed),
            reused_indices: counts(|srtp| srtp.reused_indices),
        }
    }
}

fn failed(failure: &HandshakeFailure) -> String {
    format!("its DTLS handshake failed: {failure}")
}

#[cfg(test)]
mod tests;
