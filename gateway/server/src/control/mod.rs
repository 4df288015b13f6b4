//! Control: one thread owns the core. It is fed by bounded channels with events and summaries, never packets.

mod driver;
mod handle;
mod homes;
mod knock;
mod prober;
mod request;
mod thread;

pub(crate) use driver::{Driver, Drivers};
#[cfg(test)]
pub(crate) use handle::Request;
pub use handle::{
    Caller, Failed, Handle, Happened, NodeView, Opened, PolicyView, Reached, Rollout,
    RolloutOutcome, SessionView, Status, Told, Wanted,
};
pub(crate) use handle::{EVENTS_MAX, REQUESTS_MAX};
pub(crate) use homes::{Family, Homes, QuicListener, UdpListener};
pub(crate) use prober::Way as ProbeWay;
pub(crate) use thread::{Parts, WorkerLine, run};
