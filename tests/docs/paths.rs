//! The lists of files in `docs/contributing/paths.md`.

use std::fs;

use crate::page::root;

#[test]
fn files_of_paths_exist() {
    let page = fs::read_to_string(root().join("docs/contributing/paths.md")).unwrap();
    let mut files = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("- `")) {
        let (name, paths) = line.split_once("`: ").unwrap_or_else(|| panic!("{line}"));
        for path in paths.split(", ") {
            let file = format!("gateway/{name}/src/{}", path.trim_matches('`'));
            assert!(root().join(&file).exists(), "{file} is gone");
            files += 1;
        }
    }
    assert!(files > 100, "{files} files");
}
