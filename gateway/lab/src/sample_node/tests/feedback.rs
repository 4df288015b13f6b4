//! Feedback of receivers, as it comes to senders.

use std::collections::BTreeSet;

use super::*;

const PICTURE: u8 = 96;
const RETRANSMISSION: u8 = 97;
const PICTURES: u32 = 5;
const RETRANSMISSIONS: u32 = 6;

fn picture(sequence: u16) -> Vec<u8> {
    let timestamp = u32::from(sequence) * 3_000;
    let fields =
        rtp::Fields { payload_type: PICTURE, marker: true, sequence, timestamp, ssrc: PICTURES };
    let mut packet = Vec::new();
    rtp::write(&fields, &[b"picture ", &sequence.to_be_bytes()[..]].concat(), &mut packet);
    packet
}

/// The packet of this number sent again, in the format of RFC 4588.
fn retransmission(sequence: u16, lost: u16) -> Vec<u8> {
    let again = picture(lost);
    let timestamp = u32::from(lost) * 3_000;
    let (payload_type, ssrc) = (RETRANSMISSION, RETRANSMISSIONS);
    let fields = rtp::Fields { payload_type, marker: true, sequence, timestamp, ssrc };
    let mut packet = Vec::new();
    let payload = [&lost.to_be_bytes()[..], &again[rtp::HEADER_LEN..]].concat();
    rtp::write(&fields, &payload, &mut packet);
    packet
}

fn parts(compound: &[u8]) -> Vec<RtcpPacket<'_>> {
    rtcp::packets(compound).map(|packet| packet.unwrap()).collect()
}

/// A compound packet of a receiver.
fn feedback(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut compound = Vec::new();
    rtcp::write_receiver_report(9, &[], &mut compound);
    write(&mut compound);
    compound
}

/// Two senders and a receiver. Returns the node's SSRC for each of the senders' streams.
fn room_of_three() -> (Rig, [u32; 2]) {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11, 12]);
    let ssrcs = [(10, 5), (11, 7)].map(|(tag, ssrc)| {
        rig.send(tag, &voice(ssrc, 1, tag));
        let heard = [rig.gateway.rtp(), rig.gateway.rtp()];
        heard[0].1.ssrc
    });
    (rig, ssrcs)
}

/// A sender's packets are lost between the node and the receiver, a seventh of them, retransmissions included. The receiver asks
/// until it has all of them.
#[test]
fn packets_lost_after_the_node_are_repaired() {
    const SENT: u16 = 500;
    let mut rig = Rig::new(|options| options.retransmissions = vec![RETRANSMISSION]);
    rig.open_all(1, &[10, 11]);
    let mut link = fastrand::Rng::with_seed(3);
    // Numbers wrap at both ends.
    let first = u16::MAX - 99;
    let (mut lost, mut again) = (0, 0_u16);
    // Of each packet that arrived, its number at the receiver and at the sender.
    let mut arrived = BTreeSet::new();
    let mut offset = 0;
    for sent in 0..SENT {
        let number = first.wrapping_add(sent);
        rig.send(10, &picture(number));
        let (tag, packet) = rig.gateway.packet();
        let header = rtp::RtpHeader::parse(&packet).unwrap();
        assert_eq!(tag, Tag(11));
        offset = header.sequence.wrapping_sub(number);
        if link.u8(..7) == 0 {
            lost += 1;
        } else {
            arrived.insert((header.sequence, header.payload(&packet).to_vec()));
        }
        while let Some(missing) = missing(&arrived, first.wrapping_add(offset), sent) {
            rig.send(11, &feedback(|out| rtcp::write_nack(9, header.ssrc, &missing, out)));
            let (tag, compound) = rig.gateway.packet();
            let [RtcpPacket::ReceiverReport(_), RtcpPacket::Nack(nack)] = parts(&compound)[..]
            else {
                panic!("{compound:?}")
            };
            assert_eq!((tag, nack.media), (Tag(10), PICTURES));
            for number in nack.missing() {
                again += 1;
                rig.send(10, &retransmission(again, number));
                let (_, packet) = rig.gateway.packet();
                let header = rtp::RtpHeader::parse(&packet).unwrap();
                if link.u8(..7) > 0 {
                    let (number, payload) = header.payload(&packet).split_first_chunk().unwrap();
                    arrived.insert((u16::from_be_bytes(*number), payload.to_vec()));
                }
            }
        }
    }
    let expected = (0..SENT).map(|sent| {
        let number = first.wrapping_add(sent);
        (number.wrapping_add(offset), picture(number)[rtp::HEADER_LEN..].to_vec())
    });
    assert_eq!(arrived, expected.collect());
    let counters = rig.end();
    assert!(lost > 50 && again > lost, "{lost} lost, {again} sent again");
    assert!(counters.nack > 50, "{counters:?}");
    assert_eq!(counters.ignored, IgnoredCounters::default());
}

