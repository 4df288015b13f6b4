//! The life of revisions, without plugins.

use std::time::SystemTime;

use evenkeel_model::PluginFault;

use super::*;
use crate::calls::BEYOND_REPAIR;
use crate::report::PolicyStatus;
use crate::samples::{HOUR, revision, strategy};
use crate::{RolloutStage, Strategy};

/// The lifecycle of one policy, and the virtual time.
struct World {
    life: Lifecycle,
    now: Instant,
}

fn rules() -> RolloutRules {
    RolloutRules { strategy: strategy(5), keep: HOUR, judging: Judging::default() }
}

fn versioned(name: &str, version: &str) -> Revision {
    Revision { version: crate::Version::read(version), ..revision(name, "near", 1) }
}

fn fault() -> PolicyCallResult {
    PolicyCallResult { answered: false, fault: Some(PluginFault::Deadline), beyond_repair: false }
}

fn name(rollout: &RolloutReport) -> Option<&str> {
    rollout.revision.as_deref()
}

fn previous(rollout: &RolloutReport) -> Option<&str> {
    rollout.previous.as_deref()
}

impl World {
    fn new() -> World {
        let now = Instant::now();
        let policy = PolicyName { set: "call".into(), hook: Hook::Routing };
        let clock = WallClock { instant: now, time: SystemTime::UNIX_EPOCH + HOUR };
        World { life: Lifecycle::new(policy, rules(), clock), now }
    }

    /// A process that continues this one's record, where these revisions are loaded.
    fn continued(&self, loaded: &[&str]) -> World {
        let mut next = World { now: self.now, ..World::new() };
        next.life.restore(self.life.record(), |revision| loaded.contains(&&*revision.name));
        next
    }

    fn request(&mut self) -> RolloutRequest {
        let push = self.life.next_push();
        let (by, arrived) = (Actor::Operator, self.now);
        let (force, replace) = (false, true);
        RolloutRequest { push, by, arrived, force, replace, strategy: None, returns: false }
    }

    /// The request is compiled, proved and loaded.
    fn prepare(
        &mut self,
        request: &RolloutRequest,
        new: Revision,
    ) -> Result<RolloutReport, RevisionRefusal> {
        self.life.handle_compiled(request, &new, self.now)?;
        self.life.handle_ready(request, new, None, (self.now, self.now))
    }

    fn push(&mut self, new: Revision) -> Result<RolloutReport, RevisionRefusal> {
        let request = self.request();
        self.prepare(&request, new)
    }

    fn force(&mut self, new: Revision) -> Result<RolloutReport, RevisionRefusal> {
        let request = RolloutRequest { force: true, ..self.request() };
        self.prepare(&request, new)
    }

    /// It becomes a candidate with this share.
    fn try_out(&mut self, new: &str) -> Result<RolloutReport, RevisionRefusal> {
        let request = RolloutRequest { strategy: Some(strategy(5)), ..self.request() };
        self.prepare(&request, revision(new, "p", 1))
    }

    fn activate(&mut self, new: &str) -> RolloutReport {
        self.push(revision(new, "p", 1)).unwrap()
    }

    fn harms(&mut self, revision: &str) {
        self.life.remove_harmful(revision, "loss: 8 of 10 got worse", self.now);
    }

    fn answer(&mut self, revision: &str) {
        let answered = PolicyCallResult { answered: true, fault: None, ..fault() };
        self.life.handle_call(revision, &answered, self.now);
    }

    /// A call of the revision faults. One fault too many removes the revision.
    fn fault(&mut self, revision: &str) {
        self.life.handle_call(revision, &fault(), self.now);
    }

    fn revoke(&mut self, revoked: &[&str]) {
        let revoked = revoked.iter().map(|name| ((*name).into(), "key `ops` is revoked".into()));
        self.life.handle_revoked(revoked.collect(), self.now);
    }

