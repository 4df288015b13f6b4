//! What happens and what workers count, told by telemetry.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;

use crate::control::{Handle, Happened, Rollout, RolloutOutcome, Told};
use crate::settings::Traceparent;
use crate::telemetry::registry::{Attribute, Count};
use crate::telemetry::{self, Caller, Moment, Recorder, Telemetry};

/// How often what workers count is read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// Every event becomes metrics, spans and log lines.
pub(super) async fn follow(handle: Handle, mut recorder: Recorder, trust: Traceparent) {
    let mut events = handle.events();
    loop {
        match events.recv().await {
            Ok(told) => record(&mut recorder, &told, trust),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "telemetry fell behind and missed events");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn record(recorder: &mut Recorder, told: &Told, trust: Traceparent) {
    let at = Moment::now();
    match &told.event {
        Happened::Core(event) => {
            let caller = told.caller.as_ref().map(|caller| {
                Caller::new(caller.arrived, caller.traceparent.as_deref(), None, trust)
            });
            recorder.handle_event(event, caller.as_ref(), at);
        }
        Happened::Rollout(rollout) => recorder.handle_rollout(&rolled(rollout, at.now), at),
        // Counted by workers; by number it is for those who keep books of single packets.
        Happened::Shed { .. } => {}
    }
}

/// As telemetry tells it.
fn rolled(rollout: &Rollout, now: Instant) -> telemetry::Rollout {
    telemetry::Rollout {
        policy: rollout.policy.clone(),
        revision: rollout.revision.clone(),
        previous: rollout.previous.clone(),
        outcome: match rollout.outcome {
            RolloutOutcome::Activated => telemetry::RolledOut::Activated,
            RolloutOutcome::Refused => telemetry::RolledOut::Refused,
            RolloutOutcome::RolledBack => telemetry::RolledOut::RolledBack,
        },
        reason: rollout.reason.as_deref().map(str::to_owned),
        started: now.checked_sub(rollout.activate).unwrap_or(now),
        activate: (rollout.outcome != RolloutOutcome::Refused).then_some(rollout.activate),
    }
}

/// What workers count becomes metrics: what came since the last look.
pub(super) async fn read_counters(handle: Handle, telemetry: &Telemetry) {
    let instruments = telemetry.instruments();
    let mut every = tokio::time::interval(COUNTERS_EVERY);
    let mut before: BTreeMap<(Count, &'static str), u64> = BTreeMap::new();
    loop {
        every.tick().await;
        let Ok(status) = handle.status().await else {
            return;
        };
        let mut add = |count, attribute, value: &'static str, total: u64| {
            let last = before.insert((count, value), total).unwrap_or(0);
            instruments.count(count, total.saturating_sub(last), &[(attribute, value)]);
        };
        add(Count::Packets, Attribute::Direction, "up", status.packets_to_node);
        add(Count::Packets, Attribute::Direction, "down", status.packets_to_client);
        add(Count::Bytes, Attribute::Direction, "up", status.bytes_to_node);
        add(Count::Bytes, Attribute::Direction, "down", status.bytes_to_client);
        add(Count::KeyFrameRequests, Attribute::Direction, "up", status.key_frames_to_node);
        add(Count::KeyFrameRequests, Attribute::Direction, "down", status.key_frames_to_client);
        for (reason, dropped) in status.drops {
            add(Count::PacketsDropped, Attribute::Reason, reason, dropped);
        }
    }
}
