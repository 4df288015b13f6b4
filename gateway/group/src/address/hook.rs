//! The program that moves an address where no interface of this host can have it, such as through a provider's API.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use evenkeel_process::program;
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
        let failed = match program::run(words, &[word, &address.to_string()], pace.within) {
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

#[cfg(test)]
mod tests;
