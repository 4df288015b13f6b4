//! Codecs, and their payload types in rooms.

use evenkeel_media::repair::red;
use sdp_types::RtpMap;

/// Audio or video.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodecKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
}

impl CodecKind {
    /// Returns the media type of the m-line.
    pub fn as_str(self) -> &'static str {
        match self {
            CodecKind::Audio => "audio",
            CodecKind::Video => "video",
        }
    }
}

/// A supported codec, with the parameters without which two ends do not understand one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// Opus, 48 kHz (RFC 7587).
    Opus,
    /// G.711 µ-law, 8 kHz (RFC 3551).
    Pcmu,
    /// G.711 A-law, 8 kHz (RFC 3551).
    Pcma,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9 (RFC 9628).
    Vp9 {
        /// `profile-id`, 0 to 3; 0 if absent.
        profile: u8,
    },
    /// H.264 (RFC 6184).
    H264 {
        /// The profile in `profile-level-id`. The level does not tell codecs apart.
        profile: H264Profile,
        /// True for `packetization-mode=1`, false for 0 or if absent. Mode 2 is not supported.
        fragmented: bool,
    },
    /// AV1 (AV1 RTP payload format 1.0, section 7).
    Av1 {
        /// `profile`, 0 to 2; 0 if absent.
        profile: u8,
    },
    /// Named events, such as DTMF (RFC 4733), beside a codec for voice.
    TelephoneEvent {
        /// 8,000 or 48,000 per second.
        clock_rate: u32,
    },
}

/// A profile of H.264 by `profile_idc` and constraint flags (RFC 6184, table 5; ITU-T H.264, A.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum H264Profile {
    /// H.264, A.2.1.1; the profile of RFC 7742, section 6.2.
    ConstrainedBaseline,
    /// H.264, A.2.1.
    Baseline,
    /// H.264, A.2.2.
    Main,
    /// H.264, A.2.4.2.
    ConstrainedHigh,
    /// H.264, A.2.4.
    High,
    /// H.264, A.2.7.
    High444Predictive,
}

/// A payload type's format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The codec itself.
    Media(Codec),
    /// Retransmissions of the codec's packets (RFC 4588).
    Retransmission(Codec),
    /// Redundant blocks of the codec (RFC 2198).
    Redundancy(Codec),
    /// Parity of the packets of an m-line of video (draft-ietf-payload-flexible-fec-scheme-03).
    Parity,
}

/// The name of [`Format::Parity`].
const PARITY_NAME: &str = "flexfec-03";

/// The clock rate of video.
const VIDEO_RATE: u32 = 90_000;

/// `profile_idc`, the constraint flags that are compared, and their values (RFC 6184, table 5; Constrained High is of H.264, A.2.4.2).
const H264_PROFILES: [(u8, u8, u8, H264Profile); 9] = [
    (0x42, 0b0100_1111, 0b0100_0000, H264Profile::ConstrainedBaseline),
    (0x4d, 0b1000_1111, 0b1000_0000, H264Profile::ConstrainedBaseline),
    (0x58, 0b1100_1111, 0b1100_0000, H264Profile::ConstrainedBaseline),
    (0x42, 0b0100_1111, 0b0000_0000, H264Profile::Baseline),
    (0x58, 0b1100_1111, 0b1000_0000, H264Profile::Baseline),
    (0x4d, 0b1010_1111, 0b0000_0000, H264Profile::Main),
    (0x64, 0b1111_1111, 0b0000_0000, H264Profile::High),
    (0x64, 0b1111_1111, 0b0000_1100, H264Profile::ConstrainedHigh),
    (0xf4, 0b1111_1111, 0b0000_0000, H264Profile::High444Predictive),
];

/// The `profile-level-id` of a description without one: Baseline, level 1 (RFC 6184, section 8.1).
const H264_DEFAULT: &str = "42000a";

const fn vp9(profile: u8) -> Codec {
    Codec::Vp9 { profile }
}

const fn av1(profile: u8) -> Codec {
    Codec::Av1 { profile }
}

const fn h264(profile: H264Profile, fragmented: bool) -> Codec {
    Codec::H264 { profile, fragmented }
}

