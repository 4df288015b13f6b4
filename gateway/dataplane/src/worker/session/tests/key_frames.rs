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

#[test]
fn stream_is_asked_once_however_many_receivers_ask() {
    let mut bench = call();
    let (camera, screen) = (3, 4);
    for ssrc in [camera, screen] {
        bench.at(0, |session, cx| session.handle_client_rtp(&video(1, ssrc), cx));
    }
    let ask = |bench: &mut Bench, ms, media| {
        let (mut alone, mut whole) = (Vec::new(), Vec::new());
        rtcp::write_pli(rtcp::Pli { sender: 9, media }, &mut alone);
        rtcp::write_receiver_report(9, &[], &mut whole);
        rtcp::write_pli(rtcp::Pli { sender: 9, media }, &mut whole);
        for packet in [alone, whole] {
            bench.at(ms, |session, cx| session.handle_node_packet(hop(0), &packet, cx));
        }
    };
    let heard = |bench: &Bench| {
        let mut buffer = [0; 256];
        let mut all = Vec::new();
        while let Ok(length) = bench.client.recv(&mut buffer) {
            all.extend(asked(&buffer[..length]));
        }
        all
    };
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
    bench.at(2_000, WorkerSession::tick);
    assert_eq!(heard(&bench), [0; 0]);
    bench.at(2_000, WorkerSession::request_client_key_frame);
    ask(&mut bench, 2_010, camera);
    assert_eq!(heard(&bench), [camera, screen], "the gateway has asked");
}
