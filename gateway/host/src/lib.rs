//! Asks: the only crate that knows Wasm; synchronous, no sockets.
//!
//! An [`Engine`] compiles a plugin into a [`Component`]; bound to a hook with settings it is a [`Policy`], which one
//! thread owns and asks. A plugin that fails costs a [`Fault`](evenkeel_core::Fault), never more.

#[allow(warnings, reason = "generated")]
mod bindings;
mod component;
mod diary;
mod engine;
mod frame;
mod guest;
mod hooks;
pub mod limits;
mod manifest;
mod outline;
mod policy;
mod refused;
mod schema;
mod shipped;
mod states;
mod ticker;
mod wrap;

pub use component::Component;
pub use diary::{Level, Line};
pub use engine::Engine;
pub use limits::{BINARY_BYTES_MAX, Budgets};
pub use manifest::{CONTRACT, Manifest, Reason};
pub use policy::Policy;
pub use refused::Refused;
pub use schema::Schema;
pub use shipped::{Shipped, shipped};
