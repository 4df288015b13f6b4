//! Questions to policies, and the effects of their answers: offers, placements, reroutes and ticks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    AdmitOnFault, AdmitVerdict, Arm, AskId, BreachCount, CoreEvent, Decider, DecisionOutcome,
    GuardRule, Hook, HookAnswer, Impossible, MediaDescription, NO_NODE, NodeId, Offer,
    OfferRefusal, Op, PluginFault, PluginState, PolicyName, PolicyQuestion, RevisionAnswer, RoomId,
    SessionId,
};
use evenkeel_revisions::{AdmissionSample, Lifecycle, unit};

use crate::effects::Timer;
use crate::gateway::Gateway;
use crate::policy::questions::{
    AnswerDetails, BatchOutcome, FaultSubject, PartCounts, PendingQuestion, QuestionSubject,
    UsableNodes, mismatched, reasons_given, turns_away, was_taken,
};
use crate::rooms::moves::Moves;
use crate::rooms::openings::Openings;
use crate::rooms::placement::Placement;
use crate::rooms::reroutes::Reroutes;
use crate::rooms::room::Room;
use crate::rooms::streams::Streams;
use crate::sessions::SessionPhase;

/// Retry time of clients that are refused because their admission policy failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Maximum rooms in one question. The other rooms follow in the next question.
const ROOMS_PER_ASK: usize = 256;

impl Gateway {
    /// A client offers other streams for its session, which is live.
    ///
    /// # Errors
    /// If there is no such session.
    pub fn handle_streams(
        &mut self,
        id: SessionId,
        media: Arc<MediaDescription>,
        now: Instant,
    ) -> Result<(), Impossible> {
        self.route(now, |tables| Streams(tables).change(id, media))
    }

    /// A client requests a session. [`GatewayEffect::Reply`](crate::GatewayEffect::Reply) follows, at once or after policies.
    pub fn handle_offer(&mut self, offer: Offer, now: Instant) {
        // Sessions of a room share one copy of its name.
        let room = self.tables.rooms.named(&offer.room).map(|(name, id)| (Arc::clone(name), id));
        let (name, room) = room.unzip();
        let offer = Arc::new(Offer { room: name.unwrap_or(offer.room), ..offer });
        if let Some(room) = room {
            self.route(now, |tables| Moves(tables).catch_up(room, now));
        }
        let begun = match self.shutting_down {
            true => Err(OfferRefusal::Draining),
            false => self.route(now, |tables| Openings(tables).begin(&offer, now)),
        };
        match begun {
            Err(reason) => Openings(&mut self.tables).refuse(&offer, None, reason, now),
            Ok(id) if self.tables.sessions[&id].of_first_packet => {
                self.admit(id, None, Decider::Native, now);
            }
            Ok(id) => self.ask_scenario(id, now),
        }
    }

    /// Asks the scenario plugin, if there is one, for the parameters of the session.
    pub(super) fn ask_scenario(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.tables.sessions.get(&id) else { return };
        let request = Arc::clone(&session.request);
        let Some(scenario) = self.tables.settings.scenarios.get(&request.scenario) else { return };
        if !scenario.binds(Hook::Scenario) {
            self.ask_admission(id, now);
            return;
        }
        let set = Arc::clone(&scenario.set);
        let unit = unit(Hook::Scenario, session.room, id);
        let arm = self.policies.arm(&scenario.policy(Hook::Scenario), unit);
        let (scenario, labels) = (request.scenario.clone(), request.labels.clone());
        let question = PolicyQuestion::Resolve { scenario, labels };
        self.ask(&set, arm, QuestionSubject::Resolve(id), question, now);
    }

