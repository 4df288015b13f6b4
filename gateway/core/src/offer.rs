//! What a client wants when it asks for a session, and what it gets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::{Labels, NodeId, OfferId, Plan, PolicyName, RegionId, RoomId, RouteCell, SessionId};

/// A request for a session.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// Comes back with the reply.
    pub id: OfferId,
    /// Names the scenario, and by it the policy set.
    pub scenario: Arc<str>,
    /// The room's name, as the client's signalling knows it.
    pub room: Arc<str>,
    /// Facts that policies may read: `region`, `device`, `tenant`…
    pub labels: Labels,
    /// How the client reaches the gateway.
    pub ingress: Ingress,
    /// What it sends and receives.
    pub media: Arc<Media>,
}

/// How the client reaches the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ingress {
    /// RTP over UDP, told apart as the identity says.
    Udp(Identity),
    /// RTP over QUIC; flow identifiers are the capability.
    Quic,
}

impl Ingress {
    /// What it comes over.
    pub fn transport(&self) -> Transport {
        match self {
            Ingress::Udp(_) => Transport::Udp,
            Ingress::Quic => Transport::Quic,
        }
    }
}

/// What a client's packets come over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// UDP.
    Udp,
    /// QUIC.
    Quic,
}

impl Transport {
    /// The word in the API: `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Quic => "quic",
        }
    }
}

/// How a UDP client proves that it may send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Only these addresses are accepted.
    Declared {
        /// Where its RTP comes from.
        address: SocketAddr,
        /// Where its RTCP comes from, if not from `address`.
        rtcp: Option<Box<SocketAddr>>,
    },
    /// The address is named, the port learned once from the first valid RTP packet.
    DeclaredIp(IpAddr),
    /// ICE-lite: an address that passes MESSAGE-INTEGRITY may send (RFC 8445).
    Stun,
    /// The first packet opened the session on a listener for trusted networks.
    Open {
        /// Where that packet came from.
        address: SocketAddr,
        /// The listener it came to.
        listener: u8,
    },
}

/// The media of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// What it is made of; at least one.
    pub streams: Vec<Stream>,
    /// Where its RTCP goes.
    pub rtcp: RtcpPort,
    /// Whether payloads are encrypted with keys we do not hold (RFC 3711).
    pub srtp: Srtp,
}

/// Where RTCP goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtcpPort {
    /// With RTP (RFC 5761).
    Mux,
    /// On a port of its own.
    Own,
}

/// Whether payloads are encrypted with keys we do not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Srtp {
    /// Plain RTP: headers and RTCP may be rewritten.
    Plain,
    /// SRTP: forwarded opaque, nothing is written.
    Opaque,
}

/// Voice or video.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Voice.
    Audio,
    /// Video.
    Video,
}

/// A payload type of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayloadType {
    /// 0–127.
    pub number: u8,
    /// `opus`, `VP8`…
    pub codec: Box<str>,
    /// RTP timestamp units per second.
    pub clock_rate: u32,
}

impl PayloadType {
    /// Whether it repairs what others carry: retransmissions (RFC 4588) and forward error correction (RFC 5109, RFC 8627).
    pub fn repairs(&self) -> bool {
        let names = ["rtx", "ulpfec", "flexfec", "flexfec-03"];
        names.iter().any(|name| self.codec.eq_ignore_ascii_case(name))
    }
}

/// What feedback a stream's endpoint understands (RFC 4585, RFC 5104).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Feedback {
    /// Picture loss indication.
    pub pli: bool,
    /// Full intra request.
    pub fir: bool,
    /// Receiver estimated maximum bitrate.
    pub remb: bool,
    /// Temporary maximum media stream bit rate request.
    pub tmmbr: bool,
}

/// One stream of the media.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Voice or video.
    pub kind: Kind,
    /// Its payload types; at least one.
    pub payload_types: Vec<PayloadType>,
    /// What its endpoint understands.
    pub feedback: Feedback,
    /// What it needs, kbit/s, if the client knows.
    pub bitrate_kbps: Option<u32>,
}

impl Media {
    /// The payload type with this number, and the kind of its stream.
    pub fn payload_type(&self, number: u8) -> Option<(Kind, &PayloadType)> {
        self.streams.iter().find_map(|stream| {
            let found = stream.payload_types.iter().find(|payload| payload.number == number)?;
            Some((stream.kind, found))
        })
    }

    /// Whether there is a video stream.
    pub fn has_video(&self) -> bool {
        self.streams.iter().any(|stream| stream.kind == Kind::Video)
    }

    /// Whether an endpoint said that it obeys REMB.
    pub fn takes_remb(&self) -> bool {
        self.srtp == Srtp::Plain && self.streams.iter().any(|stream| stream.feedback.remb)
    }
}

/// Who decided something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decider {
    /// A plugin's decision was taken.
    Policy {
        /// The policy.
        policy: PolicyName,
        /// Its revision's digest.
        revision: Arc<str>,
    },
    /// The native default.
    Native,
    /// A person, through the API.
    Operator,
    /// The node itself, which drains.
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

/// A session that may send now.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its id.
    pub session: SessionId,
    /// Its room.
    pub room: RoomId,
    /// Where the room's route stands; read by every packet.
    pub route: Arc<RouteCell>,
    /// What it gets to begin with.
    pub plan: Plan,
    /// Who let it in.
    pub admitted_by: Decider,
    /// Who placed its room.
    pub routed_by: Decider,
}

/// Why an offer was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No policy set defines the scenario.
    UnknownScenario(Arc<str>),
    /// The room exists with another scenario.
    ScenarioOfRoom(Arc<str>),
    /// The gateway holds as many sessions as it may.
    Full {
        /// When to try again.
        retry_after: Duration,
    },
    /// The gateway is shutting down.
    Draining,
    /// Admission said no.
    Rejected {
        /// When to try again.
        retry_after: Duration,
    },
    /// Admission names another region.
    Redirected(RegionId),
    /// No node can take the room now: none has room for it, or those who were there before go first.
    NoNode {
        /// When to try again.
        retry_after: Duration,
    },
    /// It was closed through the API before it could open.
    Closed,
    /// The node that carries the room did not open the session.
    NotOpened {
        /// Which.
        node: NodeId,
        /// When to try again.
        retry_after: Duration,
    },
}
