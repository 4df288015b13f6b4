//! The hook `scenario`: parameters of a session, which override the configuration within its bounds.

use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{DecisionOutcome, Hook, HookAnswer, PolicyQuestion, SessionId};
use evenkeel_revisions::unit;

use crate::gateway::Gateway;
use crate::gateway::hooks::admission::AdmissionQuestion;
use crate::gateway::hooks::question::{Answer, Question};
use crate::policy::questions::{BatchOutcome, QuestionSubject, mismatched};

pub(super) struct ScenarioQuestion {
    pub(super) session: SessionId,
}

impl Question for ScenarioQuestion {
    fn ask(self, gateway: &mut Gateway, now: Instant) {
        let id = self.session;
        let Some(session) = gateway.sessions.get(&id) else { return };
        let request = Arc::clone(&session.request);
        let Some(scenario) = gateway.settings.scenarios.get(&request.scenario) else { return };
        if !scenario.binds(Hook::Scenario) {
            return AdmissionQuestion { session: id }.ask(gateway, now);
        }
        let set = Arc::clone(&scenario.set);
        let unit = unit(Hook::Scenario, session.room, id);
        let arm = gateway.policies.arm(&scenario.policy(Hook::Scenario), unit);
        let (scenario, labels) = (request.scenario.clone(), request.labels.clone());
        let question = PolicyQuestion::Resolve { scenario, labels };
        gateway.ask(&set, arm, QuestionSubject::Resolve(id), question, now);
    }

    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        let outcome = match given.answer {
            Ok(HookAnswer::Params(params)) => gateway.take_params(self.session, &params),
            Ok(_) => mismatched(),
            Err(fault) => DecisionOutcome::Faulted(fault),
        };
        AdmissionQuestion { session: self.session }.ask(gateway, now);
        BatchOutcome::one(outcome)
    }
}
