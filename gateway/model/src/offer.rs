//! Offers of sessions: the media that a client describes, and the refusals.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ask::{Labels, PolicyName};
use crate::clients::ClientGroup;
use crate::id::{NodeId, OfferId, RegionId};

/// A request for a session.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// The reply carries the same id.
    pub id: OfferId,
    /// The scenario's name, which also selects the policy set.
    pub scenario: Arc<str>,
    /// The room's name in the client's signalling.
    pub room: Arc<str>,
    /// Labels that policies may read: `region`, `device`, `tenant`…
    pub labels: Labels,
    /// The protocol and identity of the client.
    pub ingress: IngressProtocol,
    /// The streams of the client.
    pub media: Arc<MediaDescription>,
}

/// The protocol by which a client sends to the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IngressProtocol {
    /// RTP over UDP. `ClientIdentity` tells sessions apart.
    Udp(ClientIdentity),
    /// RTP over QUIC; flow identifiers are the capability.
    Quic,
    /// RTP in DATAGRAMs of WebTransport, at the QUIC listener.
    WebTransport,
}

impl IngressProtocol {
    /// Returns the transport of the protocol.
    pub fn transport(&self) -> ClientTransport {
        match self {
            IngressProtocol::Udp(_) => ClientTransport::Udp,
            IngressProtocol::Quic | IngressProtocol::WebTransport => ClientTransport::Quic,
        }
    }
}

crate::named! {
    /// The transport of a client's packets.
    #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
    pub enum ClientTransport {
        /// RTP over UDP (RFC 3550).
        Udp = "udp",
        /// RTP over QUIC, with or without WebTransport.
        Quic = "quic",
    }
}

/// A UDP client's proof that it may send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientIdentity {
    /// Only these addresses are accepted.
    Declared {
        /// The address of the client.
        address: SocketAddr,
        /// The source of the client's RTCP, if not `address`.
        rtcp: Option<Box<SocketAddr>>,
    },
    /// The address is declared; the port is learned from the first valid RTP packet.
    DeclaredIp(IpAddr),
    /// ICE-lite: an address that passes MESSAGE-INTEGRITY may send (RFC 8445).
    Stun,
    /// The session was opened by its first packet, on a listener for trusted networks.
    Open {
        /// The address of the client.
        address: SocketAddr,
        /// The listener that received it.
        listener: u8,
    },
}

/// The streams that a client declared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct MediaDescription {
    /// At least one stream.
    pub streams: Vec<MediaStream>,
    /// The port of the RTCP packets.
    pub rtcp: RtcpPort,
    /// The encryption of the payloads.
    pub srtp: Srtp,
    /// The jitter buffer of the client. Records of earlier versions have none.
    #[serde(default)]
    pub latency: Latency,
    /// The header extensions, with the ids of the room. Records of earlier versions have none.
    #[serde(default)]
    pub extensions: Vec<HeaderExtension>,
    /// The layers of the client's video; empty without simulcast. Records of earlier versions have none.
    #[serde(default)]
    pub simulcast: Vec<OfferedLayer>,
}

/// Limit of the layers of a client's video. Browsers send up to three.
pub const LAYERS_MAX: usize = 4;

/// A simulcast layer of a client's video (RFC 8853).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct OfferedLayer {
    /// Its name in header extensions (RFC 8851).
    pub rid: Box<str>,
    /// Its SSRC, if that is known before its packets name it.
    pub ssrc: Option<u32>,
    /// The SSRC of its retransmissions, if that is known.
    pub rtx_ssrc: Option<u32>,
}

/// A header extension of RTP packets (RFC 8285).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct HeaderExtension {
    /// 1–14, or 16–255 for the two-byte form.
    pub id: u8,
    /// The meaning of its elements.
    pub uri: ExtensionUri,
}

