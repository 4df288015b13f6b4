//! Operators' hand-overs and takeovers, and the fence, which stands for an operator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_ownership::{BeatRole, Blocked, PeerId, TakeoverRefusal};

use super::{GroupMember, GroupReply};
use crate::group::{HandOverError, HandOverResult, TakeOverError, TakenOver};
use crate::link::LinkFrame;

/// An owner that is asked to hand over does so within a fraction of this.
const WANTED_WITHIN: Duration = Duration::from_secs(3);

impl GroupMember {
    pub(super) fn begin_hand_over(
        &mut self,
        to: Option<String>,
        reply: GroupReply<HandOverResult, HandOverError>,
    ) {
        let peer = Arc::clone(&self.peer().name);
        let other = if self.core.is_owner() { &peer } else { &self.settings.name };
        let to = to.unwrap_or_else(|| other.to_string());
        let members = || self.settings.members().join(", ");
        let refused = if *to == *self.settings.name {
            if !self.core.is_owner() && !self.core.is_spare() {
                return self.ask_for_hand_over(reply);
            }
            if !self.core.is_owner() {
                // The client may have disconnected.
                return drop(reply.send(Err(HandOverError::NotInSync(to.into()))));
            }
            Err(HandOverError::OwnerAlready(to))
        } else if !self.settings.members().contains(&&*to) {
            Err(HandOverError::Unknown { found: to, members: members() })
        } else if *to != *peer && self.core.is_owner() {
            Err(HandOverError::Spare { found: to, peer })
        } else if *to != *peer {
            Err(HandOverError::NotOwner(peer))
        } else if self.core.peer(Instant::now()).is_some_and(|beat| beat.role == BeatRole::Owner) {
            Err(HandOverError::OwnerAlready(to))
        } else if self.hand_over_reply.is_some() || self.taking.is_some() {
            Err(HandOverError::UnderWay)
        } else {
            let begun = self.core.handle_hand_over(Instant::now());
            let silent_for = self.peer_heard().map(|heard| heard.elapsed());
            begun.map_err(|refusal| HandOverError::of(refusal, peer, silent_for))
        };
        match refused {
            Ok(()) => self.hand_over_reply = Some(reply),
            // The client may have disconnected.
            Err(refused) => _ = reply.send(Err(refused)),
        }
    }

    /// Asks the owner to hand over to this standby. The owner's log has the reason of a refusal.
    fn ask_for_hand_over(&mut self, reply: GroupReply<HandOverResult, HandOverError>) {
        let (peer, now) = (Arc::clone(&self.peer().name), Instant::now());
        let owner = self.core.peer(now).filter(|beat| beat.role == BeatRole::Owner);
        if self.wanted.is_some() {
            // The client may have disconnected.
            let _ = reply.send(Err(HandOverError::UnderWay));
        } else if owner.is_some() && self.records.link.send(&LinkFrame::HandOver) {
            tracing::info!(%peer, "asking the owner to hand over");
            self.wanted = Some((reply, now + WANTED_WITHIN));
        } else {
            // The client may have disconnected.
            let _ = reply.send(Err(HandOverError::NotOwner(peer)));
        }
    }

    /// The standby asks for the ownership.
    pub(super) fn handle_wanted(&mut self) {
        let peer = Arc::clone(&self.peer().name);
        let begun = match self.hand_over_reply.is_some() || self.taking.is_some() {
            true => Err(HandOverError::UnderWay),
            false => {
                let begun = self.core.handle_hand_over(Instant::now());
                begun.map_err(|refusal| HandOverError::of(refusal, Arc::clone(&peer), None))
            }
        };
        match begun {
            Ok(()) => tracing::info!(%peer, "the standby asks for the ownership"),
            Err(refused) => {
                tracing::warn!(%peer, %refused, "the standby asks for the ownership in vain");
            }
        }
    }

    pub(super) fn give_up_wanted(&mut self) {
        if let Some((reply, _)) = self.wanted.take_if(|(_, by)| *by <= Instant::now()) {
            let peer = &self.peer().name;
            let reason = format!("{peer} did not hand over; its log has the reason");
            // The client may have disconnected.
            let _ = reply.send(Err(HandOverError::Failed(reason)));
        }
    }

