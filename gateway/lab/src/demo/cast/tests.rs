use super::*;

#[test]
fn sessions_are_split_by_transport_and_media() {
    let cast = Cast::of(200);
    assert_eq!(cast.players.len(), 200);
    assert_eq!((cast.count(Transport::Udp), cast.count(Transport::Quic)), (100, 100));
    let calls = cast.rooms.iter().filter(|room| room.scenario == Scenario::Call).count();
    let pictures = cast
        .players
        .iter()
        .filter(|player| player.video && cast.room_of(player).scenario == Scenario::Call);
    assert_eq!((calls, cast.rooms.len(), pictures.count()), (80, 84, 2 * calls / VIDEO_SHARE));
}

#[test]
fn every_zone_has_calls_over_both_transports() {
    let cast = Cast::of(200);
    for region in REGIONS {
        for zone in ZONES {
            let mut ways = cast.players.iter().filter(|player| {
                let room = cast.room_of(player);
                room.scenario == Scenario::Call && (room.region, room.zone) == (region, zone)
            });
            let first = ways.next().unwrap().transport;
            assert!(ways.any(|player| player.transport != first), "{region}-{zone}");
        }
    }
}

#[test]
fn lossy_network_has_a_video_session() {
    for sessions in [20, 24, 40, 100, 200] {
        let cast = Cast::of(sessions);
        let meets = |player: &&Player| {
            player.video
                && player.transport == Transport::Udp
                && cast.room_of(player).region == LOSSY
        };
        let in_call = |player: &&Player| cast.room_of(player).scenario == Scenario::Call;
        let hit = cast.players.iter().filter(meets).filter(in_call).count();
        assert!(hit > 0 || sessions < 100, "{sessions}");
    }
}
