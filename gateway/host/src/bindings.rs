//! The host's side of the contract, generated from `plugin-sdk/wit/policy.wit`.
//!
//! The world below exists on this side only: it makes the generator write every hook once. A plugin
//! exports the hooks of its manifest, and each is looked up by name.

wasmtime::component::bindgen!({
    inline: "
        package evenkeel:host;
        world every-hook {
            import evenkeel:policy/diag@0.1.0;
            export evenkeel:policy/guest@0.1.0;
            export evenkeel:policy/admission@0.1.0;
            export evenkeel:policy/routing@0.1.0;
            export evenkeel:policy/degradation@0.1.0;
            export evenkeel:policy/scenario@0.1.0;
        }
    ",
    path: "../../plugin-sdk/wit",
    imports: { default: trappable },
    ownership: Borrowing { duplicate_if_necessary: true },
});
