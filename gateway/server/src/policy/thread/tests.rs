use std::sync::Arc;

use evenkeel_core::{Answer, AskId, Hook, PolicyName, RoomId};
use serde_json::json;

use super::super::{Policies, Source, Workshop, prepare};
use super::*;

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
        force: false,
        arrived: Instant::now(),
    }
}

fn question(room: u64, deadline: Instant) -> Ask {
    let question = Question::Place {
        room: RoomId(room),
        scenario: "call".into(),
        labels: [].into(),
        nodes: Vec::new(),
    };
    Ask { id: AskId(room), policy: routing(), now_us: 0, deadline, question }
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

    fn standing(&self) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let view = self.policies.views().remove(0);
        (view.revision, view.previous)
    }

    fn roll_back(&self) -> Result<Rollout, &'static str> {
        let (reply, rolled) = tokio::sync::oneshot::channel();
        self.policies.roll_back(&routing(), reply).unwrap();
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
    let Source { bytes, settings, origin, seed, arrived, .. } = source(Some(spares));
    let component = host::Component::vet(engine, &bytes).unwrap();
    let settings = settings.unwrap();
    let (hook, given) = (Hook::Routing, settings.clone());
    let policy = host::Policy::install(engine, &component, hook, given, Vec::new(), seed).unwrap();
    let (reply, _) = tokio::sync::oneshot::channel();
    let (since, word) = (Instant::now(), standing.next_word());
    Ready { policy, origin, settings, arrived, since, word, reply }
}

fn activate(desk: &mut Desk, engine: &host::Engine, spares: u32) -> Arc<str> {
    let ready = ready(&desk.standing, engine, spares);
    let revision = ready.policy.revision().into();
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
    assert_eq!(desk.standing.view().failing, None);
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
