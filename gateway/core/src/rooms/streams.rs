//! Later offers: sessions with other streams on the same transport.

use std::sync::Arc;

use evenkeel_model::{Impossible, MediaDescription, Op, SessionId};

use crate::effects::GatewayEffect;
use crate::rooms::placement::CoreTables;
use crate::rooms::routes::Routes;
use crate::sessions::{SessionPhase, SessionRequest};

/// The streams of sessions.
pub(crate) struct Streams<'a>(pub(crate) &'a mut CoreTables);

impl Streams<'_> {
    /// Replaces the streams of a live session. Its room stays on its node, and the load of the node follows.
    pub(crate) fn change(
        self,
        id: SessionId,
        media: Arc<MediaDescription>,
    ) -> Result<(), Impossible> {
        let live = self.0.sessions.get(&id).filter(|it| it.phase == SessionPhase::Live);
        let session = live.ok_or(Impossible::NoSuchSession)?;
        if session.request.media == media {
            return Ok(());
        }
        let SessionRequest { scenario, labels, bounds, close_after, .. } = &*session.request;
        let (scenario, labels) = (Arc::clone(scenario), labels.clone());
        let request = SessionRequest::new(scenario, labels, media, *bounds, *close_after);
        let (room, mut plan) = (session.room, session.plan);
        if plan.shed != 0 {
            let voice_only = plan.after(Op::VoiceOnly, 1, &request.media, request.bounds);
            plan = voice_only.unwrap_or(plan);
        }
        let request = self.0.sessions.requests.intern(request);
        if let Some(session) = self.0.sessions.get_mut(&id) {
            (session.request, session.plan) = (request, plan);
            let plan = session.plan_in_force();
            self.0.effects.push(GatewayEffect::Plan { session: id, plan });
        }
        Routes(self.0).settle_peer_caps(room);
        Routes(self.0).regrant(room);
        Ok(())
    }
}