    fn roll_back(&mut self) -> Result<RolloutReport, &'static str> {
        self.life.handle_rollback(false, self.now)
    }

    fn status(&self) -> PolicyStatus {
        self.life.status(self.now)
    }

    /// Active, candidate and previous revision.
    fn names(&self) -> [Option<Arc<str>>; 3] {
        let PolicyStatus { active, candidate, previous, .. } = self.status();
        [active, candidate.map(|it| it.revision), previous]
    }

    fn quarantined(&self) -> Vec<Arc<str>> {
        self.status().quarantined.into_iter().map(|it| it.revision).collect()
    }

    fn reports(&mut self) -> Vec<RolloutReport> {
        let reports = self.life.take_effects().into_iter().filter_map(|effect| match effect {
            Effect::Report(rollout) => Some(rollout),
            _ => None,
        });
        reports.collect()
    }
}

fn some<const N: usize>(names: [&str; N]) -> [Option<Arc<str>>; N] {
    names.map(|name| Some(name).filter(|name| !name.is_empty()).map(Into::into))
}

fn code(result: Result<RolloutReport, RevisionRefusal>) -> Option<&'static str> {
    result.err().map(|refusal| refusal.code())
}

#[test]
fn repeated_push_is_unchanged_and_previous_stays() {
    let mut world = World::new();
    world.activate("a");
    let second = world.activate("b");
    assert_eq!((second.outcome, previous(&second)), (RolloutOutcome::Activated, Some("a")));
    let again = world.activate("b");
    assert_eq!(again.outcome, RolloutOutcome::Unchanged);
    assert_eq!((name(&again), previous(&again)), (Some("b"), Some("b")));
    assert_eq!(world.names(), some(["b", "", "a"]));
    let back = world.roll_back().unwrap();
    assert_eq!((name(&back), previous(&back)), (Some("a"), Some("b")));
    assert!(world.roll_back().is_err());
}

#[test]
fn later_push_or_rollback_supersedes() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    let slow = world.request();
    world.activate("c");
    assert_eq!(world.prepare(&slow, revision("b", "p", 1)), Err(RevisionRefusal::Superseded));
    assert_eq!(world.names(), some(["c", "", "b"]));

    let slow = world.request();
    assert_eq!(name(&world.roll_back().unwrap()), Some("b"));
    assert_eq!(world.prepare(&slow, revision("a", "p", 1)), Err(RevisionRefusal::Superseded));
    assert_eq!(world.names(), some(["b", "", ""]));
}

#[test]
fn failed_rollback_supersedes_nothing() {
    let mut world = World::new();
    let first = world.request();
    assert!(world.roll_back().is_err());
    world.prepare(&first, revision("a", "p", 1)).unwrap();
    let second = world.request();
    assert!(world.roll_back().is_err());
    let second = world.prepare(&second, revision("b", "p", 1)).unwrap();
    assert_eq!(second.outcome, RolloutOutcome::Activated);
}

#[test]
fn faulty_revision_does_not_become_previous() {
    let mut world = World::new();
    world.activate("good");
    world.activate("bad");
    world.fault("bad");
    world.activate("worse");
    world.harms("worse");
    assert_eq!(world.names(), some(["good", "", ""]));
    world.activate("bad");
    world.fault("bad");
    world.activate("good");
    assert_eq!(world.names(), some(["good", "", ""]), "there is nothing else to go to");
}

#[test]
fn six_faults_roll_the_active_revision_back() {
    let mut world = World::new();
    world.activate("good");
    world.activate("bad");
    for _ in 0..5 {
        world.fault("bad");
    }
    assert_eq!(world.names(), some(["bad", "", "good"]));
    world.fault("bad");
    assert_eq!(world.names(), some(["good", "", ""]));
    assert_eq!((world.status().faults, world.status().calls), (6, 6));
    assert_eq!(*world.status().quarantined[0].reason, *"too many faults; the last: deadline");
}

#[test]
fn times_of_changes_follow_the_wall_clock() {
    let mut world = World::new();
    world.activate("good");
    world.activate("bad");
    let stepped = SystemTime::UNIX_EPOCH + 100 * HOUR;
    world.life.set_clock(WallClock { instant: world.now, time: stepped });
    world.now += HOUR;
    (0..6).for_each(|_| world.fault("bad"));
    let status = world.status();
    assert_eq!(status.quarantined[0].since, stepped + HOUR);
    assert_eq!(status.last.unwrap().at, stepped + HOUR);
}

