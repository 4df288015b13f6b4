//! Spans, created when they end: all their attributes are known then.
//!
//! The spans of a session form one trace, and the process that continues the session computes the same ids. A decision is a child of
//! the span that waited for it.

mod held;
mod sampling;
mod tracks;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_control::{
    CallerSpan, Continuation, ListChange, NodeHook, NodeName, NodeNames, NodeOrder, OrderStep,
    ReloadReport, Reloaded, TraceCaller, TraceIds, TraceRegistry,
};
use evenkeel_model::{
    BreakerState, ClientGroup, CloseReason, CoreEvent, Decider, DecisionNote, DecisionOutcome,
    EvidenceSource, Health, Hook, Hop, MoveCause, NodeId, NotStarted, OfferRefusal, RegionId,
    SessionId, StartPhase, StopPhase,
};
use evenkeel_revisions::{RolloutOutcome, RolloutReport};
use held::HeldSpans;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
    TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SdkTracer;
use sampling::WELL;
pub(crate) use sampling::{SpanIds, SpanSampler};
use tracks::{
    BreakerTrack, DecisionBatch, DecisionSubject, Degradation, DrillTrack, FailoverSpan, LINKS_MAX,
    OperationTracks, RolloutTrack, SESSIONS_MAX, SessionSpans, TouchedSessions,
};
pub(crate) use tracks::{DecisionSpan, RefusedOffer};

use crate::exemplars::SampledSpan;
use crate::registry::{Attribute, Span};

/// Time after which a decision about an opening session is no longer claimed, because the session was refused.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

/// Interval at which open spans are swept. Decisions and changes of nodes may sweep them earlier.
pub(crate) const SWEPT_EVERY: Duration = Duration::from_secs(1);

/// Maximum steps recorded of a rollout or a degradation: a rollout can be paused and resumed any number of times.
const STEPS_MAX: usize = 64;

/// Maximum spans of one takeover or move.
const SPANS_AT_ONCE: usize = 1_000;

/// Maximum decisions that wait for their session to open.
const WAITING_MAX: usize = 4_096;

/// Maximum reroutes whose rooms may still move.
const REROUTES_MAX: usize = 64;

/// Maximum notes of one decision.
const NOTES_MAX: usize = 32;

/// Maximum nodes that the span of a reload names.
const NODES_MAX: usize = 128;

/// Maximum breakers of clients that are followed: clients choose the names of their groups.
const CLIENT_BREAKERS_MAX: usize = 64;

