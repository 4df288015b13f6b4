//! Spans of policies' decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    CoreEvent, Decider, DecisionNote, DecisionOutcome, Hook, OfferRefusal, SessionId,
};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt};
use opentelemetry::{Array, Context, KeyValue, Value};

use crate::registry::{Attribute, Span};
use crate::spans::sampling::WELL;
use crate::spans::tracks::{DecisionBatch, DecisionSpan, DecisionSubject, TouchedSessions};
use crate::spans::{Moment, SpanWriter, builder, is, refusal};

/// Maximum decisions that wait for their session to open.
const WAITING_MAX: usize = 4_096;

/// Maximum reroutes whose rooms may still move.
const REROUTES_MAX: usize = 64;

/// Maximum notes of one decision.
const NOTES_MAX: usize = 32;

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
pub(super) fn split_admissions(
    decisions: Vec<DecisionSpan>,
) -> (Vec<DecisionSpan>, Vec<DecisionSpan>) {
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

impl SpanWriter {
    /// Takes the decisions that this offer waited for.
    pub(super) fn claim(
        &mut self,
        about: impl IntoIterator<Item = DecisionSubject>,
    ) -> Vec<DecisionSpan> {
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
    pub(super) fn note_reroute(&mut self, by: &Decider, started: Instant, sessions: &[SessionId]) {
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

    pub(super) fn end_reroutes(&mut self, at: Moment, over: impl Fn(&DecisionBatch) -> bool) {
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
    pub(super) fn give_up_unclaimed(&mut self, due: impl Fn(Instant) -> bool, at: Moment) {
        let unclaimed = self
            .waiting
            .extract_if(.., |_, all| all.iter().all(|decision| due(decision.concluded)));
        let unclaimed: Vec<DecisionSpan> = unclaimed.flat_map(|(_, all)| all).collect();
        for decision in unclaimed {
            self.decide(&Context::new(), decision, at);
        }
    }

    pub(super) fn admission(
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

    pub(super) fn decide(&self, parent: &Context, decision: DecisionSpan, at: Moment) {
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
}
