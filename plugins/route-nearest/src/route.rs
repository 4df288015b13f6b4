//! Review of a room's route.

use evenkeel_plugin_sdk::prelude::*;

use crate::cost::{NodeSurvey, UsableNode};
use crate::talk::Talk;
use crate::{NOISE, PlacementReason, Stay};

/// A room with its route, under review.
#[derive(Debug)]
pub(crate) struct RouteReview<'a> {
    pub(crate) survey: &'a NodeSurvey<'a>,
    pub(crate) room: &'a Room<'a, Stay>,
    pub(crate) now: Duration,
}

impl RouteReview<'_> {
    /// Returns the new state of the room, and its new route if it should move.
    pub(crate) fn review(&self) -> (Stay, Option<(Vec<NodeId>, PlacementReason)>) {
        let (survey, room) = (self.survey, self.room);
        let standing: Vec<NodeId> = room.standing().collect();
        let mut stay = room.state().clone();
        let wish = stay.wish();
        let choice = survey.choice(&wish, room.id());
        let Some(best) = choice.best() else {
            return (stay, None);
        };

        let carries = |&hop: &NodeId| survey.usable(hop).is_some() || survey.is_draining(hop);
        let carrier = standing.iter().copied().find(carries);
        self.notice(&mut stay, carrier);
        let current = carrier.and_then(|carrier| survey.usable(carrier));
        self.listen(&mut stay, current);
        let (first, why) = match (carrier, current) {
            (None, _) => (best, PlacementReason::RouteLost),
            (Some(_), None) => (best, PlacementReason::NodeDraining),
            (_, Some(current)) if self.is_worth_talking(current, best, &stay) => {
                (best, PlacementReason::PoorQuality)
            }
            (_, Some(current)) if self.is_worth_moving(current, best, &stay) => {
                (best, PlacementReason::Better)
            }
            (_, Some(current)) => (current, PlacementReason::SpareRestored),
        };
        if carrier != Some(first.id()) {
            stay.node = Some(first.id().0);
            stay.since = self.now;
            stay.poor_since = None;
        }
        let hops = choice.route(first, &standing);
        let change = (hops != standing).then_some((hops, why));
        (stay, change)
    }

    /// Restarts the stay if the data plane has failed over since the last review. A room that another policy placed is
    /// treated as staying since it opened.
    fn notice(&self, stay: &mut Stay, carrier: Option<NodeId>) {
        // A state of another gateway may contain a time in the future.
        stay.since = stay.since.min(self.now);
        let carrier = carrier.map(|carrier| carrier.0);
        if carrier == stay.node {
            return;
        }
        stay.since = match stay.node {
            Some(_) => self.now,
            None => {
                let age = Duration::from_millis(self.room.age_ms().unwrap_or(0).into());
                self.now.saturating_sub(age)
            }
        };
        stay.node = carrier;
    }

    /// Updates the start of the period in which participants cannot talk well.
    fn listen(&self, stay: &mut Stay, current: Option<&UsableNode<'_>>) {
        let talk = Talk::of(self.room);
        let is_poor = current.is_some_and(|node| talk.is_poor(self.survey.settings, node));
        let since = stay.poor_since.unwrap_or(self.now).min(self.now);
        stay.poor_since = is_poor.then_some(since);
    }

    fn is_worth_talking(
        &self,
        current: &UsableNode<'_>,
        best: &UsableNode<'_>,
        stay: &Stay,
    ) -> bool {
        let settings = self.survey.settings;
        let lasted = |since| self.now.saturating_sub(since) >= settings.poor_for;
        stay.poor_since.is_some_and(lasted)
            && lasted(stay.since)
            && may_move(current, best)
            && Talk::of(self.room).is_well(settings, best)
    }

    fn is_worth_moving(
        &self,
        current: &UsableNode<'_>,
        best: &UsableNode<'_>,
        stay: &Stay,
    ) -> bool {
        let settings = self.survey.settings;
        let stayed = self.now.saturating_sub(stay.since);
        if stayed < settings.min_stay || !may_move(current, best) {
            return false;
        }
        let cost = self.survey.cost(current, &stay.wish());
        let margin = (cost * settings.hysteresis).max(NOISE);
        self.survey.cost(best, &stay.wish()) < cost - margin
    }
}

/// Returns whether a move is allowed. It waits while the current node is suspect: the detector decides soon, and a move
/// now might be needless.
fn may_move(current: &UsableNode<'_>, best: &UsableNode<'_>) -> bool {
    best.id() != current.id() && !best.avoid && !current.suspect
}
