//! Figures that are no rows: memory, set-up, start, flip, growth, telemetry.

mod agents;
mod crowd;
mod flip;
mod growth;
mod memory;
mod setup;
mod start;
mod telemetry;
pub(crate) mod webrtc;
mod world;

use evenkeel_media::rtp;

use crate::namespace::First;
use crate::relay::Places;
use crate::report::Report;

/// Names of the figures on the command line.
pub(crate) const NAMES: [&str; 6] = ["memory", "setup", "start", "flip", "growth", "telemetry"];

/// Measures the requested figures.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    report: &mut Report,
    wants: impl Fn(&str) -> bool,
    places: &Places,
) -> Result<(), String> {
    let _first = First::come();
    for name in NAMES.into_iter().filter(|name| wants(name)) {
        match name {
            "memory" => report.memory = Some(memory::measure(places)?),
            "setup" => report.setup_per_s = setup::measure(places)?,
            "start" => report.start_ms = Some(start::measure(places)?),
            "flip" => report.flip_us = Some(flip::measure()?),
            "telemetry" => report.telemetry = Some(telemetry::measure(places)?),
            _ => report.growth = Some(growth::measure(places)?),
        }
    }
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A voice packet of a session.
fn packet(session: u32, sequence: u16) -> Vec<u8> {
    let fields = rtp::Fields {
        payload_type: 111,
        marker: false,
        sequence,
        timestamp: u32::from(sequence) * 960,
        ssrc: session,
    };
    let mut packet = Vec::new();
    rtp::write(&fields, &[0; 100], &mut packet);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert!(median(Vec::new()).is_nan());
    }
}
