//! Sessions and offers count against the service level objective of their scenario.

use std::time::Duration;

use evenkeel_model::{
    AdmitVerdict, Arm, Ask, CoreSettings, Figure, FlowCounts, Hook, HookAnswer, Measures, Metric,
    NodeId, OfferRefusal, PolicyQuestion, ServiceObjective, SessionId, SloIndicator,
};
use evenkeel_revisions::{Lifecycle, RolloutAction};

use super::judging::take_over;
use super::revising::{alone, breaches, policy, tried, turn};
use super::world::Driver;
use super::*;

const LIMITS: ServiceObjective = ServiceObjective {
    objective: 0.99,
    refusals: true,
    set_up: Some(Duration::from_millis(500)),
    gap: Some(Duration::from_millis(100)),
    r_factor_centi: Some(7_000),
};

fn with_slo(mut settings: CoreSettings, slo: ServiceObjective) -> CoreSettings {
    settings.scenarios.get_mut("call").unwrap().slo = Some(slo);
    settings
}

/// Sessions and bad ones of the shortest window.
fn counted(world: &World, slo: SloIndicator) -> (u32, u32) {
    let mut slos = world.gateway.views().slos(world.now);
    let standing = slos.find(|it| it.slo == slo).expect("the scenario has this limit");
    (standing.windows[0].sessions, standing.windows[0].bad)
}

/// Reports 50 packets of voice a second for this time, then once more with this R-factor and missed packets.
fn report(world: &mut World, sessions: &[SessionId], seconds: u32, r: u64, missed: u32) {
    for number in (0..=10 * seconds).rev() {
        world.pass(ms(100));
        for session in sessions {
            let room = world.gateway.tables.sessions[session].room();
            let hears = world.gateway.stands_at(room);
            let mut measures = Measures::default();
            let (r, missed) = if number == 0 { (r, missed) } else { (9_000, 0) };
            measures.set(Metric::RFactor, r);
            let flow = FlowCounts {
                sent: [5, 0],
                received: [5, 0],
                expected: 5,
                hears,
                missed,
                ..FlowCounts::default()
            };
            world.gateway.handle_summary(*session, measures, Some(world.now));
            world.gateway.handle_flow(*session, &flow, world.now);
        }
        world.settle();
    }
}

#[test]
fn refused_offers_burn_unless_client_caused() {
    let mut world = World::with_policy(with_slo(settings(), LIMITS), &[Hook::Admission], |_| None);
    let says = |verdict| move |_: &Ask| Some(Ok(HookAnswer::Admit { verdict, reason: 0 }));
    world.answer_with(says(AdmitVerdict::Accept));
    world.open("a");
    assert_eq!(counted(&world, SloIndicator::Refusals), (1, 0));
    world.offer_as("stream", "stream");
    let offer = world.offer("stream");
    assert!(matches!(denied(world.replies.get(&offer)), Some(OfferRefusal::ScenarioOfRoom(_))));
    assert_eq!(counted(&world, SloIndicator::Refusals), (1, 0), "the client's own fault");
    world.answer_with(says(AdmitVerdict::Reject(1_000)));
    world.offer("b");
    assert_eq!(counted(&world, SloIndicator::Refusals), (2, 1));
    world.gateway.handle_turned_away("call", world.now);
    world.gateway.handle_turned_away("stream", world.now);
    assert_eq!(counted(&world, SloIndicator::Refusals), (3, 2));
    world.gateway.handle_shutdown(Duration::from_secs(60), world.now);
    let offer = world.offer("c");
    assert_eq!(denied(world.replies.get(&offer)), Some(OfferRefusal::Draining));
    assert_eq!(counted(&world, SloIndicator::Refusals), (3, 2), "clients go elsewhere");
}

#[test]
fn late_opening_misses_the_set_up_time() {
    for (takes, bad) in [(500, 0), (501, 1)] {
        let mut world = World::new(with_slo(settings(), LIMITS));
        world.drive_with(|_, _| Driver::Waits);
        world.offer("r");
        world.pass(ms(takes));
        let first = world.stands("r").unwrap();
        world.finish_opening(first, Ok(()));
        assert_eq!(counted(&world, SloIndicator::SetUp), (1, bad), "{takes} ms");
    }
}

