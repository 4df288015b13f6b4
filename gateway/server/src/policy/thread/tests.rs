use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Answer, AskId, Hook, Pace, PolicyName, Question, RoomId};
use serde_json::json;

use super::super::{Back, How, Policies, Ready, Source, Workshop, prepare};
use super::*;
use crate::control::{Actor, Rollout, RolloutOutcome};

/// A policy that has no revision yet, with its settings to tell revisions apart.
struct World {
    policies: Policies,
    words: mpsc::Receiver<Word>,
}

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

fn source(spares: Option<u32>) -> Source {
    let shipped = evenkeel_host::shipped().iter().find(|shipped| shipped.name == "route-nearest");
    Source {
        bytes: shipped.unwrap().bytes.to_vec(),
        settings: spares.map(|spares| json!({"spares": spares})),
        origin: "pushed".into(),
        seed: 7,
        arrived: Instant::now(),
        how: How::at_once(Actor::Operator),
    }
}

fn question(room: u64, deadline: Instant) -> Ask {
    let question = Question::Place {
        room: RoomId(room),
        scenario: "call".into(),
        labels: [].into(),
        nodes: Vec::new(),
    };
    let arm = Arm::Standing;
    let (policy, revision) = (routing(), None);
    Ask { id: AskId(room), policy, arm, revision, now_us: 0, deadline, question }
}

fn pace() -> Pace {
    let each = Duration::from_secs(10);
    Pace { steps: vec![5], each, shadow: Duration::ZERO, stays_in_shadow: false, held: false }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

impl World {
    fn start() -> World {
        let (words_in, words) = mpsc::channel(1_024);
        let patient = Duration::from_secs(60);
        let limits = evenkeel_core::Limits {
            offer_budget: patient,
            advice_budget: patient,
            ..evenkeel_core::Limits::default()
        };
        let mut policies = Policies::new(Vec::new(), &limits, words_in);
        policies.start(routing()).unwrap();
        World { policies, words }
    }

    fn workshop(&self) -> Workshop {
        self.policies.workshop(&routing()).unwrap()
    }

    fn push(&self, spares: Option<u32>) -> Rollout {
        prepare(&self.workshop(), source(spares))
    }

    /// It comes by a canary.
    fn try_out(&self, spares: u32, force: bool) -> Rollout {
        let mut source = source(Some(spares));
        source.how = How { force, pace: Some(pace()), ..How::at_once(Actor::Operator) };
        prepare(&self.workshop(), source)
    }

    fn standing(&self) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let view = self.policies.views().remove(0);
        (view.revision, view.previous)
    }

    fn roll_back(&self) -> Result<Rollout, &'static str> {
        let (reply, rolled) = tokio::sync::oneshot::channel();
        self.policies.roll_back(&routing(), Back::Last, reply).unwrap();
        rolled.blocking_recv().unwrap()
    }
}

#[test]
fn what_stands_already_is_told_to_be_unchanged_and_the_one_before_stays() {
    let world = World::start();
    let first = world.push(Some(1)).revision;
    let second = world.push(Some(2));
    assert_eq!((second.outcome, &second.previous), (RolloutOutcome::Activated, &first));
    let again = world.push(Some(2));
    assert_eq!(again.outcome, RolloutOutcome::Unchanged);
    assert_eq!((&again.revision, &again.previous), (&second.revision, &second.revision));
    assert_eq!(world.standing(), (second.revision.clone(), first.clone()));
    let back = world.roll_back().unwrap();
    assert_eq!((back.revision, back.previous), (first, second.revision));
    assert!(world.roll_back().is_err());
}

#[test]
fn a_push_without_settings_takes_those_that_stand() {
    let world = World::start();
    world.push(Some(1));
    let second = world.push(Some(2)).revision;
    let again = world.push(None);
    assert_eq!((again.outcome, again.revision), (RolloutOutcome::Unchanged, second));
}

