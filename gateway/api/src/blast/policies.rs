//! The loss of a policy: the rooms and sessions about which the native default would decide.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_contract::blast::{PolicyLoss, RevisionLoss, RoomCount};
use evenkeel_core::RoomStanding;
use evenkeel_model::Arm;
use evenkeel_policies::PolicyView;

use crate::context::ApiContext;
use crate::error::{ApiError, no_policy};
use crate::request::policy_name;

/// The loss of each of these policies, named as `call/routing` and separated by commas.
pub(super) async fn lost_policies(
    shared: &ApiContext,
    names: &str,
) -> Result<Vec<PolicyLoss>, ApiError> {
    let mut losses = Vec::new();
    if names.is_empty() {
        return Ok(losses);
    }
    let policies = shared.ask("", shared.handle.policies()).await?;
    let rooms = shared.ask("", shared.handle.rooms()).await?;
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let (set, hook) = name.split_once('/').ok_or_else(|| no_policy(name))?;
        let policy = policy_name(set, hook)?;
        let view = policies.iter().find(|view| view.policy == policy);
        losses.push(policy_loss(view.ok_or_else(|| no_policy(name))?, &rooms));
    }
    Ok(losses)
}

fn policy_loss(view: &PolicyView, rooms: &[RoomStanding]) -> PolicyLoss {
    let named = view.scenarios.iter().map(|name| (Arc::clone(name), RoomCount::default()));
    let mut scenarios: BTreeMap<Arc<str>, RoomCount> = named.collect();
    let mut hit = RoomCount::default();
    for room in rooms {
        let Some(scenario) = scenarios.get_mut(&room.scenario) else { continue };
        [scenario, &mut hit].into_iter().for_each(|count| count.add(room.sessions.len() as u32));
    }
    let status = &view.status;
    let candidate = status.candidate.as_ref().map(|candidate| &candidate.revision);
    let revision = |arm: Arm, sessions: u32| RevisionLoss {
        arm: arm.name().into(),
        revision: match arm {
            Arm::Standing => status.active.clone(),
            Arm::Canary => candidate.cloned(),
        },
        sessions,
    };
    // Cohorts are counted during a canary only.
    let revisions = match view.cohorts.is_empty() {
        true => vec![revision(Arm::Standing, hit.sessions)],
        false => view.cohorts.iter().map(|cohort| revision(cohort.arm, cohort.sessions)).collect(),
    };
    PolicyLoss { policy: view.policy.to_string(), hit, scenarios, revisions }
}
