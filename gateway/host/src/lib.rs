//! Runs plugins. The only crate that knows Wasm; synchronous, without sockets.
//!
//! An [`Engine`] compiles a plugin into a [`Component`]; bound to a hook with settings it is a
//! [`BoundPlugin`], owned and asked by one thread. A failing plugin costs a
//! [`PluginFault`](evenkeel_model::PluginFault), never more.

#![deny(missing_docs)]

#[allow(warnings, reason = "generated")]
mod bindings;
mod bisection;
mod cache;
mod compile;
mod component;
mod determinism;
mod engine;
mod grant;
mod guest;
mod hooks;
mod keys;
pub mod limits;
mod log;
mod manifest;
mod native;
mod outline;
mod plugin_file;
mod policy;
mod quarantine;
mod refused;
mod schema;
mod shipped;
mod signature;
mod states;
mod wrap;

pub use cache::{CODE_BYTES_MAX, Cache, Cached, private_folder};
pub use compile::{CompileOrder, CompilerOutput, ORDER_BYTES_MAX, compile_here, fulfil};
pub use component::{Component, look};
pub use engine::Engine;
pub use grant::{GrantLimits, PluginGrant};
pub use keys::{PluginSeal, Provenance, TrustedKeys, Unsigned, read_digest};
pub use limits::{BINARY_BYTES_MAX, CallBudgets};
pub use log::{GuestLogLine, LogLevel};
pub use manifest::{CONTRACT, CallCost, Manifest};
pub use native::NativeCode;
pub use outline::Form;
pub use plugin_file::PluginFile;
pub use policy::BoundPlugin;
pub use refused::PluginRefusal;
pub use schema::Schema;
pub use shipped::{Shipped, shipped};
pub use signature::{BadKey, PublicKey, SecretKey, sign, signer};
