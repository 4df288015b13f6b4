//! Frames that wait for the peer to read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frame::{FRAME_MAX, LinkFrame};

/// The length of all frames, in KiB: two of the longest.
const QUEUE_MAX_KIB: usize = 2 * FRAME_MAX / 1_024;

#[derive(Debug)]
pub(super) struct QueuedFrame {
    pub(super) frame: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// Frames to the peer. The connection ends when it is dropped.
#[derive(Debug)]
pub(super) struct FrameQueue {
    frames: mpsc::UnboundedSender<QueuedFrame>,
    room: Arc<Semaphore>,
}

impl FrameQueue {
    pub(super) fn new() -> (FrameQueue, mpsc::UnboundedReceiver<QueuedFrame>) {
        let (frames, queue) = mpsc::unbounded_channel();
        (FrameQueue { frames, room: Arc::new(Semaphore::new(QUEUE_MAX_KIB)) }, queue)
    }

    /// False if the peer does not read, or has disconnected.
    pub(super) fn send(&self, frame: &LinkFrame) -> bool {
        let Some(frame) = frame.encode() else { return false };
        let kib = frame.len().div_ceil(1_024) as u32;
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib);
        room.is_ok_and(|room| self.frames.send(QueuedFrame { frame, _room: room }).is_ok())
    }

    /// True if there is room for the longest frame.
    pub(super) fn has_room(&self) -> bool {
        self.room.available_permits() > QUEUE_MAX_KIB / 2
    }
}
