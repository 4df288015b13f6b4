//! A harmful candidate is found by each figure alone, from the measures of its sessions.

use evenkeel_instant as instant;
use evenkeel_model::{
    AdmitOnFault, AdmitVerdict, Arm, Ask, BreachCount, DegradationAction, Figure, FlowCounts, Hook,
    HookAnswer, IngressProtocol, Measures, Metric, Op, PluginFault, PolicyQuestion, RegionId,
    SessionId, StreamKind,
};
use evenkeel_revisions::samples::HOUR;
use evenkeel_revisions::{Judging, LifecycleRecord, WallClock};

use super::revising::{alone, breaches, policy, rules, tried, turn, turned};
use super::*;

/// Sessions with voice at 50 packets a second and some video, reported every 100 ms; a tenth is in the canary.
struct Cohorts {
    world: World,
    sessions: Vec<(String, SessionId)>,
}

/// The report on a healthy session.
fn well() -> (Measures, FlowCounts) {
    let mut measures = Measures::default();
    measures.set(Metric::LossUp, 1_000).set(Metric::LossDown, 2_000).set(Metric::RFactor, 8_500);
    let flow = FlowCounts { sent: [5, 0], received: [5, 0], expected: 5, ..FlowCounts::default() };
    (measures, flow)
}

impl Cohorts {
    /// All sessions are healthy, and a canary runs.
    fn start() -> Cohorts {
        let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
        turn(&mut world, Hook::Degradation, alone());
        let sessions = (0..150).map(|room: u32| {
            let streams = [(StreamKind::Audio, 111, None), (StreamKind::Video, 96, None)];
            let room = room.to_string();
            let offer = world.offer_with(&room, "call", &streams, IngressProtocol::Quic);
            let session = world.accepted(offer).session;
            (room, session)
        });
        let sessions = sessions.collect();
        let mut cohorts = Cohorts { world, sessions };
        cohorts.looks(20, |_| well());
        turn(&mut cohorts.world, Hook::Degradation, tried(10));
        cohorts.looks(5, |_| well());
        assert_eq!(cohorts.found(), []);
        cohorts
    }

    /// Reports all sessions `times` times: those of the canary as `told(true)`, the others as `told(false)`.
    fn looks(&mut self, times: usize, told: impl Fn(bool) -> (Measures, FlowCounts)) {
        for _ in 0..times {
            self.world.pass(ms(100));
            let now = self.world.now;
            for (room, session) in &self.sessions {
                let (measures, flow) = told(tried(10).arm(session.0) == Arm::Canary);
                let hears = self.world.stands(room).map(|node| self.world.hop(node));
                self.world.gateway.handle_summary(*session, measures, Some(now));
                self.world.gateway.handle_flow(*session, &FlowCounts { hears, ..flow }, now);
            }
            self.world.settle();
        }
    }

    fn found(&self) -> Vec<Figure> {
        let of_candidate = |(revision, breach): (String, evenkeel_model::Breach)| {
            assert_eq!((&*revision, breach.rest.worse), ("new", 0), "{breach}");
            breach.figure
        };
        breaches(&self.world).into_iter().map(of_candidate).collect()
    }

    /// Figures that breached within 2 s.
    fn judged(mut self, told: impl Fn(bool) -> (Measures, FlowCounts)) -> Vec<Figure> {
        self.looks(20, told);
        self.found()
    }
}

/// Reports of healthy sessions, changed by `harm` in the canary.
fn but(harm: impl Fn(&mut Measures, &mut FlowCounts)) -> impl Fn(bool) -> (Measures, FlowCounts) {
    move |is_canary| {
        let (mut measures, mut flow) = well();
        if is_canary {
            harm(&mut measures, &mut flow);
        }
        (measures, flow)
    }
}

#[test]
fn silence_in_the_canary_is_a_gap() {
    let silent = but(|_, flow| (flow.received, flow.expected) = ([0; 2], 0));
    assert_eq!(Cohorts::start().judged(silent), [Figure::Gap]);
}

#[test]
fn short_silences_are_no_gap() {
    let mut cohorts = Cohorts::start();
    for _ in 0..3 {
        cohorts.looks(3, but(|_, flow| (flow.received, flow.expected) = ([0; 2], 0)));
        cohorts.looks(15, |_| well());
    }
    assert_eq!(cohorts.found(), []);
}

#[test]
fn packets_missed_at_a_switch_are_a_gap() {
    for (missed, found) in [(25, vec![Figure::Gap]), (15, vec![])] {
        let mut cohorts = Cohorts::start();
        cohorts.looks(1, but(|_, flow| flow.missed = missed));
        cohorts.looks(10, |_| well());
        assert_eq!(cohorts.found(), found, "{missed} of 50 a second");
    }
}

