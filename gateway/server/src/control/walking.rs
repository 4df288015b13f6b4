//! Revisions on their way into force: what control knows of each policy's, and who says how they go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{Canary, Pace, PolicyName, Revisions, Stage, Turn, Walk};
use tokio::sync::oneshot;

use super::messages::{
    ControlError, LastRollout, PolicyView, Rollout, RolloutOutcome, Staged, WalkView,
};
use super::node_list::Actor;
use super::rollout::{Reply, pass_on};
use super::thread::Control;
use crate::policy::{Back, Order, Rolled, Stand};
use crate::settings;

/// Watches from one look at walks to the next: 100 ms. A look may count every session.
const WALKS_EVERY: u64 = 50;

/// How a push is to come into force, where it says so.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Wish {
    /// By these shares, per cent.
    pub canary: Option<Vec<u8>>,
    /// Each for so long at least.
    pub pace: Option<Duration>,
    /// In shadow, until somebody promotes it.
    pub shadow: bool,
    /// At once, whatever its set says.
    pub now: bool,
    /// Though it did harm before.
    pub force: bool,
}

impl Wish {
    /// By which steps it is to come; none: at once, unless the push or its set says otherwise.
    pub(super) fn pace(&self, set: Option<&settings::Rollout>) -> Option<Pace> {
        let asked = self.canary.is_some() || self.pace.is_some() || self.shadow;
        let set = set.cloned().unwrap_or_default();
        if self.now || !asked && !set.said {
            return None;
        }
        let pace = set.pace();
        // Who names the shares wants to see them.
        let shadow = if self.canary.is_some() { Duration::ZERO } else { pace.shadow };
        let pace = Pace {
            steps: self.canary.clone().unwrap_or(pace.steps),
            each: self.pace.unwrap_or(pace.each),
            shadow,
            stays_in_shadow: self.shadow,
            held: pace.held,
        };
        (!pace.is_at_once()).then_some(pace)
    }
}

/// What somebody wants of a revision that is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// The next step now.
    Promote,
    /// In force now.
    PromoteAll,
    /// It stays where it is.
    Pause,
    /// It goes on.
    Resume,
    /// It goes, and the one in force stays.
    Abort,
}

/// What control knows of a policy's revisions.
#[derive(Default)]
pub(super) struct Walking {
    stand: Stand,
    walk: Option<Walk>,
    /// Until when the one before may come back.
    window: Option<Instant>,
    /// What did harm and has still to go, with what it did.
    condemned: Option<(Arc<str>, Box<str>)>,
    last: Option<LastRollout>,
}

impl Walking {
    fn staged(&self, now: Instant) -> Option<Staged> {
        self.walk.as_ref().map(|walk| Staged::of(walk, now))
    }

    /// As the core is to know them; none before there is one in force.
    fn revisions(&self, rules: &settings::Rollout) -> Option<Revisions> {
        let judging = rules.judging;
        let standing = self.stand.standing.clone()?;
        let stage = self.walk.as_ref().map(Walk::stage);
        let canary = match (stage, &self.stand.candidate) {
            (Some(Stage::Canary(percent)), Some(revision)) => {
                Some(Canary { revision: revision.clone(), percent, judging })
            }
            (Some(Stage::Canary(_) | Stage::Shadow) | None, _) => None,
        };
        let kept = self.stand.previous.clone().filter(|_| self.window.is_some());
        Some(Revisions { standing, canary, kept, judging })
    }

    /// What is told of a step that is neither a beginning nor an end.
    fn rollout(
        &self,
        policy: &PolicyName,
        outcome: RolloutOutcome,
        by: Actor,
        now: Instant,
    ) -> Rollout {
        let name = |revision: &evenkeel_core::Revision| Arc::clone(&revision.name);
        Rollout {
            policy: policy.clone(),
            outcome,
            stage: self.staged(now),
            by,
            revision: self.stand.candidate.as_ref().map(name),
            previous: self.stand.standing.as_ref().map(name),
            code: None,
            reason: None,
            arrived: now,
            activate: Duration::ZERO,
        }
    }
}

