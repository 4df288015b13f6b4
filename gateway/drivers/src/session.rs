//! Sessions as drivers open them, and the effects of drivers.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_config::{NodeSrtp, WebhookTarget};
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::NodeLeg;
use evenkeel_model::{Hop, Labels, MediaDescription, NodeId, RoomId, SessionId, Srtp};

use crate::message::DriverMessage;

/// Length limit of a reason that a node reports, characters.
pub(super) const REASON_CHARS_MAX: usize = 200;

/// Shortens a reason that a node reports and removes control characters: it is shown in logs and to operators.
pub(super) fn plain_reason(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

/// A session to open at a hop.
#[derive(Clone, Copy)]
pub struct OpenRequest<'a> {
    /// The session to open.
    pub session: SessionId,
    /// The worker and slot that own its packets.
    pub home: Home,
    /// The room's number at nodes.
    pub room: RoomId,
    /// The hop at which it is opened.
    pub hop: Hop,
    /// The node's address for this session; `None` for the configured one.
    pub address: Option<SocketAddr>,
    /// RTCP has a port of its own.
    pub rtcp_apart: bool,
    pub client_srtp: Srtp,
    /// The SRTP of the node's legs.
    pub srtp: NodeSrtp,
    /// Description for media servers; `None` if no driver needs it.
    pub facts: Option<&'a SessionFacts>,
}

impl OpenRequest<'_> {
    /// Refuses a session with packets that the node does not take.
    pub(super) fn refusal(&self) -> Option<DriverAction> {
        let &OpenRequest { session, hop, srtp, client_srtp, .. } = self;
        if srtp.takes(client_srtp) {
            return None;
        }
        let reason = match srtp {
            NodeSrtp::Passthrough => {
                "the node has `srtp = \"passthrough\"`, and the offer does not have `\"srtp\": true`"
            }
            NodeSrtp::Off | NodeSrtp::Sdes => {
                "the node has `srtp = \"sdes\"`, and the offer has `\"srtp\": true`: SRTP that passes unread"
            }
        };
        Some(DriverAction::Refused { session, hop, unwilling: false, reason: reason.into() })
    }
}

/// Description of a session for media servers.
#[derive(PartialEq, Debug)]
pub struct SessionFacts {
    /// The room's name.
    pub room: Arc<str>,
    /// Labels of the offer.
    pub labels: Labels,
    /// Its streams.
    pub media: Arc<MediaDescription>,
    /// Local ports of the session's sockets for RTP and, if it has its own port, RTCP.
    pub ports: (u16, Option<u16>),
}

/// Monotonic and wall clock, read together.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Monotonic time.
    pub now: Instant,
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
}

impl Clock {
    /// Reads both clocks of the system.
    pub fn read() -> Clock {
        let unix_us = evenkeel_process::unix_us(std::time::SystemTime::now());
        Clock { now: Instant::now(), unix_us }
    }
}

/// An effect of the drivers: a message to send, or the outcome of an opening.
#[derive(Debug)]
pub enum DriverAction {
    /// Sends a message to the node.
    Send {
        /// The addressee.
        node: NodeId,
        /// How it is sent.
        transport: Transport,
        bytes: DriverMessage,
    },
    /// Limits the size of trunk datagrams (bundles) from this worker to the node.
    LimitBundles {
        /// The sending worker.
        worker: u16,
        /// The receiver.
        node: NodeId,
        /// Bytes of a datagram.
        size_max: u16,
    },
    /// The session is open at the hop.
    Opened {
        /// The session that can send packets now.
        session: SessionId,
        /// The node of the leg, in one incarnation.
        hop: Hop,
        /// Where its packets go.
        leg: NodeLeg,
    },
    /// The session stays open at the hop with another leg.
    Changed {
        /// The session whose leg changed.
        session: SessionId,
        /// The node of the leg, in one incarnation.
        hop: Hop,
        /// Where its packets go from now on.
        leg: NodeLeg,
    },
    /// The session was not opened at the hop.
    Refused {
        /// The session that the node refused.
        session: SessionId,
        /// The node of the leg, in one incarnation.
        hop: Hop,
        /// The node accepts no new sessions at all.
        unwilling: bool,
        /// The node's reason.
        reason: Cow<'static, str>,
    },
    /// The node joins no further session of the room.
    RoomFull {
        /// The session that was not opened.
        session: SessionId,
        /// The node of the leg, in one incarnation.
        hop: Hop,
    },
    /// The node refused a message because its group has this newer epoch.
    Fenced {
        /// The node that refused the message.
        node: NodeId,
        /// The newer epoch.
        epoch: u64,
    },
}

