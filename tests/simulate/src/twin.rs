//! In hitless mode two hops carry a session both ways, as `server/src/worker/session/twin.rs` does it.

use std::time::Instant;

use evenkeel_core::{Hop, Mode};
use evenkeel_media::continuity::Epoch;
use evenkeel_media::merge::{Merge, Taken, Way};
use evenkeel_media::rtp;

use crate::house::Home;
use crate::packet::Packet;

/// Two hops that deliver copies, or are to.
pub(crate) struct Twin {
    hops: [Hop; 2],
    merge: Merge,
}

impl Twin {
    fn new(leads: Hop, other: Hop) -> Twin {
        Twin { hops: [leads, other], merge: Merge::new(Way::A) }
    }

    fn leads(&self) -> Hop {
        self.hops[self.merge.leads() as usize]
    }

    fn follows(&self) -> Hop {
        self.hops[self.merge.leads().other() as usize]
    }

    fn follow(&mut self, hop: Hop) {
        if self.follows() != hop {
            self.hops[self.merge.leads().other() as usize] = hop;
            self.merge.replace();
        }
    }

    fn take(&mut self, from: Hop, header: &rtp::Header, packet: &Packet) -> Taken {
        let way = if self.hops[Way::A as usize] == from { Way::A } else { Way::B };
        self.merge.take(way, header, &packet.header)
    }
}

impl Home {
    /// A packet that one of the two hops sent; `other` carries as well, unless it is gone.
    pub(crate) fn merge(
        &mut self,
        from: Hop,
        other: Option<Hop>,
        header: &rtp::Header,
        packet: Packet,
        now: Instant,
    ) -> Option<Packet> {
        self.settle_twin(from, other);
        if self.twin.is_some() && self.hearing == Some(from) {
            self.note_came(packet.kind);
        }
        let taken =
            self.twin.as_mut().map_or(Taken::First, |twin| twin.take(from, header, &packet));
        match taken {
            Taken::First => self.pass(from, Epoch(u64::from(self.switches)), header, packet, now),
            Taken::Again | Taken::Unproven => None,
            Taken::Unalike => {
                self.unalike = self.twin.as_ref().map(|twin| [twin.leads(), twin.follows()]);
                None
            }
        }
    }

    /// Who leads, and who follows.
    fn settle_twin(&mut self, from: Hop, other: Option<Hop>) {
        let carries = |hop: Hop| hop == from || Some(hop) == other;
        let heard = self.hearing.filter(|hop| carries(*hop));
        let proven = self.twin.as_ref().filter(|twin| twin.merge.is_proven());
        let heir = proven.map(|twin| twin.follows()).filter(|hop| carries(*hop));
        match (heard, heir, &mut self.twin) {
            (Some(_), ..) => {}
            (None, Some(heir), Some(twin)) => {
                twin.merge.turn();
                self.hearing = Some(heir);
            }
            _ => self.hear(from),
        }
        let hitless = other.is_some() || self.route.load().mode == Mode::Hitless;
        let Some(leads) = self.hearing.filter(|_| hitless) else {
            self.twin = None;
            return;
        };
        let follows = if leads == from { other } else { Some(from) };
        match (&mut self.twin, follows) {
            (Some(twin), Some(follows)) if twin.leads() == leads => twin.follow(follows),
            (Some(twin), None) if twin.leads() == leads => {}
            (twin, follows) => {
                *twin = follows.map(|follows| Box::new(Twin::new(leads, follows)));
            }
        }
    }
}
