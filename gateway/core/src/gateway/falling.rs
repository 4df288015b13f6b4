//! A place that goes down as a whole.
//!
//! A node to which nobody sends media, such as one that stands by, is accused by its probes alone when it dies without a
//! word, and one witness takes its time. Meanwhile the rooms of its neighbour, which died with it, would go there. That
//! another node of the region fell silent at that moment is the second witness.

use std::time::{Duration, Instant};

use super::Gateway;
use crate::RegionId;
use crate::detector::Finding;

/// Who misses its probes so soon after another node of its region died silently fell with it.
const FALLS_WITHIN: Duration = Duration::from_millis(50);

/// If nothing was heard of it for so long, two probes: who still sends media did not fall.
const UNHEARD_FOR: Duration = Duration::from_millis(20);

impl Gateway {
    /// Near nodes that are only accused are dead where they fell with one that is. Deaths that somebody tells of are told of
    /// each by itself; one lost probe of a far node is too little; and while our own uplink is doubted nobody falls.
    pub(super) fn fall_together(&mut self, found: &mut [Finding], now: Instant) {
        let fell: Vec<RegionId> = (self.nodes.iter().zip(&*found))
            .filter(|(node, found)| **found == Finding::Dead && !node.detector.is_told_of())
            .map(|(node, _)| self.region_of(node.id))
            .collect();
        self.nodes.fell.extend(fell.into_iter().map(|region| (region, now)));
        self.nodes.fell.retain(|_, at| now.saturating_duration_since(*at) < FALLS_WITHIN);
        if self.nodes.fell.is_empty() || self.nodes.uplink_doubted {
            return;
        }
        for (node, found) in self.nodes.iter().zip(found) {
            let falls = || self.nodes.fell.contains_key(&self.region_of(node.id));
            let unheard = || {
                let heard = node.detector.last_heard();
                heard.is_none_or(|at| now.saturating_duration_since(at) >= UNHEARD_FOR)
            };
            if *found == Finding::Accused && node.detector.misses_two() && unheard() && falls() {
                *found = Finding::Dead;
            }
        }
    }
}
