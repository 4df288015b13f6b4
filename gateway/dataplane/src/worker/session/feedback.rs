//! RTCP that the gateway generates or changes for a session: requests for key frames in both directions, and send caps.

use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_media::rtcp::{self, RtcpPacket, rewrite};
use evenkeel_model::{MediaDescription, StreamKind};
use serde::{Deserialize, Serialize};

use super::followed::find_or_push;

/// Interval at which a cap is repeated. REMB is soft state; senders forget it after some seconds.
const CAP_EVERY: Duration = Duration::from_secs(1);

/// Time for which the end of a cap is repeated, because each packet may be lost.
const LIFTED_FOR: Duration = Duration::from_secs(5);

/// Bitrate that lifts a cap: more than any client sends.
const UNCAPPED_BPS: u64 = 1_000_000_000;

/// Limit of video streams of one client that receive key-frame requests.
const FEEDBACK_SOURCES_MAX: usize = 8;

/// Limit of streams of which one compound packet of a client requests key frames: more than clients show at once, and few
/// enough that a packet does not become a burst at the senders.
const REQUESTS_MAX: usize = 32;

/// Minimum interval of requests for a stream. A sender needs about this time to answer, and an earlier request would cause a second
/// key frame.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(300);

/// Time in which a sender answers a request, beside the round trip: its next frame, paced.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);

/// A request to the client is repeated this often, each time after twice the time. A sender that has not answered then sends no key frames.
const REPEATS_TO_CLIENT_MAX: u8 = 5;

/// A request to a hop is repeated this often. The node may send it to a client here, of which requests for two seconds mean that receivers
/// lack a key frame; and those ask again themselves.
const REPEATS_TO_HOP_MAX: u8 = 2;

#[derive(Clone, Default, Serialize, Deserialize, Debug)]
pub(crate) struct SenderFeedback {
    /// The sender SSRC of the generated RTCP.
    ssrc: u32,
    /// The CNAME: random, per session (RFC 7022, 4.2).
    name: u64,
    takes_pli: bool,
    takes_fir: bool,
    takes_remb: bool,
    takes_tmmbr: bool,
    /// True if the gateway may generate RTCP. False with SRTP, because the gateway has no keys.
    may_write: bool,
    /// SSRCs of the client's video.
    video: Vec<u32>,
    sources: Vec<u32>,
    /// True if the hop gets a key-frame request with the first packet of each stream.
    wanted: bool,
    asked_hop: Vec<u32>,
    #[serde(with = "instant::option")]
    asked_client: Option<Instant>,
    fir_number: u8,
    /// Time when a cap was last sent.
    #[serde(with = "instant::option")]
    cap_sent: Option<Instant>,
    /// Time when the last cap was lifted.
    #[serde(with = "instant::option")]
    lifted: Option<Instant>,
    /// Requests of nodes.
    #[serde(default)]
    key_frames: KeyFrameRequests,
    /// True if the only reason is a switch: the client needs no key frame of a stream of which no packet is missing.
    #[serde(default)]
    wanted_for_switch: bool,
    #[serde(default)]
    awaited_of_client: AwaitedKeyFrames,
    /// By the SSRCs of the hop that the client hears.
    #[serde(default)]
    awaited_of_hop: AwaitedKeyFrames,
}

impl SenderFeedback {
    /// `seed` determines SSRC and CNAME.
    pub(crate) fn new(seed: u64, media: &MediaDescription) -> SenderFeedback {
        let mut feedback = SenderFeedback {
            ssrc: seed as u32,
            name: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            may_write: media.srtp.is_readable(),
            ..SenderFeedback::default()
        };
        feedback.follow(media);
        feedback
    }

    /// Sends the feedback that the client takes by this description.
    pub(crate) fn follow(&mut self, media: &MediaDescription) {
        let takes = |wanted: fn(&evenkeel_model::FeedbackSupport) -> bool| {
            let mut streams = media.streams.iter();
            streams.any(|stream| stream.kind == StreamKind::Video && wanted(&stream.feedback))
        };
        self.takes_pli = takes(|feedback| feedback.pli);
        self.takes_fir = takes(|feedback| feedback.fir);
        self.takes_remb = media.takes_remb();
        self.takes_tmmbr = takes(|feedback| feedback.tmmbr);
    }

