//! Offers of sessions, and their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroize;

use crate::Word;
use crate::nodes::Hop;
use crate::sessions::IceFragments;

/// The body of `POST /v1/sessions`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferRequest {
    /// The name of the scenario: `call`.
    pub scenario: String,
    /// The room's name, 1 to 256 bytes.
    pub room: String,
    /// Labels for policies, at most 32 of at most 256 bytes. Default: none.
    #[serde(default)]
    pub labels: OrderedPairs,
    /// Of a WebRTC client, in place of `ingress`, `media`, `extensions`, `simulcast`, `rtcp` and `srtp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webrtc: Option<OfferSdp>,
    /// How the client's packets arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<OfferIngress>,
    /// The client's streams, at most 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<Vec<OfferMedia>>,
    /// The header extensions of its packets, at most 32. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<OfferExtension>,
    /// The simulcast layers of its video, at most four. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub simulcast: Vec<OfferLayer>,
    /// Default: `mux`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp: Option<OfferRtcp>,
    /// Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srtp: Option<OfferSrtp>,
    /// The time for which the client's jitter buffer holds a packet, at most one second: `120ms`. Default: 60 ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// Of the driver `plain`: the address and port of the session at each node. Default: none.
    #[serde(default, skip_serializing_if = "OrderedPairs::is_empty")]
    pub nodes: OrderedPairs,
    /// `signed` of a [`ProbeReport`](crate::probes::ProbeReport), which becomes labels of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
}

impl OfferRequest {
    /// The first field that SDP determines and that is given beside it.
    pub fn beside_sdp(&self) -> Option<&'static str> {
        let given = [
            ("ingress", self.ingress.is_some()),
            ("media", self.media.is_some()),
            ("extensions", !self.extensions.is_empty()),
            ("simulcast", !self.simulcast.is_empty()),
            ("rtcp", self.rtcp.is_some()),
            ("srtp", self.srtp.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(field, _)| field)
    }
}

/// The SDP of a WebRTC client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferSdp {
    /// SDP (RFC 8866).
    pub offer: String,
    /// Default: both directions, as far as the offer has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<OfferDirection>,
}

/// The direction of a client's media.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OfferDirection {
    /// The client sends only.
    Publish,
    /// The client receives only.
    View,
}

/// The keys of a client's media.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(untagged, expecting = "`true`, `false` or an object with `crypto`")]
pub enum OfferSrtp {
    /// False: the client has no keys. True: the node has the keys.
    AtNode(bool),
    /// SRTP ends at the gateway.
    Terminated(OfferCrypto),
}

impl Default for OfferSrtp {
    fn default() -> OfferSrtp {
        OfferSrtp::AtNode(false)
    }
}

/// SDES keys of a client (RFC 4568).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferCrypto {
    /// Values of `a=crypto` lines, which contain keys, at most 16.
    pub crypto: Vec<String>,
}

/// The transport between client and gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OfferIngress {
    /// RTP in UDP.
    Udp(OfferUdp),
    /// RTP over QUIC.
    Quic(OfferQuic),
    /// RTP over QUIC by WebTransport.
    Webtransport(OfferQuic),
}

impl OfferIngress {
    /// A client that is recognised by its address.
    pub fn declared(address: SocketAddr) -> OfferIngress {
        OfferIngress::Udp(OfferUdp {
            identity: OfferIdentity::Declared,
            address: Some(address.to_string()),
            rtcp: None,
        })
    }

    /// A client that is recognised by its addresses for RTP and for RTCP.
    pub fn declared_with_rtcp(address: SocketAddr, rtcp: SocketAddr) -> OfferIngress {
        OfferIngress::Udp(OfferUdp {
            identity: OfferIdentity::Declared,
            address: Some(address.to_string()),
            rtcp: Some(rtcp.to_string()),
        })
    }

    /// A client that proves itself by STUN checks.
    pub fn stun() -> OfferIngress {
        OfferIngress::Udp(OfferUdp { identity: OfferIdentity::Stun, address: None, rtcp: None })
    }

    /// A client of RTP over QUIC.
    pub fn quic() -> OfferIngress {
        OfferIngress::Quic(OfferQuic {})
    }

    /// A client of WebTransport.
    pub fn webtransport() -> OfferIngress {
        OfferIngress::Webtransport(OfferQuic {})
    }
}

/// A client of RTP in UDP.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferUdp {
    /// How the gateway recognises the client.
    pub identity: OfferIdentity,
    /// Of `declared` the source address and port of its RTP, of `declared-ip` the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Of `declared` with `own-port`: the address and port of its RTCP. Default: the next port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtcp: Option<String>,
}

/// How the gateway recognises a UDP client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OfferIdentity {
    /// By its source address and port.
    Declared,
    /// By its source address; the port is learned from the first packet.
    DeclaredIp,
    /// By STUN checks.
    Stun,
}

/// A client of QUIC, which has no members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferQuic {}

