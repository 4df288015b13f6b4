//! Random measures and labels.

use std::ops::RangeInclusive;
use std::sync::Arc;

use evenkeel_model::{Labels, Measures, Metric, UNMEASURED};
use fastrand::Rng;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Values {
    /// Realistic values; a few are missing.
    Usual,
    /// Any value that the contract allows.
    Odd,
}

/// Metrics that are enums or flags, with their highest valid number.
const NAMES: [(Metric, u32); 6] = [
    (Metric::Health, 3),
    (Metric::Breaker, 2),
    (Metric::Draining, 1),
    (Metric::Video, 1),
    (Metric::FewFrames, 1),
    (Metric::ImpairedSegment, 7),
];

/// Keys and values of labels; `region` is drawn from the existing ones.
const LABELS: &[(&str, &[&str])] = &[
    ("tenant", &["acme", "globex"]),
    ("zone", &["zone-1", "zone-2"]),
    ("device", &["phone", "tablet", "desktop", "browser"]),
    ("codec", &["vp8,h264", "av1"]),
    ("max-height", &["240", "360", "720", "1080"]),
    ("max-bitrate", &["500", "1500"]),
    ("battery", &["low"]),
    ("role", &["publisher", "viewer"]),
];

const ODD_TEXTS: &[&str] = &[
    "",
    " ",
    "-1",
    "0",
    "720p",
    "99999999999999999999",
    "NaN",
    "null",
    "\u{0}",
    "ä€🎧",
    "a,b,,",
    "east\nwest",
];

impl Values {
    /// The value of a metric; none if unmeasured.
    pub(super) fn measured(self, rng: &mut Rng, metric: Metric) -> Option<u32> {
        let usual = |rng: &mut Rng| rng.u32(usual(metric));
        match (self, rng.u8(0..20)) {
            (Values::Usual, 0) => None,
            (Values::Usual, _) => Some(usual(rng)),
            (Values::Odd, 0..=2) => None,
            (Values::Odd, 3 | 4) => Some(0),
            (Values::Odd, 5 | 6) => Some(UNMEASURED - 1),
            (Values::Odd, 7 | 8) => Some(rng.u32(..UNMEASURED)),
            (Values::Odd, _) => Some(usual(rng)),
        }
    }

    /// In usual worlds, puts the floor below the ceiling, and caps between both.
    pub(super) fn settle(self, measures: &mut Measures) {
        let both = measures.measured(Metric::Floor).zip(measures.measured(Metric::Ceiling));
        let (Values::Usual, Some((a, b))) = (self, both) else { return };
        let (floor, ceiling) = (a.min(b), a.max(b));
        measures.set(Metric::Floor, floor.into()).set(Metric::Ceiling, ceiling.into());
        for metric in [Metric::Cap, Metric::CapUp, Metric::CapDown] {
            if let Some(cap) = measures.measured(metric) {
                let cap = if cap < 1_000 { 0 } else { cap.clamp(floor, ceiling) };
                measures.set(metric, cap.into());
            }
        }
    }

    /// Time of the next questions.
    pub(super) fn later(self, rng: &mut Rng, now_us: u64) -> u64 {
        match (self, rng.u8(0..16)) {
            (Values::Odd, 0) => now_us.saturating_sub(rng.u64(0..20_000_000)),
            (Values::Odd, 1) => 0,
            (Values::Odd, 2) => now_us.saturating_add(rng.u64(0..1 << 45)).min(1 << 50),
            (Values::Usual | Values::Odd, _) => now_us + rng.u64(100_000..2_000_000),
        }
    }

    pub(super) fn scenario(self, rng: &mut Rng) -> Arc<str> {
        let names = ["call", "live", "conference"];
        match (self, rng.u8(0..8)) {
            (Values::Odd, 0) => ODD_TEXTS[rng.usize(0..ODD_TEXTS.len())].into(),
            (Values::Usual | Values::Odd, _) => names[rng.usize(0..names.len())].into(),
        }
    }

    pub(super) fn labels(self, rng: &mut Rng, regions: u64) -> Labels {
        let mut labels: Vec<(Box<str>, Box<str>)> = Vec::new();
        if rng.bool() {
            labels.push(("region".into(), region(rng.u64(1..=regions + 1)).into()));
        }
        for (key, values) in LABELS {
            match (self, rng.u8(0..6)) {
                (Values::Odd, 0) => {
                    labels.push(((*key).into(), ODD_TEXTS[rng.usize(0..ODD_TEXTS.len())].into()));
                }
                (_, 1 | 2) => {
                    labels.push(((*key).into(), values[rng.usize(0..values.len())].into()));
                }
                (Values::Usual | Values::Odd, _) => {}
            }
        }
        if self == Values::Odd && rng.u8(0..8) == 0 {
            // A repeated key, an unknown one, and a very long value.
            labels.extend(labels.first().cloned());
            labels.push(("x".into(), "page ".repeat(800).into()));
        }
        labels.into()
    }
}

pub(super) fn region(number: u64) -> String {
    let names = ["east", "west", "north", "south"];
    let at = number.saturating_sub(1) as usize;
    names.get(at).map_or_else(|| format!("region-{number}"), |name| (*name).to_owned())
}

pub(super) fn node_labels(rng: &mut Rng) -> Vec<(Box<str>, Box<str>)> {
    let rack = ("rack".into(), rng.u8(0..10).to_string().into());
    if rng.bool() { vec![rack] } else { Vec::new() }
}

/// Usual range of a metric, by its unit.
fn usual(metric: Metric) -> RangeInclusive<u32> {
    if let Some((_, most)) = NAMES.iter().find(|(name, _)| *name == metric) {
        return 0..=*most;
    }
    match metric.unit() {
        "ppm" => 0..=200_000,
        "us" => 0..=200_000,
        "kbps" => 0..=5_000,
        "permille" => 0..=1_200,
        "centi" => 0..=9_300,
        "ms" => 0..=3_600_000,
        _ => 0..=12,
    }
}
