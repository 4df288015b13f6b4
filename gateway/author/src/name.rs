//! Names of plugins, which appear in manifests, metrics and file names and name a crate.

use crate::failed::AuthorError;
use crate::sdk;

/// The manifest's limit for names.
const BYTES_MAX: usize = 64;

/// Keywords of Rust.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Names that cargo reserves, and crates of Rust itself.
const RESERVED: &[&str] =
    &["alloc", "build", "core", "deps", "examples", "incremental", "proc-macro", "std", "test"];

/// Checks the name of a new plugin, as it is written in `Cargo.toml`.
pub(crate) fn check(name: &str) -> Result<(), AuthorError> {
    let wrong = |expected| Err(AuthorError::BadName { found: name.into(), expected });
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || name.len() > BYTES_MAX || !name.chars().all(named) || name.ends_with('-') {
        return wrong(
            "1 to 64 lower-case letters, digits and hyphens, a letter first and no hyphen last, such as my-route",
        );
    }
    if KEYWORDS.contains(&name) || RESERVED.contains(&name) {
        return wrong("it is reserved by Rust or cargo; choose another, such as my-route");
    }
    if sdk::is_taken(name) {
        return wrong("it is a dependency of every plugin; choose another, such as my-route");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
