//! Packets of gateways to their clients, by a capture: each SRTP index that was used twice, and each packet that the client's SRTP did not
//! accept. An index that is used twice with one key reveals both packets (RFC 3711, section 9.1).
//!
//! Nothing here is code of the gateway, which clients of the lab share: what both get wrong is found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddrV4;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::capture::CapturedDatagram;

/// The last bytes of a protected packet: the authentication tag and, in SRTCP, the index.
pub type PacketEnd = [u8; 16];

/// The flag of an encrypted packet, beside the index of SRTCP.
const ENCRYPTED: u32 = 1 << 31;
/// SRTCP indices are below this: they begin at 0, and each takeover skips at most 2^14.
const SRTCP_INDEX_END: u32 = 1 << 24;
/// The index of a source's first packet is at least this, so that an earlier packet has one.
const FIRST_INDEX: u64 = 1 << 16;
/// A frame freezes video if it comes this much later than usual, and three times as late (W3C webrtc-stats, `freezeCount`).
const FREEZE_NS: u64 = 150_000_000;
/// Frames that tell what is usual.
const FRAMES_IN_MEAN: usize = 30;

/// A datagram from a gateway to a WebRTC client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientPacket {
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
    pub client: SocketAddrV4,
    pub content: ClientContent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientContent {
    Dtls,
    Srtp {
        ssrc: u32,
        payload_type: u8,
        /// The marker: of video, the last packet of a frame has it.
        ends_frame: bool,
        sequence: u16,
        end: PacketEnd,
    },
    Srtcp {
        ssrc: u32,
        end: PacketEnd,
    },
}

impl ClientPacket {
    /// Reads a datagram from this port of a gateway; `None` for another one, and for STUN.
    pub fn read(datagram: &CapturedDatagram<'_>, port: u16) -> Option<Self> {
        let CapturedDatagram { source, destination: client, payload, at_ns } = *datagram;
        let word = |at: usize| Some(u32::from_be_bytes(*payload.get(at..)?.first_chunk()?));
        let end = || payload.last_chunk().copied();
        // RFC 7983, section 7, and RFC 5761, section 4.
        let content = match *payload {
            _ if source.port() != port => return None,
            [20..=63, ..] => ClientContent::Dtls,
            [128..=191, 192..=223, ..] => ClientContent::Srtcp { ssrc: word(4)?, end: end()? },
            [128..=191, second, ..] => ClientContent::Srtp {
                ssrc: word(8)?,
                payload_type: second & 0x7f,
                ends_frame: second & 0x80 != 0,
                // The lower half of the first word.
                sequence: word(0)? as u16,
                end: end()?,
            },
            _ => return None,
        };
        Some(ClientPacket { at_ns, client, content })
    }
}

/// The indices of all captured packets to clients.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct CapturedIndices {
    /// Addresses to which protected packets were sent.
    pub clients: usize,
    pub packets: usize,
    /// Indices of a source at an address that were used with different bytes.
    pub reused: usize,
    /// Frames that the capture lost.
    pub frames_lost: u32,
}

impl CapturedIndices {
    /// `frames_lost`: those that the capture lost.
    pub fn of(packets: &[ClientPacket], frames_lost: u32) -> Self {
        let gcm = clients_with_gcm(packets);
        let mut sources: BTreeMap<Source, UsedIndices> = BTreeMap::new();
        let mut found = CapturedIndices { frames_lost, ..CapturedIndices::default() };
        for ClientPacket { client, content, .. } in packets {
            let (client, is_rtp) = (*client, matches!(content, ClientContent::Srtp { .. }));
            let (ssrc, end) = match *content {
                ClientContent::Dtls => continue,
                ClientContent::Srtp { ssrc, end, .. } | ClientContent::Srtcp { ssrc, end } => {
                    (ssrc, end)
                }
            };
            let used = sources.entry(Source { client, ssrc, is_rtp }).or_default();
            let index = match content {
                ClientContent::Srtp { sequence, .. } => used.extended.index_of(*sequence),
                _ => (srtcp_word(&end, gcm.contains(&client)) & !ENCRYPTED).into(),
            };
            found.packets += 1;
            if *used.ends.entry(index).or_insert(end) != end {
                used.reused.insert(index);
            }
        }
        let clients: BTreeSet<SocketAddrV4> = sources.keys().map(|source| source.client).collect();
        found.clients = clients.len();
        found.reused = sources.values().map(|used| used.reused.len()).sum();
        found
    }
}

