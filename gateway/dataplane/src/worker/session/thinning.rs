//! Thinner video to a client: whole frames to which no other refers, or of the higher temporal layers, are withheld. The client's numbers
//! continue without a gap, also the picture numbers of VP8. Video of a client that is policed is thinned alike.
//!
//! No record contains this state: another process begins with whole video, and thins it again from its next frame on.

use evenkeel_media::frames::av1::{Av1Frame, DependencyStructure};
use evenkeel_media::frames::{self, FrameLink, LayerJoin};
use evenkeel_media::key_frame;
use evenkeel_media::rtp::RtpHeader;
use evenkeel_media::rtp::extension::element;
use evenkeel_model::{ExtensionUri, MediaDescription, StreamKind};

use super::followed::find_or_push;

/// Streams to one client that are followed.
const STREAMS_MAX: usize = 8;

/// Frames of a stream that are remembered, since their packets may come late.
const FRAMES_KEPT: usize = 4;

/// Frames after which a layer that none of them had counts as gone. Each layer has a frame in eight.
const LAYERS_KNOWN_FOR: u8 = 32;

/// The level at which only key frames pass, since frames were withheld to which others refer, and that at which none does.
pub(super) const KEY_FRAMES_ALONE: u8 = 3;
pub(super) const NO_FRAMES: u8 = 4;

/// The highest layer of a stream without limit.
const ALL_LAYERS: u8 = u8::MAX;

/// Withholds frames of one client's video.
#[derive(Default, Debug)]
pub(super) struct Thinning {
    /// The argument of the action `thin`, or a level of policing; 0 once all frames may pass again.
    level: u8,
    streams: Vec<ThinnedStream>,
    buffer: Vec<u8>,
    /// The id of the header extension with dependency descriptors, if the client has AV1 with it.
    descriptor: Option<u8>,
    structures: Vec<StreamStructure>,
}

/// The structure of a stream of AV1.
#[derive(Debug)]
struct StreamStructure {
    ssrc: u32,
    known: Option<DependencyStructure>,
}

/// A stream, by the SSRC that the node sends, or a spatial layer of it.
#[derive(Debug)]
struct ThinnedStream {
    ssrc: u32,
    spatial: u8,
    /// The highest layer that the client can decode now.
    passing: u8,
    /// The highest layer that the sender uses, that of the frames counted since, and their number.
    highest: u8,
    highest_since: u8,
    counted: u8,
    /// Frames withheld so far, modulo 2^16.
    withheld: u16,
    /// The last frames, and the place of the oldest.
    frames: [Option<FrameDecision>; FRAMES_KEPT],
    oldest: usize,
}

/// The decision about a frame, which all its packets share.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameDecision {
    timestamp: u32,
    pub(super) passes: bool,
    /// Frames withheld before this one, modulo 2^16.
    pub(super) withheld: u16,
}

impl Thinning {
    /// Follows the description of the client's media, and the argument of the action. The state is made with the first one, and remains: the
    /// picture numbers stay lower. AV1 has it from the begin on, since only key frames have the structure of a stream.
    pub(super) fn follow(
        thinning: &mut Option<Box<Thinning>>,
        media: &MediaDescription,
        level: u8,
    ) {
        let descriptor = media.extension(&ExtensionUri::DependencyDescriptor);
        let descriptor = descriptor.filter(|_| media.srtp.is_readable() && has_av1(media));
        if level > 0 || descriptor.is_some() || thinning.is_some() {
            let thinning = thinning.get_or_insert_default();
            (thinning.level, thinning.descriptor) = (level, descriptor);
        }
    }

    pub(super) fn set_level(&mut self, level: u8) {
        self.level = level;
    }

    /// The decision about a frame of this stream that began lately.
    pub(super) fn decided(&self, ssrc: u32, timestamp: u32) -> Option<FrameDecision> {
        self.streams.iter().find(|stream| stream.ssrc == ssrc)?.decided(timestamp)
    }

    /// Decides about a packet of video.
    pub(super) fn decide(
        &mut self,
        codec: &str,
        header: &RtpHeader,
        packet: &[u8],
    ) -> FrameDecision {
        let described = self.read_descriptor(codec, header, packet);
        let timestamp = header.timestamp;
        let (ssrc, spatial) = (header.ssrc, described.map_or(0, |frame| frame.spatial));
        let is_it = |stream: &ThinnedStream| (stream.ssrc, stream.spatial) == (ssrc, spatial);
        let new = || ThinnedStream::new(ssrc, spatial);
        let stream = find_or_push(&mut self.streams, STREAMS_MAX, is_it, new);
        if let Some(decision) = stream.decided(timestamp) {
            return decision;
        }
        let payload = header.payload(packet);
        if self.level >= KEY_FRAMES_ALONE {
            let is_key = key_frame::begins_key_frame(codec, payload) == Some(true);
            return stream.record(timestamp, is_key && self.level == KEY_FRAMES_ALONE);
        }
        let link = described.map(|frame| frame.link);
        match link.or_else(|| FrameLink::read(codec, payload)) {
            Some(link) => stream.decide(timestamp, link, self.level),
            // A later packet of the frame may tell.
            None => FrameDecision { timestamp, passes: true, withheld: stream.withheld },
        }
    }