#[test]
fn a_later_word_wins_over_what_is_still_being_prepared() {
    let world = World::start();
    let first = world.push(Some(1)).revision;
    let second = world.push(Some(2)).revision;
    let slow = world.workshop();
    let third = world.push(Some(3)).revision;
    let late = prepare(&slow, source(Some(2)));
    assert_eq!(late.outcome, RolloutOutcome::Refused);
    assert!(late.reason.unwrap().contains("superseded"));
    assert_eq!(world.standing(), (third, second.clone()));

    let slow = world.workshop();
    assert_eq!(world.roll_back().unwrap().revision, second);
    assert_eq!(prepare(&slow, source(Some(1))).outcome, RolloutOutcome::Refused);
    assert_eq!(world.standing(), (second, None));
    assert!(first.is_some());
}

#[test]
fn a_rollback_that_leads_nowhere_stops_nothing() {
    let world = World::start();
    let first = world.workshop();
    assert!(world.roll_back().is_err());
    let first = prepare(&first, source(Some(1)));
    assert_eq!(first.outcome, RolloutOutcome::Activated, "{:?}", first.reason);
    let second = world.workshop();
    assert!(world.roll_back().is_err());
    assert_eq!(prepare(&second, source(Some(2))).outcome, RolloutOutcome::Activated);
}

/// A desk that nobody runs, with three revisions to put in force.
fn desk() -> (Desk, mpsc::Receiver<Word>) {
    let (words_in, words) = mpsc::channel(1_024);
    let standing = Arc::new(Standing::new(routing()));
    let budget = Duration::from_secs(60);
    let desk = Desk::new(standing, Budgets { offer: budget, advice: budget }, words_in);
    (desk, words)
}

fn ready(standing: &Standing, engine: &host::Engine, spares: u32) -> Ready {
    let Source { bytes, settings, origin, seed, arrived, how } = source(Some(spares));
    let component = host::Component::vet(engine, &bytes).unwrap();
    let settings = settings.unwrap();
    let (hook, given) = (Hook::Routing, settings.clone());
    let policy = host::Policy::install(engine, &component, hook, given, Vec::new(), seed).unwrap();
    let (reply, _) = tokio::sync::oneshot::channel();
    let (since, word) = (Instant::now(), standing.next_word());
    let seal = host::Seal::of(&bytes).unwrap();
    let revision = Revision { policy, seal, origin, settings, lessons: standing.lessons() };
    Ready { revision, by: how.by, arrived, since, word, force: how.force, reply }
}

/// Tries it; its name.
fn try_out(desk: &mut Desk, engine: &host::Engine, spares: u32) -> Arc<str> {
    let ready = ready(&desk.standing, engine, spares);
    let revision = ready.revision.policy.revision().into();
    desk.try_out(ready, pace());
    revision
}

/// A question to an arm is answered; which revision did so.
fn answered_by(desk: &mut Desk, words: &mut mpsc::Receiver<Word>, arm: Arm) -> Option<Arc<str>> {
    while words.try_recv().is_ok() {}
    let candidate = desk.candidate.as_ref().map(Candidate::name);
    let revision = candidate.filter(|_| arm == Arm::Canary);
    desk.answer(Ask { arm, revision, ..question(1, later()) });
    loop {
        match words.try_recv().unwrap() {
            Word::Answered(_, answered) => return answered.ok().map(|answered| answered.revision),
            Word::Rolled(_) | Word::Revoked(_) | Word::HiddenState { .. } => {}
        }
    }
}

fn activate(desk: &mut Desk, engine: &host::Engine, spares: u32) -> Arc<str> {
    let ready = ready(&desk.standing, engine, spares);
    let revision = ready.revision.policy.revision().into();
    desk.activate(ready);
    revision
}

