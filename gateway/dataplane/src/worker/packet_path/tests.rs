use evenkeel_media::rtp;

use super::*;

#[test]
fn every_packet_passes_both_ways() {
    let mut lane = PacketPath::new(3).unwrap();
    for number in 0..200_u16 {
        for session in 0..3 {
            let fields = rtp::Fields {
                payload_type: 111,
                marker: false,
                sequence: number,
                timestamp: u32::from(number) * 960,
                ssrc: session,
            };
            let mut packet = Vec::new();
            rtp::write(&fields, &[7; 100], &mut packet);
            lane.from_client(session, &packet);
            lane.from_node(session, &packet);
        }
    }
    assert_eq!(lane.passed(), 200 * 3 * 2);
}