/// The outcome of a drill whose fault lasted until its node was removed, or the process ended.
const UNREPAIRED: &str = "unrepaired";

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

    // Sessions.

    /// The span of the session's life, which is created when that ends.
    fn span_of(&self, session: SessionId) -> SpanContext {
        let caller = self.sessions.callers.get(&session);
        let TraceIds { trace_id, span_id } = self.traces.of(session, caller);
        let (trace, span) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
        let is_sampled = match caller {
            Some(caller) => caller.is_sampled,
            None => self.sampler.is_in_share(trace) || self.sessions.affected.contains(&session),
        };
        let flags = TraceFlags::default().with_sampled(is_sampled);
        SpanContext::new(trace, span, flags, true, state_of(caller))
    }

    /// Writes this many spans of the session now if it is sampled. Spans of a session outside of the share are held; with a trusted
    /// caller, they are as the caller decided.
    fn write(
        &mut self,
        session: SessionId,
        spans: usize,
        write: impl FnOnce(&SpanWriter, &Context) + Send + Sync + 'static,
    ) {
        let span = self.span_of(session);
        if span.is_sampled() {
            write(self, &Context::new().with_remote_span_context(span));
        } else if !self.sessions.callers.contains_key(&session) {
            self.held.hold(session, spans, Box::new(write));
        }
    }

    /// Sends the session's spans, those that have ended as well.
    fn affect(&mut self, session: SessionId, at: Moment) {
        if self.sessions.affect(session, at.now) {
            let context = Context::new().with_remote_span_context(self.span_of(session));
            for write in self.held.take(session) {
                write(self, &context);
            }
        }
    }

    /// A link to the session, if it is sampled.
    fn link_to(&self, session: SessionId) -> Option<Link> {
        Some(self.span_of(session)).filter(SpanContext::is_sampled).map(Link::with_context)
    }

    /// Links to the first of the sessions that are sampled, as many as a span has.
    fn links_to(&self, sessions: &[SessionId]) -> Vec<Link> {
        let links = sessions.iter().filter_map(|session| self.link_to(*session));
        links.take(LINKS_MAX).collect()
    }

    /// The session as the exemplar of a metric, if it is sampled.
    pub(crate) fn exemplar(&self, session: SessionId) -> Option<SampledSpan> {
        SampledSpan::of(&self.span_of(session))
    }

    /// Parent and links of a request's span: only a trusted caller is the parent.
    fn trace_of(&self, caller: Option<&TraceCaller>) -> (Context, Vec<Link>) {
        let Some(caller) = caller.and_then(|caller| caller.span.as_ref()) else {
            return (Context::new(), Vec::new());
        };
        let context = context_of_caller(caller);
        match self.traces.parent(Some(caller)) {
            Some(_) => (Context::new().with_remote_span_context(context), Vec::new()),
            None => (Context::new(), vec![Link::with_context(context)]),
        }
    }

    /// Continues the trace of a trusted caller. Returns the link to another one.
    fn note_caller(&mut self, session: SessionId, caller: Option<&TraceCaller>) -> Vec<Link> {
        let trusted = self.traces.parent(caller.and_then(|caller| caller.span.as_ref())).cloned();
        self.sessions.note_callers(trusted.map(|caller| (session, caller)));
        self.trace_of(caller).1
    }

    /// Records [`CoreEvent::Opened`].
    pub(crate) fn opened(&mut self, event: &CoreEvent, caller: Option<&TraceCaller>, at: Moment) {
        let CoreEvent::Opened { session, room, hop, .. } = event else { return };
        let links = self.note_caller(*session, caller);
        let about = [DecisionSubject::Session(*session), DecisionSubject::Room(*room)];
        let decisions = self.claim(about);
        let (spans, opened) = (2 + decisions.len(), event.clone());
        self.write(*session, spans, move |writer, life| {
            writer.write_opening(&opened, links, decisions, life, at);
        });
        self.note_in_region(*hop, &[*session]);
    }

    /// `life`: with the span of the session.
    fn write_opening(
        &self,
        opened: &CoreEvent,
        links: Vec<Link>,
        decisions: Vec<DecisionSpan>,
        life: &Context,
        at: Moment,
    ) {
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
        let span = builder(Span::SessionOpen, SpanKind::Server, at.wall_of(*offered), attributes)
            .with_links(links)
            .start_with_context(&self.tracer, life);
        let context = life.with_span(span);
        let (admitting, others) = split_admissions(decisions);
        self.admission(&context, *offered, admitting, Some(admitted_by), None, at);
        for decision in others {
            self.decide(&context, decision, at);
        }
        context.span().end_with_timestamp(at.wall);
    }

    pub(crate) fn refused(
        &mut self,
        refused: &RefusedOffer<'_>,
        caller: Option<&TraceCaller>,
        at: Moment,
    ) {
        let RefusedOffer { scenario, word, reason, session } = *refused;
        let start = caller.map_or(at.now, |caller| caller.arrived);
        let attributes = vec![
            is(Attribute::Outcome, "refused"),
            is(Attribute::Reason, word),
            is(Attribute::Scenario, scenario.to_owned()),
        ];
        let (parent, links) = self.trace_of(caller);
        let mut span = builder(Span::SessionOpen, SpanKind::Server, at.wall_of(start), attributes)
            .with_links(links)
            .start_with_context(&self.tracer, &parent);
        fail(&mut span, word, word);
        self.note_refused(reason, span.span_context());
        let context = parent.with_span(span);

        let by_admission = reason
            .filter(|r| matches!(r, OfferRefusal::Rejected { .. } | OfferRefusal::Redirected(_)));
        // If only this session is refused, others in its room still wait for the placement.
        let about = session.into_iter().flat_map(|(session, room)| {
            let room = by_admission.is_none().then_some(DecisionSubject::Room(room));
            [Some(DecisionSubject::Session(session)), room].into_iter().flatten()
        });
        let (admitting, others) = split_admissions(self.claim(about));
        if by_admission.is_some() || !admitting.is_empty() {
            self.admission(&context, start, admitting, None, by_admission, at);
        }
        for decision in others {
            self.decide(&context, decision, at);
        }
        context.span().end_with_timestamp(at.wall);
    }

    /// Records [`CoreEvent::Closed`].
    pub(crate) fn closed(&mut self, event: &CoreEvent, at: Moment) {
        let CoreEvent::Closed { session, room, room_name, reason, closed } = event else { return };
        let failed = match reason {
            CloseReason::NotOpened
            | CloseReason::Panicked
            | CloseReason::SrtpCountersLost
            | CloseReason::HandshakeFailed
            | CloseReason::HandshakeLost => true,
            CloseReason::Requested
            | CloseReason::MediaTimeout
            | CloseReason::Shutdown
            | CloseReason::ClientClosed
            | CloseReason::EndedByPolicy => false,
        };
        // The process before may have seen its failover.
        if failed || closed.moves.iter().any(|it| affects(it.cause)) {
            self.affect(*session, at);
        }
        if let Some(degradation) = self.sessions.degraded.remove(session) {
            self.end_degradation(*session, degradation, at);
        }
        let outcome = match self.sessions.affected.contains(session) {
            _ if failed => "failed",
            true => "affected",
            false => WELL,
        };
        let own = self.span_of(*session);
        drop(self.held.take(*session));
        self.sessions.affected.remove(session);
        let caller = self.sessions.callers.remove(session);
        let is_sent = match &caller {
            Some(caller) => caller.is_sampled,
            None => own.is_sampled() || outcome != WELL,
        };
        if !is_sent {
            return;
        }
        let attributes = vec![
            is(Attribute::Session, session.to_string()),
            is(Attribute::Room, room.to_string()),
            is(Attribute::RoomName, Arc::clone(room_name)),
            is(Attribute::Scenario, Arc::clone(&closed.scenario)),
            is(Attribute::Mode, closed.mode.name()),
            is(Attribute::AdmittedBy, closed.admitted_by.to_string()),
            is(Attribute::Outcome, outcome),
            is(Attribute::Reason, reason.name()),
        ];
        let caller = caller.as_ref().map(context_of_caller);
        let parent = caller
            .map_or_else(Context::new, |caller| Context::new().with_remote_span_context(caller));
        let start = at.wall_of(closed.offered);
        let builder = builder(Span::Session, SpanKind::Internal, start, attributes);
        let mut span = SpanIds::with(own.trace_id(), own.span_id(), || {
            builder.start_with_context(&self.tracer, &parent)
        });
        if failed {
            fail(&mut span, reason.name(), reason.name());
        }
        span.end_with_timestamp(at.wall_of(closed.ended));
    }

    /// Records [`CoreEvent::Moved`].
    pub(crate) fn moved(&mut self, event: &CoreEvent, at: Moment) {
        let CoreEvent::Moved {
            room,
            room_name,
            scenario: _,
            sessions,
            cause,
            by,
            from,
            to,
            started,
            is_final: _,
        } = event
        else {
            return;
        };
        if affects(*cause) {
            sessions.iter().for_each(|session| self.affect(*session, at));
        }
        let start = at.wall_of(*started);
        for session in sessions.iter().copied().take(SPANS_AT_ONCE) {
            let (room, room_name, by) = (*room, Arc::clone(room_name), by.clone());
            let (cause, from, to) = (*cause, *from, *to);
            self.write(session, 1, move |writer, life| {
                let mut attributes = vec![
                    is(Attribute::Session, session.to_string()),
                    is(Attribute::Room, room.to_string()),
                    is(Attribute::RoomName, room_name),
                    is(Attribute::Cause, cause.name()),
                    is(Attribute::By, by.to_string()),
                    is(Attribute::From, writer.names.of_hop(from).node),
                    is(Attribute::Outcome, if to.is_some() { WELL } else { "stranded" }),
                ];
                to.iter().for_each(|to| writer.place(*to, &mut attributes));
                builder(Span::SessionMove, SpanKind::Internal, start, attributes)
                    .start_with_context(&writer.tracer, life)
                    .end_with_timestamp(at.wall);
            });
        }
        self.note_reroute(by, *started, sessions);
        self.note_leaving(*from, *cause, by, sessions);
        if cause.is_loss() {
            self.note_failover(*from, sessions, at);
        }
    }

    /// Records [`CoreEvent::Degraded`].
    pub(crate) fn degraded(&mut self, event: &CoreEvent, at: Moment) {
        let CoreEvent::Degraded { session, room_name, op, arg, rung, by } = event else { return };
        if *rung == 0 {
            if let Some(degradation) = self.sessions.degraded.remove(session) {
                self.end_degradation(*session, degradation, at);
            }
            return;
        }
        self.affect(*session, at);
        self.note_decider(by, &[*session]);
        let degraded = &mut self.sessions.degraded;
        if degraded.len() >= SESSIONS_MAX && !degraded.contains_key(session) {
            degraded.pop_first();
        }
        let degradation = degraded.entry(*session).or_insert_with(|| Degradation {
            room_name: Arc::clone(room_name),
            op: *op,
            by: by.to_string(),
            since: at.wall,
            steps: Vec::new(),
        });
        if degradation.steps.len() < STEPS_MAX {
            let step = format!("{} {arg} by {by}: rung {rung}", op.key());
            degradation.steps.push((at.wall, step));
        }
    }

    /// Records [`CoreEvent::Impaired`].
    pub(crate) fn impaired(&mut self, event: &CoreEvent, at: Moment) {
        let CoreEvent::Impaired { session, room_name, scenario, impairment, ended } = event else {
            return;
        };
        if impairment.is_some() {
            self.affect(*session, at);
        }
        let Some((impairment, since)) = ended else { return };
        let (session, impairment, start) = (*session, **impairment, at.wall_of(*since));
        let (room_name, scenario) = (Arc::clone(room_name), Arc::clone(scenario));
        self.write(session, 1, move |writer, life| {
            let attributes = vec![
                is(Attribute::Session, session.to_string()),
                is(Attribute::RoomName, room_name),
                is(Attribute::Scenario, scenario),
                is(Attribute::Segment, impairment.segment.name()),
                is(Attribute::Reason, impairment.sign.name()),
                is(Attribute::ImpairedBy, impairment.at.to_string()),
                is(Attribute::Loss, f64::from(impairment.loss_ppm) / 1e6),
                is(Attribute::Confidence, f64::from(impairment.confidence) / 100.0),
            ];
            builder(Span::SessionImpaired, SpanKind::Internal, start, attributes)
                .start_with_context(&writer.tracer, life)
                .end_with_timestamp(at.wall);
        });
    }

    fn end_degradation(&mut self, session: SessionId, degradation: Degradation, at: Moment) {
        self.write(session, 1, move |writer, life| {
            let Degradation { room_name, op, by, since, steps } = degradation;
            let attributes = vec![
                is(Attribute::Session, session.to_string()),
                is(Attribute::RoomName, room_name),
                is(Attribute::Op, op.key()),
                is(Attribute::By, by),
            ];
            let mut span = builder(Span::SessionDegraded, SpanKind::Internal, since, attributes)
                .start_with_context(&writer.tracer, life);
            for (when, step) in steps {
                span.add_event_with_timestamp(step, when, Vec::new());
            }
            span.end_with_timestamp(at.wall);
        });
    }

    /// The process ends, and the next one does not know when they began.
    fn end_degradations(&mut self, at: Moment) {
        for (session, degradation) in std::mem::take(&mut self.sessions.degraded) {
            self.end_degradation(session, degradation, at);
        }
    }

    /// This process continues the sessions of another one.
    pub(crate) fn continued(
        &mut self,
        cause: Continuation,
        sessions: usize,
        oldest: &[SessionId],
        callers: &[(SessionId, CallerSpan)],
        took: Duration,
        at: Moment,
    ) {
        self.sessions.note_callers(callers.iter().cloned());
        if cause == Continuation::Takeover {
            oldest.iter().for_each(|session| self.affect(*session, at));
        }
        let start = at.wall.checked_sub(took).unwrap_or(at.wall);
        let links = self.links_to(oldest);
        let attributes: Vec<KeyValue> = vec![
            is(Attribute::Cause, cause.name()),
            is(Attribute::Sessions, sessions as i64),
            is(Attribute::DroppedLinks, (sessions - links.len()) as i64),
        ];
        builder(Span::GatewayContinued, SpanKind::Internal, start, attributes)
            .with_links(links)
            .start_with_context(&self.tracer, &Context::new())
            .end_with_timestamp(at.wall);
        let (sampled, others): (Vec<SessionId>, Vec<SessionId>) =
            oldest.iter().copied().partition(|session| self.span_of(*session).is_sampled());
        let first = |sessions: Vec<SessionId>| sessions.into_iter().take(SPANS_AT_ONCE);
        for session in first(sampled).chain(first(others)) {
            self.write(session, 1, move |writer, life| {
                let attributes = vec![
                    is(Attribute::Session, session.to_string()),
                    is(Attribute::Cause, cause.name()),
                ];
                builder(Span::SessionContinued, SpanKind::Internal, start, attributes)
                    .start_with_context(&writer.tracer, life)
                    .end_with_timestamp(at.wall);
            });
        }
    }

    // Decisions of policies.

    /// Takes the decisions that this offer waited for.
    fn claim(&mut self, about: impl IntoIterator<Item = DecisionSubject>) -> Vec<DecisionSpan> {
        about.into_iter().filter_map(|subject| self.waiting.remove(&subject)).flatten().collect()
    }

    /// Records a decision. A decision about an opening session or room waits for its span; one about many rows is a
    /// root span.
    pub(crate) fn decided(&mut self, decision: DecisionSpan, at: Moment) {
        self.sweep(at);
        let subject = match (decision.session, decision.room) {
            (Some(session), _) => DecisionSubject::Session(session),
            (None, Some(room)) => DecisionSubject::Room(room),
            (None, None) => return self.decided_batch(decision, at),
        };
        if self.waiting.len() >= WAITING_MAX {
            return self.decide(&Context::new(), decision, at);
        }
        self.waiting.entry(subject).or_default().push(decision);
    }

    fn decided_batch(&mut self, decision: DecisionSpan, at: Moment) {
        match decision.outcome {
            DecisionOutcome::Kept | DecisionOutcome::Abstained => {}
            // The events of the changed sessions follow.
            DecisionOutcome::Applied { .. } if decision.policy.hook == Hook::Degradation => {
                let touched = TouchedSessions::default();
                self.batch = Some(DecisionBatch { decision, touched });
            }
            DecisionOutcome::Applied { .. } if decision.policy.hook == Hook::Routing => {
                if self.reroutes.len() >= REROUTES_MAX {
                    self.end_reroutes(at, |_| true);
                }
                let touched = TouchedSessions::default();
                self.reroutes.push(DecisionBatch { decision, touched });
            }
            _ => self.decide(&Context::new(), decision, at),
        }
    }

    /// A room moved. The decision about many rooms that began the move is linked to its sessions.
    fn note_reroute(&mut self, by: &Decider, started: Instant, sessions: &[SessionId]) {
        let Decider::Policy { policy, revision } = by else { return };
        let began = |batch: &DecisionBatch| {
            let decision = &batch.decision;
            decision.policy == *policy
                && decision.revision.as_ref() == Some(revision)
                && (decision.started..=decision.concluded).contains(&started)
        };
        let Some(at) = self.reroutes.iter().position(began) else { return };
        let links = self.links_to(sessions);
        self.reroutes[at].touched.add(sessions.len(), links);
    }

    fn end_reroutes(&mut self, at: Moment, over: impl Fn(&DecisionBatch) -> bool) {
        let ended: Vec<_> = self.reroutes.extract_if(.., |batch| over(batch)).collect();
        for DecisionBatch { decision, touched } in ended {
            self.decide_many(&Context::new(), decision, touched, at);
        }
    }

    /// The decision about many rows ends before this event, unless that is a change of one of them.
    pub(crate) fn end_batch(&mut self, before: Option<&CoreEvent>, at: Moment) {
        if let Some(CoreEvent::Degraded { session, by: Decider::Policy { policy, .. }, .. }) =
            before
            && self.batch.as_ref().is_some_and(|batch| batch.decision.policy == *policy)
        {
            self.affect(*session, at);
            let link = self.link_to(*session);
            if let Some(batch) = &mut self.batch {
                batch.touched.add(1, link);
            }
            return;
        }
        if let Some(DecisionBatch { decision, touched }) = self.batch.take() {
            self.decide_many(&Context::new(), decision, touched, at);
        }
    }

    /// Ends unclaimed decisions: no session opened for them.
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
        self.decide_many(parent, decision, TouchedSessions::default(), at);
    }

    /// `changed`: the sessions that the decision changed.
    fn decide_many(
        &self,
        parent: &Context,
        decision: DecisionSpan,
        changed: TouchedSessions,
        at: Moment,
    ) {
        let DecisionSpan {
            policy,
            arm,
            session,
            room,
            revision,
            outcome,
            reason,
            rows,
            started: asked,
            concluded,
            took,
            notes,
            native,
        } = decision;
        let mut attributes = vec![
            is(Attribute::Policy, policy.to_string()),
            is(Attribute::Hook, policy.hook.name()),
            is(Attribute::Arm, arm.name()),
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
                attributes.push(is(Attribute::ErrorType, fault.name()));
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
        if outcome != DecisionOutcome::Stale {
            let native = native_decision(policy.hook, room.is_some(), &native);
            attributes.push(is(Attribute::Native, native));
        }
        attributes.extend(session.map(|id| is(Attribute::Session, id.to_string())));
        attributes.extend(room.map(|id| is(Attribute::Room, id.to_string())));
        attributes.extend(revision.map(|revision| is(Attribute::Revision, revision)));
        attributes.extend(reason.map(|reason| is(Attribute::Reason, reason)));
        attributes.extend(note_attributes(notes));
        let TouchedSessions { sessions, links } = changed;
        if sessions > 0 {
            attributes.push(is(Attribute::DroppedLinks, (sessions - links.len()) as i64));
        }
        let start = at.wall_of(asked);
        let mut span = builder(Span::PolicyDecide, SpanKind::Internal, start, attributes)
            .with_links(links)
            .start_with_context(&self.tracer, parent);
        span.set_status(status);
        span.end_with_timestamp(at.wall_of(concluded));
    }

    // Nodes and reloads.

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

    fn finish_failovers(&mut self, at: Moment, over: impl Fn(&FailoverSpan) -> bool) {
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

    // Rollouts.

    /// Records a step of a rollout. The span is created when the rollout ends.
    pub(crate) fn rollout(&mut self, rollout: &RolloutReport, at: Moment) {
        let policy = &rollout.policy;
        let way = match rollout.outcome {
            // The rollout continues.
            RolloutOutcome::Revoked => return,
            RolloutOutcome::Started
            | RolloutOutcome::Advanced
            | RolloutOutcome::Paused
            | RolloutOutcome::Resumed => {
                let new = || RolloutTrack {
                    start: at.wall_of(rollout.arrived),
                    revision: rollout.revision.clone(),
                    steps: Vec::new(),
                    touched: TouchedSessions::default(),
                };
                let rollouts = &mut self.operations.rollouts;
                let steps = &mut rollouts.entry(policy.clone()).or_insert_with(new).steps;
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
            RolloutOutcome::Activated | RolloutOutcome::RolledBack => {
                self.operations.rollouts.remove(policy)
            }
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
        let (start, steps, touched) = match way {
            Some(RolloutTrack { start, steps, touched, .. }) => (start, steps, touched),
            None => (at.wall_of(rollout.arrived), Vec::new(), TouchedSessions::default()),
        };
        attributes.extend(counts_of(&touched));
        let mut span = builder(Span::PolicyRollout, SpanKind::Internal, start, attributes)
            .with_links(touched.links)
            .start_with_context(&self.tracer, &Context::new());
        for (when, step) in steps {
            span.add_event_with_timestamp(step, when, Vec::new());
        }
        // The reason of another step names the rollout that it ended.
        let is_failure = rollout.code.is_some()
            || matches!(rollout.outcome, RolloutOutcome::RolledBack | RolloutOutcome::Refused);
        if let Some(reason) = reason.filter(|_| is_failure) {
            let kind = rollout.code.unwrap_or(rollout.outcome.name());
            fail(&mut span, kind, reason.to_string());
        }
        span.end_with_timestamp(at.wall);
    }

    // Operations of operators, and breakers.

    fn node_attributes(&self, node: NodeId) -> Vec<KeyValue> {
        let NodeName { node, region, zone, .. } = self.names.of_node(node);
        vec![is(Attribute::Node, node), is(Attribute::Region, region), is(Attribute::Zone, zone)]
    }

    /// A room left this hop: its sessions are touched by what goes on at the node, and by the decider.
    fn note_leaving(&mut self, from: Hop, cause: MoveCause, by: &Decider, sessions: &[SessionId]) {
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
    fn note_in_region(&mut self, hop: Hop, sessions: &[SessionId]) {
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
    fn note_decider(&mut self, by: &Decider, sessions: &[SessionId]) {
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
        let DrillTrack { fault, start, touched, is_injected: _ } = drill;
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
    fn end_drills(&mut self, at: Moment) {
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
    fn note_refused(&mut self, reason: Option<&OfferRefusal>, offer: &SpanContext) {
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

fn context_of_caller(caller: &CallerSpan) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(caller.is_sampled);
    let (trace, span) = (TraceId::from_bytes(caller.trace_id), SpanId::from_bytes(caller.span_id));
    SpanContext::new(trace, span, flags, true, state_of(Some(caller)))
}

/// The caller's `tracestate`; empty if it is malformed.
fn state_of(caller: Option<&CallerSpan>) -> TraceState {
    let state = caller.and_then(|caller| caller.state.as_deref());
    state.and_then(|state| state.parse().ok()).unwrap_or_default()
}

/// Sessions with such a move are affected.
fn affects(cause: MoveCause) -> bool {
    cause.is_loss() || cause == MoveCause::Link
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

/// Divides decisions into those about the admission, and the others.
fn split_admissions(decisions: Vec<DecisionSpan>) -> (Vec<DecisionSpan>, Vec<DecisionSpan>) {
    decisions.into_iter().partition(|decision| decision.policy.hook == Hook::Admission)
}

/// The decision of the native default, which moves no placed room and changes no session's quality.
fn native_decision(hook: Hook, is_placement: bool, nodes: &[Arc<str>]) -> String {
    let word = match hook {
        Hook::Scenario => "configured",
        Hook::Admission => "accept",
        Hook::Routing if is_placement && nodes.is_empty() => "none",
        Hook::Routing if is_placement => return nodes.join(" "),
        Hook::Routing | Hook::Degradation => "keep",
    };
    word.to_owned()
}
