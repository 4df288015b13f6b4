//! A typical degradation policy, to measure the cost of a tick: it reads 8 metrics, smooths each into 64 bytes of
//! state, and caps sessions with bad quality.

use evenkeel_plugin_sdk::prelude::*;

#[derive(Settings, Debug)]
pub struct Smooth {
    /// From this smoothed loss on a session is capped.
    #[setting(default = 100_000, unit = "ppm", min = 0, max = 1_000_000)]
    loss: u32,
}

/// 64 bytes: a number of eight bytes for each metric.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 1)]
pub struct Memory {
    loss_up: f64,
    loss_down: f64,
    jitter_up: f64,
    jitter_down: f64,
    rtt: f64,
    bitrate_up: f64,
    bitrate_down: f64,
    age: f64,
}

#[degradation]
impl Degradation for Smooth {
    type State = Memory;

    const READS: &'static [Metric] = &[
        Metric::LossUp,
        Metric::LossDown,
        Metric::JitterUp,
        Metric::JitterDown,
        Metric::RttClient,
        Metric::BitrateUp,
        Metric::BitrateDown,
        Metric::Age,
    ];

    fn tick(&self, session: &Session<'_, Memory>, out: &mut Actions<Memory>) {
        let before = session.state();
        let next = |before: f64, metric: Option<u32>| {
            metric.map_or(before, |value| before + (f64::from(value) - before) * 0.125)
        };
        let memory = Memory {
            loss_up: next(before.loss_up, session.loss_up_ppm()),
            loss_down: next(before.loss_down, session.loss_down_ppm()),
            jitter_up: next(before.jitter_up, session.jitter_up_us()),
            jitter_down: next(before.jitter_down, session.jitter_down_us()),
            rtt: next(before.rtt, session.rtt_client_us()),
            bitrate_up: next(before.bitrate_up, session.bitrate_up_kbps()),
            bitrate_down: next(before.bitrate_down, session.bitrate_down_kbps()),
            age: next(before.age, session.age_ms()),
        };
        if memory.loss_up >= f64::from(self.loss) {
            out.cap((memory.bitrate_up / 2.0) as u32);
        }
        out.keep(&memory);
    }
}
