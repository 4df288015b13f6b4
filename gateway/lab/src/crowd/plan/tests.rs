use super::*;

#[test]
fn first_session_of_a_room_sends() {
    let plan = CrowdPlan { room_size: 3, ..CrowdPlan::new(6) };
    let rooms: Vec<u64> = (1..=6).map(|session| plan.room_of(session)).collect();
    assert_eq!(rooms, [1, 1, 1, 2, 2, 2]);
    let talks: Vec<u64> = (1..=6).filter(|&session| plan.talks(session)).collect();
    assert_eq!(talks, [1, 4]);
}

#[test]
fn each_room_has_one_sender_and_one_receiver() {
    let plan = CrowdPlan::new(10);
    let talks: Vec<u64> = (1..=10).filter(|&session| plan.talks(session)).collect();
    assert_eq!(talks, [1, 3, 5, 7, 9]);
    assert_eq!((plan.room_of(1), plan.room_of(2), plan.room_of(3)), (1, 1, 2));
    let both = CrowdPlan { both_ways: true, ..plan };
    assert!((1..=10).all(|session| both.talks(session)));
}

#[test]
fn quic_option_applies_to_every_other_room() {
    let plan = CrowdPlan { quic: true, ..CrowdPlan::new(4) };
    let ways = [1, 2, 3, 4].map(|session| plan.transport_of(session));
    assert_eq!(
        ways,
        [
            PlannedTransport::Udp,
            PlannedTransport::Udp,
            PlannedTransport::Quic,
            PlannedTransport::Quic
        ]
    );
}

#[test]
fn webtransport_option_applies_to_every_room() {
    let plan = CrowdPlan { webtransport: true, ..CrowdPlan::new(4) };
    for session in 1..=4 {
        let planned = plan.planned(session);
        assert_eq!(planned.transport, PlannedTransport::Quic);
        assert_eq!(planned.offer.ingress, Some(OfferIngress::webtransport()));
    }
}