impl Control {
    /// A policy's thread put a revision in force, tries one, or let one go.
    pub(super) fn rolled(&mut self, rolled: Rolled, now: Instant) {
        let Rolled { mut rollout, stand, pace } = rolled;
        let policy = rollout.policy.clone();
        let keep = self.rules(&policy).rollback_window;
        let walking = self.walking.entry(policy.clone()).or_default();
        let is_there = |name: &Arc<str>| {
            [&stand.standing, &stand.candidate].into_iter().flatten().any(|it| it.name == *name)
        };
        // Who is gone has not to go any more.
        walking.condemned.take_if(|(revision, _)| !is_there(revision));
        walking.window = window(walking.window, &walking.stand, &stand, now + keep);
        walking.walk = match (pace, &stand.candidate) {
            (Some(pace), Some(_)) => Some(Walk::begin(pace, now)),
            (None, Some(_)) => walking.walk.take(),
            (_, None) => None,
        };
        walking.stand = stand;
        rollout.stage = walking.staged(now);
        self.tell_core(&policy, now);
        self.tell_step(rollout);
    }

    /// How revisions of the policy's set come into force.
    fn rules(&self, policy: &PolicyName) -> settings::Rollout {
        self.paces.get(&policy.set).cloned().unwrap_or_default()
    }

    fn tell_core(&mut self, policy: &PolicyName, now: Instant) {
        let rules = self.rules(policy);
        let revisions = self.walking.get(policy).and_then(|walking| walking.revisions(&rules));
        if let Some(revisions) = revisions {
            self.gateway.handle_revisions(policy, revisions, now);
        }
    }

    fn tell_step(&mut self, rollout: Rollout) {
        if let Some(walking) = self.walking.get_mut(&rollout.policy) {
            walking.last = Some(LastRollout { at: SystemTime::now(), rollout: rollout.clone() });
        }
        self.tell_rollout(rollout);
    }

    /// Every 100 ms: whose time has come.
    pub(super) fn walk_on(&mut self, now: Instant) {
        if !self.watches.is_multiple_of(WALKS_EVERY) {
            return;
        }
        let policies: Vec<PolicyName> = self.walking.keys().cloned().collect();
        for policy in policies {
            let gateway = &self.gateway;
            let walk = self.walking.get_mut(&policy).and_then(|walking| walking.walk.as_mut());
            let turn = walk.and_then(|walk| walk.poll(|| gateway.heard(&policy), now));
            if let Some(turn) = turn {
                self.take_turn(&policy, turn, Actor::Gateway, None, now);
            }
            self.close_window(&policy, now);
            self.send_condemned(&policy);
        }
    }

    fn take_turn(
        &mut self,
        policy: &PolicyName,
        turn: Turn,
        by: Actor,
        reply: Option<Reply>,
        now: Instant,
    ) {
        match turn {
            Turn::Expose(_) => {
                self.tell_core(policy, now);
                self.tell_changed(policy, RolloutOutcome::Advanced, by, reply, now);
            }
            Turn::Activate => self.promote(policy, by, reply),
        }
    }

    fn tell_changed(
        &mut self,
        policy: &PolicyName,
        outcome: RolloutOutcome,
        by: Actor,
        reply: Option<Reply>,
        now: Instant,
    ) {
        let Some(walking) = self.walking.get(policy) else {
            return;
        };
        let rollout = walking.rollout(policy, outcome, by, now);
        self.tell_step(rollout.clone());
        if let Some(reply) = reply {
            let _ = reply.send(Ok(rollout));
        }
    }

    /// Sets say how their revisions come into force from now on. What is on its way as its set said goes on so; what was
    /// pushed with a pace of its own keeps that, and is held where its set holds. What either is judged by holds at once.
    pub(super) fn take_paces(
        &mut self,
        paces: BTreeMap<Arc<str>, settings::Rollout>,
        now: Instant,
    ) {
        let before = std::mem::replace(&mut self.paces, paces);
        let (mut told, mut judged) = (Vec::new(), Vec::new());
        for (policy, walking) in &mut self.walking {
            let of = |paces: &BTreeMap<Arc<str>, settings::Rollout>| {
                paces.get(&policy.set).cloned().unwrap_or_default()
            };
            let (was, is) = (of(&before), of(&self.paces));
            if was.judging != is.judging {
                judged.push(policy.clone());
            }
            let walk = walking.walk.as_mut();
            let outcome = walk.and_then(|walk| repace(walk, &was.pace(), is.pace(), now));
            told.extend(outcome.map(|outcome| (policy.clone(), outcome)));
        }
        for policy in judged {
            self.tell_core(&policy, now);
        }
        for (policy, outcome) in told {
            self.tell_changed(&policy, outcome, Actor::File, None, now);
        }
    }

    /// The revision that is on its way, as far as control has heard: another may be by now.
    fn candidate(&self, policy: &PolicyName) -> Option<Arc<str>> {
        let candidate = self.walking.get(policy)?.stand.candidate.as_ref()?;
        Some(Arc::clone(&candidate.name))
    }

