//! Fault injection: the node cuts its link itself; faults of the process need an agent.

use super::*;

#[test]
fn to_break_it_takes_an_agent_beside_it() {
    let rig = Rig::new(|_| {});
    assert_eq!(
        rig.ask(&TrunkQuestion::Break(NodeFault::Kill)),
        TrunkAnswer::Break(OrderOutcome::Unable)
    );
    assert_eq!(rig.ask(&TrunkQuestion::Start), TrunkAnswer::Start(OrderOutcome::Done), "it runs");
}

#[test]
fn cut_node_answers_only_the_heal_message() {
    let mut rig = Rig::new(|options| options.drills = true);
    rig.open_all(1, &[1]);
    assert_eq!(
        rig.ask(&TrunkQuestion::Break(NodeFault::Cut)),
        TrunkAnswer::Break(OrderOutcome::Done)
    );
    let now_us = clock::now_ns() / 1_000;
    rig.ask_as(&rig.secret, &TrunkQuestion::Probe, now_us);
    rig.gateway.send(&[0xE2, 1]);
    rig.send(1, &voice(5, 0, 1));
    let healed = rig.ask(&TrunkQuestion::Break(NodeFault::Heal));
    assert_eq!(healed, TrunkAnswer::Break(OrderOutcome::Done), "nothing else came before it");
    rig.send(1, &voice(5, 1, 1));
    assert_eq!(rig.gateway.rtp().2.number, 1);
    assert_eq!(rig.end().ignored, IgnoredCounters { cut: 3, ..IgnoredCounters::default() });
}

#[test]
fn node_that_allows_no_drills_is_not_cut_off() {
    let rig = Rig::new(|_| {});
    assert_eq!(
        rig.ask(&TrunkQuestion::Break(NodeFault::Cut)),
        TrunkAnswer::Break(OrderOutcome::Forbidden)
    );
    rig.probe();
}
