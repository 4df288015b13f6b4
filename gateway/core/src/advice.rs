//! Advice to the users of sessions. `evenkeel-diagnosis` judges a session's quality over time.

use std::collections::BTreeMap;
use std::time::Instant;

use evenkeel_diagnosis::{Advisor, FLOOR_R_CENTI, SessionQuality, VideoState};
use evenkeel_model::{
    Advice, CoreEvent, CoreSettings, Impairment, Metric, Op, SessionId, lower_cap,
};

use crate::effects::Effects;
use crate::rooms::RoomTable;
use crate::sessions::{Session, SessionTable};

/// The advisors of sessions that are impaired, or were lately.
#[derive(Default, Debug)]
pub(crate) struct SessionAdvice(BTreeMap<SessionId, Advisor>);

impl SessionAdvice {
    /// The advice in force, if any.
    pub(crate) fn standing(&self, id: SessionId) -> Option<Advice> {
        self.0.get(&id)?.standing()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets a session that has just been closed.
    pub(crate) fn end_session(&mut self, id: SessionId) {
        self.0.remove(&id);
    }

    /// Judges a live session after a report on its packets.
    pub(crate) fn handle_flow(
        &mut self,
        id: SessionId,
        impairment: Option<Impairment>,
        sessions: &SessionTable,
        rooms: &RoomTable,
        settings: &CoreSettings,
        effects: &mut Effects,
        now: Instant,
    ) {
        let Some(session) = sessions.get(&id) else { return };
        if impairment.is_none() && !is_parked(session) && !self.0.contains_key(&id) {
            return;
        }
        let Some(room) = rooms.get(&session.room()) else { return };
        let advisor = self.0.entry(id).or_default();
        let change = advisor.judge(&quality(session, impairment, settings), now);
        if advisor.is_idle(now) {
            self.0.remove(&id);
        }
        if let Some(advice) = change {
            let (room_name, scenario) = (room.name().clone(), session.scenario().clone());
            effects.event(CoreEvent::Advised { session: id, room_name, scenario, advice });
        }
    }
}

fn quality(
    session: &Session,
    impairment: Option<Impairment>,
    settings: &CoreSettings,
) -> SessionQuality {
    let [up, down] = session.losses_after_repair();
    let slo = settings.slo(session.scenario()).and_then(|(_, slo)| slo.r_factor_centi);
    let plan = session.plan();
    let cap_kbps = lower_cap(plan.cap_kbps(), plan.cap_down_kbps());
    SessionQuality {
        session: session.id(),
        impairment,
        r_centi: session.measured(Metric::RFactor),
        floor_r_centi: slo.unwrap_or(FLOOR_R_CENTI),
        loss_ppm: down.max(up),
        video: match session.has_video() {
            false => VideoState::Absent,
            true if session.plan_now().arg(Op::VoiceOnly) > 0 => VideoState::Withheld,
            true => VideoState::Shown,
        },
        is_capped_at_floor: (1..=session.bounds().floor_kbps).contains(&cap_kbps),
        is_parked: is_parked(session),
    }
}

fn is_parked(session: &Session) -> bool {
    session.plan().arg(Op::Park) > 0
}
