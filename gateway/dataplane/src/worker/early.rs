//! Packets that wait for a leg or a tag: a worker may read a new route before the command that adds the leg.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::Tag;
use evenkeel_model::{Hop, NodeId, StreamKind};

use super::sockets::RtpSide;
use crate::flows::Home;

/// Limit of early packets over all sessions of a worker.
const WAITING_MAX: usize = 4_096;

/// Limits of packets that wait for a leg.
#[derive(Clone, Copy, Debug)]
pub struct EarlyLimits {
    /// Packets of one session.
    pub packets: usize,
    /// Waiting time after which packets are dropped.
    pub wait: Duration,
}

/// A client's packet to a hop without a leg yet.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) home: Home,
    pub(crate) hop: Hop,
    pub(crate) side: RtpSide,
    pub(crate) kind: StreamKind,
    pub(crate) packet: Box<[u8]>,
    since: Instant,
}

/// A node's packet with an unknown tag.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) node: NodeId,
    pub(crate) tag: Tag,
    pub(crate) packet: Box<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Early {
    early_limits: EarlyLimits,
    outbound: Vec<Outbound>,
    /// Packets whose leg was added.
    pub(crate) ready: VecDeque<Outbound>,
    pub(crate) inbound: VecDeque<Inbound>,
}

impl Early {
    pub(crate) fn new(early_limits: EarlyLimits) -> Early {
        let (outbound, ready, inbound) = Default::default();
        Early { early_limits, outbound, ready, inbound }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.outbound.is_empty() && self.ready.is_empty() && self.inbound.is_empty()
    }

    /// Keeps a client's packet. Returns `false` if too many wait.
    pub(crate) fn keep_outbound(
        &mut self,
        home: Home,
        hop: Hop,
        side: RtpSide,
        kind: StreamKind,
        packet: &[u8],
        now: Instant,
    ) -> bool {
        let of_session = self.outbound.iter().filter(|waiting| waiting.home == home).count();
        let fits = of_session < self.early_limits.packets && self.outbound.len() < WAITING_MAX;
        if fits {
            let packet = packet.into();
            self.outbound.push(Outbound { home, hop, side, kind, packet, since: now });
        }
        fits
    }

    /// Keeps a node's packet until the end of this pass. Returns `false` if too many wait.
    pub(crate) fn keep_inbound(&mut self, node: NodeId, tag: Tag, packet: &[u8]) -> bool {
        let fits = self.inbound.len() < WAITING_MAX;
        if fits {
            self.inbound.push_back(Inbound { node, tag, packet: packet.into() });
        }
        fits
    }

    /// Moves packets whose leg was added to `ready`. Drops packets that waited too long and returns their number.
    pub(crate) fn sort_out(
        &mut self,
        now: Instant,
        mut has_leg: impl FnMut(Home, Hop) -> bool,
    ) -> usize {
        let mut late = 0;
        for waiting in std::mem::take(&mut self.outbound) {
            if has_leg(waiting.home, waiting.hop) {
                self.ready.push_back(waiting);
            } else if now.saturating_duration_since(waiting.since) < self.early_limits.wait {
                self.outbound.push(waiting);
            } else {
                late += 1;
            }
        }
        late
    }

    /// Drops all packets and returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        let Early { outbound, ready, inbound, .. } = self;
        outbound.drain(..).count() + ready.drain(..).count() + inbound.drain(..).count()
    }
}

#[cfg(test)]
mod tests;
