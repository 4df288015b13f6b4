//! Simulcast between clients and nodes.
//!
//! **From the client**, each packet of a layer names the layer and its sender ([`LabelIds`]), by header extensions of the room. The client
//! itself names layers at first only, or not at all.
//!
//! **To the client**, packets of a node with such names are layers of one video, of which one passes at a time. The choice is made before the
//! client's numbers are assigned, so that continuity, repair and thinning see one stream. Nodes that choose layers themselves send one, and
//! nothing is chosen here.
//!
//! The record of a session contains the SSRCs of layers and the mapping of numbers: another process goes on with them. It measures rates anew.

use std::mem;
use std::time::{Duration, Instant};

use evenkeel_media::continuity::StreamEpoch;
use evenkeel_media::layers::label::{LabelIds, LayerLabel};
use evenkeel_media::layers::{LayerLimits, LayeredVideo, feedback};
use evenkeel_media::repair::answers::LastSecond;
use evenkeel_media::rtp::{self, RtpHeader};
use evenkeel_media::{key_frame, retransmission};
use evenkeel_model::{
    ExtensionUri, LAYERS_MAX, MediaDescription, MediaLimits, PayloadType, RepairKind,
};
use serde::{Deserialize, Serialize};

/// Limit of videos in layers to one client. Then those that pause are forgotten, and others pass unread.
const VIDEOS_MAX: usize = 16;

/// Sources of layers of one client: each with its retransmissions.
const SOURCES_MAX: usize = 2 * LAYERS_MAX;

/// An estimate of the client itself (REMB) counts for this time. Clients send one each second.
const ESTIMATED_FOR: Duration = Duration::from_secs(5);

/// Digits of the label of a sender, of five bits each: too many to be guessed.
const LABEL_LEN: usize = 8;

/// Returns the ids of names in the room; `None` if one of them has another meaning there.
fn label_ids(media: &MediaDescription) -> Option<LabelIds> {
    let id = |uri: ExtensionUri| {
        let is_free = |id: &u8| media.extensions.iter().all(|extension| extension.id != *id);
        media.extension(&uri).or_else(|| uri.room_id().filter(is_free))
    };
    Some(LabelIds {
        mid: id(ExtensionUri::Mid)?,
        rid: id(ExtensionUri::StreamId)?,
        repaired_rid: id(ExtensionUri::RepairedStreamId)?,
    })
}

/// The layers that a client sends.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct SentLayers {
    ids: LabelIds,
    label: [u8; LABEL_LEN],
    /// RIDs.
    names: Vec<Box<str>>,
    sources: Vec<LayerSource>,
    #[serde(skip)]
    buffer: Vec<u8>,
}

/// A source of a layer, or of its retransmissions.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct LayerSource {
    ssrc: u32,
    /// The place of its name.
    layer: usize,
    is_retransmission: bool,
}

impl SentLayers {
    /// Follows the description of the client's media. If the layers are the same, the sources that packets told of remain.
    pub(super) fn follow(
        layers: &mut Option<Box<SentLayers>>,
        seed: u64,
        media: &MediaDescription,
    ) {
        let ids = label_ids(media).filter(|_| media.srtp.is_readable());
        let Some(ids) = ids.filter(|_| !media.simulcast.is_empty()) else {
            *layers = None;
            return;
        };
        let names: Vec<Box<str>> = media.simulcast.iter().map(|layer| layer.rid.clone()).collect();
        if layers.as_deref().is_some_and(|known| known.names == names && known.ids == ids) {
            return;
        }
        let sources = (0..).zip(&media.simulcast).flat_map(|(layer, offered)| {
            let source = |ssrc, is_retransmission| LayerSource { ssrc, layer, is_retransmission };
            let own = offered.ssrc.map(|ssrc| source(ssrc, false));
            own.into_iter().chain(offered.rtx_ssrc.map(|ssrc| source(ssrc, true)))
        });
        let (sources, label) = (sources.collect(), label(seed));
        let buffer = Vec::new();
        *layers = Some(Box::new(SentLayers { ids, label, names, sources, buffer }));
    }

