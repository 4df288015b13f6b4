//! Requests of nodes for key frames of the client.

use super::signs::{call, hop};
use super::*;

/// The streams that a compound packet asks for a key frame.
fn asked(compound: &[u8]) -> Vec<u32> {
    let packets = rtcp::packets(compound).map_while(Result::ok);
    let asked = packets.filter_map(|packet| match packet {
        rtcp::RtcpPacket::Pli(pli) => Some(pli.media),
        _ => None,
    });
    asked.collect()
}

/// The node asks for a key frame of this stream, alone and beside a report.
fn ask(bench: &mut Bench, ms: u64, media: u32) {
    let (mut alone, mut whole) = (Vec::new(), Vec::new());
    rtcp::write_pli(rtcp::Pli { sender: 9, media }, &mut alone);
    rtcp::write_receiver_report(9, &[], &mut whole);
    rtcp::write_pli(rtcp::Pli { sender: 9, media }, &mut whole);
    for packet in [alone, whole] {
        bench.at(ms, |session, cx| session.handle_node_packet(hop(0), &packet, cx));
    }
}

/// The first bytes of VP8 frames (RFC 6386, section 9.1).
pub(super) const KEY: u8 = 0;
pub(super) const INTER: u8 = 1;

/// A packet that begins a VP8 frame (RFC 7741, section 4.2).
pub(super) fn vp8(sequence: u16, ssrc: u32, frame: u8) -> Vec<u8> {
    let fields = rtp::Fields { payload_type: 96, marker: false, sequence, timestamp: 1, ssrc };
    let mut packet = Vec::new();
    rtp::write(&fields, &[0x10, frame], &mut packet);
    packet
}

/// The streams for which the client was asked since the last call.
fn heard(bench: &Bench) -> Vec<u32> {
    let mut buffer = [0; 256];
    let mut all = Vec::new();
    while let Ok(length) = bench.client.recv(&mut buffer) {
        all.extend(asked(&buffer[..length]));
    }
    all
}

#[test]
fn stream_is_asked_once_however_many_receivers_ask() {
    let mut bench = call();
    let (camera, screen) = (3, 4);
    for ssrc in [camera, screen] {
        bench.at(0, |session, cx| session.handle_client_rtp(&video(1, ssrc), cx));
    }
    (0..50).for_each(|ms| ask(&mut bench, ms, camera));
    assert_eq!(heard(&bench), [camera]);
    ask(&mut bench, 60, screen);
    assert_eq!(heard(&bench), [screen], "another stream");
    bench.at(299, WorkerSession::tick);
    assert_eq!(heard(&bench), [0; 0]);
    bench.at(310, WorkerSession::tick);
    assert_eq!(heard(&bench), [camera], "requests that came too early are one later");
    bench.at(370, WorkerSession::tick);
    assert_eq!(heard(&bench), [screen]);
    for ssrc in [camera, screen] {
        let packet = vp8(2, ssrc, KEY);
        bench.at(400, |session, cx| session.handle_client_rtp(&packet, cx));
    }
    bench.at(2_000, WorkerSession::tick);
    assert_eq!(heard(&bench), [0; 0]);
    bench.at(2_000, WorkerSession::request_client_key_frame);
    ask(&mut bench, 2_010, camera);
    assert_eq!(heard(&bench), [camera, screen], "the gateway has asked");
}

#[test]
fn key_frame_answers_requests_before_it() {
    let mut bench = call();
    let camera = 3;
    bench.at(0, |session, cx| session.handle_client_rtp(&video(1, camera), cx));
    let key_frame = |bench: &mut Bench, ms| {
        let packet = vp8(ms as u16, camera, KEY);
        bench.at(ms, |session, cx| session.handle_client_rtp(&packet, cx));
    };
    ask(&mut bench, 0, camera);
    ask(&mut bench, 10, camera);
    key_frame(&mut bench, 80);
    assert_eq!(heard(&bench), [camera]);
    bench.at(310, WorkerSession::tick);
    assert_eq!(heard(&bench), [0; 0], "the key frame came");
    ask(&mut bench, 400, camera);
    key_frame(&mut bench, 450);
    ask(&mut bench, 460, camera);
    assert_eq!(heard(&bench), [camera]);
    bench.at(710, WorkerSession::tick);
    assert_eq!(heard(&bench), [camera], "a receiver asked after the key frame");
    bench.at(720, WorkerSession::request_client_key_frame);
    assert_eq!(heard(&bench), [0; 0], "one is still to come");
    key_frame(&mut bench, 800);
    bench.at(810, WorkerSession::request_client_key_frame);
    assert_eq!(heard(&bench), [camera], "receivers lack packets after it");
}