    fn promote(&mut self, policy: &PolicyName, by: Actor, reply: Option<Reply>) {
        let Some(revision) = self.candidate(policy) else {
            if let Some(reply) = reply {
                let _ = reply.send(Err(none_on_its_way()));
            }
            return;
        };
        let (done, rolled) = oneshot::channel();
        let order = Order::Promote { revision, by, reply: Some(done) };
        let ordered = self.policies.order(policy, order);
        match (ordered, reply) {
            (Ok(()), Some(reply)) => pass_on(rolled, reply),
            (Err(failed), Some(reply)) => _ = reply.send(Err(failed)),
            // Where it has too much to do, its time comes again.
            (Ok(()) | Err(_), None) => {}
        }
    }

    /// Nobody goes back to the one before any more: what only that one reads is dropped.
    fn close_window(&mut self, policy: &PolicyName, now: Instant) {
        let Some(walking) = self.walking.get_mut(policy) else {
            return;
        };
        let Some(previous) = walking
            .stand
            .previous
            .as_ref()
            .filter(|_| walking.window.is_some_and(|until| until <= now))
        else {
            return;
        };
        let previous = Arc::clone(&previous.name);
        if self.policies.order(policy, Order::Forget { previous }).is_ok() {
            (walking.window, walking.stand.previous) = (None, None);
            self.tell_core(policy, now);
        }
    }

    /// A revision does harm, and goes.
    pub(super) fn condemn(&mut self, policy: &PolicyName, revision: &Arc<str>, reason: &str) {
        if let Some(walking) = self.walking.get_mut(policy) {
            walking.condemned = Some((Arc::clone(revision), reason.into()));
            self.send_condemned(policy);
        }
    }

    /// Its thread is told, or told with the next look where it has too many orders.
    fn send_condemned(&mut self, policy: &PolicyName) {
        let Some(walking) = self.walking.get_mut(policy) else {
            return;
        };
        if let Some((revision, reason)) = walking.condemned.clone()
            && self.policies.order(policy, Order::Condemn { revision, reason }).is_ok()
        {
            walking.condemned = None;
        }
    }

    /// Somebody says how a revision on its way goes on.
    pub(super) fn walk(&mut self, policy: &PolicyName, verb: Verb, reply: Reply, now: Instant) {
        let by = Actor::Operator;
        if verb == Verb::Abort {
            let seen = self.candidate(policy);
            self.roll_back(policy, Back::Candidate(seen), reply);
            return;
        }
        let known = self.policies.views().iter().any(|view| view.policy == *policy);
        let walk = self.walking.get_mut(policy).and_then(|walking| walking.walk.as_mut());
        let Some(walk) = walk else {
            let failed = if known { none_on_its_way() } else { crate::policy::unknown(policy) };
            let _ = reply.send(Err(failed));
            return;
        };
        match verb {
            Verb::Promote => {
                let turn = walk.promote(now);
                self.take_turn(policy, turn, by, Some(reply), now);
            }
            Verb::PromoteAll => self.promote(policy, by, Some(reply)),
            Verb::Pause => {
                walk.pause(now);
                self.tell_changed(policy, RolloutOutcome::Paused, by, Some(reply), now);
            }
            Verb::Resume => {
                walk.resume(now);
                self.tell_changed(policy, RolloutOutcome::Resumed, by, Some(reply), now);
            }
            Verb::Abort => {}
        }
    }

    /// Every policy, with its revisions that come and go.
    pub(super) fn policy_views(&self, now: Instant) -> Vec<PolicyView> {
        let mut views = self.policies.views();
        for view in &mut views {
            let Some(walking) = self.walking.get(&view.policy) else {
                continue;
            };
            let until = walking.window.filter(|_| walking.stand.previous.is_some());
            view.life.previous_for = until.map(|until| until.saturating_duration_since(now));
            view.life.last.clone_from(&walking.last);
            view.life.walk = walking.walk.as_ref().map(|walk| WalkView {
                staged: Staged::of(walk, now),
                lasted: walk.lasted(now),
                steps: walk.pace().steps.clone(),
                each: walk.pace().each,
            });
            view.life.cohorts = self.gateway.cohorts(&view.policy).into_iter().flatten().collect();
        }
        views
    }
}

/// Until when the one before may come back: each revision that comes into force has the whole time for that, also where the
/// one before it is the same again, since what it followed upon was not good.
fn window(before: Option<Instant>, was: &Stand, is: &Stand, until: Instant) -> Option<Instant> {
    is.previous.as_ref()?;
    let same = was.previous == is.previous && was.standing == is.standing;
    if same { before } else { Some(until) }
}

