//! `gateway/ARCHITECTURE.md` is short, names files that exist, and its five paths enter few of them.

use std::collections::BTreeSet;

use crate::page::{Page, quoted, root};

const PAGE: &str = "gateway/ARCHITECTURE.md";
const LINES_MAX: usize = 150;

/// Files that each path may enter, in the order of the page: packet, offer, routing decision, node failure, reload.
const FILES_MAX: [usize; 5] = [8, 12, 9, 9, 8];

#[test]
fn page_is_short() {
    let lines = Page::read(PAGE).text.lines().count();
    assert!(lines <= LINES_MAX, "{PAGE} has {lines} lines, at most {LINES_MAX}");
}

#[test]
fn paths_enter_few_files_that_exist() {
    let text = Page::read(PAGE).text;
    let section = text.split("\n## Five paths\n").nth(1).expect("a heading `## Five paths`");
    let section = section.split("\n## ").next().unwrap();
    let mut rest = section;
    for (at, most) in FILES_MAX.into_iter().enumerate() {
        let number = at + 1;
        let (_, from) =
            rest.split_once(&format!("\n{number}. ")).unwrap_or_else(|| panic!("no path {number}"));
        let path = from.split(&format!("\n{}. ", number + 1)).next().unwrap();
        let is_file = |word: &&str| word.ends_with(".rs");
        let files: BTreeSet<&str> = quoted(path).into_iter().filter(is_file).collect();
        let missing: Vec<_> =
            files.iter().filter(|file| !root().join("gateway").join(file).is_file()).collect();
        assert!(
            missing.is_empty(),
            "{PAGE}: path {number} names files that are not there: {missing:?}"
        );
        let count = files.len();
        assert!(
            (1..=most).contains(&count),
            "{PAGE}: path {number} enters {count} files, at most {most}"
        );
        rest = from;
    }
}
