//! Finds the packets that a sender's streams lack, and decides when the sender is asked for them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{KEPT_MAX, PathTiming};
use crate::retransmission;
use crate::rtp::{RtpHeader, sequence_ahead};

/// Streams of a sender that are followed: voice, and video with its layers.
const STREAMS_MAX: usize = 8;

/// Limit of missing packets of a stream. After a longer gap the path was interrupted, and a key frame costs less.
const MISSING_MAX: usize = 128;

/// A packet further behind the highest one is no late one: the stream may have restarted.
const BEHIND_MAX: i16 = 1_000;

/// A packet may come after so many later ones, or so long after its turn, before it counts as lost: paths with several links
/// reorder packets that were sent together.
const LATER_PACKETS: u16 = 3;
const LATER: Duration = Duration::from_millis(10);

/// The packets that a sender's streams lack.
///
/// There is no timer: a request is due when a later packet comes, or when [`next_request`](MissingPackets::next_request) is called
/// for other reasons.
#[derive(Default, Debug)]
pub struct MissingPackets {
    streams: Vec<StreamNumbers>,
    /// The numbers of the last request.
    numbers: Vec<u16>,
}

#[derive(Debug)]
struct StreamNumbers {
    ssrc: u32,
    /// The payload types of its packets, a bit each.
    payload_types: u128,
    highest: u16,
    /// The time at which the highest number came.
    highest_at: Instant,
    /// The number that would follow a jump: two consecutive numbers are accepted (RFC 3550, appendix A.1).
    after_jump: Option<u16>,
    /// In the order of their numbers. Those that were asked for remain for a while after they came, since they may come twice.
    missing: VecDeque<MissingNumber>,
}

#[derive(Debug)]
struct MissingNumber {
    sequence: u16,
    /// The time at which it would have come, evenly between its neighbours.
    due: Instant,
    /// The last request for it.
    asked: Option<Instant>,
    has_come: bool,
}

/// Packets of a stream to ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketRequest<'a> {
    pub ssrc: u32,
    pub numbers: &'a [u16],
}

/// The packet in a retransmission under an SSRC of its own (RFC 4588).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetransmittedPacket {
    /// It was asked for, and had not come. The SSRC is that of its stream.
    Missing(u32),
    /// It was asked for, and had come.
    Repeated,
    /// It was not asked for, or several streams lack a packet with this number.
    Unasked,
    /// No stream has sent such a number lately.
    Unknown,
}

impl MissingPackets {
    /// Handles a packet. Returns whether it was asked for.
    pub fn receive(&mut self, header: &RtpHeader, now: Instant) -> bool {
        let &RtpHeader { ssrc, sequence, payload_type, .. } = header;
        let payload_type = 1_u128 << (payload_type & 0x7f);
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            stream.payload_types |= payload_type;
            return stream.receive(sequence, now);
        }
        if self.streams.len() == STREAMS_MAX {
            self.streams.remove(0);
        }
        self.streams.push(StreamNumbers {
            ssrc,
            payload_types: payload_type,
            highest: sequence,
            highest_at: now,
            after_jump: None,
            missing: VecDeque::new(),
        });
        false
    }

    /// Handles a retransmission under an SSRC of its own, which contains the packet with this number. `payload_type` is that of the packet;
    /// `None` if it is unknown.
    pub fn receive_retransmission(
        &mut self,
        sequence: u16,
        payload_type: Option<u8>,
    ) -> RetransmittedPacket {
        let may_be = |stream: &&mut StreamNumbers| {
            payload_type.is_none_or(|number| stream.payload_types >> (number & 0x7f) & 1 == 1)
        };
        let (mut lacking, mut has_come) = (None, false);
        for (index, stream) in self.streams.iter_mut().enumerate().filter(|(_, it)| may_be(it)) {
            let Some(number) = stream.find(sequence).filter(|it| it.asked.is_some()) else {
                continue;
            };
            if number.has_come {
                has_come = true;
            } else if lacking.replace(index).is_some() {
                return RetransmittedPacket::Unasked;
            }
        }
        if let Some(index) = lacking {
            let stream = &mut self.streams[index];
            if let Some(number) = stream.find(sequence) {
                number.has_come = true;
            }
            return RetransmittedPacket::Missing(stream.ssrc);
        }
        if has_come {
            return RetransmittedPacket::Repeated;
        }
        let streams = self.streams.iter_mut().filter(may_be);
        let sender = retransmission::repaired(sequence, streams.map(|it| (it.ssrc, it.highest)));
        sender.map_or(RetransmittedPacket::Unknown, |_| RetransmittedPacket::Unasked)
    }

    /// Notes that this packet was recovered without a request.
    pub fn note_recovered(&mut self, ssrc: u32, sequence: u16) {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc);
        if let Some(number) = stream.and_then(|stream| stream.find(sequence)) {
            number.has_come = true;
        }
    }

    /// Returns packets to ask for now, stream by stream. They count as asked for.
    pub fn next_request(&mut self, timing: PathTiming, now: Instant) -> Option<PacketRequest<'_>> {
        self.numbers.clear();
        let ssrc = self.streams.iter_mut().find_map(|stream| {
            stream.ask(timing, now, &mut self.numbers);
            (!self.numbers.is_empty()).then_some(stream.ssrc)
        })?;
        Some(PacketRequest { ssrc, numbers: &self.numbers })
    }

    /// Returns whether another receiver's request for this packet may pass: none was sent that may still be answered. One that
    /// passes counts as sent, and a packet that had come is missing again.
    pub fn admit_request(
        &mut self,
        ssrc: u32,
        sequence: u16,
        timing: PathTiming,
        now: Instant,
    ) -> bool {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc);
        let number = stream.and_then(|stream| stream.find(sequence));
        number.is_none_or(|number| {
            let is_due = number.may_be_asked(timing, now);
            if is_due {
                (number.asked, number.has_come) = (Some(now), false);
            }
            is_due
        })
    }

    /// Returns whether packets are missing that may still come.
    pub fn awaits_packets(&self, now: Instant) -> bool {
        let may_come = |number: &MissingNumber| {
            !number.has_come && now.saturating_duration_since(number.due) <= KEPT_MAX
        };
        self.streams.iter().any(|stream| stream.missing.iter().any(may_come))
    }
}

