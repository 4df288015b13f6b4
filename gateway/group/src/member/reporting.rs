//! A member in the log, in the API and among the events.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_control::{GatewayEvent, GroupChange};
use evenkeel_ownership::{BeatRole, ClusterEvent, PeerId, Reporter};

use super::GroupMember;
use crate::group::{GatewayStanding, GroupRole, GroupStatus, HostWarning, blocked_reason};
use crate::redundancy::RedundancyLoss;
use crate::rehearsal::Unready;

impl GroupMember {
    pub(super) fn report(&mut self, event: ClusterEvent) {
        let peer = Arc::clone(&self.peer().name);
        match event {
            ClusterEvent::PeerHeard => tracing::info!(%peer, "peer heard"),
            ClusterEvent::PeerSilent => tracing::warn!(%peer, "peer silent"),
            ClusterEvent::PeerEnded(by) => {
                let reported_by = match by {
                    Reporter::Kernel => "kernel",
                    Reporter::Agent => "agent",
                };
                tracing::warn!(%peer, reported_by, "peer's process ended");
            }
            ClusterEvent::PeerRestarted => tracing::info!(%peer, "peer restarted"),
            ClusterEvent::Followed(epoch) => {
                tracing::info!(%peer, epoch, "this gateway is the standby");
            }
            ClusterEvent::Armed(voters) => {
                tracing::info!(%peer, voters = voters.len(), "standby may take over by silence");
            }
            ClusterEvent::Disarmed => tracing::info!(%peer, "standby may not take over by silence"),
            ClusterEvent::Barred => {
                tracing::warn!(%peer, "agents or witnesses keep the silent peer from taking over");
            }
            ClusterEvent::HeldDown(takeovers, left) => tracing::warn!(
                takeovers,
                held_s = left.as_secs_f64(),
                "takeovers by silence follow each other: none follows until the hold-down ends"
            ),
            ClusterEvent::LeaseLapsed => {
                self.keeper.drop_waiting();
                tracing::warn!(
                    "neither peer nor agents or witnesses confirm the ownership: nothing is sent"
                );
            }
            ClusterEvent::LeaseRenewed(after) => {
                let after_ms = after.as_millis() as u64;
                tracing::info!(after_ms, "ownership confirmed: packets are sent again");
            }
            ClusterEvent::HandOverFailed => {
                self.fail_hand_over(format!("{peer} did not take the sessions"));
            }
            ClusterEvent::TakeoverBlocked(blocked) => tracing::error!(
                %peer,
                reason = blocked_reason(blocked),
                "peer silent, and not replaced; if it is down, run `evenkeel gateway take-over --confirm-down {peer}`"
            ),
        }
    }

    /// Looks for losses of redundancy.
    pub(super) fn watch_redundancy(&mut self) {
        let now = Instant::now();
        let losses = self.redundancy_losses(now);
        self.redundancy.handle(losses, now);
    }

    fn redundancy_losses(&self, now: Instant) -> Vec<RedundancyLoss> {
        let [here, peer] = [&self.settings.name, &self.peer().name].map(Arc::clone);
        let is_spare = self.core.is_spare();
        let votes = self.votes.has_voters() && !self.rests;
        let loss = match (self.core.peer(now), self.core.is_owner()) {
            (None, true) => Some(RedundancyLoss::NoPeer(peer)),
            (Some(_), true) if !self.core.is_followed(now) => Some(RedundancyLoss::NotInSync(peer)),
            (Some(_), true) if votes && !self.core.is_standby_armed() => {
                let is_held_down = !self.core.held_down(now).is_zero();
                Some(if is_held_down { RedundancyLoss::HeldDown } else { RedundancyLoss::NoVoter })
            }
            (Some(_), false) if is_spare => None,
            (Some(_), false) if !self.records.replica.is_whole() => {
                Some(RedundancyLoss::NotInSync(here))
            }
            (Some(beat), false) if votes && beat.role == BeatRole::Owner => {
                beat.voters.is_empty().then_some(RedundancyLoss::NotArmed)
            }
            // A silent owner is reported as such.
            _ => None,
        };
        let differs = self.records.difference().map(RedundancyLoss::Differs);
        // After a takeover the check has not run again yet.
        let applies =
            |it: &HostWarning| matches!(it, HostWarning::Unchecked(_)) || !self.core.is_owner();
        let host = self.inbox.host_warning.borrow().clone().filter(applies);
        let host = host.map(RedundancyLoss::Host);
        // Of two members, the silent one is the peer.
        let others = self.settings.peers.iter().enumerate().map(|(at, peer)| (PeerId(at), peer));
        let silent = others
            .filter(|(id, _)| *id != self.core.peer_id() && self.core.member(*id, now).is_none());
        let silent = silent.map(|(_, peer)| RedundancyLoss::Silent(Arc::clone(&peer.name)));
        loss.into_iter()
            .chain(differs)
            .chain(host)
            .chain(silent)
            .chain(self.unready().iter().cloned().map(RedundancyLoss::Unready))
            .collect()
    }

