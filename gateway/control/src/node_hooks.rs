//! Hooks that start and stop nodes: a program watched by a thread, or a webhook, so that control never blocks.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel_config::{StartBy, StartHook, WebhookTarget};
use evenkeel_http::{Effort, HttpError, Poster, TraceHeaders, WebhookMessage};
use evenkeel_model::NodeId;
use evenkeel_process::{lock, sandbox};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use pidfd_util::{PidFd, PidFdExt};
use serde_json::json;
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;

use crate::traces::NodeHook;

/// Wait at shutdown for programs that end with the gateway.
const GONE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HookFailed {
    pub(super) node: NodeId,
    attempt: u64,
}

pub(super) struct NodeHooks {
    /// Channel of failed hooks. If it is full, the node's start timeout has the same effect.
    failed: Sender<HookFailed>,
    /// Present once webhooks are configured.
    poster: Option<Poster>,
    /// Programs run in the sandbox of hooks.
    confined: bool,
    running: BTreeMap<NodeId, StartAttempt>,
    /// Hooks that stop a node, and the programs that started it and were told to end.
    stopping: BTreeMap<NodeId, Vec<RunningHook>>,
    /// Programs of removed nodes that still run, by the node's name.
    released: Vec<(Arc<str>, HookProgram)>,
    /// Threads of programs that were told to end. The thread of the node's next call joins them.
    ending: BTreeMap<NodeId, Vec<JoinHandle<()>>>,
}

struct StartAttempt {
    attempt: u64,
    name: Arc<str>,
    running: RunningHook,
}

enum RunningHook {
    Program(HookProgram),
    Post(AbortHandle),
}

impl NodeHooks {
    pub(super) fn new(
        failed: Sender<HookFailed>,
        poster: Option<Poster>,
        confined: bool,
    ) -> NodeHooks {
        NodeHooks {
            failed,
            poster,
            confined,
            running: BTreeMap::new(),
            stopping: BTreeMap::new(),
            released: Vec::new(),
            ending: BTreeMap::new(),
        }
    }

    /// Posts webhooks by this client from now on.
    pub(crate) fn set_poster(&mut self, poster: &Poster) {
        self.poster = Some(poster.clone());
    }

    /// Calls the node's hook; `attempt` is unique. A program of an earlier call is ended first: it hangs, or did not
    /// bring the node up. So is a [released](NodeHooks::release) program of the same node name: it may hold resources
    /// that this one needs.
    pub(super) fn start(
        &mut self,
        node: NodeId,
        name: &Arc<str>,
        start: &StartHook,
        attempt: u64,
        trace: Option<TraceHeaders>,
    ) {
        self.give_up(node);
        self.end_stop(node);
        let left = self.released.extract_if(.., |(released, _)| released == name);
        self.ending.entry(node).or_default().extend(left.map(|(_, program)| program.end()));
        let running = match &start.by {
            StartBy::Command { words, stop_with_gateway } => {
                self.run(HookFailed { node, attempt }, name, words, *stop_with_gateway, trace)
            }
            StartBy::Webhook(hook) => {
                let failed = self.failed.clone();
                let tell = move || {
                    // Fails only if control has ended.
                    let _ = failed.try_send(HookFailed { node, attempt });
                };
                let message = message(NodeHook::Start, name, attempt, hook, trace);
                Some(self.post(NodeHook::Start, name, message, start.within, tell))
            }
        };
        if let Some(running) = running {
            self.running.insert(node, StartAttempt { attempt, name: Arc::clone(name), running });
        }
    }

    /// Calls the hook that stops the node. Without one, the program that started it is told to end.
    pub(super) fn stop(
        &mut self,
        node: NodeId,
        name: &Arc<str>,
        start: &StartHook,
        attempt: u64,
        trace: Option<TraceHeaders>,
    ) {
        let mut calls = Vec::new();
        let running = self.running.remove(&node).map(|call| call.running);
        let left = self.released.extract_if(.., |(released, _)| released == name);
        let left = left.map(|(_, program)| RunningHook::Program(program));
        for call in running.into_iter().chain(left) {
            match call {
                RunningHook::Program(program) if program.ask_to_end(start.stop.is_none()) => {
                    calls.push(RunningHook::Program(program));
                }
                RunningHook::Program(_) => {}
                // Repeated, the request would start the node again.
                RunningHook::Post(task) => task.abort(),
            }
        }
        match (&start.stop, &start.by) {
            (Some(words), _) => {
                let call = ProgramCall::new(NodeHook::Stop, name, words, trace);
                match HookProgram::start(call, false, self.confined, Vec::new(), || {}) {
                    Ok(program) => calls.push(RunningHook::Program(program)),
                    Err(error) => {
                        tracing::warn!(node = %name, %error, "no thread for the stop hook");
                    }
                }
            }
            (None, StartBy::Webhook(hook)) => {
                let message = message(NodeHook::Stop, name, attempt, hook, trace);
                calls.push(self.post(NodeHook::Stop, name, message, start.within, || {}));
            }
            (None, StartBy::Command { .. }) if calls.is_empty() => {
                tracing::warn!(
                    node = %name,
                    "node is not stopped: no program that started it runs here; set `stop`"
                );
            }
            (None, StartBy::Command { .. }) => {}
        }
        self.stopping.entry(node).or_default().extend(calls);
    }

