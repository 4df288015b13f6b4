//! What the ways to nodes do while something is wrong.

use std::time::Duration;

use evenkeel_links::{Bursts, Conditions};

use super::World;
use super::breaking::TROUBLED_FOR;
use crate::fault::Fault;

impl World<'_> {
    /// What every link does now, and since when each node cannot answer.
    pub(super) fn refresh(&mut self) {
        for node in 0..self.nodes.len() {
            let (mut up, mut down) = (self.nodes[node].script.link, self.nodes[node].script.link);
            let mut troubled = false;
            for number in 0..self.script.faults.len() {
                let episode = &self.script.faults[number];
                if self.is_at(number, node) {
                    troubled |= !matches!(
                        episode.fault,
                        Fault::Drain(_)
                            | Fault::DrainWithin(..)
                            | Fault::RegionDrained(..)
                            | Fault::Leaves(_)
                            | Fault::Liar(_)
                            | Fault::Boasts(..)
                    );
                    let since = self.now - (self.began + episode.at);
                    bend(&episode.fault, (&mut up, &mut down), since, self.turns[number]);
                }
            }
            let now = self.now;
            let here = &mut self.nodes[node];
            here.set_link(up, down);
            let dead = !here.runs() || up.blackout || down.blackout;
            here.dead_since = if dead { here.dead_since.or(Some(now)) } else { None };
            if troubled {
                here.troubled = Some(now + Duration::from_secs(3_600));
            } else if here.troubled.is_some_and(|until| until > now + TROUBLED_FOR) {
                here.troubled = Some(now + TROUBLED_FOR);
            }
        }
    }
}

/// What the fault does to a link, both ways.
fn bend(fault: &Fault, (up, down): (&mut Conditions, &mut Conditions), since: Duration, turn: u32) {
    let both = |up: &mut Conditions, down: &mut Conditions, change: &dyn Fn(&mut Conditions)| {
        change(up);
        change(down);
    };
    match fault {
        Fault::Cut(_) | Fault::RegionCut(_) => both(up, down, &|link| link.blackout = true),
        Fault::CutUp(_) => up.blackout = true,
        Fault::CutDown(_) => down.blackout = true,
        Fault::Blackouts(..) if !turn.is_multiple_of(2) => {
            both(up, down, &|link| link.blackout = true);
        }
        Fault::LossRamp(_) => {
            let ppm = (since.as_millis() as u32).saturating_mul(75).min(300_000);
            both(up, down, &|link| link.loss_ppm = ppm);
        }
        Fault::RegionBrownOut(_) => both(up, down, &|link| link.loss_ppm = 150_000),
        Fault::Bursts(_) => {
            let bursts = Bursts {
                enter_ppm: 10_000,
                leave_ppm: 100_000,
                good_loss_ppm: 0,
                bad_loss_ppm: 1_000_000,
            };
            both(up, down, &|link| link.bursts = Some(bursts));
        }
        Fault::Slow(_, by) => both(up, down, &|link| link.delay += *by),
        Fault::Jitter(_, by, over) => {
            let grown = (since.as_secs_f64() / over.as_secs_f64().max(f64::EPSILON)).min(1.0);
            both(up, down, &|link| link.jitter = by.mul_f64(grown));
        }
        Fault::Unruly(_) => {
            both(up, down, &|link| (link.reorder_ppm, link.duplicate_ppm) = (100_000, 50_000));
        }
        _ => {}
    }
}
