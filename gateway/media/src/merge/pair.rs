//! Two hops that deliver copies: the leading hop and its twin.

use std::time::{Duration, Instant};

use super::{Merge, MergeOutcome, Way};
use crate::rtp;

/// Repetition interval of a report while it holds, as one may be lost.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The leading hop, its twin, and the merge of their packets.
#[derive(Clone, Debug)]
pub struct Pair<H> {
    /// Indexed by path.
    hops: [H; 2],
    merge: Merge,
    told: Option<Instant>,
}

/// The change of leader that a packet caused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled<H> {
    /// The hop that the client hears continues.
    Same,
    /// It is gone; its twin, which delivers copies, leads.
    Turned(H),
    /// It is gone, and the hop that sent the packet begins.
    Begins,
}

impl<H: Copy + Eq> Pair<H> {
    pub fn new(leads: H, twin: H) -> Pair<H> {
        Pair { hops: [leads, twin], merge: Merge::new(Way::A), told: None }
    }

    /// The hop that the client hears.
    pub fn leads(&self) -> H {
        self.hops[self.merge.leads() as usize]
    }

    pub fn twin(&self) -> H {
        self.hops[self.merge.leads().other() as usize]
    }

    /// Both, the leading one first.
    pub fn hops(&self) -> [H; 2] {
        [self.leads(), self.twin()]
    }

    /// Handles a packet of one of them.
    pub fn take(&mut self, from: H, header: &rtp::Header, packet: &[u8]) -> MergeOutcome {
        let way = if self.hops[Way::A as usize] == from { Way::A } else { Way::B };
        self.merge.take(way, header, packet)
    }

    /// Payload types of streams of which the twin delivers no copies.
    pub fn differing(&self) -> impl Iterator<Item = u8> {
        self.merge.differing()
    }

    /// True if to report now that streams differ; repeats while they do.
    pub fn tells(&mut self, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < REPORT_EVERY;
        let tells = !self.told.is_some_and(recently);
        if tells {
            self.told = Some(now);
        }
        tells
    }

    /// Sets the twin; a new one has to prove itself.
    fn set_twin(&mut self, twin: H) {
        if self.twin() != twin {
            self.hops[self.merge.leads().other() as usize] = twin;
            self.merge.replace();
            self.told = None;
        }
    }

    /// Updates the leader and the twin for a packet `from` this hop while `other` carries as well,
    /// or is gone. `heard` is the hop that the client hears. There is no pair unless two hops carry
    /// (`hitless`).
    pub fn settle(
        pair: &mut Option<Box<Pair<H>>>,
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
            (_, twin) => *pair = twin.map(|twin| Box::new(Pair::new(leads, twin))),
        }
        settled
    }
}

#[cfg(test)]
mod tests;
