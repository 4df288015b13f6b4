//! The failover of a node.

use std::time::Instant;

use evenkeel_model::{EvidenceSource, Health, Hop, SessionId};
use opentelemetry::trace::{Link, Span as _, SpanKind};
use opentelemetry::{Array, Context, StringValue, Value};

use super::{Moment, SpanWriter, builder, is};
use crate::registry::{Attribute, Span};

/// Maximum links of one span: a limit that receivers accept.
const LINKS_MAX: usize = 128;

/// The failure of a node, until all its rooms have moved.
#[derive(Debug)]
pub(super) struct FailoverSpan {
    hop: Hop,
    started: Instant,
    pub(super) down_at: Instant,
    witnesses: Vec<EvidenceSource>,
    rooms: u32,
    rooms_left: u32,
    sessions: usize,
    links: Vec<Link>,
}

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
            sessions: 0,
            links: Vec::new(),
        });
        self.finish_failovers(at, |failover| failover.rooms_left == 0);
    }

    /// A room moved off a down node.
    pub(crate) fn moved(&mut self, from: Hop, sessions: &[SessionId], at: Moment) {
        let Some(failover) = self.failovers.iter_mut().find(|failover| failover.hop == from) else {
            return;
        };
        failover.sessions += sessions.len();
        failover.rooms_left = failover.rooms_left.saturating_sub(1);
        let spans = sessions.iter().filter_map(|session| self.linkable.get(session));
        let room = LINKS_MAX - failover.links.len();
        failover.links.extend(spans.take(room).cloned().map(Link::with_context));
        self.finish_failovers(at, |failover| failover.rooms_left == 0);
    }

    pub(super) fn finish_failovers(&mut self, at: Moment, over: impl Fn(&FailoverSpan) -> bool) {
        let finished: Vec<_> = self.failovers.extract_if(.., |failover| over(failover)).collect();
        for failover in finished {
            let names = failover.witnesses.iter().map(|w| StringValue::from(w.name()));
            let left_out = failover.sessions - failover.links.len();
            let mut attributes = vec![
                is(Attribute::Witness, Value::Array(Array::String(names.collect()))),
                is(Attribute::Rooms, i64::from(failover.rooms)),
                is(Attribute::Sessions, failover.sessions as i64),
                is(Attribute::DroppedLinks, left_out as i64),
            ];
            self.place(failover.hop, &mut attributes);
            let start = at.wall_of(failover.started);
            builder(Span::NodeFailover, SpanKind::Internal, start, attributes)
                .with_links(failover.links)
                .start_with_context(&self.tracer, &Context::new())
                .end_with_timestamp(at.wall);
        }
    }
}