/// The URI of a header extension. Records have its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(from = "Box<str>", into = "Box<str>")]
pub enum ExtensionUri {
    /// Transport-wide sequence numbers (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportWideNumber,
    /// The level of the voice in the packet (RFC 6464).
    AudioLevel,
    /// The m-line of the stream (RFC 9143).
    Mid,
    /// The simulcast layer of the stream (RFC 8852).
    StreamId,
    /// The simulcast layer that a retransmission repairs (RFC 8852).
    RepairedStreamId,
    /// The time at which the packet was sent.
    AbsoluteSendTime,
    /// The frame of the packet, and those that it refers to (AV1 RTP payload format 1.0, appendix A).
    DependencyDescriptor,
    /// Another one.
    Other(Box<str>),
}

impl ExtensionUri {
    const KNOWN: [ExtensionUri; 7] = [
        ExtensionUri::TransportWideNumber,
        ExtensionUri::AudioLevel,
        ExtensionUri::Mid,
        ExtensionUri::StreamId,
        ExtensionUri::RepairedStreamId,
        ExtensionUri::AbsoluteSendTime,
        ExtensionUri::DependencyDescriptor,
    ];

    /// Returns the URI.
    pub fn as_str(&self) -> &str {
        match self {
            ExtensionUri::TransportWideNumber => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            ExtensionUri::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            ExtensionUri::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            ExtensionUri::StreamId => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            ExtensionUri::RepairedStreamId => {
                "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
            }
            ExtensionUri::AbsoluteSendTime => {
                "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
            }
            ExtensionUri::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            ExtensionUri::Other(uri) => uri,
        }
    }

    /// Returns the id by which the gateway names the layers of simulcast in rooms; `None` for other header extensions.
    pub fn room_id(&self) -> Option<u8> {
        match self {
            ExtensionUri::Mid => Some(4),
            ExtensionUri::StreamId => Some(10),
            ExtensionUri::RepairedStreamId => Some(11),
            _ => None,
        }
    }
}

impl From<Box<str>> for ExtensionUri {
    fn from(uri: Box<str>) -> ExtensionUri {
        let known = ExtensionUri::KNOWN.into_iter().find(|known| known.as_str() == &*uri);
        known.unwrap_or(ExtensionUri::Other(uri))
    }
}

impl From<ExtensionUri> for Box<str> {
    fn from(uri: ExtensionUri) -> Box<str> {
        uri.as_str().into()
    }
}

/// The time for which a client's jitter buffer holds a packet, in milliseconds. A repair that arrives later is useless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct Latency(pub u16);

impl Latency {
    /// Three packets of 20 ms.
    const DEFAULT: Latency = Latency(60);

    /// Returns the latency as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::DEFAULT
    }
}

/// The port on which the client sends RTCP.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub enum RtcpPort {
    /// RTCP shares the port of RTP (RFC 5761).
    Mux,
    /// RTCP uses a separate port.
    Own,
}

/// Encryption of a client's packets (RFC 3711).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub enum Srtp {
    /// Plain RTP: headers and RTCP may be rewritten.
    Plain,
    /// SRTP with keys that the gateway lacks: forwarded opaque; the gateway rewrites nothing.
    Opaque,
    /// SRTP that ends at the gateway, which has the keys. Nodes get plain RTP.
    Terminated,
}

impl Srtp {
    /// Returns whether the gateway reads and rewrites RTP and RTCP of the session.
    pub fn is_readable(self) -> bool {
        self != Srtp::Opaque
    }
}

crate::named! {
    /// The kind of a stream; its number is its index in counters.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
    pub enum StreamKind {
        /// Voice and other sound.
        Audio = "audio",
        /// Camera or screen.
        Video = "video",
    }
}

/// A payload type of RTP (RFC 3551), with its codec.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct PayloadType {
    /// 0–127.
    pub number: u8,
    /// `opus`, `VP8`…
    pub codec: Box<str>,
    /// RTP timestamp units per second.
    pub clock_rate: u32,
    /// Of `rtx` the payload type of the originals, `apt` (RFC 4588), of `red` that of the blocks (RFC 2198). Records of earlier versions have none.
    #[serde(default)]
    pub repairs: Option<u8>,
}

