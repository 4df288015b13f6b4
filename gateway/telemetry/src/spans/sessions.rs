//! The trace of each session: its life, and in it the opening, moves and degradations.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::{CallerSpan, Continuation, TraceCaller, TraceIds};
use evenkeel_model::{CloseReason, CoreEvent, MoveCause, OfferRefusal, SessionId};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId,
    TraceState,
};
use opentelemetry::{Context, KeyValue};

use crate::exemplars::SampledSpan;
use crate::registry::{Attribute, Span};
use crate::spans::decisions::split_admissions;
use crate::spans::sampling::{SpanIds, WELL};
use crate::spans::tracks::{
    DecisionSpan, DecisionSubject, Degradation, LINKS_MAX, RefusedOffer, SESSIONS_MAX,
};
use crate::spans::{Moment, STEPS_MAX, SpanWriter, builder, fail, is};

/// Maximum spans of one takeover or move.
const SPANS_AT_ONCE: usize = 1_000;

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

impl SpanWriter {
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

    /// Writes this many spans of the session now if it is sampled. Those of a session outside of the share are held; with a trusted
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
    pub(super) fn affect(&mut self, session: SessionId, at: Moment) {
        if self.sessions.affect(session, at.now) {
            let context = Context::new().with_remote_span_context(self.span_of(session));
            for write in self.held.take(session) {
                write(self, &context);
            }
        }
    }

    /// A link to the session, if it is sampled.
    pub(super) fn link_to(&self, session: SessionId) -> Option<Link> {
        Some(self.span_of(session)).filter(SpanContext::is_sampled).map(Link::with_context)
    }

    /// Links to the first of the sessions that are sampled, as many as a span has.
    pub(super) fn links_to(&self, sessions: &[SessionId]) -> Vec<Link> {
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
            | CloseReason::ClientClosed => false,
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
    pub(super) fn end_degradations(&mut self, at: Moment) {
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
}
