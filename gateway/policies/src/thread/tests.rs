mod kept;

use std::sync::Arc;
use std::time::Duration;

use evenkeel_model::{AskId, GatewayLimits, Hook, HookAnswer, Measures, RoomId, Row, SessionRow};
use serde_json::json;

use super::super::PolicyThreads;
use super::*;

fn routing() -> PolicyName {
    PolicyName { set: "call".into(), hook: Hook::Routing }
}

/// A question to one revision.
fn question(room: u64, revision: Option<&Arc<str>>, deadline: Instant) -> Ask {
    let question = PolicyQuestion::Place {
        room: RoomId(room),
        scenario: "call".into(),
        labels: [].into(),
        nodes: Vec::new(),
    };
    let (policy, revision) = (routing(), revision.cloned());
    Ask { id: AskId(room), policy, arm: Arm::Standing, revision, now_us: 0, deadline, question }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// The thread's state, driven by the test.
struct World {
    thread: PolicyThread,
    words: mpsc::Receiver<PolicyReport>,
    engine: host::Engine,
}

impl World {
    fn new() -> World {
        let (words_in, words) = mpsc::channel(1_024);
        let patient = Duration::from_secs(60);
        let budgets = QuestionBudgets { offer: patient, advice: patient };
        let thread = PolicyThread::new(routing(), Arc::default(), budgets, words_in, None);
        World { thread, words, engine: host::Engine::new() }
    }

    fn loaded(&self, spares: u32) -> (Arc<str>, Box<LoadedPlugin>) {
        let shipped = host::shipped().iter().find(|shipped| shipped.name == "route-nearest");
        self.loaded_from(shipped.unwrap().bytes, Hook::Routing, json!({"spares": spares}))
    }

    fn loaded_from(
        &self,
        bytes: &[u8],
        hook: Hook,
        settings: serde_json::Value,
    ) -> (Arc<str>, Box<LoadedPlugin>) {
        let component = host::Component::vet(&self.engine, bytes).unwrap();
        let (given, nodes) = (settings.clone(), Vec::new());
        let policy =
            host::BoundPlugin::install(&self.engine, &component, hook, given, nodes, 7).unwrap();
        let seal = host::PluginSeal::of(bytes).unwrap();
        let revision = policy.revision().into();
        let catalog = lock(&self.thread.shared.catalog).version;
        let facts = Arc::new(PluginFacts {
            name: "route-nearest".into(),
            title: "route-nearest".into(),
            origin: "pushed".into(),
            inputs: settings.into(),
            bytes: Bytes::new(),
            digest: "".into(),
            seal,
            counters: ThreadCounters::default(),
        });
        (revision, Box::new(LoadedPlugin { policy, facts, catalog }))
    }

    /// Revisions differ by their settings.
    fn load(&mut self, spares: u32, compare: bool) -> Arc<str> {
        let (revision, loaded) = self.loaded(spares);
        self.order(PolicyOrder::Load { revision: Arc::clone(&revision), loaded });
        if compare {
            self.order(PolicyOrder::Compare(Arc::clone(&revision)));
        }
        revision
    }

    fn order(&mut self, order: PolicyOrder) {
        lock(&self.thread.shared.orders).push_back(order);
        assert!(!self.thread.take_orders());
    }

    /// Asks the revision; returns its result and the call.
    fn ask(
        &mut self,
        revision: &Arc<str>,
        arm: Arm,
    ) -> (Result<Arc<str>, PluginFault>, Option<PolicyCallResult>) {
        while self.words.try_recv().is_ok() {}
        self.thread.answer(Ask { arm, ..question(1, Some(revision), later()) });
        let Ok(PolicyReport(PolicyMessage::Answered { result, call, .. })) = self.words.try_recv()
        else {
            panic!("no answer")
        };
        (result.map(|answered| answered.revision), call.map(|(_, call)| call))
    }

    fn compared(&mut self) -> Option<Compared> {
        match self.words.try_recv() {
            Ok(PolicyReport(PolicyMessage::Compared { compared, .. })) => Some(compared),
            Ok(word) => panic!("{word:?}"),
            Err(_) => None,
        }
    }
}

#[test]
fn question_goes_to_the_revision_it_names() {
    let mut world = World::new();
    let (one, two) = (world.load(1, false), world.load(2, false));
    let answered = PolicyCallResult { answered: true, fault: None, beyond_repair: false };
    assert_eq!(world.ask(&one, Arm::Standing), (Ok(one.clone()), Some(answered.clone())));
    assert_eq!(world.ask(&two, Arm::Canary), (Ok(two.clone()), Some(answered)));
    world.order(PolicyOrder::Unload(Arc::clone(&two)));
    assert_eq!(world.ask(&two, Arm::Canary), (Err(PluginFault::Absent), None));
    assert_eq!(world.ask(&"gone".into(), Arm::Standing).0, Err(PluginFault::Absent));
}

#[test]
fn late_question_is_not_asked() {
    let mut world = World::new();
    let one = world.load(1, false);
    world.thread.answer(question(1, Some(&one), Instant::now()));
    let Ok(PolicyReport(PolicyMessage::Answered { result, call, .. })) = world.words.try_recv()
    else {
        panic!()
    };
    assert_eq!((result, call), (Err(PluginFault::Late), None));
}

#[test]
fn orders_go_before_the_questions_that_wait() {
    let mut world = World::new();
    let (bell, rung) = crossbeam_channel::bounded(1);
    let (questions, asked) = crossbeam_channel::bounded(64);
    let (revision, loaded) = world.loaded(1);
    for room in 0..64 {
        questions.send(question(room, Some(&revision), later())).unwrap();
    }
    let shared = Arc::clone(&world.thread.shared);
    lock(&shared.orders).push_back(PolicyOrder::Load { revision, loaded });
    bell.send(()).unwrap();
    let thread = world.thread.spawn(rung, asked).unwrap();
    drop(questions);
    for room in 0..64 {
        let Some(PolicyReport(PolicyMessage::Answered { ask, result, .. })) =
            world.words.blocking_recv()
        else {
            panic!("no answer")
        };
        assert!(ask == AskId(room) && result.is_ok(), "{result:?}");
    }
    thread.join().unwrap();
    drop(bell);
}

#[test]
fn answer_past_its_budget_is_a_fault() {
    let answered = |took| RevisionAnswer {
        answer: HookAnswer::Params(Vec::new()),
        revision: "5f0c".into(),
        notes: Vec::new(),
        took: Duration::from_millis(took),
        isolated: None,
        reasons: [].into(),
        ungranted: 0,
    };
    let budgets =
        QuestionBudgets { offer: Duration::from_millis(2), advice: Duration::from_millis(10) };
    let place = question(1, None, later()).question;
    let reroute = PolicyQuestion::Reroute { nodes: Vec::new(), rooms: Vec::new(), memo: None };
    assert!(budgets.hold(&place, answered(2)).is_ok());
    assert_eq!(budgets.hold(&place, answered(3)), Err(PluginFault::Deadline));
    assert!(budgets.hold(&reroute, answered(10)).is_ok());
    assert_eq!(budgets.hold(&reroute, answered(11)), Err(PluginFault::Deadline));
}

#[test]
fn call_past_its_budget_is_reported_as_a_fault() {
    let mut world = World::new();
    let one = world.load(1, false);
    world.thread.budgets.offer = Duration::ZERO;
    let fault = Some(PluginFault::Deadline);
    let call = PolicyCallResult { answered: false, fault, beyond_repair: false };
    assert_eq!(world.ask(&one, Arm::Standing), (Err(PluginFault::Deadline), Some(call)));
}

#[test]
fn only_answered_questions_prove_the_next_revision() {
    let mut world = World::new();
    let one = world.load(1, false);
    world.ask(&one, Arm::Canary).0.unwrap();
    assert_eq!(world.thread.shared.questions.list().len(), 0, "of the active revision");
    world.ask(&one, Arm::Standing).0.unwrap();
    world.thread.budgets.offer = Duration::ZERO;
    world.ask(&one, Arm::Standing).0.unwrap_err();
    assert_eq!(world.thread.shared.questions.list().len(), 1);
}

#[test]
fn policy_is_stopped_without_waiting() {
    let (words_in, words) = mpsc::channel(1);
    let settings = evenkeel_config::GatewayConfig::load(None, None, &[]).unwrap();
    let mut gateway = evenkeel_core::Gateway::new(settings.core(), Instant::now());
    let mut policies = PolicyThreads::new(Vec::new(), &GatewayLimits::default(), words_in);
    let rules = evenkeel_config::RolloutSettings::default().rules();
    policies.start(&routing(), rules, &mut gateway).unwrap();
    // The thread blocks on its full channel until the queue of questions is full.
    while policies.ask(question(1, None, later())).is_ok() {}
    assert!(policies.stop(&routing()));
    assert!(!policies.stop(&routing()), "already stopped");
    let (id, fault) = policies.ask(question(2, None, later())).unwrap_err();
    assert_eq!((id, fault), (AskId(2), PluginFault::Absent));
    drop(words);
}

#[test]
fn candidate_is_compared_until_it_answers() {
    let mut world = World::new();
    let old = world.load(1, false);
    let new = world.load(2, true);
    world.ask(&old, Arm::Standing).0.unwrap();
    let shadowed = world.thread.shadowed.take().unwrap();
    world.thread.compare(&shadowed);
    assert_eq!(world.compared(), Some(Compared::Same));
    // Pretends that the active revision decided differently.
    let answer = HookAnswer::Params(Vec::new());
    let answered = RevisionAnswer { answer, ..shadowed.answered };
    world.thread.compare(&AnsweredQuestion { answered, ..shadowed });
    assert_eq!(world.compared(), Some(Compared::Different));
    world.ask(&new, Arm::Canary).0.unwrap();
    world.ask(&old, Arm::Standing).0.unwrap();
    assert!(world.thread.shadowed.is_none(), "a canary is not compared");
}

/// A question about one session.
fn tick() -> PolicyQuestion {
    let row = Row { id: 1, measures: Measures::default() };
    let (room, scenario, labels) = (RoomId(1), "call".into(), [].into());
    let session = SessionRow { row, room, scenario, labels, state: None };
    PolicyQuestion::Tick { sessions: vec![session], memo: None }
}

impl World {
    fn load_degradation(&mut self, bytes: &[u8], compare: bool) -> Arc<str> {
        let (revision, loaded) = self.loaded_from(bytes, Hook::Degradation, json!({}));
        self.order(PolicyOrder::Load { revision: Arc::clone(&revision), loaded });
        if compare {
            self.order(PolicyOrder::Compare(Arc::clone(&revision)));
        }
        revision
    }

    fn tick(&mut self, revision: &Arc<str>) {
        let asked = question(1, Some(revision), later());
        self.thread.answer(Ask { question: tick(), ..asked });
    }

    /// Reports of hidden state: the revision, and the answers that differed.
    fn hidden(&mut self) -> Vec<(Arc<str>, BreachCount)> {
        let words = std::iter::from_fn(|| self.words.try_recv().ok());
        let hidden = words.filter_map(|word| match word.0 {
            PolicyMessage::HiddenState { revision, answers, .. } => Some((revision, answers)),
            _ => None,
        });
        hidden.collect()
    }

    /// Takes steps until hidden state is found: a slow machine skips checks.
    fn first_hidden(&mut self, mut step: impl FnMut(&mut World)) -> (Arc<str>, BreachCount) {
        let deadline = later();
        loop {
            step(self);
            if let Some(found) = self.hidden().pop() {
                return found;
            }
            assert!(Instant::now() < deadline, "no hidden state");
        }
    }
}

#[test]
fn hidden_state_of_active_and_candidate_is_reported() {
    let hides = evenkeel_guests::hostile().into_iter().find(|guest| guest.name == "hidden state");
    let hides = hides.unwrap().bytes;
    let mut world = World::new();
    let active = world.load_degradation(&hides, false);
    let found = world.first_hidden(|world| {
        world.tick(&active);
        world.thread.check_determinism();
    });
    assert_eq!((found.0, found.1.worse), (active, 1));

    let mut world = World::new();
    let honest = evenkeel_guests::module::Module::honest(Hook::Degradation).build();
    let active = world.load_degradation(&honest, false);
    let candidate = world.load_degradation(&hides, true);
    let found = world.first_hidden(|world| {
        world.tick(&active);
        // An answer that a slow machine delays is not compared.
        if let Some(shadowed) = world.thread.shadowed.take() {
            world.thread.compare(&shadowed);
        }
    });
    assert_eq!((found.0, found.1.worse), (candidate, 1));
}

#[test]
fn activated_candidate_is_compared_no_more() {
    let mut world = World::new();
    let first = world.load(1, true);
    world.ask(&first, Arm::Standing).0.unwrap();
    let next = world.load(2, false);
    world.ask(&next, Arm::Standing).0.unwrap();
    assert!(world.thread.shadowed.is_none(), "the previous revision is not compared");
}

#[test]
fn question_to_other_candidate_keeps_comparison() {
    let mut world = World::new();
    let old = world.load(1, false);
    let gone = world.load(2, true);
    let next = world.load(3, true);
    world.order(PolicyOrder::Unload(Arc::clone(&gone)));
    world.ask(&gone, Arm::Canary).0.unwrap_err();
    world.ask(&old, Arm::Standing).0.unwrap();
    assert!(world.thread.shadowed.is_some());
    assert_eq!(world.thread.compared, Some(next));
}

#[test]
fn only_outdated_plugins_learn_the_catalog() {
    let mut world = World::new();
    let told = |world: &World, of: &Arc<str>| world.thread.loaded[of].policy.catalog_updates;
    let pass = |world: &World, version| {
        *lock(&world.thread.shared.catalog) = CatalogSnapshot { version, entries: [].into() };
    };
    let one = world.load(1, false);
    pass(&world, 1);
    let two = world.load(2, false);
    assert_eq!(
        (told(&world, &two), told(&world, &one)),
        (0, 1),
        "two was installed with this catalog"
    );
    let (three, loaded) = world.loaded(3);
    pass(&world, 2);
    world.order(PolicyOrder::Load { revision: Arc::clone(&three), loaded });
    assert_eq!(told(&world, &three), 1, "the catalog changed while three was prepared");
    world.thread.pass_catalog();
    assert_eq!(told(&world, &three), 1, "the catalog did not change since");
}

#[test]
fn fault_log_line_counts_faults_since_the_last() {
    let now = Instant::now();
    let mut log = FaultLog::default();
    let fault = Some(PluginFault::Deadline);
    assert_eq!(log.count(&None, now), None);
    assert_eq!(log.count(&fault, now), Some(1));
    for _ in 0..500 {
        assert_eq!(log.count(&fault, now + Duration::from_millis(999)), None);
    }
    assert_eq!(log.count(&fault, now + FAULT_LOGGED_EVERY), Some(501));
}