#[test]
fn measured_or_reported_loss_is_found() {
    for metric in [Metric::LossUp, Metric::LossDown] {
        let lossy = |ppm| but(move |measures, _| _ = measures.set(metric, ppm));
        assert_eq!(Cohorts::start().judged(lossy(50_000)), [Figure::Loss], "{metric:?}");
        assert_eq!(Cohorts::start().judged(lossy(49_999)), [], "{metric:?}");
    }
}

#[test]
fn loss_that_repair_holds_is_not_found() {
    let repaired = but(|measures, _| {
        measures.set(Metric::LossUp, 50_000).set(Metric::LossUpAfterRepair, 49_999);
    });
    assert_eq!(Cohorts::start().judged(repaired), []);
}

/// Receivers report every few seconds, if they do at all.
#[test]
fn sequence_gaps_are_loss_before_any_report() {
    let lossy = |lost| {
        but(move |_, flow| {
            (flow.expected, flow.received, flow.lost) = (25, [25 - lost, 0], lost);
        })
    };
    assert_eq!(Cohorts::start().judged(lossy(2)), [Figure::Loss], "8 %");
    assert_eq!(Cohorts::start().judged(lossy(1)), [], "4 %");
}

#[test]
fn poor_voice_quality_is_found() {
    let poor = |r| but(move |measures, _| _ = measures.set(Metric::RFactor, r));
    assert_eq!(Cohorts::start().judged(poor(5_999)), [Figure::RFactor]);
    assert_eq!(Cohorts::start().judged(poor(6_000)), []);
}

#[test]
fn low_rungs_of_the_canary_are_found() {
    for (ops, found) in [
        (vec![(Op::Cap, 300), (Op::VoiceOnly, 1)], vec![Figure::Rung]),
        (vec![(Op::Cap, 300)], vec![]),
    ] {
        let mut cohorts = Cohorts::start();
        cohorts.world.answer_with(move |ask: &Ask| {
            let PolicyQuestion::Tick { sessions, .. } = &ask.question else { return None };
            let rows = 0..sessions.len() as u32;
            let all = rows.flat_map(|row| {
                ops.iter().map(move |(op, arg)| DegradationAction {
                    row,
                    op: *op as u32,
                    arg: *arg,
                    reason: 0,
                })
            });
            let actions = if ask.arm == Arm::Canary { all.collect() } else { Vec::new() };
            Some(Ok(HookAnswer::Actions { actions, states: Vec::new(), memo: None }))
        });
        assert_eq!(cohorts.judged(|_| well()), found);
    }
}

#[test]
fn hidden_state_is_a_breach_if_replaceable() {
    let once = BreachCount { of: 3, worse: 1 };
    let twice = BreachCount { of: 4, worse: 2 };
    for (revisions, answers, found) in [
        (tried(10), once, vec![]),
        (tried(10), twice, vec!["new"]),
        (turned(true), twice, vec!["new"]),
        (turned(false), twice, vec![]),
    ] {
        let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
        turn(&mut world, Hook::Degradation, alone());
        turn(&mut world, Hook::Degradation, revisions);
        let degradation = policy(Hook::Degradation);
        world.gateway.handle_hidden_state(&degradation, &"new".into(), "its memo".into(), answers);
        // A report on a removed revision has no effect.
        world.gateway.handle_hidden_state(&degradation, &"gone".into(), "".into(), twice);
        world.settle();
        let told = breaches(&world);
        let by: Vec<&str> = told.iter().map(|(revision, _)| &**revision).collect();
        assert_eq!(by, found);
        for (_, breach) in &told {
            assert_eq!(breach.to_string(), "hidden state: 2 of 4 differed from a fresh instance's");
        }
    }
}

#[test]
fn changed_threshold_applies_at_once() {
    let mut cohorts = Cohorts::start();
    let lossy = || but(|measures, _| _ = measures.set(Metric::LossUp, 30_000));
    cohorts.looks(20, lossy());
    assert_eq!(cohorts.found(), []);
    let judging = Judging { loss_ppm: 20_000, ..Judging::default() };
    let (policy, now) = (policy(Hook::Degradation), cohorts.world.now);
    cohorts.world.gateway.change_policy(&policy, now, |life| life.set_rules(rules(judging), now));
    cohorts.looks(1, lossy());
    assert_eq!(cohorts.found(), [Figure::Loss]);
}