#[test]
fn revision_beyond_repair_is_rolled_back() {
    let mut world = World::new();
    world.activate("good");
    world.activate("bad");
    let call = PolicyCallResult { beyond_repair: true, ..fault() };
    world.life.handle_call("bad", &call, world.now);
    let status = world.status();
    assert_eq!(status.active.as_deref(), Some("good"));
    let reason = status.last.and_then(|last| last.rollout.reason);
    assert_eq!(reason.as_deref(), Some(BEYOND_REPAIR));
}

#[test]
fn policy_is_failing_until_it_answers_again() {
    let mut world = World::new();
    world.activate("a");
    world.fault("a");
    assert_eq!(world.status().failing, Some(PluginFault::Deadline));
    world.answer("a");
    let status = world.status();
    assert_eq!((status.failing, status.last_fault), (None, Some(PluginFault::Deadline)));
}

#[test]
fn promoted_candidate_is_active() {
    let mut world = World::new();
    world.activate("a");
    let begun = world.try_out("b").unwrap();
    assert_eq!(
        (begun.outcome, name(&begun), previous(&begun)),
        (RolloutOutcome::Started, Some("b"), Some("a"))
    );
    assert_eq!(begun.stage.map(|staged| staged.stage.percent()), Some(5));
    assert_eq!(world.names(), some(["a", "b", ""]));
    let promoted = world.life.handle_action(RolloutAction::PromoteAll, world.now).unwrap();
    assert_eq!((promoted.outcome, promoted.by), (RolloutOutcome::Activated, Actor::Operator));
    assert_eq!((name(&promoted), previous(&promoted)), (Some("b"), Some("a")));
    assert_eq!(world.names(), some(["b", "", "a"]));
    assert!(world.life.handle_action(RolloutAction::PromoteAll, world.now).is_err());
}

#[test]
fn candidate_steps_and_becomes_active_in_time() {
    let mut world = World::new();
    world.activate("a");
    let steps = Strategy { steps: vec![5, 50], ..strategy(5) };
    let request = RolloutRequest { strategy: Some(steps), ..world.request() };
    world.prepare(&request, revision("b", "p", 1)).unwrap();
    world.reports();
    for outcome in [RolloutOutcome::Advanced, RolloutOutcome::Activated] {
        world.life.poll(CohortSize::default, world.now + HOUR - Duration::from_millis(1));
        assert_eq!(world.reports(), []);
        world.now += HOUR;
        world.life.poll(CohortSize::default, world.now);
        let [report] = &world.reports()[..] else { panic!("{outcome:?}") };
        assert_eq!((report.outcome, report.by), (outcome, Actor::Gateway));
    }
    assert_eq!(world.names(), some(["b", "", "a"]));
}

#[test]
fn operator_pauses_resumes_and_aborts() {
    let mut world = World::new();
    assert!(world.life.handle_action(RolloutAction::Pause, world.now).is_err());
    world.activate("a");
    world.try_out("b").unwrap();
    let verb = |world: &mut World, verb| {
        let rollout = world.life.handle_action(verb, world.now).unwrap();
        (rollout.outcome, rollout.stage.map(|staged| staged.paused))
    };
    assert_eq!(verb(&mut world, RolloutAction::Pause), (RolloutOutcome::Paused, Some(true)));
    assert_eq!(verb(&mut world, RolloutAction::Resume), (RolloutOutcome::Resumed, Some(false)));
    assert_eq!(verb(&mut world, RolloutAction::Abort), (RolloutOutcome::RolledBack, None));
    assert_eq!(world.names(), some(["a", "", ""]));
    assert!(
        world.life.handle_action(RolloutAction::Abort, world.now).is_err(),
        "there is none any more"
    );
}

#[test]
fn previous_as_candidate_is_restored_once() {
    let mut world = World::new();
    world.activate("good");
    world.activate("bad");
    world.try_out("good").unwrap();
    world.reports();
    world.harms("bad");
    assert_eq!(world.reports().len(), 1, "its states would be dropped in between");
    assert_eq!(world.names(), some(["good", "", ""]));
    world.harms("good");
    assert_eq!(world.quarantined(), ["bad".into()], "no other revision is there");
}