crate::named! {
    /// How packets repair others; its number is its index in counters.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum RepairKind {
        /// Retransmission (RFC 4588).
        Retransmission = "rtx",
        /// Forward error correction (RFC 5109, RFC 8627).
        Fec = "fec",
    }
}

impl PayloadType {
    /// Returns a payload type that names no other.
    pub fn new(number: u8, codec: &str, clock_rate: u32) -> PayloadType {
        PayloadType { number, codec: codec.into(), clock_rate, repairs: None }
    }

    /// How this payload type repairs other streams; `None` if it does not.
    pub fn repair(&self) -> Option<RepairKind> {
        let is = |name: &str| self.codec.eq_ignore_ascii_case(name);
        // Each packet is asked about, and the lengths tell most codecs apart.
        match self.codec.len() {
            3 if is("rtx") => Some(RepairKind::Retransmission),
            6 if is("ulpfec") => Some(RepairKind::Fec),
            7 if is("flexfec") => Some(RepairKind::Fec),
            10 if is("flexfec-03") => Some(RepairKind::Fec),
            _ => None,
        }
    }

    /// True if this payload type repairs other streams.
    pub fn is_repair(&self) -> bool {
        self.repair().is_some()
    }

    /// Returns true if packets of this payload type have redundant blocks (RFC 2198).
    pub fn is_red(&self) -> bool {
        self.codec.eq_ignore_ascii_case("red")
    }
}

/// Feedback that a stream's endpoint understands (RFC 4585, RFC 5104). Records of earlier versions lack those with a default.
#[derive(Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct FeedbackSupport {
    /// Picture loss indication.
    pub pli: bool,
    /// Full intra request.
    pub fir: bool,
    /// Receiver estimated maximum bitrate.
    pub remb: bool,
    /// Temporary maximum media stream bit rate request.
    pub tmmbr: bool,
    /// Negative acknowledgement of any packet (RFC 4585, section 6.2.1).
    #[serde(default)]
    pub nack: bool,
    /// Transport-wide arrival times (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    #[serde(default)]
    pub transport_cc: bool,
    /// Arrival times by source (RFC 8888).
    #[serde(default)]
    pub ccfb: bool,
}

/// A stream of one kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct MediaStream {
    /// Audio or video.
    pub kind: StreamKind,
    /// At least one payload type.
    pub payload_types: Vec<PayloadType>,
    /// The feedback that the endpoint declared.
    pub feedback: FeedbackSupport,
    /// Required bit rate in kbit/s, if the client declared it.
    pub bitrate_kbps: Option<u32>,
}

impl MediaDescription {
    /// Returns the description of a client with the default latency, no header extension and no simulcast.
    pub const fn new(streams: Vec<MediaStream>, rtcp: RtcpPort, srtp: Srtp) -> MediaDescription {
        MediaDescription {
            streams,
            rtcp,
            srtp,
            latency: Latency::DEFAULT,
            extensions: Vec::new(),
            simulcast: Vec::new(),
        }
    }

    /// Returns the id of a header extension, if the client declared it.
    pub fn extension(&self, uri: &ExtensionUri) -> Option<u8> {
        let found = self.extensions.iter().find(|extension| extension.uri == *uri);
        found.map(|extension| extension.id)
    }

    /// Returns the declared payload type of this number, with the kind of its stream.
    pub fn payload_type(&self, number: u8) -> Option<(StreamKind, &PayloadType)> {
        self.streams.iter().find_map(|stream| {
            let found = stream.payload_types.iter().find(|payload| payload.number == number)?;
            Some((stream.kind, found))
        })
    }

