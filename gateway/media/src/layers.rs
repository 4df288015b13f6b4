//! Simulcast (RFC 8853): a sender's video in several layers, each a stream of its own, of which a receiver gets one at a time.
//!
//! [`LayeredVideo`] gives the layer that passes one SSRC and one numbering. Another layer passes from the first packet of its next key
//! frame on; the receiver sees neither a gap nor another stream. [`choice`](LayeredVideo::choose) chooses the layer by its measured rate,
//! [`feedback`] maps RTCP, and [`label`] tells the layers of several senders apart.

mod choice;
pub mod feedback;
pub mod label;

use std::time::{Duration, Instant};

pub use choice::LayerLimits;
use choice::{LayerChoice, LayerRate};
use serde::{Deserialize, Serialize};

use crate::repair::answers::LastSecond;
use crate::rtp::{RtpHeader, sequence_ahead};

/// Limit of the layers of a video. Browsers send up to three.
pub const LAYERS_MAX: usize = 4;

/// Packets of the layer before may come this late.
const LATE_FOR: Duration = Duration::from_secs(1);

/// A number that precedes the highest one by more is too old for its receiver, as in a jitter buffer of seconds.
const BEHIND_MAX: i16 = 8_192;

/// A layer counts once it was received for this time, since its rate is unknown before.
const KNOWN_AFTER: Duration = Duration::from_millis(500);

/// A layer that was silent for this time begins anew.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// The video of one sender.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct LayeredVideo {
    /// Tells the senders of a room apart.
    label: Box<[u8]>,
    /// The SSRC under which the layers go on: that of the layer that passed first.
    ssrc: u32,
    layers: Vec<Layer>,
    /// The place of the layer that passes.
    current: usize,
    numbers: LayerNumbers,
    #[serde(skip)]
    left: Option<LeftLayer>,
    #[serde(skip)]
    newest: Option<NewestPacket>,
    #[serde(skip)]
    choice: LayerChoice,
}

#[derive(Clone, Serialize, Deserialize, Debug)]
struct Layer {
    /// The RID (RFC 8851).
    name: Box<[u8]>,
    ssrc: u32,
    #[serde(skip)]
    received: LastSecond,
    #[serde(skip)]
    heard: Option<HeardSince>,
    /// The timestamp of the newest packet.
    #[serde(skip)]
    timestamp: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct HeardSince {
    since: Instant,
    last: Instant,
}

/// Maps the numbers of a layer to those of the receiver.
#[derive(Clone, Copy, Default, Serialize, Deserialize, Debug)]
struct LayerNumbers {
    /// Added to sequence numbers, and to timestamps.
    sequence: u16,
    timestamp: u32,
    /// The receiver's number of the first packet of the layer. `None` if it passes from the beginning, or has passed for long.
    first: Option<u16>,
}

/// The layer that passed before.
#[derive(Clone, Copy, Debug)]
struct LeftLayer {
    place: usize,
    numbers: LayerNumbers,
    /// The receiver's number of its last packet.
    last: u16,
    until: Instant,
}

/// The newest packet that passed, by the numbers of the receiver.
#[derive(Clone, Copy, Debug)]
struct NewestPacket {
    sequence: u16,
    timestamp: u32,
    /// The first packet with this timestamp.
    at: Instant,
}

impl LayerNumbers {
    /// Returns the receiver's numbers; `None` if the packet precedes the layer's first one.
    fn give(&self, header: &RtpHeader, ssrc: u32) -> Option<RtpHeader> {
        let sequence = header.sequence.wrapping_add(self.sequence);
        let timestamp = header.timestamp.wrapping_add(self.timestamp);
        let passes = self.first.is_none_or(|first| sequence_ahead(sequence, first) >= 0);
        passes.then_some(RtpHeader { ssrc, sequence, timestamp, ..*header })
    }
}

impl LayeredVideo {
    /// The layer with this name passes, under its own numbers.
    pub fn new(label: &[u8], name: &[u8], ssrc: u32) -> LayeredVideo {
        LayeredVideo {
            label: label.into(),
            ssrc,
            layers: vec![Layer::new(name, ssrc)],
            current: 0,
            numbers: LayerNumbers::default(),
            left: None,
            newest: None,
            choice: LayerChoice::default(),
        }
    }

