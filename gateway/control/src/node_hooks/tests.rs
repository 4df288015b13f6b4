mod output;
mod program;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use evenkeel_model::HookTerms;
use evenkeel_testkit::http::{http_answer as says, http_server as server};
use tempfile::tempdir;
use tokio::sync::mpsc::Receiver;

use super::*;

const NODE: NodeId = NodeId(3);

impl HookProgram {
    fn over(self) {
        self.thread.join().unwrap();
    }
}

fn start(script: &str, stop_with_gateway: bool) -> StartHook {
    let words = ["/bin/sh", "-c", script].map(Into::into).into();
    let by = StartBy::Command { words, stop_with_gateway };
    hook(by, Duration::from_secs(9))
}

fn hook(by: StartBy, within: Duration) -> StartHook {
    StartHook { by, within, stop: None, terms: HookTerms::default() }
}

fn node_hooks() -> (NodeHooks, Receiver<HookFailed>) {
    let (failed, told) = tokio::sync::mpsc::channel(4);
    (NodeHooks::new(failed, None, true), told)
}

/// Runs a hook that starts a child process, and returns both process IDs.
fn stay(node_hooks: &mut NodeHooks, name: &str, stop_with_gateway: bool) -> [i32; 2] {
    stay_as(node_hooks, (NODE, "n"), name, stop_with_gateway)
}

fn stay_as(
    node_hooks: &mut NodeHooks,
    (node, called): (NodeId, &str),
    name: &str,
    stop_with_gateway: bool,
) -> [i32; 2] {
    let folder = tempdir().unwrap();
    let file = folder.path().join(name);
    let script = format!(
        "sleep 300 & echo $$ $! > {0}.new; mv {0}.new {0}; wait; sleep 300",
        file.display()
    );
    node_hooks.start(node, &called.into(), &start(&script, stop_with_gateway), 1, None);
    let text = until(|| std::fs::read_to_string(&file).ok());
    let pids: Vec<i32> = text.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    pids.try_into().unwrap()
}