/// A stream of the client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferMedia {
    /// Audio or video.
    pub kind: OfferStreamKind,
    /// The payload types that it may use, 1 to 32.
    pub payload_types: Vec<OfferPayloadType>,
    /// RTCP feedback that the sender understands. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feedback: Vec<OfferFeedback>,
    /// The highest bit rate of the stream: `400 kbit/s`. Default: that of the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<String>,
}

/// The kind of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OfferStreamKind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

/// A payload type, as in SDP's `rtpmap` and `fmtp`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferPayloadType {
    /// The number in the packet, 0 to 63 or 96 to 127.
    pub payload_type: u8,
    /// The codec name: `opus` or `vp8`.
    pub codec: String,
    /// RTP timestamp units per second, 1 to 1,000,000.
    pub clock_rate: u32,
    /// Of `rtx` the payload type of the originals, of `red` that of the blocks: one of the same stream. Default: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apt: Option<u8>,
}

impl OfferPayloadType {
    /// A payload type that names no other.
    pub fn new(payload_type: u8, codec: &str, clock_rate: u32) -> OfferPayloadType {
        OfferPayloadType { payload_type, codec: codec.to_owned(), clock_rate, apt: None }
    }
}

/// A header extension of RTP packets (RFC 8285), as in SDP's `extmap`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferExtension {
    /// The id in the packet: 1 to 14, or 16 to 255 for the two-byte form.
    pub id: u8,
    /// The URI: `urn:ietf:params:rtp-hdrext:ssrc-audio-level`.
    pub uri: String,
}

/// A simulcast layer of a client's video (RFC 8853).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OfferLayer {
    /// Its name in header extensions (RFC 8851), 1 to 16 letters and digits: `h`.
    pub rid: String,
    /// Its SSRC. Default: the packets name their layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// The SSRC of its retransmissions (RFC 4588). Default: the packets name the layer that they repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtx: Option<u32>,
}

/// RTCP feedback.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OfferFeedback {
    /// Picture loss indication (RFC 4585).
    Pli,
    /// Full intra request (RFC 5104).
    Fir,
    /// Receiver estimated maximum bitrate.
    Remb,
    /// Temporary maximum media stream bit rate request (RFC 5104).
    Tmmbr,
    /// Negative acknowledgement of any packet (RFC 4585).
    Nack,
    /// Transport-wide arrival times.
    TransportCc,
    /// Arrival times by source (RFC 8888).
    Ccfb,
}

/// The port of RTCP.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OfferRtcp {
    /// That of RTP (RFC 5761).
    #[default]
    Mux,
    /// Another one.
    OwnPort,
}

/// An object of strings in the given order; a repeated key is refused.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
pub struct OrderedPairs(
    #[cfg_attr(feature = "openapi", schemars(with = "BTreeMap<String, String>"))]
    pub  Vec<(Box<str>, Box<str>)>,
);

impl OrderedPairs {
    /// There is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for OrderedPairs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> OrderedPairs {
        let pair = |(key, value): (K, V)| (key.as_ref().into(), value.as_ref().into());
        OrderedPairs(pairs.into_iter().map(pair).collect())
    }
}

impl Serialize for OrderedPairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for OrderedPairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrderedPairs, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = OrderedPairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedPairs, A::Error> {
                let mut seen = BTreeSet::new();
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<Box<str>, Box<str>>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format_args!("`{key}` is given twice")));
                    }
                    pairs.push((key, value));
                }
                Ok(OrderedPairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// The body of the answer 201 to `POST /v1/sessions`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct OfferAnswer {
    /// The session's id: `s4k7mq2-17`.
    pub id: String,
    /// The room's name.
    pub room: Arc<str>,
    /// The scenario's name.
    pub scenario: Arc<str>,
    /// For a UDP client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpAnswer>,
    /// For a QUIC client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<QuicAnswer>,
    /// For a client of WebTransport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webtransport: Option<WebtransportAnswer>,
    /// For a WebRTC client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webrtc: Option<AnswerSdp>,
    /// For a WebRTC client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ice: Option<IceFragments>,
    /// For a client with SDES keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srtp: Option<CryptoAnswer>,
    /// The nodes that may carry the session, best first.
    pub route: Vec<Hop>,
    /// The author of the decision by hook: `call/routing@5f0c5f0c5f0c`.
    pub decided_by: BTreeMap<Word, String>,
    /// The trace of the session's spans: 32 hexadecimal digits.
    pub trace_id: String,
}

/// The destination of a UDP client, and its ICE credentials.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct UdpAnswer {
    /// Destinations of RTP, and of RTCP if it is muxed, best first.
    pub addresses: Vec<SocketAddr>,
    /// Destinations of RTCP, if it has its own port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rtcp: Vec<SocketAddr>,
    /// The gateway's user fragment, if the client uses STUN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ufrag: Option<String>,
    /// ICE password, if the client uses STUN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// The destination of a QUIC client, and its flow identifiers.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct QuicAnswer {
    /// QUIC listeners, best first.
    pub addresses: Vec<SocketAddr>,
    /// The ALPN protocol that the client must offer.
    pub alpn: String,
    /// The certificate's SHA-256, in hexadecimal.
    pub certificate_sha256: String,
    /// The flow identifier from client to gateway, in decimal: JavaScript numbers have 53 bits, flow identifiers 62.
    pub flow_to_gateway: String,
    /// The flow identifier from gateway to client, in decimal.
    pub flow_from_gateway: String,
}