    pub fn has_label(&self, label: &[u8]) -> bool {
        *self.label == *label
    }

    /// Returns the place of the layer with this SSRC.
    pub fn place_of(&self, ssrc: u32) -> Option<usize> {
        self.layers.iter().position(|layer| layer.ssrc == ssrc)
    }

    /// Returns the place of the layer with this name.
    pub fn place_named(&self, name: &[u8]) -> Option<usize> {
        self.layers.iter().position(|layer| *layer.name == *name)
    }

    /// Notes that the layer with this name has this SSRC from now on. Returns its place; `None` beyond [`LAYERS_MAX`].
    ///
    /// If it is the layer that passes, another source sends the video, and its numbers begin anew.
    pub fn learn(&mut self, name: &[u8], ssrc: u32) -> Option<usize> {
        let Some(place) = self.place_named(name) else {
            let is_free = self.layers.len() < LAYERS_MAX;
            return is_free.then(|| {
                self.layers.push(Layer::new(name, ssrc));
                self.layers.len() - 1
            });
        };
        self.layers[place] = Layer::new(name, ssrc);
        if place == self.current {
            self.begin(place);
        }
        Some(place)
    }

    /// Counts a packet of a layer.
    pub fn note_received(&mut self, place: usize, bytes: usize, now: Instant) {
        let layer = &mut self.layers[place];
        layer.received.add(bytes as u32, now);
        let is_silent = |heard: &HeardSince| now.duration_since(heard.last) >= SILENT_AFTER;
        let since = layer.heard.filter(|heard| !is_silent(heard)).map_or(now, |heard| heard.since);
        layer.heard = Some(HeardSince { since, last: now });
    }

