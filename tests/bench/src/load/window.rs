//! A measurement window: packets are sent at a rate, and arrivals are counted.

use std::io;
use std::time::Duration;

use nix::sys::epoll::EpollTimeout;

use super::books::Tally;
use super::register::Wire;
use super::rig::Rig;
use super::trace::Trace;
use evenkeel_lab::clock;

/// Packets sent in a row before the sinks are read.
const ROW: usize = 16;
/// Offset between two sessions in the recording, so that their lengths differ.
const APART: usize = 37;
/// Interval at which the nodes of other relays answer.
const OTHERS_EVERY_NS: u64 = 1_000_000;
/// The drain ends after this time without packets.
const QUIET_NS: u64 = 30_000_000;
/// The longest drain.
const DRAIN_NS: u64 = 5_000_000_000;
/// The most packets in flight at the highest rate in two cases. Nodes send bundles faster than a relay can split them,
/// and most would be lost. rtpengine, the peer with SRTP, discards the packets of sockets that it finds full several
/// times in a row, down to forwarding almost none.
const UNDER_WAY_MAX: u64 = 8_192;
/// Packets in flight count as lost after this time without arrivals.
const LOST_AFTER_NS: u64 = 2_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    ToNode,
    ToClient,
    Both,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pace {
    /// Packets a second, in both directions together.
    Rate(f64),
    /// The highest rate at which this core can send.
    Flat,
    /// A rate with bursts of each client that the kernel takes in one call (UDP_SEGMENT), which exceeds what this core
    /// could send one by one. Nodes send single packets.
    Bursts {
        /// Packets a second.
        rate: f64,
        packets: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) direction: Direction,
    pub(crate) pace: Pace,
    pub(crate) trace: &'a Trace,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// A moment at which the caller may measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    Begin,
    /// The window ends; packets in flight still arrive.
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Counts of packets that were sent in the window.
    pub(crate) tally: Tally,
    /// Packets received in the window.
    pub(crate) received: u64,
    /// Length of the window, seconds.
    pub(crate) seconds: f64,
}

/// The turns of senders.
struct SenderTurns {
    direction: Direction,
    sessions: usize,
    to_node: usize,
    to_client: usize,
    last_was_to_node: bool,
}

impl Rig {
    /// Sends the offered load and counts arrivals. `others` is called every millisecond, `edge` at the begin and end of
    /// the window.
    pub(crate) fn run(
        &mut self,
        offer: &Offer<'_>,
        mut others: impl FnMut() -> io::Result<()>,
        mut edge: impl FnMut(Edge),
    ) -> io::Result<Window> {
        if offer.direction == Direction::ToClient {
            // Refreshes sessions in relays that expire silent ones.
            self.greet_all()?;
        }
        let mut turns = SenderTurns::new(offer.direction, self.sessions());
        self.send_for(offer, offer.warm_up, &mut turns, &mut others)?;
        self.window = self.window.wrapping_add(1);
        self.tally.clear();
        let before = self.received;
        edge(Edge::Begin);
        let began = clock::now_ns();
        self.send_for(offer, offer.length, &mut turns, &mut others)?;
        let seconds = (clock::now_ns() - began) as f64 / 1e9;
        edge(Edge::End);
        let received = self.received - before;
        self.drain(&mut others)?;
        let tally = std::mem::take(&mut self.tally);
        Ok(Window { tally, received, seconds })
    }

    fn send_for(
        &mut self,
        offer: &Offer<'_>,
        long: Duration,
        turns: &mut SenderTurns,
        others: &mut impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let began = clock::now_ns();
        let end = began + clock::nanoseconds(long);
        let interval = match offer.pace {
            Pace::Rate(rate) | Pace::Bursts { rate, .. } => 1e9 / rate,
            Pace::Flat => 0.0,
        };
        let (mut now, mut sent, mut others_at) = (began, 0_u64, began);
        let has_bundles = self.nodes.register.wire() == Wire::Bundled;
        let is_held_back = offer.pace == Pace::Flat
            && (self.clients.have_srtp() || has_bundles && offer.direction != Direction::ToNode);
        let mut leash = InFlightLimit { settled: self.received, before: 0, heard_ns: began };
        while now < end {
            for _ in 0..ROW {
                let is_early = interval > 0.0 && (now - began) as f64 <= sent as f64 * interval;
                if is_early || (is_held_back && leash.is_tight(sent, self.received)) {
                    break;
                }
                sent += self.send_next(turns, offer, now);
                now = clock::now_ns();
            }
            self.nodes.flush_due(self.window, now);
            let came = self.look(EpollTimeout::ZERO)?;
            leash.look((came, self.received), sent, now);
            now = clock::now_ns();
            if now >= others_at {
                others()?;
                others_at = now + OTHERS_EVERY_NS;
            }
        }
        for node in 0..self.nodes.sockets().len() {
            self.nodes.flush(node, self.window, now);
        }
        Ok(())
    }

