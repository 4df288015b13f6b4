//! Runs plugins. The only crate that knows Wasm; synchronous, without sockets.
//!
//! An [`Engine`] compiles a plugin into a [`Component`]; bound to a hook with settings it is a
//! [`Policy`], owned and asked by one thread. A failing plugin costs a
//! [`Fault`](evenkeel_core::Fault), never more.

#[allow(warnings, reason = "generated")]
mod bindings;
mod bisection;
mod cache;
mod compile;
mod component;
mod determinism;
mod engine;
mod frame;
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
mod restart;
mod schema;
mod shipped;
mod signature;
mod states;
mod ticker;
mod wrap;

pub use cache::{CODE_BYTES_MAX, Cache, Cached, private_folder};
pub use compile::{CompilerOutput, ORDER_BYTES_MAX, Order, compile_here, fulfil};
pub use component::{Component, look};
pub use engine::Engine;
pub use grant::{Allowed, Grant};
pub use keys::{Keys, Provenance, Seal, Unsigned, read_digest};
pub use limits::{BINARY_BYTES_MAX, Budgets};
pub use log::{Level, Line};
pub use manifest::{CONTRACT, Cost, Manifest};
pub use native::NativeCode;
pub use outline::Form;
pub use plugin_file::PluginFile;
pub use policy::Policy;
pub use refused::Refused;
pub use schema::Schema;
pub use shipped::{Shipped, shipped};
pub use signature::{BadKey, PublicKey, SecretKey, sign, signer};