    /// Applies the parameters of the scenario plugin. They override the configuration within its bounds.
    pub(super) fn resolved(
        &mut self,
        id: SessionId,
        answer: Result<HookAnswer, PluginFault>,
        now: Instant,
    ) -> DecisionOutcome {
        let outcome = match answer {
            Ok(HookAnswer::Params(params)) => Openings(&mut self.tables).take_params(id, &params),
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault),
        };
        self.ask_admission(id, now);
        outcome
    }

    pub(super) fn ask_admission(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.tables.sessions.get_mut(&id) else { return };
        session.phase = SessionPhase::Admitting;
        let (room, request) = (session.room, Arc::clone(&session.request));
        let Some(scenario) = self.tables.settings.scenarios.get(&request.scenario).cloned() else {
            return;
        };
        if !scenario.binds(Hook::Admission) {
            self.admit(id, None, Decider::Native, now);
            return;
        }
        let question = PolicyQuestion::Admit {
            session: id,
            room,
            standing: Placement(&self.tables).region_of_room(room),
            scenario: request.scenario.clone(),
            labels: request.labels.clone(),
            regions: self.tables.capacity.region_rows(&self.tables.nodes),
        };
        let arm =
            self.policies.arm(&scenario.policy(Hook::Admission), unit(Hook::Admission, room, id));
        self.ask(&scenario.set, arm, QuestionSubject::Admit(id), question, now);
    }

    pub(super) fn admission_said(
        &mut self,
        id: SessionId,
        answer: Result<HookAnswer, PluginFault>,
        by: Decider,
        now: Instant,
    ) -> DecisionOutcome {
        let Some(session) = self.tables.sessions.get(&id) else { return DecisionOutcome::Stale };
        let bounds = session.request.bounds;
        let verdict = match answer {
            Ok(HookAnswer::Admit { verdict, .. }) => verdict,
            Ok(_) => return self.admission_failed(id, mismatched(), now),
            Err(fault) => return self.admission_failed(id, DecisionOutcome::Faulted(fault), now),
        };
        match verdict {
            AdmitVerdict::Abstain => {
                self.admit(id, None, Decider::Native, now);
                DecisionOutcome::Abstained
            }
            AdmitVerdict::Accept => {
                self.admit(id, None, by, now);
                DecisionOutcome::Applied { differs: false }
            }
            AdmitVerdict::AcceptCapped(kbps) if session.exceeds_device(Op::Cap, kbps.into()) => {
                self.admission_failed(id, DecisionOutcome::Guarded(GuardRule::AboveDevice), now)
            }
            AdmitVerdict::AcceptCapped(kbps)
                if kbps >= bounds.floor_kbps && kbps <= bounds.ceiling_kbps =>
            {
                self.admit(id, Some(kbps), by, now);
                DecisionOutcome::Applied { differs: true }
            }
            AdmitVerdict::AcceptCapped(_) => {
                self.admission_failed(id, DecisionOutcome::Guarded(GuardRule::CapOutOfBounds), now)
            }
            AdmitVerdict::Redirect(region) if Placement(&self.tables).may_redirect(id, region) => {
                self.give_up(id, OfferRefusal::Redirected(region), now);
                DecisionOutcome::Applied { differs: true }
            }
            AdmitVerdict::Redirect(_) => {
                self.admission_failed(id, DecisionOutcome::Guarded(GuardRule::UnusableRegion), now)
            }
            AdmitVerdict::Reject(retry_after_ms) => {
                let wait = Duration::from_millis(u64::from(retry_after_ms));
                let retry_after = self.tables.sessions.jittered(wait);
                self.give_up(id, OfferRefusal::Rejected { retry_after }, now);
                DecisionOutcome::Applied { differs: true }
            }
        }
    }

    /// The admission policy failed, or its answer broke a rule. The scenario's settings decide on the session.
    fn admission_failed(
        &mut self,
        id: SessionId,
        outcome: DecisionOutcome,
        now: Instant,
    ) -> DecisionOutcome {
        let Some(session) = self.tables.sessions.get(&id) else { return outcome };
        let scenario = self.tables.settings.scenarios.get(&session.request.scenario);
        match scenario.map_or(AdmitOnFault::Admit, |scenario| scenario.on_admission_fault) {
            AdmitOnFault::Admit => self.admit(id, None, Decider::Native, now),
            AdmitOnFault::AdmitCapped => {
                let floor = session.request.bounds.floor_kbps;
                self.admit(id, Some(floor), Decider::Native, now);
            }
            AdmitOnFault::Reject => {
                let retry_after = self.tables.sessions.jittered(RETRY_AFTER);
                self.give_up(id, OfferRefusal::Rejected { retry_after }, now);
            }
        }
        outcome
    }

    fn give_up(&mut self, id: SessionId, reason: OfferRefusal, now: Instant) {
        self.route(now, |tables| Openings(tables).give_up(id, reason, now));
    }

    fn admit(&mut self, id: SessionId, cap_kbps: Option<u32>, by: Decider, now: Instant) {
        if self.shutting_down {
            return self.give_up(id, OfferRefusal::Draining, now);
        }
        if let Some(room) = self.route(now, |tables| Openings(tables).admit(id, cap_kbps, by, now))
        {
            let unasked = self.tables.sessions[&id].of_first_packet;
            self.place(room, unasked, now);
        }
    }

    /// The first session of a room was admitted. Asks the routing policy, or places the room natively.
    pub(super) fn place(&mut self, id: RoomId, unasked: bool, now: Instant) {
        let Some(room) = self.tables.rooms.get_mut(&id) else { return };
        let (scenario, labels) = (room.scenario.clone(), room.labels.clone());
        let Some(settings) = self.tables.settings.scenarios.get(&scenario) else { return };
        if unasked || !settings.binds(Hook::Routing) {
            self.route(now, |tables| Openings(tables).place_natively(id, now));
        } else if !room.placing {
            room.placing = true;
            let set = settings.set.clone();
            let arm = self.policies.arm(&settings.policy(Hook::Routing), id.0);
            let nodes = self.tables.capacity.node_rows(&self.tables.nodes);
            let question = PolicyQuestion::Place { room: id, scenario, labels, nodes };
            self.ask(&set, arm, QuestionSubject::Place(id), question, now);
        }
    }

    pub(super) fn placed(
        &mut self,
        asked: &PendingQuestion,
        id: RoomId,
        answer: Result<HookAnswer, PluginFault>,
        (by, beside): (&Decider, &AnswerDetails),
        native: &[NodeId],
        now: Instant,
    ) -> DecisionOutcome {
        let Some(room) = self.tables.rooms.get_mut(&id) else { return DecisionOutcome::Stale };
        room.placing = false;
        if room.is_placed() || Placement(&self.tables).waiting_for_placement(id).is_empty() {
            return DecisionOutcome::Stale;
        }
        let outcome = match answer {
            Ok(HookAnswer::Placed { hops, .. }) if hops.is_empty() => DecisionOutcome::Abstained,
            Ok(HookAnswer::Placed { hops, ttl_ms, reason, .. }) if hops == [NO_NODE] => {
                let reason = Some(reason).filter(|it| *it != 0).map(|it| beside.word_for(it));
                self.route(now, |it| Openings(it).refuse_room(id, reason.as_ref(), ttl_ms, now));
                return DecisionOutcome::Applied { differs: !native.is_empty() };
            }
            Ok(HookAnswer::Placed { hops, ttl_ms, state, .. }) => {
                match Placement(&self.tables).check_placement(id, &hops, &asked.usable, now) {
                    Err(guard) => DecisionOutcome::Guarded(guard),
                    Ok(()) => {
                        let placement = Placement(&self.tables);
                        let hops = placement.without_inside_spares(id, &hops, |node| *node);
                        let differs = hops != native;
                        self.note_placement(asked, id, &hops, now);
                        self.write_room_state(id, state);
                        if let Some(room) = self.tables.rooms.get_mut(&id) {
                            room.ttl_ms = ttl_ms;
                        }
                        self.route(now, |tables| {
                            Openings(tables).settle(id, &hops, by.clone(), now);
                        });
                        return DecisionOutcome::Applied { differs };
                    }
                }
            }
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault),
        };
        self.route(now, |tables| Openings(tables).place_natively(id, now));
        outcome
    }

    /// Counts the placement of a new room for the judges of its revision.
    fn note_placement(
        &mut self,
        asked: &PendingQuestion,
        id: RoomId,
        hops: &[NodeId],
        now: Instant,
    ) {
        let PendingQuestion { policy, arm, .. } = asked;
        let last = self.policies.canary(policy).map(|_| {
            let room = Some(FaultSubject::Room(id));
            Placement(&self.tables).name_decision(None, hops.first().copied(), room)
        });
        let worse = u32::from(self.spends_redundancy(asked, id, hops, now));
        let (routes, effects) = (BreachCount { of: 1, worse }, &mut self.tables.effects);
        self.policies.note_routes(policy, *arm, routes, last.clone(), now, effects);
        self.policies.weigh_placement(policy, *arm, hops[0], last, effects);
    }

    /// A canary decides, and these nodes leave the room with less redundancy than the native default.
    fn spends_redundancy(
        &self,
        asked: &PendingQuestion,
        id: RoomId,
        hops: &[NodeId],
        now: Instant,
    ) -> bool {
        self.policies.canary(&asked.policy).is_some()
            && asked.usable.are_left(&self.tables.nodes)
            && Placement(&self.tables).spends_redundancy(id, hops, now)
    }

    /// Keeps the state that the routing policy wrote about the room.
    fn write_room_state(&mut self, id: RoomId, state: PluginState) {
        if let Some(room) = self.tables.rooms.get_mut(&id)
            && let Some(scenario) = self.tables.settings.scenarios.get(&room.scenario)
        {
            let revisions = self.policies.revisions(&scenario.policy(Hook::Routing));
            room.memory.write(self.questions.state(state), revisions);
        }
    }

    /// Asks the policy. If too many questions are in flight, the native default applies at once.
    pub(super) fn ask(
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

    /// Asks the active revision the questions that a removed revision has not answered. Late answers of the removed
    /// revision are ignored: their questions may contain states of another schema.
    pub(super) fn ask_again(&mut self, policy: &PolicyName, revision: &str, now: Instant) {
        for id in self.questions.of_revision(policy, revision) {
            self.tables.effects.cancel(&Timer::AskLate(id));
            let Some(pending) = self.questions.take(id) else { continue };
            self.tables.effects.event(pending.withdrawn(&self.tables.sessions));
            match pending.about {
                QuestionSubject::Resolve(session) => self.ask_scenario(session, now),
                QuestionSubject::Admit(session) => self.ask_admission(session, now),
                QuestionSubject::Place(id) => {
                    if let Some(room) = self.tables.rooms.get_mut(&id) {
                        room.placing = false;
                        if !room.is_placed() {
                            self.place(id, false, now);
                        }
                    }
                }
                QuestionSubject::Reroute(rooms) => {
                    rooms.into_iter().for_each(|(room, _)| self.want_reroute(room, now));
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
        let given = answer.as_ref().map(reasons_given).unwrap_or_default();
        let turns_away = answer.as_ref().is_ok_and(turns_away);
        // The event precedes its consequences.
        let place = self.tables.effects.place();
        let one = BatchOutcome::one;
        let native = match about {
            QuestionSubject::Place(id) => Placement(&self.tables).native_hops(*id, &[], now),
            _ => Vec::new(),
        };
        let unusable = match &answer {
            Ok(HookAnswer::Placed { hops, .. }) => asked.usable.first_other(hops),
            _ => None,
        };
        let BatchOutcome { outcome, parts } = match about {
            QuestionSubject::Resolve(session) => one(self.resolved(*session, answer, now)),
            QuestionSubject::Admit(session) => {
                one(self.admission_said(*session, answer, by.clone(), now))
            }
            QuestionSubject::Place(room) => {
                one(self.placed(&asked, *room, answer, (&by, &beside), &native, now))
            }
            QuestionSubject::Reroute(rooms) => {
                self.rerouted(&asked, rooms, answer, (&by, &beside), now)
            }
            QuestionSubject::Tick(sessions) => {
                self.ticks().ticked((policy, *arm), sessions, answer, (&by, &beside), now)
            }
        };
        if let Some(revision) = &revision {
            let is_there = |it| FaultSubject::exists(it, &self.tables.sessions, &self.tables.rooms);
            let (apart, effects) = (beside.apart.as_deref(), (now, &mut self.tables.effects));
            self.subject_history.note_apart(about, policy, revision, apart, is_there, effects);
            if about.is_of_offer() {
                let own = match outcome {
                    DecisionOutcome::Guarded(guard) => Some(guard).filter(|it| it.is_its_own()),
                    _ => None,
                };
                let last = own.map(|rule| {
                    let state = Placement(&self.tables);
                    state.name_decision(Some(rule), unusable, about.subject(0))
                });
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
        let said = (&by, &outcome, &parts);
        let is_there = |it| FaultSubject::exists(it, &self.tables.sessions, &self.tables.rooms);
        let history = &mut self.subject_history;
        let reason = history.note_said(about, said, &given, &beside, is_there, now);
        let AnswerDetails { notes, took, .. } = beside;
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

    /// Asks the room's routing policy about the room soon.
    pub(super) fn want_reroute(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.tables.rooms.get(&id) else { return };
        let Some(scenario) = self.tables.settings.scenarios.get(&room.scenario) else { return };
        let policy = scenario.policy(Hook::Routing);
        let arm = self.policies.arm(&policy, id.0);
        self.questions.want_reroute(&policy, arm, id);
        self.tables.rooms.changes.note(id);
        self.tables.effects.set_if_idle(Timer::Reroute(Arc::new(policy)), now);
    }

    pub(super) fn ask_reroute(&mut self, policy: &PolicyName, arm: Arm, now: Instant) {
        let is_reroute = |about: &_| matches!(about, QuestionSubject::Reroute(_));
        if self.questions.is_asking(policy, arm, is_reroute) {
            return;
        }
        let batch = self.waiting_for_reroute(policy, arm, now);
        if batch.is_empty() {
            return;
        }
        let mut scenarios = self.tables.settings.scenarios.values();
        if !scenarios.any(|it| it.set == policy.set && it.binds(Hook::Routing)) {
            for id in batch {
                self.route(now, |tables| Reroutes(tables).reroute_natively(id, now));
            }
            self.tables.effects.set(Timer::Reroute(Arc::new(policy.clone())), now);
            return;
        }
        let reads = self.policies.revision(policy, arm).cloned();
        let state = Placement(&self.tables);
        let rooms = batch.iter().map(|id| state.room_row(*id, reads.as_ref(), now)).collect();
        let versions =
            batch.iter().map(|id| (*id, self.tables.rooms[id].route().version)).collect();
        let memo = self.policies.memo(policy, arm);
        let nodes = self.tables.capacity.node_rows(&self.tables.nodes);
        let question = PolicyQuestion::Reroute { nodes, rooms, memo };
        self.ask(&policy.set, arm, QuestionSubject::Reroute(versions), question, now);
    }

    /// The next rooms that wait for this arm. Rooms that now belong to the other arm are queued there.
    fn waiting_for_reroute(&mut self, policy: &PolicyName, arm: Arm, now: Instant) -> Vec<RoomId> {
        let mut batch = Vec::new();
        let place = (policy.clone(), arm);
        while batch.len() < ROOMS_PER_ASK
            && let Some(id) = self.questions.next_reroute(&place)
        {
            self.tables.rooms.changes.note(id);
            let belongs = self.policies.arm(policy, id.0);
            if !self.tables.rooms.get(&id).is_some_and(Room::is_placed) {
                continue;
            }
            if belongs == arm {
                batch.push(id);
            } else {
                self.questions.want_reroute(policy, belongs, id);
                self.tables.effects.set_if_idle(Timer::Reroute(Arc::new(policy.clone())), now);
            }
        }
        batch
    }

    /// Applies the moves of a policy. A room that changed since the question keeps its route and its old state.
    pub(super) fn rerouted(
        &mut self,
        asked: &PendingQuestion,
        rooms: &[(RoomId, u64)],
        answer: Result<HookAnswer, PluginFault>,
        (by, beside): (&Decider, &AnswerDetails),
        now: Instant,
    ) -> BatchOutcome {
        let PendingQuestion { policy, arm, usable, .. } = asked;
        self.tables.effects.set(Timer::Reroute(Arc::new(policy.clone())), now);
        rooms.iter().for_each(|(id, _)| self.tables.rooms.changes.note(*id));
        rooms.iter().for_each(|(id, _)| Moves(&mut self.tables).catch_up(*id, now));
        self.take_notices(now);
        let mut parts = PartCounts::default();
        let outcome = match answer {
            Ok(HookAnswer::Moves { moves, states, memo }) => {
                let state = Placement(&self.tables);
                let fresh: Vec<Option<RoomId>> =
                    rooms.iter().map(|row| state.unchanged(*row)).collect();
                if fresh.iter().any(Option::is_some) {
                    memo.into_iter().for_each(|memo| self.policies.keep_memo(policy, *arm, memo));
                    let (mut seen, mut routes) = (BTreeSet::new(), BreachCount::default());
                    let mut last_worse = None;
                    for step in &moves {
                        let part = match fresh.get(step.row as usize) {
                            Some(_) if !seen.insert(step.row) => Err(GuardRule::UnknownRow),
                            Some(Some(id)) => {
                                let bare = self.spends_redundancy(asked, *id, &step.hops, now);
                                let part = self.route(now, |tables| {
                                    Reroutes(tables).take_move(*id, step, usable, by, now)
                                });
                                routes.of += u32::from(part.is_ok());
                                if part.is_ok() && bare {
                                    routes.worse += 1;
                                    last_worse = Some((*id, step.hops.first().copied()));
                                }
                                part
                            }
                            Some(None) => Err(GuardRule::Outdated),
                            None => Err(GuardRule::UnknownRow),
                        };
                        parts.note(step.row, part);
                    }
                    parts.report_broken(policy, &mut self.tables.effects);
                    let state = Placement(&self.tables);
                    let last = parts.last_own().map(|(row, rule)| {
                        let step = moves.iter().rfind(|step| step.row == row);
                        let node = step.and_then(|step| usable.first_other(&step.hops));
                        state.name_decision(Some(rule), node, asked.about.subject(row))
                    });
                    let last_worse = last_worse.map(|(id, node)| {
                        state.name_decision(None, node, Some(FaultSubject::Room(id)))
                    });
                    let (decided, effects) = (parts.count(), &mut self.tables.effects);
                    self.policies.note_conduct(policy, *arm, decided, last, now, effects);
                    self.policies.note_routes(policy, *arm, routes, last_worse, now, effects);
                    for (row, state) in states.into_iter().filter(|(row, _)| !parts.refused(*row)) {
                        if let Some(id) = fresh.get(row as usize).copied().flatten() {
                            self.write_room_state(id, state);
                        }
                    }
                    parts.outcome()
                } else {
                    DecisionOutcome::Stale
                }
            }
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault),
        };
        let failed = matches!(outcome, DecisionOutcome::Faulted(_));
        let left_out = |row| beside.apart.as_ref().is_some_and(|apart| apart.leaves_out(row));
        for (row, &(id, _)) in (0..).zip(rooms) {
            let apart = failed || left_out(row);
            self.route(now, |tables| Reroutes(tables).answered(id, apart, now));
        }
        BatchOutcome { outcome, parts }
    }

    /// Asks about the next batch of the policy's sessions.
    pub(super) fn ask_tick(&mut self, policy: &PolicyName, now: Instant) {
        let due = now + self.tables.settings.limits.tick_every;
        self.tables.effects.set(Timer::Tick(Arc::new(policy.clone())), due);
        let has_canary = self.policies.canary(policy).is_some();
        for arm in Arm::ALL.into_iter().filter(|arm| *arm == Arm::Standing || has_canary) {
            if let Some((about, question)) = self.ticks().question(policy, arm, now) {
                self.ask(&policy.set, arm, about, question, now);
            }
        }
    }
}
