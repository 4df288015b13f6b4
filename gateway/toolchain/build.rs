//! Fails before cargo compiles large crates if plugins cannot be compiled.

#[path = "src/lib.rs"]
#[allow(unreachable_pub, reason = "public in the library")]
mod toolchain;

fn main() {
    println!("cargo::rerun-if-changed=src/lib.rs");
    // Miri runs no plugin, and its toolchain needs no target for them.
    let runs_plugins = std::env::var_os("CARGO_CFG_MIRI").is_none();
    if runs_plugins && let Err(error) = toolchain::check_target() {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}
