//! The plugins we ship, built from `plugins/` with this crate and embedded.

/// A plugin we ship.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Its folder under `plugins/`.
    pub name: &'static str,
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    pub bytes: &'static [u8],
}

/// The plugins we ship, by name.
pub fn shipped() -> &'static [Shipped] {
    SHIPPED
}

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));
