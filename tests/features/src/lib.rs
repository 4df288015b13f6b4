//! One set of features for tests.
//!
//! Cargo enables those features of a dependency that the selected packages ask for. Without this crate, `cargo test -p
//! evenkeel-media` would build serde, tokio and all that depends on them again, with other features than `cargo test
//! --workspace` did. Each crate of `gateway/` has it among its dev-dependencies; binaries do not contain it.