    /// Returns the packet with the names of its layer and sender, in a buffer that [`reuse`](Self::reuse) takes. `None` if it is of no layer, or
    /// cannot have them.
    pub(super) fn name(
        &mut self,
        header: &RtpHeader,
        packet: &[u8],
        is_retransmission: bool,
    ) -> Option<Vec<u8>> {
        let layer = self.layer_of(header, packet, is_retransmission)?;
        let label = LayerLabel { video: &self.label, layer: self.names.get(layer)?.as_bytes() };
        let mut named = mem::take(&mut self.buffer);
        let is_named = self.ids.write(header, packet, label, is_retransmission, &mut named);
        if !is_named {
            self.reuse(named);
            return None;
        }
        Some(named)
    }

    /// Takes the buffer of a packet that was sent.
    pub(super) fn reuse(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.buffer = buffer;
    }

    fn layer_of(
        &mut self,
        header: &RtpHeader,
        packet: &[u8],
        is_retransmission: bool,
    ) -> Option<usize> {
        let ssrc = header.ssrc;
        if let Some(known) = self.sources.iter().find(|source| source.ssrc == ssrc) {
            return Some(known.layer);
        }
        let name = self.ids.layer(header, packet, is_retransmission)?;
        let layer = self.names.iter().position(|known| known.as_bytes() == name)?;
        let new = LayerSource { ssrc, layer, is_retransmission };
        // A source that restarts has another SSRC.
        let is_before = |source: &LayerSource| LayerSource { ssrc, ..*source } == new;
        self.sources.retain(|source| !is_before(source));
        if self.sources.len() < SOURCES_MAX {
            self.sources.push(new);
        }
        Some(layer)
    }
}

/// The label of a client, by the seed of its session. It reaches nodes, and no client: one that knew it could send under it.
fn label(seed: u64) -> [u8; LABEL_LEN] {
    let folded = seed ^ seed >> 24;
    std::array::from_fn(|place| {
        let digit = (folded >> (5 * place) & 0x1f) as u8;
        if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
    })
}

/// The videos in layers that nodes send to a client.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct ReceivedLayers {
    ids: LabelIds,
    /// The epoch of the hop that the client hears.
    epoch: StreamEpoch,
    videos: Vec<LayeredVideo>,
    /// The videos as the hop before sent them.
    #[serde(skip)]
    left: Vec<LayeredVideo>,
    /// The client's own estimate, in kbit/s.
    #[serde(skip)]
    estimate: Option<(u32, Instant)>,
    /// All bytes to the client.
    #[serde(skip)]
    sent: LastSecond,
    #[serde(skip)]
    sent_before: Option<u64>,
    #[serde(skip)]
    buffer: Vec<u8>,
}

/// The verdict about a packet to the client.
#[derive(Debug)]
pub(super) enum LayerVerdict {
    /// It is of no layer.
    Unread,
    /// It passes as this packet, in a buffer that [`ReceivedLayers::reuse`] takes.
    Passes { header: RtpHeader, packet: Vec<u8> },
    /// It is of a layer that the client does not get.
    Withheld,
}

impl ReceivedLayers {
    /// Begins with a packet of a source that is new to the client. `None` if it is of no layer.
    pub(super) fn begin(
        media: &MediaDescription,
        epoch: StreamEpoch,
        header: &RtpHeader,
        packet: &[u8],
    ) -> Option<Box<ReceivedLayers>> {
        let ids = label_ids(media).filter(|_| media.srtp.is_readable())?;
        let LayerLabel { video, layer } = ids.read(header, packet, false)?;
        Some(Box::new(ReceivedLayers {
            ids,
            epoch,
            videos: vec![LayeredVideo::new(video, layer, header.ssrc)],
            left: Vec::new(),
            estimate: None,
            sent: LastSecond::default(),
            sent_before: None,
            buffer: Vec::new(),
        }))
    }

    /// Returns a packet without the names of its layer and sender.
    pub(super) fn without_names(&self, packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_vec();
        self.ids.clear(&mut packet);
        packet
    }

