//! Pages of Markdown: their fenced blocks, tables and links.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file.
pub(crate) struct Page {
    /// Relative to the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A fenced block: what stands behind the fence, and what is in it.
pub(crate) struct Block {
    pub(crate) place: Line,
    pub(crate) language: String,
    /// The words after the language: the file that the block stands for, the request that it is the body of, or its type of the API.
    pub(crate) info: String,
    pub(crate) text: String,
}

/// `docs/api.md:17`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Line {
    path: String,
    line: usize,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The READMEs at the top, those of plugins, policies and examples, and the pages of `docs/` and `docs/operations/`.
pub(crate) fn pages() -> Vec<Page> {
    let fixed = [
        "README.md",
        "README.zh-CN.md",
        "plugins/README.md",
        "policies/README.md",
        "docs/examples/janus/README.md",
    ];
    let docs = ["docs", "docs/operations"].into_iter().flat_map(|folder| {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        entries.map(move |entry| format!("{folder}/{}", entry.unwrap().file_name().display()))
    });
    let mut paths: Vec<String> = fixed.map(str::to_owned).into_iter().chain(docs).collect();
    paths.retain(|path| path.ends_with(".md"));
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

impl Page {
    pub(crate) fn read(path: &str) -> Page {
        let text = fs::read_to_string(root().join(path));
        Page { path: path.to_owned(), text: text.unwrap_or_else(|error| panic!("{path}: {error}")) }
    }

    /// The text with each of these tables between the marks of its name.
    pub(crate) fn with_tables(&self, tables: &[(&str, String)]) -> String {
        let path = &self.path;
        tables.iter().fold(self.text.clone(), |text, (name, table)| {
            let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
            let parts = text
                .split_once(&begin)
                .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
            let (before, after) = parts.unwrap_or_else(|| panic!("{path}: no {begin}…{end}"));
            format!("{before}{begin}{table}{end}{after}")
        })
    }

    /// Lines outside of fenced blocks, numbered from 1.
    pub(crate) fn prose(&self) -> Vec<(Line, &str)> {
        let mut fenced = false;
        let lines = self.text.lines().enumerate().filter(move |(_, line)| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        });
        lines.map(|(at, line)| (self.line(at + 1), line)).collect()
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let Some(info) = line.trim_start().strip_prefix("```") else { continue };
            let (language, info) = info.split_once(' ').unwrap_or((info, ""));
            let inside = lines.by_ref().map(|(_, line)| line);
            let inside = inside.take_while(|line| !line.trim_start().starts_with("```"));
            let text = inside.map(|line| format!("{line}\n")).collect();
            let (language, info) = (language.to_owned(), info.trim().to_owned());
            blocks.push(Block { place: self.line(at + 1), language, info, text });
        }
        blocks
    }

    /// The rows of all tables, without heads: cells as they are written.
    pub(crate) fn rows(&self) -> Vec<(Line, Vec<String>)> {
        let prose = self.prose();
        let is_rule = |line: &str| line.starts_with("|--") || line.starts_with("| --");
        let rows = prose.iter().enumerate().filter(|(at, (_, line))| {
            let heads = prose.get(at + 1).is_some_and(|(_, next)| is_rule(next));
            line.starts_with('|') && !is_rule(line) && !heads
        });
        rows.map(|(_, (place, line))| (place.clone(), cells(line))).collect()
    }

    /// The first word in backticks of each table row under a heading.
    pub(crate) fn names_under(&self, heading: &str) -> BTreeSet<String> {
        let path = &self.path;
        let section = self.text.split(&format!("\n{heading}\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("{path} has no heading `{heading}`"));
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| quoted(row)[0].to_owned()).collect()
    }

    fn line(&self, line: usize) -> Line {
        Line { path: self.path.clone(), line }
    }
}

/// The cells of a row; `\|` is a bar.
pub(crate) fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{0}");
    row.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}

/// The words between backticks.
pub(crate) fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