fn until<T>(look: impl Fn() -> Option<T>) -> T {
    loop {
        match look() {
            Some(found) => return found,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

fn gone(pids: [i32; 2]) {
    until(|| pids.iter().all(|pid| !is_running(*pid)).then_some(()));
}

#[test]
fn failed_hook_is_reported_and_success_is_not() {
    let (mut node_hooks, mut told) = node_hooks();
    node_hooks.start(NODE, &"n".into(), &start("exit 3", false), 1, None);
    assert_eq!(told.blocking_recv(), Some(HookFailed { node: NODE, attempt: 1 }));
    let by = StartBy::Command { words: vec!["/nowhere/at-all".into()], stop_with_gateway: false };
    let nowhere = StartHook { by, ..start("", false) };
    node_hooks.start(NODE, &"n".into(), &nowhere, 2, None);
    let failed = told.blocking_recv().unwrap();
    assert_eq!(failed, HookFailed { node: NODE, attempt: 2 });
    assert!(node_hooks.is_under_way(failed));
    node_hooks.start(NODE, &"n".into(), &start("exit 0", false), 3, None);
    assert!(!node_hooks.is_under_way(failed), "a result of an earlier call is ignored");
    node_hooks.give_up(NODE);
    node_hooks.ending.remove(&NODE).unwrap().remove(0).join().unwrap();
    node_hooks.start(NODE, &"n".into(), &start("exit 0", false), 4, None);
    let RunningHook::Program(program) = node_hooks.running.remove(&NODE).unwrap().running else {
        panic!("a program")
    };
    program.over();
    assert!(told.try_recv().is_err());
}

#[test]
fn program_has_the_trace_of_its_start_alone() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("trace");
    let script = format!(
        "echo \"$TRACEPARENT $TRACESTATE\" > {0}.new; mv {0}.new {0}; exit 0",
        file.display()
    );
    let (mut node_hooks, _told) = node_hooks();
    for (tracestate, expected) in
        [(Some("k=v".into()), "00-ab-cd-01 k=v\n"), (None, "00-ab-cd-01 \n")]
    {
        let trace = TraceHeaders { traceparent: "00-ab-cd-01".to_owned(), tracestate };
        node_hooks.start(NODE, &"n".into(), &start(&script, false), 1, Some(trace));
        assert_eq!(until(|| std::fs::read_to_string(&file).ok()), expected);
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn program_ends_with_the_gateway_if_configured() {
    for stops in [true, false] {
        let (mut node_hooks, _told) = node_hooks();
        let pids = stay(&mut node_hooks, &format!("ends-{stops}"), stops);
        assert!(pids.iter().all(|pid| is_running(*pid)));
        drop(node_hooks);
        if stops {
            gone(pids);
        } else {
            assert!(pids.iter().all(|pid| is_running(*pid)));
            for pid in pids {
                assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
            }
        }
    }
}

#[test]
fn programs_run_on_after_a_hand_over() {
    let (mut node_hooks, _told) = node_hooks();
    let running = stay(&mut node_hooks, "runs", true);
    let elsewhere = NodeId(NODE.0 + 1);
    let removed = stay_as(&mut node_hooks, (elsewhere, "other"), "removed", true);
    node_hooks.release(elsewhere);
    node_hooks.leave_running();
    drop(node_hooks);
    assert!(running.into_iter().chain(removed).all(is_running));
    // Their threads end the children.
    for [leader, _] in [running, removed] {
        assert!(Command::new("kill").arg(leader.to_string()).status().unwrap().success());
    }
    gone(running);
    gone(removed);
}

#[test]
fn given_up_start_leaves_no_process() {
    let (mut node_hooks, mut told) = node_hooks();
    let pids = stay(&mut node_hooks, "given-up", false);
    node_hooks.give_up(NODE);
    gone(pids);
    let first = stay(&mut node_hooks, "again", true);
    let second = stay(&mut node_hooks, "again", true);
    assert!(!is_running(first[0]) && is_running(second[0]), "one at a time");
    gone(first);
    assert!(told.try_recv().is_err(), "an ended call reports no failure");
}

#[test]
fn program_of_a_removed_node_runs_on() {
    for stops in [true, false] {
        let (mut node_hooks, mut told) = node_hooks();
        let left = stay(&mut node_hooks, &format!("left-{stops}"), stops);
        node_hooks.release(NODE);
        let other = stay_as(&mut node_hooks, (NODE, "other"), &format!("other-{stops}"), true);
        node_hooks.give_up(NODE);
        gone(other);
        assert!(left.iter().all(|pid| is_running(*pid)));
        assert!(told.try_recv().is_err(), "nothing failed");
        drop(node_hooks);
        if !stops {
            assert!(left.iter().all(|pid| is_running(*pid)));
            for pid in left {
                assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
            }
        }
        gone(left);
    }
}

#[test]
fn program_of_a_removed_node_ends_at_restart() {
    for stops in [true, false] {
        let (mut node_hooks, mut told) = node_hooks();
        let left = stay(&mut node_hooks, &format!("before-{stops}"), stops);
        node_hooks.release(NODE);
        let (elsewhere, file) = (NodeId(NODE.0 + 1), format!("after-{stops}"));
        let new = stay_as(&mut node_hooks, (elsewhere, "n"), &file, true);
        assert!(!is_running(left[0]) && is_running(new[0]), "one at a time");
        gone(left);
        assert!(told.try_recv().is_err(), "an ended call reports no failure");
    }
}

#[test]
fn stopped_node_ends_its_program_without_a_failure() {
    let (mut node_hooks, mut told) = node_hooks();
    let pids = stay(&mut node_hooks, "stopped", false);
    node_hooks.stop(NODE, &"n".into(), &start("", false), 2, None);
    gone(pids);
    for call in node_hooks.stopping.remove(&NODE).unwrap() {
        let RunningHook::Program(program) = call else { panic!("a program") };
        program.over();
    }
    assert!(told.try_recv().is_err(), "the end was requested");
}

#[test]
fn stop_ends_the_program_of_a_former_listing() {
    let (mut node_hooks, _told) = node_hooks();
    let pids = stay(&mut node_hooks, "listed", false);
    node_hooks.release(NODE);
    node_hooks.stop(NodeId(9), &"n".into(), &start("", false), 2, None);
    gone(pids);
}

#[test]
fn program_that_ignores_the_stop_is_killed_at_its_end() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("pid");
    let script =
        format!("trap '' TERM; echo $$ > {0}.new; mv {0}.new {0}; sleep 300", file.display());
    let (mut node_hooks, _told) = node_hooks();
    node_hooks.start(NODE, &"n".into(), &start(&script, false), 1, None);
    let pid = until(|| std::fs::read_to_string(&file).ok()).trim().parse().unwrap();
    node_hooks.stop(NODE, &"n".into(), &start("", false), 2, None);
    assert!(is_running(pid));
    node_hooks.end_stop(NODE);
    gone([pid, pid]);
}

#[test]
fn stop_hook_is_called_and_leaves_the_program_to_it() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("stop");
    let (mut node_hooks, _told) = node_hooks();
    let pids = stay(&mut node_hooks, "serves", true);
    let script = format!("echo $TRACEPARENT > {0}.new; mv {0}.new {0}", file.display());
    let words: [Arc<str>; 3] = ["/bin/sh", "-c", &script].map(Into::into);
    let stops = StartHook { stop: Some(words.into()), ..start("", true) };
    let trace = TraceHeaders { traceparent: "00-ab-cd-01".to_owned(), tracestate: None };
    node_hooks.stop(NODE, &"n".into(), &stops, 2, Some(trace));
    assert_eq!(until(|| std::fs::read_to_string(&file).ok()), "00-ab-cd-01\n");
    assert!(pids.iter().all(|pid| is_running(*pid)));
    drop(node_hooks);
    gone(pids);
}

/// A webhook server with these answers; returns its requests.
fn asked(answers: &[&str]) -> (StartHook, JoinHandle<Vec<String>>) {
    let answers = answers.iter().map(|status| says(status, "")).collect();
    let (url, asked) = server(answers);
    let url = url.parse().unwrap();
    let by = StartBy::Webhook(Arc::new(WebhookTarget { url, token: None }));
    (hook(by, Duration::from_secs(9)), asked)
}

/// A slow webhook server, and the start settings for it.
fn slow() -> (StartHook, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/start", listener.local_addr().unwrap()).parse().unwrap();
    let by = StartBy::Webhook(Arc::new(WebhookTarget { url, token: None }));
    (hook(by, Duration::from_secs(30)), listener)
}

#[tokio::test]
async fn webhook_start_fails_by_its_answer() {
    let (failed, mut told) = tokio::sync::mpsc::channel(1);
    let mut node_hooks = NodeHooks::new(failed, Some(Poster::start().unwrap()), true);
    let (well, first) = asked(&["202 Accepted"]);
    let trace = TraceHeaders { traceparent: "00-ab-cd-01".to_owned(), tracestate: None };
    node_hooks.start(NODE, &"east-b1".into(), &well, 0xf3, Some(trace));
    let request = tokio::task::spawn_blocking(|| first.join().unwrap().remove(0)).await.unwrap();
    let body = r#"{"attempt":"00000000000000f3","node":"east-b1","verb":"start"}"#;
    assert!(request.ends_with(body), "{request}");
    assert!(request.contains("traceparent: 00-ab-cd-01"), "{request}");
    let (ill, _) = asked(&["503 Service Unavailable"]);
    node_hooks.start(NODE, &"east-b1".into(), &ill, 2, None);
    let failed = HookFailed { node: NODE, attempt: 2 };
    assert_eq!(told.recv().await, Some(failed), "the second, not the first");
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn webhook_that_started_a_node_is_told_to_stop_it() {
    let (failed, _told) = tokio::sync::mpsc::channel(1);
    let mut node_hooks = NodeHooks::new(failed, Some(Poster::start().unwrap()), true);
    let (hook, requests) = asked(&["200 OK"]);
    node_hooks.stop(NODE, &"east-b1".into(), &hook, 0xf4, None);
    let request = tokio::task::spawn_blocking(|| requests.join().unwrap().remove(0)).await.unwrap();
    let body = r#"{"attempt":"00000000000000f4","node":"east-b1","verb":"stop"}"#;
    assert!(request.ends_with(body), "{request}");
}

#[tokio::test]
async fn stop_ends_the_request_that_started_the_node() {
    let (failed, _told) = tokio::sync::mpsc::channel(1);
    let mut node_hooks = NodeHooks::new(failed, Some(Poster::start().unwrap()), true);
    let (slow, _listener) = slow();
    node_hooks.start(NODE, &"n".into(), &slow, 1, None);
    let RunningHook::Post(task) = &node_hooks.running[&NODE].running else { panic!("a POST") };
    let task = task.clone();
    let words: [Arc<str>; 1] = ["/bin/true".into()];
    let stops = StartHook { stop: Some(words.into()), ..slow };
    node_hooks.stop(NODE, &"n".into(), &stops, 2, None);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(task.is_finished());
}

#[tokio::test]
async fn slow_webhook_is_asked_once() {
    let (failed, mut told) = tokio::sync::mpsc::channel(1);
    let mut node_hooks = NodeHooks::new(failed, Some(Poster::start().unwrap()), true);
    let (start, listener) = slow();
    node_hooks.start(NODE, &"n".into(), &start, 1, None);
    let answering = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Longer than a request's timeout.
        std::thread::sleep(Duration::from_millis(1_500));
        listener.set_nonblocking(true).unwrap();
        let again = listener.accept().is_ok();
        stream.write_all(says("200 OK", "").as_bytes()).unwrap();
        again
    });
    assert!(!answering.await.unwrap());
    let (start, listener) = slow();
    node_hooks.start(NODE, &"n".into(), &start, 2, None);
    let accepted = tokio::task::spawn_blocking(move || listener.accept().unwrap().0);
    let mut stream = accepted.await.unwrap();
    node_hooks.give_up(NODE);
    let ended = tokio::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_to_end(&mut Vec::new()).is_ok()
    });
    assert!(ended.await.unwrap(), "the connection is closed long before the answer is late");
    drop(node_hooks);
    assert_eq!(told.recv().await, None, "nothing failed");
}
