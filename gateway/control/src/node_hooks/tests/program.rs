use std::ffi::OsStr;
use std::sync::mpsc;

use tempfile::tempdir;

use super::super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn words(script: &str) -> [Arc<str>; 3] {
    ["/bin/sh", "-c", script].map(Into::into)
}

fn call(words: &[Arc<str>]) -> ProgramCall {
    ProgramCall::new(NodeHook::Start, &"n".into(), words, None)
}

#[test]
fn program_inherits_no_trace() {
    let (writes, _reads) = UnixDatagram::pair().unwrap();
    let command = command(&words("exit 0"), None, writes).unwrap();
    let changed: Vec<(&OsStr, Option<&OsStr>)> = command.get_envs().collect();
    assert_eq!(changed, ["TRACEPARENT", "TRACESTATE"].map(|name| (OsStr::new(name), None)));
}

#[test]
fn call_waits_for_the_one_before_and_may_be_cancelled() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("before");
    let begin = |ends: bool| {
        let (end, ended) = mpsc::channel::<()>();
        let before = std::thread::spawn(move || ended.recv().unwrap_or_default());
        let script = words(&format!("touch {}", file.display()));
        let program = HookProgram::start(call(&script), false, true, vec![before], || {}).unwrap();
        if ends {
            let thread = program.end();
            drop(end);
            thread.join().unwrap();
        } else {
            assert!(!file.exists());
            drop(end);
            program.over();
        }
        file.exists()
    };
    assert!(!begin(true), "it never ran");
    assert!(begin(false));
}

#[test]
fn program_exit_is_described() {
    let run = |script: &str| run(&call(&words(script)), &Mutex::new(ProgramPhase::Waits)).unwrap();
    assert_eq!(run("exit 0").map(describe), None);
    assert_eq!(run("exit 3").map(describe).unwrap(), "exit status 3");
    assert_eq!(run("kill -9 $$").map(describe).unwrap(), "killed by SIGKILL");
}

#[test]
fn program_survives_the_end_of_its_reader() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    drop(ours);
    let mut child =
        command(&words("echo a; echo b; exit 0"), None, theirs).unwrap().spawn().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn program_output_is_logged_with_the_node() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let child = command(&words("echo out; echo err >&2; exit 0"), None, theirs).unwrap().spawn();
    let mut child = child.unwrap();
    let log = Log::default();
    let writer = log.clone();
    let people = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = people.with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        watch(&child, NodeHook::Start, "east-b1", &ours).unwrap();
    });
    child.wait().unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for line in ["start hook: out node=east-b1", "start hook: err node=east-b1"] {
        assert!(log.contains(line), "{log}");
    }
}
