//! Questions to policies, and the effects of their answers. Each hook has a file with its questions.

mod admission;
mod degradation;
mod question;
mod routing;
mod scenario;

use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    Arm, AskId, BreachCount, CoreEvent, Decider, DecisionOutcome, GuardRule, Hook, HookAnswer,
    Metric, NodeId, OfferRefusal, PluginFault, PluginState, PolicyName, PolicyQuestion,
    RevisionAnswer, RoomId, RoomRow, Row, SessionId,
};
use evenkeel_revisions::{AdmissionSample, Lifecycle, Revision};

use crate::effects::Timer;
use crate::gateway::Gateway;
use crate::gateway::hooks::admission::AdmissionQuestion;
use crate::gateway::hooks::degradation::DegradationQuestion;
use crate::gateway::hooks::question::{Answer, Question};
use crate::gateway::hooks::routing::{PlacementQuestion, RerouteQuestion};
use crate::gateway::hooks::scenario::ScenarioQuestion;
use crate::policy::questions::{
    AnswerDetails, BatchOutcome, FaultSubject, PendingQuestion, QuestionSubject, reasons_given,
    turns_away, was_taken,
};
use crate::rooms::placement::UsableNodes;
use crate::rooms::room::Room;
use crate::sessions::Session;

impl Gateway {
    /// Asks the scenario plugin, if there is one, for the parameters of the session.
    pub(super) fn ask_scenario(&mut self, session: SessionId, now: Instant) {
        ScenarioQuestion::about(session).ask(self, now);
    }

    /// The session is admitted, as far as capacity allows it. Asks the routing policy about a room that is not placed.
    pub(super) fn admit(
        &mut self,
        id: SessionId,
        cap_kbps: Option<u32>,
        by: Decider,
        now: Instant,
    ) {
        if !self.admission.is_open() {
            self.give_up(id, OfferRefusal::Draining, now);
            return self.take_notices(now);
        }
        let room = self.admit_to_room(id, cap_kbps, by, now);
        self.take_notices(now);
        let Some(room) = room else { return };
        if self.tables.sessions[&id].is_of_first_packet() {
            PlacementQuestion::about(room).place_natively(self, now);
            self.take_notices(now);
        } else {
            PlacementQuestion::about(room).ask(self, now);
        }
    }

    /// Asks a routing policy about the rooms that wait for it.
    pub(super) fn ask_reroute(&mut self, policy: &PolicyName, arm: Arm, now: Instant) {
        RerouteQuestion::to(policy, arm).ask(self, now);
    }

    /// Asks about the next batch of the policy's sessions.
    pub(super) fn ask_tick(&mut self, policy: &PolicyName, now: Instant) {
        if !self.binds(policy) {
            return self.release_sessions(policy, now);
        }
        let due = now + self.tables.settings.limits.tick_every;
        self.tables.effects.set(Timer::Tick(Arc::new(policy.clone())), due);
        let has_canary = self.policies.canary(policy).is_some();
        for arm in Arm::ALL.into_iter().filter(|arm| *arm == Arm::Standing || has_canary) {
            DegradationQuestion::to(policy, arm).ask(self, now);
        }
    }

    /// Asks the room's routing policy about the room soon.
    pub(super) fn want_reroute(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let Some(scenario) = self.tables.settings.scenarios.get(room.scenario()) else { return };
        let policy = scenario.policy(Hook::Routing);
        let arm = self.policies.arm(&policy, id.0);
        self.questions.want_reroute(&policy, arm, id);
        self.tables.apply(room.want_review(), room);
        self.tables.effects.set_if_idle(Timer::Reroute(Arc::new(policy)), now);
    }

