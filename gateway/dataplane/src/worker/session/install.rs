//! The contents of a session at a worker: its client, its route and its legs, and the state that another worker continues,
//! perhaps in another process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_media::instant;
use evenkeel_media::srtp::GrantView;
use evenkeel_model::{Hop, MediaDescription, Plan, RouteCell, RtcpPort, SessionId};
use serde::{Deserialize, Serialize};

use super::address::ClientAddress;
use super::srtp::{OwnSrtp, SrtpCounters, SrtpKeying};
use super::{ClientKnowledge, DscpMarks, MediaState, NodeLeg, WorkerSession};
use crate::flows::{FlowEntry, FlowKey, Flows, Home};
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
    /// The degradation decision in force.
    pub plan: Plan,
    /// Marks of packets to client and node.
    pub dscp: DscpMarks,
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
    seed: u64,
    active: bool,
    touched: bool,
    /// The session may have changed since this copy.
    #[serde(default)]
    pub copied: bool,
    #[serde(default)]
    srtp: Option<SrtpCounters>,
    /// The counters of legs with SRTP.
    #[serde(default)]
    leg_srtp: Vec<(Hop, SrtpCounters)>,
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
    held_until: Option<Instant>,
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

/// Returns whether reports of a client at a declared address arrive and can be read. SRTCP cannot be read without keys, and
/// behind a NAT the port of RTCP is not the one beside a learned port.
fn can_report(client: &ClientAddressing, media: &MediaDescription) -> bool {
    let arrive = match client {
        ClientAddressing::Declared { .. } => true,
        ClientAddressing::DeclaredIp { .. } => media.rtcp == RtcpPort::Mux,
        ClientAddressing::Stun | ClientAddressing::Quic { .. } => false,
    };
    arrive && media.srtp.is_readable()
}

impl WorkerSession {
    pub(crate) fn new(install: Install) -> WorkerSession {
        let can_report = can_report(&install.client, &install.media);
        let (known, address) = match install.client {
            ClientAddressing::Declared { listener, address, rtcp } => {
                let [rtp, rtcp] = [address, rtcp].map(|address| SourceKey { listener, address });
                if install.await_first_packet {
                    (ClientKnowledge::Awaited, ClientAddress::awaited(rtp, rtcp))
                } else {
                    (ClientKnowledge::Declared, ClientAddress::declared(rtp, rtcp))
                }
            }
            ClientAddressing::DeclaredIp { .. } => {
                (ClientKnowledge::DeclaredIp, Default::default())
            }
            ClientAddressing::Stun => (ClientKnowledge::Stun, Default::default()),
            ClientAddressing::Quic { flow_from_gateway } => {
                (ClientKnowledge::Quic, ClientAddress::quic(flow_from_gateway))
            }
        };
        let mut session = WorkerSession {
            home: install.home,
            id: install.session,
            known,
            route: install.route,
            plan: install.plan,
            dscp: install.dscp,
            ports: install.ports,
            legs: Box::default(),
            address,
            needs_report: install.await_report && can_report,
            state: None,
            counts: None,
            seed: install.seed,
            // The cap is sent before the client's first packet.
            active: install.plan.send_cap_kbps() > 0,
            touched: false,
            uncopied: true,
            #[cfg(any(test, feature = "fault-injection"))]
            panics: false,
            media: install.media,
        };
        if let Some(keying) = install.srtp {
            let state = session.state();
            state.srtp = OwnSrtp::new(keying);
            state.srtp.announce(&mut state.continuity);
        }
        install.state.into_iter().for_each(|state| session.go_on(*state));
        session
    }

    /// Returns a copy of the state. An address that another session has taken over since is not included.
    pub(crate) fn hand_out(&self, flows: &Flows) -> SessionState {
        let mut address = self.address.clone();
        let mut learned = Vec::new();
        for &source in self.learned() {
            match flows.entry(&source.key()).filter(|entry| entry.home == self.home) {
                Some(FlowEntry { held_until, .. }) => learned.push(Learned { source, held_until }),
                None => address.lose(source),
            }
        }
        SessionState {
            session: self.id,
            legs: self.legs.to_vec(),
            address,
            learned,
            media: self.state.clone(),
            seed: self.seed,
            active: self.active,
            touched: self.touched,
            copied: false,
            srtp: self.state.as_ref().and_then(|state| Some(state.srtp.contexts()?.counters())),
            leg_srtp: self.state.as_ref().map_or_else(Vec::new, |state| state.leg_srtp.counters()),
            received: None,
            holds_until: None,
        }
    }

