//! Code of this machine, and the one place where it is believed.
//!
//! The one module of this crate with `unsafe`: the engine runs what it is given here, and cannot tell code that a compiler made
//! from code that somebody wrote. So the bytes come from nowhere but this crate's own hands: from a compiler in this
//! process, from one that was started with a key that only it was told ([`Order`](crate::Order)), or from a file with this
//! host's MAC on it ([`Cache`](crate::Cache)).
#![expect(unsafe_code, reason = "the engine takes native code on our word alone")]

use wasmtime::component::Component;

/// A plugin compiled for this machine, by this version of the engine.
pub struct NativeCode(Vec<u8>);

impl NativeCode {
    /// Whoever calls this knows who made the code.
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

/// Puts code into memory. Code of another version, or for another configuration of the engine, is an error.
pub(crate) fn load(engine: &wasmtime::Engine, code: &NativeCode) -> wasmtime::Result<Component> {
    // SAFETY: a `NativeCode` is made by `trusted` alone, whose callers in this crate are the compiler in this process and
    // two that verified a MAC under a key which only such a compiler, or this host, knows.
    unsafe { Component::deserialize(engine, &code.0) }
}
