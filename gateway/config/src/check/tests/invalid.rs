use super::*;

#[test]
fn place_counts_from_one() {
    let source = source(Path::new("a.toml"), "é = 1\nb = ü2\n");
    assert_eq!(line_and_column(source.inner(), 0), (1, 1));
    assert_eq!(line_and_column(source.inner(), "é = ".len()), (1, 5));
    assert_eq!(line_and_column(source.inner(), "é = 1\nb = ü".len()), (2, 6));
}

#[test]
fn report_shows_line_and_help() {
    let source = source(Path::new("a.toml"), "[gateway]\nregion = \"eats\"\n");
    let mut invalid = InvalidSetting::at(&source, 19..25, "`eats`", "a region with nodes");
    invalid.help = nearest("eats", ["west", "east"]);
    let report = InvalidSetting::render(&[invalid], Colour::Plain);
    for part in ["a.toml:2:10", "region = \"eats\"", "expected a region with nodes", "`east`"] {
        assert!(report.contains(part), "{part} is not in\n{report}");
    }
}

#[test]
fn unknown_name_without_known_ones_says_so() {
    let source = source(Path::new("a.toml"), "to = \"pager\"\n");
    let mut check = ConfigCheck::new(source, Path::new(""));
    check.refuse_unknown(&Spanned::new(5..12, "pager".to_owned()), "receiver", []);
    let invalid = check.into_invalid();
    assert_eq!(
        invalid[0].to_string(),
        "found unknown receiver `pager`, expected another receiver; there is none"
    );
}
