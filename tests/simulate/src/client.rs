//! Clients: what they send, on packet clocks of their own, and what their receivers hear.

use std::time::{Duration, Instant};

use evenkeel_core::{Kind, SessionId};
use fastrand::Rng;

use crate::packet::{Numbers, Packet};
use crate::script::Join;

/// Between two packets of voice.
pub(crate) const VOICE_EVERY: Duration = Duration::from_millis(20);
/// Between two frames of video; each is some packets.
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
    /// It stopped sending, and told nobody.
    pub(crate) mute: bool,
    voice: Source,
    video: Source,
    pub(crate) heard: Vec<Heard>,
}

struct Source {
    numbers: Numbers,
    index: u32,
}

/// What a receiver hears of one sender's voice.
pub(crate) struct Heard {
    pub(crate) origin: u32,
    pub(crate) last: Instant,
    /// The newest that came, and which of those before it did: the lowest bit is the newest.
    index: u32,
    came: u128,
    /// Packets since this was last set to zero.
    pub(crate) lately: u32,
    pub(crate) watch: Option<Watch>,
}

/// The worst gap since something went wrong.
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

    /// Its packets of one beat of this clock, and when the next beat is.
    pub(crate) fn beat(&mut self, me: u32, kind: Kind) -> (Vec<Packet>, Duration) {
        let room = self.join.room;
        match kind {
            Kind::Audio => (vec![self.voice.next(me, room, kind, false, 960)], VOICE_EVERY),
            Kind::Video => {
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

    /// A packet of voice arrives; how long nothing had come from that sender.
    pub(crate) fn hear(&mut self, packet: &Packet, at: Instant) -> Duration {
        let Some(heard) = self.heard.iter_mut().find(|heard| heard.origin == packet.origin) else {
            let (origin, index) = (packet.origin, packet.index);
            self.heard.push(Heard { origin, last: at, index, came: 1, lately: 1, watch: None });
            return Duration::ZERO;
        };
        heard.lately += 1;
        let gap = at.saturating_duration_since(heard.last);
        heard.last = heard.last.max(at);
        let ahead = packet.index.saturating_sub(heard.index);
        heard.came = heard.came.checked_shl(ahead).unwrap_or(0);
        heard.index = heard.index.max(packet.index);
        heard.came |= 1_u128.checked_shl(heard.index - packet.index).unwrap_or(0);
        if let Some(watch) = &mut heard.watch {
            watch.worst = watch.worst.max(gap);
            watch.lost += ahead.saturating_sub(1);
        }
        gap
    }
}

impl Heard {
    /// Whether this packet did not come, as far as that is remembered.
    pub(crate) fn missed(&self, index: u32) -> bool {
        match self.index.checked_sub(index) {
            Some(behind) => 1_u128.checked_shl(behind).is_some_and(|bit| self.came & bit == 0),
            None => true,
        }
    }
}

impl Source {
    fn next(&mut self, me: u32, room: u32, kind: Kind, marker: bool, ticks: u32) -> Packet {
        let packet = Packet::new(me, room, self.index, kind, marker, self.numbers);
        self.index += 1;
        self.numbers.sequence = self.numbers.sequence.wrapping_add(1);
        self.numbers.timestamp = self.numbers.timestamp.wrapping_add(ticks);
        packet
    }
}
