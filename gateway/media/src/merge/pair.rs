//! Two hops that deliver copies: the leading hop and its twin.

use std::time::{Duration, Instant};

use super::{Merge, Taken, Way};
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
    pub fn take(&mut self, from: H, header: &rtp::Header, packet: &[u8]) -> Taken {
        let way = if self.hops[Way::A as usize] == from { Way::A } else { Way::B };
        self.merge.take(way, header, packet)
    }

    /// Payload types of streams of which the twin delivers no copies.
    pub fn unalike(&self) -> impl Iterator<Item = u8> {
        self.merge.unalike()
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
mod tests {
    use super::*;

    const A: u8 = 0;
    const B: u8 = 1;
    const C: u8 = 2;

    fn send(pair: &mut Pair<u8>, from: u8, sequence: u16) -> Taken {
        let fields =
            rtp::Fields { payload_type: 0, marker: false, sequence, timestamp: 0, ssrc: 7 };
        let mut packet = Vec::new();
        rtp::write(&fields, &sequence.to_be_bytes(), &mut packet);
        pair.take(from, &rtp::Header::parse(&packet).unwrap(), &packet)
    }

    /// A and B; A leads, and B may have proved to deliver copies.
    fn pair(proven: bool) -> Option<Box<Pair<u8>>> {
        let mut pair = None;
        assert_eq!(Pair::settle(&mut pair, None, (A, Some(B)), true), Settled::Begins);
        let both = pair.as_deref_mut().unwrap();
        for sequence in 0..if proven { 10 } else { 2 } {
            send(both, A, sequence);
            send(both, B, sequence);
        }
        pair
    }

    fn hops(pair: &Option<Box<Pair<u8>>>) -> Option<[u8; 2]> {
        pair.as_deref().map(Pair::hops)
    }

    #[test]
    fn hop_heard_by_the_client_leads() {
        let mut pair = pair(true);
        for (from, other) in [(A, B), (B, A)] {
            let settled = Pair::settle(&mut pair, Some(A), (from, Some(other)), true);
            assert_eq!((settled, hops(&pair)), (Settled::Same, Some([A, B])));
        }
    }

    #[test]
    fn twin_leads_after_leader_is_gone() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (B, None), true), Settled::Turned(B));
        assert_eq!(pair.as_deref().unwrap().leads(), B);
        assert_eq!(send(pair.as_deref_mut().unwrap(), B, 9), Taken::Again);
        assert_eq!(send(pair.as_deref_mut().unwrap(), B, 10), Taken::First);
        // The next twin has to prove itself.
        assert_eq!(Pair::settle(&mut pair, Some(B), (C, Some(B)), true), Settled::Same);
        assert_eq!(hops(&pair), Some([B, C]));
        assert_eq!(send(pair.as_deref_mut().unwrap(), C, 11), Taken::Unproven);
    }

    #[test]
    fn twin_leads_even_if_a_new_hop_sends_first() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (C, Some(B)), true), Settled::Turned(B));
        assert_eq!(hops(&pair), Some([B, C]));
    }

    #[test]
    fn unproven_twin_begins_like_any_hop() {
        let mut pair = pair(false);
        assert_eq!(Pair::settle(&mut pair, Some(A), (B, Some(C)), true), Settled::Begins);
        assert_eq!(hops(&pair), Some([B, C]));
    }

    #[test]
    fn dead_twin_changes_nothing_until_replaced() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (A, None), true), Settled::Same);
        assert_eq!(hops(&pair), Some([A, B]));
        assert_eq!(Pair::settle(&mut pair, Some(A), (A, Some(C)), true), Settled::Same);
        assert_eq!(hops(&pair), Some([A, C]));
    }

    #[test]
    fn single_hop_is_no_pair() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (A, None), false), Settled::Same);
        assert!(pair.is_none());
    }

    #[test]
    fn difference_is_reported_each_second_and_per_twin() {
        #[expect(clippy::disallowed_methods, reason = "only distances count")]
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut pair = pair(false);
        let told = pair.as_deref_mut().unwrap();
        assert_eq!(
            [0, 1, 999, 1_000, 1_500, 2_000].map(|ms| told.tells(at(ms))),
            [true, false, false, true, false, true]
        );
        Pair::settle(&mut pair, Some(A), (A, Some(C)), true);
        assert!(pair.as_deref_mut().unwrap().tells(at(2_001)));
    }
}
