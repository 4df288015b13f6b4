use super::*;

#[test]
fn sessions_are_split_by_transport_and_media() {
    let plan = SessionPlan::of(200);
    assert_eq!(plan.sessions.len(), 200);
    assert_eq!((plan.count(PlannedTransport::Udp), plan.count(PlannedTransport::Quic)), (100, 100));
    let calls = plan.rooms.iter().filter(|room| room.scenario == DemoScenario::Call).count();
    let pictures = plan
        .sessions
        .iter()
        .filter(|planned| planned.video && plan.room_of(planned).scenario == DemoScenario::Call);
    assert_eq!((calls, plan.rooms.len(), pictures.count()), (80, 84, 2 * calls / VIDEO_SHARE));
}

#[test]
fn every_zone_has_calls_over_both_transports() {
    let plan = SessionPlan::of(200);
    for region in REGIONS {
        for zone in ZONES {
            let mut ways = plan.sessions.iter().filter(|planned| {
                let room = plan.room_of(planned);
                room.scenario == DemoScenario::Call && (room.region, room.zone) == (region, zone)
            });
            let first = ways.next().unwrap().transport;
            assert!(ways.any(|planned| planned.transport != first), "{region}-{zone}");
        }
    }
}

#[test]
fn lossy_network_has_a_video_session() {
    for sessions in [20, 24, 40, 100, 200] {
        let plan = SessionPlan::of(sessions);
        let meets = |planned: &&PlannedSession| {
            planned.video
                && planned.transport == PlannedTransport::Udp
                && plan.room_of(planned).region == LOSSY
        };
        let in_call =
            |planned: &&PlannedSession| plan.room_of(planned).scenario == DemoScenario::Call;
        let hit = plan.sessions.iter().filter(meets).filter(in_call).count();
        assert!(hit > 0 || sessions < 100, "{sessions}");
    }
}
