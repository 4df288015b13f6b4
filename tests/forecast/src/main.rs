//! Measures forecasts on generated days: `make bench-forecast`.

mod link_days;
mod load_days;
mod node_days;
mod noise;
mod truth;

use link_days::LinkDays;
use load_days::LoadDays;
use node_days::NodeDays;

/// Seeds on which models are tuned.
const TRAINING: std::ops::Range<u64> = 0..100;

fn main() {
    let exhaustions: usize =
        TRAINING.map(|seed| LoadDays::generate(seed).exhaustions().len()).sum();
    let failures = TRAINING.filter(|seed| NodeDays::generate(*seed).failure.is_some()).count();
    let outages = TRAINING.filter(|seed| LinkDays::generate(*seed).outage.is_some()).count();
    println!("{exhaustions} exhaustions, {failures} failures, {outages} outages");
}
