//! Offers and their replies. A caller gets one reply, after the session can carry packets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    AcceptedOffer, ClientIdentity, IngressProtocol, NodeId, Offer, OfferId, OfferRefusal, RtcpPort,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::messages::{ControlError, IngressAnswer, OfferedSession, SessionAnswer};
use super::registry::AdmitError;
use super::thread::Control;

pub(super) struct OfferInProgress {
    pub(super) request: OfferedSession,
    /// The request's part of the limit `session_data_mib`; moves to the session.
    pub(super) data: Option<OwnedSemaphorePermit>,
    pub(super) arrived: Instant,
    pub(super) ingress: Option<IngressAnswer>,
    pub(super) admit_error: Option<AdmitError>,
    /// The last node that did not open the session, with the reason.
    pub(super) not_opened: Option<(NodeId, Box<str>)>,
    pub(super) reply: Option<oneshot::Sender<Result<SessionAnswer, ControlError>>>,
}

impl Control {
    /// Offers a session for RTP from an unknown source at an open listener, once per source.
    pub(super) fn offer_first_packet(
        &mut self,
        listener: u8,
        source: SocketAddr,
        payload_type: u8,
        now: Instant,
    ) {
        // The source's next packet is reported again.
        if self.replication.suspension.is_some() {
            return;
        }
        let scenario =
            self.registry.udp.get(usize::from(listener)).and_then(|udp| udp.open.clone());
        let Some(scenario) =
            scenario.filter(|_| self.offers.first_packets.is_new(listener, source, now))
        else {
            return;
        };
        let wanted = super::first_packets::wanted(scenario, listener, source, payload_type);
        self.offer(wanted, None, now);
    }

    pub(super) fn offer(
        &mut self,
        mut wanted: OfferedSession,
        reply: Option<oneshot::Sender<Result<SessionAnswer, ControlError>>>,
        now: Instant,
    ) {
        let refuse = |reply: Option<oneshot::Sender<_>>, failed| {
            if let Some(reply) = reply {
                let _ = reply.send(Err(failed));
            }
        };
        if let Err(admit_error) = self.registry.admits(&wanted.ingress) {
            self.reporting.send_turned_away(&wanted, admit_error.name(), now);
            return refuse(reply, failed(admit_error));
        }
        let mut nodes = Vec::new();
        for (name, address) in &mut wanted.nodes {
            let Some(node) = self.nodes.node_named(name) else {
                let unknown = ControlError::UnknownNode((**name).into());
                self.reporting.send_turned_away(&wanted, "unknown-node", now);
                return refuse(reply, unknown);
            };
            nodes.push((node, *address));
            if let Some(listed) = self.nodes.listed(node) {
                let networks = &self.settings.gateway.node_networks;
                let is_own = listed.address.ip().to_canonical() == address.ip().to_canonical();
                if !is_own && !networks.iter().any(|network| network.contains(address.ip())) {
                    let node = (**name).into();
                    let outside = ControlError::OutsideNetworks { node, address: *address };
                    self.reporting.send_turned_away(&wanted, "outside-networks", now);
                    return refuse(reply, outside);
                }
                // All sessions share the copy of the name in the node list.
                *name = Arc::clone(&listed.name);
            }
        }
        let bytes = u32::try_from(wanted.data_bytes()).unwrap_or(u32::MAX);
        let Ok(data) = Arc::clone(&self.offers.session_data).try_acquire_many_owned(bytes) else {
            self.reporting.send_turned_away(&wanted, AdmitError::Full.name(), now);
            return refuse(reply, ControlError::SessionDataFull);
        };
        let rtcp_apart = wanted.media.rtcp == RtcpPort::Own;
        let shared = self
            .signalling
            .drivers
            .shared_address(&nodes, rtcp_apart, |node| self.nodes.leaves(node));
        if let Some((one, other, address)) = shared {
            let name = |node: NodeId| self.nodes.node_name(node);
            let nodes = [name(one), name(other)];
            return refuse(reply, ControlError::SharedNodeAddress { nodes, address });
        }
        let wanted = self.offers.interner.share(wanted);
        let id = OfferId(self.offers.next);
        self.offers.next += 1;
        let offer = Offer {
            id,
            scenario: wanted.scenario.clone(),
            room: wanted.room.clone(),
            labels: wanted.labels.clone(),
            ingress: wanted.ingress.clone(),
            media: wanted.media.clone(),
        };
        let pending = OfferInProgress {
            request: wanted,
            data: Some(data),
            arrived: now,
            ingress: None,
            admit_error: None,
            not_opened: None,
            reply,
        };
        self.offers.in_progress.insert(id, pending);
        self.gateway.handle_offer(offer, now);
    }

    pub(super) fn reply(&mut self, offer: OfferId, result: Result<AcceptedOffer, OfferRefusal>) {
        let Some(pending) = self.offers.in_progress.remove(&offer) else {
            return;
        };
        let OfferInProgress {
            request: wanted,
            data: _,
            arrived: _,
            ingress: reached,
            admit_error,
            not_opened,
            reply,
        } = pending;
        let answer = match result {
            Ok(accepted) => match reached {
                Some(ingress) => Ok(SessionAnswer {
                    session: accepted.session,
                    room: accepted.room,
                    ingress,
                    route: accepted.route.load().hops.iter().map(|(hop, _)| *hop).collect(),
                    admitted_by: accepted.admitted_by,
                    routed_by: accepted.routed_by,
                }),
                None => Err(ControlError::Unavailable),
            },
            Err(refused) => Err(match (admit_error, not_opened, &refused) {
                (Some(admit_error), ..) => failed(admit_error),
                (None, Some((node, reason)), OfferRefusal::NotOpened { node: by, .. })
                    if node == *by =>
                {
                    ControlError::NotOpened { node, reason }
                }
                (None, ..) => ControlError::Refused(refused),
            }),
        };
        match reply {
            Some(reply) => {
                let opened = answer.as_ref().ok().map(|opened| opened.session);
                if reply.send(answer).is_err()
                    && let Some(session) = opened
                {
                    // The caller has gone and will not use the session.
                    let _ = self.gateway.handle_close(session, Instant::now());
                }
            }
            None => {
                if let IngressProtocol::Udp(ClientIdentity::Open { address, listener }) =
                    wanted.ingress
                {
                    self.offers.first_packets.finished(
                        listener,
                        address,
                        answer.is_ok(),
                        Instant::now(),
                    );
                }
            }
        }
    }
}

fn failed(admit_error: AdmitError) -> ControlError {
    match admit_error {
        AdmitError::NoListener => ControlError::NoListener,
        AdmitError::AddressTaken(address) => ControlError::AddressTaken(address),
        AdmitError::Full => ControlError::Full,
    }
}
