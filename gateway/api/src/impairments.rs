//! Impairments of sessions in events and lists.

use evenkeel_model::Impairment;
use serde::Serialize;

use super::object::object;

pub(super) fn impaired(impairment: &Impairment) -> impl Serialize + use<> {
    let evidence = impairment.evidence;
    let frames = evidence.frames;
    object! {
        // `device`, `uplink`, `leg`, `node`, `gateway`, `downlink` or `unknown`.
        segment: impairment.segment.name(),
        // `loss`, `jitter`, `delay`, `stall`, `few-frames`, `no-key-frame` or `silence`.
        sign: impairment.sign.name(),
        // The session of that device, uplink or downlink.
        impaired_by: impairment.at.to_string(),
        // Loss in the segment.
        loss_ppm: impairment.loss_ppm,
        confidence_percent: impairment.confidence,
        evidence: object! {
            uplink_ppm?: evidence.uplink_ppm,
            senders_ppm?: evidence.senders_ppm,
            to_node_ppm?: evidence.to_node_ppm,
            from_node_ppm?: evidence.from_node_ppm,
            probes_ppm?: evidence.probes_ppm,
            client_ppm?: evidence.client_ppm,
            uplink_jitter_us?: evidence.uplink_jitter_us,
            senders_jitter_us?: evidence.senders_jitter_us,
            from_node_jitter_us?: evidence.from_node_jitter_us,
            probes_jitter_us?: evidence.probes_jitter_us,
            client_jitter_us?: evidence.client_jitter_us,
            client_round_trip_us?: evidence.client_round_trip_us,
            node_round_trip_us?: evidence.node_round_trip_us,
            key_frame_missing_ms?: evidence.key_frame_missing_ms,
            silent_packets?: evidence.silent_packets,
            frames_per_second?: frames.map(|[now, _]| now),
            usual_frames_per_second?: frames.map(|[_, usual]| usual),
            gateway_late_ms: evidence.late.as_millis() as u64,
            gateway_dropped_ppm: evidence.dropped_ppm,
        },
    }
}