/// A sender towards a client. SRTP and SRTCP have indices of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    client: SocketAddrV4,
    ssrc: u32,
    is_rtp: bool,
}

#[derive(Default)]
struct UsedIndices {
    extended: ExtendedSequence,
    /// The end of the first packet with each index.
    ends: BTreeMap<u64, PacketEnd>,
    reused: BTreeSet<u64>,
}

/// The indices of SRTP, extended from the highest one (RFC 3711, section 3.3.1). The roll-over counter begins at a number of its own.
#[derive(Clone, Copy, Default)]
struct ExtendedSequence {
    highest: Option<u64>,
}

impl ExtendedSequence {
    fn index_of(&mut self, sequence: u16) -> u64 {
        let index = match self.highest {
            None => FIRST_INDEX + u64::from(sequence),
            Some(highest) => {
                let ahead = sequence.wrapping_sub(highest as u16).cast_signed();
                highest.saturating_add_signed(ahead.into())
            }
        };
        self.highest = self.highest.max(Some(index));
        index
    }
}

/// A packet of SRTP that a client accepted, as it tells: in JSON a list of both numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct AcceptedPacket {
    pub ssrc: u32,
    pub sequence: u16,
}

/// A packet that reached a client, and that its SRTP did not accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RefusedPacket {
    pub client: SocketAddrV4,
    pub ssrc: u32,
    /// The index of SRTP. The roll-over counter of the first captured packet counts as 1.
    pub index: u64,
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
}

impl RefusedPacket {
    /// True if it may have been sent before one of these times of faults, nanoseconds since the Unix epoch, on a path that takes at most
    /// `path_ns`.
    pub fn was_on_its_way(&self, faults_ns: &[u64], path_ns: u64) -> bool {
        faults_ns.iter().any(|at_ns| (*at_ns..at_ns + path_ns).contains(&self.at_ns))
    }
}

impl fmt::Display for RefusedPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RefusedPacket { client, ssrc, index, at_ns } = self;
        write!(f, "{client} refused index {index} of SSRC {ssrc}, which came at {at_ns} ns")
    }
}

/// The captured packets of SRTP that clients did not accept, from this time on: nanoseconds since the Unix epoch. `packets`: all of one
/// port. `accepted`: all that its clients accepted since the capture began, in order. An end processes packets in order, so a packet
/// before an accepted one was refused; so was one that came before `processed_ns`. Copies count once.
pub fn refused(
    packets: &[ClientPacket],
    accepted: &[AcceptedPacket],
    since_ns: u64,
    processed_ns: u64,
) -> Vec<RefusedPacket> {
    let mut captured: BTreeMap<Source, (ExtendedSequence, Vec<RefusedPacket>)> = BTreeMap::new();
    let mut first: BTreeMap<u32, u64> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for &ClientPacket { at_ns, client, content } in packets {
        let ClientContent::Srtp { ssrc, sequence, .. } = content else { continue };
        let source = Source { client, ssrc, is_rtp: true };
        let (extended, of_source) = captured.entry(source).or_default();
        let index = extended.index_of(sequence);
        first.entry(ssrc).or_insert(index);
        if known.insert((source, index)) {
            of_source.push(RefusedPacket { client, ssrc, index, at_ns });
        }
    }
    let mut extended: BTreeMap<u32, ExtendedSequence> = BTreeMap::new();
    let mut counts: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    for &AcceptedPacket { ssrc, sequence } in accepted {
        let highest = first.get(&ssrc).copied();
        let extended = extended.entry(ssrc).or_insert(ExtendedSequence { highest });
        *counts.entry((ssrc, extended.index_of(sequence))).or_default() += 1;
    }
    let mut refused = Vec::new();
    for (_, of_source) in captured.into_values() {
        let is_accepted: Vec<bool> = of_source
            .iter()
            .map(|packet| match counts.get_mut(&(packet.ssrc, packet.index)) {
                None | Some(0) => false,
                Some(count) => {
                    *count -= 1;
                    true
                }
            })
            .collect();
        let last = is_accepted.iter().rposition(|is_accepted| *is_accepted);
        let is_refused = |&(place, packet): &(usize, &RefusedPacket)| {
            let is_processed = last.is_some_and(|last| place < last) || packet.at_ns < processed_ns;
            is_processed && !is_accepted[place] && packet.at_ns >= since_ns
        };
        let found = of_source.iter().enumerate().filter(is_refused);
        refused.extend(found.map(|(_, packet)| *packet));
    }
    refused
}