/// Its set said this, and says that. Whether it is paused by it, or goes on.
fn repace(walk: &mut Walk, was: &Pace, is: Pace, now: Instant) -> Option<RolloutOutcome> {
    if *was == is {
        return None;
    }
    let own = Pace { held: is.held, ..walk.pace().clone() };
    let was_paused = walk.is_paused();
    walk.repace(if walk.pace() == was { is } else { own }, now);
    match (was_paused, walk.is_paused()) {
        (false, true) => Some(RolloutOutcome::Paused),
        (true, false) => Some(RolloutOutcome::Resumed),
        (false, false) | (true, true) => None,
    }
}

fn none_on_its_way() -> ControlError {
    ControlError::Policy("no revision of it is on its way".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(canary: &[u8]) -> settings::Rollout {
        settings::Rollout { said: true, canary: canary.into(), ..settings::Rollout::default() }
    }

    #[test]
    fn a_push_comes_at_once_unless_it_or_its_set_says_otherwise() {
        let plain = Wish::default();
        assert_eq!(plain.pace(None), None);
        assert_eq!(plain.pace(Some(&settings::Rollout::default())), None, "its set says nothing");
        let pace = plain.pace(Some(&said(&[5, 50]))).unwrap();
        assert_eq!((pace.steps, pace.shadow), (vec![5, 50], Duration::from_secs(5)));
        let now = Wish { now: true, ..Wish::default() };
        assert_eq!(now.pace(Some(&said(&[5]))), None);
        let none = settings::Rollout { shadow: Duration::ZERO, ..said(&[]) };
        assert_eq!(plain.pace(Some(&none)), None, "its set says: at once");
    }

    #[test]
    fn what_is_on_its_way_goes_by_its_set_or_by_the_pace_it_was_pushed_with_and_is_held_either_way()
    {
        let now = Instant::now();
        let was = said(&[5, 50]).pace();
        let is = Pace { held: true, ..said(&[5, 20]).pace() };
        let mut by_set = Walk::begin(was.clone(), now);
        assert_eq!(repace(&mut by_set, &was, is.clone(), now), Some(RolloutOutcome::Paused));
        assert_eq!((by_set.pace(), by_set.is_paused()), (&is, true));
        let mut pushed = Walk::begin(Pace { steps: vec![1, 2], ..was.clone() }, now);
        assert_eq!(repace(&mut pushed, &was, is.clone(), now), Some(RolloutOutcome::Paused));
        assert_eq!((&*pushed.pace().steps, pushed.is_paused()), (&[1, 2][..], true));
        assert_eq!(repace(&mut pushed, &is, is.clone(), now), None);
        assert_eq!(repace(&mut pushed, &is, was.clone(), now), Some(RolloutOutcome::Resumed));
        assert!(!pushed.is_paused());
        by_set.resume(now);
        assert_eq!(repace(&mut by_set, &is, was, now), None, "somebody had it go on before");
    }

    #[test]
    fn each_revision_that_comes_into_force_may_be_taken_back_for_the_whole_time() {
        let revision = |name: &str| {
            Some(evenkeel_core::Revision { name: name.into(), plugin: "x".into(), schema: 1 })
        };
        let stand = |standing: &str, previous: Option<&str>| Stand {
            standing: revision(standing),
            candidate: None,
            previous: previous.and_then(revision),
        };
        let now = Instant::now();
        let (soon, later) = (Some(now), now + Duration::from_secs(600));
        let was = stand("bad", Some("good"));
        assert_eq!(window(soon, &was, &stand("mended", Some("good")), later), Some(later));
        let tried = Stand { candidate: revision("new"), ..was.clone() };
        assert_eq!(window(soon, &was, &tried, later), soon, "nothing else is in force");
        assert_eq!(window(None, &was, &was, later), None, "it is over");
        assert_eq!(window(soon, &was, &stand("good", None), later), None);
    }

    #[test]
    fn what_a_push_names_comes_before_what_its_set_says() {
        let wish = Wish { canary: Some(vec![1, 25]), ..Wish::default() };
        let pace = wish.pace(Some(&said(&[5, 50]))).unwrap();
        assert_eq!((pace.steps, pace.shadow), (vec![1, 25], Duration::ZERO));
        let wish = Wish { pace: Some(Duration::from_secs(1)), ..Wish::default() };
        let pace = wish.pace(None).unwrap();
        assert_eq!((pace.steps, pace.each), (vec![1, 5, 25, 50, 100], Duration::from_secs(1)));
        let wish = Wish { shadow: true, ..Wish::default() };
        assert!(wish.pace(None).unwrap().stays_in_shadow);
    }
}