#[test]
fn media_misses_count_sessions_once() {
    for (r, missed, bad_voice, bad_gap) in
        [(7_000, 4, 0, 0), (6_999, 4, 1, 0), (7_000, 6, 0, 1), (6_000, 50, 1, 1)]
    {
        let mut world = World::new(with_slo(settings(), LIMITS));
        let sessions = [world.open("a"), world.open("b")];
        report(&mut world, &sessions, 2, 9_000, 0);
        report(&mut world, &sessions[..1], 2, r, missed);
        report(&mut world, &sessions[..1], 0, r, missed);
        let told = (r, missed);
        assert_eq!(counted(&world, SloIndicator::RFactor), (2, bad_voice), "{told:?}");
        assert_eq!(counted(&world, SloIndicator::Gap), (2, bad_gap), "{told:?}");
        world.close(sessions[0]);
        assert_eq!(counted(&world, SloIndicator::Gap), (2, bad_gap), "it was open in the window");
    }
}

#[test]
fn limit_that_is_not_set_is_not_judged() {
    let slo = ServiceObjective { refusals: false, set_up: None, r_factor_centi: None, ..LIMITS };
    let mut world = World::new(with_slo(settings(), slo));
    let session = world.open("a");
    report(&mut world, &[session], 2, 1_000, 0);
    let slos: Vec<_> = world.gateway.views().slos(world.now).map(|it| it.slo).collect();
    assert_eq!(slos, [SloIndicator::Gap]);
}

/// The thresholds of `[rollout.judge]` are more lenient than the objective: R below 60 instead of 70.
#[test]
fn canary_that_burns_the_budget_is_found() {
    for (r, is_fast, found) in
        [(6_999, true, vec![Figure::Slo]), (6_999, false, vec![]), (7_000, true, vec![])]
    {
        let mut world =
            World::with_policy(with_slo(settings(), LIMITS), &[Hook::Degradation], |_| None);
        turn(&mut world, Hook::Degradation, alone());
        let sessions: Vec<_> = (0..300).map(|room: u32| world.open(&room.to_string())).collect();
        report(&mut world, &sessions, 2, 9_000, 0);
        turn(&mut world, Hook::Degradation, tried(10));
        report(&mut world, &sessions, 0, 9_000, 0);
        let in_canary = |id: &&SessionId| tried(10).arm(id.0) == Arm::Canary;
        let canary: Vec<_> = sessions.iter().filter(in_canary).copied().collect();
        let fast = (canary.len() * 144).div_ceil(1_000);
        let bad = if is_fast { fast } else { fast - 1 };
        report(&mut world, &canary[..bad], 0, r, 0);
        let figures = breaches(&world).into_iter().map(|(_, breach)| breach.figure);
        let figures: Vec<_> = figures.collect();
        assert_eq!(figures, found, "R of {bad} in {}: {r}", canary.len());
    }
}

#[test]
fn equal_burn_of_both_arms_is_no_breach() {
    let settings = with_slo(settings(), LIMITS);
    let mut world = World::with_policy(settings, &[Hook::Degradation], |_| None);
    turn(&mut world, Hook::Degradation, alone());
    let sessions: Vec<_> = (0..100).map(|room: u32| world.open(&room.to_string())).collect();
    report(&mut world, &sessions, 2, 9_000, 0);
    turn(&mut world, Hook::Degradation, tried(50));
    report(&mut world, &sessions, 0, 9_000, 0);
    report(&mut world, &sessions, 0, 6_900, 0);
    assert_eq!(breaches(&world), []);
}