/// The times at which the client is asked again within 30 s after a request at 0 ms, and the number of key frames that are given up. It sends
/// a key frame at `answered`.
fn repeats(round_trip_us: Option<u32>, answered: Option<u64>) -> (Vec<u64>, u32) {
    let (mut bench, camera, mut asked) = (call(), 3, Vec::new());
    if let Some(rtt_us) = round_trip_us {
        let path = PathReport { rtt_us, lost: 0, sent: 0 };
        bench.at(0, |session, cx| session.handle_quic_path(path, cx));
    }
    bench.at(0, |session, cx| session.handle_client_rtp(&vp8(1, camera, INTER), cx));
    let mut pli = Vec::new();
    rtcp::write_pli(rtcp::Pli { sender: 9, media: camera }, &mut pli);
    bench.at(0, |session, cx| session.handle_node_packet(hop(0), &pli, cx));
    assert_eq!(heard(&bench), [camera]);
    for (number, ms) in (2..).zip((100..30_000).step_by(100)) {
        let frame = if answered == Some(ms) { KEY } else { INTER };
        let packet = vp8(number, camera, frame);
        bench.at(ms, |session, cx| {
            session.handle_client_rtp(&packet, cx);
            session.tick(cx);
        });
        asked.extend(heard(&bench).iter().map(|_| ms));
    }
    (asked, bench.session.take_counts().key_frames_given_up)
}

#[test]
fn requests_are_repeated_until_a_key_frame_comes() {
    // Each wait is twice the one before; the last one ends in vain.
    let all = [300, 900, 2_100, 4_500, 9_300];
    assert_eq!(repeats(None, None), (all.to_vec(), 1));
    assert_eq!(repeats(None, Some(4_000)), (all[..3].to_vec(), 0));
    assert_eq!(repeats(None, Some(200)), (vec![], 0));
    // A round trip of 400 ms, and 100 ms.
    let (slow, given_up) = repeats(Some(400_000), Some(1_600));
    assert_eq!((slow, given_up), (vec![500, 1_500], 0));
}

#[test]
fn requests_of_an_unknown_codec_are_not_repeated() {
    let (mut bench, camera) = (call(), 3);
    let mut media = (*bench.session.media).clone();
    media.streams[1].payload_types[0].codec = "H266".into();
    bench.session.media = Arc::new(media);
    bench.at(0, |session, cx| session.handle_client_rtp(&video(1, camera), cx));
    (0..2).for_each(|ms| ask(&mut bench, ms, camera));
    bench.at(20, |session, cx| session.handle_client_rtp(&video(2, camera), cx));
    assert_eq!(heard(&bench), [camera]);
    bench.at(310, WorkerSession::tick);
    assert_eq!(heard(&bench), [camera], "a receiver asked twice");
    bench.at(350, |session, cx| session.handle_client_rtp(&video(3, camera), cx));
    bench.at(2_000, WorkerSession::tick);
    assert_eq!(heard(&bench), [0; 0]);
}

#[test]
fn overdue_key_frame_is_no_sign_of_receivers_without_one() {
    let (mut bench, camera) = (call(), 3);
    bench.at(0, |session, cx| session.handle_client_rtp(&vp8(1, camera, INTER), cx));
    ask(&mut bench, 0, camera);
    for (number, ms) in (2..).zip((100..4_000).step_by(100)) {
        let packet = vp8(number, camera, INTER);
        bench.at(ms, |session, cx| {
            session.handle_client_rtp(&packet, cx);
            session.tick(cx);
        });
    }
    let now = bench.start + Duration::from_secs(4);
    assert_eq!(bench.session.summary(now).unwrap().flow.key_frame_missing_ms, 0);
}