#[test]
fn force_lifts_quarantine_when_loaded() {
    let mut world = World::new();
    world.activate("a");
    world.activate("bad");
    world.harms("bad");
    let late = RolloutRequest { force: true, ..world.request() };
    world.life.next_push();
    assert_eq!(world.prepare(&late, revision("bad", "p", 1)), Err(RevisionRefusal::Superseded));
    assert_eq!(world.quarantined(), ["bad".into()]);
    let strategy = Some(strategy(5));
    let in_time = RolloutRequest { force: true, strategy, ..world.request() };
    world.prepare(&in_time, revision("bad", "p", 1)).unwrap();
    assert_eq!(world.quarantined(), []);
    assert_eq!(world.names(), some(["a", "bad", ""]));
}

#[test]
fn faulty_candidate_is_dropped() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("b").unwrap();
    world.reports();
    let calls = |world: &mut World, name| (0..999).for_each(|_| world.answer(name));
    calls(&mut world, "b");
    world.fault("b");
    let status = world.status();
    assert_eq!((status.active.as_deref(), status.faults, status.failing), (Some("a"), 0, None));
    let [quarantined] = &status.quarantined[..] else { panic!("it is quarantined") };
    assert_eq!(*quarantined.revision, *"b");
    assert!(quarantined.reason.contains("deadline"), "{}", quarantined.reason);
    let [back] = &world.reports()[..] else { panic!("reported once") };
    assert_eq!((back.outcome, back.by), (RolloutOutcome::RolledBack, Actor::Gateway));
    assert_eq!((name(back), previous(back)), (Some("a"), Some("b")));
    assert_eq!(world.names(), some(["a", "", ""]));

    let judging = Judging { faults_permille: 1, ..Judging::default() };
    world.life.set_rules(RolloutRules { judging, ..rules() }, world.now);
    world.try_out("c").unwrap();
    (0..2).for_each(|_| calls(&mut world, "c"));
    (0..2).for_each(|_| world.fault("c"));
    assert_eq!(world.names(), some(["a", "c", ""]), "one in a thousand is allowed");
    world.fault("c");
    assert_eq!(world.names(), some(["a", "", ""]));
}

#[test]
fn candidate_is_compared_in_shadow() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("b").unwrap();
    for compared in [Compared::Same, Compared::Different, Compared::Skipped] {
        assert_eq!(world.life.calls.note_compared(&compared, false, 400, world.now), None);
    }
    world.life.handle_compared("gone", &Compared::Same, false, world.now);
    let faulted = Compared::Faulted(PluginFault::OutOfMemory);
    assert_eq!(world.life.calls.note_compared(&faulted, false, 400, world.now), None);
    let reason = world.life.calls.note_compared(&faulted, false, 400, world.now).unwrap();
    assert!(reason.starts_with("too many faults in shadow"), "{reason}");
    let calls = world.status().candidate.unwrap().calls;
    assert_eq!((calls.same, calls.different, calls.faulted, calls.calls), (1, 1, 2, 0));
}

#[test]
fn quarantined_revision_is_refused_without_force() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    world.harms("b");
    world.now += Duration::from_secs(7);
    let Err(RevisionRefusal::Quarantined { quarantined, age }) = world.push(revision("b", "p", 1))
    else {
        panic!("it is quarantined")
    };
    assert!(quarantined.reason.contains("loss"), "{quarantined:?}");
    assert_eq!(age, Duration::from_secs(7));
    let forced = world.force(revision("b", "p", 1)).unwrap();
    assert_eq!((forced.outcome, name(&forced)), (RolloutOutcome::Activated, Some("b")));
    assert_eq!(world.quarantined(), []);
}

#[test]
fn harm_of_a_removed_revision_is_ignored() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("gone").unwrap();
    world.try_out("b").unwrap();
    world.harms("gone");
    assert_eq!(world.names(), some(["a", "b", ""]));
    assert_eq!(world.quarantined(), []);
}

