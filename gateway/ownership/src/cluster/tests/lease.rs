use super::*;

fn no_gap(group: &mut Group, ms: u64) {
    let end = group.now + Duration::from_millis(ms);
    while group.now < end {
        group.pass(1);
        assert_eq!(group.owner(), Some(0));
    }
}

#[test]
fn partition_between_members_leaves_no_gap() {
    for agents in [1, 2, 3, 5] {
        let mut group = Group::standing(agents);
        group.cut(&[Link::Beats(0), Link::Beats(1)]);
        no_gap(&mut group, 3_000);
        group.heal();
        no_gap(&mut group, 1_000);
        assert!(group.member(0).is_standby_armed(), "{agents} agents");
        group.stop(0);
        group.pass(100);
        assert_eq!(group.took_over(1), Some(TakeoverCause::Silence), "{agents} agents");
    }
}

#[test]
fn one_way_partitions_leave_no_gap() {
    for member in [0, 1] {
        let mut group = Group::standing(3);
        group.cut(&[Link::Beats(member)]);
        no_gap(&mut group, 3_000);
        group.heal();
        no_gap(&mut group, 1_000);
    }
}

#[test]
fn owner_without_peer_needs_no_agent_later() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.pass(1_500);
    assert!(group.happened(0, &ClusterOutput::Event(ClusterEvent::Barred)));
    group.cut(&[Link::Agent(0, 0)]);
    no_gap(&mut group, 10_000);
    assert_eq!(group.took_over(1), None, "the agent bars the standby");
}

#[test]
fn owner_of_a_standby_that_ended_needs_no_agent() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Agent(0, 0)]);
    group.kill(1);
    no_gap(&mut group, 5_000);
}

#[test]
fn isolated_owner_stops_before_the_takeover() {
    let mut group = Group::standing(3);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.cut(&[Link::Agent(0, 0), Link::Agent(0, 1), Link::Agent(0, 2)]);
    let stops = group.until(100, |group| group.owner().is_none());
    let taken = group.until(100, |group| group.owner() == Some(1));
    assert!(stops + taken <= Duration::from_millis(40), "{stops:?} + {taken:?}");
    assert!(group.happened(0, &ClusterOutput::Event(ClusterEvent::LeaseLapsed)));
}

#[test]
fn agent_that_restarted_votes_anew() {
    let mut group = Group::standing(1);
    group.restart_agent(0);
    group.pass(10);
    // The list of both members names the process that ended.
    group.stop(0);
    group.pass(1_000);
    assert_eq!(group.took_over(1), None);
    group.resume(0);
    group.pass(1_000);
    assert!(group.member(0).is_standby_armed());
    group.stop(0);
    group.pass(100);
    assert_eq!(group.took_over(1), Some(TakeoverCause::Silence));
}

#[test]
fn silent_agent_loses_its_vote() {
    let mut group = Group::standing(3);
    group.cut(&[Link::Agent(0, 0), Link::Agent(0, 1)]);
    no_gap(&mut group, 2_000);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    no_gap(&mut group, 500);
}

#[test]
fn resting_owner_may_pause() {
    let mut group = Group::standing(1);
    let now = group.now;
    assert_eq!(group.member(0).continued(now), None);
    group.member(0).set_resting(true, now);
    group.pass(5);
    let continued = group.member(0).continued(now).unwrap();
    group.stop(0);
    group.pass(2_000);
    assert_eq!(group.took_over(1), None);
    let incarnation = 1;
    let continued = Some(continued);
    group.begin(
        0,
        ClusterSettings {
            members: 2,
            rank: 1,
            preferred: true,
            incarnation,
            continued,
            hold_down: HOLD_DOWN,
        },
    );
    no_gap(&mut group, 100);
    assert!(group.member(0).is_standby_armed());
    assert_eq!(group.member(0).epoch(), 3);
    group.stop(0);
    group.pass(100);
    assert_eq!(group.took_over(1), Some(TakeoverCause::Silence));
}

#[test]
fn restarted_standby_is_not_armed() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Agent(0, 0)]);
    group.kill(1);
    group.pass(50);
    group.cut(&[Link::Beats(1)]);
    group.start(1);
    // The owner knows that the process before it ended, and does not hear this one.
    group.pass(50);
    group.cut(&[Link::Beats(0)]);
    group.pass(1_000);
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.took_over(1), None);
}

#[test]
fn barred_standby_is_armed_in_a_newer_epoch() {
    // One of three agents grants a hold to the end of the epoch, which is no majority.
    let mut group = Group::standing(3);
    group.cut(&[Link::Agent(0, 0), Link::Agent(0, 1)]);
    group.cut(&[Link::Beats(0), Link::Beats(1), Link::Agent(1, 2)]);
    group.pass(1_500);
    group.heal();
    group.pass(1_000);
    group.cut(&[Link::Agent(1, 0)]);
    group.stop(0);
    group.pass(100);
    assert_eq!(group.owner(), Some(1));
}

/// Holds for 25 ms end on the way from a witness that is 20 ms away.
#[test]
fn distant_witness_bars_the_standby_of_a_cut_owner() {
    let mut group = Group::standing(1);
    group.delay_agents(20);
    group.pass(500);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.until(100, |group| group.owner().is_none());
    let silent = group.until(1_000, |group| group.owner() == Some(0));
    assert!(silent <= Duration::from_millis(75), "{silent:?}");
    no_gap(&mut group, 3_000);
    assert!(group.happened(0, &ClusterOutput::Event(ClusterEvent::Barred)));
    group.heal();
    no_gap(&mut group, 1_000);
    assert!(group.member(0).is_standby_armed());
}
