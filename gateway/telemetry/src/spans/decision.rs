//! Policy decisions, as children of the span that waited for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Decider, DecisionNote, DecisionOutcome, OfferRefusal, PolicyName, RoomId, SessionId,
};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt};
use opentelemetry::{Array, Context, KeyValue, Value};

use super::session::refusal;
use super::{Moment, SpanWriter, builder, is};
use crate::registry::{Attribute, Span};
use crate::sampler::WELL;

/// Maximum decisions that wait for their session to open.
const WAITING_MAX: usize = 4_096;

/// Maximum notes of one decision.
const NOTES_MAX: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct DecisionSpan {
    pub(crate) policy: PolicyName,
    pub(crate) revision: Option<Arc<str>>,
    pub(crate) outcome: DecisionOutcome,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) rows: u32,
    pub(crate) asked: Instant,
    pub(crate) concluded: Instant,
    pub(crate) took: Duration,
    pub(crate) notes: Vec<DecisionNote>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum DecisionSubject {
    Session(SessionId),
    Room(RoomId),
}

/// Notes as attributes: notes with the same key become a list.
fn noted(notes: Vec<DecisionNote>) -> impl Iterator<Item = KeyValue> {
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

impl SpanWriter {
    /// Records a decision. A decision about an opening session or room waits for its span; one about many rows is a
    /// root span.
    pub(crate) fn decided(
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
        let start = decisions.first().map_or(offered, |first| first.asked);
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
        let DecisionSpan { policy, revision, outcome, reason, rows, asked, concluded, took, notes } =
            decision;
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
        attributes.extend(noted(notes));
        let start = at.wall_of(asked);
        let mut span = builder(Span::PolicyDecide, SpanKind::Internal, start, attributes)
            .start_with_context(&self.tracer, parent);
        span.set_status(status);
        span.end_with_timestamp(at.wall_of(concluded));
    }
}
