//! Loss counts at the path that loses.

use evenkeel_media::rtp::{Reception, RtpHeader};
use evenkeel_model::Metric;

use super::*;
use crate::flows::Flows;

#[derive(Clone, Copy, PartialEq, Debug)]
enum LossPlace {
    /// Between the sender and the gateway.
    Uplink,
    /// Between the gateway and the receiver.
    Downlink,
}

/// Ten seconds of packets from one client to the other, of which each tenth is lost. Returns the loss up of the sender, and the
/// loss down of the receiver, in ppm.
fn losses(place: LossPlace) -> [u32; 2] {
    let (mut sender, _sender_node, _) = at_node(Srtp::Plain);
    let (mut receiver, _receiver_node, hop) = at_node(Srtp::Plain);
    let (mut reception, mut ssrc, mut report) = (Reception::new(90_000), 0, Vec::new());
    for number in 0..1_000_u16 {
        let (ms, packet) = (u64::from(number) * 10, video(number.wrapping_add(65_000), 9));
        let is_lost = number % 10 == 3;
        if !(is_lost && place == LossPlace::Uplink) {
            sender.at(ms, |session, cx| {
                session.handle_client_rtp(&packet, cx);
                flush_ports(session, cx);
            });
            receiver.at(ms, |session, cx| session.handle_node_packet(hop, &packet, cx));
        }
        let mut arrived = [0; 128];
        if let Ok(length) = receiver.client.recv(&mut arrived)
            && !(is_lost && place == LossPlace::Downlink)
        {
            let header = RtpHeader::parse(&arrived[..length]).unwrap();
            ssrc = header.ssrc;
            reception.receive(&header, length, receiver.start + Duration::from_millis(ms));
        }
        // Seven packets, of which one is lost, overtake the report on its way.
        match number % 100 {
            50 => {
                report.clear();
                rtcp::write_receiver_report(5, &[reception.report(ssrc)], &mut report);
            }
            57 => receiver.at(ms, |session, cx| session.handle_client_rtcp(&report, cx)),
            _ => {}
        }
    }
    let measured = |bench: &mut Bench, metric| {
        let now = bench.start + Duration::from_secs(10);
        bench.session.summary(now).unwrap().measures.measured(metric).unwrap()
    };
    [measured(&mut sender, Metric::LossUp), measured(&mut receiver, Metric::LossDown)]
}

#[test]
fn loss_of_the_uplink_is_not_charged_to_the_downlink() {
    let [up, down] = losses(LossPlace::Uplink);
    assert!((95_000..=105_000).contains(&up), "{up} ppm of 10 %");
    assert_eq!(down, 0);
}

#[test]
fn loss_of_the_downlink_is_not_charged_to_the_uplink() {
    let [up, down] = losses(LossPlace::Downlink);
    assert!((90_000..=105_000).contains(&down), "{down} ppm of 10 %");
    assert_eq!(up, 0);
}

#[test]
fn packets_before_a_takeover_are_no_loss_of_the_uplink() {
    let (mut bench, _node, _) = at_node(Srtp::Plain);
    let send = |bench: &mut Bench, numbers: std::ops::Range<u16>| {
        for number in numbers {
            bench.at(u64::from(number) * 20, |session, cx| {
                session.handle_client_rtp(&video(number, 9), cx);
                flush_ports(session, cx);
            });
        }
    };
    send(&mut bench, 0..100);
    let state = SessionState { copied: true, ..bench.session.hand_out(&Flows::new(1)) };
    // The owner receives another 50 packets after this copy, and dies.
    bench.session.go_on(state);
    send(&mut bench, 150..200);
    let now = bench.start + Duration::from_millis(4_000);
    let summary = bench.session.summary(now).unwrap();
    assert_eq!(summary.measures.measured(Metric::LossUp), Some(0));
    assert_eq!(summary.totals.lost_up, 0);
}

#[test]
fn rtx_of_the_node_lowers_loss_after_repair() {
    let (mut bench, _node, hop) = at_node(Srtp::Plain);
    let mut media = (*bench.session.media).clone();
    media.streams[0].payload_types.push(PayloadType::new(97, "rtx", 90_000));
    bench.session.media = Arc::new(media);
    let send = |bench: &mut Bench, packet: &[u8]| {
        bench.at(0, |session, cx| session.handle_node_packet(hop, packet, cx));
    };
    let report = |bench: &mut Bench, ms, fraction_lost, sequence_max| {
        let block = rtcp::ReportBlock {
            ssrc: 9,
            fraction_lost,
            sequence_max,
            ..rtcp::ReportBlock::default()
        };
        let mut report = Vec::new();
        rtcp::write_receiver_report(5, &[block], &mut report);
        bench.at(ms, |session, cx| session.handle_client_rtcp(&report, cx));
    };
    (1..=100).for_each(|number| send(&mut bench, &video(number, 9)));
    report(&mut bench, 0, 0, 100);
    (101..=200).for_each(|number| send(&mut bench, &video(number, 9)));
    for lost in 196..=200_u16 {
        let fields =
            rtp::Fields { payload_type: 97, marker: false, sequence: lost, timestamp: 1, ssrc: 4 };
        let mut rtx = Vec::new();
        rtp::write(&fields, &[&lost.to_be_bytes()[..], b"frame"].concat(), &mut rtx);
        send(&mut bench, &rtx);
    }
    report(&mut bench, 4_000, 64, 200);
    let summary = bench.session.summary(bench.start + Duration::from_secs(4)).unwrap();
    let measured = |metric| summary.measures.measured(metric);
    assert_eq!(measured(Metric::LossDown), Some(250_000));
    assert_eq!(measured(Metric::LossDownAfterRepair), Some(200_000));
}
