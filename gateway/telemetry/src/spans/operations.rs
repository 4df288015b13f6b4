//! Spans of operations and breakers, linked to the sessions that they touched: drains, drills, rollouts and breakers.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_control::{NodeName, NodeOrder, OrderStep};
use evenkeel_model::{
    BreakerState, ClientGroup, Decider, Hop, MoveCause, NodeId, OfferRefusal, RegionId, SessionId,
};
use opentelemetry::trace::{Link, Span as _, SpanContext, SpanKind};
use opentelemetry::{Context, KeyValue};

use crate::registry::{Attribute, Span};
use crate::spans::sampling::WELL;
use crate::spans::tracks::{BreakerTrack, DrillTrack, OperationTracks, TouchedSessions};
use crate::spans::{Moment, SpanWriter, builder, counts_of, is};

/// Maximum breakers of clients that are followed: clients choose the names of their groups.
const CLIENT_BREAKERS_MAX: usize = 64;

/// The outcome of a drill whose fault lasted until its node was removed, or the process ended.
const UNREPAIRED: &str = "unrepaired";

impl SpanWriter {
    fn node_attributes(&self, node: NodeId) -> Vec<KeyValue> {
        let NodeName { node, region, zone, .. } = self.names.of_node(node);
        vec![is(Attribute::Node, node), is(Attribute::Region, region), is(Attribute::Zone, zone)]
    }

    /// A room left this hop: its sessions are touched by what goes on at the node, and by the decider.
    pub(super) fn note_leaving(
        &mut self,
        from: Hop,
        cause: MoveCause,
        by: &Decider,
        sessions: &[SessionId],
    ) {
        let is_drained =
            cause == MoveCause::Drain && self.operations.drains.contains_key(&from.node);
        if is_drained || self.operations.drills.contains_key(&from.node) {
            let links = self.links_to(sessions);
            let drain = self.operations.drains.get_mut(&from.node).filter(|_| is_drained);
            let drill = self.operations.drills.get_mut(&from.node).map(|drill| &mut drill.touched);
            for touched in drain.into_iter().chain(drill) {
                touched.add(sessions.len(), links.iter().cloned());
            }
        }
        self.note_in_region(from, sessions);
        self.note_decider(by, sessions);
    }

    /// The breaker of the hop's region or zone is open or half-open while these sessions open or leave there.
    pub(super) fn note_in_region(&mut self, hop: Hop, sessions: &[SessionId]) {
        if self.operations.region_breakers.is_empty() {
            return;
        }
        let (place, links) = (self.names.of_hop(hop), self.links_to(sessions));
        for ((id, zone), breaker) in &mut self.operations.region_breakers {
            let is_of_zone = zone.as_ref().is_none_or(|zone| *zone == place.zone);
            if is_of_zone && self.names.of_region(*id) == place.region {
                breaker.touched.add(sessions.len(), links.iter().cloned());
            }
        }
    }

    /// Sessions are touched by the revision that is rolled out, if it decided.
    pub(super) fn note_decider(&mut self, by: &Decider, sessions: &[SessionId]) {
        let Decider::Policy { policy, revision } = by else { return };
        let rollout = self.operations.rollouts.get(policy);
        if rollout.is_some_and(|rollout| rollout.revision.as_ref() == Some(revision)) {
            let links = self.links_to(sessions);
            if let Some(rollout) = self.operations.rollouts.get_mut(policy) {
                rollout.touched.add(sessions.len(), links);
            }
        }
    }

    pub(crate) fn draining(&mut self, node: NodeId, draining: bool) {
        self.operations.drains.remove(&node);
        if draining {
            self.operations.drains.insert(node, TouchedSessions::default());
        }
    }

    /// `left`: rooms that fit on no other node when the deadline passed.
    pub(crate) fn drained(&mut self, node: NodeId, left: u32, started: Instant, at: Moment) {
        // The rooms that are left may leave later.
        let drain = self.operations.drains.get_mut(&node);
        let touched = drain.map(std::mem::take).unwrap_or_default();
        let mut attributes = self.node_attributes(node);
        attributes.push(is(Attribute::Rooms, i64::from(left)));
        attributes.extend(counts_of(&touched));
        builder(Span::NodeDrain, SpanKind::Internal, at.wall_of(started), attributes)
            .with_links(touched.links)
            .start_with_context(&self.tracer, &Context::new())
            .end_with_timestamp(at.wall);
    }

