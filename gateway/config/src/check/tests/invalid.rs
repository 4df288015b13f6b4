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
fn only_a_close_word_is_suggested() {
    assert_eq!(nearest("eats", ["east", "west"]).as_deref(), Some("did you mean `east`?"));
    assert_eq!(nearest("nowhere", ["east", "west"]), None);
}