    /// Asks the policy. If too many questions are in flight, the native default applies at once.
    fn ask(
        &mut self,
        set: &Arc<str>,
        arm: Arm,
        about: QuestionSubject,
        question: PolicyQuestion,
        now: Instant,
    ) {
        let policy = PolicyName { set: set.clone(), hook: about.hook() };
        let revision = self.policies.revision(&policy, arm).map(|it| Arc::clone(&it.name));
        let limits = &self.tables.settings.limits;
        let budget = if about.is_of_offer() { limits.offer_budget } else { limits.advice_budget };
        let (deadline, effects) = (now + budget, &mut self.tables.effects);
        let id = self.questions.next_id();
        let usable = match about.hook() {
            Hook::Routing => UsableNodes::of(&self.tables.nodes),
            Hook::Admission | Hook::Degradation | Hook::Scenario => UsableNodes::default(),
        };
        let asked = PendingQuestion { id, policy, arm, revision, about, usable, at: now };
        if let Some(asked) = self.questions.ask(asked, question, deadline, effects) {
            self.conclude(asked, Err(PluginFault::Late), now);
        }
    }

    /// Asks the active revision, or the native default, the questions that a removed revision or policy has not answered. Late
    /// answers of it are ignored: their questions may contain states of another schema.
    pub(super) fn ask_again(&mut self, questions: Vec<AskId>, now: Instant) {
        for id in questions {
            self.tables.effects.cancel(&Timer::AskLate(id));
            let Some(pending) = self.questions.take(id) else { continue };
            self.tables.effects.event(pending.withdrawn(&self.tables.sessions));
            match pending.about {
                QuestionSubject::Resolve(session) => {
                    ScenarioQuestion::about(session).ask(self, now);
                }
                QuestionSubject::Admit(session) => AdmissionQuestion::about(session).ask(self, now),
                QuestionSubject::Place(id) => {
                    let Some(room) = self.rooms.get_mut(&id) else { continue };
                    room.placement_answered();
                    if !room.is_placed() {
                        PlacementQuestion::about(id).ask(self, now);
                    }
                }
                QuestionSubject::Reroute(rooms) => {
                    for (id, _) in rooms {
                        if let Some(room) = self.rooms.get_mut(&id) {
                            self.tables.apply(room.end_review(), room);
                        }
                        self.want_reroute(id, now);
                    }
                }
                QuestionSubject::Tick(_) => {}
            }
        }
    }

    /// A policy answered or failed. An answer that comes too late is ignored.
    pub fn handle_answer(
        &mut self,
        id: AskId,
        result: Result<RevisionAnswer, PluginFault>,
        now: Instant,
    ) {
        if let Some(asked) = self.questions.take(id) {
            self.tables.effects.cancel(&Timer::AskLate(id));
            self.conclude(asked, result, now);
        }
    }

