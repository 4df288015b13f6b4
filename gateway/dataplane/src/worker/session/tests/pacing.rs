//! Video to a client that waits for its turn. The client's latency is 60 ms.

use std::ops::Range;

use evenkeel_model::Latency;

use super::estimate::{Call, OPUS, VP8, media, number, packet};
use super::retransmission::heard;
use super::*;
use crate::worker::repair_memory::RepairMemory;

/// The time at which the node sends a burst.
const BURST_MS: u64 = 4_050;

/// The packets of a burst that leave at once: 4,800 bytes.
const AT_ONCE: usize = 5;

/// A call over a path that carries less than a burst.
fn watched(media: MediaDescription) -> Call {
    let mut call = Call::new(media);
    call.watch();
    call.bench.at(4_000, WorkerSession::tick);
    heard(&call.bench.client);
    call
}

fn call() -> Call {
    watched(media(Srtp::Plain, [true, true]))
}

/// The node sends a packet. Returns what the client receives.
fn send(call: &mut Call, ms: u64, packet: &[u8]) -> Vec<Vec<u8>> {
    let hop = call.hop;
    call.bench.at(ms, |session, cx| session.handle_node_packet(hop, packet, cx));
    heard(&call.bench.client)
}

/// The node sends video. Returns what the client receives at once.
fn burst(call: &mut Call, ms: u64, numbers: Range<u16>) -> Vec<Vec<u8>> {
    numbers.flat_map(|number| send(call, ms, &packet(VP8, 9, number))).collect()
}

/// The worker visits the session. Returns what the client receives.
fn visit(call: &mut Call, ms: u64) -> Vec<Vec<u8>> {
    call.bench.at(ms, WorkerSession::send_paced);
    heard(&call.bench.client)
}

fn sequences(packets: &[Vec<u8>]) -> Vec<u16> {
    packets.iter().map(|packet| rtp::RtpHeader::parse(packet).unwrap().sequence).collect()
}

#[test]
fn burst_is_spread_within_the_latency() {
    let mut call = call();
    let at_once = burst(&mut call, BURST_MS, 200..240);
    assert_eq!(sequences(&at_once), [200, 201, 202, 203, 204]);
    let due = call.bench.start + Duration::from_millis(BURST_MS + 1);
    assert_eq!(call.bench.egress.paced.due(), Some(due));
    let voice = call.hear(BURST_MS, &packet(OPUS, 7, 1));
    assert_eq!(number(&voice), Some(205), "voice leaves at once");
    let mut later = Vec::new();
    for ms in 1..=55 {
        let got = visit(&mut call, BURST_MS + ms);
        assert!(got.len() <= 2, "spread");
        later.extend(got);
    }
    assert_eq!(sequences(&later), (205..240).collect::<Vec<_>>());
    let numbers: Vec<_> = later.iter().filter_map(|packet| number(packet)).collect();
    assert_eq!(numbers, (206..241).collect::<Vec<_>>(), "in the order of leaving");
    assert_eq!(call.bench.session.take_counts().paced, 35);
    assert_eq!(call.bench.drops(DropReason::Late), 0);
    assert!(!call.bench.at(BURST_MS + 56, WorkerSession::send_paced));
}

#[test]
fn nothing_leaves_older_than_the_latency() {
    let mut call = call();
    burst(&mut call, BURST_MS, 200..240);
    assert!(visit(&mut call, BURST_MS + 60).is_empty());
    assert_eq!(call.bench.drops(DropReason::Late), 40 - AT_ONCE as u64);
    assert_eq!(call.bench.session.take_counts().paced, 35);
}

#[test]
fn burst_leaves_at_once_to_a_short_latency() {
    for (latency_ms, at_once) in [(9, 40), (10, AT_ONCE)] {
        let mut call = watched(MediaDescription {
            latency: Latency(latency_ms),
            ..media(Srtp::Plain, [true, true])
        });
        assert_eq!(burst(&mut call, BURST_MS, 200..240).len(), at_once, "{latency_ms}");
    }
}

