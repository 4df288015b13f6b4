//! I10: outputs form complete lifecycles, and nothing is left at the end.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_core::{Gateway, GatewayEffect, InstalledSession};
use evenkeel_model::{HOPS_MAX, Hop, OfferId, SessionId};
use evenkeel_nodes::NodeEffect;

/// A session is open at the hops of its room's route, of the route being prepared, and of one being left.
pub(super) const LEGS_MAX: usize = HOPS_MAX * 2 + 1;

type Found = Option<(&'static str, String)>;

#[derive(Default)]
pub(super) struct Outputs {
    installed: BTreeSet<SessionId>,
    ended: BTreeSet<SessionId>,
    legs: BTreeMap<SessionId, BTreeSet<Hop>>,
    replied: BTreeSet<OfferId>,
    finished: u32,
}

impl Outputs {
    /// I10: an output fits the ones before it.
    pub(super) fn check(&mut self, output: &GatewayEffect) -> Found {
        let odd = match output {
            GatewayEffect::Install(InstalledSession { session, .. }, _) => {
                !self.installed.insert(*session) || self.ended.contains(session)
            }
            GatewayEffect::Open { session, hop, .. } => {
                let legs = self.legs.entry(*session).or_default();
                legs.insert(*hop);
                !self.installed.contains(session) || legs.len() > LEGS_MAX
            }
            GatewayEffect::CloseAt { session, hop } => {
                !self.legs.get_mut(session).is_some_and(|legs| legs.remove(hop))
            }
            GatewayEffect::End { session, .. } => {
                let left = self.legs.remove(session).is_some_and(|legs| !legs.is_empty());
                self.ended.insert(*session);
                !self.installed.remove(session) || left
            }
            GatewayEffect::Plan { session, .. } => !self.installed.contains(session),
            GatewayEffect::KeyFrame(sessions) => {
                sessions.iter().any(|session| !self.installed.contains(session))
            }
            GatewayEffect::Reply { offer, result } => {
                let installed =
                    result.as_ref().map_or(true, |ok| self.installed.contains(&ok.session));
                !self.replied.insert(*offer) || !installed
            }
            GatewayEffect::Finished => {
                self.finished += 1;
                self.finished > 1
            }
            GatewayEffect::Ask(_)
            | GatewayEffect::Restore(_)
            | GatewayEffect::Node(NodeEffect::Probe { .. })
            | GatewayEffect::Node(NodeEffect::Canary { .. })
            | GatewayEffect::Node(NodeEffect::Start(_))
            | GatewayEffect::Node(NodeEffect::EndStart { .. })
            | GatewayEffect::Node(NodeEffect::Stop(_) | NodeEffect::EndStop(_))
            | GatewayEffect::Node(NodeEffect::Forget(_))
            | GatewayEffect::Rollout(_)
            | GatewayEffect::Unload { .. }
            | GatewayEffect::PolicyChanged(_)
            | GatewayEffect::Event(_) => false,
        };
        odd.then(|| ("I10", format!("output does not fit earlier ones: {output:?}")))
    }

    /// All hops where a session is open or being opened.
    pub(super) fn open(&self) -> impl Iterator<Item = Hop> + Clone {
        self.legs.values().flatten().copied()
    }

    /// The driver refused the session at this hop, so it will not be closed there.
    pub(super) fn refused(&mut self, session: SessionId, hop: Hop) {
        if let Some(legs) = self.legs.get_mut(&session) {
            legs.remove(&hop);
        }
    }

    /// I10: no state is left at the end.
    pub(super) fn check_end(&self, gateway: &Gateway) -> Found {
        let left = gateway.live()
            + gateway.standing_rooms()
            + gateway.offers_asked()
            + self.installed.len();
        let open: usize = self.legs.values().map(BTreeSet::len).sum();
        (left + open > 0 || self.finished != 1).then(|| {
            let (live, rooms) = (gateway.live(), gateway.standing_rooms());
            ("I10", format!("at the end {live} sessions, {rooms} rooms, {open} legs are left, finished {} times", self.finished))
        })
    }
}
