//! The shipped plugins, built from `plugins/` with this crate and embedded.

/// A plugin that the binary contains.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// The plugin's folder under `plugins/`.
    pub name: &'static str,
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    pub bytes: &'static [u8],
}

/// All shipped plugins, ordered by name.
pub fn shipped() -> &'static [Shipped] {
    SHIPPED
}

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));
