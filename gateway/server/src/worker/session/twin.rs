//! In hitless mode two hops carry a session both ways: what either delivers first reaches the client.

use evenkeel_core::{Hop, Kind, Mode, forward::Reason};
use evenkeel_media::merge::{Merge, Taken, Way};
use evenkeel_media::rtp;

use super::{Loan, Session};
use crate::worker::command::Report;
use crate::worker::ways::Side;

/// Two hops that deliver copies, or are to.
pub(super) struct Twin {
    /// By way of the merge; that which leads is the one that the client hears.
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

    /// The other hop is this one; where it is another than before, it has everything to prove.
    fn follow(&mut self, hop: Hop) {
        if self.follows() != hop {
            self.hops[self.merge.leads().other() as usize] = hop;
            self.merge.replace();
        }
    }

    /// Whether this hop may go on in the place of the one that leads, and nobody notices.
    fn stands_in(&self, hop: Hop) -> bool {
        self.follows() == hop && self.merge.is_proven()
    }

    fn way(&self, hop: Hop) -> Way {
        if self.hops[Way::A as usize] == hop { Way::A } else { Way::B }
    }
}

impl Session {
    /// A packet of the client's goes to the second hop as well. One that is not open there yet is not kept for it: the
    /// first hop has it.
    pub(super) fn send_copy(
        &mut self,
        hop: Hop,
        side: Side,
        kind: Kind,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        if self.has_leg(hop) {
            self.talk().totals.bytes_copied += packet.len() as u64;
            self.send_to_node(hop, side, kind, packet, loan);
        }
    }

    /// A packet that one of the two hops sent; `other` carries as well, unless it is gone. Reports come from the hop that
    /// leads alone: those of two nodes about one stream would contradict each other.
    pub(super) fn merge_to_client(
        &mut self,
        from: Hop,
        other: Option<Hop>,
        header: Option<&rtp::Header>,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        self.settle_twin(from, other, loan);
        let talk = self.talk();
        let epoch = talk.epoch();
        let Some(header) = header else {
            return match talk.hearing == Some(from) {
                true => self.rtcp_to_client(epoch, packet, loan),
                false => loan.ways.drop(Reason::Copy),
            };
        };
        let hears = talk.hearing == Some(from);
        let taken = match talk.twin.as_deref_mut() {
            Some(twin) => {
                let way = twin.way(from);
                let taken = twin.merge.take(way, header, packet);
                // Whether or not the other copy was faster: the hop delivers.
                let declared = self.media.payload_type(header.payload_type);
                if let Some((kind, _)) = declared.filter(|_| hears) {
                    self.talk().flow.came[kind as usize] += 1;
                }
                taken
            }
            None => Taken::First,
        };
        match taken {
            Taken::First => self.rtp_to_client(from, epoch, header, packet, loan),
            Taken::Again | Taken::Unproven => loan.ways.drop(Reason::Copy),
            Taken::Unalike => {
                if let Some(twin) = self.talk().twin.as_deref() {
                    let hops = [twin.leads(), twin.follows()];
                    loan.ways.report(Report::Unalike { session: self.id, hops });
                }
                loan.ways.drop(Reason::Copy);
            }
        }
    }

    /// Who leads, and who follows, now that a packet came from this hop while the other one carries as well, or is gone.
    fn settle_twin(&mut self, from: Hop, other: Option<Hop>, loan: &Loan<'_>) {
        let talk = self.talk();
        let carries = |hop: Hop| hop == from || Some(hop) == other;
        let heard = talk.hearing.filter(|hop| carries(*hop));
        let heir = talk.twin.as_deref().map(Twin::follows).filter(|hop| carries(*hop));
        let proven = |hop: &Hop| talk.twin.as_deref().is_some_and(|twin| twin.stands_in(*hop));
        match (heard, heir.filter(proven)) {
            (Some(_), _) => {}
            (None, Some(heir)) => self.take_lead(heir, loan),
            (None, None) => self.hear(from, loan),
        }
        let hitless = other.is_some() || self.route.load().mode == Mode::Hitless;
        let talk = self.talk();
        let Some(leads) = talk.hearing.filter(|_| hitless) else {
            talk.twin = None;
            return;
        };
        let follows = if leads == from { other } else { Some(from) };
        match (&mut talk.twin, follows) {
            (Some(twin), _) if twin.leads() != leads => {
                talk.twin = follows.map(|follows| Box::new(Twin::new(leads, follows)));
            }
            (Some(twin), Some(follows)) => twin.follow(follows),
            (Some(_), None) => {}
            (None, follows) => {
                talk.twin = follows.map(|follows| Box::new(Twin::new(leads, follows)));
            }
        }
    }

    /// The hop that led is gone, and the other goes on: its packets are copies, so nothing changes for the client.
    fn take_lead(&mut self, hop: Hop, loan: &Loan<'_>) {
        self.note_switch(hop, loan);
        let talk = self.talk();
        talk.hears(hop);
        talk.totals.switches += 1;
        if let Some(twin) = &mut talk.twin {
            twin.merge.turn();
        }
    }
}