    /// The client sends a stream with this SSRC.
    #[inline]
    pub(super) fn note_source(&mut self, ssrc: u32) {
        remember(&mut self.sources, ssrc);
    }

    /// The client sends video with this SSRC.
    #[inline]
    pub(super) fn note_video(&mut self, ssrc: u32) {
        remember(&mut self.video, ssrc);
    }

    /// Returns whether the client sends one stream of video.
    #[inline]
    pub(super) fn has_one_video(&self) -> bool {
        self.video.len() == 1
    }

    /// A node requests a key frame of the client's video. Some nodes forward the requests for other clients' streams.
    pub(super) fn is_asked_for_key_frame(&self, compound: &[u8]) -> bool {
        let mut packets = rtcp::packets(compound).map_while(Result::ok);
        packets.any(|packet| match packet {
            RtcpPacket::Pli(pli) => self.video.contains(&pli.media),
            RtcpPacket::Fir(fir) => fir.entries().any(|entry| self.video.contains(&entry.media)),
            _ => false,
        })
    }

    /// Requests a key frame for each stream to the client when the stream's next packet arrives.
    pub(crate) fn want_key_frame(&mut self) {
        (self.wanted, self.wanted_for_switch) = (true, false);
        self.asked_hop.clear();
    }

    /// Like [`want_key_frame`](SenderFeedback::want_key_frame), after a switch.
    pub(crate) fn want_key_frame_after_switch(&mut self) {
        // Requests for another reason may not have been sent yet.
        self.wanted_for_switch |= !self.wanted || !self.asked_hop.is_empty();
        self.wanted = true;
        self.asked_hop.clear();
        // Of the hop before.
        self.awaited_of_hop.streams.clear();
    }

    /// Returns whether the only reason for the requests is a switch.
    pub(super) fn is_wanted_for_switch(&self) -> bool {
        self.wanted_for_switch
    }

    /// Requests a key frame for this stream of the hop when a packet of it passes: the client lacks those before.
    pub(crate) fn want_key_frame_of(&mut self, ssrc: u32) {
        self.wanted = true;
        self.asked_hop.retain(|asked| *asked != ssrc);
    }

    /// Returns whether the next packet of this stream of the hop is inspected: a key frame is wanted, or is still to come.
    #[inline]
    pub(super) fn looks_for_key_frame(&self, ssrc: u32) -> bool {
        self.wants_key_frame(ssrc) || self.awaited_of_hop.has(ssrc)
    }

    /// Returns whether a key frame of this stream of the hop is wanted, and was not requested yet.
    #[inline]
    pub(super) fn wants_key_frame(&self, ssrc: u32) -> bool {
        self.wanted
            && self.may_write
            && !self.asked_hop.contains(&ssrc)
            && self.asked_hop.len() < FEEDBACK_SOURCES_MAX
    }

    /// Returns a PLI for this stream of the hop, if a key frame is [wanted](Self::wants_key_frame).
    pub(crate) fn key_frame_request(&mut self, ssrc: u32) -> Option<Vec<u8>> {
        if !self.wants_key_frame(ssrc) {
            return None;
        }
        self.asked_hop.push(ssrc);
        let pli = rtcp::Pli { sender: self.ssrc, media: ssrc };
        Some(self.compound(|out| rtcp::write_pli(pli, out)))
    }

    /// The hop was asked for a key frame of this stream.
    pub(super) fn await_key_frame_of_hop(&mut self, ssrc: u32, now: Instant) {
        self.awaited_of_hop.request(ssrc, now);
    }

    /// Notes the client's requests to the hop, with the SSRCs of the hop. They are repeated too.
    pub(super) fn note_requests_to_hop(&mut self, compound: &[u8], now: Instant) {
        for packet in rtcp::packets(compound).map_while(Result::ok) {
            match packet {
                RtcpPacket::Pli(pli) => self.awaited_of_hop.request(pli.media, now),
                RtcpPacket::Fir(fir) => {
                    fir.entries().for_each(|it| self.awaited_of_hop.request(it.media, now));
                }
                _ => {}
            }
        }
    }

    /// Returns a PLI for this stream of the hop, if its key frame is overdue. The way to the sender behind the hop is unknown.
    pub(super) fn repeat_to_hop(&mut self, ssrc: u32, now: Instant) -> Option<Vec<u8>> {
        let pli = rtcp::Pli { sender: self.ssrc, media: ssrc };
        let is_overdue = self.awaited_of_hop.repeat(ssrc, Duration::ZERO, REPEATS_TO_HOP_MAX, now);
        is_overdue.then(|| self.compound(|out| rtcp::write_pli(pli, out)))
    }

