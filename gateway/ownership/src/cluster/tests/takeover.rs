use super::*;

#[test]
fn end_of_the_process_is_enough_alone() {
    for agents in [0, 1, 3] {
        let mut group = Group::standing(agents);
        group.kill(0);
        let time = group.until(1_000, |group| group.owner() == Some(1));
        assert!(time <= Duration::from_millis(11), "{time:?}");
        assert_eq!(group.took_over(1), Some(TakeoverCause::PeerEnded));
        assert_eq!(group.member(1).epoch(), 2);
    }
}

#[test]
fn ended_connection_shows_the_end_earlier() {
    for phase in 0..5 {
        let mut group = Group::standing(0);
        group.pass(phase);
        // The kernel closes the sockets of the process late.
        group.kill(0);
        group.cut(&[Link::Beats(1)]);
        group.pass(6);
        group.heal();
        group.disconnect(1);
        let time = group.until(1_000, |group| group.owner() == Some(1));
        assert!(time <= Duration::from_millis(2), "{time:?}");
        assert_eq!(group.took_over(1), Some(TakeoverCause::PeerEnded));
    }
}

#[test]
fn disconnected_standby_asks_at_once() {
    let mut group = Group::standing(0);
    group.pass(1);
    group.disconnect(1);
    let now = group.now;
    assert!(group.member(1).poll_timeout() <= now);
}

#[test]
fn owner_is_missed_after_two_beats_or_a_lost_connection() {
    let mut group = Group::standing(0);
    let misses = |group: &mut Group| {
        let now = group.now;
        [0, 1].map(|member| group.member(member).misses_owner(now))
    };
    group.pass(100);
    assert_eq!(misses(&mut group), [false, false]);
    group.disconnect(1);
    assert_eq!(misses(&mut group), [false, true]);
    group.pass(6);
    assert_eq!(misses(&mut group), [false, false], "a beat came");
    group.stop(0);
    group.pass(13);
    assert!(misses(&mut group)[1]);
    let now = group.now;
    group.member(1).handle_replica(false, 0, now);
    assert!(!misses(&mut group)[1], "its copy is incomplete");
    group.replicate(1);
    assert!(misses(&mut group)[1]);
    group.pass(100);
    assert!(!misses(&mut group)[1], "nothing votes");
}

/// A firewall that is loaded anew refuses the connection, and a beat.
#[test]
fn refusing_host_of_a_live_member_shows_no_end() {
    for member in [0, 1] {
        let mut group = Group::standing(1);
        for _ in 0..100 {
            group.disconnect(member);
            let now = group.now;
            group.member(member).handle_peer_closed(PeerId(0), Reporter::Kernel, now);
            group.pass(7);
        }
        assert_eq!((group.owner(), group.took_over(1)), (Some(0), None));
        assert!(group.member(0).is_standby_armed());
    }
}

#[test]
fn single_unreachable_of_a_live_owner_is_withdrawn() {
    let mut group = Group::standing(1);
    for _ in 0..100 {
        let now = group.now;
        group.member(1).handle_peer_closed(PeerId(0), Reporter::Kernel, now);
        group.pass(7);
    }
    assert_eq!(group.owner(), Some(0));
    assert_eq!(group.took_over(1), None);
}

#[test]
fn end_that_silence_confirms_is_reported_once() {
    let mut group = Group::standing(0);
    group.kill(0);
    group.cut(&[Link::Beats(1)]);
    group.pass(6);
    let now = group.now;
    group.member(1).handle_peer_closed(PeerId(0), Reporter::Agent, now);
    group.until(1_000, |group| group.took_over(1).is_some());
    let now = group.now;
    group.member(1).handle_peer_closed(PeerId(0), Reporter::Agent, now);
    group.pass(10);
    let seen = group.outputs.iter().filter_map(|(_, _, output)| match output {
        ClusterOutput::Event(ClusterEvent::PeerEnded(Reporter::Agent)) => {
            Some("ended by its agent")
        }
        ClusterOutput::TakeOver { .. } => Some("taken over"),
        _ => None,
    });
    assert_eq!(seen.collect::<Vec<_>>(), ["ended by its agent", "taken over"]);
}

#[test]
fn restarted_owner_is_followed_at_once() {
    let mut group = Group::standing(0);
    group.kill(0);
    group.start(0);
    let time = group.until(1_000, |group| group.owner() == Some(1));
    assert!(time <= Duration::from_millis(2), "{time:?}");
    assert_eq!(group.took_over(1), Some(TakeoverCause::PeerRestarted));
}

#[test]
fn silent_owner_is_replaced_with_a_witness() {
    for agents in [1, 2, 3, 4, 5, 8] {
        let mut group = Group::standing(agents);
        group.stop(0);
        let time = group.until(1_000, |group| group.owner() == Some(1));
        assert!(time <= Duration::from_millis(35), "{time:?} with {agents} agents");
        assert_eq!(group.took_over(1), Some(TakeoverCause::Silence));
    }
}

#[test]
fn silence_without_agents_is_reported() {
    let mut group = Group::standing(0);
    group.stop(0);
    group.pass(10_000);
    assert_eq!(group.took_over(1), None);
    let blocked = ClusterOutput::Event(ClusterEvent::TakeoverBlocked(Blocked::NotArmed));
    assert!(group.happened(1, &blocked));
    group.resume(0);
    group.pass(10);
    assert_eq!(group.owner(), Some(0), "the owner continues, because nothing was taken over");
}

#[test]
fn isolated_standby_takes_nothing_over() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Beats(0), Link::Beats(1), Link::Agent(1, 0)]);
    group.pass(10_000);
    assert_eq!(group.owner(), Some(0));
    let blocked = ClusterOutput::Event(ClusterEvent::TakeoverBlocked(Blocked::NoAgent));
    assert!(group.happened(1, &blocked));
}

