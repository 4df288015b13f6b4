//! The lists of files in `docs/contributing/paths.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/contributing/paths.md";

/// The files of each path.
pub(crate) type Lists = BTreeMap<&'static str, BTreeSet<String>>;

/// Prints how the page differs from a run, or writes the lists of the run to it.
pub(crate) fn compare(root: &Path, lists: &Lists, renew: bool) -> Result<(), String> {
    let page = root.join(PAGE);
    // A tree from before this page has none.
    let Ok(mut text) = fs::read_to_string(&page) else { return Ok(()) };
    for (id, files) in lists {
        let begin = format!("<!-- files: {id} -->\n");
        let rest = text.split_once(&begin).map(|(_, rest)| rest);
        let listed = rest.and_then(|rest| rest.split_once("<!-- end -->")).map(|(list, _)| list);
        let listed = listed.ok_or_else(|| format!("{PAGE} has no list of {id}"))?;
        let written = list(files);
        if written == listed {
            continue;
        }
        if renew {
            text = text.replace(&format!("{begin}{listed}"), &format!("{begin}{written}"));
            continue;
        }
        let listed: BTreeSet<String> = read(listed);
        files.difference(&listed).for_each(|file| println!("{id}: {PAGE} does not list {file}"));
        listed.difference(files).for_each(|file| println!("{id}: {file} was not entered"));
    }
    if renew {
        fs::write(&page, text).map_err(|error| format!("{PAGE}: {error}"))?;
    }
    Ok(())
}

/// One line for each crate.
fn list(files: &BTreeSet<String>) -> String {
    let mut crates = BTreeMap::<&str, Vec<&str>>::new();
    for file in files {
        let inside = file.strip_prefix("gateway/").unwrap_or(file);
        let (name, path) = inside.split_once("/src/").unwrap_or(("", inside));
        crates.entry(name).or_default().push(path);
    }
    crates.iter().fold(String::new(), |mut text, (name, paths)| {
        let paths: Vec<String> = paths.iter().map(|path| format!("`{path}`")).collect();
        let _infallible = writeln!(text, "- `{name}`: {}", paths.join(", "));
        text
    })
}

fn read(list: &str) -> BTreeSet<String> {
    let lines = list.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("`: "));
    let files = lines.flat_map(|(name, paths)| {
        paths.split(", ").map(move |path| format!("gateway/{name}/src/{}", path.trim_matches('`')))
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_list_is_read_again() {
        let files = [
            "gateway/api/src/offer.rs",
            "gateway/core/src/rooms/moves.rs",
            "gateway/core/src/lib.rs",
        ];
        let files = BTreeSet::from(files.map(str::to_owned));
        let written = list(&files);
        assert_eq!(written, "- `api`: `offer.rs`\n- `core`: `lib.rs`, `rooms/moves.rs`\n");
        assert_eq!(read(&written), files);
    }
}