    /// Returns a copy of the state for a process that continues once this one sends no more.
    pub(crate) fn hand_over(&self, flows: &Flows, at: GrantView<'_>) -> SessionState {
        let mut state = self.hand_out(flows);
        if let (Some(counters), Some(srtp)) = (&mut state.srtp, self.srtp_ref()) {
            srtp.note_limits(counters, at);
        }
        state
    }

    /// Copies the state of a session that goes on. `number`: that of the worker's copy, for a standby.
    pub(crate) fn copy(
        &mut self,
        flows: &Flows,
        number: Option<u64>,
        at: GrantView<'_>,
    ) -> SessionState {
        self.uncopied = false;
        let mut state = SessionState { copied: true, ..self.hand_over(flows, at) };
        if let (Some(number), Some(srtp)) = (number, self.srtp()) {
            state.srtp = Some(srtp.copy_for_standby(number, at));
        }
        if number.is_some() {
            // This process may go on, so the standby opens these legs again, with other keys.
            state.legs.retain(|(_, leg)| !matches!(leg, NodeLeg::Srtp(_)));
            state.leg_srtp.clear();
        }
        state
    }

    /// Returns whether a standby is to get a copy although nothing has changed.
    pub(crate) fn needs_copy(&self, at: GrantView<'_>) -> bool {
        self.srtp_ref().is_some_and(|srtp| srtp.needs_copy(at))
    }

    /// Continues in this state.
    pub(crate) fn go_on(&mut self, state: SessionState) {
        let SessionState { session: _, legs, address, learned: _, media, .. } = state;
        let SessionState { seed, active, touched, copied, srtp, leg_srtp, holds_until, .. } = state;
        if self.known == ClientKnowledge::Awaited && !address.is_awaited() {
            self.known = ClientKnowledge::Declared;
        }
        self.legs = legs.into();
        self.go_on_with(media, srtp.as_ref(), copied, holds_until);
        self.continue_legs(&leg_srtp, copied);
        if self.known != ClientKnowledge::Quic {
            self.address = address;
        }
        if let Some(media) = &mut self.state {
            media.signs.forget_hop();
            // The setting may have changed.
            media.validation.take_if(|_| !self.needs_report);
            if copied {
                media.continuity.went_on_elsewhere();
            }
            self.counts.get_or_insert_default().continue_session();
        }
        (self.seed, self.touched) = (seed, touched);
        self.active |= active;
    }

    /// Replaces the state and keeps the session's own SRTP, which goes on above these counters.
    fn go_on_with(
        &mut self,
        media: Option<Box<MediaState>>,
        counters: Option<&SrtpCounters>,
        is_behind: bool,
        holds_until: Option<Instant>,
    ) {
        let mut own = self.state.take().map(|before| before.srtp).unwrap_or_default();
        self.state = media;
        if !own.is_some() {
            return;
        }
        let state = self.state();
        if let Some(contexts) = own.contexts_mut() {
            match counters {
                Some(counters) => contexts.go_on(counters, is_behind, holds_until),
                None => contexts.await_counters(),
            }
            contexts.skip_used(&mut state.continuity);
        }
        own.note_restored();
        own.announce(&mut state.continuity);
        state.srtp = own;
    }

    /// Returns an address to the flow table, unless another session has it.
    pub(crate) fn relearn(&mut self, learned: Learned, flows: &Flows) {
        let Learned { source, held_until } = learned;
        let SourceKey { listener, address } = source;
        flows.remove(&FlowKey::DeclaredIp { listener, ip: address.ip() }, self.home);
        let entry = FlowEntry { held_until, ..FlowEntry::of(self.home) };
        if flows.insert(source.key(), entry).is_err() {
            self.lose_address(source);
        }
    }
}