    /// Ends programs and requests that still stop the node, and the program that started it.
    pub(super) fn end_stop(&mut self, node: NodeId) {
        for call in self.stopping.remove(&node).unwrap_or_default() {
            self.end(node, call);
        }
    }

    fn end(&mut self, node: NodeId, call: RunningHook) {
        match call {
            RunningHook::Program(program) => {
                self.ending.entry(node).or_default().push(program.end());
            }
            RunningHook::Post(task) => task.abort(),
        }
    }

    pub(super) fn is_under_way(&self, failed: HookFailed) -> bool {
        self.running.get(&failed.node).is_some_and(|call| call.attempt == failed.attempt)
    }

    fn run(
        &mut self,
        word: HookFailed,
        name: &Arc<str>,
        words: &[Arc<str>],
        stops: bool,
        trace: Option<TraceHeaders>,
    ) -> Option<RunningHook> {
        let before = self.ending.remove(&word.node).unwrap_or_default();
        let failed = self.failed.clone();
        let tell = move || {
            // Fails only if control has ended.
            let _ = failed.try_send(word);
        };
        let call = ProgramCall::new(NodeHook::Start, name, words, trace);
        match HookProgram::start(call, stops, self.confined, before, tell) {
            Ok(program) => Some(RunningHook::Program(program)),
            Err(error) => {
                // The core calls the hook again when the node's start times out.
                tracing::warn!(node = %name, %error, "no thread for the start hook");
                None
            }
        }
    }

    /// The server answers with 200 to 299, at the latest when the timeout of the node ends. Failed requests are repeated
    /// with the same attempt.
    fn post(
        &self,
        hook: NodeHook,
        name: &Arc<str>,
        message: WebhookMessage,
        within: Duration,
        failed: impl FnOnce() + Send + 'static,
    ) -> RunningHook {
        let (name, poster) = (Arc::clone(name), self.poster.clone());
        let task = tokio::spawn(async move {
            let answer = match poster {
                Some(poster) => poster.post(message, Effort::of_start(within)).await,
                None => Err(HttpError::Busy),
            };
            let why = match answer {
                Ok(answer) if (200..300).contains(&answer.status) => return,
                Ok(answer) => format!("HTTP status {}", answer.status),
                Err(error) => error.to_string(),
            };
            tracing::warn!(node = %name, %why, "{} webhook failed", hook.name());
            failed();
        });
        RunningHook::Post(task.abort_handle())
    }

    /// The start timed out: ends the program without waiting for it.
    pub(super) fn give_up(&mut self, node: NodeId) {
        if let Some(call) = self.running.remove(&node) {
            self.end(node, call.running);
        }
    }

    /// The node was removed. Its program runs on, as the node may, until a node with this name is started.
    pub(super) fn release(&mut self, node: NodeId) {
        self.stopping.remove(&node);
        self.released.retain(|(_, program)| !program.thread.is_finished());
        if let Some(StartAttempt { name, running: RunningHook::Program(program), .. }) =
            self.running.remove(&node)
        {
            self.released.push((name, program));
        }
    }

    /// Lets all programs run on: another process has the sessions at their nodes.
    pub(super) fn leave_running(&mut self) {
        self.released.clear();
        self.stopping.clear();
        for call in std::mem::take(&mut self.running).into_values() {
            if let RunningHook::Post(task) = call.running {
                task.abort();
            }
        }
    }
}

/// The request of a start or stop: `{"verb":"start","node":"east-b1","attempt":"00f3…"}`.
fn message(
    hook: NodeHook,
    name: &str,
    attempt: u64,
    target: &Arc<WebhookTarget>,
    trace: Option<TraceHeaders>,
) -> WebhookMessage {
    let body = json!({"verb": hook.name(), "node": name, "attempt": format!("{attempt:016x}")});
    WebhookMessage { hook: Arc::clone(target), body: body.to_string().into(), trace }
}

