//! Opens, refreshes and closes sessions at nodes by the node's own protocol. A session at a node is a lease: it expires
//! unless refreshed, so nothing leaks if the gateway dies. Nothing here blocks: answers come later, and an opening
//! without an answer in time has failed.

mod agent;
mod driver;
mod drivers;
mod fencing;
mod message;
mod node_socket;
mod plain;
mod record;
mod rtpengine;
mod session;
pub mod socket;
mod webhook;

pub use driver::{Driver, DriverContext, DriverTable, NodeDriver, NodeInput, RecordScope};
pub use drivers::{Drivers, set};
use evenkeel_config::DriverKind;
pub use fencing::{Fencing, group_number};
pub use message::DriverMessage;
pub use node_socket::NodeSocket;
pub use record::{DriversRecord, DriversReplica, LeaseRecord, LeaseState};
pub use session::{
    Clock, ContinuedSession, DriverAction, LocalSource, OpenRequest, SessionFacts, Transport,
};
pub use socket::LocalTask;

/// The drivers of Evenkeel.
pub const DRIVERS: DriverTable =
    &[&plain::Plain, &agent::Agent, &rtpengine::Rtpengine, &webhook::Webhook];

/// The same drivers, as the configuration knows them.
pub fn kinds(drivers: DriverTable) -> Vec<&'static dyn DriverKind> {
    drivers.iter().map(|driver| *driver as &dyn DriverKind).collect()
}
