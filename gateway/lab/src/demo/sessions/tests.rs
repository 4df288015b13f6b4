use super::*;

fn is_call(planned: &&PlannedSession) -> bool {
    planned.offer.scenario == "call"
}

#[test]
fn sessions_are_split_by_transport_and_media() {
    let plan = plan(200, 1);
    let by = |transport| sessions_by(&plan, transport).len();
    assert_eq!((by(PlannedTransport::Udp), by(PlannedTransport::Quic)), (100, 100));
    let (calls, streams) = (rooms_of(&plan, "call").len(), rooms_of(&plan, "live").len());
    let pictures = plan.iter().filter(is_call).filter(|planned| planned.persona.video);
    assert_eq!((calls, streams, pictures.count()), (80, 4, 2 * calls / VIDEO_SHARE));
}

#[test]
fn every_zone_has_calls_over_both_transports() {
    let plan = plan(200, 1);
    for region in REGIONS {
        for zone in ZONES {
            let mut ways = plan.iter().filter(is_call).filter(|planned| {
                let there = [("region", region), ("zone", zone)];
                planned.offer.labels == there.into_iter().collect()
            });
            let first = ways.next().unwrap().transport;
            assert!(ways.any(|planned| planned.transport != first), "{region}-{zone}");
        }
    }
}

#[test]
fn lossy_network_has_a_video_session() {
    for sessions in [20, 24, 40, 100, 200] {
        let plan = plan(sessions, 1);
        let meets = |planned: &&PlannedSession| planned.is_relayed && planned.persona.video;
        let hit = plan.iter().filter(is_call).filter(meets).count();
        assert!(hit > 0 || sessions < 100, "{sessions}");
    }
}
