//! A loss in each redundancy mode, if all rooms had it.

use std::time::Duration;

use evenkeel_control::LossFigures;
use evenkeel_core::ModePrediction;
use serde::Serialize;

use crate::object::object;

pub(super) fn view(predicted: &ModePrediction) -> impl Serialize + use<> {
    let ModePrediction { media_kbps, copied_kbps, .. } = *predicted;
    let LossFigures { unplaced_sessions, reduced_sessions, .. } =
        LossFigures::from(&predicted.loss);
    let ms = |time: Duration| time.as_micros() as f64 / 1_000.0;
    let outage_ms = predicted.outage.map(|outage| {
        object! { p50: ms(outage.median), max: ms(outage.longest) }
    });
    object! {
        mode: predicted.mode.name(),
        rooms: predicted.rooms,
        // Rooms for which no second node has capacity.
        rooms_without_spare: predicted.rooms_without_spare,
        needed_kbps: predicted.needed_kbps,
        free_kbps: predicted.free_kbps,
        // Copies of packets as a fraction of first-hop media, without signalling; null without media.
        bandwidth_cost: (media_kbps > 0).then(|| copied_kbps as f64 / media_kbps as f64),
        unplaced_sessions: unplaced_sessions,
        reduced_sessions: reduced_sessions,
        outage_ms: outage_ms,
    }
}
