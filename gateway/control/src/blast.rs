//! Blast radii: copies of the core lose nodes on a thread of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_core::{
    BlastRadius, GatewayCopy, ModePrediction, NodeStanding, RestoreError, SessionCopy,
};
use evenkeel_model::{ClientLabel, Health, NodeId, RedundancyMode, RoomId, SessionId};
use evenkeel_process::scheduling;
use tokio::sync::oneshot;

use crate::handle::{ControlRequest, Handle};
use crate::messages::{ControlError, LossFigures, Slice};

/// The running nodes, those that carry most first.
pub fn by_load(nodes: &[NodeStanding]) -> Vec<NodeId> {
    let runs = |node: &&NodeStanding| !matches!(node.health, Health::Down | Health::Cold);
    let mut running: Vec<&NodeStanding> = nodes.iter().filter(runs).collect();
    running.sort_by_key(|node| Reverse((node.carried_kbps, node.rooms)));
    running.into_iter().map(|node| node.hop.node).collect()
}

impl From<&BlastRadius> for LossFigures {
    fn from(radius: &BlastRadius) -> LossFigures {
        LossFigures {
            rooms: radius.rooms.len() as u32,
            sessions: radius.sessions(),
            unplaced_sessions: radius.unplaced().map(|room| room.sessions).sum(),
            reduced_sessions: radius.rooms.iter().map(|room| room.reduced).sum(),
        }
    }
}

impl Handle {
    /// Computes the effect of each of these losses from one copy of the core: nodes first, then rooms and sessions in
    /// slices, each as it is then. Other callers wait meanwhile.
    ///
    /// # Errors
    /// Control is gone, the copied parts contradict each other, or no thread plays them.
    pub async fn blast(
        &self,
        losses: Vec<BTreeSet<NodeId>>,
    ) -> Result<Vec<BlastRadius>, ControlError> {
        self.play_copy(move |copy, now| losses.iter().map(|lost| copy.lose(lost, now)).collect())
            .await
    }

    /// Computes the spares, capacity, bandwidth and the effect of a loss in each redundancy mode, if all rooms had it, from one
    /// copy of the core.
    ///
    /// # Errors
    /// As [`Handle::blast`].
    pub async fn predict_modes(
        &self,
        lost: BTreeSet<NodeId>,
    ) -> Result<Vec<ModePrediction>, ControlError> {
        self.play_copy(move |copy, now| {
            let modes = RedundancyMode::ALL.into_iter();
            modes.map(|mode| copy.lose_in_mode(mode, &lost, now)).collect()
        })
        .await
    }

    /// Plays a copy of the core on a thread of its own.
    async fn play_copy<T: Send + 'static>(
        &self,
        play: impl FnOnce(&GatewayCopy, Instant) -> Result<T, RestoreError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let unavailable = || ControlError::Unavailable;
        let turn = Arc::clone(&self.copies).acquire_owned().await.map_err(|_| unavailable())?;
        let copy = self.copy().await?;
        let (done, played) = oneshot::channel();
        let run = move || {
            // A caller that gave up frees no turn for another copy.
            let _turn = turn;
            scheduling::run_after_others();
            let _ = done.send(play(&copy, Instant::now()));
        };
        let thread = std::thread::Builder::new().name("blast".into()).spawn(run);
        thread.map_err(|_| unavailable())?;
        played.await.map_err(|_| unavailable())?.map_err(ControlError::NotCopied)
    }

    /// For each of these carriers, the live sessions of its clients with their rooms.
    ///
    /// # Errors
    /// Control is gone.
    pub async fn clients_of<'a>(
        &self,
        carriers: &BTreeSet<&'a str>,
    ) -> Result<BTreeMap<&'a str, BTreeMap<SessionId, RoomId>>, ControlError> {
        let mut found: BTreeMap<&str, BTreeMap<_, _>> =
            carriers.iter().map(|carrier| (*carrier, BTreeMap::new())).collect();
        let mut after = Some(SessionId(0));
        while let Some(session) = after {
            let request = |reply| ControlRequest::CopySessions { after: session, reply };
            let Slice { items, last } = self.ask(request).await?;
            for session in items.iter().map(SessionCopy::record) {
                let carrier = ClientLabel::Carrier.value(&session.labels);
                if let Some(clients) = carrier.and_then(|carrier| found.get_mut(carrier)) {
                    clients.insert(session.id, session.room);
                }
            }
            after = last;
        }
        Ok(found)
    }

    async fn copy(&self) -> Result<GatewayCopy, ControlError> {
        let mut copy = self.copy_nodes().await?;
        let mut after = Some(RoomId(0));
        while let Some(room) = after {
            let request = |reply| ControlRequest::CopyRooms { after: room, reply };
            let Slice { items, last } = self.ask(request).await?;
            items.into_iter().for_each(|room| copy.add_room(room));
            after = last;
        }
        let mut after = Some(SessionId(0));
        while let Some(session) = after {
            let request = |reply| ControlRequest::CopySessions { after: session, reply };
            let Slice { items, last } = self.ask(request).await?;
            items.into_iter().for_each(|session| copy.add_session(session));
            after = last;
        }
        Ok(*copy)
    }
}