#[test]
fn policies_read_the_burn_rate_of_their_scenario() {
    let mut settings = with_slo(settings(), LIMITS);
    settings.scenarios.get_mut("stream").unwrap().set = "live".into();
    let mut world = World::with_policy(settings, &[Hook::Degradation], |_| None);
    world.open("a");
    world.offer_as("b", "stream");
    let read = |world: &mut World| {
        world.held.clear();
        world.pass(ms(200));
        let of_session = |ask: &Ask| match &ask.question {
            PolicyQuestion::Tick { sessions, .. } => {
                (ask.policy.set.to_string(), sessions[0].row.measures.measured(Metric::SloBurn))
            }
            question => panic!("{question:?}"),
        };
        let mut sessions: Vec<_> = world.held.iter().map(of_session).collect();
        sessions.sort();
        let of_room = |room: &str| {
            let room = &world.gateway.rooms[&world.room(room)];
            let row = world.gateway.room_row(room, None, world.now);
            row.row.measures.measured(Metric::SloBurn)
        };
        assert_eq!([of_room("a"), of_room("b")], [sessions[0].1, sessions[1].1]);
        sessions
    };
    let rates = |call: Option<u32>| vec![("call".to_owned(), call), ("live".to_owned(), None)];
    let turn_away = |world: &mut World| world.gateway.handle_turned_away("call", world.now);
    (0..8).for_each(|_| turn_away(&mut world));
    assert_eq!(read(&mut world), rates(None), "nine offers");
    turn_away(&mut world);
    assert_eq!(read(&mut world), rates(Some(9_000)), "9 of 10 refused, where 1 % may be");
}

#[test]
fn windows_continue_in_another_process() {
    let mut world = World::new(with_slo(settings(), LIMITS));
    let sessions = [world.open("a"), world.open("b")];
    report(&mut world, &sessions, 2, 9_000, 0);
    report(&mut world, &sessions[..1], 0, 6_000, 50);
    (0..10).for_each(|_| world.gateway.handle_turned_away("call", world.now));
    let standings = |world: &World| world.gateway.views().slos(world.now).collect::<Vec<_>>();
    let before = standings(&world);
    assert_eq!(counted(&world, SloIndicator::Gap), (2, 1));
    world.hand_over(Duration::ZERO);
    assert_eq!(standings(&world), before);
    report(&mut world, &sessions[..1], 2, 6_000, 50);
    world.close(sessions[1]);
    assert_eq!(counted(&world, SloIndicator::Gap), (2, 1), "each counts once");
    let record = world.gateway.record(world.now);
    world.restart(Duration::ZERO);
    let node = |name: &str| name[1..].parse().ok().map(NodeId);
    world.gateway.handle_record(record, node, world.now).unwrap();
    world.gateway.forget_restored();
    assert_eq!(counted(&world, SloIndicator::Gap), (0, 0), "the other process goes on");
}

#[test]
fn windows_continue_once_all_sessions_ended() {
    let mut world = World::new(with_slo(settings(), LIMITS));
    let sessions = [world.open("a"), world.open("b")];
    report(&mut world, &sessions, 2, 9_000, 0);
    report(&mut world, &sessions[..1], 0, 6_000, 50);
    (0..10).for_each(|_| world.gateway.handle_turned_away("call", world.now));
    let before = counted(&world, SloIndicator::Refusals);
    let mut last = None;
    let record = world.gateway.records().next_slo_record_once_ended(&mut last, world.now);
    assert_eq!(last.as_deref(), Some("call"));
    let record = record.unwrap();
    world.restart(Duration::ZERO);
    world.gateway.records().restore_slo_windows(record);
    assert_eq!(counted(&world, SloIndicator::Refusals), before);
    assert_eq!(counted(&world, SloIndicator::Gap), (2, 1), "both sessions, which ended");
}

#[test]
fn session_is_counted_anew_without_its_windows() {
    let mut world = World::new(with_slo(settings(), LIMITS));
    let session = world.open("a");
    report(&mut world, &[session], 2, 9_000, 0);
    report(&mut world, &[session], 0, 6_000, 0);
    let mut record = world.gateway.record(world.now);
    record.slo = None;
    world.restart(Duration::ZERO);
    world.restore(&record);
    assert_eq!(counted(&world, SloIndicator::RFactor), (0, 0));
    report(&mut world, &[session], 0, 6_000, 0);
    assert_eq!(counted(&world, SloIndicator::RFactor), (1, 1));
}

/// Answers 20 offers, of which this many are refused.
fn answer_offers(world: &mut World, refused: u32) {
    (0..refused).for_each(|_| world.gateway.handle_turned_away("call", world.now));
    (refused..20).for_each(|_| _ = world.open("a"));
}

