//! Losses of redundancy: calls go on, and the next fault would end them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::group::HostWarning;
use super::rehearsal::Unready;

/// A member that starts, or an agent that restarts, is ready sooner.
const REPORTED_AFTER: Duration = Duration::from_secs(3);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub(super) enum RedundancyLoss {
    #[error("`{0}` is not heard: no gateway takes over")]
    NoPeer(Arc<str>),
    /// In a group of more than two.
    #[error("`{0}` is not heard: one gateway fewer can take over")]
    Silent(Arc<str>),
    #[error("`{0}` lacks records: calls end with the owner")]
    NotInSync(Arc<str>),
    #[error("no agent and no witness answers the owner: a silent owner is not replaced")]
    NoVoter,
    #[error("takeovers by silence follow each other: none follows until the hold-down ends")]
    HeldDown,
    /// As the standby knows it.
    #[error(
        "a silent owner is not replaced: no agent and no witness answers it, or a hold-down lasts"
    )]
    NotArmed,
    /// Found by the rehearsal of the standby.
    #[error(transparent)]
    Unready(Unready),
    #[error(transparent)]
    Host(HostWarning),
    #[error("the configurations of owner and standby differ: {0}")]
    Differs(String),
}

/// The losses that lasted.
#[derive(Default, Debug)]
pub(super) struct Redundancy {
    since: BTreeMap<RedundancyLoss, Instant>,
    reported: BTreeSet<RedundancyLoss>,
}

impl Redundancy {
    /// Takes all losses of this moment. Logs those that have lasted, and their ends.
    pub(super) fn handle(&mut self, losses: Vec<RedundancyLoss>, now: Instant) {
        self.since.retain(|loss, _| losses.contains(loss));
        for loss in losses {
            self.since.entry(loss).or_insert(now);
        }
        let has_lasted = |since: &Instant| now.saturating_duration_since(*since) >= REPORTED_AFTER;
        let lasting = self.since.iter().filter(|(_, since)| has_lasted(since));
        let lasting: BTreeSet<_> = lasting.map(|(loss, _)| loss.clone()).collect();
        for loss in lasting.difference(&self.reported) {
            tracing::warn!("redundancy lost: {loss}");
        }
        for loss in self.reported.difference(&lasting) {
            tracing::info!("redundancy restored, it was lost: {loss}");
        }
        self.reported = lasting;
    }

    /// A sentence for each loss that has lasted.
    pub(super) fn warnings(&self) -> Vec<Arc<str>> {
        self.reported.iter().map(|loss| loss.to_string().into()).collect()
    }
}

#[cfg(test)]
mod tests;
