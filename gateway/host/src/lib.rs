//! Asks: the only crate that knows Wasm; synchronous, no sockets.
mod bindings;
