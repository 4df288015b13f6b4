//! Runs plugins. The only crate that knows Wasm; synchronous, without sockets.
//!
//! An [`Engine`] compiles a plugin into a [`Component`]; bound to a hook with settings it is a
//! [`BoundPlugin`], owned and asked by one thread. A failing plugin costs a
//! [`PluginFault`](evenkeel_model::PluginFault), never more.

mod arguments;
mod calls;
mod component;
mod documents;
mod engine;
mod flat;
mod guest;
mod isolation;
pub mod limits;
mod lookup;
mod manifest;
mod native;
mod observation;
mod plugin_file;
mod policy;
mod refusal;
mod schema;
mod store;
pub mod toolchain;
mod trust;

pub use documents::{DataDocument, DataDocuments, PluginInputs};
pub use engine::{Component, Engine, NativeCode};
pub use guest::processor_time;
pub use limits::{BINARY_BYTES_MAX, CallBudgets};
pub use manifest::{CONTRACT, CallCost, GrantLimits, Manifest, PluginGrant};
pub use native::{
    CODE_BYTES_MAX, Cache, Cached, CompileOrder, CompilerOutput, ORDER_BYTES_MAX, compile_here,
    compile_order, private_folder,
};
pub use observation::{OBSERVED_FUNCTION, OBSERVED_INTERFACE, ReachedPlaces, StackSamples};
pub use plugin_file::{PluginFile, PluginFormat, read_manifest};
pub use policy::{BoundPlugin, answer_difference};
pub use refusal::PluginRefusal;
pub use schema::{Schema, nearest};
pub use store::{GuestLogLine, LogLevel};
pub use trust::{
    InvalidKey, PluginSeal, Provenance, PublicKey, SecretKey, Shipped, TrustedKeys,
    UnsignedPlugins, read_digest, shipped, sign, signer,
};
