//! The mutations apply to the tree as it is.

use std::fs;
use std::path::Path;

/// The lines of a patch that the unpatched file contains: context and removed lines.
fn before(patch: &str) -> String {
    let hunk = patch.lines().skip_while(|line| !line.starts_with("@@")).skip(1);
    let lines = hunk.filter(|line| !line.starts_with('+'));
    lines.map(|line| format!("{}\n", line.get(1..).unwrap_or(""))).collect()
}

#[test]
fn mutations_match_the_source_once() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut misfits = Vec::new();
    let mut patches = 0;
    for entry in fs::read_dir(here.join("mutations")).expect("the mutations are there") {
        let path = entry.expect("a folder can be read").path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        patches += 1;
        let patch = fs::read_to_string(&path).expect("a patch can be read");
        let file = patch.lines().find_map(|line| line.strip_prefix("+++ b/"));
        let file = file.unwrap_or_else(|| panic!("{}: no file", path.display()));
        let source = fs::read_to_string(here.join("../..").join(file)).unwrap_or_default();
        let found = source.matches(&before(&patch)).count();
        if found != 1 {
            misfits.push(format!("{} matches {file} {found} times", path.display()));
        }
    }
    assert!(patches > 30, "{patches} mutations");
    assert!(misfits.is_empty(), "{}", misfits.join("\n"));
}
