//! The program that moves an address where no interface of this host can have it, such as through a provider's API.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pidfd_util::{PidFd, PidFdExt};
use tokio::sync::oneshot;

/// The times of a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct HookTiming {
    /// A call is killed after this time.
    within: Duration,
    /// Wait after a failed call.
    again_after: Duration,
}

/// Providers' APIs take seconds.
const PACE: HookTiming =
    HookTiming { within: Duration::from_secs(10), again_after: Duration::from_secs(1) };

#[derive(Debug)]
pub(super) struct AddressHook {
    words: Arc<[String]>,
    address: IpAddr,
    pace: HookTiming,
    /// Present once called: a thread that is started before the process gives up its privileges would keep them.
    calls: Option<Sender<HookCall>>,
}

const ACQUIRE: &str = "acquire";
const RELEASE: &str = "release";

struct HookCall {
    verb: &'static str,
    /// Dropped without a word if the call failed or another replaced it.
    done: oneshot::Sender<()>,
}

impl AddressHook {
    pub(super) fn new(words: Vec<String>, address: IpAddr) -> AddressHook {
        AddressHook { words: words.into(), address, pace: PACE, calls: None }
    }

    /// Calls the program until it succeeds, or [`release`](Hook::release) is called.
    pub(super) fn acquire(&mut self) {
        drop(self.call(ACQUIRE));
    }

    /// Calls the program, once an earlier call of it has ended. The receiver returns when it has succeeded or failed.
    pub(super) fn release(&mut self) -> oneshot::Receiver<()> {
        self.call(RELEASE)
    }

    fn call(&mut self, verb: &'static str) -> oneshot::Receiver<()> {
        let (done, is_done) = oneshot::channel();
        let call = HookCall { verb, done };
        let refused = match &self.calls {
            Some(calls) => calls.send(call).err().map(|error| error.0),
            None => Some(call),
        };
        if let Some(call) = refused {
            let (calls, to_execute) = mpsc::channel();
            // The receiver is here.
            let _ = calls.send(call);
            let (words, address, pace) = (Arc::clone(&self.words), self.address, self.pace);
            let run = move || execute(&words, address, pace, &to_execute);
            match thread::Builder::new().name("address hook".to_owned()).spawn(run) {
                Ok(_) => self.calls = Some(calls),
                Err(error) => tracing::error!(%address, %error, "no thread for the address hook"),
            }
        }
        is_done
    }
}

/// Executes calls until the hook is dropped. A newer call replaces one that is to be repeated.
fn execute(words: &[String], address: IpAddr, pace: HookTiming, calls: &Receiver<HookCall>) {
    let mut next = calls.recv().ok();
    while let Some(call) = next.take() {
        let word = call.verb;
        let failed = match run(words, word, address, pace.within) {
            Ok(()) => {
                tracing::info!(%address, "address hook: {word}");
                // Fails if the caller does not wait.
                let _ = call.done.send(());
                None
            }
            Err(why) => {
                tracing::warn!(%address, program = %words[0], "address hook failed: {word}: {why}");
                (word == ACQUIRE).then_some(call)
            }
        };
        next = match failed {
            None => calls.recv().ok(),
            Some(again) => match calls.recv_timeout(pace.again_after) {
                Ok(newer) => Some(newer),
                Err(RecvTimeoutError::Timeout) => Some(again),
                Err(RecvTimeoutError::Disconnected) => None,
            },
        };
        next = calls.try_iter().last().or(next);
    }
}

fn run(words: &[String], verb: &str, address: IpAddr, within: Duration) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("no program is configured")?;
    let mut command = Command::new(program);
    command.args(arguments).arg(verb).arg(address.to_string());
    // Standard output may be read by a program that expects the gateway's.
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot be run: {error}"))?;
    let ended = wait(&mut child, within).map_err(|error| error.to_string())?;
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(status.to_string()),
        None => Err(format!("killed after {within:?}")),
    }
}

/// The exit status of a process that ends within this time; others are killed, with their process group.
fn wait(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let (process, until) = (PidFd::from_pid(child.id() as i32)?, Instant::now() + within);
    let is_over = loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) if ready > 0 => break true,
            Err(errno) if errno != Errno::EINTR => return Err(errno.into()),
            Ok(_) | Err(_) if left.is_zero() => break false,
            Ok(_) | Err(_) => {}
        }
    };
    if !is_over {
        // The number is not reused before the process is waited for.
        killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL)?;
    }
    let status = child.wait()?;
    Ok(is_over.then_some(status))
}

#[cfg(test)]
mod tests;