#[test]
fn a_revision_that_failed_does_not_take_the_place_of_the_last_good_one() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    let good = activate(&mut desk, &engine, 1);
    let bad = activate(&mut desk, &engine, 2);
    desk.record.note(Instant::now(), true);
    let worse = activate(&mut desk, &engine, 3);
    let back = desk.roll_back("too many faults", Instant::now()).unwrap();
    assert_eq!((back.revision, back.previous), (Some(good.clone()), Some(worse)));
    let again = activate(&mut desk, &engine, 2);
    assert_eq!(again, bad);
    desk.record.note(Instant::now(), true);
    assert_eq!(activate(&mut desk, &engine, 1), good);
    assert!(
        desk.roll_back("asked for", Instant::now()).is_none(),
        "there is nothing else to go to"
    );
}

#[test]
fn orders_go_before_the_questions_that_wait() {
    let engine = host::Engine::new();
    let (desk, mut words) = desk();
    let standing = Arc::clone(&desk.standing);
    let (orders, ordered) = crossbeam_channel::bounded(8);
    let (questions, asked) = crossbeam_channel::bounded(64);
    for room in 0..64 {
        questions.send(question(room, Instant::now())).unwrap();
    }
    assert!(questions.try_send(question(64, Instant::now())).is_err());
    let ready = ready(&standing, &engine, 1);
    orders.send(Order::Activate(Box::new(ready))).unwrap();
    let thread = desk.spawn(ordered, asked).unwrap();
    assert!(matches!(words.blocking_recv(), Some(Word::Rolled(_))));
    drop(questions);
    for room in 0..64 {
        let answered = words.blocking_recv();
        assert!(matches!(answered, Some(Word::Answered(AskId(id), _)) if id == room));
    }
    thread.join().unwrap();
}

#[test]
fn an_answer_past_its_budget_is_a_fault_however_soon_it_was_begun() {
    let answered = |took| Answered {
        answer: Answer::Params(Vec::new()),
        revision: "5f0c".into(),
        notes: Vec::new(),
        took: Duration::from_millis(took),
        apart: None,
        reasons: [].into(),
        ungranted: 0,
    };
    let budgets = Budgets { offer: Duration::from_millis(2), advice: Duration::from_millis(10) };
    let place = question(1, later()).question;
    let reroute = Question::Reroute { nodes: Vec::new(), rooms: Vec::new(), memo: None };
    assert!(budgets.hold(&place, answered(2)).is_ok());
    assert_eq!(budgets.hold(&place, answered(3)), Err(Fault::Deadline));
    assert!(budgets.hold(&reroute, answered(10)).is_ok());
    assert_eq!(budgets.hold(&reroute, answered(11)), Err(Fault::Deadline));
}

#[test]
fn a_revision_that_takes_longer_than_its_budget_is_rolled_back() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    let good = activate(&mut desk, &engine, 1);
    activate(&mut desk, &engine, 2);
    desk.budgets.offer = Duration::ZERO;
    for room in 0..6 {
        desk.answer(question(room, later()));
    }
    let view = desk.standing.view();
    assert_eq!((view.revision, view.faults), (Some(good), 6));
}

#[test]
fn a_policy_that_fails_says_so_until_it_answers_again() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    activate(&mut desk, &engine, 1);
    desk.budgets.offer = Duration::ZERO;
    desk.answer(question(1, later()));
    assert_eq!(desk.standing.view().failing, Some(Fault::Deadline));
    desk.budgets.offer = Duration::from_secs(60);
    desk.answer(question(2, later()));
    let view = desk.standing.view();
    assert_eq!((view.failing, view.last_fault), (None, Some(Fault::Deadline)), "what it was stays");
}

#[test]
fn a_policy_is_stopped_without_waiting_for_what_it_is_at() {
    let mut world = World::start();
    // Its thread is held by words that nobody reads, and no question more has room.
    while world.policies.ask(question(1, later())).is_ok() {}
    world.policies.stop(&routing()).unwrap();
    assert!(world.policies.stop(&routing()).is_err(), "it is gone");
    let (id, fault) = world.policies.ask(question(2, later())).unwrap_err();
    assert_eq!((id, fault), (AskId(2), Fault::Absent));
    drop(world.words);
}

