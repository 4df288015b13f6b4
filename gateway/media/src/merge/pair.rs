//! Two hops that deliver copies, or are to: which of them leads, and which is its twin.

use std::time::{Duration, Instant};

use super::{Merge, Taken, Way};
use crate::rtp;

/// What is told is told again this often while it holds: a word may be lost on its way.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// A hop that leads, its twin, and the merge of what they deliver.
#[derive(Clone, Debug)]
pub struct Pair<H> {
    /// By way of the merge.
    hops: [H; 2],
    merge: Merge,
    told: Option<Instant>,
}

/// What a packet changed of who leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled<H> {
    /// The hop that the client hears goes on.
    Same,
    /// It is gone, and its twin, which delivers copies, leads from now on.
    Turned(H),
    /// It is gone, and the hop that sent the packet begins.
    Begins,
}

impl<H: Copy + Eq> Pair<H> {
    /// Nothing was heard of them yet.
    pub fn new(leads: H, twin: H) -> Pair<H> {
        Pair { hops: [leads, twin], merge: Merge::new(Way::A), told: None }
    }

    /// The hop that leads: the one that the client hears.
    pub fn leads(&self) -> H {
        self.hops[self.merge.leads() as usize]
    }

    /// The other one.
    pub fn twin(&self) -> H {
        self.hops[self.merge.leads().other() as usize]
    }

    /// Both, that which leads first.
    pub fn hops(&self) -> [H; 2] {
        [self.leads(), self.twin()]
    }

    /// What becomes of a packet that one of them sent.
    pub fn take(&mut self, from: H, header: &rtp::Header, packet: &[u8]) -> Taken {
        let way = if self.hops[Way::A as usize] == from { Way::A } else { Way::B };
        self.merge.take(way, header, packet)
    }

    /// The payload types of streams of which the twin delivers no copies.
    pub fn unalike(&self) -> impl Iterator<Item = u8> {
        self.merge.unalike()
    }

    /// Whether it is to be told now that they are unalike: while they are, again and again.
    pub fn tells(&mut self, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < TOLD_EVERY;
        let tells = !self.told.is_some_and(recently);
        if tells {
            self.told = Some(now);
        }
        tells
    }

    /// The twin is this hop; where it was another one, it has everything to prove.
    fn set_twin(&mut self, twin: H) {
        if self.twin() != twin {
            self.hops[self.merge.leads().other() as usize] = twin;
            self.merge.replace();
            self.told = None;
        }
    }

    /// Who leads, and who is the twin, now that a packet came `from` this hop while `other` carries as well, or is gone.
    /// `heard` is the hop that the client hears. Where two hops carry no longer (`hitless`), there is no pair.
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

    /// A and B, which leads, and whether B proved to deliver copies.
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
    fn whichever_sends_the_one_that_the_client_hears_leads() {
        let mut pair = pair(true);
        for (from, other) in [(A, B), (B, A)] {
            let settled = Pair::settle(&mut pair, Some(A), (from, Some(other)), true);
            assert_eq!((settled, hops(&pair)), (Settled::Same, Some([A, B])));
        }
    }

    #[test]
    fn the_twin_leads_where_the_one_that_led_is_gone_and_what_passed_is_remembered() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (B, None), true), Settled::Turned(B));
        assert_eq!(pair.as_deref().unwrap().leads(), B);
        assert_eq!(send(pair.as_deref_mut().unwrap(), B, 9), Taken::Again);
        assert_eq!(send(pair.as_deref_mut().unwrap(), B, 10), Taken::First);
        // The next twin has everything to prove.
        assert_eq!(Pair::settle(&mut pair, Some(B), (C, Some(B)), true), Settled::Same);
        assert_eq!(hops(&pair), Some([B, C]));
        assert_eq!(send(pair.as_deref_mut().unwrap(), C, 11), Taken::Unproven);
    }

    #[test]
    fn the_twin_leads_also_where_another_one_that_joined_sends_first() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (C, Some(B)), true), Settled::Turned(B));
        assert_eq!(hops(&pair), Some([B, C]));
    }

    #[test]
    fn a_twin_that_proved_nothing_begins_like_any_other_hop() {
        let mut pair = pair(false);
        assert_eq!(Pair::settle(&mut pair, Some(A), (B, Some(C)), true), Settled::Begins);
        assert_eq!(hops(&pair), Some([B, C]));
    }

    #[test]
    fn a_twin_that_died_changes_nothing_until_another_one_joins() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (A, None), true), Settled::Same);
        assert_eq!(hops(&pair), Some([A, B]));
        assert_eq!(Pair::settle(&mut pair, Some(A), (A, Some(C)), true), Settled::Same);
        assert_eq!(hops(&pair), Some([A, C]));
    }

    #[test]
    fn where_one_hop_carries_there_is_no_pair() {
        let mut pair = pair(true);
        assert_eq!(Pair::settle(&mut pair, Some(A), (A, None), false), Settled::Same);
        assert!(pair.is_none());
    }

    #[test]
    fn what_is_told_is_told_again_each_second_and_at_once_of_another_twin() {
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
