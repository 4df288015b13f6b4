//! Pacing of video to UDP clients with an estimated rate.
//!
//! Packets wait before the transport-wide number, parity and encryption, so that each of these follows the order and the time in which packets
//! leave: feedback about arrivals would take a wait here for a queue of the path. The index of SRTP follows from the sequence number, and
//! no packet overtakes an earlier one of its stream; a packet that is dropped uses no index. Packets that are sent again wait as they were sent;
//! retransmissions in a stream of their own are numbered as they leave.
//!
//! No record contains this state: before another process continues a session, its packets leave.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use evenkeel_media::pacer::{PacedClass, Pacer, QUANTUM};
use evenkeel_media::rtp;
use evenkeel_model::DropReason;

use super::repair_memory::{RepairMemory, ReservedMemory};
use super::report::WorkerStats;
use crate::flows::Home;
use crate::mmsg::DATAGRAM_MAX;

/// Limit of waiting packets of a session: a key frame of 0.6 MB.
const WAITING_MAX: usize = 512;

/// With a shorter latency packets would be late before the worker visits them.
pub(super) const LATENCY_MIN: Duration = Duration::from_millis(10);

/// Streams of which the last key frame is known.
const STREAMS_MAX: usize = 8;

/// Sessions with packets that wait.
#[derive(Debug)]
pub(crate) struct PacedSessions {
    homes: VecDeque<Home>,
    due: Instant,
}

impl PacedSessions {
    pub(super) fn new(now: Instant) -> PacedSessions {
        PacedSessions { homes: VecDeque::new(), due: now }
    }

    /// Adds a session after its packets began to wait, or after a visit that left some.
    pub(crate) fn add(&mut self, home: Home, now: Instant) {
        if self.homes.is_empty() {
            self.due = now + QUANTUM;
        }
        self.homes.push_back(home);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// Time of the next visit of these sessions.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.homes.is_empty()).then_some(self.due)
    }

    /// Begins the visit that is due. Returns the number of sessions to [`pop`](Self::pop).
    pub(super) fn begin(&mut self, now: Instant) -> usize {
        if now < self.due {
            return 0;
        }
        self.due = now + QUANTUM;
        self.homes.len()
    }

    pub(super) fn pop(&mut self) -> Option<Home> {
        self.homes.pop_front()
    }
}

/// A packet that waits.
#[derive(Debug)]
pub(super) struct HeldPacket {
    /// By the client's numbers and the room's payload types.
    pub(super) bytes: Vec<u8>,
    /// It was sent before, and is sent again as it was then.
    pub(super) is_repeated: bool,
}

/// The pacing of a client's video.
#[derive(Debug)]
pub(super) struct SessionPacing {
    pacer: Pacer<HeldPacket>,
    reserved: ReservedMemory,
    /// There was no memory for the last packet that was to wait.
    pub(super) is_short: bool,
    key_frames: Vec<KeyFrame>,
    /// Buffers of packets that have left.
    spare: Vec<Vec<u8>>,
    /// A packet began to wait since the last call of [`SessionPacing::follow`].
    was_used: bool,
    /// The session is among those that the worker visits.
    is_listed: bool,
}

/// The last key frame of a stream, by the numbers of its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct KeyFrame {
    ssrc: u32,
    timestamp: u32,
}

impl SessionPacing {
    /// Follows the estimated rate. Without one pacing ends: no packet may wait then. Called every 100 ms.
    pub(super) fn follow(pacing: &mut Option<Box<SessionPacing>>, kbps: Option<u32>, now: Instant) {
        match (pacing.as_deref_mut(), kbps) {
            (None, Some(kbps)) => {
                *pacing = Some(Box::new(SessionPacing {
                    pacer: Pacer::new(kbps, now),
                    reserved: ReservedMemory::default(),
                    is_short: false,
                    key_frames: Vec::new(),
                    spare: Vec::new(),
                    was_used: false,
                    is_listed: false,
                }));
            }
            (Some(pacing), Some(kbps)) => {
                pacing.set_rate(kbps, now);
                pacing.release_unused();
            }
            (_, None) => *pacing = None,
        }
    }

