//! The span from an offer to the open session or its refusal.

use std::time::Instant;

use evenkeel_model::{Decider, Hook, Hop, OfferRefusal, RoomId, SessionId};
use opentelemetry::Context;
use opentelemetry::trace::{Link, Span as _, SpanKind, Status, TraceContextExt};

use super::{DecisionSpan, DecisionSubject, Moment, SpanWriter, builder, is};
use crate::caller::CallerTrace;
use crate::registry::{Attribute, Span};
use crate::sampler::WELL;

/// Maximum sessions that spans can link to; about 1 MiB. Links to further ones are counted as dropped.
const LINKABLE_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenedSession<'a> {
    pub(crate) session: SessionId,
    pub(crate) room: RoomId,
    pub(crate) room_name: &'a str,
    pub(crate) scenario: &'a str,
    pub(crate) hop: Hop,
    pub(crate) offered: Instant,
    pub(crate) admitted_by: &'a Decider,
    pub(crate) routed_by: &'a Decider,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Turned<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) word: &'static str,
    /// The core's reason, if it refused the offer.
    pub(crate) reason: Option<&'a OfferRefusal>,
    /// Ids of the refused session and its room, if they got ids.
    pub(crate) session: Option<(SessionId, RoomId)>,
}

impl SpanWriter {
    pub(crate) fn opened(
        &mut self,
        opened: &OpenedSession<'_>,
        caller: Option<&CallerTrace>,
        at: Moment,
    ) {
        let OpenedSession { session, room, offered, .. } = *opened;
        let start = caller.map_or(offered, |caller| caller.arrived.min(offered));
        let mut attributes = vec![
            is(Attribute::Outcome, WELL),
            is(Attribute::Session, session.to_string()),
            is(Attribute::Room, room.to_string()),
            is(Attribute::RoomName, opened.room_name.to_owned()),
            is(Attribute::Scenario, opened.scenario.to_owned()),
            is(Attribute::AdmittedBy, opened.admitted_by.to_string()),
            is(Attribute::RoutedBy, opened.routed_by.to_string()),
        ];
        self.place(opened.hop, &mut attributes);
        let (parent, links) = trace_of(caller);
        let span = builder(Span::SessionOpen, SpanKind::Server, at.wall_of(start), attributes)
            .with_links(links)
            .start_with_context(&self.tracer, &parent);
        let context = parent.with_span(span);

        let about = [DecisionSubject::Session(session), DecisionSubject::Room(room)];
        let (admitting, others) = self.claim(about);
        self.admission(&context, offered, admitting, Some(opened.admitted_by), None, at);
        for decision in others {
            self.decide(&context, decision, at);
        }
        context.span().end_with_timestamp(at.wall);
        let span = context.span().span_context().clone();
        if span.is_sampled() && self.linkable.len() < LINKABLE_MAX {
            self.linkable.insert(session, span);
        }
    }

    pub(crate) fn refused(
        &mut self,
        turned: &Turned<'_>,
        caller: Option<&CallerTrace>,
        at: Moment,
    ) {
        let Turned { scenario, word, reason, session } = *turned;
        let start = caller.map_or(at.now, |caller| caller.arrived);
        let attributes = vec![
            is(Attribute::Outcome, "refused"),
            is(Attribute::Reason, word),
            is(Attribute::Scenario, scenario.to_owned()),
        ];
        let (parent, links) = trace_of(caller);
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

    pub(crate) fn closed(&mut self, session: SessionId) {
        self.linkable.remove(&session);
    }
}

fn trace_of(caller: Option<&CallerTrace>) -> (Context, Vec<Link>) {
    let Some(caller) = caller else { return (Context::new(), Vec::new()) };
    (caller.parent(), caller.link().into_iter().collect())
}

pub(crate) fn refusal(reason: &OfferRefusal) -> &'static str {
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