#[test]
fn standby_without_all_records_waits() {
    let mut group = Group::starting(1);
    group.pass(1_200);
    group.stop(0);
    group.pass(5_000);
    assert_eq!(group.took_over(1), None);
}

#[test]
fn stalled_standby_excuses_its_own_lateness() {
    let mut group = Group::standing(1);
    group.stop(1);
    // The lease does not need the standby: the agent holds.
    group.pass(500);
    assert_eq!(group.owner(), Some(0));
    group.resume(1);
    group.pass(500);
    assert_eq!(group.took_over(1), None);
}

#[test]
fn owner_that_resumes_sends_nothing() {
    let mut group = Group::standing(1);
    group.stop(0);
    group.pass(5_000);
    assert_eq!(group.owner(), Some(1));
    group.resume(0);
    group.pass(1_000);
    assert_eq!(group.owner(), Some(1));
    assert!(group.happened(0, &ClusterOutput::StepDown(2)));
    assert!(!group.member(0).is_owner());
}

#[test]
fn owner_that_resumes_alone_asks_agents() {
    let mut group = Group::standing(1);
    group.stop(0);
    group.pass(5_000);
    group.cut(&[Link::Beats(0), Link::Beats(1)]);
    group.resume(0);
    group.pass(1_000);
    assert_eq!(group.owner(), Some(1));
    assert!(group.happened(0, &ClusterOutput::StepDown(2)));
}

#[test]
fn isolated_owner_waits() {
    let mut group = Group::standing(1);
    group.cut(&[Link::Beats(0), Link::Beats(1), Link::Agent(0, 0)]);
    group.pass(10_000);
    assert!(group.member(0).is_owner(), "it cannot know");
    assert_eq!(group.owner(), Some(1), "but it does not send");
    group.heal();
    group.pass(50);
    assert!(!group.member(0).is_owner());
}

#[test]
fn takeovers_follow_each_other() {
    let mut group = Group::standing(3);
    for turn in 0..6 {
        let (owner, standby) = (turn % 2, 1 - turn % 2);
        group.kill(owner);
        group.pass(50);
        assert_eq!(group.owner(), Some(standby), "turn {turn}");
        group.start(owner);
        group.pass(100);
        group.replicate(owner);
        group.pass(100);
        assert!(group.member(standby).is_standby_armed(), "turn {turn}");
    }
}

#[test]
fn distant_witness_replaces_a_silent_owner() {
    let mut group = Group::standing(1);
    group.delay_agents(20);
    group.pass(500);
    group.stop(0);
    let time = group.until(1_000, |group| group.took_over(1).is_some());
    assert!(time <= Duration::from_millis(75), "{time:?}");
    assert_eq!(group.took_over(1), Some(TakeoverCause::Silence));
    group.resume(0);
    group.pass(500);
    assert_eq!(group.owner(), Some(1));
}

/// The owner falls silent and comes back. Returns the time until its successor armed it.
fn replace_silent(group: &mut Group, owner: usize) -> Duration {
    let standby = 1 - owner;
    group.stop(owner);
    group.until(200, |group| group.owner() == Some(standby));
    assert_eq!(group.took_over(standby), Some(TakeoverCause::Silence));
    group.resume(owner);
    group.pass(20);
    group.replicate(owner);
    let began = group.now;
    while !group.member(standby).is_standby_armed() {
        group.pass(10);
        assert!(group.now - began < Duration::from_secs(60), "not armed again");
    }
    group.now - began
}

#[test]
fn repeated_takeovers_by_silence_are_damped() {
    let mut group = Group::standing(3);
    for (round, seconds) in [0, 5, 10, 20].into_iter().enumerate() {
        let held = replace_silent(&mut group, round % 2);
        let expected = Duration::from_secs(seconds);
        assert!(
            (expected..expected + Duration::from_secs(1))
                .contains(&(held + Duration::from_millis(20))),
            "{held:?}"
        );
    }
    // An ownership that lasts ends the count.
    group.pass(300_000);
    assert!(replace_silent(&mut group, 0) < Duration::from_secs(1));
}

/// Two takeovers by silence: member 0 owns, and holds down.
fn begin_hold_down(group: &mut Group) {
    replace_silent(group, 0);
    group.stop(1);
    group.until(200, |group| group.owner() == Some(0));
    group.resume(1);
    group.pass(20);
    group.replicate(1);
    group.pass(100);
}

#[test]
fn end_of_a_process_is_not_damped() {
    let mut group = Group::standing(3);
    begin_hold_down(&mut group);
    assert!(!group.member(0).is_standby_armed());
    group.kill(0);
    group.until(1_000, |group| group.owner() == Some(1));
    assert_eq!(group.took_over(1), Some(TakeoverCause::PeerEnded));
}

/// The count outlives a process that ends, an upgrade and a hand-over.
#[test]
fn hold_down_outlives_processes() {
    let mut group = Group::standing(3);
    begin_hold_down(&mut group);
    // The end of its process leaves the count of two.
    group.kill(0);
    group.until(1_000, |group| group.owner() == Some(1));
    group.start(0);
    group.pass(20);
    group.replicate(0);
    group.pass(1_000);
    assert!(!group.member(1).is_standby_armed(), "two takeovers by silence in a row");
    group.pass(5_000);
    assert!(group.member(1).is_standby_armed());
    // So does an upgrade.
    let now = group.now;
    group.member(1).set_resting(true, now);
    group.pass(20);
    let now = group.now;
    let continued = group.member(1).continued(now);
    assert_eq!(continued.map(|continued| continued.takeovers), Some(2));
}
