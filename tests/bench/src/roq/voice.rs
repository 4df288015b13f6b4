//! A voice packet with session, number and send time.

use std::io;
use std::time::{Duration, Instant};

use crate::load::Trace;

/// Packet interval of a stream.
const EVERY: Duration = Duration::from_millis(20);
pub(super) const PAYLOAD_TYPE: u8 = 111;
/// Offset between two sessions in the recording, so that their lengths differ.
const APART: usize = 37;
/// RTP's fixed header (RFC 3550, 5.1), then session number, packet number and send time.
const LENGTH_MIN: usize = 12 + 4 + 4 + 8;

/// The packets of all sessions, each from another offset of the recording.
pub(super) struct Voice(Trace);

impl Voice {
    pub(super) fn new() -> io::Result<Voice> {
        Trace::voice().map(Voice).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Writes the packet that a session sends as its `number`th, `at_ns` after the beginning.
    pub(super) fn write(&self, session: u32, number: u32, at_ns: u64, packet: &mut Vec<u8>) {
        packet.clear();
        packet.extend_from_slice(&[0x80, PAYLOAD_TYPE]);
        packet.extend_from_slice(&(number as u16).to_be_bytes());
        packet.extend_from_slice(&number.wrapping_mul(960).to_be_bytes());
        packet.extend_from_slice(&(session + 1).to_be_bytes());
        packet.extend_from_slice(&session.to_be_bytes());
        packet.extend_from_slice(&number.to_be_bytes());
        packet.extend_from_slice(&at_ns.to_be_bytes());
        let place = session as usize * APART + number as usize;
        packet.resize(self.0.length(place).max(LENGTH_MIN), 0xa5);
    }
}

/// Session, number and send time of a packet; `None` for other packets.
pub(super) fn read(packet: &[u8]) -> Option<(u32, u32, u64)> {
    if packet.len() < LENGTH_MIN || packet[1] & 0x7f != PAYLOAD_TYPE {
        return None;
    }
    let word = |at: usize| packet[at..at + 4].try_into().map(u32::from_be_bytes).ok();
    Some((word(12)?, word(16)?, packet[20..28].try_into().map(u64::from_be_bytes).ok()?))
}

/// The number of packets that all sessions together have to send in this time.
pub(super) fn due(sessions: usize, elapsed: Duration) -> u64 {
    (elapsed.as_nanos() * sessions as u128 / EVERY.as_nanos()) as u64
}

pub(super) fn since(beginning: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(beginning).as_nanos() as u64
}

/// Delays and losses at one end.
#[derive(Default, Debug)]
pub(super) struct ReceivedVoice {
    pub(super) came: u64,
    /// Packets of another session.
    pub(super) misdelivered: u64,
    delays_ns: Vec<u32>,
    /// Packets by session number, up to the highest that arrived.
    by_session: Vec<u32>,
}

impl ReceivedVoice {
    /// Adds a packet of this session with its delay, and whether it arrived at its own client.
    pub(super) fn note(&mut self, session: u32, own: bool, delay_ns: u64) {
        let place = session as usize;
        if self.by_session.len() <= place {
            self.by_session.resize(place + 1, 0);
        }
        self.by_session[place] += 1;
        self.came += 1;
        self.misdelivered += u64::from(!own);
        self.delays_ns.push(delay_ns.min(u64::from(u32::MAX)) as u32);
    }

    /// Forgets packets except misdelivered ones.
    pub(super) fn clear(&mut self) {
        *self = ReceivedVoice { misdelivered: self.misdelivered, ..ReceivedVoice::default() };
    }

    /// Those of the first `sessions` sessions of which no packet arrived.
    pub(super) fn missing(&self, sessions: usize) -> Vec<usize> {
        let arrived = |session: &usize| self.by_session.get(*session).is_some_and(|it| *it > 0);
        (0..sessions).filter(|session| !arrived(session)).collect()
    }

    /// Packets of the session with the fewest, divided by the mean.
    pub(super) fn least_share(&self, sessions: usize) -> f64 {
        let least = match self.by_session.len() < sessions {
            true => 0,
            false => self.by_session.iter().copied().min().unwrap_or(0),
        };
        f64::from(least) * sessions as f64 / self.came.max(1) as f64
    }

    /// The delay that this share of the packets had at most, microseconds.
    pub(super) fn delay_us(&mut self, share: f64) -> Option<f64> {
        self.delays_ns.sort_unstable();
        let rank = ((share * self.delays_ns.len() as f64).ceil() as usize).max(1);
        self.delays_ns.get(rank - 1).map(|&ns| f64::from(ns) / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_carries_session_and_send_time() {
        let (voice, mut packet) = (Voice::new().unwrap(), Vec::new());
        voice.write(7, 70_000, 123, &mut packet);
        assert_eq!(read(&packet), Some((7, 70_000, 123)));
        packet[1] = 96;
        assert_eq!(read(&packet), None);
        assert_eq!(read(&packet[..27]), None);
    }

    #[test]
    fn delays_are_those_of_the_nearest_rank() {
        let mut seen = ReceivedVoice::default();
        (1..=1_000).rev().for_each(|us| seen.note(us as u32 % 4 / 3, us % 2 == 0, us * 1_000));
        assert_eq!(
            [0.5, 0.99, 0.999].map(|share| seen.delay_us(share)),
            [500.0, 990.0, 999.0].map(Some)
        );
        assert_eq!((seen.came, seen.misdelivered), (1_000, 500));
        assert_eq!([2, 3].map(|sessions| seen.least_share(sessions)), [0.5, 0.0]);
        assert_eq!([2, 4].map(|sessions| seen.missing(sessions)), [vec![], vec![2, 3]]);
        assert_eq!(ReceivedVoice::default().delay_us(0.5), None);
    }

    #[test]
    fn each_session_sends_every_20_ms() {
        assert_eq!(due(400, Duration::from_secs(1)), 20_000);
        assert_eq!(due(1, Duration::from_micros(19_999)), 0);
    }
}