/// The time for which each stream of video stood still in this span, nanoseconds: the sum of the pauses between whole frames that are
/// freezes (W3C webrtc-stats, `totalFreezesDuration`). The end of the span ends the last pause. A frame is whole when its last packet has
/// arrived; one that refers to a lost frame counts as shown, since the capture does not see which do. `is_video` chooses streams by
/// SSRC and payload type; those without a whole frame before the span are left out.
pub fn frozen_ns(
    packets: &[ClientPacket],
    is_video: impl Fn(u32, u8) -> bool,
    span: Range<u64>,
) -> Vec<u64> {
    let mut streams: BTreeMap<Source, VideoStream> = BTreeMap::new();
    for &ClientPacket { at_ns, client, content } in packets {
        if let ClientContent::Srtp { ssrc, payload_type, ends_frame, sequence, .. } = content
            && is_video(ssrc, payload_type)
            && at_ns < span.end
        {
            let stream = streams.entry(Source { client, ssrc, is_rtp: true }).or_default();
            let index = stream.extended.index_of(sequence);
            stream.packets.entry(index).or_insert(VideoPacket { at_ns, ends_frame });
        }
    }
    streams.values().filter_map(|stream| frozen(&stream.frames_ns(), &span)).collect()
}

#[derive(Default)]
struct VideoStream {
    extended: ExtendedSequence,
    /// By index.
    packets: BTreeMap<u64, VideoPacket>,
}

struct VideoPacket {
    at_ns: u64,
    ends_frame: bool,
}

impl VideoStream {
    /// The times at which frames were whole, none before the frame that it follows.
    fn frames_ns(&self) -> Vec<u64> {
        let mut frames: Vec<u64> = Vec::new();
        // The last index, and the time at which all packets since the end of a frame had arrived.
        let mut before: Option<(u64, Option<u64>)> = None;
        for (&index, &VideoPacket { at_ns, ends_frame }) in &self.packets {
            let follows = before.filter(|(last, _)| last + 1 == index);
            let mut whole_ns = follows.and_then(|(_, whole_ns)| whole_ns).map(|ns| ns.max(at_ns));
            if ends_frame {
                let shown = frames.last().copied().unwrap_or(0);
                frames.extend(whole_ns.map(|ns| ns.max(shown)));
                // The next frame begins.
                whole_ns = Some(0);
            }
            before = Some((index, whole_ns));
        }
        frames
    }
}

/// `None` without a frame before the span.
fn frozen(frames_ns: &[u64], span: &Range<u64>) -> Option<u64> {
    frames_ns.first().filter(|first| **first <= span.start)?;
    let ends = frames_ns[1..].iter().chain([&span.end]);
    let durations: Vec<u64> = frames_ns.iter().zip(ends).map(|(begin, end)| end - begin).collect();
    let is_freeze = |place: usize| {
        let earlier = &durations[place.saturating_sub(FRAMES_IN_MEAN)..place];
        let mean = earlier.iter().sum::<u64>() / earlier.len().max(1) as u64;
        !earlier.is_empty() && durations[place] >= (3 * mean).max(mean + FREEZE_NS)
    };
    let in_span =
        (0..durations.len()).filter(|&place| frames_ns[place] + durations[place] > span.start);
    Some(in_span.filter(|&place| is_freeze(place)).map(|place| durations[place]).sum())
}