#[test]
fn burst_leaves_at_once_without_an_estimate() {
    let mut call = call();
    // Three seconds without feedback.
    call.bench.at(8_000, WorkerSession::tick);
    assert_eq!(burst(&mut call, 8_010, 200..240).len(), 40);
    assert_eq!(call.bench.session.take_counts().paced, 0);
}

#[test]
fn waiting_packets_leave_before_the_estimate_ends() {
    let mut call = call();
    burst(&mut call, 6_950, 200..240);
    call.bench.at(7_000, WorkerSession::tick);
    assert_eq!(sequences(&heard(&call.bench.client)), (205..240).collect::<Vec<_>>());
}

#[test]
fn all_packets_leave_before_another_process_continues() {
    let mut call = call();
    burst(&mut call, BURST_MS, 200..240);
    call.bench.at(BURST_MS + 1, WorkerSession::send_all_paced);
    assert_eq!(sequences(&heard(&call.bench.client)), (205..240).collect::<Vec<_>>());
}

#[test]
fn packets_do_not_wait_without_memory() {
    let mut call = call();
    call.bench.egress.repair_memory = RepairMemory::new(3 * crate::mmsg::DATAGRAM_MAX);
    let got = burst(&mut call, BURST_MS, 200..240);
    // Three wait each time, until the fourth has no place: all leave, in their order.
    assert_eq!(sequences(&got), (200..237).collect::<Vec<_>>());
    let counts = call.bench.session.take_counts();
    assert_eq!((counts.paced, counts.caches_refused), (27, 8));
    assert_eq!(call.bench.egress.repair_memory.reserved(), 3 * crate::mmsg::DATAGRAM_MAX);
    assert_eq!(visit(&mut call, BURST_MS + 55).len(), 3);
    call.bench.at(BURST_MS + 56, WorkerSession::tick);
    call.bench.at(BURST_MS + 156, WorkerSession::tick);
    assert_eq!(call.bench.egress.repair_memory.reserved(), 0, "nothing waits");
}

#[test]
fn key_frame_leaves_before_video_of_other_streams() {
    let mut call = call();
    burst(&mut call, BURST_MS, 200..210);
    // Both packets of a frame; a key frame begins with the first.
    for (sequence, payload) in [(700, [0x10, 0, 0]), (701, [0, 0, 0])] {
        let fields = rtp::Fields {
            payload_type: VP8,
            marker: sequence == 701,
            sequence,
            timestamp: 90_000,
            ssrc: 11,
        };
        let mut key_frame = Vec::new();
        rtp::write(&fields, &payload, &mut key_frame);
        assert!(send(&mut call, BURST_MS, &key_frame).is_empty());
    }
    let got = visit(&mut call, BURST_MS + 55);
    assert_eq!(sequences(&got), [700, 701, 205, 206, 207, 208, 209]);
}

#[test]
fn answer_to_a_nack_leaves_after_video() {
    let mut media = media(Srtp::Plain, [true, true]);
    media.streams[1].feedback.nack = true;
    let mut call = watched(media);
    assert_eq!(burst(&mut call, BURST_MS - 20, 200..201).len(), 1);
    burst(&mut call, BURST_MS, 201..211);
    let mut nack = Vec::new();
    rtcp::write_nack(5, 9, &[200], &mut nack);
    call.feed_back(BURST_MS, &nack);
    assert!(heard(&call.bench.client).is_empty());
    let got = sequences(&visit(&mut call, BURST_MS + 55));
    let (video, again) = got.split_at(5);
    assert_eq!(video, [206, 207, 208, 209, 210]);
    assert!(!again.is_empty() && again.iter().all(|sequence| *sequence == 200), "{again:?}");
    assert!(call.bench.session.take_counts().answered > 0);
}
