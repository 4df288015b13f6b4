//! SDK for policy plugins: a policy is one Rust file, a pure function of its settings and of measurements.
//!
//! # A first policy
//!
//! A policy implements one *hook*: which sessions are admitted ([`Admission`]), which node carries a room
//! ([`Routing`]), how much quality a session gets ([`Degradation`]), which parameters a scenario has ([`Scenario`]). It
//! never sees a packet, and no packet waits for it: the data plane uses the last decision. It has no clock, no
//! randomness, no files and no network, so that a recording replays exactly.
//!
//! This one caps a session after three ticks of high jitter, and removes the cap when the jitter is low again:
//!
//! ```
//! use evenkeel_plugin_sdk::prelude::*;
//!
//! /// Settings: TOML in a policy set, validated against these bounds.
//! #[derive(Settings)]
//! pub struct Calm {
//!     /// Jitter from which a session is restless.
//!     #[setting(default = 30, unit = "ms", min = 1, max = 1000)]
//!     jitter: u32,
//!     /// Bit rate of a restless session.
//!     #[setting(default = "300 kbit/s", min = "24 kbit/s")]
//!     cap: BitRate,
//! }
//!
//! /// State of a session. It survives a hot swap of this policy, a trap, and a move to another gateway. The plugin itself
//! /// has no state.
//! #[derive(State, Clone, PartialEq)]
//! #[state(schema = 1)]
//! pub struct Memory {
//!     restless_ticks: u8,
//! }
//!
//! /// Reasons, shown on the decision's trace span.
//! #[derive(Reason)]
//! pub enum Why {
//!     /// It was restless for long enough.
//!     Jitter = 1,
//!     /// It is calm again.
//!     Calm = 2,
//! }
//!
//! #[degradation]
//! impl Degradation for Calm {
//!     type State = Memory;
//!     type Reason = Why;
//!     /// The gateway sends only these columns.
//!     const READS: &'static [Metric] =
//!         &[Metric::JitterUp, Metric::Cap, Metric::Floor, Metric::Ceiling];
//!
//!     fn tick(&self, session: &Session<Memory>, out: &mut Actions<Memory>) {
//!         // `None` means "not measured".
//!         let Some(jitter) = session.jitter_up_us() else { return };
//!         let restless = jitter >= self.jitter * 1000;
//!         let capped = session.cap_kbps() > Some(0);
//!         let before = session.state().restless_ticks;
//!         let ticks = if restless { before.saturating_add(1).min(3) } else { 0 };
//!         if ticks == 3 && !capped {
//!             let cap = session.within_bounds(self.cap.kbps());
//!             out.cap(cap).because(Why::Jitter).note("jitter_us", jitter.into());
//!         }
//!         if !restless && capped {
//!             out.lift_cap().because(Why::Calm);
//!         }
//!         if ticks != before {
//!             out.keep(&Memory { restless_ticks: ticks });
//!         }
//!     }
//! }
//!
//! // Tests run natively with `cargo test`: see the module `trial`.
//! use evenkeel_plugin_sdk::trial::{Trial, World, measured};
//!
//! let mut trial = Trial::of(Calm::default(), World::around("east"));
//! let restless = measured().jitter_up_us(30_000).cap_kbps(0);
//! let mut sessions = [trial.session(&[("device", "phone")], restless)];
//! assert_eq!(trial.tick(&mut sessions), []);
//! assert_eq!(trial.tick(&mut sessions), []);
//! assert_eq!(trial.tick(&mut sessions), [(0, Op::Cap, 300, 1)]);
//!
//! sessions[0].measured = measured().jitter_up_us(29_999).cap_kbps(300).into();
//! assert_eq!(trial.tick(&mut sessions), [(0, Op::Cap, 0, 2)]);
//!
//! // Settings are parsed as in the gateway.
//! assert!(Calm::parse(r#"{"cap": "1.5 Mbit/s"}"#).is_ok());
//! let error = Calm::parse(r#"{"jitter": 0}"#).err();
//! assert_eq!(error.as_deref(), Some("jitter: 0ms is below 1ms"));
//! ```
//!
//! The `Cargo.toml` of a plugin has `crate-type = ["cdylib", "rlib"]` (the first for the plugin, the second for tests)
//! and depends on this crate. One crate holds one policy with one hook. `cargo build --target wasm32-unknown-unknown`
//! builds the plugin; put the `.wasm` file beside the policy sets, or push it.
//!
//! # How it works
//!
//! The attribute exports the functions of the contract (`wit/policy.wit`) and writes a manifest into the custom section
//! `evenkeel:manifest`: name and version of the package, the settings' JSON Schema, metrics, actions and reasons, and
//! the cost of answers if declared by [`#[degradation(cost(…))]`](macro@crate::degradation). Measurements arrive as
//! columns of integers behind views ([`Session`], [`Room`], [`Node`], [`Region`]). Numbers and units are those of the
//! registry (`wit/registry.toml`); a function's name ends in its unit. The only imports are [`log`], [`note`] and the
//! lookup of a [`DataMap`]; a panic's message is logged automatically.

#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate self as evenkeel_plugin_sdk;

mod admission;
mod catalog;
mod data;
mod degradation;
mod device;
mod diag;
#[doc(hidden)]
pub mod flat;
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
mod node;
mod reason;
mod registry;
mod room;
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
pub use data::{DataMap, Document};
pub use degradation::{Actions, Degradation, Session};
pub use diag::{Level, log, note};
pub use evenkeel_plugin_macros::{
    Pack, Reason, Settings, State, admission, degradation, routing, scenario,
};
pub use guest::{Plugin, Policy};
pub use id::{NodeId, RegionId, RoomId, SessionId, ZoneId};
pub use labels::Labels;
pub use newcomer::{NewRoom, NewSession};
pub use node::{Node, Nodes};
pub use reason::Reason;
pub use registry::{
    Breaker, COMMON_REASONS_FROM, CONTRACT, CommonReason, Health, ImpairedSegment, Metric, Op,
    Param, label,
};
pub use room::{Room, Rooms};
pub use routing::{Moves, Placement, RoomMove, Routing};
pub use scenario::{Params, Scenario};
pub use settings::{BitRate, Setting, Settings};
pub use state::{Pack, State, pack, unpack};

/// Everything a policy needs, for `use evenkeel_plugin_sdk::prelude::*`.
pub mod prelude {
    pub use std::time::Duration;

    pub use crate::{
        Actions, Admission, BitRate, Breaker, Catalog, CommonReason, DataMap, Degradation,
        Document, Health, ImpairedSegment, Judgement, Labels, Level, Metric, Moves, NewRoom,
        NewSession, Node, NodeId, Nodes, Op, Pack, Param, Params, Placement, Reason, Region,
        RegionId, Regions, Room, RoomId, Rooms, Routing, Scenario, Session, SessionId, Setting,
        Settings, State, Verdict, ZoneId, admission, degradation, label, log, note, routing,
        scenario,
    };
}
