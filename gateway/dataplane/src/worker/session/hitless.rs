//! In hitless mode two hops carry a session both ways: what either delivers first reaches the client. One leads, the
//! other is its twin.

use evenkeel_core::{Hop, Kind, Mode, forward::Reason};
use evenkeel_media::merge::{Pair, Settled, Taken};
use evenkeel_media::rtp;

use super::{Loan, Session};
use crate::worker::command::Report;
use crate::worker::egress::Side;

impl Session {
    /// A packet of the client's goes to the twin as well. One that is not open there yet is not kept for it: the first hop
    /// has it.
    pub(super) fn send_copy(
        &mut self,
        twin: Hop,
        side: Side,
        kind: Kind,
        packet: &[u8],
        loan: &mut Loan<'_>,
    ) {
        if self.has_leg(twin) {
            self.talk().totals.bytes_copied += packet.len() as u64;
            self.send_to_node(twin, side, kind, packet, loan);
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
        let (epoch, leads) = (talk.epoch(), talk.hearing == Some(from));
        if !leads {
            talk.totals.bytes_copied += packet.len() as u64;
        }
        let Some(header) = header else {
            return match leads {
                true => self.rtcp_to_client(epoch, packet, loan),
                false => loan.ways.drop(Reason::Copy),
            };
        };
        let kind = self.media.payload_type(header.payload_type).map(|(kind, _)| kind);
        let talk = self.talk();
        let taken = match (kind, talk.pair.as_deref_mut()) {
            (Some(kind), Some(pair)) => {
                let taken = pair.take(from, header, packet);
                // Whether or not the other copy was faster: the hop delivers.
                talk.flow.came[kind as usize] += u32::from(leads);
                taken
            }
            _ => Taken::First,
        };
        match taken {
            Taken::First => return self.rtp_to_client(from, epoch, header, packet, loan),
            Taken::Again => {}
            Taken::Unproven => self.tell_unalike(loan),
        }
        loan.ways.drop(Reason::Copy);
    }

    /// Tells of hops that deliver no copies of each other, as long as they do not. What only repairs other streams is no
    /// reason: nodes may number it as they like.
    fn tell_unalike(&mut self, loan: &Loan<'_>) {
        let (id, media) = (self.id, &self.media);
        let Some(pair) = self.talk.as_deref_mut().and_then(|talk| talk.pair.as_deref_mut()) else {
            return;
        };
        let matters = |number| media.payload_type(number).is_some_and(|(_, it)| !it.repairs());
        if pair.unalike().any(matters) && pair.tells(loan.now) {
            loan.ways.report(Report::Unalike { session: id, hops: pair.hops() });
        }
    }

    /// Who leads, and who is the twin, now that a packet came from this hop while the other one carries as well, or is
    /// gone.
    fn settle_twin(&mut self, from: Hop, other: Option<Hop>, loan: &Loan<'_>) {
        let hitless = other.is_some() || self.mode() == Mode::Hitless;
        let talk = self.talk();
        match Pair::settle(&mut talk.pair, talk.hearing, (from, other), hitless) {
            Settled::Same => {}
            Settled::Turned(twin) => self.take_lead(twin, loan),
            Settled::Begins => self.hear(from, loan),
        }
    }

    /// The hop that led is gone, and its twin goes on: its packets are copies, so nothing changes for the client. Where
    /// some stream is none, it is a hop like any other.
    fn take_lead(&mut self, twin: Hop, loan: &Loan<'_>) {
        let unalike = |pair: &Pair<Hop>| pair.unalike().next().is_some();
        if self.talk().pair.as_deref().is_some_and(unalike) {
            return self.hear(twin, loan);
        }
        self.note_switch(twin, loan);
        let talk = self.talk();
        talk.hears(twin);
        talk.totals.switches += 1;
        talk.continuity.turned();
    }
}
