use evenkeel_config::WebhookTarget;
use evenkeel_dataplane::worker::RepairCounts;
use evenkeel_model::{NodeId, RoomId};

use super::*;
use crate::samples::closed_session;

#[test]
fn missing_final_totals_default_to_the_last_summary() {
    let now = Instant::now();
    let closed = |number| CoreEvent::Closed {
        session: SessionId(number),
        room: RoomId(1),
        room_name: "room".into(),
        reason: CloseReason::Requested,
        closed: Box::new(closed_session(now)),
    };
    let totals = Totals { shed: 4, ..Totals::default() };
    let mut closings = Closings::default();
    closings.hold(SessionId(1), closed(1), totals, now);
    closings.hold(SessionId(2), closed(2), totals, now);
    assert_eq!(closings.take(SessionId(2)), Some((closed(2), totals)), "its worker reported");
    assert!(closings.late(now + TOTALS_WITHIN - Duration::from_millis(1)).is_empty());
    assert_eq!(closings.late(now + TOTALS_WITHIN), [(closed(1), totals)]);
    assert!(closings.is_empty());
}

#[test]
fn bandwidth_cost_compares_standbys_with_first_hops() {
    let mut costs = Costs::default();
    assert_eq!(costs.bandwidth(RedundancyMode::Hot), None, "nothing was carried");
    let carried = |bytes: u64, bytes_copied| {
        let (bytes_up, bytes_down) = (bytes / 4, bytes - bytes / 4);
        Totals { bytes_up, bytes_down, bytes_copied, ..Totals::default() }
    };
    let (call, before): (Arc<str>, _) = ("call".into(), carried(1_000, 1_000));
    costs.carried(RedundancyMode::Hitless, 2, &call, &before, &carried(2_000, 2_000));
    costs.carried(RedundancyMode::Hot, 3, &call, &before, &carried(3_000, 1_000));
    costs.carried(RedundancyMode::Cold, 1, &call, &before, &carried(5_000, 1_000));
    assert_eq!(costs.bandwidth(RedundancyMode::Hitless), Some(1.0));
    assert_eq!(costs.bandwidth(RedundancyMode::Hot), Some(0.0));
    // Six legs: hot has two at standbys, hitless one.
    let node = NodeId(0);
    let hook = Arc::new(WebhookTarget { url: "http://10.0.0.9/".parse().unwrap(), token: None });
    let post = Transport::Post { number: 1, hook, session: None, within: Duration::ZERO };
    for (transport, length) in [
        (Transport::Trunk { worker: 0, of_sessions: true }, 100),
        (Transport::Trunk { worker: 0, of_sessions: false }, 100),
        (Transport::Datagram, 200),
        (post, 300),
    ] {
        let bytes = vec![0; length].into();
        costs.signalled(&DriverAction::Send { node, transport, bytes });
    }
    assert_eq!(costs.bandwidth(RedundancyMode::Hitless), Some(1.1));
    assert_eq!(costs.bandwidth(RedundancyMode::Hot), Some(0.1));
    assert_eq!(costs.bandwidth(RedundancyMode::Cold), Some(0.0));
    assert_eq!(costs.bandwidth(RedundancyMode::Regional), None);
}

#[test]
fn loss_is_known_after_a_switch_only() {
    let mut costs = Costs::default();
    let switched =
        |switches, lost_at_switches| Totals { switches, lost_at_switches, ..Totals::default() };
    assert_eq!(costs.lost(RedundancyMode::Hot, 0), None);
    assert_eq!(
        costs.lost(RedundancyMode::Hot, 1),
        Some(0),
        "a recovery that was not summed up yet"
    );
    let call: Arc<str> = "call".into();
    costs.carried(RedundancyMode::Hot, 2, &call, &Totals::default(), &switched(1, 0));
    assert_eq!(costs.lost(RedundancyMode::Hot, 0), Some(0), "a planned move");
    costs.carried(RedundancyMode::Hot, 0, &call, &switched(1, 0), &switched(2, 5));
    assert_eq!(
        (costs.lost(RedundancyMode::Hot, 1), costs.lost(RedundancyMode::Cold, 0)),
        (Some(5), None)
    );
}

#[test]
fn scenario_traffic_includes_a_session_that_ended() {
    let mut costs = Costs::default();
    let totals = |packets: u64| Totals {
        packets_up: packets,
        packets_down: 2 * packets,
        bytes_up: 100 * packets,
        bytes_down: 200 * packets,
        bytes_copied: 300 * packets,
        lost_up: packets,
        ..Totals::default()
    };
    let mut repairs = [RepairCounts::default(); 2];
    repairs[1] = RepairCounts { packets_up: 1, bytes_up: 2, packets_down: 3, bytes_down: 4 };
    let counts = MediaCounts {
        repairs,
        lost_down: 5,
        answered: 6,
        requested: 7,
        caches_refused: 8,
        replayed: 9,
        redundant_bytes: 10,
        recovered: 11,
        key_frames_given_up: 12,
        thinned: 13,
        repaired: 14,
        parity_bytes: 15,
        paced: 16,
        policed: 17,
        ..MediaCounts::default()
    };
    costs.count(&"drone".into(), &counts);
    // Another process counted the first two packets.
    costs.carried(RedundancyMode::Hot, 1, &"call".into(), &totals(2), &totals(5));
    costs.carried(RedundancyMode::Hot, 1, &"call".into(), &totals(0), &totals(4));
    costs.carried(RedundancyMode::Hot, 1, &"drone".into(), &totals(0), &totals(1));
    let expected = |packets: u64| ScenarioTraffic {
        packets_up: packets,
        packets_down: 2 * packets,
        bytes_up: 100 * packets,
        bytes_down: 200 * packets,
        bytes_copied: 300 * packets,
        lost_up: packets,
        ..ScenarioTraffic::default()
    };
    let drone = ScenarioTraffic {
        lost_down: 5,
        answered: 6,
        requested: 7,
        caches_refused: 8,
        replayed: 9,
        redundant_bytes: 10,
        recovered: 11,
        key_frames_given_up: 12,
        thinned: 13,
        repaired: 14,
        parity_bytes: 15,
        paced: 16,
        policed: 17,
        repairs,
        ..expected(1)
    };
    let expected = [("call".into(), expected(7)), ("drone".into(), drone)];
    assert_eq!(costs.scenarios, BTreeMap::from(expected));
}
