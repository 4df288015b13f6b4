//! The commands and files of `docs/scenarios.md`, taken from top to bottom as a reader types them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::binary::evenkeel;
use serde_json::Value;
use tempfile::TempDir;

use crate::commands::words;
use crate::page::{Block, Page, root};

/// Enough for a loaded machine that compiles a plugin.
const WITHIN: Duration = Duration::from_secs(120);

/// Enough for a policy that decides about a call, after the 5 s before its impairment.
const DECIDED_WITHIN: Duration = Duration::from_secs(30);

const ATTEMPTS: usize = 4;

struct Reader {
    /// Ends before its folders are removed.
    demo: Option<ChildProcess>,
    /// Sockets, caches and logs.
    home: TempDir,
    /// The folder in which the reader began. It has the same name in each run, so that cargo compiles less.
    projects: PathBuf,
    /// The folder in which the reader is.
    folder: PathBuf,
}

impl Reader {
    fn new() -> Reader {
        let checkout = root().display().to_string().replace('/', "-");
        let projects = std::env::temp_dir().join(format!("evenkeel-scenarios{checkout}"));
        let _ = fs::remove_dir_all(&projects);
        fs::create_dir_all(&projects).unwrap();
        let home = tempfile::tempdir().unwrap();
        Reader { demo: None, home, folder: projects.clone(), projects }
    }

    fn command(&self, words: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(evenkeel());
        command.args(words).current_dir(&self.folder).env_remove("EVENKEEL_API");
        for variable in ["XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
            command.env(variable, self.home.path());
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("author");
        command.env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true");
        command
    }

    fn start(&self, name: &str, words: &[impl AsRef<OsStr>]) -> ChildProcess {
        ChildProcess::start(name, &mut self.command(words), self.home.path()).unwrap()
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Types the lines of a block. Its calls run side by side, each until it shows the decision that the page promises.
    fn type_block(&mut self, block: &Block) {
        let mut calls = Vec::new();
        for line in block.text.lines() {
            let words = words(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words[..] {
                ["mkdir", folder] => fs::create_dir(self.folder.join(folder)).unwrap(),
                ["cd", ".."] => self.folder = self.projects.clone(),
                ["cd", folder] => self.folder.push(folder),
                ["evenkeel", "demo", ref options @ ..] => self.start_demo(options),
                // Tests of drills play it.
                ["evenkeel", "drill", ..] => {}
                ["evenkeel", "call", ref options @ ..] => {
                    let name = format!("call-{}", calls.len());
                    let words: Vec<String> = ["call", "--json"]
                        .iter()
                        .chain(options)
                        .map(|it| (*it).to_owned())
                        .collect();
                    let call = self.start(&name, &words);
                    calls.push((line.to_owned(), name, words, call));
                }
                ["evenkeel", "plugin", "test"] => {
                    self.pass(line, &["plugin", "test", "--worlds", "2"]);
                }
                ["evenkeel", ref command @ ..] => self.pass(line, command),
                _ => panic!("{}: {line}", block.place),
            }
        }
        for (line, name, words, mut call) in calls {
            let promised = |lines: &[String]| lines.iter().any(|shown| is_promised(&line, shown));
            let what = format!("the promised decision of `{line}`");
            let mut attempts = 1;
            // On a loaded machine a policy answers late. The native default may open a call at its floor, which leaves
            // nothing to decide.
            while let Err(error) =
                call.wait_for(&what, DECIDED_WITHIN, |lines| promised(lines).then_some(()))
            {
                assert!(attempts < ATTEMPTS, "{error}");
                println!("attempt {attempts}: {error}");
                attempts += 1;
                drop(call);
                call = self.start(&name, &words);
            }
        }
    }

    fn start_demo(&mut self, options: &[&str]) {
        let options = [&["demo", "--json", "--sessions", "20"][..], options].concat();
        // The demo ends its nodes itself after SIGTERM.
        let mut demo = self.start("demo", &options).with_grace(WITHIN);
        demo.json_line(WITHIN).unwrap();
        self.demo = Some(demo);
    }

    fn pass(&self, line: &str, words: &[&str]) {
        let Output { status, stdout, stderr } = self.run(words);
        let [out, error] = [&stdout, &stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert!(status.success(), "{line}: {out}{error}");
    }

    /// Saves a policy set, and waits until the gateway has taken it.
    fn save_set(&self, block: &Block) {
        fs::write(self.folder.join("policies").join(&block.info), &block.text).unwrap();
        let policy = format!("{}/degradation", block.info.trim_end_matches(".toml"));
        let until = Instant::now() + WITHIN;
        let is_active = || {
            let output = self.run(&["policy", "status", &policy, "--json"]);
            let status = serde_json::from_slice::<Value>(&output.stdout);
            status.is_ok_and(|status| status["policies"][0]["revision"].is_string())
        };
        while !is_active() {
            assert!(Instant::now() < until, "{} is not taken", block.place);
        }
    }
}

/// A line that a call printed shows the decision that the page promises.
fn is_promised(call: &str, shown: &str) -> bool {
    let Ok(shown) = serde_json::from_str::<Value>(shown) else { return false };
    let (state, answer) = (&shown["state"], &shown["answer"]);
    let (rung, cap) = (&state["rung"], &state["cap_kbps"]);
    let has = |option: &str| call.contains(option);
    // The ladder lowers no cap by less than a twentieth, and the floor is 300.
    let is_lowest = cap.as_u64().is_some_and(|kbps| (300..316).contains(&kbps));
    let is_by_author = || {
        let by = answer["by"].as_str().unwrap_or_default();
        by.starts_with("webinar/degradation@") && answer["reason"] == "lossy"
    };
    match () {
        () if has("--scenario call") && has("--loss") => *rung == 2,
        () if has("--scenario call") && has("--delay") => answer["reason"] == "queue",
        () if has("--scenario live") && has("--loss") => *rung == 1 && is_lowest,
        // Nothing changes.
        () if has("--scenario live") && has("--delay") => *rung == 0,
        () if has("role=presenter") => *rung == 1 && *cap == 300,
        () if has("role=attendee") => is_by_author(),
        () => panic!("the page promises nothing of `{call}`"),
    }
}

#[test]
fn scenarios_page_works_as_typed() {
    let mut reader = Reader::new();
    for block in Page::read("docs/scenarios.md").blocks() {
        match &*block.language {
            "sh" => reader.type_block(&block),
            "toml" => reader.save_set(&block),
            "rust" => fs::write(reader.folder.join(&block.info), &block.text).unwrap(),
            other => panic!("{}: {other}", block.place),
        }
    }
    assert!(reader.demo.is_some_and(|mut demo| demo.is_running()));
}