    /// Sends the next packets, and returns their number.
    fn send_next(&mut self, turns: &mut SenderTurns, offer: &Offer<'_>, now_ns: u64) -> u64 {
        let to_node = turns.is_to_node();
        let cursor = if to_node { &mut turns.to_node } else { &mut turns.to_client };
        let (session, round) = (*cursor % turns.sessions, *cursor / turns.sessions);
        *cursor += 1;
        let length = offer.trace.length(session * APART + round);
        let (window, session) = (self.window, session as u32);
        let packets = match (to_node, offer.pace) {
            (true, Pace::Bursts { packets, .. }) => packets,
            _ => 1,
        };
        let was_sent = match to_node {
            true if packets > 1 => {
                self.clients.send_burst(session, length, packets, window, now_ns)
            }
            true => self.clients.send(session, length, window, now_ns),
            false => self.nodes.send(session, length, window, now_ns),
        };
        if was_sent {
            self.tally.sent += packets as u64;
        }
        packets as u64
    }

    fn drain(&mut self, others: &mut impl FnMut() -> io::Result<()>) -> io::Result<()> {
        let began = clock::now_ns();
        let (mut now, mut heard, mut others_at) = (began, began, began);
        while now - heard < QUIET_NS && now - began < DRAIN_NS {
            if self.look(EpollTimeout::ZERO)? > 0 {
                heard = now;
            }
            now = clock::now_ns();
            if now >= others_at {
                others()?;
                others_at = now + OTHERS_EVERY_NS;
            }
        }
        Ok(())
    }
}

/// Limits the number of packets in flight between a sender and the sinks.
struct InFlightLimit {
    /// Packets received (`settled`) and sent (`before`) when no packet was in flight.
    settled: u64,
    before: u64,
    heard_ns: u64,
}

impl InFlightLimit {
    fn is_tight(&self, sent: u64, received: u64) -> bool {
        sent - self.before > received - self.settled + UNDER_WAY_MAX
    }

    /// Handles arrivals. After [`LOST_AFTER_NS`] without arrivals, packets in flight count as lost.
    fn look(&mut self, (came, received): (u64, u64), sent: u64, now_ns: u64) {
        if came > 0 {
            self.heard_ns = now_ns;
        } else if now_ns.saturating_sub(self.heard_ns) > LOST_AFTER_NS {
            *self = InFlightLimit { settled: received, before: sent, heard_ns: now_ns };
        }
    }
}

impl SenderTurns {
    fn new(direction: Direction, sessions: usize) -> SenderTurns {
        SenderTurns { direction, sessions, to_node: 0, to_client: 0, last_was_to_node: false }
    }

    fn is_to_node(&mut self) -> bool {
        match self.direction {
            Direction::ToNode => true,
            Direction::ToClient => false,
            Direction::Both => {
                self.last_was_to_node = !self.last_was_to_node;
                self.last_was_to_node
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leash_loosens_by_arrivals_and_losses() {
        let mut leash = InFlightLimit { settled: 100, before: 0, heard_ns: 0 };
        assert!(!leash.is_tight(UNDER_WAY_MAX, 100));
        assert!(leash.is_tight(UNDER_WAY_MAX + 1, 100));
        assert!(!leash.is_tight(UNDER_WAY_MAX + 1, 101));
        leash.look((0, 101), UNDER_WAY_MAX + 2, LOST_AFTER_NS);
        assert!(leash.is_tight(UNDER_WAY_MAX + 2, 101), "it may still arrive");
        leash.look((0, 101), UNDER_WAY_MAX + 2, LOST_AFTER_NS + 1);
        assert!(!leash.is_tight(2 * UNDER_WAY_MAX + 2, 101));
        assert!(leash.is_tight(2 * UNDER_WAY_MAX + 3, 101));
    }

    #[test]
    fn directions_alternate() {
        let of = |direction| {
            let mut turns = SenderTurns::new(direction, 1);
            [(); 4].map(|()| turns.is_to_node())
        };
        assert_eq!(of(Direction::Both), [true, false, true, false]);
        assert_eq!(of(Direction::ToNode), [true; 4]);
        assert_eq!(of(Direction::ToClient), [false; 4]);
    }
}