    fn conclude(
        &mut self,
        asked: PendingQuestion,
        result: Result<RevisionAnswer, PluginFault>,
        now: Instant,
    ) {
        let rows = asked.about.rows();
        let (session, room) = asked.about.one(&self.tables.sessions);
        let (revision, answer, beside) = AnswerDetails::split(result);
        let PendingQuestion { policy, arm, about, .. } = &asked;
        if answer.as_ref().err() == Some(&PluginFault::Late) {
            self.change_policy(policy, now, Lifecycle::note_late);
        }
        if *arm == Arm::Standing {
            let fault = answer.as_ref().err();
            self.questions.note_standing(policy, fault, now, &mut self.tables.effects);
        }
        let by = revision.clone().map_or(Decider::Native, |revision| {
            let policy = policy.clone();
            Decider::Policy { policy, revision }
        });
        let reasons = answer.as_ref().map(reasons_given).unwrap_or_default();
        let turns_away = answer.as_ref().is_ok_and(turns_away);
        // The event precedes its consequences.
        let place = self.tables.effects.place();
        let native = match about {
            QuestionSubject::Place(id) => {
                let room = self.rooms.get(id);
                room.map(|room| self.tables.node_choice(room, now).native_hops(&[]))
                    .unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let unusable = match &answer {
            Ok(HookAnswer::Placed { hops, .. }) => asked.usable.first_other(hops),
            _ => None,
        };
        let (by, beside) = (&by, &beside);
        let given = Answer { asked: &asked, answer, by, beside, native: &native };
        let BatchOutcome { outcome, parts } = match about {
            QuestionSubject::Resolve(session) => {
                ScenarioQuestion::about(*session).apply(self, given, now)
            }
            QuestionSubject::Admit(session) => {
                AdmissionQuestion::about(*session).apply(self, given, now)
            }
            QuestionSubject::Place(room) => PlacementQuestion::about(*room).apply(self, given, now),
            QuestionSubject::Reroute(_) => {
                RerouteQuestion::to(policy, *arm).apply(self, given, now)
            }
            QuestionSubject::Tick(_) => {
                DegradationQuestion::to(policy, *arm).apply(self, given, now)
            }
        };
        if let Some(revision) = &revision {
            let is_there = |it| FaultSubject::exists(it, &self.tables.sessions, &self.rooms);
            let (isolated, effects) = (beside.isolated.as_deref(), (now, &mut self.tables.effects));
            self.subject_history
                .note_isolated(about, policy, revision, isolated, is_there, effects);
            if about.is_of_offer() {
                let own = match outcome {
                    DecisionOutcome::Guarded(guard) => {
                        Some(guard).filter(|it| it.is_fault_of_decision())
                    }
                    _ => None,
                };
                let last =
                    own.map(|rule| self.name_decision(Some(rule), unusable, about.subject(0)));
                let decided = BreachCount { of: 1, worse: u32::from(own.is_some()) };
                let effects = &mut self.tables.effects;
                self.policies.note_conduct(policy, *arm, decided, last, now, effects);
            }
            let is_of_newcomer =
                matches!(about, QuestionSubject::Admit(_) | QuestionSubject::Place(_));
            if is_of_newcomer && was_taken(&outcome) {
                // A decision that broke a rule turned no client away.
                let turned_away = turns_away && matches!(outcome, DecisionOutcome::Applied { .. });
                let (newcomer, effects) =
                    (AdmissionSample { arm: *arm, turned_away }, &mut self.tables.effects);
                self.policies.weigh_newcomer(policy, newcomer, now, effects);
            }
        }
        let said = (by, &outcome, &parts);
        let is_there = |it| FaultSubject::exists(it, &self.tables.sessions, &self.rooms);
        let history = &mut self.subject_history;
        let reason = history.note_said(about, said, &reasons, beside, is_there, now);
        let (notes, took) = (beside.notes.clone(), beside.took);
        let PendingQuestion { id: ask, policy, arm, at: asked, .. } = asked;
        let decided = CoreEvent::Decided {
            ask,
            policy,
            arm,
            revision,
            outcome,
            reason,
            session,
            room,
            rows,
            asked,
            took,
            notes,
            native,
        };
        self.tables.effects.insert(place, decided);
    }

    /// Names a decision in the reason of a rollback: `unusable-node, node fra-2, room support-7`.
    fn name_decision(
        &self,
        rule: Option<GuardRule>,
        node: Option<NodeId>,
        subject: Option<FaultSubject>,
    ) -> Box<str> {
        let node = node.map(|node| match self.tables.nodes.get(node) {
            Some(node) => format!("node {}", node.settings.name),
            None => format!("unknown node {}", node.0),
        });
        let subject = subject.map(|subject| match subject {
            FaultSubject::Room(room) => format!("room {}", self.rooms.name_of(room)),
            FaultSubject::Session(session) => format!("session {session}"),
        });
        let rule = rule.map(|rule| rule.name().to_owned());
        rule.into_iter().chain(node).chain(subject).collect::<Vec<_>>().join(", ").into()
    }

    /// A room as routing policies see it. `reads` is the revision that is asked.
    pub(super) fn room_row(&self, room: &Room, reads: Option<&Revision>, now: Instant) -> RoomRow {
        let mut measures = self.tables.room_measures(room);
        let sessions = room.sessions().iter().filter_map(|id| self.tables.sessions.get(id));
        if let Some(first) = sessions.map(Session::offered).min() {
            measures.set(Metric::Age, now.saturating_duration_since(first).as_millis() as u64);
        }
        if let Some(burn) = self.tables.slos.burn_centi(room.scenario(), &self.tables.settings, now)
        {
            measures.set(Metric::SloBurn, burn);
        }
        RoomRow {
            row: Row { id: room.id().0, measures },
            scenario: room.scenario().clone(),
            labels: room.labels().clone(),
            standing: room.nodes_of_route(),
            state: room.memory().read(reads).map(|state| PluginState::clone(state)),
        }
    }
}
