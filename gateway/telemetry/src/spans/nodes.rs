//! Spans of nodes and the configuration: failovers, starts, stops and reloads.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_control::{ListChange, NodeHook, ReloadReport, Reloaded, TraceIds};
use evenkeel_model::{
    EvidenceSource, Health, Hop, NodeId, NotStarted, SessionId, StartPhase, StopPhase,
};
use opentelemetry::trace::{Span as _, SpanId, SpanKind, TraceId};
use opentelemetry::{Array, Context, StringValue, Value};

use crate::registry::{Attribute, Span};
use crate::spans::sampling::{SpanIds, WELL};
use crate::spans::tracks::{FailoverSpan, TouchedSessions};
use crate::spans::{Moment, SpanWriter, builder, counts_of, fail, is};

/// Maximum nodes that the span of a reload names.
const NODES_MAX: usize = 128;

impl SpanWriter {
    pub(crate) fn node(
        &mut self,
        hop: Hop,
        to: Health,
        witnesses: &[(EvidenceSource, Instant)],
        started: Instant,
        rooms: u32,
        at: Moment,
    ) {
        self.sweep(at);
        if to != Health::Down {
            return;
        }
        self.failovers.push(FailoverSpan {
            hop,
            started,
            down_at: at.now,
            witnesses: witnesses.iter().map(|(witness, _)| *witness).collect(),
            rooms,
            rooms_left: rooms,
            touched: TouchedSessions::default(),
        });
        self.finish_failovers(at, |failover| failover.rooms_left == 0);
    }

    /// A room moved off a down node, or had left it before for a closed port.
    pub(crate) fn note_failover(&mut self, from: Hop, sessions: &[SessionId], at: Moment) {
        let Some(at_hop) = self.failovers.iter().position(|failover| failover.hop == from) else {
            return;
        };
        let links = self.links_to(sessions);
        let failover = &mut self.failovers[at_hop];
        failover.touched.add(sessions.len(), links);
        failover.rooms_left = failover.rooms_left.saturating_sub(1);
        self.finish_failovers(at, |failover| failover.rooms_left == 0);
    }

    pub(super) fn finish_failovers(&mut self, at: Moment, over: impl Fn(&FailoverSpan) -> bool) {
        let finished: Vec<_> = self.failovers.extract_if(.., |failover| over(failover)).collect();
        for failover in finished {
            let names = failover.witnesses.iter().map(|w| StringValue::from(w.name()));
            let mut attributes = vec![
                is(Attribute::Witness, Value::Array(Array::String(names.collect()))),
                is(Attribute::Rooms, i64::from(failover.rooms)),
            ];
            attributes.extend(counts_of(&failover.touched));
            self.place(failover.hop, &mut attributes);
            let start = at.wall_of(failover.started);
            builder(Span::NodeFailover, SpanKind::Internal, start, attributes)
                .with_links(failover.touched.links)
                .start_with_context(&self.tracer, &Context::new())
                .end_with_timestamp(at.wall);
        }
    }

    pub(crate) fn start(&mut self, node: NodeId, step: StartPhase, at: Moment) {
        match step {
            StartPhase::Begun { .. } => _ = self.hooks.insert((NodeHook::Start, node), at.wall),
            StartPhase::Failed { why, .. } => self.end_hook(NodeHook::Start, node, Some(why), at),
            StartPhase::Done { .. } => self.end_hook(NodeHook::Start, node, None, at),
            StartPhase::Refused { .. } => {}
        }
    }

    pub(crate) fn stop(&mut self, node: NodeId, step: StopPhase, at: Moment) {
        match step {
            StopPhase::Begun => _ = self.hooks.insert((NodeHook::Stop, node), at.wall),
            StopPhase::Failed => {
                self.end_hook(NodeHook::Stop, node, Some(NotStarted::Late), at);
            }
            StopPhase::Done { .. } => self.end_hook(NodeHook::Stop, node, None, at),
        }
    }

    /// The span has the ids that the node's hook got.
    fn end_hook(&mut self, hook: NodeHook, node: NodeId, failed: Option<NotStarted>, at: Moment) {
        let Some(begun) = self.hooks.remove(&(hook, node)) else { return };
        let failed = failed.map(NotStarted::name);
        let span = match hook {
            NodeHook::Start => Span::NodeStart,
            NodeHook::Stop => Span::NodeStop,
        };
        let named = self.names.of_node(node);
        let mut attributes = vec![
            is(Attribute::Node, named.node),
            is(Attribute::Region, named.region),
            is(Attribute::Zone, named.zone),
            is(Attribute::Outcome, if failed.is_some() { "failed" } else { WELL }),
        ];
        attributes.extend(failed.map(|why| is(Attribute::Reason, why)));
        let builder = builder(span, SpanKind::Internal, begun, attributes);
        let create = || builder.start_with_context(&self.tracer, &Context::new());
        let mut span = match self.traces.take_hook(hook, node) {
            Some(TraceIds { trace_id, span_id }) => {
                SpanIds::with(TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id), create)
            }
            None => create(),
        };
        if let Some(why) = failed {
            fail(&mut span, why, why);
        }
        span.end_with_timestamp(at.wall);
    }

    pub(crate) fn reloaded(&self, report: &ReloadReport, at: Moment) {
        let ReloadReport { by, took, outcome } = report;
        let mut attributes = vec![is(Attribute::By, by.name())];
        match outcome {
            Ok(Reloaded { nodes: ListChange { added, removed, changed }, .. }) => {
                attributes.push(is(Attribute::Outcome, WELL));
                let names: Vec<_> = added.iter().chain(removed).chain(changed).collect();
                let named = names.iter().take(NODES_MAX);
                let named = named.map(|name| StringValue::from(Arc::clone(name)));
                let left_out = names.len().saturating_sub(NODES_MAX);
                if !names.is_empty() {
                    let named = Value::Array(Array::String(named.collect()));
                    attributes.push(is(Attribute::Nodes, named));
                    attributes.push(is(Attribute::DroppedNodes, left_out as i64));
                }
            }
            Err(reason) => {
                attributes.push(is(Attribute::Outcome, "refused"));
                attributes.push(is(Attribute::Reason, reason.to_string()));
            }
        }
        let mut span =
            builder(Span::GatewayReload, SpanKind::Internal, at.wall - *took, attributes)
                .start_with_context(&self.tracer, &Context::new());
        if let Err(reason) = outcome {
            fail(&mut span, "refused", reason.to_string());
        }
        span.end_with_timestamp(at.wall);
    }
}
