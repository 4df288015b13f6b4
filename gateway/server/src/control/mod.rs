//! Control: one thread owns the core. It is fed by bounded channels with events and summaries, never packets.

mod agents;
mod canary;
mod doing;
mod driver;
mod equipment;
mod guard;
mod handle;
mod homes;
mod knock;
mod listing;
mod modes;
mod names;
mod offering;
mod operating;
mod orders;
mod prober;
mod request;
mod rollout;
mod shelf;
mod starting;
mod telling;
mod thread;
mod waiting;
mod walking;
mod words;

pub use crate::policy::Refusal;
pub(crate) use driver::{Driver, Drivers};
pub(crate) use equipment::Equipment;
pub use guard::Shrinks;
pub(crate) use handle::{EVENTS_MAX, REQUESTS_MAX, Request};
pub use handle::{Handle, NotReloaded, PolicyRefused, Reload, Reloaded};
pub(crate) use homes::{Family, Homes, QuicListener, UdpListener};
pub use listing::{Actor, ListChange, ListTold, NodeList, NotListed};
pub use modes::ModeView;
pub use names::{Named, Names};
pub use operating::{Operation, Place};
pub use orders::Order;
pub use prober::Unbelieved;
pub(crate) use prober::{Way as ProbeWay, connected};
pub(crate) use thread::{Parts, WorkerLine, run};
pub use walking::{Verb, Wish};
pub use words::{
    Caller, Disobeyed, Failed, Happened, LastRollout, NodeView, Opened, PolicyLife, PolicyView,
    Quarantined, Reached, Revoked, Rollout, RolloutOutcome, SessionView, Staged, Status, Told,
    Tried, WalkView, Wanted,
};