#[test]
fn rollback_drops_candidate_before_active() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    world.try_out("c").unwrap();
    let back = world.roll_back().unwrap();
    assert_eq!((back.outcome, back.by), (RolloutOutcome::RolledBack, Actor::Operator));
    assert_eq!((name(&back), previous(&back)), (Some("b"), Some("c")));
    assert_eq!(world.names(), some(["b", "", "a"]));
    assert_eq!(name(&world.roll_back().unwrap()), Some("a"));
    assert_eq!(world.quarantined(), [], "an operator's rollback quarantines nothing");
}

#[test]
fn push_of_active_drops_the_candidate() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("b").unwrap();
    let again = world.try_out("a").unwrap();
    assert_eq!((again.outcome, name(&again)), (RolloutOutcome::Unchanged, Some("a")));
    assert_eq!(again.reason.as_deref(), Some("ends the rollout of revision b, canary at 5 %"));
    assert_eq!(world.names(), some(["a", "", ""]));
}

#[test]
fn first_revision_is_active_without_a_rollout() {
    let mut world = World::new();
    assert_eq!(world.try_out("a").unwrap().outcome, RolloutOutcome::Activated);
}

#[test]
fn previous_revision_is_dropped_after_its_window() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    world.now += HOUR - Duration::from_millis(1);
    world.life.poll(CohortSize::default, world.now);
    assert_eq!(world.names(), some(["b", "", "a"]));
    world.now += Duration::from_millis(1);
    world.life.poll(CohortSize::default, world.now);
    assert_eq!(world.names(), some(["b", "", ""]));
    world.harms("b");
    assert_eq!(world.names(), some(["b", "", ""]));
    assert_eq!(world.quarantined(), [], "it stays");
}

#[test]
fn each_activation_renews_the_rollback_window() {
    let mut world = World::new();
    world.activate("good");
    world.activate("bad");
    world.fault("bad");
    world.now += Duration::from_secs(5);
    let left = |world: &World| world.status().previous_for;
    assert_eq!(left(&world), Some(HOUR - Duration::from_secs(5)));
    world.try_out("candidate").unwrap();
    assert_eq!(left(&world), Some(HOUR - Duration::from_secs(5)), "nothing else is active");
    world.activate("mended");
    assert_eq!((world.names(), left(&world)), (some(["mended", "", "good"]), Some(HOUR)));
    world.activate("good");
    assert_eq!(left(&world), Some(HOUR), "of the mended one");
}

#[test]
fn older_plugin_is_refused_without_force() {
    let mut world = World::new();
    assert_eq!(code(world.push(versioned("a", "0.1.0"))), None);
    assert_eq!(code(world.push(versioned("b", "0.2.0"))), None);
    assert_eq!(code(world.push(versioned("c", "0.1.9"))), Some("downgrade"));
    assert_eq!(code(world.force(versioned("c", "0.1.9"))), None);
    assert_eq!(code(world.push(versioned("d", "0.1.8"))), Some("downgrade"), "0.1.9 runs");
    assert_eq!(code(world.push(versioned("b", "0.2.0"))), None);
}

#[test]
fn restored_file_returns_to_the_previous_revision() {
    let mut world = World::new();
    let by_file = |world: &mut World, new: Revision| {
        let strategy = Some(strategy(5));
        let request = RolloutRequest { returns: true, strategy, ..world.request() };
        world.prepare(&request, new)
    };
    assert_eq!(code(world.push(versioned("a", "0.1.0"))), None);
    assert_eq!(code(world.push(versioned("b", "0.2.0"))), None);
    let older = by_file(&mut world, versioned("c", "0.1.1")).unwrap();
    assert_eq!(older.outcome, RolloutOutcome::Started, "as at a start");
    let back = by_file(&mut world, versioned("a", "0.1.0")).unwrap();
    assert_eq!((back.outcome, previous(&back)), (RolloutOutcome::RolledBack, Some("b")));
    assert_eq!(world.names(), some(["a", "", ""]));
    assert_eq!(code(world.push(versioned("d", "0.1.5"))), None, "0.2.0 sets no floor any more");
}

