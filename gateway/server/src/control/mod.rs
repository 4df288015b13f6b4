//! Control: one thread owns the core. It is fed by bounded channels with events and summaries, never packets.

mod handle;

pub use handle::{
    Failed, Handle, NodeView, Opened, PolicyView, Reached, Rollout, RolloutOutcome, RoomView,
    SessionView, Status, Told, Wanted,
};