    pub(super) fn begin_take_over(
        &mut self,
        down: &str,
        reply: GroupReply<TakenOver, TakeOverError>,
    ) {
        let owned = self.core.is_owner();
        let peer = |name: &str| {
            let place = self.settings.peers.iter().position(|peer| *peer.name == *name);
            place.map(PeerId).ok_or_else(|| {
                let peers = self.settings.peers.iter().map(|peer| format!("`{}`", peer.name));
                let peers = peers.collect::<Vec<_>>().join(" or ");
                TakeOverError::NotPeer { found: name.to_owned(), peers }
            })
        };
        let named: Result<Vec<PeerId>, _> = down.split(',').map(|name| peer(name.trim())).collect();
        match named.and_then(|down| self.confirm_down(&down)) {
            Ok(()) => {
                tracing::warn!(%down, "an operator confirms that other gateways are down");
                self.confirmed = Some(reply);
                if owned && self.taking.is_none() {
                    self.count_sessions();
                }
            }
            // The client may have disconnected.
            Err(refused) => _ = reply.send(Err(refused)),
        }
    }

    fn confirm_down(&mut self, down: &[PeerId]) -> Result<(), TakeOverError> {
        let name = |PeerId(id): PeerId| Arc::clone(&self.settings.peers[id].name);
        let taken = self.core.handle_take_over(down, Instant::now());
        taken.map_err(|refusal| match refusal {
            TakeoverRefusal::OwnerAlready => TakeOverError::OwnerAlready,
            TakeoverRefusal::PeerOwns(peer) => {
                let here = Arc::clone(&self.settings.name);
                TakeOverError::PeerOwns { peer: name(peer), here }
            }
            TakeoverRefusal::PeerHeard(peer) => TakeOverError::PeerHeard(name(peer)),
            TakeoverRefusal::Joining(peer) => TakeOverError::Joining(name(peer)),
            TakeoverRefusal::AgentsHearPeer => {
                TakeOverError::AgentsHearPeer(Arc::clone(&self.peer().name))
            }
            TakeoverRefusal::AlsoSilent(peer) => TakeOverError::AlsoSilent(name(peer)),
            TakeoverRefusal::HeldElsewhere(holder) => TakeOverError::HeldElsewhere(name(holder)),
        })
    }

    /// An owner that sends again continues its own sessions. It admits none until they are counted.
    fn count_sessions(&mut self) {
        let handle = self.gateway.handle.clone();
        self.taking = Some(tokio::spawn(async move {
            let status = handle.status().await.map_err(|_| "control ended".to_owned())?;
            Ok(status.sessions)
        }));
    }

    /// Answers operators once the sessions continue here.
    pub(super) fn answer_operator(&mut self) {
        if self.core.is_owner()
            && self.taking.is_none()
            && let Some((reply, _)) = self.wanted.take()
        {
            let (gateway, epoch) = (Arc::clone(&self.settings.name), self.core.epoch());
            // The client may have disconnected.
            let _ = reply.send(Ok(HandOverResult { gateway, epoch }));
        }
        if self.core.is_owner()
            && self.taking.is_none()
            && let Some(reply) = self.confirmed.take()
        {
            let (gateway, epoch) = (Arc::clone(&self.settings.name), self.core.epoch());
            let owner = HandOverResult { gateway, epoch };
            // The client may have disconnected.
            let _ = reply.send(Ok(TakenOver { owner, sessions: self.continued }));
        }
    }

    /// No vote lets this standby take over from its silent peer.
    pub(super) fn fence_peer(&mut self) {
        let now = Instant::now();
        let is_blocked = self.core.blocked().is_some_and(|blocked| blocked != Blocked::Unknown);
        // A spare holds no records.
        let may_take_over = is_blocked
            && !self.core.is_spare()
            && self.core.takeover_refusal(&[self.core.peer_id()], now).is_none();
        if let Some(fence) = self.fence.as_mut().filter(|_| may_take_over) {
            fence.begin(&self.gateway.handle, self.keeper.router_check(), now);
        }
    }

    pub(super) fn handle_fenced(&mut self, fenced: Result<(), String>) {
        if self.core.is_owner() {
            // The end of the peer's process was seen before.
            return;
        }
        let (id, peer) = (self.core.peer_id(), Arc::clone(&self.peer().name));
        let taken = fenced.and_then(|()| {
            tracing::warn!(%peer, "the fence says that the peer is down");
            self.confirm_down(&[id]).map_err(|refused| refused.to_string())
        });
        if let Err(reason) = taken {
            tracing::error!(%peer, %reason, "silent peer not fenced");
        }
    }
}