/// The payload types of video and of its retransmissions in rooms: Chromium's where it has one, so that its packets keep their
/// numbers. Numbers from 64 to 95 would be taken for RTCP (RFC 5761, section 4).
const VIDEO_NUMBERS: [(Codec, u8, u8); 20] = [
    (Codec::Vp8, 96, 97),
    (vp9(0), 98, 99),
    (vp9(1), 35, 36),
    (vp9(2), 100, 101),
    (vp9(3), 37, 38),
    (av1(0), 45, 46),
    (av1(1), 47, 48),
    (av1(2), 49, 50),
    (h264(H264Profile::Baseline, true), 102, 103),
    (h264(H264Profile::Baseline, false), 104, 105),
    (h264(H264Profile::ConstrainedBaseline, true), 106, 107),
    (h264(H264Profile::ConstrainedBaseline, false), 108, 109),
    (h264(H264Profile::Main, true), 127, 125),
    (h264(H264Profile::Main, false), 39, 40),
    (h264(H264Profile::High, true), 112, 113),
    (h264(H264Profile::High, false), 114, 115),
    (h264(H264Profile::ConstrainedHigh, true), 119, 120),
    (h264(H264Profile::ConstrainedHigh, false), 121, 122),
    (h264(H264Profile::High444Predictive, true), 123, 124),
    (h264(H264Profile::High444Predictive, false), 41, 42),
];

impl Codec {
    /// Returns the kind of its m-lines.
    pub fn kind(self) -> CodecKind {
        match self {
            Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::TelephoneEvent { .. } => {
                CodecKind::Audio
            }
            Codec::Vp8 | Codec::Vp9 { .. } | Codec::H264 { .. } | Codec::Av1 { .. } => {
                CodecKind::Video
            }
        }
    }

    /// Returns the RTP timestamp units per second.
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            Codec::Pcmu | Codec::Pcma => 8_000,
            Codec::Vp8 | Codec::Vp9 { .. } | Codec::H264 { .. } | Codec::Av1 { .. } => VIDEO_RATE,
            Codec::TelephoneEvent { clock_rate } => clock_rate,
        }
    }

    /// Returns the registered name of the encoding.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            Codec::Vp8 => "VP8",
            Codec::Vp9 { .. } => "VP9",
            Codec::H264 { .. } => "H264",
            Codec::Av1 { .. } => "AV1",
            Codec::TelephoneEvent { .. } => "telephone-event",
        }
    }

    /// Returns true for named events, which accompany a codec.
    pub(crate) fn is_event(self) -> bool {
        matches!(self, Codec::TelephoneEvent { .. })
    }

    /// Returns the codec of an `a=rtpmap` and its `a=fmtp`; `None` if it is not supported.
    pub(crate) fn read(map: &RtpMap, parameters: &str) -> Option<Codec> {
        let number = |name| match parameter(parameters, name) {
            Some(text) => text.parse::<u8>().ok(),
            None => Some(0),
        };
        let codecs = [Codec::Opus, Codec::Pcmu, Codec::Pcma, Codec::Vp8];
        let is = |name: &str| map.encoding_name.eq_ignore_ascii_case(name);
        let codec = match codecs.into_iter().find(|codec| is(codec.name())) {
            Some(codec) => codec,
            None if is("VP9") => vp9(number("profile-id")?),
            None if is("AV1") => av1(number("profile")?),
            None if is("H264") => {
                let level_id = parameter(parameters, "profile-level-id").unwrap_or(H264_DEFAULT);
                let mode = number("packetization-mode").filter(|mode| *mode <= 1)?;
                h264(H264Profile::read(level_id)?, mode == 1)
            }
            None if is("telephone-event") => Codec::TelephoneEvent { clock_rate: map.clock_rate },
            None => return None,
        };
        let channels = if codec == Codec::Opus { "2" } else { "1" };
        let offered = map.encoding_params.as_deref().unwrap_or("1");
        let fits = map.clock_rate == codec.clock_rate() && offered == channels;
        let is_numbered = Format::Media(codec).room_number().is_some();
        (fits && is_numbered).then_some(codec)
    }
}

impl H264Profile {
    /// Reads a `profile-level-id`: three bytes in hexadecimal. `None` if it is malformed or of another profile.
    fn read(level_id: &str) -> Option<H264Profile> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(level_id.as_bytes()).ok()?;
        let [profile_idc, flags, _level] = bytes.try_into().ok()?;
        let rows = H264_PROFILES.iter();
        let mut found =
            rows.filter(|(idc, mask, value, _)| *idc == profile_idc && flags & mask == *value);
        found.next().map(|(.., profile)| *profile)
    }
}