#[test]
fn a_candidate_answers_for_its_arm_and_the_one_in_force_for_the_other() {
    let engine = host::Engine::new();
    let (mut desk, mut words) = desk();
    let old = activate(&mut desk, &engine, 1);
    let new = try_out(&mut desk, &engine, 2);
    assert_eq!(answered_by(&mut desk, &mut words, Arm::Standing), Some(old.clone()));
    assert_eq!(answered_by(&mut desk, &mut words, Arm::Canary), Some(new.clone()));
    let view = desk.standing.view();
    assert_eq!((view.revision, view.previous), (Some(old.clone()), None));
    let tried = view.life.tried.unwrap();
    assert_eq!((tried.revision, tried.calls, tried.faults), (new.clone(), 1, 0));

    assert!(desk.promote(&old, Actor::Gateway).is_err(), "that is not the one that is tried");
    let promoted = desk.promote(&new, Actor::Gateway).unwrap();
    assert_eq!((promoted.outcome, promoted.by), (RolloutOutcome::Activated, Actor::Gateway));
    assert_eq!((promoted.revision, promoted.previous), (Some(new.clone()), Some(old.clone())));
    assert_eq!(answered_by(&mut desk, &mut words, Arm::Canary), Some(new.clone()), "asked before");
    assert!(desk.standing.view().life.tried.is_none());
    assert!(desk.promote(&new, Actor::Gateway).is_err());
    assert_eq!(desk.standing.view().previous, Some(old));
}

/// It would never be asked along, since whoever decides is not compared.
#[test]
fn what_a_candidate_was_asked_that_is_gone_is_not_the_next_ones() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    activate(&mut desk, &engine, 1);
    let gone = try_out(&mut desk, &engine, 2);
    let next = try_out(&mut desk, &engine, 3);
    desk.answer(Ask { arm: Arm::Canary, revision: Some(gone), ..question(1, later()) });
    assert_eq!(desk.standing.view().life.tried.unwrap().calls, 0);
    assert!(!desk.candidate.as_ref().unwrap().answers, "it is compared still");
    desk.answer(Ask { arm: Arm::Canary, revision: Some(next), ..question(2, later()) });
    assert_eq!(desk.standing.view().life.tried.unwrap().calls, 1);
}

#[test]
fn a_candidate_that_is_the_last_good_one_goes_where_that_is_back() {
    let engine = host::Engine::new();
    let (mut desk, mut words) = desk();
    let good = activate(&mut desk, &engine, 1);
    activate(&mut desk, &engine, 2);
    assert_eq!(try_out(&mut desk, &engine, 1), good);
    while words.try_recv().is_ok() {}
    desk.roll_back("it failed", Instant::now());
    let told = std::iter::from_fn(|| words.try_recv().ok());
    let told = told.filter(|word| matches!(word, Word::Rolled(_))).count();
    assert_eq!(told, 1, "nothing in between, of which what is kept for it would be let go");
    let view = desk.standing.view();
    assert_eq!((view.revision.as_ref(), view.life.tried), (Some(&good), None));
    desk.condemn(&good, "said of what was tried", Instant::now());
    assert_eq!(desk.standing.quarantined(&good), None, "it is in force, and nothing else is there");
}

#[test]
fn who_insists_on_a_revision_has_it_forgiven_when_it_comes_in_and_not_before() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    activate(&mut desk, &engine, 1);
    let bad = activate(&mut desk, &engine, 2);
    desk.condemn(&bad, "it did harm", Instant::now());
    let forced = |desk: &Desk| Ready { force: true, ..ready(&desk.standing, &engine, 2) };
    let late = forced(&desk);
    desk.standing.next_word();
    desk.activate(late);
    assert!(desk.standing.quarantined(&bad).is_some(), "somebody had a later word");
    let in_time = forced(&desk);
    desk.try_out(in_time, pace());
    assert!(desk.standing.quarantined(&bad).is_none());
    assert_eq!(desk.standing.view().life.tried.map(|tried| tried.revision), Some(bad));
}

