//! A suspended session.

use super::*;

fn limits(parked: bool) -> MediaLimits {
    let withheld = if parked { u128::MAX } else { 0 };
    MediaLimits { parked, withheld, ..MediaLimits::default() }
}

#[test]
fn parked_session_passes_rtcp_alone() {
    let (mut bench, node, hop) = at_node(Srtp::Plain);
    let mut report = Vec::new();
    rtcp::write_receiver_report(5, &[], &mut report);
    let passes = |bench: &mut Bench, sequence: u16, parked| {
        bench.at(20 * u64::from(sequence), |session, cx| {
            session.set_limits(limits(parked), cx);
            session.handle_client_rtp(&video(sequence, 5), cx);
            session.handle_client_rtcp(&report, cx);
            session.handle_node_packet(hop, &video(sequence, 9), cx);
            session.handle_node_packet(hop, &report, cx);
            flush_ports(session, cx);
        });
        [&node, &bench.client].map(|socket| {
            let mut packet = [0; 128];
            let received = std::iter::from_fn(|| {
                let length = socket.recv(&mut packet).ok()?;
                let kind = demux::classify(&packet[..length]);
                Some(u32::from(kind == demux::DatagramKind::Rtcp))
            });
            received.fold([0, 0], |[rtp, rtcp], is_rtcp| [rtp + 1 - is_rtcp, rtcp + is_rtcp])
        })
    };
    assert_eq!(passes(&mut bench, 1, false), [[1, 1], [1, 1]]);
    assert_eq!(passes(&mut bench, 2, true), [[0, 1], [0, 1]]);
    assert_eq!(bench.session.summary(bench.start).unwrap().totals.packets_up, 2, "heard");
    let [[to_node, feedback], to_client] = passes(&mut bench, 3, false);
    assert_eq!((to_node, to_client), (1, [1, 1]));
    assert_eq!(feedback, 2, "a key frame is requested");
}
