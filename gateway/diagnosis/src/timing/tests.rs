use super::*;
use crate::loss::LossShare;

const LISTENER: SessionId = SessionId(1);
const SENDER: SessionId = SessionId(2);

/// The segment and session to which jitter in milliseconds is attributed: that of the worst sender, from the node, of probes
/// and at the client.
fn jittery(
    sender: Option<u32>,
    from_node: u32,
    probes: Option<u32>,
    client: u32,
) -> Option<(PathSegment, SessionId)> {
    let us = |ms: u32| ms * 1_000;
    let evidence = PathEvidence {
        from_node_jitter_us: Some(us(from_node)),
        probes_jitter_us: probes.map(us),
        client_jitter_us: Some(us(client)),
        ..PathEvidence::default()
    };
    let sender = sender.map(|jitter| SenderUplink {
        session: SENDER,
        loss: LossShare::default(),
        jitter_us: us(jitter),
    });
    let found = jittery_segment(LISTENER, sender, us(from_node), &evidence);
    found.map(|timing| (timing.segment, timing.at))
}

#[test]
fn jitter_is_attributed_by_differences() {
    let cases = [
        ((Some(0), 21, Some(0), 21), None),
        ((Some(0), 22, Some(0), 22), Some((PathSegment::Node, LISTENER))),
        ((Some(0), 40, Some(0), 40), Some((PathSegment::Node, LISTENER))),
        ((Some(0), 40, Some(10), 40), Some((PathSegment::Leg, LISTENER))),
        ((Some(0), 40, None, 40), Some((PathSegment::Leg, LISTENER))),
        ((Some(40), 40, Some(0), 40), Some((PathSegment::Uplink, SENDER))),
        ((Some(5), 5, Some(0), 40), Some((PathSegment::Downlink, LISTENER))),
        // Of several segments, each below the limit; from senders elsewhere.
        ((Some(15), 30, Some(0), 30), Some((PathSegment::Unknown, LISTENER))),
        ((None, 40, Some(0), 40), Some((PathSegment::Unknown, LISTENER))),
        // The difference of two high values is uncertain.
        ((Some(90), 121, Some(0), 121), Some((PathSegment::Uplink, SENDER))),
    ];
    for ((sender, from_node, probes, client), expected) in cases {
        let found = jittery(sender, from_node, probes, client);
        assert_eq!(found, expected, "{sender:?} {from_node} {probes:?} {client}");
    }
}

#[test]
fn leg_with_larger_part_of_delay_is_named() {
    let slow = |client_ms: u32, node_ms: u32| {
        let evidence = PathEvidence {
            client_round_trip_us: Some(client_ms * 1_000),
            node_round_trip_us: Some(node_ms * 1_000),
            ..PathEvidence::default()
        };
        let found = slow_segment(LISTENER, &evidence);
        found.map(|timing| (timing.segment, (timing.certainty * 100.0).round() as u32))
    };
    assert_eq!(slow(398, 0), None);
    assert_eq!(slow(400, 0), Some((PathSegment::Unknown, 100)));
    assert_eq!(slow(100, 150), Some((PathSegment::Leg, 75)));
    assert_eq!(slow(300, 100), Some((PathSegment::Unknown, 60)));
}
