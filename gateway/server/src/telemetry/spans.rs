//! Spans, made when what they cover is over: everything they need to know is known then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{
    Decider, Health, Hook, Hop, Note, Outcome, PolicyName, Refused, RoomId, SessionId, Witness,
};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt,
};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::caller::Caller;
use super::nodes::Nodes;
use super::registry::{Attribute, Span};
use super::sampler::WELL;
use crate::control::Rollout;

/// Sessions whose span can be linked to; about 1 MiB. Later ones are counted as left out.
const LINKABLE_MAX: usize = 10_000;

/// Links of one span: what receivers are known to take.
const LINKS_MAX: usize = 128;

/// Decisions that wait for the session they are about to open.
const WAITING_MAX: usize = 4_096;

/// After this nobody claims a decision any more: the session was refused.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

/// Notes of one decision.
const NOTES_MAX: usize = 32;

/// Notes as attributes: what was noted of several rows is a list, since a key stands once.
fn noted(notes: Vec<Note>) -> impl Iterator<Item = KeyValue> {
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

/// This moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What intervals are measured by.
    pub now: Instant,
    /// What people read.
    pub wall: SystemTime,
}

impl Moment {
    /// Reads both clocks.
    pub fn now() -> Moment {
        Moment { now: Instant::now(), wall: SystemTime::now() }
    }

    /// An instant of the past as people read it.
    fn wall_of(&self, instant: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(instant);
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

/// A question that was concluded.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) policy: PolicyName,
    pub(super) revision: Option<Arc<str>>,
    pub(super) outcome: Outcome,
    pub(super) rows: u32,
    pub(super) asked: Instant,
    pub(super) concluded: Instant,
    pub(super) took: Duration,
    pub(super) notes: Vec<Note>,
}

/// What a decision is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    Session(SessionId),
    Room(RoomId),
}

/// A session that may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened<'a> {
    pub(super) session: SessionId,
    pub(super) room: RoomId,
    pub(super) room_name: &'a str,
    pub(super) scenario: &'a str,
    pub(super) hop: Hop,
    pub(super) offered: Instant,
    pub(super) admitted_by: &'a Decider,
    pub(super) routed_by: &'a Decider,
}

/// A node's death, until all its rooms have moved.
#[derive(Debug)]
struct Failover {
    hop: Hop,
    started: Instant,
    condemned: Instant,
    witnesses: Vec<Witness>,
    rooms: u32,
    rooms_left: u32,
    sessions: usize,
    links: Vec<Link>,
}

/// Makes spans of what happened.
#[derive(Debug)]
pub(super) struct Spans {
    tracer: SdkTracer,
    nodes: Nodes,
    waiting: BTreeMap<Subject, Vec<Decision>>,
    linkable: BTreeMap<SessionId, SpanContext>,
    failovers: Vec<Failover>,
    swept: Option<Instant>,
}

pub(super) fn decider(by: &Decider) -> String {
    match by {
        Decider::Policy { policy, revision } => format!("{policy}@{revision}"),
        Decider::Native => "native".to_owned(),
        Decider::Operator => "operator".to_owned(),
    }
}

fn is(attribute: Attribute, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(attribute.key(), value)
}

/// Whether a span may carry an attribute.
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

impl Spans {
    pub(super) fn new(tracer: SdkTracer, nodes: Nodes) -> Spans {
        let (waiting, linkable) = (BTreeMap::new(), BTreeMap::new());
        Spans { tracer, nodes, waiting, linkable, failovers: Vec::new(), swept: None }
    }

