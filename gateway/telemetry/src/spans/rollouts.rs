//! Spans of rollouts.

use std::sync::Arc;

use evenkeel_revisions::{RolloutOutcome, RolloutReport};
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, SpanKind};

use crate::registry::{Attribute, Span};
use crate::spans::tracks::{RolloutTrack, TouchedSessions};
use crate::spans::{Moment, STEPS_MAX, SpanWriter, builder, counts_of, fail, is};

impl SpanWriter {
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
}
