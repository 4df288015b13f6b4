//! Command lines of the documentation are such as the programs take.

use std::fs;
use std::iter::Peekable;
use std::process::{Command, Stdio};
use std::str::Chars;

use crate::examples::refused;
use crate::gateway::Gateway;
use crate::page::{Line, pages, root};
use evenkeel_testkit::binary::evenkeel;

/// Programs that are not ours.
const OTHERS: [&str; 15] = [
    "cd",
    "mkdir",
    "cargo",
    "rustup",
    "npm",
    "clang",
    "openssl",
    "cat",
    "cp",
    "nats",
    "umask",
    "systemctl",
    "python3",
    "gst-launch-1.0",
    "evenkeel-simulate",
];

/// Verbs that go on until they are ended, play a world, or ask several gateways: of these the arguments alone are looked at.
const LONG: [&str; 6] = ["call", "demo", "drill", "probe", "sample-node", "run"];

#[test]
fn command_lines_are_taken() {
    let gateway = Gateway::start();
    let folder = tempfile::tempdir().unwrap();
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut wrong = Vec::new();
    for (place, line) in lines() {
        let words = words(&line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let reason = match words[..] {
            ["evenkeel", ref arguments @ ..] => usage(arguments, folder.path()),
            ["curl", ref arguments @ ..] => curl(&gateway, arguments),
            ["make", ref targets @ ..] => {
                let known = |target: &&&str| {
                    makefile.contains(&format!("\n{target}")) || target.contains('=')
                };
                let unknown = targets.iter().find(|target| !known(target));
                unknown.map(|target| format!("the Makefile has no target `{target}`"))
            }
            [program, ..] if OTHERS.contains(&program) => None,
            [program, ..] => Some(format!("`{program}` is not checked by this test")),
            [] => None,
        };
        wrong.extend(reason.map(|reason| format!("{place}: {line}: {reason}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs the command where there is no gateway and no file: the parser of arguments says whether it is wrong.
fn usage(arguments: &[&str], folder: &std::path::Path) -> Option<String> {
    let is_long = arguments.first().is_some_and(|verb| LONG.contains(verb));
    let ran = Command::new(evenkeel())
        .args(arguments)
        .args(is_long.then_some("--help"))
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    said.contains("Usage: evenkeel").then(|| said.lines().next().unwrap_or_default().to_owned())
}

fn curl(gateway: &Gateway, arguments: &[&str]) -> Option<String> {
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| *argument == flag)?;
        arguments.get(at + 1).copied()
    };
    let url = arguments.iter().find_map(|argument| argument.strip_prefix("http://localhost"));
    let body = after("-d");
    let method = after("-X").unwrap_or(if body.is_some() { "POST" } else { "GET" });
    match url {
        Some("/v1/events") => None,
        // The address for clients, which the reader's gateway has.
        None if arguments.iter().any(|argument| argument.starts_with("https://")) => None,
        Some(path) => refused(gateway, method, path, body.unwrap_or_default()),
        None => Some("no URL that begins with http://localhost".to_owned()),
    }
}

/// The lines of all `sh` blocks, and those of `console` blocks that are typed after `$ `. In `sh` a quote or a backslash carries a line
/// on into the next; a `console` block has each command in one line, since the next line has no prompt.
fn lines() -> Vec<(Line, String)> {
    let mut lines = Vec::new();
    for block in pages().iter().flat_map(crate::page::Page::blocks) {
        let prompt = match &*block.language {
            "sh" => "",
            "console" => "$ ",
            _ => continue,
        };
        let mut line = String::new();
        for part in block.text.lines().filter_map(|line| line.strip_prefix(prompt)) {
            line.push_str(part);
            if line.ends_with('\\') {
                line.pop();
            } else if line.split(" #").next().unwrap().matches('\'').count() % 2 == 1 {
                line.push('\n');
            } else {
                lines.push((block.place.clone(), std::mem::take(&mut line)));
            }
        }
        assert!(line.is_empty(), "{}: a quote is left open: {line}", block.place);
    }
    lines
}

/// The words of a line as a shell makes them, of the first command of it, without a comment.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    while let Some(word) = word(&mut rest) {
        words.push(word);
    }
    words
}

fn word(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
    if rest.peek().is_none_or(|c| "#&|>".contains(*c)) {
        return None;
    }
    let mut word = String::new();
    while let Some(c) = rest.next_if(|c| !c.is_whitespace()) {
        match c {
            '\'' | '"' => word.extend(rest.by_ref().take_while(|other| *other != c)),
            _ => word.push(c),
        }
    }
    Some(word)
}