    /// A decision about a session or room that is opening waits for it; one about many stands for itself.
    pub(super) fn decided(&mut self, about: Option<Subject>, decision: Decision, at: Moment) {
        self.sweep(at);
        let Some(subject) = about else {
            let worth_telling = !matches!(decision.outcome, Outcome::Kept | Outcome::Abstained);
            if worth_telling {
                self.decide(&Context::new(), decision, at);
            }
            return;
        };
        if let Subject::Session(session) = subject
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

    pub(super) fn opened(&mut self, opened: &Opened<'_>, caller: Option<&Caller>, at: Moment) {
        let Opened { session, room, offered, .. } = *opened;
        let start = caller.map_or(offered, |caller| caller.arrived.min(offered));
        let mut attributes = vec![
            is(Attribute::Outcome, WELL),
            is(Attribute::Session, session.to_string()),
            is(Attribute::Room, room.to_string()),
            is(Attribute::RoomName, opened.room_name.to_owned()),
            is(Attribute::Scenario, opened.scenario.to_owned()),
            is(Attribute::AdmittedBy, decider(opened.admitted_by)),
            is(Attribute::RoutedBy, decider(opened.routed_by)),
        ];
        self.place(opened.hop, &mut attributes);
        let (parent, links) = trace_of(caller);
        let span = builder(Span::SessionOpen, SpanKind::Server, at.wall_of(start), attributes)
            .with_links(links)
            .start_with_context(&self.tracer, &parent);
        let context = parent.with_span(span);

        let about = [Subject::Session(session), Subject::Room(room)];
        let decisions = about.into_iter().filter_map(|subject| self.waiting.remove(&subject));
        let (admitting, others): (Vec<_>, Vec<_>) =
            decisions.flatten().partition(|decision| decision.policy.hook == Hook::Admission);
        self.admission(&context, offered, admitting, decider(opened.admitted_by), None, at);
        for decision in others {
            self.decide(&context, decision, at);
        }
        context.span().end_with_timestamp(at.wall);
        let span = context.span().span_context().clone();
        if span.is_sampled() && self.linkable.len() < LINKABLE_MAX {
            self.linkable.insert(session, span);
        }
    }

    pub(super) fn refused(
        &mut self,
        scenario: &str,
        reason: &Refused,
        caller: Option<&Caller>,
        at: Moment,
    ) {
        let start = caller.map_or(at.now, |caller| caller.arrived);
        let attributes = vec![
            is(Attribute::Outcome, "refused"),
            is(Attribute::Reason, refusal(reason)),
            is(Attribute::Scenario, scenario.to_owned()),
        ];
        let (parent, links) = trace_of(caller);
        let mut span = builder(Span::SessionOpen, SpanKind::Server, at.wall_of(start), attributes)
            .with_links(links)
            .start_with_context(&self.tracer, &parent);
        span.set_status(Status::error(refusal(reason)));
        let context = parent.with_span(span);
        if matches!(reason, Refused::Rejected { .. } | Refused::Redirected(_)) {
            self.admission(&context, start, Vec::new(), String::new(), Some(reason), at);
        }
        context.span().end_with_timestamp(at.wall);
    }

    pub(super) fn closed(&mut self, session: SessionId) {
        self.linkable.remove(&session);
    }

    pub(super) fn node(
        &mut self,
        hop: Hop,
        to: Health,
        witnesses: &[(Witness, Instant)],
        started: Instant,
        rooms: u32,
        at: Moment,
    ) {
        self.sweep(at);
        if to != Health::Down {
            return;
        }
        self.failovers.push(Failover {
            hop,
            started,
            condemned: at.now,
            witnesses: witnesses.iter().map(|(witness, _)| *witness).collect(),
            rooms,
            rooms_left: rooms,
            sessions: 0,
            links: Vec::new(),
        });
        self.finish_failovers(at, |failover| failover.rooms_left == 0);
    }

    /// A room moved off a node that died.
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

    pub(super) fn rollout(&self, rollout: &Rollout, at: Moment) {
        let policy = &rollout.policy;
        let mut attributes = vec![
            is(Attribute::Policy, policy.to_string()),
            is(Attribute::Hook, policy.hook.name()),
            is(Attribute::Outcome, rollout.outcome.name()),
        ];
        let revisions =
            [(Attribute::Revision, &rollout.revision), (Attribute::Previous, &rollout.previous)];
        for (attribute, revision) in revisions {
            attributes.extend(revision.as_ref().map(|name| is(attribute, Arc::clone(name))));
        }
        let reason = rollout.reason.as_ref();
        attributes.extend(reason.map(|reason| is(Attribute::Reason, reason.to_string())));
        let start = at.wall_of(rollout.arrived);
        let mut span = builder(Span::PolicyRollout, SpanKind::Internal, start, attributes)
            .start_with_context(&self.tracer, &Context::new());
        if let Some(reason) = reason {
            span.set_status(Status::error(reason.to_string()));
        }
        span.end_with_timestamp(at.wall);
    }

    fn admission(
        &self,
        parent: &Context,
        offered: Instant,
        decisions: Vec<Decision>,
        by: String,
        refused: Option<&Refused>,
        at: Moment,
    ) {
        let start = decisions.first().map_or(offered, |first| first.asked);
        let end = decisions.last().map_or(offered, |last| last.concluded);
        let mut attributes = vec![match refused {
            None => is(Attribute::Outcome, WELL),
            Some(_) => is(Attribute::Outcome, "refused"),
        }];
        attributes.extend(refused.map(|reason| is(Attribute::Reason, refusal(reason))));
        if !by.is_empty() {
            attributes.push(is(Attribute::By, by));
        }
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

    fn decide(&self, parent: &Context, decision: Decision, at: Moment) {
        let Decision { policy, revision, outcome, rows, asked, concluded, took, notes } = decision;
        let mut attributes = vec![
            is(Attribute::Policy, policy.to_string()),
            is(Attribute::Hook, policy.hook.name()),
            is(Attribute::Rows, i64::from(rows)),
            is(Attribute::Took, took.as_secs_f64()),
        ];
        let mut status = Status::Unset;
        let word = match &outcome {
            Outcome::Applied { differs } => {
                attributes.push(is(Attribute::Differs, *differs));
                WELL
            }
            Outcome::Faulted(fault) => {
                attributes.push(is(Attribute::Fault, fault.name()));
                status = Status::error(fault.name());
                outcome.name()
            }
            Outcome::Guarded(guard) => {
                attributes.push(is(Attribute::Guard, guard.name()));
                outcome.name()
            }
            Outcome::Abstained | Outcome::Kept | Outcome::Stale => outcome.name(),
        };
        attributes.push(is(Attribute::Outcome, word));
        attributes.extend(revision.map(|revision| is(Attribute::Revision, revision)));
        attributes.extend(noted(notes));
        let start = at.wall_of(asked);
        let mut span = builder(Span::PolicyDecide, SpanKind::Internal, start, attributes)
            .start_with_context(&self.tracer, parent);
        span.set_status(status);
        span.end_with_timestamp(at.wall_of(concluded));
    }

    fn place(&self, hop: Hop, attributes: &mut Vec<KeyValue>) {
        let node = self.nodes.of(hop.node);
        attributes.push(is(Attribute::Node, node.name.clone()));
        attributes.push(is(Attribute::Region, node.region.clone()));
        attributes.push(is(Attribute::Zone, node.zone.clone()));
        attributes.push(is(Attribute::Incarnation, i64::from(hop.incarnation.0)));
    }

    fn finish_failovers(&mut self, at: Moment, over: impl Fn(&Failover) -> bool) {
        let finished: Vec<_> = self.failovers.extract_if(.., |failover| over(failover)).collect();
        for failover in finished {
            let names = failover.witnesses.iter().map(|w| StringValue::from(w.name()));
            let left_out = failover.sessions - failover.links.len();
            let mut attributes = vec![
                is(Attribute::Witness, Value::Array(Array::String(names.collect()))),
                is(Attribute::Rooms, i64::from(failover.rooms)),
                is(Attribute::Sessions, failover.sessions as i64),
                is(Attribute::LinksLeftOut, left_out as i64),
            ];
            self.place(failover.hop, &mut attributes);
            let start = at.wall_of(failover.started);
            builder(Span::NodeFailover, SpanKind::Internal, start, attributes)
                .with_links(failover.links)
                .start_with_context(&self.tracer, &Context::new())
                .end_with_timestamp(at.wall);
        }
    }

    /// Decisions that nobody claimed, and failovers whose rooms did not all come, stand for themselves.
    fn sweep(&mut self, at: Moment) {
        let due = |since: Instant| at.now.saturating_duration_since(since) >= CLAIMED_WITHIN;
        if self.swept.is_some_and(|swept| !due(swept)) {
            return;
        }
        self.swept = Some(at.now);
        let unclaimed = |decisions: &Vec<Decision>| decisions.iter().all(|d| due(d.concluded));
        let subjects: Vec<_> =
            self.waiting.iter().filter(|(_, all)| unclaimed(all)).map(|(key, _)| *key).collect();
        for subject in subjects {
            for decision in self.waiting.remove(&subject).into_iter().flatten() {
                self.decide(&Context::new(), decision, at);
            }
        }
        self.finish_failovers(at, |failover| due(failover.condemned));
    }
}

fn trace_of(caller: Option<&Caller>) -> (Context, Vec<Link>) {
    let Some(caller) = caller else { return (Context::new(), Vec::new()) };
    (caller.parent(), caller.link().into_iter().collect())
}

/// Why an offer was refused, as a word.
pub(super) fn refusal(reason: &Refused) -> &'static str {
    match reason {
        Refused::UnknownScenario(_) => "unknown-scenario",
        Refused::ScenarioOfRoom(_) => "scenario-of-room",
        Refused::Full => "full",
        Refused::Draining => "draining",
        Refused::Rejected { .. } => "rejected",
        Refused::Redirected(_) => "redirected",
        Refused::NoNode => "no-node",
        Refused::Closed => "closed",
        Refused::NotOpened(_) => "not-opened",
    }
}
