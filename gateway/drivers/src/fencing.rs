//! The ownership of a group, in messages to nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_media::trunk::GroupOwner;
use evenkeel_model::NodeId;
use tokio::sync::mpsc;

/// Reports of refused messages that wait. One is enough: all name about the same epoch.
const REFUSALS_MAX: usize = 64;

/// The epoch of this gateway in the messages to nodes, which refuse them once another gateway of the group is the owner.
#[derive(Default, Debug)]
pub struct Fencing {
    group: u32,
    /// 0: this gateway owns no addresses of a group.
    epoch: AtomicU64,
    refused: Option<mpsc::Sender<u64>>,
}

impl Fencing {
    /// Returns the fencing of a member of this group, and the newer epochs because of which nodes refuse its messages.
    pub fn new(group: u32) -> (Arc<Fencing>, mpsc::Receiver<u64>) {
        let (refused, epochs) = mpsc::channel(REFUSALS_MAX);
        let fencing = Fencing { group, epoch: AtomicU64::new(0), refused: Some(refused) };
        (Arc::new(fencing), epochs)
    }

    /// Signs messages in the name of this ownership from now on; 0 ends it.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The group and epoch in whose name messages are signed; `None` without a group.
    pub fn owner(&self) -> Option<GroupOwner> {
        let epoch = self.epoch.load(Ordering::Acquire);
        (epoch > 0).then_some(GroupOwner { group: self.group, epoch })
    }

    /// Handles that a node refused a message because it knows this epoch. Messages that were under way while this
    /// gateway's own epoch rose do not count.
    pub fn handle_refused(&self, node: NodeId, epoch: u64) {
        if self.owner().is_some_and(|owner| owner.epoch < epoch)
            && let Some(refused) = &self.refused
        {
            tracing::debug!(%node, epoch, "message refused: the group has a newer owner");
            // A full channel holds the same.
            let _ = refused.try_send(epoch);
        }
    }
}

/// The number of a group in messages to nodes; equal at all members.
pub fn group_number(cluster: &evenkeel_config::GroupSettings) -> u32 {
    let digest = evenkeel_process::sha256(cluster.members().join(" ").as_bytes());
    u32::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests;