    /// No key frame of this stream of the hop is awaited any more. Returns the time since its first request.
    pub(super) fn key_frame_of_hop_came(&mut self, ssrc: u32, now: Instant) -> Option<Duration> {
        if self.wants_key_frame(ssrc) {
            self.asked_hop.push(ssrc);
        }
        let since = self.awaited_of_hop.came(ssrc)?;
        Some(now.saturating_duration_since(since))
    }

    /// Returns a PLI for each video stream of the client, or a FIR if the client does not support PLI. `None` if key frames of all are
    /// still to come.
    pub(crate) fn key_frame_of_client(&mut self, now: Instant) -> Option<Vec<u8>> {
        let recently = within(self.asked_client, KEY_FRAME_EVERY, now);
        let is_awaited = |ssrc: &u32| self.key_frames.is_awaited(*ssrc, now);
        if recently || self.video.iter().all(is_awaited) {
            return None;
        }
        let streams = self.video.clone();
        let request = self.ask_client(&streams, now)?;
        self.asked_client = Some(now);
        Some(request)
    }

    /// The client sent a key frame of this stream.
    pub(crate) fn key_frame_came(&mut self, ssrc: u32) {
        self.key_frames.came(ssrc);
        self.stop_awaiting(ssrc);
    }

    /// Requests for a key frame of this stream of the client are not repeated.
    pub(super) fn stop_awaiting(&mut self, ssrc: u32) {
        self.awaited_of_client.came(ssrc);
    }

    /// Returns whether a key frame of the client is still to come.
    pub(super) fn awaits_key_frame_of_client(&self) -> bool {
        !self.awaited_of_client.streams.is_empty()
    }

    /// Returns a request for the streams for which one of a node came too soon after another, and no key frame since.
    pub(crate) fn due_key_frame_of_client(&mut self, now: Instant) -> Option<Vec<u8>> {
        let streams = self.key_frames.due(self.asked_client, now);
        self.ask_client(&streams, now)
    }

    /// Returns a request for the streams of the client of which a key frame is overdue.
    pub(super) fn repeat_to_client(
        &mut self,
        round_trip: Duration,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let awaited = &mut self.awaited_of_client;
        let mut streams: Vec<_> = awaited.streams.iter().map(|stream| stream.ssrc).collect();
        streams.retain(|ssrc| awaited.repeat(*ssrc, round_trip, REPEATS_TO_CLIENT_MAX, now));
        self.ask_client(&streams, now)
    }

    /// Returns the number of key frames that were given up since the last call.
    pub(super) fn take_given_up(&mut self) -> u32 {
        let awaited = [&mut self.awaited_of_client, &mut self.awaited_of_hop];
        awaited.map(|awaited| std::mem::take(&mut awaited.given_up)).iter().sum()
    }

    fn ask_client(&mut self, streams: &[u32], now: Instant) -> Option<Vec<u8>> {
        let can_ask = self.may_write && (self.takes_pli || self.takes_fir);
        if !can_ask || streams.is_empty() {
            return None;
        }
        streams.iter().for_each(|ssrc| self.awaited_of_client.request(*ssrc, now));
        if self.takes_pli {
            let sender = self.ssrc;
            let plis = streams.iter().map(|&media| rtcp::Pli { sender, media });
            return Some(self.compound(|out| plis.for_each(|pli| rtcp::write_pli(pli, out))));
        }
        self.fir_number = self.fir_number.wrapping_add(1);
        let number = self.fir_number;
        let entries: Vec<_> =
            streams.iter().map(|&media| rtcp::FirEntry { media, number }).collect();
        Some(self.compound(|out| rtcp::write_fir(self.ssrc, &entries, out)))
    }

    /// Returns a PLI for a simulcast layer of the hop.
    pub(super) fn layer_request(&self, media: u32) -> Vec<u8> {
        let pli = rtcp::Pli { sender: self.ssrc, media };
        self.compound(|out| rtcp::write_pli(pli, out))
    }

    /// Returns a NACK of these packets of the client.
    pub(super) fn nack(&self, media: u32, missing: &[u16]) -> Vec<u8> {
        self.compound(|out| rtcp::write_nack(self.ssrc, media, missing, out))
    }

