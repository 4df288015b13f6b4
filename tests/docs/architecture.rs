//! `gateway/ARCHITECTURE.md` is short.

use crate::page::Page;

const PAGE: &str = "gateway/ARCHITECTURE.md";
const LINES_MAX: usize = 150;

#[test]
fn page_is_short() {
    let lines = Page::read(PAGE).text.lines().count();
    assert!(lines <= LINES_MAX, "{PAGE} has {lines} lines, at most {LINES_MAX}");
}
