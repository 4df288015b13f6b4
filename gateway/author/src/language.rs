//! Languages of projects.

use std::path::Path;

/// The language of a project.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Language {
    /// Rust, with the SDK's source.
    Rust,
    /// C, with the SDK's header.
    C,
    /// JavaScript, compiled together with an engine.
    JavaScript,
}

impl Language {
    pub const ALL: [Language; 3] = [Language::Rust, Language::C, Language::JavaScript];

    /// The name on the command line: `rust`, `c` or `js`.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::JavaScript => "js",
        }
    }

    /// The file that a folder with a project of this language has.
    fn file(self) -> &'static str {
        match self {
            Language::Rust => "Cargo.toml",
            Language::C => "policy.c",
            Language::JavaScript => "policy.js",
        }
    }

    /// The language of the project in a folder; `None` if it has none.
    pub(crate) fn of(folder: &Path) -> Option<Language> {
        Language::ALL.into_iter().find(|language| folder.join(language.file()).is_file())
    }
}
