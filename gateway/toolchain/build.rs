//! Fails before cargo compiles large crates if plugins cannot be compiled.

#[path = "src/lib.rs"]
#[allow(unreachable_pub, reason = "public in the library")]
mod toolchain;

fn main() {
    println!("cargo::rerun-if-changed=src/lib.rs");
    if let Err(error) = toolchain::check_target() {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}
