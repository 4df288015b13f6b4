use super::super::*;

#[test]
fn output_lines_are_joined_truncated_and_limited() {
    let mut output = ProgramOutput::new(NodeHook::Start, "n");
    let now = Instant::now();
    assert!(output.take(b"half a ", now).is_empty());
    assert_eq!(output.take(b"line\x1b[1m\nand", now), ["half a line [1m"]);
    let long = output.take(&[[b'x'; 1_000].as_slice(), b"\n"].concat(), now);
    assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX]);
    let many = output.take(&b"x\n".repeat(100), now);
    assert_eq!(many.len(), 48);
    let later = output.take(b"y\n", now + Duration::from_secs(1));
    assert_eq!(later, ["(52 lines were not shown)", "y"]);
    output.line.clear();
}