    /// Returns the header of a packet towards the receiver; `None` if the receiver does not get it. `begins_key_frame` is asked about
    /// packets of the layer that is to pass next.
    pub fn pass(
        &mut self,
        place: usize,
        header: &RtpHeader,
        clock_rate: u32,
        begins_key_frame: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<RtpHeader> {
        let begins_frame = self.layers[place].timestamp.replace(header.timestamp);
        let begins_frame = begins_frame != Some(header.timestamp);
        if self.choice.target() == Some(place) && begins_frame && begins_key_frame() {
            return Some(self.switch_to(place, header, clock_rate, now));
        }
        let sent = self.numbered(place, header, now)?;
        if place == self.current {
            self.note_passed(&sent, now);
        }
        Some(sent)
    }

    /// Returns the header towards the receiver of a packet that is late, or sent again; `None` if the receiver did not get its layer then.
    pub fn numbered(&self, place: usize, header: &RtpHeader, now: Instant) -> Option<RtpHeader> {
        if place == self.current {
            return self.numbers.give(header, self.ssrc);
        }
        let left = self.left.filter(|left| left.place == place && now < left.until)?;
        let sent = left.numbers.give(header, self.ssrc)?;
        (sequence_ahead(sent.sequence, left.last) <= 0).then_some(sent)
    }

    /// Chooses the layer that is to pass. Called every 100 ms.
    pub fn choose(&mut self, limits: LayerLimits, now: Instant) {
        // The rate of a layer that has just begun is unknown.
        let is_new = |heard: HeardSince| now.saturating_duration_since(heard.since) < KNOWN_AFTER;
        if self.layers[self.current].heard.is_some_and(is_new) {
            return;
        }
        let rates = self.rates(now);
        self.choice.update(&rates, self.current, limits, now);
    }

    /// Returns the SSRC of the layer of which a key frame is to be requested now.
    pub fn due_request(&mut self, now: Instant) -> Option<u32> {
        self.choice.due_request(now).map(|place| self.layers[place].ssrc)
    }

    /// Returns the number of the layer that passes, from 1 for the lowest on; `None` before it is known.
    pub fn rank(&self) -> Option<u8> {
        self.choice.rank()
    }

    /// Returns the rate of the layer that passes, in kbit/s.
    pub fn passing_kbps(&mut self, now: Instant) -> u32 {
        self.layers[self.current].kbps(now)
    }

    /// The layers that are received, lowest first.
    fn rates(&mut self, now: Instant) -> Vec<LayerRate> {
        let layers = self.layers.iter_mut().enumerate();
        let rates = layers.filter_map(|(place, layer)| {
            let (heard, kbps) = (layer.heard?, layer.kbps(now));
            let is_known = now.saturating_duration_since(heard.since) >= KNOWN_AFTER;
            (is_known && kbps > 0).then_some(LayerRate { place, kbps })
        });
        let mut rates: Vec<LayerRate> = rates.collect();
        rates.sort_by_key(|rate| rate.kbps);
        rates
    }

    /// Forgets the parts that no record contains.
    pub fn forget_unrecorded(&mut self) {
        (self.left, self.newest, self.choice) = (None, None, LayerChoice::default());
        for layer in &mut self.layers {
            *layer = Layer::new(&layer.name, layer.ssrc);
        }
    }

    /// Has a layer pass under its own SSRC and numbers.
    fn begin(&mut self, place: usize) {
        (self.current, self.ssrc) = (place, self.layers[place].ssrc);
        (self.numbers, self.left, self.newest) = (LayerNumbers::default(), None, None);
    }

    fn switch_to(
        &mut self,
        place: usize,
        header: &RtpHeader,
        clock_rate: u32,
        now: Instant,
    ) -> RtpHeader {
        if let Some(newest) = self.newest {
            let (before, last) = (self.current, newest.sequence);
            let (numbers, until) = (self.numbers, now + LATE_FOR);
            self.left = Some(LeftLayer { place: before, numbers, last, until });
            let passed_us = now.saturating_duration_since(newest.at).as_micros();
            // Less than 2^32 for half a day at 90 kHz; wraps beyond, as timestamps do.
            let ticks = (passed_us * u128::from(clock_rate) / 1_000_000) as u32;
            let first = last.wrapping_add(1);
            self.current = place;
            self.numbers = LayerNumbers {
                sequence: first.wrapping_sub(header.sequence),
                timestamp: newest
                    .timestamp
                    .wrapping_add(ticks.max(1))
                    .wrapping_sub(header.timestamp),
                first: Some(first),
            };
        } else {
            // Nothing has passed here: the process that passed packets is gone, and so is the layer before.
            self.begin(place);
        }
        self.choice.end_target();
        let sent = RtpHeader {
            ssrc: self.ssrc,
            sequence: header.sequence.wrapping_add(self.numbers.sequence),
            timestamp: header.timestamp.wrapping_add(self.numbers.timestamp),
            ..*header
        };
        self.note_passed(&sent, now);
        sent
    }

    fn note_passed(&mut self, sent: &RtpHeader, now: Instant) {
        let newest = self.newest;
        if newest.is_some_and(|newest| sequence_ahead(sent.sequence, newest.sequence) <= 0) {
            return;
        }
        let same_frame = newest.filter(|newest| newest.timestamp == sent.timestamp);
        let at = same_frame.map_or(now, |newest| newest.at);
        let (sequence, timestamp) = (sent.sequence, sent.timestamp);
        self.newest = Some(NewestPacket { sequence, timestamp, at });
        let is_old = |first: &mut u16| sequence_ahead(sequence, *first) > BEHIND_MAX;
        self.numbers.first.take_if(is_old);
    }
}

impl Layer {
    fn new(name: &[u8], ssrc: u32) -> Layer {
        let (received, heard, timestamp) = (LastSecond::default(), None, None);
        Layer { name: name.into(), ssrc, received, heard, timestamp }
    }

    /// The rate of the last second.
    fn kbps(&mut self, now: Instant) -> u32 {
        u32::try_from(self.received.sum(now) * 8 / 1_000).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
