//! The hand-over: an owner stops, sends its last records, and its standby owns.

use std::time::Instant;

use crate::cluster::{Cluster, MemberRole};
use crate::messages::{BeatRole, ClusterEvent, ClusterOutput, HandOverRefusal};
use crate::ownership::Following;

impl Cluster {
    /// Hands the ownership to the peer. [`ClusterOutput::Yield`] follows.
    pub fn handle_hand_over(&mut self, now: Instant) -> Result<(), HandOverRefusal> {
        self.note_lateness(now);
        let ready = self.is_followed(now);
        let MemberRole::Owner(own) = &mut self.role else { return Err(HandOverRefusal::NotOwner) };
        match self.peers.current().newest() {
            _ if !self.peers.current().is(BeatRole::Standby, now) => {
                return Err(HandOverRefusal::PeerSilent);
            }
            _ if !ready => return Err(HandOverRefusal::RecordsIncomplete),
            _ => {}
        }
        if own.yielding.is_none() {
            own.yielding = Some(now);
            self.permit(now);
            self.outputs.push_back(ClusterOutput::Yield);
        }
        Ok(())
    }

    /// The last records of a hand-over were sent, and the last of them is in this batch. From now on the peer owns, if it
    /// still is the process that holds the records; otherwise this member remains the owner.
    pub fn handle_yielded(&mut self, records: u64, now: Instant) {
        self.note_lateness(now);
        let follows = self.is_copied() && !self.peers.current().has_ended(now);
        if follows && matches!(&self.role, MemberRole::Owner(own) if own.yielding.is_some()) {
            let mut following = Following::new(true, now);
            following.yielded = Some(records);
            self.role = MemberRole::Standby(following);
            self.send_beat(now);
        } else {
            self.give_up_hand_over();
        }
        self.weigh(now);
    }

    /// The last records of a hand-over cannot be sent: this member remains the owner, and sends again.
    pub fn handle_not_yielded(&mut self, now: Instant) {
        self.note_lateness(now);
        self.give_up_hand_over();
        self.weigh(now);
    }

    /// Ends a hand-over that this owner began, if there is one.
    pub(super) fn give_up_hand_over(&mut self) {
        if let MemberRole::Owner(own) = &mut self.role
            && own.yielding.take().is_some()
        {
            self.event(ClusterEvent::HandOverFailed);
        }
    }
}
