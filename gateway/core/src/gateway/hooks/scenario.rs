//! The hook `scenario`: parameters of a session, which override the configuration within its bounds.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{DecisionOutcome, Hook, HookAnswer, Param, PolicyQuestion, SessionId};
use evenkeel_revisions::unit;

use crate::gateway::Gateway;
use crate::gateway::hooks::admission::AdmissionQuestion;
use crate::gateway::hooks::question::{Answer, Question};
use crate::policy::questions::{BatchOutcome, QuestionSubject, mismatched};

pub(super) struct ScenarioQuestion {
    session: SessionId,
}

impl Question for ScenarioQuestion {
    fn ask(self, gateway: &mut Gateway, now: Instant) {
        let id = self.session;
        let Some(session) = gateway.tables.sessions.get(&id) else { return };
        let Some(scenario) = gateway.tables.settings.scenarios.get(session.scenario()) else {
            return;
        };
        if !scenario.binds(Hook::Scenario) {
            return AdmissionQuestion::about(id).ask(gateway, now);
        }
        let set = Arc::clone(&scenario.set);
        let unit = unit(Hook::Scenario, session.room(), id);
        let arm = gateway.policies.arm(&scenario.policy(Hook::Scenario), unit);
        let (scenario, labels) = (session.scenario().clone(), session.labels().clone());
        let question = PolicyQuestion::Resolve { scenario, labels };
        gateway.ask(&set, arm, QuestionSubject::Resolve(id), question, now);
    }

    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        let outcome = match given.answer {
            Ok(HookAnswer::Params(params)) => self.take(gateway, &params),
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault),
        };
        AdmissionQuestion::about(self.session).ask(gateway, now);
        BatchOutcome::one(outcome)
    }
}

impl ScenarioQuestion {
    pub(super) fn about(session: SessionId) -> ScenarioQuestion {
        ScenarioQuestion { session }
    }

    /// Applies a scenario plugin's parameters, which override those of the configuration within its bounds.
    fn take(&self, gateway: &mut Gateway, params: &[(Box<str>, i64)]) -> DecisionOutcome {
        let id = self.session;
        let Some(session) = gateway.tables.sessions.get(&id) else { return DecisionOutcome::Stale };
        let room = session.room();
        let known = params.iter().filter_map(|(key, value)| Some((Param::from_key(key)?, *value)));
        let known: Vec<(Param, i64)> = known.collect();
        let session_differs = gateway.tables.sessions.resolve(id, &known);
        let room = gateway.rooms.get_mut(&room).filter(|room| !room.is_placed());
        let room_differs = room.is_some_and(|room| room.resolve(&known));
        if known.is_empty() {
            return DecisionOutcome::Abstained;
        }
        DecisionOutcome::Applied { differs: session_differs || room_differs }
    }
}