fn activate(world: &mut World) {
    turn(world, Hook::Degradation, tried(10));
    let promote =
        |life: &mut Lifecycle| life.handle_action(RolloutAction::PromoteAll, world.now).map(drop);
    let policy = policy(Hook::Degradation);
    world.gateway.change_policy(&policy, world.now, promote).unwrap().unwrap();
    world.pass(ms(0));
}

fn active(world: &World) -> String {
    let life = world.gateway.policy(&policy(Hook::Degradation)).unwrap();
    life.revisions().active_name().unwrap().to_string()
}

#[test]
fn activated_revision_that_burns_is_rolled_back() {
    let second = Duration::from_secs(1);
    for (before, waits, refused, left) in [
        (0, 10, 3, "old"),
        (0, 10, 2, "new"),
        (2, 10, 3, "new"),
        (1, 10, 3, "old"),
        // Offers of the 10 s in which it became active count for no side.
        (0, 0, 20, "new"),
    ] {
        let settings = with_slo(settings(), LIMITS);
        let mut world = World::with_policy(settings, &[Hook::Degradation], |_| None);
        turn(&mut world, Hook::Degradation, alone());
        answer_offers(&mut world, before);
        activate(&mut world);
        assert_eq!(active(&world), "new");
        world.pass(waits * second);
        answer_offers(&mut world, refused);
        world.pass(ms(200));
        assert_eq!(active(&world), left, "{before}, then {refused} after {waits} s");
        let figures = breaches(&world).into_iter().map(|(_, breach)| breach.figure);
        let found = if left == "old" { vec![Figure::Slo] } else { vec![] };
        assert_eq!(figures.collect::<Vec<_>>(), found);
    }
}

/// The canary of another policy in the set may do the harm.
#[test]
fn harm_during_a_canary_is_not_that_of_the_active_revision() {
    let mut world =
        World::with_policy(with_slo(settings(), LIMITS), &[Hook::Degradation], |_| None);
    turn(&mut world, Hook::Degradation, alone());
    answer_offers(&mut world, 0);
    activate(&mut world);
    turn(&mut world, Hook::Routing, alone());
    for (revisions, left) in [(tried(10), "new"), (alone(), "old")] {
        turn(&mut world, Hook::Routing, revisions);
        world.pass(Duration::from_secs(10));
        answer_offers(&mut world, 10);
        world.pass(ms(200));
        assert_eq!(active(&world), left);
    }
}

#[test]
fn activated_revision_is_judged_after_a_takeover() {
    let settings = with_slo(settings(), LIMITS);
    let mut world = World::with_policy(settings, &[Hook::Degradation], |_| None);
    turn(&mut world, Hook::Degradation, alone());
    answer_offers(&mut world, 0);
    activate(&mut world);
    world.pass(Duration::from_secs(10));
    // The gateway refuses offers, and ends before it finds that.
    (0..20).for_each(|_| world.gateway.handle_turned_away("call", world.now));
    take_over(&mut world);
    world.pass(ms(200));
    assert_eq!(active(&world), "new", "the revision may not be the cause");
    world.pass(Duration::from_secs(10));
    answer_offers(&mut world, 3);
    world.pass(ms(200));
    assert_eq!(active(&world), "old");
}

#[test]
fn lost_node_is_not_blamed_on_an_activated_revision() {
    let kill = |world: &mut World| world.kill(D);
    let drain = |world: &mut World| {
        let now = world.now;
        world.gateway.change_nodes(now, |nodes| nodes.handle_drain(D, true, None, now)).unwrap();
    };
    for lose in [kill as fn(&mut World), drain] {
        let settings = with_slo(settings(), LIMITS);
        let mut world = World::with_policy(settings, &[Hook::Degradation], |_| None);
        turn(&mut world, Hook::Degradation, alone());
        answer_offers(&mut world, 0);
        activate(&mut world);
        lose(&mut world);
        world.pass(Duration::from_secs(10));
        answer_offers(&mut world, 10);
        world.pass(ms(200));
        assert_eq!(active(&world), "new");
    }
}
