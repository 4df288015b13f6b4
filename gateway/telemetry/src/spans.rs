//! Spans, created when they end: all their attributes are known then.

mod decision;
mod failover;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(super) use decision::{DecisionSpan, DecisionSubject};
use evenkeel_control::{NodeName, NodeNames, RolloutOutcome, RolloutReport};
use evenkeel_model::{Hop, PolicyName, SessionId};
use failover::FailoverSpan;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
pub(super) use session::{OpenedSession, Turned, refusal};

use super::registry::{Attribute, Span};

/// Time after which a decision about an opening session is no longer claimed, because the session was refused.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

/// Maximum steps recorded per rollout; a rollout can be paused and resumed any number of times.
const STEPS_MAX: usize = 64;

/// The start and steps of a rollout.
type RolloutTrack = (SystemTime, Vec<(SystemTime, String)>);

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
        Moment { now: Instant::now(), wall: SystemTime::now() }
    }

    /// An earlier instant as wall-clock time.
    fn wall_of(&self, instant: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(instant);
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

#[derive(Debug)]
pub(super) struct SpanWriter {
    tracer: SdkTracer,
    names: Arc<NodeNames>,
    /// Decisions about sessions that are being opened.
    waiting: BTreeMap<DecisionSubject, Vec<DecisionSpan>>,
    linkable: BTreeMap<SessionId, SpanContext>,
    failovers: Vec<FailoverSpan>,
    /// Rollouts in progress.
    ways: BTreeMap<PolicyName, RolloutTrack>,
    swept: Option<Instant>,
}

fn is(attribute: Attribute, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(attribute.key(), value)
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
    pub(super) fn new(tracer: SdkTracer, names: Arc<NodeNames>) -> SpanWriter {
        let (waiting, linkable) = (BTreeMap::new(), BTreeMap::new());
        let (failovers, ways) = (Vec::new(), BTreeMap::new());
        SpanWriter { tracer, names, waiting, linkable, failovers, ways, swept: None }
    }

    /// Records a step of a rollout. The span is created when the rollout ends.
    pub(super) fn rollout(&mut self, rollout: &RolloutReport, at: Moment) {
        let policy = &rollout.policy;
        let way = match rollout.outcome {
            // The rollout continues.
            RolloutOutcome::Revoked => return,
            RolloutOutcome::Started
            | RolloutOutcome::Advanced
            | RolloutOutcome::Paused
            | RolloutOutcome::Resumed => {
                let start = at.wall_of(rollout.arrived);
                let (_, steps) =
                    self.ways.entry(policy.clone()).or_insert_with(|| (start, Vec::new()));
                let stage = rollout.stage.map(|staged| staged.stage);
                let (name, percent) = stage.map_or(("", 0), |it| (it.name(), it.percent()));
                if steps.len() < STEPS_MAX {
                    steps
                        .push((at.wall, format!("{}: {name} {percent} %", rollout.outcome.name())));
                }
                return;
            }
            // A newer rollout continues.
            _ if rollout.stage.is_some() => None,
            RolloutOutcome::Activated | RolloutOutcome::RolledBack => self.ways.remove(policy),
            RolloutOutcome::Unchanged | RolloutOutcome::Refused => None,
        };
        let mut attributes = vec![
            is(Attribute::Policy, policy.to_string()),
            is(Attribute::Hook, policy.hook.name()),
            is(Attribute::Outcome, rollout.outcome.name()),
            is(Attribute::By, rollout.by.name()),
        ];
        let revisions =
            [(Attribute::Revision, &rollout.revision), (Attribute::Previous, &rollout.previous)];
        for (attribute, revision) in revisions {
            attributes.extend(revision.as_ref().map(|name| is(attribute, Arc::clone(name))));
        }
        let reason = rollout.reason.as_ref();
        attributes.extend(reason.map(|reason| is(Attribute::Reason, reason.to_string())));
        let (start, steps) = way.unwrap_or_else(|| (at.wall_of(rollout.arrived), Vec::new()));
        let mut span = builder(Span::PolicyRollout, SpanKind::Internal, start, attributes)
            .start_with_context(&self.tracer, &Context::new());
        for (when, step) in steps {
            span.add_event_with_timestamp(step, when, Vec::new());
        }
        if let Some(reason) = reason {
            span.set_status(Status::error(reason.to_string()));
        }
        span.end_with_timestamp(at.wall);
    }

    fn place(&self, hop: Hop, attributes: &mut Vec<KeyValue>) {
        let NodeName { node, region, zone } = self.names.of_hop(hop);
        attributes.push(is(Attribute::Node, node));
        attributes.push(is(Attribute::Region, region));
        attributes.push(is(Attribute::Zone, zone));
        attributes.push(is(Attribute::Incarnation, i64::from(hop.incarnation.0)));
    }

    /// Ends unclaimed decisions, and failovers whose rooms did not all move.
    fn sweep(&mut self, at: Moment) {
        let due = |since: Instant| at.now.saturating_duration_since(since) >= CLAIMED_WITHIN;
        if self.swept.is_some_and(|swept| !due(swept)) {
            return;
        }
        self.swept = Some(at.now);
        self.give_up_unclaimed(due, at);
        self.finish_failovers(at, |failover| due(failover.down_at));
    }
}