/// How a message of a driver is sent.
#[derive(Debug)]
pub enum Transport {
    /// On the node's trunk. A message about sessions leaves from their home worker, because the node sends their packets to
    /// the source of the message. Its answer is a [`NodeInput::Signed`](crate::NodeInput::Signed).
    Trunk {
        /// The worker whose socket sends it.
        worker: u16,
        /// It is about sessions, and not about the path.
        of_sessions: bool,
    },
    /// As a datagram to the node's address. Its answer is a [`NodeInput::Datagram`](crate::NodeInput::Datagram).
    Datagram,
    /// As a POST of JSON. Its answer is a [`NodeInput::Posted`](crate::NodeInput::Posted).
    Post {
        /// The request's number.
        number: u64,
        /// Where it is sent.
        hook: Arc<WebhookTarget>,
        /// The session that it opens or ends.
        session: Option<SessionId>,
        /// The time limit.
        within: Duration,
    },
}

/// The source address of packets from sessions' own ports.
#[derive(Clone, Copy, Debug)]
pub enum LocalSource {
    /// The ports are bound to it.
    Bound(IpAddr),
    /// The ports are bound to all addresses, and the route to a destination decides.
    Routed(fn(SocketAddr) -> Option<IpAddr>),
}

impl LocalSource {
    pub(super) fn towards(self, other: SocketAddr) -> Option<IpAddr> {
        match self {
            LocalSource::Bound(address) => Some(address),
            LocalSource::Routed(towards) => towards(other),
        }
    }
}

/// Facts of the process that continues sessions of another one.
pub struct ContinuedSession<'a> {
    /// The hop that a recorded one is now, for a session that continues.
    pub hop: &'a dyn Fn(SessionId, Hop) -> Option<Hop>,
    /// Descriptions of sessions, for the drivers that need them.
    pub facts: &'a dyn Fn(SessionId) -> Option<&'a SessionFacts>,
}

/// The names of rooms towards nodes. They are random, because other gateways count rooms from 1 too and may share a node;
/// all nodes are told the same one.
#[derive(Default)]
pub(crate) struct RoomNames {
    /// 0: none was drawn.
    seed: AtomicU64,
}

impl RoomNames {
    pub(crate) fn name(&self, room: RoomId, draw: &mut dyn FnMut() -> u64) -> u64 {
        let seed = self.seed().unwrap_or_else(|| {
            let drawn = draw().max(1);
            self.continue_from(Some(drawn));
            drawn
        });
        mixed(seed, room.0)
    }

    pub(crate) fn seed(&self) -> Option<u64> {
        Some(self.seed.load(Ordering::Relaxed)).filter(|seed| *seed != 0)
    }

    /// Names rooms as another process did.
    pub(crate) fn continue_from(&self, seed: Option<u64>) {
        if let Some(seed) = seed {
            self.seed.store(seed, Ordering::Relaxed);
        }
    }
}

/// RTP and RTCP addresses of a node: one port, or RTCP on the next one.
pub(crate) fn ports(address: SocketAddr, rtcp_apart: bool) -> (SocketAddr, SocketAddr) {
    let next = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
    (address, if rtcp_apart { next } else { address })
}

/// Unpredictable, distinct numbers from a counter, by a bijective mixer (SplitMix64).
pub(super) fn mixed(drawn: u64, number: u64) -> u64 {
    let mut mixed = drawn.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
