//! Simulated clients: the media that they send, and what their receivers get.

use std::time::{Duration, Instant};

use evenkeel_model::{SessionId, StreamKind};
use fastrand::Rng;

use crate::packet::{Numbers, Packet};
use crate::script::Join;

/// Packet interval of audio.
pub(crate) const VOICE_EVERY: Duration = Duration::from_millis(20);
/// Frame interval of video; a frame is `FRAME_PACKETS` packets.
const FRAME_EVERY: Duration = Duration::from_micros(33_333);
const FRAME_PACKETS: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Away,
    Offered,
    Live,
    Gone,
}

pub(crate) struct Client {
    pub(crate) join: Join,
    pub(crate) phase: Phase,
    pub(crate) session: Option<SessionId>,
    pub(crate) since: Instant,
    /// True if the client stopped sending without closing the session.
    pub(crate) mute: bool,
    voice: Source,
    video: Source,
    pub(crate) heard: Vec<Heard>,
}

struct Source {
    numbers: Numbers,
    index: u32,
}

/// The audio of one sender at one receiver.
pub(crate) struct Heard {
    pub(crate) origin: u32,
    pub(crate) last: Instant,
    /// The newest index received.
    index: u32,
    /// Bit `n` is set if the packet `n` before the newest was received.
    received: u128,
    /// Packets since the last reset.
    pub(crate) recent: u32,
    pub(crate) watch: Option<Watch>,
}

/// The worst gap since a fault began.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    pub(crate) episode: usize,
    pub(crate) worst: Duration,
    pub(crate) lost: u32,
}

impl Client {
    pub(crate) fn new(join: Join, now: Instant, rng: &mut Rng) -> Client {
        let mut source = || Source {
            numbers: Numbers { ssrc: rng.u32(1..), sequence: rng.u16(..), timestamp: rng.u32(..) },
            index: 0,
        };
        let (voice, video) = (source(), source());
        Client {
            join,
            phase: Phase::Away,
            session: None,
            since: now,
            mute: false,
            voice,
            video,
            heard: Vec::new(),
        }
    }

    /// The packets of one clock tick, and the time until the next tick.
    pub(crate) fn beat(&mut self, me: u32, kind: StreamKind) -> (Vec<Packet>, Duration) {
        let room = self.join.room;
        match kind {
            StreamKind::Audio => (vec![self.voice.next(me, room, kind, false, 960)], VOICE_EVERY),
            StreamKind::Video => {
                let frame = (1..=FRAME_PACKETS)
                    .map(|part| {
                        let last = part == FRAME_PACKETS;
                        self.video.next(me, room, kind, last, if last { 3_000 } else { 0 })
                    })
                    .collect();
                (frame, FRAME_EVERY)
            }
        }
    }

    /// Handles a received audio packet and returns the gap since the previous one of that sender.
    pub(crate) fn receive(&mut self, packet: &Packet, at: Instant) -> Duration {
        let Some(heard) = self.heard.iter_mut().find(|heard| heard.origin == packet.origin) else {
            let (origin, index) = (packet.origin, packet.index);
            self.heard.push(Heard { origin, last: at, index, received: 1, recent: 1, watch: None });
            return Duration::ZERO;
        };
        heard.recent += 1;
        let gap = at.saturating_duration_since(heard.last);
        heard.last = heard.last.max(at);
        let ahead = packet.index.saturating_sub(heard.index);
        heard.received = heard.received.checked_shl(ahead).unwrap_or(0);
        heard.index = heard.index.max(packet.index);
        heard.received |= 1_u128.checked_shl(heard.index - packet.index).unwrap_or(0);
        if let Some(watch) = &mut heard.watch {
            watch.worst = watch.worst.max(gap);
            watch.lost += ahead.saturating_sub(1);
        }
        gap
    }
}

impl Heard {
    /// True if the packet was not received; packets too old to be remembered count as received.
    pub(crate) fn missed(&self, index: u32) -> bool {
        match self.index.checked_sub(index) {
            Some(behind) => 1_u128.checked_shl(behind).is_some_and(|bit| self.received & bit == 0),
            None => true,
        }
    }
}

impl Source {
    fn next(&mut self, me: u32, room: u32, kind: StreamKind, marker: bool, ticks: u32) -> Packet {
        let packet = Packet::new(me, room, self.index, kind, marker, self.numbers);
        self.index += 1;
        self.numbers.sequence = self.numbers.sequence.wrapping_add(1);
        self.numbers.timestamp = self.numbers.timestamp.wrapping_add(ticks);
        packet
    }
}