    pub(super) fn set_rate(&mut self, kbps: u32, now: Instant) {
        self.pacer.set_rate(kbps, now);
    }

    fn release_unused(&mut self) {
        if !mem::take(&mut self.was_used) && self.pacer.waiting() == 0 {
            self.spare = Vec::new();
            self.reserved = ReservedMemory::default();
        }
    }

    /// Returns the class of a packet of media. `begins`: a key frame begins with it.
    pub(super) fn class_of(&mut self, header: &rtp::RtpHeader, begins: bool) -> PacedClass {
        let frame = KeyFrame { ssrc: header.ssrc, timestamp: header.timestamp };
        if begins {
            self.key_frames.retain(|known| known.ssrc != frame.ssrc);
            if self.key_frames.len() == STREAMS_MAX {
                self.key_frames.remove(0);
            }
            self.key_frames.push(frame);
        }
        if self.key_frames.contains(&frame) { PacedClass::KeyFrame } else { PacedClass::Video }
    }

    /// Returns whether a packet of this length leaves at once.
    pub(super) fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        self.pacer.admits(bytes, now)
    }

    /// Reserves memory for one more packet. Returns false if there is none, or too many wait.
    pub(super) fn reserve(&mut self, memory: &RepairMemory) -> bool {
        let packets = self.pacer.waiting() + 1;
        let fits = packets <= WAITING_MAX && self.reserved.grow_to(packets * DATAGRAM_MAX, memory);
        self.is_short = !fits;
        fits
    }

    /// Has a packet wait. Memory for it was [reserved](Self::reserve).
    pub(super) fn hold(
        &mut self,
        packet: &[u8],
        is_repeated: bool,
        class: PacedClass,
        until: Instant,
        rewrite: impl FnOnce(&mut [u8]),
    ) {
        self.was_used = true;
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(packet);
        rewrite(&mut bytes);
        let ssrc = rtp::ssrc_and_sequence(&bytes).map_or(0, |(ssrc, _)| ssrc);
        let length = bytes.len();
        self.pacer.push(HeldPacket { bytes, is_repeated }, length, class, ssrc, until);
    }

    /// Has the worker visit the session, since packets wait.
    pub(super) fn list(&mut self, home: Home, paced: &mut PacedSessions, now: Instant) {
        if !mem::replace(&mut self.is_listed, true) {
            paced.add(home, now);
        }
    }

    /// Returns whether packets wait, so that the worker visits the session again.
    pub(super) fn stays_listed(&mut self) -> bool {
        self.is_listed = self.pacer.waiting() > 0;
        self.is_listed
    }

    /// Has a packet wait that repairs others, if its turn has not come and there is memory.
    pub(super) fn hold_repair(
        &mut self,
        packet: &[u8],
        is_repeated: bool,
        latency: Duration,
        memory: &RepairMemory,
        now: Instant,
    ) -> bool {
        let waits = !self.admits(packet.len(), now) && self.reserve(memory);
        if waits {
            self.hold(packet, is_repeated, PacedClass::VideoRepair, now + latency, |_| {});
        }
        waits
    }

    /// Takes the next packet that may leave now, or `all` of them, one by one. Drops those that are late.
    pub(super) fn next(
        &mut self,
        all: bool,
        stats: &WorkerStats,
        now: Instant,
    ) -> Option<HeldPacket> {
        for _ in 0..self.pacer.expire(now) {
            stats.dropped(DropReason::Late);
        }
        if all { self.pacer.take() } else { self.pacer.next(now) }
    }

    /// Takes the buffer of a packet that was sent.
    pub(super) fn reuse(&mut self, buffer: Vec<u8>) {
        self.spare.push(buffer);
    }
}

#[cfg(test)]
mod tests;