/// The numbers that did not arrive, of `sent` and one from the first; `None` if all did.
fn missing(arrived: &BTreeSet<(u16, Vec<u8>)>, first: u16, sent: u16) -> Option<Vec<u16>> {
    let arrived: BTreeSet<u16> = arrived.iter().map(|(number, _)| *number).collect();
    let numbers = (0..=sent).map(|sent| first.wrapping_add(sent));
    let missing: Vec<u16> = numbers.filter(|number| !arrived.contains(number)).collect();
    (!missing.is_empty()).then_some(missing)
}

#[test]
fn sender_gets_the_lowest_estimate_of_its_receivers() {
    let (mut rig, ssrcs) = room_of_three();
    let mut estimate = |tag, bps, ssrcs: &[u32]| {
        rig.send(tag, &feedback(|out| rtcp::write_remb(9, bps, ssrcs, out)));
        let mut came = |count| {
            let packets = (0..count).map(|_| rig.gateway.packet());
            let read = packets.map(|(tag, compound)| match parts(&compound)[..] {
                [_, RtcpPacket::Remb(remb)] => {
                    (tag.0, remb.bitrate_bps, remb.sources().collect::<Vec<_>>())
                }
                ref other => panic!("{other:?}"),
            });
            read.collect::<Vec<_>>()
        };
        came(ssrcs.len())
    };
    assert_eq!(estimate(12, 200_000, &ssrcs), [(10, 200_000, vec![5]), (11, 200_000, vec![7])]);
    assert_eq!(estimate(11, 500_000, &ssrcs[..1]), [(10, 200_000, vec![5])]);
    assert_eq!(estimate(12, 600_000, &ssrcs[..1]), [(10, 500_000, vec![5])]);
    assert_eq!(rig.end().remb, 3);
}

#[test]
fn arrival_times_go_to_a_single_sender_only() {
    // Of one packet, number 1.
    let arrivals = |media: u32| {
        feedback(|out| {
            out.extend_from_slice(&[0x8f, 205, 0, 5, 0, 0, 0, 9]);
            out.extend_from_slice(&media.to_be_bytes());
            out.extend_from_slice(&[0, 1, 0, 1, 0, 0, 9, 1, 0x20, 1, 4, 0]);
        })
    };
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    rig.send(10, &voice(5, 1, 10));
    let out_ssrc = rig.gateway.rtp().1.ssrc;
    rig.send(11, &arrivals(out_ssrc));
    let (tag, compound) = rig.gateway.packet();
    let [_, RtcpPacket::TransportFeedback(came)] = parts(&compound)[..] else {
        panic!("{compound:?}")
    };
    assert_eq!((tag, came.media, came.sender), (Tag(10), 5, number_of("east-a1")));
    assert_eq!(compound[compound.len() - 12..], arrivals(0)[arrivals(0).len() - 12..]);

    rig.open_all(1, &[12]);
    rig.send(11, &arrivals(out_ssrc));
    let counters = rig.end();
    assert_eq!((counters.transport_wide, counters.ignored.transport_wide), (2, 1));
}

#[test]
fn ignored_feedback_is_counted() {
    let mut rig = Rig::new(|_| {});
    rig.open_all(1, &[10, 11]);
    rig.send(11, &feedback(|out| rtcp::write_nack(9, 77, &[1], out)));
    rig.send(11, &feedback(|out| rtcp::write_pli(Pli { sender: 9, media: 77 }, out)));
    rig.send(11, &feedback(|out| rtcp::write_remb(9, 100_000, &[77], out)));
    rig.send(11, &feedback(|out| rtcp::write_tmmbr(9, 100_000, &[77], out)));
    rig.send(11, &feedback(|out| rtcp::write_cname(9, b"phone", out)));
    rig.send(11, &feedback(|out| out.extend_from_slice(&[0x81, 203, 0, 1, 0, 0, 0, 9])));
    let info = SenderInfo { ssrc: 77, ntp: 1, timestamp: 1, packets: 1, octets: 1 };
    let mut report = Vec::new();
    rtcp::write_sender_report(&info, &[], &mut report);
    rig.send(11, &report);
    // The answer to the report is the only packet.
    assert_eq!(rig.gateway.packet().0, Tag(11));
    let counters = rig.end();
    let ignored = IgnoredCounters {
        unknown_stream: 4,
        description: 1,
        bye: 1,
        other: 1,
        ..IgnoredCounters::default()
    };
    assert_eq!((counters.ignored, counters.packets_out), (ignored, 1));
}
