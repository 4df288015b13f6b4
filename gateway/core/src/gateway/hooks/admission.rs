//! The hook `admission`: whether a session is admitted, capped, redirected or rejected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    AdmitOnFault, AdmitVerdict, Decider, DecisionOutcome, GuardRule, Hook, HookAnswer,
    OfferRefusal, Op, PluginFault, PolicyQuestion, RegionId, SessionId,
};
use evenkeel_revisions::unit;

use crate::gateway::Gateway;
use crate::gateway::hooks::question::{Answer, Question};
use crate::policy::questions::{BatchOutcome, QuestionSubject, mismatched};

/// Retry time of clients that are refused because their admission policy failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) struct AdmissionQuestion {
    session: SessionId,
}

impl Question for AdmissionQuestion {
    fn ask(self, gateway: &mut Gateway, now: Instant) {
        let id = self.session;
        let Some(session) = gateway.tables.sessions.get_mut(&id) else { return };
        session.ask_admission();
        let (room, labels) = (session.room(), session.labels().clone());
        let Some((name, scenario)) =
            gateway.tables.settings.scenarios.get_key_value(session.scenario())
        else {
            return;
        };
        if !scenario.binds(Hook::Admission) {
            return gateway.admit(id, None, Decider::Native, now);
        }
        let standing =
            gateway.rooms.get(&room).and_then(|room| room.region_now(&gateway.tables.nodes));
        let question = PolicyQuestion::Admit {
            session: id,
            room,
            standing,
            scenario: Arc::clone(name),
            labels,
            regions: gateway.tables.capacity.region_rows(&gateway.tables.nodes),
        };
        let unit = unit(Hook::Admission, room, id);
        let arm = gateway.policies.arm(&scenario.policy(Hook::Admission), unit);
        let set = Arc::clone(&scenario.set);
        gateway.ask(&set, arm, QuestionSubject::Admit(id), question, now);
    }

    fn apply(self, gateway: &mut Gateway, given: Answer, now: Instant) -> BatchOutcome {
        BatchOutcome::one(self.take(gateway, given.answer, given.by, now))
    }
}

impl AdmissionQuestion {
    pub(super) fn about(session: SessionId) -> AdmissionQuestion {
        AdmissionQuestion { session }
    }

    fn take(
        self,
        gateway: &mut Gateway,
        answer: Result<HookAnswer, PluginFault>,
        by: &Decider,
        now: Instant,
    ) -> DecisionOutcome {
        let id = self.session;
        let Some(session) = gateway.tables.sessions.get(&id) else { return DecisionOutcome::Stale };
        let bounds = session.bounds();
        let verdict = match answer {
            Ok(HookAnswer::Admit { verdict, .. }) => verdict,
            Ok(_) => return self.failed(gateway, mismatched(), now),
            Err(fault) => return self.failed(gateway, DecisionOutcome::Faulted(fault), now),
        };
        let guarded = match verdict {
            AdmitVerdict::Abstain => {
                gateway.admit(id, None, Decider::Native, now);
                return DecisionOutcome::Abstained;
            }
            AdmitVerdict::Accept => {
                gateway.admit(id, None, by.clone(), now);
                return DecisionOutcome::Applied { differs: false };
            }
            AdmitVerdict::AcceptCapped(kbps) if session.exceeds_device(Op::Cap, kbps.into()) => {
                GuardRule::AboveDevice
            }
            AdmitVerdict::AcceptCapped(kbps)
                if kbps >= bounds.floor_kbps && kbps <= bounds.ceiling_kbps =>
            {
                gateway.admit(id, Some(kbps), by.clone(), now);
                return DecisionOutcome::Applied { differs: true };
            }
            AdmitVerdict::AcceptCapped(_) => GuardRule::ArgumentOutOfBounds,
            AdmitVerdict::Redirect(region) if self.may_redirect(gateway, region) => {
                gateway.give_up(id, OfferRefusal::Redirected(region), now);
                gateway.take_notices(now);
                return DecisionOutcome::Applied { differs: true };
            }
            AdmitVerdict::Redirect(_) => GuardRule::UnusableRegion,
            AdmitVerdict::Reject(retry_after_ms) => {
                let wait = Duration::from_millis(u64::from(retry_after_ms));
                let retry_after = gateway.admission.jittered(wait);
                gateway.give_up(id, OfferRefusal::Rejected { retry_after }, now);
                gateway.take_notices(now);
                return DecisionOutcome::Applied { differs: true };
            }
        };
        self.failed(gateway, DecisionOutcome::Guarded(guarded), now)
    }

    /// A new session may be redirected to the region: its room is not placed, and the region is another one of this
    /// gateway.
    fn may_redirect(&self, gateway: &Gateway, region: RegionId) -> bool {
        let session = gateway.tables.sessions.get(&self.session);
        let room = session.and_then(|session| gateway.rooms.get(&session.room()));
        let standing = room.and_then(|room| room.region_now(&gateway.tables.nodes));
        standing.is_none()
            && (region.0 as usize) < gateway.tables.settings.regions.len()
            && region != gateway.tables.nodes.home()
    }

    /// The admission policy failed, or its answer broke a rule. The scenario's settings decide on the session.
    fn failed(
        self,
        gateway: &mut Gateway,
        outcome: DecisionOutcome,
        now: Instant,
    ) -> DecisionOutcome {
        let id = self.session;
        let Some(session) = gateway.tables.sessions.get(&id) else { return outcome };
        let scenario = gateway.tables.settings.scenarios.get(session.scenario());
        match scenario.map_or(AdmitOnFault::Admit, |scenario| scenario.on_admission_fault) {
            AdmitOnFault::Admit => gateway.admit(id, None, Decider::Native, now),
            AdmitOnFault::AdmitCapped => {
                let floor = session.bounds().floor_kbps;
                gateway.admit(id, Some(floor), Decider::Native, now);
            }
            AdmitOnFault::Reject => {
                let retry_after = gateway.admission.jittered(RETRY_AFTER);
                gateway.give_up(id, OfferRefusal::Rejected { retry_after }, now);
                gateway.take_notices(now);
            }
        }
        outcome
    }
}
