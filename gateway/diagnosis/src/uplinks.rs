//! The uplinks of a room's senders, which its listeners hear.

use evenkeel_model::SessionId;

use crate::loss::LossShare;
use crate::reports::Slots;

/// The uplink of a room's sender in one slot.
#[derive(Clone, Copy, Debug)]
pub struct SenderUplink {
    pub(crate) session: SessionId,
    pub(crate) loss: LossShare,
    /// 0 if it is not measured.
    pub(crate) jitter_us: u32,
}

/// The worst uplinks that a session hears.
#[derive(Clone, Copy, Debug)]
pub struct HeardUplinks {
    /// The one that loses most.
    pub(crate) lossy: SenderUplink,
    /// The one with the highest jitter.
    pub(crate) jittery: SenderUplink,
    /// The highest loss in one slot.
    pub(crate) worst_loss_ppm: u32,
}

/// The two worst uplinks of a room's senders by loss and by jitter, by slot: a sender does not hear its own.
#[derive(Default, Debug)]
pub struct RoomUplinks(Slots<SlotUplinks>);

#[derive(Clone, Copy, Default, Debug)]
struct SlotUplinks {
    lossy: WorstTwo,
    jittery: WorstTwo,
}

impl SlotUplinks {
    fn lossy(&self) -> &WorstTwo {
        &self.lossy
    }

    fn jittery(&self) -> &WorstTwo {
        &self.jittery
    }
}

/// The worst first.
#[derive(Clone, Copy, Default, Debug)]
struct WorstTwo([Option<SenderUplink>; 2]);

impl WorstTwo {
    fn note(&mut self, sender: SenderUplink, badness: fn(&SenderUplink) -> u32) {
        let [worst, second] = &mut self.0;
        let is_worse =
            |than: &Option<SenderUplink>| than.is_none_or(|than| badness(&than) < badness(&sender));
        if is_worse(worst) {
            (*worst, *second) = (Some(sender), *worst);
        } else if is_worse(second) {
            *second = Some(sender);
        }
    }

    fn heard_by(&self, session: SessionId) -> Option<SenderUplink> {
        let other = self.0.iter().flatten().find(|sender| sender.session != session);
        // A session alone in its room may hear itself.
        other.or(self.0[0].as_ref()).copied()
    }
}

impl RoomUplinks {
    /// Takes the uplink of a sender in this slot.
    pub fn note(&mut self, slot: u64, sender: SenderUplink) {
        let uplinks = self.0.at(slot);
        uplinks.lossy.note(sender, |sender| sender.loss.lost);
        uplinks.jittery.note(sender, |sender| sender.jitter_us);
    }

    /// The worst uplinks that this session hears, in the two slots that are compared at the start of this one.
    pub fn heard_by(&self, session: SessionId, slot: u64) -> Option<HeardUplinks> {
        let lossy = self.in_slots(session, slot, SlotUplinks::lossy);
        let worst_loss_ppm = lossy.iter().flatten().map(|sender| sender.loss.ppm()).max();
        let lossy = match lossy {
            [Some(first), Some(second)] => {
                let worse = if first.loss.lost > second.loss.lost { first } else { second };
                let LossShare { lost, of } = second.loss;
                let loss = LossShare { lost: lost + first.loss.lost, of: of + first.loss.of };
                Some(SenderUplink { loss, ..worse })
            }
            [one, other] => one.or(other),
        };
        let jittery = self.in_slots(session, slot, SlotUplinks::jittery);
        let jittery = jittery.into_iter().flatten().max_by_key(|sender| sender.jitter_us);
        Some(HeardUplinks { lossy: lossy?, jittery: jittery?, worst_loss_ppm: worst_loss_ppm? })
    }

    fn in_slots(
        &self,
        session: SessionId,
        slot: u64,
        list: fn(&SlotUplinks) -> &WorstTwo,
    ) -> [Option<SenderUplink>; 2] {
        [3, 2].map(|before| {
            let uplinks = self.0.get(slot.checked_sub(before)?)?;
            list(uplinks).heard_by(session)
        })
    }

    /// No sender was noted since this slot.
    pub fn is_idle_since(&self, slot: u64) -> bool {
        self.0.is_idle_since(slot)
    }
}
