//! Objects that several answers, and events, share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_contract::Word;
use evenkeel_contract::events::LossFigures;
use evenkeel_contract::gateway::{
    Forecast, ForecastEvidence, PolicyRefused, ReloadReport, Reloaded,
};
use evenkeel_contract::nodes::{Hop, NodePlace};
use evenkeel_contract::policies::{Rollout, RolloutStage};
use evenkeel_contract::sessions::{Advice, ClientGroup, Impairment, ImpairmentEvidence, Policing};
use evenkeel_control::{ListChange, NodeName, NodeNames};
use evenkeel_forecast::DecaySign;
use evenkeel_model::Decider;
use evenkeel_process::unix_us;
use evenkeel_revisions::RolloutReport;

pub(super) fn milliseconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_millis() as u64)
}

pub(super) fn place(name: NodeName) -> NodePlace {
    let NodeName { node, region, zone, carrier } = name;
    NodePlace { node, region, zone, carrier }
}

pub(super) fn hop(hop: evenkeel_model::Hop, names: &NodeNames) -> Hop {
    Hop { place: place(names.of_hop(hop)), incarnation: hop.incarnation.0 }
}

pub(super) fn route(hops: &[evenkeel_model::Hop], names: &NodeNames) -> Vec<Hop> {
    hops.iter().map(|&it| hop(it, names)).collect()
}

/// The decider by hook, for a policy with its revision: `call/routing@5f0c5f0c5f0c`.
pub(super) fn decided_by(admitted_by: &Decider, routed_by: &Decider) -> BTreeMap<Word, String> {
    let by = [("admission", admitted_by), ("routing", routed_by)];
    by.into_iter().map(|(hook, by)| (hook.into(), by.to_string())).collect()
}

pub(super) fn client_group(group: &evenkeel_model::ClientGroup) -> ClientGroup {
    ClientGroup { label: group.label.name().into(), value: Arc::clone(&group.value) }
}

pub(super) fn impairment(impairment: &evenkeel_model::Impairment) -> Impairment {
    let evidence = impairment.evidence;
    let frames = evidence.frames;
    Impairment {
        segment: impairment.segment.name().into(),
        sign: impairment.sign.name().into(),
        impaired_by: impairment.at.to_string(),
        loss_ppm: impairment.loss_ppm,
        confidence_percent: impairment.confidence,
        evidence: ImpairmentEvidence {
            uplink_ppm: evidence.uplink_ppm,
            senders_ppm: evidence.senders_ppm,
            to_node_ppm: evidence.to_node_ppm,
            from_node_ppm: evidence.from_node_ppm,
            probes_ppm: evidence.probes_ppm,
            client_ppm: evidence.client_ppm,
            uplink_jitter_us: evidence.uplink_jitter_us,
            senders_jitter_us: evidence.senders_jitter_us,
            from_node_jitter_us: evidence.from_node_jitter_us,
            probes_jitter_us: evidence.probes_jitter_us,
            client_jitter_us: evidence.client_jitter_us,
            client_round_trip_us: evidence.client_round_trip_us,
            node_round_trip_us: evidence.node_round_trip_us,
            key_frame_missing_ms: evidence.key_frame_missing_ms,
            silent_packets: evidence.silent_packets,
            frames_per_second: frames.map(|[now, _]| now),
            usual_frames_per_second: frames.map(|[_, usual]| usual),
            gateway_late_ms: evidence.late.as_millis() as u64,
            gateway_dropped_ppm: evidence.dropped_ppm,
        },
    }
}

pub(super) fn advice(advice: evenkeel_model::Advice) -> Advice {
    Advice { advice: advice.kind.name().into(), cause: Some(advice.cause.name().into()) }
}

pub(super) fn policing(policing: evenkeel_model::Policing) -> Policing {
    let evenkeel_model::Policing { step, limit_kbps, sent_kbps } = policing;
    Policing { step: step.name().into(), limit_kbps, sent_kbps }
}

pub(super) fn forecast_evidence(
    evidence: &evenkeel_forecast::ForecastEvidence,
) -> ForecastEvidence {
    use evenkeel_forecast::ForecastEvidence as Evidence;
    match *evidence {
        Evidence::Load { load_kbps, capacity_kbps, confidence_percent } => {
            ForecastEvidence::Load { load_kbps, capacity_kbps, confidence_percent }
        }
        Evidence::Decay { sign, value, limit } => {
            let sign = match sign {
                DecaySign::Delay => "delay",
                DecaySign::Loss => "loss",
                DecaySign::Memory => "memory",
                DecaySign::Restarts => "restarts",
            };
            ForecastEvidence::Decay { sign: sign.into(), value, limit }
        }
        Evidence::Flap { changes } => ForecastEvidence::Flap { changes },
        Evidence::Delay { round_trip_ms, usual_ms } => {
            ForecastEvidence::Delay { round_trip_ms, usual_ms }
        }
    }
}

/// A warning of what is expected.
pub(super) fn forecast(forecast: &evenkeel_forecast::Forecast) -> Forecast {
    Forecast {
        kind: forecast.evidence.kind().into(),
        subject: Arc::clone(&forecast.subject),
        since_us: forecast.since_us,
        expected_us: forecast.expected_us,
        evidence: forecast_evidence(&forecast.evidence),
    }
}

pub(super) fn reloaded(reloaded: &evenkeel_control::Reloaded) -> Reloaded {
    let ListChange { added, removed, changed } = reloaded.nodes.clone();
    let refused = reloaded
        .refused
        .iter()
        .map(|it| PolicyRefused { policy: it.policy.to_string(), reason: it.reason.clone() });
    Reloaded {
        added,
        removed,
        changed,
        requires_restart: reloaded.waiting.clone(),
        refused: refused.collect(),
        warnings: reloaded.warnings.clone(),
    }
}

/// A reload: its cause, its changes or, if it was refused, the reason.
pub(super) fn reload(report: &evenkeel_control::ReloadReport, at: SystemTime) -> ReloadReport {
    ReloadReport {
        at_us: unix_us(at),
        by: report.by.name().into(),
        took_us: report.took.as_micros() as u64,
        changes: report.outcome.as_ref().ok().map(reloaded),
        reason: report.outcome.as_ref().err().cloned(),
    }
}

pub(super) fn loss_figures(figures: &evenkeel_control::LossFigures) -> LossFigures {
    LossFigures {
        rooms: figures.rooms,
        sessions: figures.sessions,
        unplaced_sessions: figures.unplaced_sessions,
        reduced_sessions: figures.reduced_sessions,
    }
}

/// The outcome of a push, a step or a rollback.
pub(super) fn rollout(rollout: RolloutReport) -> Rollout {
    let stage = rollout.stage.map(|staged| RolloutStage {
        stage: staged.stage.name().into(),
        percent: staged.stage.percent(),
        paused: staged.paused,
        next_percent: staged.next,
        next_in_ms: milliseconds(staged.next_in),
    });
    Rollout {
        outcome: rollout.outcome.name().into(),
        policy: rollout.policy.to_string(),
        revision: rollout.revision,
        previous: rollout.previous,
        code: rollout.code.map(Into::into),
        reason: rollout.reason,
        activate_us: rollout.activate.as_micros() as u64,
        by: rollout.by.name().into(),
        stage,
    }
}