impl Drop for NodeHooks {
    fn drop(&mut self) {
        let mut programs: Vec<_> = self.released.drain(..).map(|(_, program)| program).collect();
        let started = std::mem::take(&mut self.running).into_values().map(|call| call.running);
        let stopping = std::mem::take(&mut self.stopping).into_values().flatten();
        for call in started.chain(stopping) {
            match call {
                RunningHook::Program(program) => programs.push(program),
                RunningHook::Post(task) => task.abort(),
            }
        }
        let stopped = programs.into_iter().filter(|program| program.stops);
        let ending = std::mem::take(&mut self.ending).into_values().flatten();
        let ending: Vec<_> = ending.chain(stopped.map(HookProgram::end)).collect();
        let by = Instant::now() + GONE_WITHIN;
        while !ending.iter().all(JoinHandle::is_finished) && Instant::now() < by {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A program that runs, or that waits for earlier programs to end.
struct HookProgram {
    phase: Arc<Mutex<ProgramPhase>>,
    thread: JoinHandle<()>,
    /// The program ends with the gateway.
    stops: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ProgramPhase {
    Waits,
    /// The number is that of the program's process group. The system does not reuse it before the program is waited
    /// for.
    Runs(Pid),
    /// The program has this process group, and is about to end, which is no failure.
    Ends(Pid),
    Over,
}

/// The call of a program.
struct ProgramCall {
    hook: NodeHook,
    /// The name of the node.
    name: Arc<str>,
    /// The program and its arguments.
    words: Vec<Arc<str>>,
    trace: Option<TraceHeaders>,
}

impl ProgramCall {
    fn new(
        hook: NodeHook,
        name: &Arc<str>,
        words: &[Arc<str>],
        trace: Option<TraceHeaders>,
    ) -> ProgramCall {
        ProgramCall { hook, name: Arc::clone(name), words: words.to_vec(), trace }
    }
}

impl HookProgram {
    /// Runs the program once all threads of `before` have ended. `failed` is called if the program cannot be run, or
    /// fails without having been ended.
    fn start(
        call: ProgramCall,
        stops: bool,
        confined: bool,
        before: Vec<JoinHandle<()>>,
        failed: impl FnOnce() + Send + 'static,
    ) -> io::Result<HookProgram> {
        let phase = Arc::new(Mutex::new(ProgramPhase::Waits));
        let (seen, thread) = (Arc::clone(&phase), format!("{} node", call.hook.name()));
        let run = move || {
            // An error means that the thread panicked, and so has ended too.
            before.into_iter().for_each(|before| _ = before.join());
            if confined {
                confine();
            }
            let ill = match run(&call, &seen) {
                Ok(None) => return,
                Ok(Some(status)) => describe(status),
                Err(error) => format!("cannot be run: {error}"),
            };
            let ProgramCall { hook, name, words, .. } = &call;
            tracing::warn!(node = %name, program = %words[0], "{} hook failed: {ill}", hook.name());
            failed();
        };
        let thread = std::thread::Builder::new().name(thread).spawn(run)?;
        Ok(HookProgram { phase, thread, stops })
    }

    /// Ends the program and its process group, or cancels its start. The thread returned must be joined.
    fn end(self) -> JoinHandle<()> {
        let mut phase = lock(&self.phase);
        let before = std::mem::replace(&mut *phase, ProgramPhase::Over);
        if let ProgramPhase::Runs(group) | ProgramPhase::Ends(group) = before {
            kill(group);
        }
        drop(phase);
        self.thread
    }

    /// The node is about to stop, and so is its program. With `terminate` the program is told to end by SIGTERM. Returns
    /// false if it has ended.
    fn ask_to_end(&self, terminate: bool) -> bool {
        let mut phase = lock(&self.phase);
        match *phase {
            ProgramPhase::Waits => *phase = ProgramPhase::Over,
            ProgramPhase::Runs(group) => {
                *phase = ProgramPhase::Ends(group);
                if terminate {
                    // Fails only if the group is empty.
                    let _ = killpg(group, Signal::SIGTERM);
                }
            }
            ProgramPhase::Ends(_) => {}
            ProgramPhase::Over => return false,
        }
        true
    }
}

/// Confines the programs of this thread.
fn confine() {
    static WARNED: Once = Once::new();
    if let Err(missing) = sandbox::confine_hooks() {
        WARNED.call_once(|| {
            tracing::warn!(%missing, "hooks of nodes can read the memory of other processes of this user");
        });
    }
}

/// The group number must be valid: the leader of the group was not waited for.
fn kill(group: Pid) {
    // Fails only if the group is empty.
    let _ = killpg(group, Signal::SIGKILL);
}

/// Returns the exit status, unless the program succeeded or was ended.
fn run(call: &ProgramCall, phase: &Mutex<ProgramPhase>) -> io::Result<Option<WaitStatus>> {
    if *lock(phase) == ProgramPhase::Over {
        return Ok(None);
    }
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = command(&call.words, call.trace.as_ref(), theirs)?.spawn()?;
    let group = Pid::from_raw(child.id() as i32);
    match &mut *lock(phase) {
        waits @ ProgramPhase::Waits => *waits = ProgramPhase::Runs(group),
        ProgramPhase::Runs(_) | ProgramPhase::Ends(_) | ProgramPhase::Over => kill(group),
    }
    let watched = watch(&child, call.hook, &call.name, &ours);
    let mut phase = lock(phase);
    let before = std::mem::replace(&mut *phase, ProgramPhase::Over);
    let by_itself = matches!(before, ProgramPhase::Runs(_));
    // Does not reap the process.
    let status = || waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let ended = watched.and_then(|()| Ok(status()?));
    if !by_itself || !matches!(ended, Ok(WaitStatus::Exited(_, 0))) {
        kill(group);
    }
    child.wait()?;
    let ended = ended?;
    Ok((by_itself && !matches!(ended, WaitStatus::Exited(_, 0))).then_some(ended))
}

/// The program gets its own process group: terminal signals to the gateway do not reach it, and its children end with
/// it. Output goes to a datagram socket: without a reader writes fail, but send no SIGPIPE, so the program may outlive
/// the gateway. TRACEPARENT and TRACESTATE are those of the start, never those that the gateway inherited (OpenTelemetry, environment
/// variables as context carriers).
fn command(
    words: &[Arc<str>],
    trace: Option<&TraceHeaders>,
    writes: UnixDatagram,
) -> io::Result<Command> {
    let mut command = Command::new(&*words[0]);
    command.args(words[1..].iter().map(|word| &**word));
    command.env_remove("TRACEPARENT").env_remove("TRACESTATE");
    if let Some(TraceHeaders { traceparent, tracestate }) = trace {
        command.env("TRACEPARENT", traceparent);
        command.envs(tracestate.iter().map(|state| ("TRACESTATE", &**state)));
    }
    let writes = OwnedFd::from(writes);
    command.stdin(Stdio::null()).stdout(writes.try_clone()?).stderr(writes).process_group(0);
    Ok(command)
}

fn watch(child: &Child, hook: NodeHook, name: &str, says: &UnixDatagram) -> io::Result<()> {
    let held = PidFd::from_pid(child.id() as i32)?;
    let mut output = ProgramOutput::new(hook, name);
    loop {
        let mut fds = [held.as_fd(), says.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = fds[0].any() == Some(true);
        output.read(says);
        if ended {
            return Ok(());
        }
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        other => format!("ended: {other:?}"),
    }
}

/// Longer lines are truncated.
const LINE_MAX: usize = 512;

/// Lines per second; excess is counted. A server that logs every packet must not fill the gateway's log.
const LINES_PER_SECOND: u32 = 50;

/// Size limit of one write. The rest of a longer write is lost.
const WRITE_MAX: usize = 64 << 10;

struct ProgramOutput<'a> {
    hook: NodeHook,
    node: &'a str,
    line: Vec<u8>,
    /// Start of the current second, and lines logged in it.
    shown: (Instant, u32),
    /// Lines of the current second that were not logged.
    hidden: u64,
    bytes: Vec<u8>,
}

impl ProgramOutput<'_> {
    fn new(hook: NodeHook, node: &str) -> ProgramOutput<'_> {
        let shown = (Instant::now(), 0);
        ProgramOutput { hook, node, line: Vec::new(), shown, hidden: 0, bytes: vec![0; WRITE_MAX] }
    }

    fn read(&mut self, says: &UnixDatagram) {
        let mut bytes = std::mem::take(&mut self.bytes);
        while let Ok(length) = says.recv(&mut bytes) {
            if length == 0 {
                break;
            }
            for line in self.take(&bytes[..length], Instant::now()) {
                tracing::info!(node = %self.node, "{} hook: {line}", self.hook.name());
            }
        }
        self.bytes = bytes;
    }

    fn take(&mut self, bytes: &[u8], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => lines.extend(self.line_ends(now)),
                _ if self.line.len() < LINE_MAX => self.line.push(byte),
                _ => {}
            }
        }
        lines
    }

    fn line_ends(&mut self, now: Instant) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.line).replace(char::is_control, " ");
        self.line.clear();
        let mut lines = Vec::new();
        if now.saturating_duration_since(self.shown.0) >= Duration::from_secs(1) {
            self.shown = (now, 0);
            if self.hidden > 0 {
                lines.push(format!("({} lines were not shown)", std::mem::take(&mut self.hidden)));
            }
        }
        if self.shown.1 < LINES_PER_SECOND {
            self.shown.1 += 1;
            lines.push(text);
        } else {
            self.hidden += 1;
        }
        lines
    }
}

impl Drop for ProgramOutput<'_> {
    /// Logs the last line, which may lack a newline.
    fn drop(&mut self) {
        if !self.line.is_empty() {
            for line in self.line_ends(Instant::now()) {
                tracing::info!(node = %self.node, "{} hook: {line}", self.hook.name());
            }
        }
    }
}

#[cfg(test)]
mod tests;