#[test]
fn push_of_an_older_version_that_was_active_is_a_rollback() {
    let mut world = World::new();
    for (name, version) in [("a", "0.1.0"), ("b", "0.2.0"), ("c", "0.3.0")] {
        assert_eq!(code(world.push(versioned(name, version))), None);
    }
    let push = |world: &mut World, name: &str, version: &str| {
        let request = RolloutRequest { strategy: Some(strategy(5)), ..world.request() };
        world.prepare(&request, versioned(name, version))
    };
    let back = push(&mut world, "b", "0.2.0").unwrap();
    assert_eq!((back.outcome, name(&back)), (RolloutOutcome::RolledBack, Some("b")));
    assert_eq!(code(push(&mut world, "other", "0.1.9")), Some("downgrade"));
    let older = push(&mut world, "a", "0.1.0").unwrap();
    assert_eq!(older.outcome, RolloutOutcome::Started, "it is not the previous one any more");
    world.life.handle_action(RolloutAction::PromoteAll, world.now).unwrap();
    assert_eq!(code(world.push(versioned("fix", "0.1.1"))), None, "of the version in use");
}

#[test]
fn running_rollout_ends_only_by_a_replacing_push() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("b").unwrap();
    for new in ["a", "b", "c"] {
        let request = RolloutRequest { replace: false, ..world.request() };
        let refusal = world.prepare(&request, revision(new, "p", 1)).unwrap_err();
        let (candidate, stage) = ("b".into(), RolloutStage::Canary(5));
        assert_eq!(refusal, RevisionRefusal::Running { candidate, stage });
    }
    let request = RolloutRequest { replace: false, ..world.request() };
    let (now, new) = (world.now, revision("c", "p", 1));
    let late = world.life.handle_ready(&request, new, None, (now, now));
    assert_eq!(code(late), Some("rollout-running"), "it began while the push was prepared");
    let begun = world.try_out("c").unwrap();
    assert_eq!(begun.reason.as_deref(), Some("ends the rollout of revision b, canary at 5 %"));
    assert_eq!(
        world.activate("d").reason,
        Some("ends the rollout of revision c, canary at 5 %".into())
    );
}

#[test]
fn rollback_to_a_quarantined_revision_needs_force() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    let (since, reason) = (world.life.clock.time, "loss".into());
    world.life.remembered.quarantine(QuarantinedRevision { revision: "a".into(), since, reason });
    assert_eq!(world.roll_back(), Err(PREVIOUS_QUARANTINED));
    world.harms("b");
    assert_eq!(world.names(), some(["b", "", "a"]), "no way back by itself either");
    world.revoke(&["a"]);
    let refused = world.life.handle_rollback(true, world.now);
    assert_eq!(refused, Err(PREVIOUS_REVOKED), "and its quarantine stays");
    world.revoke(&[]);
    let back = world.life.handle_rollback(true, world.now).unwrap();
    assert_eq!((name(&back), world.quarantined()), (Some("a"), vec!["b".into()]));
}

#[test]
fn step_waits_for_answers_of_the_candidate() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("b").unwrap();
    let cohort = CohortSize { judged: 9, required: 5 };
    assert_eq!(world.life.judged(cohort).judged, 0);
    world.now += HOUR;
    world.life.poll(|| cohort, world.now);
    assert_eq!(world.names(), some(["a", "b", ""]));
    world.answer("b");
    assert_eq!(world.life.judged(cohort), cohort);
    world.life.poll(|| cohort, world.now);
    assert_eq!(world.names(), some(["b", "", "a"]));
}

#[test]
fn newcomers_are_judged_by_their_answers() {
    let policy = PolicyName { set: "call".into(), hook: Hook::Admission };
    let mut world = World::new();
    world.life = Lifecycle::new(policy, rules(), world.life.clock);
    world.activate("a");
    let steps = Strategy { steps: vec![5, 20], ..strategy(5) };
    let request = RolloutRequest { strategy: Some(steps), ..world.request() };
    world.prepare(&request, revision("b", "p", 1)).unwrap();
    (0..7).for_each(|_| world.answer("b"));
    let cohort = CohortSize { judged: 0, required: 5 };
    assert_eq!(world.life.judged(cohort), CohortSize { judged: 7, required: 5 });
    world.life.handle_action(RolloutAction::Promote, world.now).unwrap();
    assert_eq!(world.life.judged(cohort).judged, 0, "of this step");
}

