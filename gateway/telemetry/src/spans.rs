//! Spans, created when they end: all their attributes are known then.
//!
//! The spans of a session form one trace, and the process that continues the session computes the same ids. A decision is a child of
//! the span that waited for it.

mod decisions;
mod held;
mod nodes;
mod operations;
mod rollouts;
mod sampling;
mod sessions;
mod tracks;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_control::{NodeHook, NodeName, NodeNames, TraceRegistry};
use evenkeel_model::{Hop, NodeId, OfferRefusal};
use held::HeldSpans;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
pub(crate) use sampling::{SpanIds, SpanSampler};
use tracks::{
    DecisionBatch, DecisionSubject, FailoverSpan, OperationTracks, SessionSpans, TouchedSessions,
};
pub(crate) use tracks::{DecisionSpan, RefusedOffer};

use crate::registry::{Attribute, Span};

/// Time after which a decision about an opening session is no longer claimed, because the session was refused.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

/// Interval at which open spans are swept. Decisions and changes of nodes may sweep them earlier.
pub(crate) const SWEPT_EVERY: Duration = Duration::from_secs(1);

/// Maximum steps recorded of a rollout or a degradation: a rollout can be paused and resumed any number of times.
const STEPS_MAX: usize = 64;

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic time, for intervals.
    pub now: Instant,
    /// The wall-clock time, for timestamps.
    pub wall: SystemTime,
}

impl Moment {
    /// Reads both clocks of the system.
    pub fn now() -> Moment {
        Moment { now: tokio::time::Instant::now().into_std(), wall: SystemTime::now() }
    }

    fn wall_of(&self, instant: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(instant);
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

/// Writes spans of a session. The context has its span, their parent.
type WriteSpans = Box<dyn FnOnce(&SpanWriter, &Context) + Send + Sync>;

/// Creates, samples and sends spans.
#[derive(Debug)]
pub(crate) struct SpanPipeline {
    pub(crate) tracer: SdkTracer,
    pub(crate) sampler: SpanSampler,
}

#[derive(Debug)]
pub(super) struct SpanWriter {
    tracer: SdkTracer,
    sampler: SpanSampler,
    names: Arc<NodeNames>,
    traces: Arc<TraceRegistry>,
    sessions: SessionSpans,
    held: HeldSpans<WriteSpans>,
    /// Decisions about sessions that are being opened.
    waiting: BTreeMap<DecisionSubject, Vec<DecisionSpan>>,
    batch: Option<DecisionBatch>,
    /// Decisions about many rooms. These move once their sessions are open at the new node.
    reroutes: Vec<DecisionBatch>,
    failovers: Vec<FailoverSpan>,
    operations: OperationTracks,
    /// The times at which hooks of nodes were called.
    hooks: BTreeMap<(NodeHook, NodeId), SystemTime>,
    swept: Option<Instant>,
}

fn is(attribute: Attribute, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(attribute.key(), value)
}

/// The number of touched sessions, and of those without a link.
fn counts_of(touched: &TouchedSessions) -> [KeyValue; 2] {
    let left_out = touched.sessions - touched.links.len();
    [is(Attribute::Sessions, touched.sessions as i64), is(Attribute::DroppedLinks, left_out as i64)]
}

/// Marks the span of a failed operation. `kind` is one of few words.
fn fail(
    span: &mut impl opentelemetry::trace::Span,
    kind: &'static str,
    description: impl Into<Cow<'static, str>>,
) {
    span.set_attribute(is(Attribute::ErrorType, kind));
    span.set_status(Status::error(description));
}

fn registered(span: Span, key: &str) -> bool {
    let note = |attribute: &Attribute| {
        *attribute == Attribute::Note && key.strip_prefix(Attribute::Note.key()).is_some()
    };
    span.attributes().iter().any(|attribute| attribute.key() == key || note(attribute))
}

fn builder(
    span: Span,
    kind: SpanKind,
    start: SystemTime,
    attributes: Vec<KeyValue>,
) -> SpanBuilder {
    debug_assert!(
        attributes.iter().all(|kv| registered(span, kv.key.as_str())),
        "{attributes:?} are not all registered for {}",
        span.name()
    );
    let builder = SpanBuilder::from_name(span.name()).with_kind(kind);
    builder.with_start_time(start).with_attributes(attributes)
}

impl SpanWriter {
    pub(super) fn new(
        pipeline: SpanPipeline,
        names: Arc<NodeNames>,
        traces: Arc<TraceRegistry>,
    ) -> SpanWriter {
        let SpanPipeline { tracer, sampler } = pipeline;
        SpanWriter {
            tracer,
            sampler,
            names,
            traces,
            sessions: SessionSpans::default(),
            held: HeldSpans::default(),
            waiting: BTreeMap::new(),
            batch: None,
            reroutes: Vec::new(),
            failovers: Vec::new(),
            operations: OperationTracks::default(),
            hooks: BTreeMap::new(),
            swept: None,
        }
    }

    /// Ends what the gateway's end leaves open.
    pub(crate) fn finish(&mut self, at: Moment) {
        self.end_batch(None, at);
        self.end_reroutes(at, |_| true);
        self.end_degradations(at);
        self.end_drills(at);
    }

    fn place(&self, hop: Hop, attributes: &mut Vec<KeyValue>) {
        let NodeName { node, region, zone, .. } = self.names.of_hop(hop);
        attributes.push(is(Attribute::Node, node));
        attributes.push(is(Attribute::Region, region));
        attributes.push(is(Attribute::Zone, zone));
        attributes.push(is(Attribute::Incarnation, i64::from(hop.incarnation.0)));
    }

    /// Ends unclaimed decisions, and reroutes and failovers whose rooms did not all move.
    pub(crate) fn sweep(&mut self, at: Moment) {
        let due = |since: Instant| at.now.saturating_duration_since(since) >= CLAIMED_WITHIN;
        if self.swept.is_some_and(|swept| !due(swept)) {
            return;
        }
        self.swept = Some(at.now);
        self.give_up_unclaimed(due, at);
        self.end_reroutes(at, |batch| due(batch.decision.concluded));
        self.finish_failovers(at, |failover| due(failover.down_at));
    }
}

pub(super) fn refusal(reason: &OfferRefusal) -> &'static str {
    match reason {
        OfferRefusal::UnknownScenario(_) => "unknown-scenario",
        OfferRefusal::ScenarioOfRoom(_) => "scenario-of-room",
        OfferRefusal::Full { .. } => "full",
        OfferRefusal::Draining => "draining",
        OfferRefusal::Rejected { .. } | OfferRefusal::PlacementRefused { .. } => "rejected",
        OfferRefusal::Redirected(_) => "redirected",
        OfferRefusal::NoNode { .. } => "no-node",
        OfferRefusal::ClientsImpaired { .. } => "clients-impaired",
        OfferRefusal::Closed => "closed",
        OfferRefusal::NotOpened { .. } => "not-opened",
    }
}
