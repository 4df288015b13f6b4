//! The contents of a session that a worker installs, and the record of its state, which another worker continues, perhaps in another
//! process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_instant as instant;
use evenkeel_model::{Hop, MediaDescription, MediaLimits, ReplayedMedia, RouteCell, SessionId};
use serde::{Deserialize, Serialize};

use super::address::ClientAddress;
use super::media::MediaState;
use super::node::NodeLeg;
use super::srtp::{SrtpCounters, SrtpKeying};
use crate::flows::Home;
use crate::worker::egress::DscpMarks;
use crate::worker::report::Totals;
use crate::worker::sockets::{SessionPorts, SourceKey};

/// A session to be installed at a worker.
#[derive(Debug)]
pub struct Install {
    /// The worker, its slot and the generation.
    pub home: Home,
    /// Identifies the session to control.
    pub session: SessionId,
    /// The streams that the client declared.
    pub media: Arc<MediaDescription>,
    /// Identification of packets from the client.
    pub client: ClientAddressing,
    /// The room's one route.
    pub route: Arc<RouteCell>,
    /// The limits of its media.
    pub limits: MediaLimits,
    /// Marks of packets to client and node.
    pub dscp: DscpMarks,
    /// The media of which a node gets the packets that its dead predecessor swallowed.
    pub replay: ReplayedMedia,
    /// The origin of the keys of the client's SRTP, if it ends here.
    pub srtp: Option<SrtpKeying>,
    /// The session's own sockets towards nodes; set for port legs.
    pub ports: Option<Box<SessionPorts>>,
    /// Nothing is sent to declared addresses before a packet came from one of them.
    pub await_first_packet: bool,
    /// Bytes to declared addresses are limited until a client there reports its reception.
    pub await_report: bool,
    /// Seeds SSRC, sequence numbers and CNAME of the session.
    pub seed: u64,
    /// The state in which another worker left the session. It returns the learned addresses to the flow table; before
    /// any worker reads, [`WorkerCommand::Confirm`](crate::worker::WorkerCommand::Confirm) tells that they are all there.
    pub state: Option<Box<SessionState>>,
}

/// Identification and addresses of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientAddressing {
    /// The client uses these addresses only.
    Declared {
        /// Number of the listener that serves the client.
        listener: u8,
        /// Address for RTP.
        address: SocketAddr,
        /// Address for RTCP; that for RTP if both share it.
        rtcp: SocketAddr,
    },
    /// The client uses the first port of the declared IP address that sends valid RTP.
    DeclaredIp {
        /// Number of the listener that serves the client.
        listener: u8,
    },
    /// The client uses the source address of its connectivity checks.
    Stun,
    /// The client uses the QUIC connection that carries its flow.
    Quic {
        /// Flow identifier of packets to the client.
        flow_from_gateway: u64,
    },
}

/// All that a worker keeps of a session besides the contents of its [`Install`](crate::worker::Install).
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct SessionState {
    /// The session that the state belongs to.
    pub session: SessionId,
    /// The paths to nodes.
    pub legs: Vec<(Hop, NodeLeg)>,
    pub(super) address: ClientAddress,
    pub(super) learned: Vec<Learned>,
    pub(super) media: Option<Box<MediaState>>,
    pub(super) seed: u64,
    pub(super) active: bool,
    pub(super) touched: bool,
    /// The session may have changed since this copy.
    #[serde(default)]
    pub copied: bool,
    #[serde(default)]
    pub(super) srtp: Option<SrtpCounters>,
    /// The counters of legs with SRTP.
    #[serde(default)]
    pub(super) leg_srtp: Vec<(Hop, SrtpCounters)>,
    /// When a standby received this copy, if the limits in it have held since they were made.
    #[serde(skip)]
    pub received: Option<Instant>,
    /// The time before which the process of this copy has not sent beyond the limits in it. `None` if it may have done so.
    #[serde(skip)]
    pub holds_until: Option<Instant>,
}

/// An address that the session added to the flow table.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub(crate) struct Learned {
    pub(super) source: SourceKey,
    /// From then on the check of another session takes it. Earlier versions gave the time of the last check.
    #[serde(with = "instant::option")]
    pub(super) held_until: Option<Instant>,
}

impl SessionState {
    /// Renames the hops. A hop without a name at this gateway is removed; numbers continue at the next one as after a
    /// failover.
    pub fn map_hops(&mut self, map: impl Fn(Hop) -> Option<Hop>) {
        let legs = self.legs.drain(..).filter_map(|(hop, leg)| Some((map(hop)?, leg)));
        self.legs = legs.collect();
        let counters = self.leg_srtp.drain(..);
        self.leg_srtp =
            counters.filter_map(|(hop, counters)| Some((map(hop)?, counters))).collect();
        if let Some(media) = &mut self.media {
            media.current_hop = media.current_hop.and_then(&map);
            media.pair = media.pair.take().and_then(|pair| pair.map(&map)).map(Box::new);
        }
    }

    /// Renames the listeners. Addresses at a listener without a number at this gateway are removed.
    pub fn map_listeners(&mut self, map: impl Fn(u8) -> Option<u8>) {
        let rename =
            |SourceKey { listener, address }| Some(SourceKey { listener: map(listener)?, address });
        self.address.map_sources(rename);
        let renamed =
            |learned: Learned| Some(Learned { source: rename(learned.source)?, ..learned });
        self.learned = self.learned.drain(..).filter_map(renamed).collect();
    }

    /// Returns whether the client's address is known. If it was declared without a port, its IP address no longer
    /// identifies this session.
    pub fn has_address(&self) -> bool {
        self.address.rtp().is_some()
    }

    /// The time of the client's last packet.
    pub fn last_heard(&self) -> Option<Instant> {
        self.media.as_ref().and_then(|media| media.measurements.last_heard)
    }

    /// `None` before the first packet.
    pub fn totals(&self, now: Instant) -> Option<Totals> {
        self.media.as_ref().map(|media| media.totals(now))
    }

    pub(crate) fn take_learned(&mut self) -> Vec<Learned> {
        std::mem::take(&mut self.learned)
    }
}