impl Format {
    /// Returns whether an `a=rtpmap` is that of [`Format::Parity`].
    pub(crate) fn is_parity(map: &RtpMap) -> bool {
        map.encoding_name.eq_ignore_ascii_case(PARITY_NAME) && map.clock_rate == VIDEO_RATE
    }

    /// Returns the codec of the payload, or of the payload that it repairs. Parity repairs any.
    pub fn codec(self) -> Option<Codec> {
        match self {
            Format::Media(codec) | Format::Retransmission(codec) | Format::Redundancy(codec) => {
                Some(codec)
            }
            Format::Parity => None,
        }
    }

    /// Returns the RTP timestamp units per second.
    pub fn clock_rate(self) -> u32 {
        self.codec().map_or(VIDEO_RATE, Codec::clock_rate)
    }

    /// Returns the name of the encoding: that of the codec, `rtx` (RFC 4588), `red` (RFC 2198) or `flexfec-03`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Media(codec) => codec.name(),
            Format::Retransmission(_) => "rtx",
            Format::Redundancy(_) => "red",
            Format::Parity => PARITY_NAME,
        }
    }

    /// Returns the payload type in every room: a function of the format, so that no gateway needs the state of another to know it.
    /// `None` for a format that the gateway does not accept.
    pub fn room_number(self) -> Option<u8> {
        let video = |codec| VIDEO_NUMBERS.iter().find(|(numbered, ..)| *numbered == codec);
        match self {
            Format::Media(Codec::Opus) => Some(111),
            Format::Redundancy(Codec::Opus) => Some(red::ROOM_PAYLOAD_TYPE),
            Format::Media(Codec::Pcmu) => Some(0),
            Format::Media(Codec::Pcma) => Some(8),
            Format::Media(Codec::TelephoneEvent { clock_rate: 8_000 }) => Some(126),
            Format::Media(Codec::TelephoneEvent { clock_rate: 48_000 }) => Some(110),
            Format::Media(codec) => video(codec).map(|(_, number, _)| *number),
            Format::Retransmission(codec) => video(codec).map(|(.., number)| *number),
            Format::Redundancy(_) => None,
            Format::Parity => Some(43),
        }
    }

    /// Returns the `a=fmtp` of an answer for that of an offer.
    ///
    /// Parameters that describe the client's own stream (`sprop-…`) and experiments (`x-…`) are left out.
    pub(crate) fn answered_parameters(self, offered: &str) -> String {
        if let Format::Media(Codec::H264 { .. }) = self {
            return answered_h264(offered);
        }
        let is_answered = |parameter: &&str| {
            let heads = ["sprop-", "x-"];
            !parameter.is_empty() && !heads.iter().any(|head| parameter.starts_with(head))
        };
        offered.split(';').map(str::trim).filter(is_answered).collect::<Vec<_>>().join(";")
    }
}

/// Returns the `a=fmtp` of an answer (RFC 6184, section 8.2.2).
///
/// The configuration is that of the offer, which section 8.2.2 demands of all but the level. The level is that of the offer too: the
/// gateway decodes nothing, and a higher one is forbidden unless both sides allow asymmetry. Capabilities of receivers beyond the level
/// (`max-fs`, `max-br` and others) are left out, because other clients decode the stream.
///
/// Parameter sets in the offer (`sprop-parameter-sets`) do not reach those clients either: the client must send them in band.
fn answered_h264(offered: &str) -> String {
    let mut answered = Vec::new();
    if parameter(offered, "level-asymmetry-allowed") == Some("1") {
        answered.push(String::from("level-asymmetry-allowed=1"));
    }
    for name in ["packetization-mode", "profile-level-id"] {
        answered.extend(parameter(offered, name).map(|value| format!("{name}={value}")));
    }
    if offered.contains("sprop-") {
        answered.push(String::from("in-band-parameter-sets=1"));
    }
    answered.join(";")
}

/// Returns the value of a parameter of an `a=fmtp` line; empty for a parameter without one.
pub(crate) fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests;