#[test]
fn hop_is_asked_again_until_a_key_frame_comes() {
    for by_client in [false, true] {
        let (mut bench, node, hop) = at_node(Srtp::Plain);
        let asks = |bench: &mut Bench, ms: u64, packet: &[u8]| {
            bench.at(ms, |session, cx| {
                session.handle_node_packet(hop, packet, cx);
                flush_ports(session, cx);
            });
            node.recv(&mut [0; 128]).is_ok()
        };
        if by_client {
            asks(&mut bench, 0, &vp8(0, 9, INTER));
            let mut pli = Vec::new();
            rtcp::write_pli(rtcp::Pli { sender: 5, media: 9 }, &mut pli);
            bench.at(0, |session, cx| {
                session.handle_client_rtcp(&pli, cx);
                flush_ports(session, cx);
            });
            assert!(node.recv(&mut [0; 128]).is_ok(), "the client's own request");
        } else {
            bench.session.state().feedback.want_key_frame();
            assert!(asks(&mut bench, 0, &vp8(1, 9, INTER)));
        }
        for (number, ms, is_asked) in
            [(2, 299, false), (3, 300, true), (4, 899, false), (5, 900, true)]
        {
            assert_eq!(asks(&mut bench, ms, &vp8(number, 9, INTER)), is_asked, "{ms} {by_client}");
        }
        let frame = if by_client { KEY } else { INTER };
        assert!(!asks(&mut bench, 2_100, &vp8(6, 9, frame)));
        assert!(!asks(&mut bench, 10_000, &vp8(7, 9, INTER)), "it came, or is given up");
        bench.at(10_000, WorkerSession::tick);
        let given_up = bench.session.take_counts().key_frames_given_up;
        assert_eq!(given_up, u32::from(!by_client));
    }
}

#[test]
fn hop_is_asked_unless_a_key_frame_begins() {
    for (frame, asks) in [(INTER, true), (KEY, false)] {
        let (mut bench, node, hop) = at_node(Srtp::Plain);
        bench.session.state().feedback.want_key_frame();
        bench.at(0, |session, cx| {
            session.handle_node_packet(hop, &vp8(1, 9, frame), cx);
            session.handle_node_packet(hop, &vp8(2, 9, INTER), cx);
            flush_ports(session, cx);
        });
        assert_eq!(node.recv(&mut [0; 128]).is_ok(), asks, "frame {frame}");
    }
}

#[test]
fn requests_in_one_packet_are_coalesced() {
    for (streams, asked_for) in [(1, 1), (20, 20), (90, 32)] {
        let (mut bench, node, _) = at_node(Srtp::Plain);
        let mut compound = Vec::new();
        rtcp::write_receiver_report(5, &[], &mut compound);
        for number in 0..90 {
            let pli = rtcp::Pli { sender: 5, media: 1_000 + number % streams };
            rtcp::write_pli(pli, &mut compound);
        }
        bench.at(0, |session, cx| {
            session.handle_client_rtcp(&compound, cx);
            flush_ports(session, cx);
        });
        let mut packet = [0; 2_048];
        let length = node.recv(&mut packet).unwrap();
        let expected: Vec<u32> = (0..asked_for).map(|number| 1_000 + number).collect();
        assert_eq!(asked(&packet[..length]), expected);
        assert!(node.recv(&mut packet).is_err());
    }
}

#[test]
fn request_that_waits_leaves_no_report() {
    let mut bench = call();
    let camera = 3;
    bench.at(0, |session, cx| session.handle_client_rtp(&video(1, camera), cx));
    (0..90).for_each(|_| ask(&mut bench, 1, camera));
    let datagrams = (0..).take_while(|_| bench.client.recv(&mut [0; 256]).is_ok()).count();
    assert_eq!(datagrams, 1);
}