impl StreamNumbers {
    fn find(&mut self, sequence: u16) -> Option<&mut MissingNumber> {
        self.missing.iter_mut().find(|number| number.sequence == sequence)
    }

    fn receive(&mut self, sequence: u16, now: Instant) -> bool {
        let ahead = sequence_ahead(sequence, self.highest);
        match ahead {
            1.. if usize::from(ahead.unsigned_abs()) <= MISSING_MAX + 1 => {
                self.skip_to(sequence, u32::from(ahead.unsigned_abs()), now);
                false
            }
            ..=0 if ahead >= -BEHIND_MAX => {
                let Some(number) = self.find(sequence) else { return false };
                number.has_come = true;
                let was_asked = number.asked.is_some();
                if !was_asked {
                    self.missing.retain(|number| number.sequence != sequence);
                }
                was_asked
            }
            _ if self.after_jump == Some(sequence) => {
                (self.highest, self.highest_at, self.after_jump) = (sequence, now, None);
                self.missing.clear();
                false
            }
            _ => {
                self.after_jump = Some(sequence.wrapping_add(1));
                false
            }
        }
    }

    /// Makes this number the highest one. Those between are missing.
    fn skip_to(&mut self, sequence: u16, ahead: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.highest_at);
        for step in 1..ahead {
            if self.missing.len() == MISSING_MAX {
                self.missing.pop_front();
            }
            self.missing.push_back(MissingNumber {
                sequence: self.highest.wrapping_add(step as u16),
                due: self.highest_at + passed * step / ahead,
                asked: None,
                has_come: false,
            });
        }
        (self.highest, self.highest_at, self.after_jump) = (sequence, now, None);
    }

    fn ask(&mut self, timing: PathTiming, now: Instant, numbers: &mut Vec<u16>) {
        let since = |time: Instant| now.saturating_duration_since(time);
        while self.missing.front().is_some_and(|first| since(first.due) > timing.kept_for()) {
            self.missing.pop_front();
        }
        let highest = self.highest;
        for number in self.missing.iter_mut().filter(|number| !number.has_come) {
            let is_lost = highest.wrapping_sub(number.sequence) >= LATER_PACKETS
                || since(number.due) >= LATER;
            // Its retransmission comes a round trip later.
            let is_in_time = since(number.due) <= timing.latency.min(KEPT_MAX);
            if is_lost && is_in_time && number.may_be_asked(timing, now) {
                number.asked = Some(now);
                numbers.push(number.sequence);
            }
        }
    }
}

impl MissingNumber {
    fn may_be_asked(&self, timing: PathTiming, now: Instant) -> bool {
        let is_lost = |asked| now.saturating_duration_since(asked) >= timing.repeated_after();
        self.asked.is_none_or(is_lost)
    }
}

#[cfg(test)]
mod tests;
