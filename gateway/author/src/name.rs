//! Names of plugins, which appear in manifests, metrics and file names and name a crate.

use std::fmt;
use std::str::FromStr;

use crate::failed::AuthorError;
use crate::sdk;

/// The manifest's limit for names.
const BYTES_MAX: usize = 64;

/// Keywords of Rust and names reserved by cargo.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// The validated name of a new plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name(Box<str>);

impl Name {
    /// The name as written in `Cargo.toml`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = AuthorError;

    fn from_str(name: &str) -> Result<Name, AuthorError> {
        let wrong = |expected| Err(AuthorError::BadName { found: name.into(), expected });
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || name.len() > BYTES_MAX || !name.chars().all(named) || name.ends_with('-') {
            return wrong(
                "1 to 64 lower-case letters, digits and hyphens, a letter first and no hyphen last, such as my-route",
            );
        }
        if RESERVED.contains(&name) {
            return wrong("it is reserved by Rust or cargo; choose another, such as my-route");
        }
        if sdk::is_taken(name) {
            return wrong("it is a dependency of every plugin; choose another, such as my-route");
        }
        Ok(Name(name.into()))
    }
}

#[cfg(test)]
mod tests;
