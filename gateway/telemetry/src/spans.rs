//! Spans, created when they end: all their attributes are known then.
//!
//! A decision is a child of the span that waited for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::Traceparent;
use evenkeel_control::{NodeName, NodeNames, RolloutOutcome, RolloutReport, TraceCaller};
use evenkeel_model::{
    CoreEvent, Decider, DecisionNote, DecisionOutcome, EvidenceSource, Health, Hook, Hop,
    OfferRefusal, PolicyName, RoomId, SessionId,
};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceId,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracer, ShouldSample};

use super::registry::{Attribute, Sampled, Span};

/// Time after which a decision about an opening session is no longer claimed, because the session was refused.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

/// Maximum steps recorded per rollout; a rollout can be paused and resumed any number of times.
const STEPS_MAX: usize = 64;

/// Maximum decisions that wait for their session to open.
const WAITING_MAX: usize = 4_096;

/// Maximum notes of one decision.
const NOTES_MAX: usize = 32;

/// Maximum links of one span: a limit that receivers accept.
const LINKS_MAX: usize = 128;

/// Maximum sessions that spans can link to; about 1 MiB. Links to further ones are counted as dropped.
const LINKABLE_MAX: usize = 10_000;

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

    fn wall_of(&self, instant: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(instant);
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

#[derive(Debug)]
pub(super) struct SpanWriter {
    tracer: SdkTracer,
    trust: Traceparent,
    names: Arc<NodeNames>,
    /// Decisions about sessions that are being opened.
    waiting: BTreeMap<DecisionSubject, Vec<DecisionSpan>>,
    linkable: BTreeMap<SessionId, SpanContext>,
    failovers: Vec<FailoverSpan>,
    rollouts: BTreeMap<PolicyName, RolloutTrack>,
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

#[derive(Clone, Copy, Debug)]
pub(super) struct Turned<'a> {
    pub(super) scenario: &'a str,
    pub(super) word: &'static str,
    /// The core's reason, if it refused the offer.
    pub(super) reason: Option<&'a OfferRefusal>,
    /// Ids of the refused session and its room, if they got ids.
    pub(super) session: Option<(SessionId, RoomId)>,
}

#[derive(Clone, Debug)]
pub(super) struct DecisionSpan {
    pub(super) policy: PolicyName,
    pub(super) revision: Option<Arc<str>>,
    pub(super) outcome: DecisionOutcome,
    pub(super) reason: Option<Arc<str>>,
    pub(super) rows: u32,
    pub(super) started: Instant,
    pub(super) concluded: Instant,
    pub(super) took: Duration,
    pub(super) notes: Vec<DecisionNote>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum DecisionSubject {
    Session(SessionId),
    Room(RoomId),
}

/// Notes as attributes: notes with the same key become a list.
fn note_attributes(notes: Vec<DecisionNote>) -> impl Iterator<Item = KeyValue> {
    let mut values: BTreeMap<Box<str>, Vec<i64>> = BTreeMap::new();
    for note in notes.into_iter().take(NOTES_MAX) {
        values.entry(note.key).or_default().push(note.value);
    }
    values.into_iter().map(|(key, values)| {
        let key = format!("{}.{key}", Attribute::Note.key());
        match values[..] {
            [value] => KeyValue::new(key, value),
            _ => KeyValue::new(key, Value::Array(Array::I64(values))),
        }
    })
}

/// The failure of a node, until all its rooms have moved.
#[derive(Debug)]
struct FailoverSpan {
    hop: Hop,
    started: Instant,
    down_at: Instant,
    witnesses: Vec<EvidenceSource>,
    rooms: u32,
    rooms_left: u32,
    sessions: usize,
    links: Vec<Link>,
}

impl SpanWriter {
    pub(super) fn new(tracer: SdkTracer, trust: Traceparent, names: Arc<NodeNames>) -> SpanWriter {
        let (waiting, linkable) = (BTreeMap::new(), BTreeMap::new());
        let (failovers, ways) = (Vec::new(), BTreeMap::new());
        SpanWriter {
            tracer,
            trust,
            names,
            waiting,
            linkable,
            failovers,
            rollouts: ways,
            swept: None,
        }
    }

    /// Records [`CoreEvent::Opened`].
    pub(super) fn opened(&mut self, opened: &CoreEvent, caller: Option<&TraceCaller>, at: Moment) {
        let CoreEvent::Opened {
            session,
            room,
            room_name,
            scenario,
            hop,
            offered,
            admitted_by,
            routed_by,
        } = opened
        else {
            return;
        };
        let start = caller.map_or(*offered, |caller| caller.arrived.min(*offered));
        let mut attributes = vec![
            is(Attribute::Outcome, WELL),
            is(Attribute::Session, session.to_string()),
            is(Attribute::Room, room.to_string()),
            is(Attribute::RoomName, Arc::clone(room_name)),
            is(Attribute::Scenario, Arc::clone(scenario)),
            is(Attribute::AdmittedBy, admitted_by.to_string()),
            is(Attribute::RoutedBy, routed_by.to_string()),
        ];
        self.place(*hop, &mut attributes);
        let (parent, links) = trace_of(caller, self.trust);
        let span = builder(Span::SessionOpen, SpanKind::Server, at.wall_of(start), attributes)
            .with_links(links)
            .start_with_context(&self.tracer, &parent);
        let context = parent.with_span(span);

        let about = [DecisionSubject::Session(*session), DecisionSubject::Room(*room)];
        let (admitting, others) = self.claim(about);
        self.admission(&context, *offered, admitting, Some(admitted_by), None, at);
        for decision in others {
            self.decide(&context, decision, at);
        }
        context.span().end_with_timestamp(at.wall);
        let span = context.span().span_context().clone();
        if span.is_sampled() && self.linkable.len() < LINKABLE_MAX {
            self.linkable.insert(*session, span);
        }
    }

    pub(super) fn refused(
        &mut self,
        turned: &Turned<'_>,
        caller: Option<&TraceCaller>,
        at: Moment,
    ) {
        let Turned { scenario, word, reason, session } = *turned;
        let start = caller.map_or(at.now, |caller| caller.arrived);
        let attributes = vec![
            is(Attribute::Outcome, "refused"),
            is(Attribute::Reason, word),
            is(Attribute::Scenario, scenario.to_owned()),
        ];
        let (parent, links) = trace_of(caller, self.trust);
        let mut span = builder(Span::SessionOpen, SpanKind::Server, at.wall_of(start), attributes)
            .with_links(links)
            .start_with_context(&self.tracer, &parent);
        span.set_status(Status::error(word));
        let context = parent.with_span(span);

        let by_admission = reason
            .filter(|r| matches!(r, OfferRefusal::Rejected { .. } | OfferRefusal::Redirected(_)));
        // If only this session is refused, others in its room still wait for the placement.
        let about = session.into_iter().flat_map(|(session, room)| {
            let room = by_admission.is_none().then_some(DecisionSubject::Room(room));
            [Some(DecisionSubject::Session(session)), room].into_iter().flatten()
        });
        let (admitting, others) = self.claim(about);
        if by_admission.is_some() || !admitting.is_empty() {
            self.admission(&context, start, admitting, None, by_admission, at);
        }
        for decision in others {
            self.decide(&context, decision, at);
        }
        context.span().end_with_timestamp(at.wall);
    }

    /// Takes the decisions that this offer waited for: the admission, and the others.
    fn claim(
        &mut self,
        about: impl IntoIterator<Item = DecisionSubject>,
    ) -> (Vec<DecisionSpan>, Vec<DecisionSpan>) {
        let waited = about.into_iter().filter_map(|subject| self.waiting.remove(&subject));
        waited.flatten().partition(|decision| decision.policy.hook == Hook::Admission)
    }

    pub(super) fn closed(&mut self, session: SessionId) {
        self.linkable.remove(&session);
    }

    /// Records a decision. A decision about an opening session or room waits for its span; one about many rows is a
    /// root span.
    pub(super) fn decided(
        &mut self,
        about: Option<DecisionSubject>,
        decision: DecisionSpan,
        at: Moment,
    ) {
        self.sweep(at);
        let Some(subject) = about else {
            let worth_telling =
                !matches!(decision.outcome, DecisionOutcome::Kept | DecisionOutcome::Abstained);
            if worth_telling {
                self.decide(&Context::new(), decision, at);
            }
            return;
        };
        if let DecisionSubject::Session(session) = subject
            && let Some(span) = self.linkable.get(&session)
        {
            let parent = Context::new().with_remote_span_context(span.clone());
            return self.decide(&parent, decision, at);
        }
        if self.waiting.len() >= WAITING_MAX {
            return self.decide(&Context::new(), decision, at);
        }
        self.waiting.entry(subject).or_default().push(decision);
    }

    /// Ends unclaimed decisions as root spans.
    fn give_up_unclaimed(&mut self, due: impl Fn(Instant) -> bool, at: Moment) {
        let unclaimed = self
            .waiting
            .extract_if(.., |_, all| all.iter().all(|decision| due(decision.concluded)));
        let unclaimed: Vec<DecisionSpan> = unclaimed.flat_map(|(_, all)| all).collect();
        for decision in unclaimed {
            self.decide(&Context::new(), decision, at);
        }
    }

    fn admission(
        &self,
        parent: &Context,
        offered: Instant,
        decisions: Vec<DecisionSpan>,
        by: Option<&Decider>,
        refused: Option<&OfferRefusal>,
        at: Moment,
    ) {
        let start = decisions.first().map_or(offered, |first| first.started);
        let end = decisions.last().map_or(offered, |last| last.concluded);
        let mut attributes = vec![match refused {
            None => is(Attribute::Outcome, WELL),
            Some(_) => is(Attribute::Outcome, "refused"),
        }];
        attributes.extend(refused.map(|reason| is(Attribute::Reason, refusal(reason))));
        attributes.extend(by.map(|by| is(Attribute::By, by.to_string())));
        let start = at.wall_of(start);
        let span = builder(Span::Admission, SpanKind::Internal, start, attributes)
            .start_with_context(&self.tracer, parent);
        let context = parent.with_span(span);
        for decision in decisions {
            self.decide(&context, decision, at);
        }
        let end = if refused.is_some() { at.wall } else { at.wall_of(end) };
        context.span().end_with_timestamp(end);
    }

    fn decide(&self, parent: &Context, decision: DecisionSpan, at: Moment) {
        let DecisionSpan {
            policy,
            revision,
            outcome,
            reason,
            rows,
            started: asked,
            concluded,
            took,
            notes,
        } = decision;
        let mut attributes = vec![
            is(Attribute::Policy, policy.to_string()),
            is(Attribute::Hook, policy.hook.name()),
            is(Attribute::Rows, i64::from(rows)),
            is(Attribute::Duration, took.as_secs_f64()),
        ];
        let mut status = Status::Unset;
        let word = match &outcome {
            DecisionOutcome::Applied { differs } => {
                attributes.push(is(Attribute::Differs, *differs));
                WELL
            }
            DecisionOutcome::Faulted(fault) => {
                attributes.push(is(Attribute::Fault, fault.name()));
                status = Status::error(fault.name());
                outcome.name()
            }
            DecisionOutcome::Guarded(guard) => {
                attributes.push(is(Attribute::Guard, guard.name()));
                outcome.name()
            }
            DecisionOutcome::Abstained | DecisionOutcome::Kept | DecisionOutcome::Stale => {
                outcome.name()
            }
        };
        attributes.push(is(Attribute::Outcome, word));
        attributes.extend(revision.map(|revision| is(Attribute::Revision, revision)));
        attributes.extend(reason.map(|reason| is(Attribute::Reason, reason)));
        attributes.extend(note_attributes(notes));
        let start = at.wall_of(asked);
        let mut span = builder(Span::PolicyDecide, SpanKind::Internal, start, attributes)
            .start_with_context(&self.tracer, parent);
        span.set_status(status);
        span.end_with_timestamp(at.wall_of(concluded));
    }

    pub(super) fn node(
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
    pub(super) fn moved(&mut self, from: Hop, sessions: &[SessionId], at: Moment) {
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

    fn finish_failovers(&mut self, at: Moment, over: impl Fn(&FailoverSpan) -> bool) {
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
                    self.rollouts.entry(policy.clone()).or_insert_with(|| (start, Vec::new()));
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
            RolloutOutcome::Activated | RolloutOutcome::RolledBack => self.rollouts.remove(policy),
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

/// Parent and links of a request's span: the caller's context (W3C Trace Context), of which only a trusted one is the
/// parent. A malformed one is ignored.
fn trace_of(caller: Option<&TraceCaller>, trust: Traceparent) -> (Context, Vec<Link>) {
    let header = caller.and_then(|caller| caller.traceparent.as_deref()).unwrap_or_default();
    let headers = HashMap::from([("traceparent".to_owned(), header.to_owned())]);
    let remote = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    let context = remote.span().span_context().clone();
    match trust {
        _ if !context.is_valid() => (Context::new(), Vec::new()),
        Traceparent::Parent => (remote, Vec::new()),
        Traceparent::Link => (Context::new(), vec![Link::with_context(context)]),
    }
}

pub(super) fn refusal(reason: &OfferRefusal) -> &'static str {
    match reason {
        OfferRefusal::UnknownScenario(_) => "unknown-scenario",
        OfferRefusal::ScenarioOfRoom(_) => "scenario-of-room",
        OfferRefusal::Full { .. } => "full",
        OfferRefusal::Draining => "draining",
        OfferRefusal::Rejected { .. } => "rejected",
        OfferRefusal::Redirected(_) => "redirected",
        OfferRefusal::NoNode { .. } => "no-node",
        OfferRefusal::Closed => "closed",
        OfferRefusal::NotOpened { .. } => "not-opened",
    }
}

/// Follows the parent's decision. Without a parent it samples always-on spans, failures, and the configured share of
/// the rest. The share depends on the trace id, so that other services with the same share sample the same traces.
#[derive(Clone, Debug)]
pub(super) struct SpanSampler {
    /// The share of sampled spans, 0 to 1.
    pub(super) share: f64,
}

/// The status of a span that may be dropped.
pub(super) const WELL: &str = "ok";

impl ShouldSample for SpanSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let span = Span::ALL.iter().find(|span| span.name() == name);
        let is_shared = span.is_some_and(|span| span.sampled() == Sampled::Share);
        let outcome = attributes.iter().find(|kv| kv.key.as_str() == Attribute::Outcome.key());
        let root = match outcome {
            Some(outcome) if outcome.value.as_str() != WELL => Sampler::AlwaysOn,
            _ if is_shared => Sampler::TraceIdRatioBased(self.share),
            _ => Sampler::AlwaysOn,
        };
        let sampler = Sampler::ParentBased(Box::new(root));
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests;