/// Newcomers, a quarter of them in the canary. The candidate answers `says`; the active revision accepts all.
fn newcomers(
    says: impl Fn() -> Result<AdmitVerdict, PluginFault> + 'static,
    judging: Judging,
) -> World {
    let mut settings = settings();
    // A rejection after a fault is not the candidate's decision.
    for scenario in settings.scenarios.values_mut() {
        scenario.on_admission_fault = AdmitOnFault::Reject;
    }
    let mut world = World::with_policy(settings, &[Hook::Admission], move |ask| {
        let verdict = match ask.arm {
            Arm::Canary => says(),
            Arm::Standing => Ok(AdmitVerdict::Accept),
        };
        Some(verdict.map(|verdict| HookAnswer::Admit { verdict, reason: 0 }))
    });
    turn(&mut world, Hook::Admission, alone());
    turn(&mut world, Hook::Admission, tried(25));
    let now = world.now;
    world.gateway.change_policy(&policy(Hook::Admission), now, |life| {
        life.set_rules(rules(judging), now);
    });
    for room in 0..200 {
        world.offer(&room.to_string());
    }
    world
}

#[test]
fn refusals_by_the_candidate_are_found() {
    for (says, found) in [
        (Ok(AdmitVerdict::Reject(1_000)), vec![Figure::Refusals]),
        (Ok(AdmitVerdict::Redirect(RegionId(1))), vec![Figure::Refusals]),
        (Ok(AdmitVerdict::Redirect(RegionId(9))), vec![Figure::Guarded]),
        (Ok(AdmitVerdict::AcceptCapped(100)), vec![]),
        (Ok(AdmitVerdict::Abstain), vec![]),
        (Err(PluginFault::OutOfMemory), vec![]),
    ] {
        let said = says.clone();
        let world = newcomers(move || said.clone(), Judging::default());
        let told = breaches(&world);
        let by = |(revision, breach): &(String, evenkeel_model::Breach)| {
            assert_eq!((&**revision, breach.rest.worse), ("new", 0), "{breach}");
            breach.figure
        };
        assert_eq!(told.iter().map(by).collect::<Vec<_>>(), found, "{says:?}");
    }
}

#[test]
fn refusals_are_counted_by_arm() {
    // The cohort is too small to be judged.
    let judging = Judging { cohort_min: 1_000, ..Judging::default() };
    let world = newcomers(|| Ok(AdmitVerdict::Reject(1_000)), judging);
    let cohorts = world.cohorts(&policy(Hook::Admission)).unwrap();
    let [rest, canary] = cohorts.map(|cohort| {
        let refusals = cohort.worse.into_iter().find(|(figure, _)| *figure == Figure::Refusals);
        refusals.map(|(_, count)| count).unwrap()
    });
    assert_eq!((canary.worse, rest.worse), (canary.of, 0));
    assert_eq!(canary.of + rest.of, 200);
    assert!((25..75).contains(&canary.of), "{canary:?}");
}

/// Another process continues the sessions, and the revisions of the degradation policy.
pub(super) fn take_over(world: &mut World) {
    let policy = policy(Hook::Degradation);
    let (record, life) = (world.gateway.record(world.now), world.gateway.policy_record(&policy));
    let before = world.gateway.policy(&policy).unwrap().revisions().clone();
    let life: LifecycleRecord = instant::relative_to(world.now, || {
        let encoded = rmp_serde::to_vec_named(&life.unwrap()).unwrap();
        rmp_serde::from_slice(&encoded).unwrap()
    });
    world.restart(ms(0));
    let clock = WallClock { instant: world.now, time: std::time::SystemTime::UNIX_EPOCH };
    world.gateway.hold_rollouts();
    world.gateway.handle_policy(&policy, rules(Judging::default()), clock);
    world.gateway.restore_policy(&policy, life, |_| true, world.now);
    assert_eq!(*world.gateway.policy(&policy).unwrap().revisions(), before);
    world.restore(&record);
    world.gateway.release_rollouts(world.now);
    world.outputs.clear();
}

#[test]
fn takeover_continues_the_judgement() {
    let mut cohorts = Cohorts::start();
    take_over(&mut cohorts.world);
    cohorts.looks(20, |_| well());
    assert_eq!(cohorts.found(), []);
    let silent = but(|_, flow| (flow.received, flow.expected) = ([0; 2], 0));
    assert_eq!(cohorts.judged(silent), [Figure::Gap]);
}

/// Only the process that serves takes steps, with the time that passed before.
#[test]
fn held_rollout_takes_no_step() {
    let mut world = World::with_policy(settings(), &[Hook::Degradation], |_| None);
    turn(&mut world, Hook::Degradation, alone());
    let (policy, now) = (policy(Hook::Degradation), world.now);
    let unjudged = Judging { cohort_min: 0, ..Judging::default() };
    world.gateway.change_policy(&policy, now, |life| life.set_rules(rules(unjudged), now));
    turn(&mut world, Hook::Degradation, tried(10));
    let is_active =
        |world: &World| world.gateway.policy(&policy).unwrap().revisions().is_active("new");
    world.gateway.hold_rollouts();
    world.pass(HOUR + ms(1_000));
    assert!(!is_active(&world));
    world.gateway.release_rollouts(world.now);
    world.pass(ms(1_000));
    assert!(is_active(&world), "its step needs no session");
}
