//! Merging of the two hops of a hitless room, as `dataplane/src/worker/session.rs` does it.

use std::time::Instant;

use evenkeel_media::continuity::StreamEpoch;
use evenkeel_media::merge::{HopPair, MergeOutcome, Settled};
use evenkeel_media::rtp;
use evenkeel_model::{Hop, RedundancyMode};

use crate::packet::Packet;
use crate::worker::SessionState;

impl SessionState {
    /// Handles a packet of one of the two hops; `other` is the second one while it is usable.
    pub(crate) fn merge(
        &mut self,
        from: Hop,
        other: Option<Hop>,
        header: &rtp::RtpHeader,
        packet: Packet,
        now: Instant,
    ) -> Option<Packet> {
        self.settle_twin(from, other);
        if self.pair.is_some() && self.hearing == Some(from) {
            self.note_received(packet.kind);
        }
        let taken = match self.pair.as_deref_mut() {
            Some(pair) => pair.take(from, header, &packet.header),
            None => MergeOutcome::First,
        };
        match taken {
            MergeOutcome::First => {
                self.pass(from, StreamEpoch(u64::from(self.switches)), header, packet, now)
            }
            MergeOutcome::Again => None,
            MergeOutcome::Unproven => {
                let pair = self.pair.as_deref_mut()?;
                if pair.differing().next().is_some() && pair.tells(now) {
                    self.unalike = Some(pair.hops());
                }
                None
            }
        }
    }

    /// Updates which hop leads and which is its twin.
    fn settle_twin(&mut self, from: Hop, other: Option<Hop>) {
        let hitless = other.is_some() || self.route.load().mode == RedundancyMode::Hitless;
        match HopPair::settle(&mut self.pair, self.hearing, (from, other), hitless) {
            Settled::Same => {}
            Settled::Turned(twin) => match self.pair.as_deref() {
                Some(pair) if pair.differing().next().is_some() => self.switch_to(twin),
                _ => self.hearing = Some(twin),
            },
            Settled::Begins => self.switch_to(from),
        }
    }
}