    /// Decides about a packet of video of the hop of `epoch`.
    pub(super) fn pass(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        packet: &[u8],
        payload: &PayloadType,
        now: Instant,
    ) -> LayerVerdict {
        self.follow(epoch);
        match payload.repair() {
            Some(RepairKind::Retransmission) => {
                return self.pass_retransmission(epoch, header, packet, now);
            }
            Some(RepairKind::Fec) => return LayerVerdict::Unread,
            None => {}
        }
        let Some((video, place)) = self.find(epoch, header, packet) else {
            return LayerVerdict::Unread;
        };
        video.note_received(place, packet.len(), now);
        let begins_key_frame =
            || key_frame::begins_key_frame(&payload.codec, header.payload(packet)) == Some(true);
        let passes = video.pass(place, header, payload.clock_rate, begins_key_frame, now);
        let Some(sent) = passes else { return LayerVerdict::Withheld };
        self.rewritten(sent, packet, |_| {})
    }

    /// Returns the header of a packet towards the client, which is withheld although its layer passes; `None` if its layer does not.
    pub(super) fn pass_withheld(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        now: Instant,
    ) -> Option<RtpHeader> {
        self.follow(epoch);
        let videos = self.videos_of(epoch);
        let found = videos.iter_mut().find_map(|video| Some((video.place_of(header.ssrc)?, video)));
        let Some((place, video)) = found else { return Some(*header) };
        // The clock matters to a change of the layer only.
        video.pass(place, header, 0, || false, now)
    }

    fn pass_retransmission(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        packet: &[u8],
        now: Instant,
    ) -> LayerVerdict {
        let Some(LayerLabel { video, layer }) = self.ids.read(header, packet, true) else {
            return LayerVerdict::Unread;
        };
        let video = self.videos_of(epoch).iter().find(|known| known.has_label(video));
        let named = video.and_then(|video| Some((video, video.place_named(layer)?)));
        let sequence = retransmission::original_sequence(header, packet);
        let Some(((video, place), sequence)) = named.zip(sequence) else {
            // Padding, by which a sender probes its path.
            return self.rewritten(*header, packet, |_| {});
        };
        let lost = RtpHeader { sequence, ..*header };
        let Some(sent) = video.numbered(place, &lost, now) else { return LayerVerdict::Withheld };
        let again = RtpHeader { timestamp: sent.timestamp, ..*header };
        self.rewritten(again, packet, |packet| {
            retransmission::set_original_sequence(header, packet, sent.sequence);
        })
    }

    fn rewritten(
        &mut self,
        header: RtpHeader,
        packet: &[u8],
        rewrite: impl FnOnce(&mut [u8]),
    ) -> LayerVerdict {
        let mut rewritten = mem::take(&mut self.buffer);
        rewritten.extend_from_slice(packet);
        rtp::set_ssrc(&mut rewritten, header.ssrc);
        rtp::set_sequence(&mut rewritten, header.sequence);
        rtp::set_timestamp(&mut rewritten, header.timestamp);
        self.ids.clear(&mut rewritten);
        rewrite(&mut rewritten);
        LayerVerdict::Passes { header, packet: rewritten }
    }

    /// Takes the buffer of a packet that was sent.
    pub(super) fn reuse(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.buffer = buffer;
    }

    fn videos_of(&mut self, epoch: StreamEpoch) -> &mut Vec<LayeredVideo> {
        if epoch < self.epoch { &mut self.left } else { &mut self.videos }
    }

