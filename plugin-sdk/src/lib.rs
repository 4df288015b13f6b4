//! What a policy author depends on.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
mod catalog;
mod degradation;
mod diag;
mod frame;
mod guest;
mod id;
#[doc(hidden)]
pub mod json;
mod keep;
mod labels;
#[doc(hidden)]
pub mod manifest;
mod newcomer;
mod reason;
mod registry;
mod routing;
mod scenario;
#[doc(hidden)]
pub mod settings;
mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod trial;
#[doc(hidden)]
pub mod wit;

pub use admission::{Admission, Judgement, Region, Regions, Verdict};
pub use catalog::Catalog;
pub use degradation::{Actions, Degradation, Session};
pub use diag::{Level, log, note};
pub use evenkeel_plugin_macros::{
    Pack, Reason, Settings, State, admission, degradation, routing, scenario,
};
pub use guest::{Plugin, Policy};
pub use id::{NodeId, RegionId, RoomId, SessionId, ZoneId};
pub use labels::Labels;
pub use newcomer::{NewRoom, NewSession};
pub use reason::Reason;
pub use registry::{Breaker, CONTRACT, Health, Metric, Op, Param, label};
pub use routing::{Moves, Node, Nodes, Placement, Room, RoomMove, Rooms, Routing};
pub use scenario::{Params, Scenario};
pub use settings::{Setting, Settings};
pub use state::{Pack, State, pack, unpack};

/// Everything a policy needs, for `use evenkeel_plugin_sdk::prelude::*`.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::{
        Actions, Admission, Breaker, Catalog, Degradation, Health, Judgement, Labels, Level,
        Metric, Moves, NewRoom, NewSession, Node, NodeId, Nodes, Op, Pack, Param, Params,
        Placement, Reason, Region, RegionId, Regions, Room, RoomId, Rooms, Routing, Scenario,
        Session, SessionId, Setting, Settings, State, Verdict, ZoneId, admission, degradation,
        label, log, note, routing, scenario,
    };
}
