use super::super::LayerLimits;
use super::super::tests::{header, two_layers};
use super::*;
use crate::rtcp::{self, Pli, ReportBlock};
use crate::tests::at;

/// A video whose high layer, with SSRC 2, passes under SSRC 1: its number 501 as 11, its timestamp 0 as 9,000.
fn switched() -> Vec<LayeredVideo> {
    let mut video = two_layers();
    for ms in [0, 600] {
        video.note_received(0, 100, at(ms));
        video.note_received(1, 1_000, at(ms));
    }
    video.choose(LayerLimits::default(), at(600));
    video.pass(0, &header(1, 10, 0), 90_000, || false, at(600)).unwrap();
    let sent = video.pass(1, &header(2, 501, 0), 90_000, || true, at(700)).unwrap();
    assert_eq!((sent.ssrc, sent.sequence, sent.timestamp), (1, 11, 9_000));
    vec![video]
}

fn to_node(videos: &[LayeredVideo], mut compound: Vec<u8>) -> Vec<u8> {
    let length = rtcp_to_node(videos, &mut compound);
    compound.truncate(length);
    compound
}

fn block(ssrc: u32, sequence_max: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 1,
        lost: 2,
        sequence_max,
        jitter: 3,
        last_sr: 4,
        delay_since_last_sr: 5,
    }
}

#[test]
fn reports_of_the_passing_layer_alone_reach_the_receiver() {
    let info = |ssrc, timestamp| SenderInfo { ssrc, ntp: 7, timestamp, packets: 8, octets: 9 };
    let mut compound = Vec::new();
    for ssrc in [1, 2, 3] {
        rtcp::write_sender_report(&info(ssrc, 50), &[], &mut compound);
        rtcp::write_cname(ssrc, b"node", &mut compound);
    }
    let length = rtcp_to_receiver(&switched(), &mut compound);
    let mut expected = Vec::new();
    for (ssrc, timestamp) in [(1, 9_050), (3, 50)] {
        rtcp::write_sender_report(&info(ssrc, timestamp), &[], &mut expected);
        rtcp::write_cname(ssrc, b"node", &mut expected);
    }
    assert_eq!(compound[..length], expected);
}

#[test]
fn feedback_of_the_receiver_names_the_passing_layer() {
    let mut compound = Vec::new();
    rtcp::write_receiver_report(9, &[block(1, 0x1_000b), block(3, 7)], &mut compound);
    rtcp::write_pli(Pli { sender: 9, media: 1 }, &mut compound);
    rtcp::write_nack(9, 1, &[8, 11, 12], &mut compound);
    let mut expected = Vec::new();
    rtcp::write_receiver_report(9, &[block(2, 0x1_0000 + 501), block(3, 7)], &mut expected);
    rtcp::write_pli(Pli { sender: 9, media: 2 }, &mut expected);
    rtcp::write_nack(9, 2, &[501, 502], &mut expected);
    assert_eq!(to_node(&switched(), compound), expected);
}

#[test]
fn report_about_the_layer_before_is_removed() {
    let mut compound = Vec::new();
    rtcp::write_receiver_report(9, &[block(1, 10)], &mut compound);
    rtcp::write_nack(9, 1, &[9, 10], &mut compound);
    let mut expected = Vec::new();
    rtcp::write_receiver_report(9, &[], &mut expected);
    assert_eq!(to_node(&switched(), compound), expected);
}

#[test]
fn estimate_of_layered_video_ends_here() {
    let remb = |sources: &[u32]| {
        let mut compound = Vec::new();
        rtcp::write_remb(9, 300_000, sources, &mut compound);
        compound
    };
    let videos = switched();
    assert_eq!(estimate_kbps(&videos, &remb(&[3, 1])), Some(300));
    assert!(to_node(&videos, remb(&[3, 1])).is_empty());
    assert_eq!(estimate_kbps(&videos, &remb(&[3])), None);
    assert_eq!(to_node(&videos, remb(&[3])), remb(&[3]));
    let single = [LayeredVideo::new(b"anna", b"l", 1)];
    assert_eq!(to_node(&single, remb(&[1])), remb(&[1]), "its sender alone can send less");
}

#[test]
fn malformed_packet_remains() {
    let mut broken = vec![0x80, 200, 0, 9, 0, 0];
    assert_eq!(rtcp_to_receiver(&switched(), &mut broken), 6);
    assert_eq!(to_node(&switched(), broken.clone()), broken);
}