    /// The videos go on at the next hop: with their numbers, if the hop keeps the SSRCs.
    fn follow(&mut self, epoch: StreamEpoch) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.left.clone_from(&self.videos);
        }
    }

    /// Finds the layer of a packet by its SSRC or, of a source that is new, by its names.
    fn find(
        &mut self,
        epoch: StreamEpoch,
        header: &RtpHeader,
        packet: &[u8],
    ) -> Option<(&mut LayeredVideo, usize)> {
        let (ids, is_left) = (self.ids, epoch < self.epoch);
        let videos = self.videos_of(epoch);
        let mut places = videos.iter().enumerate();
        let known = places.find_map(|(at, video)| Some((at, video.place_of(header.ssrc)?)));
        if let Some((at, place)) = known {
            return Some((&mut videos[at], place));
        }
        let LayerLabel { video, layer } = ids.read(header, packet, false).filter(|_| !is_left)?;
        let known = videos.iter().position(|known| known.has_label(video));
        // No client takes the place of others by labels that it makes up.
        if known.is_none() && videos.len() == VIDEOS_MAX {
            return None;
        }
        let at = known.unwrap_or_else(|| {
            videos.push(LayeredVideo::new(video, layer, header.ssrc));
            videos.len() - 1
        });
        let known = &mut videos[at];
        let place = known.place_of(header.ssrc).or_else(|| known.learn(layer, header.ssrc))?;
        Some((known, place))
    }

    /// Chooses the layers by the estimate of the path and the limits. `sent`: all bytes to the client so far. Called every 100 ms.
    pub(super) fn choose(
        &mut self,
        path_kbps: Option<u32>,
        limits: &MediaLimits,
        sent: u64,
        now: Instant,
    ) {
        if self.videos.len() == VIDEOS_MAX {
            self.videos.retain_mut(|video| video.passing_kbps(now) > 0);
        }
        let before = self.sent_before.replace(sent).unwrap_or(sent);
        self.sent.add(u32::try_from(sent.saturating_sub(before)).unwrap_or(u32::MAX), now);
        let own =
            self.estimate.filter(|(_, at)| now.saturating_duration_since(*at) < ESTIMATED_FOR);
        let path_kbps = [path_kbps, own.map(|(kbps, _)| kbps)].into_iter().flatten().min();
        let rates = self.videos.iter_mut().map(|video| video.passing_kbps(now));
        let rates: Vec<u32> = rates.filter(|kbps| *kbps > 0).collect();
        let all_kbps = u32::try_from(self.sent.sum(now) * 8 / 1_000).unwrap_or(u32::MAX);
        let other_kbps = all_kbps.saturating_sub(rates.iter().sum());
        // Senders share what voice and other video leave.
        let count = u32::try_from(rates.len()).unwrap_or(u32::MAX).max(1);
        let share = |kbps: u32| kbps.saturating_sub(other_kbps) / count;
        let cap_kbps = Some(limits.receive_kbps).filter(|kbps| *kbps > 0);
        let limits = LayerLimits {
            path_kbps: path_kbps.map(share),
            cap_kbps: cap_kbps.map(share),
            highest: limits.layer,
        };
        self.videos.iter_mut().for_each(|video| video.choose(limits, now));
    }

    /// Returns the SSRCs of the hop's layers of which a key frame is to be requested now.
    pub(super) fn due_requests(&mut self, now: Instant) -> Vec<u32> {
        self.videos.iter_mut().filter_map(|video| video.due_request(now)).collect()
    }

    /// Returns the number of the layer that the client gets, from 1 for the lowest on; of several senders the lowest.
    pub(super) fn rank(&self) -> Option<u8> {
        self.videos.iter().filter_map(LayeredVideo::rank).min()
    }

    /// Rewrites RTCP of the hop of `epoch` for the client. Returns whether anything is left.
    pub(super) fn rtcp_to_client(&self, epoch: StreamEpoch, compound: &mut Vec<u8>) -> bool {
        let videos = if epoch < self.epoch { &self.left } else { &self.videos };
        let length = feedback::rtcp_to_receiver(videos, compound);
        compound.truncate(length);
        !compound.is_empty()
    }

    /// Rewrites RTCP of the client, with the numbers of the videos, for the hop. Returns whether anything is left.
    pub(super) fn rtcp_to_node(&mut self, compound: &mut Vec<u8>, now: Instant) -> bool {
        if let Some(kbps) = feedback::estimate_kbps(&self.videos, compound) {
            self.estimate = Some((kbps, now));
        }
        let length = feedback::rtcp_to_node(&self.videos, compound);
        compound.truncate(length);
        !compound.is_empty()
    }

    /// Forgets the parts that no record contains.
    pub(super) fn forget_unrecorded(&mut self) {
        self.videos.iter_mut().for_each(LayeredVideo::forget_unrecorded);
        self.left.clear();
        (self.estimate, self.sent_before, self.sent) = (None, None, LastSecond::default());
    }
}