#[test]
fn a_candidate_that_fails_too_often_goes_and_the_one_in_force_is_untouched() {
    let engine = host::Engine::new();
    let (mut desk, mut words) = desk();
    let old = activate(&mut desk, &engine, 1);
    let new = try_out(&mut desk, &engine, 2);
    desk.budgets.offer = Duration::ZERO;
    for room in 0..6 {
        let revision = Some(new.clone());
        desk.answer(Ask { arm: Arm::Canary, revision, ..question(room, later()) });
    }
    desk.budgets.offer = Duration::from_secs(60);
    let view = desk.standing.view();
    assert_eq!((view.revision, view.faults, view.failing), (Some(old.clone()), 0, None));
    let [quarantined] = &view.life.quarantined[..] else { panic!("it is quarantined") };
    assert_eq!(quarantined.revision, new);
    assert!(quarantined.reason.contains("deadline"), "{}", quarantined.reason);
    let told = std::iter::from_fn(|| words.try_recv().ok()).find_map(|word| match word {
        Word::Rolled(rolled) if rolled.rollout.outcome == RolloutOutcome::RolledBack => {
            Some(rolled)
        }
        Word::Rolled(_) | Word::Revoked(_) | Word::Answered(..) | Word::HiddenState { .. } => None,
    });
    let told = told.unwrap();
    assert_eq!((told.rollout.revision, told.rollout.previous), (Some(old), Some(new)));
    assert_eq!((told.rollout.by, told.stand.candidate), (Actor::Gateway, None));
}

#[test]
fn what_did_harm_is_refused_until_somebody_insists() {
    let world = World::start();
    world.push(Some(1));
    let second = world.push(Some(2)).revision.unwrap();
    let order = Order::Condemn { revision: second.clone(), reason: "loss".into() };
    world.policies.order(&routing(), order).unwrap();
    let refused = world.push(Some(2));
    assert_eq!(refused.outcome, RolloutOutcome::Refused);
    let reason = refused.reason.unwrap();
    assert!(reason.contains("quarantined") && reason.contains("loss"), "{reason}");
    let begun = world.try_out(2, true);
    assert_eq!((begun.outcome, begun.revision), (RolloutOutcome::Started, Some(second)));
    assert!(world.policies.views()[0].life.quarantined.is_empty(), "it has another chance");
}

#[test]
fn only_what_is_still_there_is_condemned() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    let old = activate(&mut desk, &engine, 1);
    let gone = try_out(&mut desk, &engine, 2);
    let new = try_out(&mut desk, &engine, 3);
    desk.condemn(&gone, "loss", Instant::now());
    let view = desk.standing.view();
    assert_eq!(view.life.tried.map(|tried| tried.revision), Some(new));
    assert_eq!((view.revision, view.life.quarantined), (Some(old), Vec::new()));
}

#[test]
fn an_abort_lets_the_candidate_go_that_was_seen_and_no_newer_one() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    let old = activate(&mut desk, &engine, 1);
    let gone = try_out(&mut desk, &engine, 2);
    let new = try_out(&mut desk, &engine, 3);
    let abort = |desk: &mut Desk, seen: Option<Arc<str>>| {
        let after = desk.standing.last_word();
        desk.roll_back_as_asked(Instant::now(), after, Back::Candidate(seen))
    };
    assert!(abort(&mut desk, Some(gone)).is_err());
    let back = abort(&mut desk, Some(new.clone())).unwrap();
    assert_eq!((back.revision, back.previous), (Some(old), Some(new.clone())));
    assert!(abort(&mut desk, Some(new)).is_err(), "there is none any more");
    let unseen = try_out(&mut desk, &engine, 2);
    assert_eq!(abort(&mut desk, None).unwrap().previous, Some(unseen));
}