/// The destination of a client of WebTransport, and its flow identifiers.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct WebtransportAnswer {
    /// URLs of the session at the QUIC listeners, best first.
    pub urls: Vec<String>,
    /// SHA-256 of the certificate in use and of the next one, in hexadecimal, for `serverCertificateHashes`. Empty: the certificate
    /// has an issuer.
    pub certificates_sha256: Vec<String>,
    /// As of [`QuicAnswer`].
    pub flow_to_gateway: String,
    /// As of [`QuicAnswer`].
    pub flow_from_gateway: String,
}

/// The SDP for a WebRTC client.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct AnswerSdp {
    /// SDP (RFC 8866). It contains a password: it must go to the client alone.
    pub answer: String,
}

/// The gateway's SDES key for a client (RFC 4568). It is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
pub struct CryptoAnswer {
    /// The value of one `a=crypto` line, with the tag and the suite of the offer.
    pub crypto: Vec<String>,
}

/// The body of `PUT /v1/sessions/ID`: a later offer of a WebRTC client, or a restart of its ICE.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LaterRequest {
    /// Either an offer or a user fragment.
    pub webrtc: LaterSdp,
}

/// The later offer of a WebRTC client, or its new user fragment.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LaterSdp {
    /// SDP (RFC 8866).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// As of [`OfferSdp`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<OfferDirection>,
    /// In place of an offer: the client's new user fragment, which restarts ICE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ufrag: Option<String>,
}

/// The answer to `PUT /v1/sessions/ID`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LaterAnswer {
    /// `s4k7mq2-17`.
    pub id: String,
    /// The answer to the offer, or to the restart.
    pub webrtc: LaterWebrtcAnswer,
}

/// The answer to a later offer of a WebRTC client, or to a restart of its ICE.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct LaterWebrtcAnswer {
    /// To an offer: SDP (RFC 8866). It contains a password: it must go to the client alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// To a user fragment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ice: Option<IceRestart>,
}

/// The gateway's side of ICE after a restart.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct IceRestart {
    /// Its user fragment.
    pub ufrag: String,
    /// Its password.
    pub password: String,
    /// Its addresses, best first.
    pub addresses: Vec<SocketAddr>,
}

/// Omits the SDP, which has the client's password and may have its keys.
impl fmt::Debug for OfferSdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfferSdp({} bytes)", self.offer.len())
    }
}

/// Omits the keys.
impl fmt::Debug for OfferCrypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfferCrypto({} lines)", self.crypto.len())
    }
}

/// Omits the SDP, which has the client's password and may have its keys.
impl fmt::Debug for LaterSdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaterSdp").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Omits the SDP, which has the session's password and may have its keys.
impl fmt::Debug for AnswerSdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnswerSdp({} bytes)", self.answer.len())
    }
}

/// Omits the key.
impl fmt::Debug for CryptoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoAnswer({} lines)", self.crypto.len())
    }
}

impl Drop for CryptoAnswer {
    fn drop(&mut self) {
        self.crypto.zeroize();
    }
}

/// Omits the SDP, which has the session's password.
impl fmt::Debug for LaterWebrtcAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaterWebrtcAnswer").field("ice", &self.ice).finish_non_exhaustive()
    }
}

/// Omits the password.
impl fmt::Debug for IceRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceRestart").field("ufrag", &self.ufrag).finish_non_exhaustive()
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
    /// The certificate's SHA-256, if it is 64 hexadecimal digits.
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

    /// The SHA-256 of the certificate in use, if it is 64 hexadecimal digits.
    pub fn certificate(&self) -> Option<[u8; 32]> {
        sha256(self.certificates_sha256.first()?)
    }
}

fn sha256(hex: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secrets() {
        let text = r#"{"id": "s1", "udp": {"addresses": [], "ufrag": "gate", "password": "hush-pwd"},
            "webrtc": {"answer": "a=ice-pwd:hush-sdp"}, "srtp": {"crypto": ["1 X inline:hush-key"]}}"#;
        let answer: OfferAnswer = serde_json::from_str(text).unwrap();
        let text = r#"{"webrtc": {"ice": {"ufrag": "next", "password": "hush-pwd"}, "answer": "hush-sdp"}}"#;
        let later: LaterAnswer = serde_json::from_str(text).unwrap();
        let text = r#"{"scenario": "call", "room": "r", "webrtc": {"offer": "a=crypto:1 X inline:hush-key"},
            "srtp": {"crypto": ["1 X inline:hush-key"]}}"#;
        let offer: OfferRequest = serde_json::from_str(text).unwrap();
        let text = r#"{"webrtc": {"offer": "a=crypto:1 X inline:hush-key"}}"#;
        let next: LaterRequest = serde_json::from_str(text).unwrap();
        let shown = format!("{answer:?} {later:?} {offer:?} {next:?}");
        assert!(shown.contains("gate") && shown.contains("next"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }
}
