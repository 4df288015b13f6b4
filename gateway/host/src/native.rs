//! Native code of plugins. No other module decides that code is trusted.
//!
//! The only module of this crate with `unsafe`: the engine cannot tell compiled code from forged
//! code. The bytes come from this crate only: from a compiler in this process, from the pipe of one
//! that this process started ([`CompileOrder`](crate::CompileOrder)), or from a file with this host's MAC
//! ([`Cache`](crate::Cache)).
#![expect(unsafe_code, reason = "loading native code is unsafe")]

use wasmtime::component::Component;

/// A plugin compiled for this machine and engine version.
pub struct NativeCode(Vec<u8>);

impl NativeCode {
    /// The caller vouches for the origin of the code.
    pub(crate) fn trusted(bytes: Vec<u8>) -> NativeCode {
        NativeCode(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for NativeCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NativeCode({} bytes)", self.0.len())
    }
}

/// Loads code. Code of another version, or for another configuration of the engine, is an error.
pub(crate) fn load(engine: &wasmtime::Engine, code: &NativeCode) -> wasmtime::Result<Component> {
    // SAFETY: a `NativeCode` is made by `trusted` alone. Its callers in this crate are the compiler
    // in this process, the reader of a compiler that this process started, and the cache, which
    // verified a MAC with a key known only to this host.
    unsafe { Component::deserialize(engine, &code.0) }
}