    /// Follows the faults that drills inject. The effect of one may be seen before the agent answers.
    pub(crate) fn ordered(&mut self, node: NodeId, order: NodeOrder, step: OrderStep, at: Moment) {
        let drills = &mut self.operations.drills;
        match (order.fault(), step) {
            (Some(fault), OrderStep::Sent) => {
                let touched = TouchedSessions::default();
                let drill = DrillTrack { fault, start: at.wall, is_injected: false, touched };
                drills.entry(node).or_insert(drill);
            }
            (Some(_), OrderStep::Done) => {
                drills.entry(node).and_modify(|drill| drill.is_injected = true);
            }
            // Another order may have injected one.
            (Some(_), OrderStep::Refused) => drills.retain(|at, it| *at != node || it.is_injected),
            (None, OrderStep::Done) => {
                if let Some(drill) = drills.remove(&node) {
                    self.end_drill(node, drill, WELL, at);
                }
            }
            (None, OrderStep::Sent | OrderStep::Refused) => {}
        }
    }

    fn end_drill(&self, node: NodeId, drill: DrillTrack, outcome: &'static str, at: Moment) {
        let DrillTrack { fault, start, touched } = drill;
        let mut attributes = self.node_attributes(node);
        attributes.extend([is(Attribute::Fault, fault), is(Attribute::Outcome, outcome)]);
        attributes.extend(counts_of(&touched));
        builder(Span::NodeDrill, SpanKind::Internal, start, attributes)
            .with_links(touched.links)
            .start_with_context(&self.tracer, &Context::new())
            .end_with_timestamp(at.wall);
    }

    /// Its number may go to another node.
    pub(crate) fn node_removed(&mut self, node: NodeId, at: Moment) {
        self.operations.drains.remove(&node);
        if let Some(drill) = self.operations.drills.remove(&node) {
            self.end_drill(node, drill, UNREPAIRED, at);
        }
    }

    /// The next process does not know of them.
    pub(super) fn end_drills(&mut self, at: Moment) {
        for (node, drill) in std::mem::take(&mut self.operations.drills) {
            self.end_drill(node, drill, UNREPAIRED, at);
        }
    }

    pub(crate) fn client_breaker(&mut self, group: &ClientGroup, to: BreakerState, at: Moment) {
        let breakers = &mut self.operations.client_breakers;
        if to != BreakerState::Closed {
            if breakers.len() < CLIENT_BREAKERS_MAX && !breakers.contains_key(group) {
                breakers.insert(group.clone(), BreakerTrack::new(at.wall));
            }
            return;
        }
        let Some(BreakerTrack { start, touched }) = breakers.remove(group) else { return };
        let mut attributes = vec![
            is(Attribute::Label, group.label.name()),
            is(Attribute::LabelValue, group.value.to_string()),
        ];
        attributes.extend(counts_of(&touched));
        builder(Span::ClientBreaker, SpanKind::Internal, start, attributes)
            .with_links(touched.links)
            .start_with_context(&self.tracer, &Context::new())
            .end_with_timestamp(at.wall);
    }

    /// `zone`: the breaker is that of this zone of the region.
    pub(crate) fn region_breaker(
        &mut self,
        region: RegionId,
        zone: Option<&Arc<str>>,
        to: BreakerState,
        at: Moment,
    ) {
        let place = (region, zone.cloned());
        let breakers = &mut self.operations.region_breakers;
        if to != BreakerState::Closed {
            breakers.entry(place).or_insert_with(|| BreakerTrack::new(at.wall));
            return;
        }
        let Some(BreakerTrack { start, touched }) = breakers.remove(&place) else { return };
        let mut attributes = vec![is(Attribute::Region, self.names.of_region(region))];
        attributes.extend(zone.map(|zone| is(Attribute::Zone, Arc::clone(zone))));
        attributes.extend(counts_of(&touched));
        builder(Span::RegionBreaker, SpanKind::Internal, start, attributes)
            .with_links(touched.links)
            .start_with_context(&self.tracer, &Context::new())
            .end_with_timestamp(at.wall);
    }

    /// The breaker of its clients refused this offer, or breakers of regions left no node for it.
    pub(super) fn note_refused(&mut self, reason: Option<&OfferRefusal>, offer: &SpanContext) {
        let OperationTracks { client_breakers, region_breakers, .. } = &mut self.operations;
        let breakers: Vec<&mut BreakerTrack> = match reason {
            Some(OfferRefusal::ClientsImpaired { group, .. }) => {
                client_breakers.get_mut(group).into_iter().collect()
            }
            Some(OfferRefusal::NoNode { .. }) => region_breakers.values_mut().collect(),
            _ => return,
        };
        // A trusted caller may have decided that it is not sent.
        let link = offer.is_sampled().then(|| Link::with_context(offer.clone()));
        for breaker in breakers {
            breaker.touched.add(1, link.clone());
        }
    }
}
