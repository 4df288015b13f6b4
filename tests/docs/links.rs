//! Links lead somewhere, and the READMEs stay short.

use crate::page::{Page, pages, root};

const README_LINES_MAX: usize = 150;

#[test]
fn relative_links_lead_to_files_and_headings() {
    let mut broken = Vec::new();
    for page in pages() {
        let folder = root().join(&page.path).parent().unwrap().to_owned();
        for (place, line) in page.prose() {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|target| !target.contains("://")) {
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let path =
                    if file.is_empty() { root().join(&page.path) } else { folder.join(file) };
                if !path.exists() {
                    broken.push(format!("{place}: there is no file `{target}`"));
                } else if !anchor.is_empty() && !anchors(&path).contains(&anchor.to_owned()) {
                    broken.push(format!("{place}: there is no heading for `{target}`"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn index_of_operations_lists_each_section() {
    let index = Page::read("docs/operations.md").text;
    let mut missing = Vec::new();
    for page in pages() {
        let Some(name) = page.path.strip_prefix("docs/operations/") else { continue };
        let prose = page.prose();
        let headings =
            prose.iter().filter_map(|(place, line)| Some((place, line.strip_prefix("## ")?)));
        for (place, heading) in headings {
            if !index.contains(&format!("(operations/{name}#{})", anchor(heading))) {
                missing.push(format!("{place}: {heading}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/operations.md lacks:\n{}", missing.join("\n"));
}

#[test]
fn readmes_are_short() {
    for path in ["README.md", "README.zh-CN.md"] {
        let lines = Page::read(path).text.lines().count();
        assert!(lines <= README_LINES_MAX, "{path} has {lines} lines, at most {README_LINES_MAX}");
    }
}

fn anchors(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let words = heading.to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