/// The flag and the index of SRTCP: behind the tag under GCM (RFC 7714, section 17), else before a tag of 80 bits (RFC 3711,
/// section 3.4).
fn srtcp_word(end: &PacketEnd, is_gcm: bool) -> u32 {
    let [.., a, b, c, d] = *end;
    let [_, _, e, f, g, h, ..] = *end;
    u32::from_be_bytes(if is_gcm { [a, b, c, d] } else { [e, f, g, h] })
}

/// The clients of which each SRTCP packet ends with an index. A tag does not look like one for long.
fn clients_with_gcm(packets: &[ClientPacket]) -> BTreeSet<SocketAddrV4> {
    let (mut with, mut without) = (BTreeSet::new(), BTreeSet::new());
    for packet in packets {
        if let ClientContent::Srtcp { end, .. } = &packet.content {
            let index = srtcp_word(end, true) ^ ENCRYPTED;
            let clients = if index < SRTCP_INDEX_END { &mut with } else { &mut without };
            clients.insert(packet.client);
        }
    }
    with.retain(|client| !without.contains(client));
    with
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 7_000;
    const ONE: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 1), 4_000);
    const OTHER: SocketAddrV4 = SocketAddrV4::new(*ONE.ip(), 4_001);

    /// Captures datagrams of a gateway, each with its destination.
    fn capture(datagrams: &[(SocketAddrV4, Vec<u8>)]) -> CapturedIndices {
        let source = SocketAddrV4::new([10, 0, 0, 100].into(), PORT);
        let packets = datagrams.iter().map(|(destination, payload)| {
            let datagram =
                CapturedDatagram { source, destination: *destination, payload, at_ns: 0 };
            ClientPacket::read(&datagram, PORT).expect("a packet for a client")
        });
        CapturedIndices::of(&packets.collect::<Vec<_>>(), 0)
    }

    /// SRTP with a body that differs by `body`.
    fn srtp(ssrc: u32, sequence: u16, body: u8) -> Vec<u8> {
        let mut packet = vec![0x80, 111];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(ssrc.to_be_bytes());
        packet.extend([body; 30]);
        packet
    }

    /// SRTCP by AES-GCM, or with a tag of 80 bits.
    fn srtcp(index: u32, body: u8, is_gcm: bool) -> Vec<u8> {
        let mut packet = vec![0x80, 201, 0, 1, 0, 0, 0, 7];
        let word = (index | ENCRYPTED).to_be_bytes();
        let tag = |length| vec![body; length];
        packet
            .extend(if is_gcm { [tag(16), word.into()] } else { [word.into(), tag(10)] }.concat());
        packet
    }

    #[test]
    fn index_with_other_bytes_is_reused() {
        let reused = |datagrams: &[(SocketAddrV4, Vec<u8>)]| capture(datagrams).reused;
        let first = (ONE, srtp(7, 10, 1));
        assert_eq!(reused(&[first.clone(), (ONE, srtp(7, 10, 2))]), 1);
        assert_eq!(reused(&[first.clone(), first.clone()]), 0, "a copy of the network");
        assert_eq!(reused(&[first.clone(), (ONE, srtp(7, 11, 2))]), 0);
        assert_eq!(reused(&[first.clone(), (ONE, srtp(8, 10, 2))]), 0, "another source");
        assert_eq!(reused(&[first, (OTHER, srtp(7, 10, 2))]), 0, "another client");
    }

    #[test]
    fn late_packet_of_a_former_owner_is_found() {
        let mut datagrams: Vec<_> = (65_000..=65_535).map(|at| (ONE, srtp(7, at, 1))).collect();
        datagrams.extend((0..200).map(|at| (ONE, srtp(7, at, 1))));
        assert_eq!(capture(&datagrams).reused, 0);
        datagrams.extend([65_535, 3, 3].map(|at| (ONE, srtp(7, at, 2))));
        let found = capture(&datagrams);
        assert_eq!((found.reused, found.packets, found.clients), (2, 739, 1));
    }

    #[test]
    fn equal_sequence_of_the_next_cycle_is_another_index() {
        let steps = [0u16, 20_000, 40_000, 60_000, 14_000, 34_000, 54_000, 0];
        let datagrams: Vec<_> =
            (1..).zip(steps).map(|(body, at)| (ONE, srtp(7, at, body))).collect();
        assert_eq!(capture(&datagrams).reused, 0);
    }

    #[test]
    fn srtcp_index_is_read_by_either_profile() {
        for is_gcm in [true, false] {
            let reused = |indices: [u32; 3]| {
                let packets = (0x11..).zip(indices);
                let packets = packets.map(|(body, index)| (ONE, srtcp(index, body, is_gcm)));
                capture(&packets.collect::<Vec<_>>()).reused
            };
            assert_eq!((reused([0, 1, 16_384]), reused([0, 1, 0])), (0, 1), "GCM: {is_gcm}");
        }
    }

    #[test]
    fn packets_of_another_port_and_stun_are_ignored() {
        let read = |port, payload: &[u8]| {
            let source = SocketAddrV4::new([10, 0, 0, 100].into(), port);
            let datagram = CapturedDatagram { source, destination: ONE, payload, at_ns: 5 };
            ClientPacket::read(&datagram, PORT).map(|packet| packet.content)
        };
        assert_eq!(read(PORT + 1, &srtp(7, 1, 1)), None);
        assert_eq!(read(PORT, &[0; 40]), None, "STUN");
        assert_eq!(read(PORT, &[22; 40]), Some(ClientContent::Dtls));
        let end = [1; 16];
        assert_eq!(
            read(PORT, &srtp(7, 258, 1)),
            Some(ClientContent::Srtp {
                ssrc: 7,
                payload_type: 111,
                ends_frame: false,
                sequence: 258,
                end
            })
        );
    }

    /// Packets of SSRC 7, each with its client, its time and its sequence number.
    fn received(packets: &[(SocketAddrV4, u64, u16)]) -> Vec<ClientPacket> {
        let source = SocketAddrV4::new([10, 0, 0, 100].into(), PORT);
        let packets = packets.iter().map(|&(destination, at_ns, sequence)| {
            let payload = &srtp(7, sequence, 1);
            ClientPacket::read(&CapturedDatagram { source, destination, payload, at_ns }, PORT)
        });
        packets.collect::<Option<_>>().expect("packets for clients")
    }

    fn indices(packets: &[ClientPacket], accepted: &[u16], processed_ns: u64) -> Vec<u64> {
        let accepted = accepted.iter().map(|&sequence| AcceptedPacket { ssrc: 7, sequence });
        let accepted: Vec<_> = accepted.collect();
        let refused = refused(packets, &accepted, 10, processed_ns);
        refused.iter().map(|packet| packet.index - FIRST_INDEX).collect()
    }

    #[test]
    fn packet_before_an_accepted_one_was_refused() {
        let packets = received(&[(ONE, 5, 1), (ONE, 10, 2), (ONE, 11, 3), (ONE, 12, 4)]);
        assert_eq!(indices(&packets, &[3], 0), [2], "from 10 ns on; the last may not be processed");
        assert_eq!(indices(&packets, &[3], 13), [2, 4]);
        assert_eq!(indices(&packets, &[1, 2, 3, 4], 13), [0; 0]);
        assert_eq!(indices(&packets, &[], 12), [2, 3], "all refused");
        let copies = received(&[(ONE, 10, 2), (ONE, 11, 2), (ONE, 12, 3)]);
        assert_eq!(indices(&copies, &[2, 3], 13), [0; 0], "a copy");
    }

    #[test]
    fn refused_packets_are_named_across_a_rollover() {
        let numbers = [65_534, 65_535, 0, 1, 2];
        let packets: Vec<_> = (10..).zip(numbers).map(|(at, number)| (ONE, at, number)).collect();
        let packets = received(&packets);
        assert_eq!(indices(&packets, &[65_534, 65_535, 2], 0), [65_536, 65_537]);
        assert_eq!(
            indices(&packets, &[0, 1, 2], 0),
            [65_534, 65_535],
            "the first accepted is later"
        );
    }

    #[test]
    fn each_of_two_clients_accepts_a_packet_of_one_ssrc() {
        let packets = received(&[(ONE, 10, 5), (OTHER, 10, 5), (ONE, 11, 6), (OTHER, 11, 6)]);
        assert_eq!(indices(&packets, &[5, 5, 6, 6], 20), [0; 0]);
        assert_eq!(indices(&packets, &[5, 6, 6], 20), [5]);
    }

    #[test]
    fn packet_is_on_its_way_for_the_time_of_the_path() {
        let at = |at_ns| RefusedPacket { client: ONE, ssrc: 7, index: FIRST_INDEX, at_ns };
        let excused = [99, 100, 1_099, 1_100].map(|ns| at(ns).was_on_its_way(&[7, 100], 1_000));
        assert_eq!(excused, [true, true, true, false]);
        let excused = [99, 100].map(|ns| at(ns).was_on_its_way(&[100], 1_000));
        assert_eq!(excused, [false, true]);
    }

    const MS: u64 = 1_000_000;

    /// Frames of two packets, each with the time of both, milliseconds. Numbers in `lost` do not arrive.
    fn video(frames_ms: &[u64], lost: &[u16]) -> Vec<ClientPacket> {
        let packets = frames_ms.iter().flat_map(|ms| [(ms, false), (ms, true)]).zip(65_530_u32..);
        let packets = packets.map(|((ms, ends_frame), number)| {
            let (sequence, end) = (number as u16, [0; 16]);
            let (ssrc, payload_type) = (7, 96);
            let content = ClientContent::Srtp { ssrc, payload_type, ends_frame, sequence, end };
            ClientPacket { at_ns: ms * MS, client: ONE, content }
        });
        let is_lost = |packet: &ClientPacket| match packet.content {
            ClientContent::Srtp { sequence, .. } => lost.contains(&sequence),
            _ => false,
        };
        packets.filter(|packet| !is_lost(packet)).collect()
    }

    #[test]
    fn late_frame_freezes_video() {
        let frozen = |frames_ms: &[u64], until_ms: u64| {
            let all = video(frames_ms, &[]);
            let frozen =
                frozen_ns(&all, |_, payload_type| payload_type == 96, 500 * MS..until_ms * MS);
            frozen.iter().map(|ns| ns / MS).collect::<Vec<_>>()
        };
        let calm: Vec<u64> = (0..=20).map(|frame| frame * 40).collect();
        let with = |late: &[u64]| [&calm[..], late].concat();
        assert_eq!(frozen(&with(&[989, 1_029]), 1_050), [0], "189 ms after frames of 40 ms");
        assert_eq!(frozen(&with(&[990, 1_030]), 1_050), [190]);
        assert_eq!(frozen(&calm, 1_000), [200], "until the end of the span");
        assert_eq!(frozen(&[520, 560, 990], 1_000), [0; 0], "no frame before the span");
        let slow: Vec<u64> = (0..=9).map(|frame| frame * 100).collect();
        assert_eq!(frozen(&[&slow[..], &[1_199]].concat(), 1_200), [0], "three times as long");
        assert_eq!(frozen(&[&slow[..], &[1_200]].concat(), 1_201), [300]);
    }

    #[test]
    fn frame_without_a_packet_is_not_shown() {
        let frames: Vec<u64> = (0..=20).map(|frame| frame * 40).collect();
        let frozen =
            |lost: &[u16]| frozen_ns(&video(&frames, lost), |_, _| true, 400 * MS..840 * MS);
        assert_eq!(frozen(&[]), [0]);
        // The first packets of four frames across the roll-over: 520 to 640 ms.
        let first = 65_530_u32 + 2 * 13;
        let lost: Vec<u16> = (0..4).map(|frame| (first + 2 * frame) as u16).collect();
        assert_eq!(frozen(&lost), [200 * MS]);
    }
}