#[test]
fn a_rollback_ends_the_canary_and_the_next_one_goes_to_the_revision_before() {
    let world = World::start();
    let first = world.push(Some(1)).revision;
    let second = world.push(Some(2)).revision;
    let third = world.try_out(3, false).revision;
    let back = world.roll_back().unwrap();
    assert_eq!((back.outcome, back.by), (RolloutOutcome::RolledBack, Actor::Operator));
    assert_eq!((&back.revision, back.previous), (&second, third));
    assert_eq!(world.standing(), (second, first.clone()));
    assert_eq!(world.roll_back().unwrap().revision, first);
    assert!(world.policies.views()[0].life.quarantined.is_empty(), "who asks accuses nobody");
}

#[test]
fn what_is_in_force_and_comes_again_ends_the_canary() {
    let world = World::start();
    let first = world.push(Some(1)).revision;
    world.try_out(2, false);
    let again = world.try_out(1, false);
    assert_eq!((again.outcome, again.revision), (RolloutOutcome::Unchanged, first.clone()));
    let view = world.policies.views().remove(0);
    assert_eq!((view.revision, view.life.tried), (first, None));
}

#[test]
fn where_none_is_in_force_a_candidate_is_at_once() {
    let world = World::start();
    assert_eq!(world.try_out(1, false).outcome, RolloutOutcome::Activated);
}

#[test]
fn a_candidate_in_shadow_is_compared_and_nothing_of_what_it_says_is_told() {
    let engine = host::Engine::new();
    let (mut desk, mut words) = desk();
    let old = activate(&mut desk, &engine, 1);
    try_out(&mut desk, &engine, 2);
    assert_eq!(answered_by(&mut desk, &mut words, Arm::Standing), Some(old));
    let shadowed = desk.shadowed.take().unwrap();
    desk.shadow(&shadowed);
    let mut otherwise = desk.shadowed.take();
    assert!(otherwise.is_none() && words.try_recv().is_err());
    // As if the one in force had said something else.
    otherwise = Some(Shadowed { answer: Answer::Params(Vec::new()), ..shadowed });
    desk.shadow(&otherwise.unwrap());
    let tried = desk.standing.view().life.tried.unwrap();
    assert_eq!((tried.same, tried.different, tried.faulted, tried.calls), (1, 1, 0, 0));
    answered_by(&mut desk, &mut words, Arm::Canary);
    answered_by(&mut desk, &mut words, Arm::Standing);
    assert!(desk.shadowed.is_none(), "it answers by itself now");
}

#[test]
fn the_one_before_is_forgotten_when_its_time_is_over() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    let first = activate(&mut desk, &engine, 1);
    activate(&mut desk, &engine, 2);
    desk.forget("another");
    assert_eq!(desk.standing.view().previous, Some(first.clone()));
    desk.forget(&first);
    assert_eq!(desk.standing.view().previous, None);
    assert!(desk.roll_back("too many faults", Instant::now()).is_none());
    assert!(desk.standing.view().life.quarantined.is_empty(), "it answers on");
}

#[test]
fn only_who_does_not_know_the_nodes_is_told_of_them() {
    let engine = host::Engine::new();
    let (mut desk, _words) = desk();
    let told = |of: &Option<Revision>| of.as_ref().unwrap().policy.lessons();
    activate(&mut desk, &engine, 1);
    desk.standing.teach([].into());
    activate(&mut desk, &engine, 2);
    assert_eq!((told(&desk.active), told(&desk.previous)), (0, 1), "the second knows them already");
    let before = ready(&desk.standing, &engine, 3);
    desk.standing.teach([].into());
    desk.activate(before);
    assert_eq!(told(&desk.active), 1, "they changed while it was made");
    desk.learn();
    assert_eq!(told(&desk.active), 1, "and not since");
}
