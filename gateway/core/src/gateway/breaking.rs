//! Regions' breakers: what is heard of each, and which of them new rooms keep away from.

use std::time::{Duration, Instant};

use super::Gateway;
use crate::breaker::{Evidence, Verdict, is_bad};
use crate::node::Node;
use crate::timer::Timer;
use crate::{BreakerState, Event, Measures, NodeId, RegionId, RoomId, SessionId};

/// What is heard within this is weighed together.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

impl Gateway {
    /// What was measured of a session speaks of the region where its room stands.
    pub(super) fn judge(&mut self, id: SessionId, room: RoomId, measures: &Measures) {
        let Some(on) = self.rooms.get(&room).and_then(|room| room.holding.on) else {
            return;
        };
        let region = self.region_of(on).0 as usize;
        let bad = is_bad(measures, &self.settings.limits.breakers);
        if let Some(session) = self.sessions.get_mut(&id) {
            self.capacity.breakers[region].evidence.hear(
                &mut session.judged,
                self.capacity.window,
                bad,
            );
        }
    }

    /// A window ended.
    pub(super) fn weigh_breakers(&mut self, now: Instant) {
        self.effects.set(Timer::Breakers, now + WINDOW);
        self.capacity.window = self.capacity.window.wrapping_add(1).max(1);
        let settings = self.settings.limits.breakers;
        let alone = !self.has_regions_to_choose();
        let heard: Vec<(Evidence, Verdict)> = self
            .capacity
            .breakers
            .iter_mut()
            .map(|breaker| std::mem::take(&mut breaker.evidence))
            .map(|evidence| match alone {
                true => (evidence, evidence.of_openings().verdict(&settings)),
                false => (evidence, evidence.verdict(&settings)),
            })
            .collect();
        let known = heard.iter().filter(|(_, verdict)| *verdict != Verdict::Unknown).count();
        let bad = heard.iter().filter(|(_, verdict)| *verdict == Verdict::Bad).count();
        // Where all is as bad as everywhere else, it is our own uplink, and no other region is any better.
        let ours = known > 1 && bad == known;
        for (place, (evidence, verdict)) in heard.into_iter().enumerate() {
            let verdict = if ours { Verdict::Unknown } else { verdict };
            let region = RegionId(place as u32);
            if verdict == Verdict::Unknown && self.waits_for_probes(region, evidence) {
                continue;
            }
            if let Some((from, to)) = self.capacity.breakers[place].weigh(verdict, &settings, now) {
                let Evidence { sessions, bad, opened, failed } = evidence;
                self.effects.event(Event::Breaker {
                    region,
                    from,
                    to,
                    sessions,
                    bad,
                    opened,
                    failed,
                });
                if to == BreakerState::Closed {
                    self.want_reroute_of_short_rooms(now);
                }
            }
        }
    }

    /// Whether nodes of more than one region are listed: bad media is no reason to refuse rooms that have nowhere else to
    /// go, and may as well be that of our own uplink.
    fn has_regions_to_choose(&self) -> bool {
        let mut listed = self.nodes.iter().filter(|node| !node.removed);
        let first = listed.next().map(|node| self.region_of(node.id));
        listed.any(|node| Some(self.region_of(node.id)) != first)
    }

    /// Where nobody is who could tell, or most of the few who are fare badly, a half-open breaker does not close while all
    /// nodes of the region that run lose much.
    fn waits_for_probes(&self, region: RegionId, evidence: Evidence) -> bool {
        let runs = |node: &&Node| self.region_of(node.id) == region && node.runs();
        let mut nodes = self.nodes.iter().filter(runs).peekable();
        self.capacity.breakers[region.0 as usize].state() == BreakerState::HalfOpen
            && evidence.bad * 2 >= evidence.sessions
            && nodes.peek().is_some()
            && nodes.all(Node::loses)
    }

    /// Whether the room may go to a region that it is not in.
    pub(super) fn may_enter(&self, id: RoomId, region: RegionId) -> bool {
        self.capacity.breakers[region.0 as usize].admits(id, &self.settings.limits.breakers)
    }

    /// Nodes of regions that take no new rooms, but for those where the room's sessions are open, or are to be.
    pub(super) fn behind_breakers(&self, id: RoomId) -> Vec<NodeId> {
        if self.capacity.breakers.iter().all(|breaker| breaker.state() == BreakerState::Closed) {
            return Vec::new();
        }
        let kept = self.rooms.get(&id).map(|room| room.hops_to_open()).unwrap_or_default();
        let kept: Vec<NodeId> = kept.into_iter().map(|hop| hop.node).collect();
        let shut =
            |node: &NodeId| !kept.contains(node) && !self.may_enter(id, self.region_of(*node));
        self.nodes.iter().map(|node| node.id).filter(shut).collect()
    }
}
