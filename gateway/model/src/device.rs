//! The limits of a client's device on what is sent to it, from the labels of its session.

use crate::ask::Labels;
use crate::offer::{MediaDescription, StreamKind};
use crate::settings::CapBounds;

#[path = "../../../plugin-sdk/src/device.rs"]
mod labels;

/// The limits of a device on what is sent to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DeviceLimits {
    /// The highest bit rate in kbit/s; `None` without a limit.
    pub kbps: Option<u32>,
    /// Payload types that the device cannot decode, as a bit set.
    pub undecodable: u128,
    /// The device can decode none of the session's video.
    pub voice_only: bool,
}

impl DeviceLimits {
    /// The limits by the labels `max-bitrate`, `max-height` and `codec`. Invalid values are ignored.
    pub fn new(labels: &Labels, media: &MediaDescription) -> DeviceLimits {
        let label = |key: &str| {
            labels.iter().find_map(|(name, value)| (**name == *key).then_some(&**value))
        };
        let kbps = labels::max_kbps(label);
        let Some(codecs) = label("codec").filter(|codecs| is_codecs(codecs)) else {
            return DeviceLimits { kbps, ..DeviceLimits::default() };
        };
        let video = media.streams.iter().filter(|stream| stream.kind == StreamKind::Video);
        let (mut undecodable, mut repairs, mut decodes) = (0, 0, false);
        for payload in video.flat_map(|stream| &stream.payload_types) {
            let bit = 1 << (payload.number & 0x7f);
            if payload.is_repair() {
                repairs |= bit;
            } else if named(codecs).any(|codec| codec.eq_ignore_ascii_case(&payload.codec)) {
                decodes = true;
            } else {
                undecodable |= bit;
            }
        }
        let voice_only = media.has_video() && !decodes;
        // Repairs of video that is withheld would repair nothing.
        DeviceLimits {
            kbps,
            undecodable: if voice_only { undecodable | repairs } else { undecodable },
            voice_only,
        }
    }

    /// Checks a label that limits a device.
    ///
    /// # Errors
    /// Fails with the expected value if the label limits a device and its value does not say how.
    pub fn check(key: &str, value: &str) -> Result<(), &'static str> {
        let is_number = || value.parse::<u32>().is_ok_and(|number| number > 0);
        match key {
            "max-bitrate" if !is_number() => Err("kbit/s from 1, as `1500`"),
            "max-height" if !is_number() => Err("pixels from 1, as `720`"),
            "codec" if !is_codecs(value) => Err("names of codecs, as `vp8,h264`"),
            _ => Ok(()),
        }
    }

    /// The scenario's bounds, lowered to the device's limit.
    #[must_use]
    pub fn lowered(&self, bounds: CapBounds) -> CapBounds {
        let limit = self.kbps.unwrap_or(u32::MAX);
        CapBounds {
            floor_kbps: bounds.floor_kbps.min(limit),
            ceiling_kbps: bounds.ceiling_kbps.min(limit),
        }
    }
}

fn named(codecs: &str) -> impl Iterator<Item = &str> {
    codecs.split(',').map(str::trim)
}

fn is_codecs(codecs: &str) -> bool {
    named(codecs).all(|codec| !codec.is_empty())
}

#[cfg(test)]
mod tests;