    /// Reads the descriptor of a packet of AV1, and remembers the structure in it.
    fn read_descriptor(
        &mut self,
        codec: &str,
        header: &RtpHeader,
        packet: &[u8],
    ) -> Option<Av1Frame> {
        let id = self.descriptor.filter(|_| codec.eq_ignore_ascii_case("av1"))?;
        let descriptor = element(packet, header, id)?;
        let is_it = |it: &StreamStructure| it.ssrc == header.ssrc;
        let new = || StreamStructure { ssrc: header.ssrc, known: None };
        let structure = find_or_push(&mut self.structures, STREAMS_MAX, is_it, new);
        DependencyStructure::follow(&mut structure.known, descriptor)
    }

    /// Returns the packet with the picture number that follows from so many frames withheld before, in a buffer that
    /// [`reuse`](Self::reuse) takes. `None` if it remains as it is.
    pub(super) fn renumber(
        &mut self,
        codec: &str,
        header: &RtpHeader,
        packet: &[u8],
        withheld: u16,
    ) -> Option<Vec<u8>> {
        if withheld == 0 || !codec.eq_ignore_ascii_case("vp8") {
            return None;
        }
        let mut renumbered = std::mem::take(&mut self.buffer);
        renumbered.clear();
        renumbered.extend_from_slice(packet);
        let payload = renumbered.get_mut(header.payload_offset..header.payload_end);
        frames::lower_picture_number(payload.unwrap_or_default(), withheld);
        Some(renumbered)
    }

    /// Another hop sends from now on. Its first frame passes, since the client's numbers go on with its first packet.
    pub(super) fn forget_hop(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.frames = [None; FRAMES_KEPT]);
    }

    /// Takes the buffer of a packet that was sent.
    pub(super) fn reuse(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }
}

/// Returns whether the client has video of AV1.
fn has_av1(media: &MediaDescription) -> bool {
    let video = media.streams.iter().filter(|stream| stream.kind == StreamKind::Video);
    let mut payload_types = video.flat_map(|stream| &stream.payload_types);
    payload_types.any(|payload| payload.codec.eq_ignore_ascii_case("av1"))
}

impl ThinnedStream {
    fn new(ssrc: u32, spatial: u8) -> ThinnedStream {
        ThinnedStream {
            ssrc,
            spatial,
            passing: ALL_LAYERS,
            highest: 0,
            highest_since: 0,
            counted: 0,
            withheld: 0,
            frames: [None; FRAMES_KEPT],
            oldest: 0,
        }
    }

    fn decided(&self, timestamp: u32) -> Option<FrameDecision> {
        self.frames.iter().flatten().find(|frame| frame.timestamp == timestamp).copied()
    }

    /// Decides about a frame by its first packet. The first frame of a stream passes, since the client may have a part of it.
    fn decide(&mut self, timestamp: u32, link: FrameLink, level: u8) -> FrameDecision {
        let newest = self.frames[(self.oldest + FRAMES_KEPT - 1) % FRAMES_KEPT];
        let is_behind =
            |frame: FrameDecision| timestamp.wrapping_sub(frame.timestamp).cast_signed() < 0;
        let passes = match link {
            // Frames with layers are sent in the order of their timestamps: this one is late.
            FrameLink::Layer { number, .. } if newest.is_some_and(is_behind) => {
                let passes = number <= self.passing;
                return FrameDecision { timestamp, passes, withheld: self.withheld };
            }
            FrameLink::Layer { number, joins } => self.passes_layer(number, joins, level),
            FrameLink::Discardable => level == 0,
            FrameLink::Reference => true,
        };
        self.record(timestamp, passes || newest.is_none())
    }

    fn record(&mut self, timestamp: u32, passes: bool) -> FrameDecision {
        let decision = FrameDecision { timestamp, passes, withheld: self.withheld };
        self.withheld = self.withheld.wrapping_add(u16::from(!passes));
        self.frames[self.oldest] = Some(decision);
        self.oldest = (self.oldest + 1) % FRAMES_KEPT;
        decision
    }

    fn passes_layer(&mut self, number: u8, joins: LayerJoin, level: u8) -> bool {
        self.note_layer(number);
        let wanted = match (level, self.highest) {
            (0, _) | (1, 0) => ALL_LAYERS,
            (1, highest) => highest - 1,
            (_, _) => 0,
        };
        self.passing = self.passing.min(wanted);
        match joins {
            LayerJoin::Above if number <= self.passing => self.passing = wanted,
            LayerJoin::Own if number <= wanted => {
                // Later frames of the layer may refer to the one below, which must pass as well.
                if number == self.passing.saturating_add(1) {
                    self.passing = number;
                }
                return true;
            }
            LayerJoin::Above | LayerJoin::Own | LayerJoin::No => {}
        }
        number <= self.passing
    }

    fn note_layer(&mut self, number: u8) {
        self.highest_since = self.highest_since.max(number);
        self.counted += 1;
        if self.counted == LAYERS_KNOWN_FOR {
            (self.highest, self.highest_since, self.counted) = (self.highest_since, 0, 0);
        }
        self.highest = self.highest.max(number);
    }
}