    /// Returns true if some stream is video.
    pub fn has_video(&self) -> bool {
        self.streams.iter().any(|stream| stream.kind == StreamKind::Video)
    }

    /// Some endpoint of the session declared support for REMB.
    pub fn takes_remb(&self) -> bool {
        self.srtp.is_readable() && self.streams.iter().any(|stream| stream.feedback.remb)
    }

    /// Some endpoint of the session obeys caps: by REMB or, for video, by TMMBR.
    pub fn takes_caps(&self) -> bool {
        let has_tmmbr =
            |stream: &MediaStream| stream.kind == StreamKind::Video && stream.feedback.tmmbr;
        self.takes_remb() || self.srtp.is_readable() && self.streams.iter().any(has_tmmbr)
    }
}

/// The author of a decision: a policy, the native default, an operator or a node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Decider {
    /// A plugin's decision was applied.
    Policy {
        /// The policy that decided.
        policy: PolicyName,
        /// The revision that decided.
        revision: Arc<str>,
    },
    /// The native default.
    Native,
    /// An operator, through the API.
    Operator,
    /// The node itself, which asked to be drained.
    Node,
}

impl std::fmt::Display for Decider {
    /// `call/routing@5f0c…`, `native`, `operator` or `node`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Decider::Policy { policy, revision } => write!(f, "{policy}@{revision}"),
            Decider::Native => f.write_str("native"),
            Decider::Operator => f.write_str("operator"),
            Decider::Node => f.write_str("node"),
        }
    }
}

/// The reason why an offer was turned down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OfferRefusal {
    /// No policy set defines the scenario.
    UnknownScenario(Arc<str>),
    /// The room already exists with this other scenario.
    ScenarioOfRoom(Arc<str>),
    /// The gateway has reached its limit of sessions.
    Full {
        /// Clients try again after this time.
        retry_after: Duration,
    },
    /// The gateway is shutting down.
    Draining,
    /// The admission policy rejected the session.
    Rejected {
        /// Clients try again after this time.
        retry_after: Duration,
    },
    /// The admission policy named another region.
    Redirected(RegionId),
    /// No node can take the room now: none has capacity, or stranded rooms go first.
    NoNode {
        /// Clients try again after this time.
        retry_after: Duration,
    },
    /// The routing policy gives the room no node.
    PlacementRefused {
        /// The policy's reason, if it gave one.
        reason: Option<Arc<str>>,
        /// Clients try again after this time.
        retry_after: Duration,
    },
    /// The access networks of the client's group impair its sessions, and its breaker is open.
    ClientsImpaired {
        /// The clients that are refused.
        group: ClientGroup,
        /// Clients try again after this time.
        retry_after: Duration,
    },
    /// The session was closed through the API before it could open.
    Closed,
    /// The node that carries the room did not open the session.
    NotOpened {
        /// The node that refused.
        node: NodeId,
        /// Clients try again after this time.
        retry_after: Duration,
    },
}

/// The reason why an operator's request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Impossible {
    /// No session has this number.
    NoSuchSession,
    /// No room has this name.
    NoSuchRoom,
    /// No node has this number.
    NoSuchNode,
    /// The room is already at that node.
    AlreadyThere,
    /// The node is Down, draining or full.
    NodeUnfit,
    /// No region has this number.
    NoSuchRegion,
    /// No zone has this number, or its name is that of several.
    NoSuchZone,
    /// An operator ejected the node, or all nodes of the zone, before.
    AlreadyEjected,
    /// The node is not Down, or no node of the zone was ejected.
    NotDown,
    /// The node is being removed and takes no rooms.
    NodeLeaves,
    /// The node itself asked to be drained.
    NodeDrains,
    /// The limit on nodes is reached.
    NoRoomForNodes,
    /// Breakers of clients limit no newcomer (`action = "none"`).
    NoBreakerAction,
    /// The limit on breakers of clients is reached.
    NoRoomForBreakers,
}

#[cfg(test)]
mod tests;