    fn unready(&self) -> &[Unready] {
        if self.core.is_owner() { &[] } else { self.rehearsal.losses() }
    }

    /// Sends the event of another role, or of other losses of redundancy.
    fn publish(&mut self, role: GroupRole, epoch: u64, warnings: &[Arc<str>]) {
        if self.published.as_ref().is_some_and(|(shown, told)| *shown == role && told == warnings) {
            return;
        }
        self.published = Some((role, warnings.to_vec()));
        self.gateway.handle.publish(GatewayEvent::Group(GroupChange {
            gateway: Arc::clone(&self.settings.name),
            role: role.name(),
            epoch,
            warnings: warnings.to_vec(),
        }));
    }

    pub(super) fn show(&mut self) {
        let now = Instant::now();
        let (is_owner, epoch) = (self.core.is_owner(), self.core.epoch());
        let peer = self.core.peer(now);
        let peer_owns = peer.is_some_and(|beat| beat.role == BeatRole::Owner);
        let copies = self.records.replica.sessions();
        let is_doubting = is_owner && !self.gateway.lease.is_held(|| now);
        let blocked = match self.core.blocked() {
            _ if is_doubting && peer.is_none() => {
                Some("neither it nor a majority of the agents and witnesses answers")
            }
            blocked => blocked.map(blocked_reason),
        };
        let role = match () {
            () if is_doubting => GroupRole::Doubting,
            () if is_owner && self.taking.is_some() => GroupRole::Restoring,
            () if is_owner => GroupRole::Owner,
            () if epoch == 0 => GroupRole::Joining,
            () if self.core.is_spare() => GroupRole::Spare,
            () => GroupRole::Standby,
        };
        let here = GatewayStanding {
            gateway: Arc::clone(&self.settings.name),
            here: true,
            role,
            epoch,
            sessions: copies,
            in_sync: is_owner || self.records.replica.is_whole(),
            armed: !is_owner && peer_owns && peer.is_some_and(|beat| !beat.voters.is_empty()),
            heard_ms: None,
            addresses: if is_owner { self.addresses() } else { Vec::new() },
            refused: None,
            blocked: blocked.map(|reason| format!("{} is silent: {reason}", self.peer().name)),
        };
        let peers = (0..self.settings.peers.len()).map(|at| self.standing_of(PeerId(at), now));
        let gateways = std::iter::once(here).chain(peers).collect();
        let warnings = self.redundancy.warnings();
        self.publish(role, epoch, &warnings);
        let standing = GroupStatus { gateways, warnings, unready: self.unready().len() };
        let renew = |shown: &mut GroupStatus| std::mem::replace(shown, standing) != *shown;
        self.inbox.standing.send_if_modified(renew);
    }

    /// Another member as this one knows it.
    fn standing_of(&self, id: PeerId, now: Instant) -> GatewayStanding {
        let beat = self.core.member(id, now);
        let (owns, is_peer) =
            (beat.is_some_and(|beat| beat.role == BeatRole::Owner), id == self.core.peer_id());
        let copies = self.records.replica.sessions();
        // A member that does not own knows the standby by its copy.
        let is_standby = match self.core.is_owner() || self.settings.peers.len() == 1 {
            true => is_peer,
            false => beat.is_some_and(|beat| beat.whole),
        };
        GatewayStanding {
            gateway: Arc::clone(&self.settings.peers[id.0].name),
            here: false,
            role: match beat {
                None => GroupRole::Silent,
                Some(_) if owns => GroupRole::Owner,
                Some(_) if is_standby => GroupRole::Standby,
                Some(_) => GroupRole::Spare,
            },
            epoch: beat.map_or(0, |beat| beat.epoch),
            sessions: if owns { copies } else { 0 },
            in_sync: owns || is_peer && self.core.is_followed(now),
            armed: is_peer && self.core.is_standby_armed(),
            heard_ms: self.heard[id.0].map(|heard| (now - heard).as_millis() as u64),
            addresses: if owns { self.addresses() } else { Vec::new() },
            refused: self.records.refused().filter(|_| is_peer),
            blocked: None,
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.settings.addresses.iter().map(|moved| moved.address).collect()
    }
}
