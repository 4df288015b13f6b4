use super::*;

const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn failures_of_a_program_are_described() {
    let run = |words: &[&str], within| {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        run(&words, &["acquire", "2001:db8::10"], within).unwrap_err()
    };
    assert_eq!(run(&["/bin/sh", "-c", "exit 3"], WITHIN), "exit status: 3");
    let missing = run(&["/nonexistent/hook"], WITHIN);
    assert!(missing.starts_with("cannot be run: No such file"), "{missing}");
    let hangs = run(&["/bin/sh", "-c", "sleep 600; true"], Duration::from_millis(50));
    assert_eq!(hangs, "killed after 50ms");
}
