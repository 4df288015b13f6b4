//! Two hops that deliver copies: the leading hop and its twin.

use super::{Merge, MergeOutcome, MergePath};
use crate::{instant, rtp};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Repetition interval of a report that still holds, because a report may be lost.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The leading hop, its twin, and the merge of their packets.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct HopPair<H> {
    /// The two hops, by path.
    hops: [H; 2],
    merge: Merge,
    #[serde(with = "instant::option")]
    told: Option<Instant>,
}

/// The change of leader that a packet caused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled<H> {
    /// The leading hop stays.
    Same,
    /// The leading hop is gone; its twin, which delivers copies, now leads.
    Turned(H),
    /// The leading hop is gone, and the hop that sent the packet starts anew.
    Begins,
}

impl<H: Copy + Eq> HopPair<H> {
    pub(crate) fn new(leads: H, twin: H) -> HopPair<H> {
        HopPair { hops: [leads, twin], merge: Merge::new(MergePath::A), told: None }
    }

    /// Returns the leading hop, which the client hears.
    pub(crate) fn leads(&self) -> H {
        self.hops[self.merge.leads() as usize]
    }

    pub(crate) fn twin(&self) -> H {
        self.hops[self.merge.leads().other() as usize]
    }

    /// Returns both hops, the leading one first.
    pub fn hops(&self) -> [H; 2] {
        [self.leads(), self.twin()]
    }

    /// Returns the same pair with the hops' names at another process; `None` if one has none.
    pub fn map<T>(self, mut name: impl FnMut(H) -> Option<T>) -> Option<HopPair<T>> {
        let HopPair { hops: [a, b], merge, told } = self;
        Some(HopPair { hops: [name(a)?, name(b)?], merge, told })
    }

    /// Handles a packet of one of the hops.
    pub fn take(&mut self, from: H, header: &rtp::RtpHeader, packet: &[u8]) -> MergeOutcome {
        let way =
            if self.hops[MergePath::A as usize] == from { MergePath::A } else { MergePath::B };
        self.merge.take(way, header, packet)
    }

    /// Returns payload types of streams in which the twin delivers different packets.
    pub fn differing(&self) -> impl Iterator<Item = u8> {
        self.merge.differing()
    }

    /// Returns whether a report of differing streams is due now.
    pub fn tells(&mut self, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < REPORT_EVERY;
        let tells = !self.told.is_some_and(recently);
        if tells {
            self.told = Some(now);
        }
        tells
    }

    /// Sets the twin. A new twin must prove itself.
    fn set_twin(&mut self, twin: H) {
        if self.twin() != twin {
            self.hops[self.merge.leads().other() as usize] = twin;
            self.merge.replace();
            self.told = None;
        }
    }

    /// Updates the leader and the twin for a packet from the hop `from`; `other` is the other hop
    /// that carries the session, if any. `heard` is the hop that the client hears. There is a pair
    /// only while two hops carry the session (`hitless`).
    pub fn settle(
        pair: &mut Option<Box<HopPair<H>>>,
        heard: Option<H>,
        (from, other): (H, Option<H>),
        hitless: bool,
    ) -> Settled<H> {
        let carries = |hop: &H| *hop == from || Some(*hop) == other;
        let proven = pair.as_deref_mut().filter(|pair| pair.merge.is_proven());
        let (leads, settled) = match (heard.filter(carries), proven) {
            (Some(heard), _) => (heard, Settled::Same),
            (None, Some(pair)) if carries(&pair.twin()) => {
                pair.merge.turn();
                (pair.leads(), Settled::Turned(pair.leads()))
            }
            (None, _) => (from, Settled::Begins),
        };
        let twin = if leads == from { other } else { Some(from) };
        match (&mut *pair, twin) {
            _ if !hitless => *pair = None,
            (Some(pair), twin) if pair.leads() == leads => {
                twin.into_iter().for_each(|twin| pair.set_twin(twin));
            }
            (_, twin) => *pair = twin.map(|twin| Box::new(HopPair::new(leads, twin))),
        }
        settled
    }
}

#[cfg(test)]
mod tests;