    /// Removes requests of a node for key frames that come too soon after another. Returns the length of the compound packet.
    pub(crate) fn thin_requests(&mut self, compound: &mut [u8], now: Instant) -> usize {
        if !self.takes_pli && !self.takes_fir {
            // The gateway could not repeat them.
            return compound.len();
        }
        rewrite::retain_key_frame_requests(compound, |media| {
            if !self.video.contains(&media) {
                return true;
            }
            let passes = self.key_frames.ask(media, self.asked_client, now);
            if passes {
                self.awaited_of_client.request(media, now);
            }
            passes
        })
    }

    /// Returns a REMB over all streams, or a TMMBR with an equal share for each video stream. 0 lifts the cap.
    pub(crate) fn cap(&mut self, kbps: u32, now: Instant) -> Option<Vec<u8>> {
        self.cap_sent = Some(now);
        self.lifted = if kbps == 0 { self.lifted.or(Some(now)) } else { None };
        let bps = if kbps == 0 { UNCAPPED_BPS } else { u64::from(kbps) * 1_000 };
        if !self.may_write {
            None
        } else if self.takes_remb {
            Some(self.compound(|out| rtcp::write_remb(self.ssrc, bps, &self.sources, out)))
        } else if self.takes_tmmbr && !self.video.is_empty() {
            let each = bps / self.video.len() as u64;
            Some(self.compound(|out| rtcp::write_tmmbr(self.ssrc, each, &self.video, out)))
        } else {
            None
        }
    }

    /// Returns whether the cap, or its end, must be sent again now.
    pub(crate) fn cap_is_due(&self, kbps: u32, now: Instant) -> bool {
        !within(self.cap_sent, CAP_EVERY, now) && self.repeats(kbps, now)
    }

    /// Returns whether the cap, or its end, is still being repeated.
    pub(crate) fn repeats(&self, kbps: u32, now: Instant) -> bool {
        kbps > 0 || within(self.lifted, LIFTED_FOR, now)
    }

    /// Lowers the node's rate limits to the cap. A packet with such a limit carries the cap, which postpones the
    /// gateway's next one.
    pub(crate) fn limit(&mut self, compound: &mut [u8], kbps: u32, now: Instant) {
        if kbps > 0 && self.may_write && rewrite::limit_rates(compound, u64::from(kbps) * 1_000) {
            self.cap_sent = Some(now);
        }
    }

    /// Builds a compound packet: receiver report, CNAME, then the message (RFC 3550, 6.1).
    fn compound(&self, say: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = Vec::new();
        rtcp::write_receiver_report(self.ssrc, &[], &mut packet);
        rtcp::write_cname(self.ssrc, format!("{:016x}", self.name).as_bytes(), &mut packet);
        say(&mut packet);
        packet
    }
}

/// Requests of nodes for key frames of the client's video, by stream. However many receivers ask, each stream is asked once in a time.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct KeyFrameRequests(Vec<AskedStream>);

#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct AskedStream {
    ssrc: u32,
    #[serde(with = "instant")]
    at: Instant,
    /// A later request waits for the end of the interval.
    again: bool,
    /// A key frame has come since.
    #[serde(default)]
    answered: bool,
}

impl AskedStream {
    /// `asked_all`: the time at which the gateway asked all streams.
    fn is_recent(&self, asked_all: Option<Instant>, now: Instant) -> bool {
        let last = asked_all.map_or(self.at, |at| at.max(self.at));
        now.saturating_duration_since(last) < KEY_FRAME_EVERY
    }
}

/// Removes requests of a client for streams of which an earlier packet of the compound packet requests a key frame, and those of more
/// than [`REQUESTS_MAX`] streams: a node sends each request on in a datagram of its own. Returns the length of the compound packet.
pub(super) fn coalesce(compound: &mut [u8]) -> usize {
    let mut asked = Vec::new();
    rewrite::retain_key_frame_requests(compound, |media| {
        let is_wanted = asked.len() < REQUESTS_MAX && !asked.contains(&media);
        if is_wanted {
            asked.push(media);
        }
        is_wanted
    })
}