#[test]
fn fix_of_a_restored_version_is_accepted() {
    let mut world = World::new();
    assert_eq!(code(world.push(versioned("a", "0.1.0"))), None);
    assert_eq!(code(world.push(versioned("bad", "0.2.0"))), None);
    assert_eq!(code(world.push(versioned("fix", "0.1.1"))), Some("downgrade"));
    world.harms("bad");
    assert_eq!(code(world.push(versioned("bad", "0.2.0"))), Some("quarantined"));
    assert_eq!(code(world.push(versioned("old", "0.0.9"))), Some("downgrade"));
    assert_eq!(code(world.push(versioned("fix", "0.1.1"))), None);
    assert_eq!(code(world.push(versioned("a0", "0.1.0"))), Some("downgrade"), "the fix is good");
}

#[test]
fn rollback_by_operator_lowers_the_floor() {
    let mut world = World::new();
    assert_eq!(code(world.push(versioned("a", "0.1.0"))), None);
    assert_eq!(code(world.push(versioned("b", "0.2.0"))), None);
    world.roll_back().unwrap();
    assert_eq!(code(world.push(versioned("fix", "0.1.1"))), None);
}

#[test]
fn first_revision_is_accepted_below_the_floor() {
    let mut world = World::new();
    assert_eq!(code(world.push(versioned("new", "0.3.0"))), None);
    assert!(world.life.take_effects().contains(&Effect::RecordChanged));
    let mut world = world.continued(&[]);
    assert_eq!(code(world.push(versioned("old", "0.1.0"))), None, "it is configured");
    assert_eq!(code(world.push(versioned("older", "0.0.9"))), Some("downgrade"));
    assert_eq!(code(world.push(versioned("settings", "0.1.0"))), None, "other settings");
}

#[test]
fn quarantined_first_revision_is_activated() {
    let mut world = World::new();
    world.activate("a");
    world.activate("bad");
    world.harms("bad");
    world.now += Duration::from_secs(1_120);
    let mut world = world.continued(&[]);
    let told = world.activate("bad");
    assert_eq!(told.code, Some("quarantined"));
    let reason = told.reason.unwrap();
    let right = "quarantined 18 min ago: loss: 8 of 10 got worse; active because no other revision is loaded";
    assert_eq!(&*reason, right);
    assert_eq!(world.names(), some(["bad", "", ""]));
    assert_eq!(code(world.push(revision("bad", "p", 1))), Some("quarantined"));
    world.activate("good");
    assert_eq!(world.roll_back().unwrap_err(), NO_PREVIOUS, "no rollback leads to it");
}

#[test]
fn record_continues_a_canary_where_it_stood() {
    let mut world = World::new();
    world.activate("a");
    let strategy = Strategy { steps: vec![20, 50], ..strategy(20) };
    let request = RolloutRequest { strategy: Some(strategy), ..world.request() };
    world.prepare(&request, revision("b", "p", 1)).unwrap();
    world.now += HOUR / 2;
    world.answer("b");
    let mut next = world.continued(&["a", "b"]);
    assert_eq!(next.life.revisions(), world.life.revisions());
    assert_eq!(next.reports(), [], "it is no news");
    for world in [&mut world, &mut next] {
        world.now += HOUR / 2;
        let now = world.now;
        world.life.poll(|| CohortSize { judged: 9, required: 5 }, now);
        assert_eq!(world.life.revisions().canary().and_then(CandidateRevision::share), Some(50));
    }
}

#[test]
fn record_without_its_plugins_leaves_revisions_out() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    assert_eq!(world.continued(&["b"]).names(), some(["b", "", ""]));
    assert_eq!(world.continued(&["a"]).names(), some(["", "", "a"]), "the native default answers");
}

