//! Session offers and their answers, as JSON of the admin API.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/sessions`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OfferRequest {
    /// The name of the scenario: `call`.
    pub scenario: String,
    /// The room's name.
    pub room: String,
    /// Labels for policies.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How the client's packets arrive.
    pub ingress: OfferIngress,
    /// The client's streams.
    pub media: Vec<OfferMedia>,
    /// `mux` (the default) or `own-port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp: Option<String>,
}

/// The body of `POST /v1/sessions` for a WebRTC client. Its SDP has the ingress and the media.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WebrtcOfferRequest {
    /// The name of the scenario: `call`.
    pub scenario: String,
    /// The room's name.
    pub room: String,
    /// Labels for policies.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The client's offer.
    pub webrtc: OfferSdp,
}

/// The SDP of a WebRTC client.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct OfferSdp {
    /// SDP (RFC 8866).
    pub offer: String,
}

/// The transport between client and gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OfferIngress {
    /// RTP in UDP.
    Udp(OfferIdentity),
    /// RTP over QUIC.
    Quic {},
    /// RTP over QUIC by WebTransport.
    Webtransport {},
}

/// How the gateway recognises a UDP client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "identity", rename_all = "kebab-case")]
pub enum OfferIdentity {
    /// By the source address and port of its RTP, and of its RTCP if that differs.
    Declared {
        /// The source of the client's RTP.
        address: SocketAddr,
        /// The RTCP address, if it is not muxed.
        #[serde(skip_serializing_if = "Option::is_none")]
        rtcp: Option<SocketAddr>,
    },
    /// The client proves itself by STUN checks.
    Stun,
}

/// A stream of the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OfferMedia {
    /// Audio or video.
    pub kind: OfferStreamKind,
    /// The payload types that it may use.
    pub payload_types: Vec<OfferPayloadType>,
    /// RTCP feedback that the sender understands: `pli`, `fir`, `remb`, `tmmbr`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub feedback: Vec<String>,
    /// The highest bitrate of the stream: `400 kbit/s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<String>,
}

/// The kind of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OfferStreamKind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// A payload type, as in SDP's `rtpmap`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OfferPayloadType {
    /// The number in the packet, 0–127.
    pub payload_type: u8,
    /// The codec name: `opus` or `vp8`.
    pub codec: String,
    /// RTP timestamp units per second.
    pub clock_rate: u32,
}

/// The body of the answer 201.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct OfferAnswer {
    /// The session's id: `s4k7mq2-17`.
    pub id: String,
    /// For a UDP client.
    #[serde(default)]
    pub udp: Option<UdpAnswer>,
    /// For a QUIC client.
    #[serde(default)]
    pub quic: Option<QuicAnswer>,
    /// For a WebRTC client.
    #[serde(default)]
    pub webrtc: Option<AnswerSdp>,
    /// For a client of WebTransport.
    #[serde(default)]
    pub webtransport: Option<WebtransportAnswer>,
    /// The route: the nodes that may carry the session, in order of preference.
    #[serde(default)]
    pub route: Vec<RouteHop>,
}

/// The destination of a UDP client, and its ICE credentials.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct UdpAnswer {
    /// Destinations of RTP, and of RTCP if it is muxed.
    pub addresses: Vec<SocketAddr>,
    /// Destinations of RTCP, if it has its own port.
    #[serde(default)]
    pub rtcp: Vec<SocketAddr>,
    /// The gateway's ufrag for this session; present for clients that use STUN.
    #[serde(default)]
    pub ufrag: Option<String>,
    /// ICE password, if the client uses STUN.
    #[serde(default)]
    pub password: Option<String>,
}

/// The destination of a QUIC client, and its flow identifiers.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct QuicAnswer {
    /// QUIC listeners, the best first.
    pub addresses: Vec<SocketAddr>,
    /// The ALPN protocol that the client must offer.
    pub alpn: String,
    /// The certificate's SHA-256, in hex.
    pub certificate_sha256: String,
    /// The flow identifier from client to gateway, in decimal.
    pub flow_to_gateway: String,
    /// The flow identifier from gateway to client, in decimal.
    pub flow_from_gateway: String,
}

/// The SDP for a WebRTC client.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct AnswerSdp {
    /// SDP (RFC 8866). It contains a password: it must go to the client alone.
    pub answer: String,
}

/// The destination of a client of WebTransport, and its flow identifiers.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct WebtransportAnswer {
    /// URLs of the session at the QUIC listeners, the best first.
    pub urls: Vec<String>,
    /// SHA-256 of the certificate in use and of the next one, in hex, for `serverCertificateHashes`. Empty: the certificate has an
    /// issuer.
    pub certificates_sha256: Vec<String>,
    /// The flow identifier from client to gateway, in decimal.
    pub flow_to_gateway: String,
    /// The flow identifier from gateway to client, in decimal.
    pub flow_from_gateway: String,
}

/// A node of the room's route.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct RouteHop {
    /// The node's name.
    pub node: String,
}

/// Omits the SDP, which has the client's password and may have its keys.
impl fmt::Debug for OfferSdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfferSdp({} bytes)", self.offer.len())
    }
}

/// Omits the SDP, which has the session's password and may have its keys.
impl fmt::Debug for AnswerSdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerSdp({} bytes)", self.answer.len())
    }
}

/// Omits the password.
impl fmt::Debug for UdpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpAnswer")
            .field("addresses", &self.addresses)
            .field("rtcp", &self.rtcp)
            .field("ufrag", &self.ufrag)
            .finish_non_exhaustive()
    }
}

impl QuicAnswer {
    /// The certificate's SHA-256, if it is 64 hex digits.
    pub fn certificate(&self) -> Option<[u8; 32]> {
        sha256(&self.certificate_sha256)
    }
}

impl WebtransportAnswer {
    /// The address in the first URL, if it has one in place of a name.
    pub fn address(&self) -> Option<SocketAddr> {
        let (authority, _) = self.urls.first()?.strip_prefix("https://")?.split_once('/')?;
        authority.parse().ok()
    }

    /// The SHA-256 of the certificate in use, if it is 64 hex digits.
    pub fn certificate(&self) -> Option<[u8; 32]> {
        sha256(self.certificates_sha256.first()?)
    }
}

fn sha256(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests;