impl KeyFrameRequests {
    /// Returns whether the stream is to be asked now. A request that comes too early waits for its [turn](KeyFrameRequests::due).
    /// `asked_all`: the time at which the gateway asked all streams.
    fn ask(&mut self, ssrc: u32, asked_all: Option<Instant>, now: Instant) -> bool {
        let KeyFrameRequests(streams) = self;
        let is_it = |stream: &AskedStream| stream.ssrc == ssrc;
        let new = || {
            let at = now.checked_sub(KEY_FRAME_EVERY).unwrap_or(now);
            AskedStream { ssrc, at, again: false, answered: true }
        };
        let stream = find_or_push(streams, FEEDBACK_SOURCES_MAX, is_it, new);
        stream.again = stream.is_recent(asked_all, now);
        if !stream.again {
            (stream.at, stream.answered) = (now, false);
        }
        !stream.again
    }

    /// A key frame of the stream answers the requests that wait.
    fn came(&mut self, ssrc: u32) {
        let streams = self.0.iter_mut().filter(|stream| stream.ssrc == ssrc);
        streams.for_each(|stream| (stream.again, stream.answered) = (false, true));
    }

    /// Returns whether a key frame of the stream was requested within the interval, and is still to come.
    fn is_awaited(&self, ssrc: u32, now: Instant) -> bool {
        let stream = self.0.iter().find(|stream| stream.ssrc == ssrc);
        stream.is_some_and(|stream| stream.is_recent(None, now) && !stream.answered)
    }

    /// Returns the streams for which a request has waited long enough.
    fn due(&mut self, asked_all: Option<Instant>, now: Instant) -> Vec<u32> {
        let is_due = |it: &&mut AskedStream| it.again && !it.is_recent(asked_all, now);
        let due = self.0.iter_mut().filter(is_due).map(|stream| {
            (stream.at, stream.again, stream.answered) = (now, false, false);
            stream.ssrc
        });
        due.collect()
    }
}

/// Key frames that were requested and did not come yet. A request may be lost, and so may the key frame.
#[derive(Clone, Default, Serialize, Deserialize, Debug)]
struct AwaitedKeyFrames {
    streams: Vec<AwaitedKeyFrame>,
    given_up: u32,
}

#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
struct AwaitedKeyFrame {
    ssrc: u32,
    /// The first request.
    #[serde(with = "instant")]
    since: Instant,
    /// The last request.
    #[serde(with = "instant")]
    asked: Instant,
    /// Requests that the gateway repeated.
    repeats: u8,
}

impl AwaitedKeyFrames {
    #[inline]
    fn has(&self, ssrc: u32) -> bool {
        self.streams.iter().any(|stream| stream.ssrc == ssrc)
    }

    /// A key frame was requested.
    fn request(&mut self, ssrc: u32, now: Instant) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            stream.asked = now;
            return;
        }
        if self.streams.len() == FEEDBACK_SOURCES_MAX {
            self.streams.remove(0);
        }
        self.streams.push(AwaitedKeyFrame { ssrc, since: now, asked: now, repeats: 0 });
    }

    /// The key frame came. Returns the time of its first request.
    fn came(&mut self, ssrc: u32) -> Option<Instant> {
        let place = self.streams.iter().position(|stream| stream.ssrc == ssrc)?;
        Some(self.streams.remove(place).since)
    }

    /// Returns whether the key frame is overdue, and is requested again now. Gives it up after `most` repetitions.
    fn repeat(&mut self, ssrc: u32, round_trip: Duration, most: u8, now: Instant) -> bool {
        let Some(place) = self.streams.iter().position(|stream| stream.ssrc == ssrc) else {
            return false;
        };
        let AwaitedKeyFrame { asked, repeats, .. } = &mut self.streams[place];
        let wait = (round_trip + ANSWERED_WITHIN).max(KEY_FRAME_EVERY);
        if now.saturating_duration_since(*asked) < wait * (1_u32 << *repeats) {
            return false;
        }
        if *repeats == most {
            self.streams.remove(place);
            self.given_up += 1;
            return false;
        }
        (*asked, *repeats) = (now, *repeats + 1);
        true
    }
}

/// Adds a source to a bounded list, newest last.
pub(super) fn remember(sources: &mut Vec<u32>, ssrc: u32) {
    if !sources.contains(&ssrc) {
        if sources.len() == FEEDBACK_SOURCES_MAX {
            sources.remove(0);
        }
        sources.push(ssrc);
    }
}

fn within(at: Option<Instant>, time: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < time)
}

#[cfg(test)]
mod tests;