#[test]
fn harmful_candidate_is_no_rollback_target() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    let request = RolloutRequest { strategy: Some(strategy(20)), ..world.request() };
    world.prepare(&request, revision("a", "p", 1)).unwrap();
    world.harms("a");
    assert_eq!(world.names(), some(["b", "", ""]));
}

#[test]
fn revoked_previous_is_no_rollback_target() {
    let mut world = World::new();
    world.activate("a");
    world.activate("b");
    world.reports();
    world.revoke(&["a"]);
    world.revoke(&["a"]);
    let [told] = &world.reports()[..] else { panic!("reported once") };
    assert_eq!(
        (told.outcome, told.code, told.by),
        (RolloutOutcome::Revoked, Some("revoked"), Actor::Gateway)
    );
    assert_eq!(name(told), Some("a"));
    assert!(told.reason.as_ref().unwrap().contains("not a rollback target"), "{told:?}");
    assert_eq!(world.roll_back(), Err(PREVIOUS_REVOKED));

    world.harms("b");
    let [told] = &world.reports()[..] else { panic!("it stays") };
    let reason = told.reason.as_ref().unwrap();
    assert!(reason.starts_with("loss: 8 of 10 got worse; it stays active"), "{reason}");
    world.revoke(&["a", "b"]);
    let [told] = &world.reports()[..] else { panic!("only b is new") };
    assert!(name(told) == Some("b") && told.reason.as_ref().unwrap().contains("push another"));
    assert_eq!(world.names(), some(["b", "", "a"]));
    assert_eq!((world.status().revoked.len(), world.quarantined().len()), (2, 1));

    world.revoke(&["b"]);
    let [back] = &world.reports()[..] else { panic!("a is not revoked any more") };
    assert_eq!((name(back), previous(back)), (Some("a"), Some("b")));
    assert_eq!((world.status().revoked, world.quarantined()), (Vec::new(), vec!["b".into()]));
}

#[test]
fn revoked_candidate_is_dropped() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("b").unwrap();
    world.reports();
    world.revoke(&["b"]);
    let [told] = &world.reports()[..] else { panic!("it goes") };
    assert_eq!((name(told), previous(told)), (Some("a"), Some("b")));
    let reason = told.reason.as_ref().unwrap();
    assert!(reason.contains("revoked") && reason.contains("dropped"), "{reason}");
    assert_eq!(world.life.handle_action(RolloutAction::PromoteAll, world.now), Err(NO_ROLLOUT));
    assert_eq!((world.names(), world.status().revoked), (some(["a", "", ""]), Vec::new()));
}

#[test]
fn revision_revoked_while_prepared_is_refused() {
    let mut world = World::new();
    world.activate("a");
    let request = world.request();
    let (new, now) = (revision("b", "p", 1), world.now);
    let ready = world.life.handle_ready(&request, new, Some("revoked".into()), (now, now));
    assert_eq!(code(ready), Some("revoked"));
    assert_eq!(world.names(), some(["a", "", ""]));
}

#[test]
fn harmful_active_is_replaced_by_next_push() {
    let mut world = World::new();
    world.push(versioned("a", "0.1.0")).unwrap();
    world.push(versioned("bad", "0.2.0")).unwrap();
    world.revoke(&["a"]);
    world.harms("bad");
    assert_eq!(code(world.push(versioned("fix", "0.1.1"))), None, "0.2.0 sets no floor");
    assert_eq!(world.quarantined(), ["bad".into()]);
    assert_eq!(world.names(), some(["fix", "", "a"]));
    assert_eq!(code(world.push(versioned("bad", "0.2.0"))), Some("quarantined"));
}

#[test]
fn changed_rules_pause_a_rollout() {
    let mut world = World::new();
    world.activate("a");
    world.try_out("b").unwrap();
    world.reports();
    let held = RolloutRules { strategy: Strategy { held: true, ..strategy(5) }, ..rules() };
    world.life.set_rules(held, world.now);
    let [paused] = &world.reports()[..] else { panic!("paused") };
    assert_eq!((paused.outcome, paused.by), (RolloutOutcome::Paused, Actor::File));
}
