//! Hitless mode: two hops carry a session in both directions, and the first copy of a packet is sent to the client. One
//! hop leads, the other is its twin.

use evenkeel_media::merge::{HopPair, MergeOutcome, Settled};
use evenkeel_media::rtp;
use evenkeel_model::forward::DropReason;
use evenkeel_model::{Hop, RedundancyMode, StreamKind};

use super::{PacketContext, WorkerSession};
use crate::worker::ports::RtpSide;
use crate::worker::report::WorkerReport;

impl WorkerSession {
    /// Sends a copy to the twin. The copy is dropped if the twin has no leg yet, because the leading hop gets the
    /// packet.
    pub(super) fn send_copy(
        &mut self,
        twin: Hop,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        if self.has_leg(twin) {
            self.state().totals.bytes_copied += packet.len() as u64;
            self.send_to_node(twin, side, kind, packet, cx);
        }
    }

    /// Handles a packet of one of the two hops; `other` is `None` if the other hop is gone. RTCP passes only from the
    /// leading hop: reports of two nodes about one stream would contradict each other.
    pub(super) fn merge_to_client(
        &mut self,
        from: Hop,
        other: Option<Hop>,
        header: Option<&rtp::RtpHeader>,
        packet: &[u8],
        cx: &mut PacketContext<'_>,
    ) {
        self.settle_twin(from, other, cx);
        let state = self.state();
        let (epoch, leads) = (state.epoch(), state.current_hop == Some(from));
        if !leads {
            state.totals.bytes_copied += packet.len() as u64;
        }
        let Some(header) = header else {
            return match leads {
                true => self.rtcp_to_client(epoch, packet, cx),
                false => cx.egress.count_drop(DropReason::Duplicate),
            };
        };
        let kind = self.media.payload_type(header.payload_type).map(|(kind, _)| kind);
        let state = self.state();
        let taken = match (kind, state.pair.as_deref_mut()) {
            (Some(kind), Some(pair)) => {
                let taken = pair.take(from, header, packet);
                // The leading hop delivers, even if the other copy arrived first.
                state.flow.came[kind as usize] += u32::from(leads);
                taken
            }
            _ => MergeOutcome::First,
        };
        match taken {
            MergeOutcome::First => return self.rtp_to_client(from, epoch, header, packet, cx),
            MergeOutcome::Again => {}
            MergeOutcome::Unproven => self.report_differing_copies(cx),
        }
        cx.egress.count_drop(DropReason::Duplicate);
    }

    /// Reports two hops that deliver different packets for one stream, and repeats the report while they differ. Repair
    /// streams may differ, because each node numbers them independently.
    fn report_differing_copies(&mut self, cx: &PacketContext<'_>) {
        let (id, media) = (self.id, &self.media);
        let Some(pair) = self.state.as_deref_mut().and_then(|state| state.pair.as_deref_mut())
        else {
            return;
        };
        let matters = |number| media.payload_type(number).is_some_and(|(_, it)| !it.repairs());
        if pair.differing().any(matters) && pair.tells(cx.now) {
            cx.egress.report(WorkerReport::CopiesDiffer { session: id, hops: pair.hops() });
        }
    }

    /// Updates the leading hop and its twin after a packet from `from`.
    fn settle_twin(&mut self, from: Hop, other: Option<Hop>, cx: &PacketContext<'_>) {
        let hitless = other.is_some() || self.mode() == RedundancyMode::Hitless;
        let state = self.state();
        match HopPair::settle(&mut state.pair, state.current_hop, (from, other), hitless) {
            Settled::Same => {}
            Settled::Turned(twin) => self.take_lead(twin, cx),
            Settled::Begins => self.switch_to(from, cx),
        }
    }

    /// Makes the twin the leading hop after the leading hop is gone. Its packets are copies, so the client sees no
    /// change. A twin with a stream that is not a copy counts as a new hop.
    fn take_lead(&mut self, twin: Hop, cx: &PacketContext<'_>) {
        let differs = |pair: &HopPair<Hop>| pair.differing().next().is_some();
        if self.state().pair.as_deref().is_some_and(differs) {
            return self.switch_to(twin, cx);
        }
        self.record_recovery(twin, cx);
        cx.egress.note_changed(self.home);
        let state = self.state();
        state.set_current_hop(twin);
        state.totals.switches += 1;
        state.continuity.switch_to_copies();
    }
}
