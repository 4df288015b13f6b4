//! The takeover by an operator, who confirms that silent members are down.

use std::time::Instant;

use crate::cluster::{Cluster, GONE_AFTER, MemberRole};
use crate::messages::{BeatRole, ClusterEvent, PeerId, TakeoverCause, TakeoverRefusal};
use crate::ownership::Arming;

impl Cluster {
    /// An operator makes this member the owner that sends, and confirms that these others are down. This member cannot know it:
    /// it refuses if it hears one of them, if another one is silent too, or if agents hear the peer as the owner.
    pub fn handle_take_over(
        &mut self,
        down: &[PeerId],
        now: Instant,
    ) -> Result<(), TakeoverRefusal> {
        self.note_lateness(now);
        if let Some(refusal) = self.takeover_refusal(down, now) {
            return Err(refusal);
        }
        match &mut self.role {
            MemberRole::Standby(_) => self.take_over(TakeoverCause::Operator, now),
            MemberRole::Owner(own) => {
                // The peer may have been armed.
                own.arming = Arming::Off;
                self.event(ClusterEvent::Disarmed);
                self.raise();
                self.survey(now);
            }
        }
        self.weigh(now);
        Ok(())
    }

    /// The reason for which this member takes nothing over although these others are confirmed to be down.
    pub fn takeover_refusal(&self, down: &[PeerId], now: Instant) -> Option<TakeoverRefusal> {
        if matches!(&self.role, MemberRole::Owner(own) if own.lapsed.is_none()) {
            return Some(TakeoverRefusal::OwnerAlready);
        }
        for (id, state) in self.peers.iter() {
            let newest = state.newest().filter(|_| state.silence(now) < GONE_AFTER);
            let refusal = match newest {
                Some(beat) if down.contains(&id) => match beat.role {
                    BeatRole::Owner => TakeoverRefusal::PeerOwns(id),
                    BeatRole::Standby | BeatRole::Yielded => TakeoverRefusal::PeerHeard(id),
                },
                None if state.silence(now) < GONE_AFTER => TakeoverRefusal::Joining(id),
                // That one is asked; this one would lose the records.
                Some(beat) if beat.role == BeatRole::Owner || beat.whole => {
                    TakeoverRefusal::HeldElsewhere(id)
                }
                _ if down.contains(&id) || self.does_not_own(state, now) => continue,
                _ => TakeoverRefusal::AlsoSilent(id),
            };
            return Some(refusal);
        }
        self.agents.hear_peer(now).then_some(TakeoverRefusal::AgentsHearPeer)
    }
}
